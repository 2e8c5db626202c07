"""What a sampler is: what draws new codes for a fitted model."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ...plugins import Plugin
from ...seeds import seeded

if TYPE_CHECKING:
    from ..base import Autoencoder, Batch


class Sampler(Plugin, kind="sampler"):
    """Draws new codes for a fitted model; fitted on the training split alone.

    Attributes:
        description: one line for the table of samplers.
        reads_images: whether it is fitted by :meth:`fit_images`, to the training images and what
            the model says of them, rather than by :meth:`fit`, to their deterministic codes.
    """

    description: ClassVar[str] = ""
    reads_images: ClassVar[bool] = False

    def why_not(self, model: "Autoencoder") -> str:
        """Why this sampler cannot serve ``model``; empty where it can."""
        return ""

    def fit(self, model: "Autoencoder", codes: Tensor, seed: int) -> None:
        """Fit to the deterministic codes (N, …) of the training images."""

    def fit_images(self, model: "Autoencoder", batches: "Iterable[Batch]", seed: int) -> None:
        """Fit to the training images, one pass over them in batches."""

    def sample(self, model: "Autoencoder", n: int) -> Tensor:
        """``n`` new codes (n, …), drawn from torch's global random stream."""
        raise NotImplementedError


@contextmanager
def training(seed: int, device: torch.device) -> Iterator[None]:
    """With gradients, and torch's global stream seeded within and restored after."""
    with seeded(seed, device), torch.enable_grad():
        yield
