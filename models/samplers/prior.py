"""The model's own prior."""

from typing import TYPE_CHECKING

from torch import Tensor

from .base import Sampler

if TYPE_CHECKING:
    from ..base import Autoencoder


class Prior(Sampler):
    """Codes from the prior that the model was trained against, such as N(0, I).

    A model without one (a plain autoencoder) cannot be sampled so: N(0, I) has no meaning there.
    """

    name = "prior"
    description = "the model's own prior"

    def why_not(self, model: "Autoencoder") -> str:
        return "" if model.offers("sample_prior") else "the model has no prior"

    def sample(self, model: "Autoencoder", n: int) -> Tensor:
        return model.sample_prior(n)
