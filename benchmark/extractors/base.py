"""What a feature extractor is: the network under FID, KID and their like."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ...datasets import Dataset
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

    def features(self, images: Tensor) -> Tensor:
        """Features (n, k) of images uint8 (n, C, H, W) on :attr:`device`."""
        raise NotImplementedError

    def cached(self, purpose: str, compute: Callable[[], Tensor]) -> Tensor:
        """Features of the dataset's own images, kept on disk and in memory for the next cell."""
        names = ("features", self.fingerprint, self.dataset.hash, self.device.type, purpose)
        return cached_tensors(names, lambda: {"features": compute()})["features"]
