"""Sprites with known factors, drawn on demand in the proportions of dSprites."""

import math
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..plugins import InputError
from .base import Dataset, Split, SplitName

HELD_BYTES = 128 << 20  # a split of no more pixels is drawn once and kept
MARGIN = 1.25  # pixels between a sprite and the border, so that no smooth edge is cut

# The heart is a square of half-side r with a half-disc on each of two adjacent sides. Its centre
# of mass lies this far, in units of r, from the square's centre, along either side's normal; from
# there its tip is the farthest point.
HEART_OFFSET = (math.pi + 4 / 3) / (2 * (math.pi + 4))
HEART_REACH = math.sqrt(2) * (1 + HEART_OFFSET)


class Sprites(Dataset):
    """A white square, ellipse or heart on black, in 737,280 combinations of five factors.

    The factors and proportions are those of dSprites (Matthey et al. 2017,
    https://github.com/google-deepmind/dsprites-dataset), with smooth edges one pixel wide:

    ============ ======= ==========================================================
    factor       values  meaning
    ============ ======= ==========================================================
    shape        3       square, ellipse (axes 2 : 1), heart
    scale        6       0.5 to 1 in equal steps
    orientation  40      0 to 2π clockwise in equal steps, the end excluded
    x            32      left to right, in equal steps
    y            32      top to bottom, in equal steps
    ============ ======= ==========================================================

    dSprites' orientations include 2π, so its first and last are one image; here all 40 differ,
    but for the symmetries of the square (4-fold) and of the ellipse (2-fold). (x, y) is the centre
    of mass. All three shapes reach equally far from it, 15/64 of the image's side at scale 1, and
    the outermost pixels stay black.

    The labels are the shapes (3 classes), so that metrics of classes have something to read. The
    splits, 70 / 10 / 20, are a permutation of all combinations. Images are drawn when asked for; a
    split of at most 128 MiB of pixels is drawn once and held.

    Args:
        size: the side of an image in pixels, 8 to 256.
        limits: ``train``, ``val`` and ``test``, see :class:`Dataset`.

    Raises:
        InputError: ``size`` is out of range.
    """

    name = "sprites"
    description = "737,280 drawn sprites of 5 known factors as in dSprites, 1×64×64, 3 shapes"
    factor_names = ("shape", "scale", "orientation", "x", "y")
    grid: ClassVar[tuple[int, ...]] = (3, 6, 40, 32, 32)

    def __init__(self, *, size: int = 64, **limits: Any) -> None:
        super().__init__(**limits)
        if not 8 <= size <= 256:
            raise InputError(f"dataset {self.name!r}: size must be 8 to 256, not {size}")
        self.size = size

    @cached_property
    def factor_sizes(self) -> tuple[int, ...]:
        return self.grid

    def load(self) -> dict[SplitName, Split]:
        flat = torch.arange(math.prod(self.grid))
        factors = torch.stack(torch.unravel_index(flat, self.grid), 1)
        return self.permuted(Split(None, factors[:, 0], factors, self.render))

    @cached_property
    def splits(self) -> dict[SplitName, Split]:
        splits = super().splits
        for name, split in splits.items():
            if len(split) * self.size**2 <= HELD_BYTES:
                splits[name] = Split(split.images(), split.labels, split.factors)
        return splits

    def render(self, factors: Tensor) -> Tensor:
        """The images of factors int64 (n, 5): uint8 (n, 1, size, size), on the factors' device.

        An image depends on its own factors alone, to the last bit.

        Raises:
            InputError: not int64 (n, 5), or an index outside its factor's values.
        """
        self.check_factors(factors)
        images = factors.new_empty((len(factors), 1, self.size, self.size), dtype=torch.uint8)
        # Temporaries that stay in a core's cache, or fill a GPU.
        pixels = 1 << (15 if factors.device.type == "cpu" else 21)
        chunk = max(1, pixels // self.size**2)
        for shape, coverage in enumerate((square, ellipse, heart)):
            for rows in (factors[:, 0] == shape).nonzero()[:, 0].split(chunk):
                u, v, radius = self.place(factors[rows])
                grey = coverage(u, v, radius).mul_(255).round_()
                images[rows, 0] = grey.to(torch.uint8)
        return images

    def place(self, factors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every pixel's place in its sprite's own axes.

        Returns:
            The coordinates u and v in pixels (n, size, size), and the sprite's radius in pixels
            (n, 1, 1).
        """
        device = factors.device
        _, scale, orientation, x, y = (column[:, None, None] for column in factors.unbind(1))
        reach = self.size * 15 / 64
        first = reach + MARGIN
        centres = torch.linspace(first, self.size - first, 32).to(device)
        # Tables made on the CPU: a sine computed in place could depend on the batch's length.
        angles = torch.arange(40, dtype=torch.float64) * (2 * math.pi / 40)
        cos, sin = angles.cos().float().to(device), angles.sin().float().to(device)
        middle = torch.arange(self.size, device=device) + 0.5
        right, down = middle - centres[x], middle[:, None] - centres[y]
        u = cos[orientation] * right + sin[orientation] * down
        v = cos[orientation] * down - sin[orientation] * right
        return u, v, (0.5 + 0.1 * scale) * reach


# How much of the pixel at (u, v) a shape of the given radius about the origin covers, 0 to 1: half
# a pixel less the signed distance to the edge. u is overwritten.


def square(u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    bound = radius * math.sqrt(0.5) + 0.5
    return (bound - u.abs_()).clamp_(0, 1).mul_((bound - v.abs_()).clamp_(0, 1))


def ellipse(u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    # The distance to first order: f / |∇f| of f = (u/a)² + (v/b)² - 1.
    u, v = (u / radius).square_(), (v / (radius / 2)).square_()
    value = (u + v).sub_(1)
    slope = u.add_(v.mul_(4)).sqrt_().mul_(2).div_(radius).clamp_min_(1e-6)
    return value.div_(slope).neg_().add_(0.5).clamp_(0, 1)


def heart(u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    # Its own axes are those of its square, an eighth of a turn from u and v, the lobes up.
    r = radius / HEART_REACH
    p = (u + v).mul_(-math.sqrt(0.5)).add_(HEART_OFFSET * r)
    q = (u - v).mul_(math.sqrt(0.5)).add_(HEART_OFFSET * r)
    near = torch.maximum(p, q).sub_(r).square_()
    disc = torch.minimum(p, q).square_().add_(near).sqrt_()
    distance = torch.maximum(p.abs_(), q.abs_()).minimum(disc).sub_(r)
    return distance.neg_().add_(0.5).clamp_(0, 1)
