"""Convolutional encoder and decoder for any image size from 8 to 256."""

import math

from torch import nn

from ...plugins import InputError
from .base import Backbone, Shape


class Conv(Backbone):
    """Strided 3×3 convolutions that halve the image down to 4 pixels, and their mirror image.

    A stage halves height and width, rounding up, so any size works, and the decoder returns
    exactly to it. Stage i has ``width · 2^i`` channels, at most 8 ``width``. There is no batch
    normalisation, so training and evaluation compute the same function.

    Args:
        width: the channels of the first stage.
    """

    name = "conv"
    description = "strided 3×3 convolutions down to 4×4 and their mirror; 8 to 256 pixels"

    def __init__(self, *, width: int = 32) -> None:
        self.at_least(1, width=width)
        self.width = width

    def encoder(self, shape: Shape, features: int) -> nn.Module:
        sizes = self.stages(shape)
        flat = self.channels(len(sizes) - 1) * math.prod(sizes[-1])
        return nn.Sequential(*self.down(shape, sizes), nn.Flatten(), nn.Linear(flat, features))

    def decoder(self, features: int, shape: Shape) -> nn.Module:
        sizes = self.stages(shape)
        channels = self.channels(len(sizes) - 1)
        return nn.Sequential(
            nn.Linear(features, channels * math.prod(sizes[-1])),
            nn.ReLU(),
            nn.Unflatten(1, (channels, *sizes[-1])),
            *self.up(shape, sizes),
        )

    def map_size(self, shape: Shape) -> tuple[int, int]:
        height, width = self.stages(shape, most=2)[-1]
        return height, width

    def map_encoder(self, shape: Shape, channels: int) -> nn.Module:
        sizes = self.stages(shape, most=2)
        return nn.Sequential(
            *self.down(shape, sizes), nn.Conv2d(self.channels(len(sizes) - 1), channels, 1)
        )

    def map_decoder(self, channels: int, shape: Shape) -> nn.Module:
        sizes = self.stages(shape, most=2)
        return nn.Sequential(
            nn.Conv2d(channels, self.channels(len(sizes) - 1), 3, padding=1),
            nn.ReLU(),
            *self.up(shape, sizes),
        )

    def channels(self, stage: int) -> int:
        return self.width * 2 ** min(max(stage - 1, 0), 3)

    @staticmethod
    def stages(shape: Shape, most: int = 8) -> list[tuple[int, int]]:
        """(h, w) before, between and after the stages: halved until the shorter side is 4."""
        height, width = shape[1:]
        if min(height, width) < 8 or max(height, width) > 256:
            raise InputError(f"backbone 'conv' takes images of 8 to 256 pixels, not {shape}")
        sizes = [(height, width)]
        while min(sizes[-1]) > 4 and len(sizes) <= most:
            sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
        return sizes

    def down(self, shape: Shape, sizes: list[tuple[int, int]]) -> list[nn.Module]:
        made: list[nn.Module] = []
        channels = shape[0]
        for stage in range(1, len(sizes)):
            made += [nn.Conv2d(channels, self.channels(stage), 3, 2, 1), nn.ReLU()]
            channels = self.channels(stage)
        return made

    def up(self, shape: Shape, sizes: list[tuple[int, int]]) -> list[nn.Module]:
        made: list[nn.Module] = []
        for stage in range(len(sizes) - 1, 0, -1):
            out = self.channels(stage - 1) if stage > 1 else shape[0]
            # A stride-2 transposed convolution gives 2n - 1; padding by one reaches an even size.
            even = (1 - sizes[stage - 1][0] % 2, 1 - sizes[stage - 1][1] % 2)
            made += [
                nn.ConvTranspose2d(self.channels(stage), out, 3, 2, 1, output_padding=even),
                nn.ReLU(),
            ]
        return made[:-1]
