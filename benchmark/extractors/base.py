"""What a feature extractor is: the network under FID, KID and their like."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ...datasets import Dataset, as_float
from ...plugins import Plugin
from ..cache import cached_tensors


class Extractor(Plugin, kind="extractor"):
    """Maps images to features. Two extractors' scores never stand in one column.

    Args:
        dataset: the dataset whose images are compared; an extractor may be trained on it.
        device: where the features are computed.

    Attributes:
        description: one line for the table of extractors.
    """

    description: ClassVar[str] = ""

    def __init__(self, dataset: Dataset, device: torch.device | str = "cpu") -> None:
        self.dataset, self.device = dataset, torch.device(device)

    @property
    def fingerprint(self) -> str:
        """A hash of the network and of all that made it: features are cached under it."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What a row says of it, such as its own test accuracy."""
        return self.name

    def why_not(self) -> str:
        """Why this extractor cannot serve its dataset, found cheaply; empty where it can."""
        return ""

    def why_no_logits(self) -> str:
        """Why there are no :meth:`logits`, found cheaply; empty where there are."""
        offered = type(self).logits is not Extractor.logits
        return self.why_not() or ("" if offered else f"{self.name} does not classify images")

    def why_no_maps(self) -> str:
        """Why there are no :meth:`maps`, found cheaply; empty where there are."""
        offered = type(self).maps is not Extractor.maps
        return self.why_not() or ("" if offered else f"{self.name} gives no feature maps")

    def features(self, images: Tensor) -> Tensor:
        """Features (n, k) of images (n, C, H, W) on :attr:`device`: uint8, or float32 in [0, 1].

        Floats are taken as they are, not rounded: so small a step that it changes no byte still
        changes the features. Bytes and the same bytes over 255 have the same features.
        """
        raise NotImplementedError

    def logits(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of such images as :meth:`features` takes, if it classifies."""
        raise NotImplementedError

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps (n, C', H', W') of some layers, of such images; with gradients by the images."""
        raise NotImplementedError

    def cached(self, purpose: str, compute: Callable[[], Tensor]) -> Tensor:
        """What depends on the dataset's own images alone, such as their features.

        It is kept on disk and in memory for the next cell; ``purpose`` names all else that it
        depends on.
        """
        names = ("features", self.fingerprint, self.dataset.hash, self.device.type, purpose)
        return cached_tensors(names, lambda: {"features": compute()})["features"]


def unit(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]: uint8 are divided by 255, floats are there already."""
    return as_float(images) if images.dtype == torch.uint8 else images.float()
