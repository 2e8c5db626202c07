"""Fully connected encoder and decoder."""

import math
from typing import Literal

from torch import nn

from .base import Backbone, Shape, widths


def layers(sizes: list[int], activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    """Linear layers of these sizes with ``activation`` between, none after the last."""
    made: list[nn.Module] = []
    for n_in, n_out in zip(sizes, sizes[1:]):
        made += [nn.Linear(n_in, n_out), activation()]
    return made[:-1]


class MLP(Backbone):
    """Layers of the widths ``hidden`` in the encoder, in reverse in the decoder.

    Args:
        hidden: the widths of the hidden layers; empty makes both networks linear.
        activation: what follows each of them.
    """

    name = "mlp"
    description = "fully connected; the decoder mirrors the encoder"

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (512, 256),
        activation: Literal["relu", "tanh"] = "relu",
    ) -> None:
        self.hidden = widths(hidden, "backbone 'mlp': hidden")
        self.activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]

    def encoder(self, shape: Shape, features: int) -> nn.Module:
        sizes = [math.prod(shape), *self.hidden, features]
        return nn.Sequential(nn.Flatten(), *layers(sizes, self.activation))

    def decoder(self, features: int, shape: Shape) -> nn.Module:
        sizes = [features, *reversed(self.hidden), math.prod(shape)]
        return nn.Sequential(*layers(sizes, self.activation), nn.Unflatten(1, shape))
