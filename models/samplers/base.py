"""What a sampler is: what draws new codes for a fitted model."""

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ...plugins import Plugin

if TYPE_CHECKING:
    from ..base import Autoencoder


class Sampler(Plugin, kind="sampler"):
    """Draws new codes for a fitted model; fitted on codes of the training split alone.

    Attributes:
        description: one line for the table of samplers.
    """

    description: ClassVar[str] = ""

    def why_not(self, model: "Autoencoder") -> str:
        """Why this sampler cannot serve ``model``; empty where it can."""
        return ""

    def fit(self, model: "Autoencoder", codes: Tensor, seed: int) -> None:
        """Fit to the deterministic codes (N, …) of the training images."""

    def sample(self, model: "Autoencoder", n: int) -> Tensor:
        """``n`` new codes (n, …), drawn from torch's global random stream."""
        raise NotImplementedError
