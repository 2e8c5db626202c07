"""Lines from the centre to the rim, on which an interpolation can be told right from wrong."""

import functools
import hashlib
import math
from typing import Any

import torch
from torch import Tensor

from ..plugins import InputError
from ..seeds import derive_seed
from .base import Dataset, Split, SplitName

COUNTS: dict[SplitName, int] = {"train": 50_000, "val": 5_000, "test": 5_000}
DRAWN = 70_000
"""Angles drawn, of which a twelfth each fall to val and test: more than enough."""
CHUNK = 1 << 16
"""Pixels drawn at a time: temporaries that stay in a core's cache."""


class Lines(Dataset):
    r"""A white line from the centre towards the rim on black, at an angle uniform in [0, 2π).

    The lines benchmark of Berthelot et al. 2019, arXiv:1807.07543, drawn as its published program
    draws (https://github.com/brain-research/acai): for a side of S pixels the line is S/2 - 1 long
    and two pixels wide, across rows where it is steep and across columns where it is flat. A
    pixel's brightness is the part of it that is covered. Two irregularities of that program are
    kept, so that scores compare with published ones: a line is drawn one pixel too far to the
    right where it is flat, too far down where it is steep, so that it jumps aside at 135° and
    315°; and its outer end is smooth only where it points left or up.

    The images are uint8 in place of floats, and the training lines are 50,000 rather than an
    endless stream; val and test have 5,000 each. At 8 bits a quarter of the lines look like
    another; a hash of the image says which split it is in, so that no image is in two and the
    angles of each are uniform. The labels are the tenths of the turn (10 classes). The angle is
    continuous, so it is no factor: those have few values.

    Args:
        size: S, the side of an image in pixels, 16 to 64.
        limits: ``train``, ``val`` and ``test``, see :class:`Dataset`.

    Raises:
        InputError: ``size`` is out of range.
    """

    name = "lines"
    description = "60,000 drawn lines from the centre to the rim, 1×32×32, 10 classes of angle"

    def __init__(self, *, size: int = 32, **limits: Any) -> None:
        super().__init__(**limits)
        if not 16 <= size <= 64:
            raise InputError(f"dataset {self.name!r}: size must be 16 to 64, not {size}")
        self.size = size

    def load(self) -> dict[SplitName, Split]:
        return dict(all_lines(self.size))

    def line(self, angles: Tensor) -> Tensor:
        """The images of any angles in radians, (n,) → uint8 (n, 1, S, S), on the angles' device.

        Anticlockwise from the right. An image depends on its own angle alone, to the last bit.
        """
        # One by one: a sine computed in place could depend on the batch's length.
        numbers = angles.double().tolist()
        cos, sin = (
            torch.tensor([of(a) for a in numbers], dtype=torch.float64, device=angles.device)
            for of in (math.cos, math.sin)
        )
        images = angles.new_empty((len(angles), 1, self.size, self.size), dtype=torch.uint8)
        chunk = max(1, CHUNK // self.size**2)
        for start in range(0, len(angles), chunk):
            rows = slice(start, start + chunk)
            images[rows, 0] = draw(cos[rows], sin[rows], self.size)
        return images


def draw(cos: Tensor, sin: Tensor, size: int) -> Tensor:
    """Lines in the directions (cos, sin), float64 (n,): uint8 (n, size, size)."""
    centre = size / 2
    right, down = centre + (centre - 1) * cos, centre - (centre - 1) * sin
    # The longer way is cut into slices a pixel deep; each covers a stretch of two pixels.
    flat = (right - centre).abs() > (down - centre).abs()
    along, across = torch.where(flat, right, down), torch.where(flat, down, right)
    slope = (across - centre) / (along - centre)
    first, last = along.clamp(max=centre)[:, None], along.clamp(min=centre)[:, None]
    places = torch.arange(size, dtype=torch.float64, device=cos.device)
    depth = torch.where(places < first.ceil(), first.ceil() - first, 1.0)
    depth *= (places >= first.floor()) & (places < last.ceil())
    middle = centre + (places - centre - 0.5) * slope[:, None]  # + 0.5 would be right
    apart = (places + 0.5 - middle[:, :, None]).float().abs_()
    grey = (1.5 - apart).clamp_(0, 1).mul_(255 * depth.float()[:, :, None]).round_()
    image = grey.to(torch.uint8)
    return torch.where(flat[:, None, None], image.transpose(1, 2), image)


@functools.lru_cache(maxsize=1)
def all_lines(size: int) -> dict[SplitName, Split]:
    """Every split, drawn once a process: cells of one dataset follow each other."""
    generator = torch.Generator().manual_seed(derive_seed(Lines.name, "angles"))
    turns = torch.rand(DRAWN, dtype=torch.float64, generator=generator)
    images, labels = Lines(size=size).line(turns * (2 * math.pi)), (turns * 10).long()
    keys = [hashlib.blake2b(image, digest_size=7).digest() for image in images.numpy()]
    twelfth = torch.tensor([int.from_bytes(key) % 12 for key in keys])
    places = {"train": twelfth > 1, "val": twelfth == 0, "test": twelfth == 1}
    found: dict[SplitName, Split] = {}
    for name, count in COUNTS.items():
        index = places[name].nonzero()[:count, 0]
        found[name] = Split(images[index], labels[index])
    return found
