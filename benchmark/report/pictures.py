"""Pictures of a fitted model: reconstructions, samples, interpolations, traversals."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..metrics import Fitted, NotApplicable, as_uint8
from ..metrics.interpolation import draw_pairs, unshared

TILE = 32
"""Pixels that the longer side of an image has at least, once enlarged."""
GAP = 2
"""Pixels between two images."""
WHITE = 255


def pictures(fitted: Fitted) -> dict[str, np.ndarray]:
    """Every picture that the model can give, by name: uint8 (H, W, 3).

    ``reconstructions``, ``samples-<sampler>``, ``interpolations`` and ``traversals``. The global
    random state is left as it was.
    """
    makers: dict[str, Callable[[Fitted], np.ndarray]] = {
        "reconstructions": reconstructions,
        **{f"samples-{name}": partial(samples, sampler=name) for name in fitted.samplers},
        "interpolations": interpolations,
        "traversals": traversals,
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make(fitted)
        except NotApplicable:
            continue
    return found


def reconstructions(fitted: Fitted, n: int = 10) -> np.ndarray:
    """The first ``n`` test images above their reconstructions, uint8 (H, W, 3)."""
    originals = fitted.split("test").images(slice(n)).cpu()
    copies = as_uint8(fitted.reconstructions("test")[:n])
    return tiled(torch.cat([originals, copies]), len(originals))


def samples(fitted: Fitted, sampler: str, n: int = 64) -> np.ndarray:
    """``n`` images drawn by a sampler, eight a row, uint8 (H, W, 3).

    Raises:
        NotApplicable: the sampler cannot serve the model.
    """
    return tiled(fitted.samples(sampler, n), 8)


def interpolations(fitted: Fitted, pairs: int = 6, points: int = 10) -> np.ndarray:
    """A row a pair of test images: what lies on the line between their codes, ends included.

    Both images of a pair have the same label where the decoder reads it. uint8 (H, W, 3).

    Raises:
        NotApplicable: the test split has no pair, or the decoder reads more than the label.
    """
    if why := unshared(fitted):
        raise NotApplicable(why)
    codes = fitted.codes("test").cpu()
    labels = fitted.labels("test") if fitted.model.given else None
    with fitted.random("pictures", "interpolations"):
        first, second = draw_pairs(len(codes), pairs, labels).unbind(1)
    steps = torch.linspace(0, 1, points)
    weights = steps.view(points, *[1] * (codes.ndim - 1))
    path = torch.cat([torch.lerp(codes[i], codes[j], weights) for i, j in zip(first, second)])
    along = None if labels is None else labels[first].repeat_interleave(points)
    return tiled(fitted.decode(path, along), points)


def traversals(fitted: Fitted, dims: int = 10, steps: int = 8) -> np.ndarray:
    """A row a dimension of the code: it alone varies, around the first test image's code.

    The dimensions are the ``dims`` of largest variance over test codes, the largest first; each
    goes in equal steps from the 2.5 % to the 97.5 % quantile of its test codes. uint8 (H, W, 3).

    Raises:
        NotApplicable: the codes are discrete or have a spatial extent.
    """
    codes = fitted.codes("test").float().cpu()
    if fitted.model.discrete or codes.ndim > 2:
        raise NotApplicable("the codes are discrete or spatial")
    chosen = codes.var(0, correction=0).argsort(descending=True, stable=True)[:dims]
    low, high = np.quantile(codes[:, chosen].numpy(), [0.025, 0.975], axis=0)
    path = codes[0].repeat(len(chosen), steps, 1)
    for row, dim in enumerate(chosen):
        path[row, :, dim] = torch.linspace(float(low[row]), float(high[row]), steps)
    given = fitted.conditions("test", torch.zeros(len(chosen) * steps, dtype=torch.int64))
    return tiled(fitted.decode(path.flatten(0, 1), given), steps)


def tiled(images: Tensor, columns: int) -> np.ndarray:
    """Images uint8 (n, C, H, W) row by row on white, enlarged by a whole number: (H', W', 3).

    Grey is repeated to RGB; other than three channels are averaged.
    """
    pixels = images.numpy()
    if pixels.shape[1] != 3:
        mean = pixels.mean(axis=1, keepdims=True).round().astype(np.uint8)
        pixels = mean.repeat(3, axis=1)
    scale = math.ceil(TILE / max(pixels.shape[2:]))
    pixels = pixels.repeat(scale, axis=2).repeat(scale, axis=3).transpose(0, 2, 3, 1)
    n, height, width = pixels.shape[:3]
    rows = math.ceil(n / columns)
    size = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3)
    sheet = np.full(size, WHITE, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet
