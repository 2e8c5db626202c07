"""The perceptual distance LPIPS, version 0.1 on AlexNet, from weights that are at hand."""

import os
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cache import cache_folder
from ..weights import genuine
from .base import NotApplicable

FILE = "alexnet-owt-7be5be79.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
PREFIX = "7be5be79"
"""How the SHA-256 of :data:`FILE` begins."""
LEAST_SIDE = 64
"""Pixels below which an image is enlarged: AlexNet's last maps would be a pixel or none."""
AT_ONCE = 100
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""The mean and the deviation of a colour in [-1, 1], of ImageNet as LPIPS has them."""

# in channels, out channels, kernel, stride, padding, index among torchvision's layers, pooled
CONVOLUTIONS = (
    (3, 64, 11, 4, 2, 0, False),
    (64, 192, 5, 1, 2, 3, True),
    (192, 384, 3, 1, 1, 6, True),
    (384, 256, 3, 1, 1, 8, False),
    (256, 256, 3, 1, 1, 10, False),
)


class Perceptual(nn.Module):
    """AlexNet's five convolutions and LPIPS' weight of each of their channels.

    Krizhevsky 2014, arXiv:1404.5997, is the AlexNet; Zhang et al. 2018, arXiv:1801.03924, LPIPS.

    Args:
        features: torchvision's state of AlexNet, ``features.0.weight`` and so on; more is ignored.
        weights: LPIPS' state, ``lin0.model.1.weight`` (1, 64, 1, 1) and so on.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, features: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for stage, (ins, outs, kernel, stride, padding, index, pooled) in enumerate(CONVOLUTIONS):
            convolution = nn.Conv2d(ins, outs, kernel, stride, padding)
            held = {key: features[f"features.{index}.{key}"] for key in ("weight", "bias")}
            convolution.load_state_dict(held)
            pooling = [nn.MaxPool2d(3, 2)] if pooled else []
            self.stages.append(nn.Sequential(*pooling, convolution, nn.ReLU()))
            self.register_buffer(f"weight{stage}", weights[f"lin{stage}.model.1.weight"].clone())
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps after each stage of images (n, 3, H, W) in [-1, 1], of unit norm at each place.

        A place whose channels are all zero stays zero.
        """
        x, maps = (x - self.shift) / self.scale, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return maps


def distance(network: Perceptual, images: Tensor, others: Tensor) -> Tensor:
    r"""LPIPS of each pair of images, a distance of 0 or more: float64 (n,).

    .. math:: \sum_l \frac{1}{H_l W_l} \sum_{h,w} \sum_c
        w_{lc} (\hat f_{lhwc}(x) - \hat f_{lhwc}(y))^2

    f̂ being the maps of :meth:`Perceptual.forward`. Grey is repeated to three channels, and an
    image whose shorter side has fewer than 64 pixels is enlarged to that, in proportion and
    bilinearly. Zhang et al. 2018, arXiv:1801.03924.

    Args:
        network: what :func:`network` gives.
        images: (n, C, H, W) in [0, 1], C of 1 or 3, on the network's device.
        others: the same.
    """
    total = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for stage, (a, b) in enumerate(zip(network(prepared(images)), network(prepared(others)))):
        weight = network.get_buffer(f"weight{stage}")
        total += ((a - b).square() * weight).sum(1).double().flatten(1).mean(1)
    return total


def prepared(images: Tensor) -> Tensor:
    """Images (n, C, H, W) in [0, 1] as :class:`Perceptual` takes them."""
    height, width = images.shape[2:]
    if min(height, width) < LEAST_SIDE:
        longer = round(LEAST_SIDE * max(height, width) / min(height, width))
        size = (LEAST_SIDE, longer) if height <= width else (longer, LEAST_SIDE)
        images = F.interpolate(images, size, mode="bilinear", align_corners=False)
    return images.expand(-1, 3, -1, -1) * 2 - 1


def alexnet_file() -> Path:
    """The file of AlexNet's weights: ``$AEBENCH_ALEXNET``, else that of the cache folder.

    Raises:
        NotApplicable: there is none.
    """
    named = os.environ.get("AEBENCH_ALEXNET")
    path = Path(named).expanduser() if named else cache_folder() / FILE
    if not path.is_file():
        # No path of this machine: the note stands in published tables.
        place = "the cache folder, or its path in $AEBENCH_ALEXNET"
        where = "$AEBENCH_ALEXNET names no file" if named else f"put {URL} in {place}"
        raise NotApplicable(f"LPIPS needs AlexNet's weights: {where}")
    return path


def network() -> Perceptual:
    """The network, on the CPU, read once a process. Its weights are AlexNet's and torchmetrics'.

    Raises:
        NotApplicable: a file is missing, or AlexNet's is not the right one.
    """
    found = find_spec("torchmetrics")
    folder = Path(found.origin).parent if found and found.origin else Path()
    weights = folder / "functional" / "image" / "lpips_models" / "alex.pth"
    if not weights.is_file():
        raise NotApplicable("LPIPS needs torchmetrics' weights, which this version lacks")
    path = alexnet_file()
    return _read(path, path.stat().st_mtime_ns, PREFIX, weights)


@lru_cache(maxsize=1)
def _read(path: Path, changed: int, prefix: str, weights: Path) -> Perceptual:
    if not genuine(path, prefix):
        raise NotApplicable(f"LPIPS: {path.name} is not {FILE}: its SHA-256 differs")
    states = [torch.load(p, map_location="cpu", weights_only=True) for p in (path, weights)]
    return Perceptual(*states)
