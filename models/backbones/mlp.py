"""Fully connected encoder and decoder."""

import math

from torch import nn

from .base import Backbone, Shape, widths


def layers(sizes: list[int]) -> list[nn.Module]:
    """Linear layers of these sizes with ReLU between, none after the last."""
    made: list[nn.Module] = []
    for n_in, n_out in zip(sizes, sizes[1:]):
        made += [nn.Linear(n_in, n_out), nn.ReLU()]
    return made[:-1]


class MLP(Backbone):
    """ReLU layers of the widths ``hidden`` in the encoder, in reverse in the decoder.

    Args:
        hidden: the widths of the hidden layers; empty makes both networks linear.
    """

    name = "mlp"
    description = "fully connected, ReLU; the decoder mirrors the encoder"

    def __init__(self, *, hidden: tuple[int, ...] = (512, 256)) -> None:
        self.hidden = widths(hidden, "backbone 'mlp': hidden")

    def encoder(self, shape: Shape, features: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), *layers([math.prod(shape), *self.hidden, features]))

    def decoder(self, features: int, shape: Shape) -> nn.Module:
        sizes = [features, *reversed(self.hidden), math.prod(shape)]
        return nn.Sequential(*layers(sizes), nn.Unflatten(1, shape))
