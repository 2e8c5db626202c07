"""The ConvNets of Pythae's benchmark for MNIST, CIFAR-10 and CelebA."""

import math

from torch import nn

from ...plugins import InputError
from .base import Backbone, Shape

# Arguments of ConvTranspose2d after the input channels: (output channels; 0 is the image's own,
# kernel, stride, padding, output padding), from the side that the linear layer feeds.
DECODERS = {
    (28, 28): (4, [(512, 3, 2, 1, 0), (256, 3, 2, 1, 1), (0, 3, 2, 1, 1)]),
    (32, 32): (8, [(512, 4, 2, 1, 0), (256, 4, 2, 1, 1), (0, 4, 1, 2, 0)]),
    (64, 64): (8, [(512, 5, 2, 2, 0), (256, 5, 2, 1, 0), (128, 5, 2, 2, 1), (0, 5, 1, 1, 0)]),
}


class PythaeConv(Backbone):
    """Four 4×4 convolutions with batch normalisation down, transposed convolutions up.

    The widths are 128, 256, 512 and 1024; the decoder starts from 1024 channels. Defined for images
    of 28, 32 and 64 pixels, as the originals are (Chadebec et al. 2022, arXiv:2206.08309).
    """

    name = "pythae_conv"
    description = "Pythae's benchmark ConvNets for 28, 32 and 64 pixels, with batch normalisation"

    def __init__(self) -> None:
        pass

    def encoder(self, shape: Shape, features: int) -> nn.Module:
        self.check(shape)
        made: list[nn.Module] = []
        channels, sizes = shape[0], shape[1:]
        for out in (128, 256, 512, 1024):
            made += [nn.Conv2d(channels, out, 4, 2, 1), nn.BatchNorm2d(out), nn.ReLU()]
            channels, sizes = out, (sizes[0] // 2, sizes[1] // 2)
        return nn.Sequential(*made, nn.Flatten(), nn.Linear(channels * math.prod(sizes), features))

    def decoder(self, features: int, shape: Shape) -> nn.Module:
        side, ups = self.check(shape)
        channels = 1024
        made: list[nn.Module] = [
            nn.Linear(features, channels * side * side),
            nn.Unflatten(1, (channels, side, side)),
        ]
        for width, kernel, stride, padding, extra in ups:
            out = width or shape[0]
            made.append(nn.ConvTranspose2d(channels, out, kernel, stride, padding, extra))
            made += [nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        return nn.Sequential(*made[:-2])

    @staticmethod
    def check(shape: Shape) -> tuple[int, list[tuple[int, int, int, int, int]]]:
        height, width = shape[1:]
        if (height, width) not in DECODERS:
            raise InputError(
                f"backbone 'pythae_conv' is defined for 28×28, 32×32 and 64×64, not {shape}"
            )
        return DECODERS[height, width]
