"""What a backbone is: the encoder and decoder networks, chosen by the grid, not by the model."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...plugins import InputError, Plugin

Shape = tuple[int, int, int]


class Backbone(Plugin, kind="backbone"):
    """A maker of encoders and decoders, so that variants are compared on the same networks.

    A subclass implements :meth:`encoder` and :meth:`decoder`; the spatial pair has a default made
    of them. Decoders return raw outputs: logits, or what :meth:`squash` maps to mean pixels.

    Attributes:
        description: one line for the table of backbones.
    """

    description: ClassVar[str] = ""

    def encoder(self, shape: Shape, features: int) -> nn.Module:
        """A network (B, C, H, W) → (B, features)."""
        raise NotImplementedError

    def decoder(self, features: int, shape: Shape) -> nn.Module:
        """A network (B, features) → (B, C, H, W), raw."""
        raise NotImplementedError

    def squash(self, raw: Tensor) -> Tensor:
        """The mean pixels of a Gaussian observation model for a decoder's raw output."""
        return torch.sigmoid(raw)

    def map_size(self, shape: Shape) -> tuple[int, int]:
        """The (h, w) of the spatial codes of images of ``shape``: a quarter, rounded up."""
        return math.ceil(shape[1] / 4), math.ceil(shape[2] / 4)

    def map_encoder(self, shape: Shape, channels: int) -> nn.Module:
        """A network (B, C, H, W) → (B, channels, h, w), of :meth:`map_size`."""
        height, width = self.map_size(shape)
        flat = self.encoder(shape, channels * height * width)
        return nn.Sequential(flat, nn.Unflatten(1, (channels, height, width)))

    def map_decoder(self, channels: int, shape: Shape) -> nn.Module:
        """A network (B, channels, h, w) → (B, C, H, W), raw, of :meth:`map_size`."""
        height, width = self.map_size(shape)
        return nn.Sequential(nn.Flatten(), self.decoder(channels * height * width, shape))


def widths(hidden: tuple[int, ...], where: str) -> tuple[int, ...]:
    """``hidden`` if every layer has a unit.

    Raises:
        InputError: a width below 1.
    """
    if any(width < 1 for width in hidden):
        raise InputError(f"{where}: widths must be 1 or more, not {list(hidden)}")
    return hidden
