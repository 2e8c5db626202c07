"""Variational autoencoders with a diagonal Gaussian posterior and a standard normal prior."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..plugins import InputError
from .backbones import Backbone
from .base import Autoencoder, Batch, DataSpec, Terms

LOG_2PI = math.log(2 * math.pi)


class DiagonalNormal:
    """N(mean, diag(exp(log_variance))) over the last dimension.

    Args:
        mean: (…, d).
        log_variance: (…, d).
    """

    def __init__(self, mean: Tensor, log_variance: Tensor) -> None:
        self.mean, self.log_variance = mean, log_variance

    def sample(self, *samples: int) -> Tensor:
        """Reparametrised draws, (\\*samples, …, d)."""
        noise = torch.randn(*samples, *self.mean.shape, device=self.mean.device)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; mean, variance) in nats, summed over d: (…)."""
        squares = (z - self.mean).square() / self.log_variance.exp()
        return -0.5 * (squares + self.log_variance + LOG_2PI).sum(-1)

    def kl_to_standard(self) -> Tensor:
        """KL(self ‖ N(0, I)) in nats a dimension, (…, d)."""
        variance = self.log_variance.exp()
        return 0.5 * (self.mean.square() + variance - self.log_variance - 1)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats, summed over the last dimension."""
    return -0.5 * (z.square() + LOG_2PI).sum(-1)


class VAE(Autoencoder):
    r"""Variational autoencoder.

    .. math:: -\mathbb E_{q(z|x)} \log p(x|z) + \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I))

    in nats an image, with one sample of z an image. Codes are (B, d), the posterior's mean.

    Kingma and Welling 2014, arXiv:1312.6114; Rezende et al. 2014, arXiv:1401.4082.
    """

    name = "vae"
    sampler = "prior"
    reference = "Kingma and Welling 2014, arXiv:1312.6114"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        likelihood: Literal["gaussian", "bernoulli"] = "bernoulli",
        **kwargs: Any,
    ) -> None:
        super().__init__(data, backbone, likelihood=likelihood, **kwargs)
        self.build(backbone)

    def build(self, backbone: Backbone) -> None:
        """Make the networks: an encoder to 2d moments and a decoder from d."""
        self.encoder: nn.Module = backbone.encoder(self.data.shape, 2 * self.latent_dim)
        self.decoder: nn.Module = backbone.decoder(self.latent_dim, self.data.shape)

    def posterior(self, x: Tensor, y: Tensor | None = None) -> DiagonalNormal:
        """q(z|x) of images (B, C, H, W), over (B, d)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return DiagonalNormal(mean, log_variance)

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.posterior(x, y).mean

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.decoder(z)

    def sample_prior(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, device=self.device)

    def log_prior(self, z: Tensor) -> Tensor:
        return standard_normal_log_prob(z)

    def kl(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.posterior(x, y).kl_to_standard()

    def losses(self, batch: Batch) -> Terms:
        posterior = self.posterior(batch.x, batch.y)
        raw = self.raw(posterior.sample(), self.condition(*batch))
        reconstruction = self.reconstruction_loss(raw, batch.x)
        kl = posterior.kl_to_standard().sum(-1).mean()
        return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}

    def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
        posterior = self.posterior(x, y)
        z = posterior.sample(samples)
        given = self.condition(x, y)
        if given is not None:
            given = given.expand(samples, *given.shape).flatten(0, 1)
        raw = self.raw(z.flatten(0, 1), given).unflatten(0, (samples, len(x)))
        return self.log_likelihood(raw, x) + self.log_prior(z) - posterior.log_prob(z)


class BetaVAE(VAE):
    r"""β-VAE.

    .. math:: -\mathbb E_{q(z|x)} \log p(x|z) + \beta\,\mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I))

    β weighs nats against nats (both summed, pixels and dimensions alike), so β = 1 is the VAE for
    every image size and observation model.

    Higgins et al. 2017, ICLR (openreview Sy2fzU9gl); β = 4 is the paper's for dSprites.

    Args:
        beta: β, the weight of the KL term.
    """

    name = "beta_vae"
    reference = "Higgins et al. 2017, openreview:Sy2fzU9gl"

    def __init__(
        self, data: DataSpec, backbone: Backbone, *, beta: float = 4.0, **kwargs: Any
    ) -> None:
        if beta < 0:
            raise InputError(f"beta must be 0 or more, not {beta}")
        super().__init__(data, backbone, **kwargs)
        self.beta = beta

    def losses(self, batch: Batch) -> Terms:
        terms = super().losses(batch)
        return terms | {"loss": terms["reconstruction"] + self.beta * terms["kl"]}
