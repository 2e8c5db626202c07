"""A mixture of Gaussians fitted to the training codes after the fact."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...plugins import InputError
from .base import Sampler

if TYPE_CHECKING:
    from ..base import Autoencoder


class GMM(Sampler):
    """A Gaussian mixture with full covariances over the flattened training codes.

    Ex-post density estimation of Ghosh et al. 2020 (arXiv:1903.12436), fitted by EM from one
    k-means start. The codes are posterior means, so the same data always give the same mixture.

    Args:
        components: the number of Gaussians; at most half the number of codes are used.
        codes: at most so many training codes are fitted to.
        max_dim: codes of more dimensions are refused, since a full covariance is then ill-posed.
    """

    name = "gmm"
    description = "Gaussian mixture with full covariances over training codes"

    def __init__(self, *, components: int = 10, codes: int = 20_000, max_dim: int = 512) -> None:
        self.at_least(1, components=components, codes=codes, max_dim=max_dim)
        self.components, self.codes, self.max_dim = components, codes, max_dim

    def why_not(self, model: "Autoencoder") -> str:
        return "the codes are discrete" if model.discrete else ""

    def fit(self, model: "Autoencoder", codes: Tensor, seed: int) -> None:
        from sklearn.mixture import GaussianMixture

        self.shape = codes.shape[1:]
        flat = codes[: self.codes].flatten(1).double().cpu().numpy()
        if flat.shape[1] > self.max_dim:
            raise InputError(f"sampler 'gmm': codes of {flat.shape[1]} > {self.max_dim} dimensions")
        # A unit-free ridge keeps dimensions that the model does not use from being singular.
        ridge = max(1e-6 * float(flat.var(0).mean()), 1e-12)
        self.mixture = GaussianMixture(
            min(self.components, max(1, len(flat) // 2)), reg_covar=ridge, random_state=seed
        ).fit(flat)

    def sample(self, model: "Autoencoder", n: int) -> Tensor:
        # Components and noise come from torch, so that the caller's seed rules both.
        weights = torch.as_tensor(self.mixture.weights_)
        means = torch.as_tensor(self.mixture.means_)
        scales = torch.linalg.cholesky(torch.as_tensor(self.mixture.covariances_))
        chosen = torch.multinomial(weights, n, replacement=True)
        noise = torch.randn(n, means.shape[1], 1, dtype=means.dtype)
        drawn = means[chosen] + (scales[chosen] @ noise).squeeze(-1)
        return drawn.float().unflatten(1, self.shape).to(model.device)
