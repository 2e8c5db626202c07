"""Variational autoencoders on bounds of several samples, tighter than the ELBO."""

import math
from typing import Any

from torch import Tensor

from ..plugins import InputError
from .backbones import Backbone
from .base import Batch, DataSpec, Objective, Terms
from .vae import VAE


def importance_bound(log_weights: Tensor, dim: int = 0) -> Tensor:
    """log 1/K Σ_k w_k of log-weights log w, K of them along ``dim``, which is reduced."""
    return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])


class IWAE(VAE):
    r"""Importance-weighted autoencoder.

    .. math::
        -\mathbb E_{z_1, \dots, z_K \sim q(z|x)} \log \frac1K \sum_k w_k, \quad
        w_k = \frac{p(x|z_k)\,p(z_k)}{q(z_k|x)}

    The loss is the bound itself, in nats an image, so it compares with any log-likelihood; beside
    it ``elbo`` is the mean of log w over the same samples, what the bound is for K = 1. An image
    is decoded K times in one pass: a step costs about K decoder steps of a VAE.

    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, who train with K = 5 and K = 50.

    Args:
        samples: K, the draws of z an image.
    """

    name = "iwae"
    reference = "Burda et al. 2016, arXiv:1509.00519"

    def __init__(
        self, data: DataSpec, backbone: Backbone, *, samples: int = 50, **kwargs: Any
    ) -> None:
        self.at_least(1, samples=samples)
        super().__init__(data, backbone, **kwargs)
        self.samples = samples

    def losses(self, batch: Batch) -> Terms:
        log_weights = self.log_weights(batch.x, batch.y, self.samples)
        return {"loss": -importance_bound(log_weights).mean(), "elbo": log_weights.mean()}


class CIWAE(IWAE):
    r"""Combination of the ELBO and the importance-weighted bound.

    .. math::
        -\mathbb E \Bigl[\frac{\beta}{K} \sum_k \log w_k
        + (1 - \beta) \log \frac1K \sum_k w_k\Bigr]

    in nats an image, both terms over the same K samples: ``elbo``, and ``iwae`` for the second.
    β = 0 is the IWAE. Rainforth et al. 2018, arXiv:1802.04537; K = 64 and β = 0.05 are those of
    their table for MNIST.

    Args:
        samples: K, the draws of z an image.
        beta: β, the share of the ELBO, 0 to 1.
    """

    name = "ciwae"
    reference = "Rainforth et al. 2018, arXiv:1802.04537"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        samples: int = 64,
        beta: float = 0.05,
        **kwargs: Any,
    ) -> None:
        if not 0 <= beta <= 1:
            raise InputError(f"model 'ciwae': beta must be in [0, 1], not {beta}")
        super().__init__(data, backbone, samples=samples, **kwargs)
        self.beta = beta

    def losses(self, batch: Batch) -> Terms:
        log_weights = self.log_weights(batch.x, batch.y, self.samples)
        elbo, iwae = log_weights.mean(), importance_bound(log_weights).mean()
        return {"loss": -(self.beta * elbo + (1 - self.beta) * iwae), "elbo": elbo, "iwae": iwae}


class MIWAE(IWAE):
    r"""Multiply importance-weighted autoencoder: the mean of M bounds of K samples each.

    .. math:: -\mathbb E\, \frac1M \sum_m \log \frac1K \sum_k w_{mk}

    in nats an image. More samples in a bound (K) tighten it, and lower the signal-to-noise ratio of
    the encoder's gradient; more bounds (M) raise that. M = 1 is the IWAE, K = 1 the VAE.
    Rainforth et al. 2018, arXiv:1802.04537.

    Args:
        samples: K, the draws of z in a bound.
        estimates: M, the bounds that are averaged.
    """

    name = "miwae"
    reference = "Rainforth et al. 2018, arXiv:1802.04537"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        samples: int = 8,
        estimates: int = 8,
        **kwargs: Any,
    ) -> None:
        self.at_least(1, estimates=estimates)
        super().__init__(data, backbone, samples=samples, **kwargs)
        self.estimates = estimates

    def losses(self, batch: Batch) -> Terms:
        log_weights = self.log_weights(batch.x, batch.y, self.estimates * self.samples)
        bounds = importance_bound(log_weights.unflatten(0, (self.estimates, self.samples)), dim=1)
        return {"loss": -bounds.mean(), "elbo": log_weights.mean()}


class PIWAE(MIWAE):
    r"""Partially importance-weighted autoencoder: a bound for each network.

    .. math::
        \text{decoder:}\quad & -\mathbb E \log \frac1{MK} \sum_{m,k} w_{mk} \\
        \text{encoder:}\quad & -\mathbb E\, \frac1M \sum_m \log \frac1K \sum_k w_{mk}

    in nats an image: the tightest bound of M·K samples where a tighter bound helps, the MIWAE's
    where the gradient would drown in noise. Each network is stepped by its own bound alone, on
    samples of its own, the decoder first; the paper takes both gradients from one set of samples.
    Rainforth et al. 2018, arXiv:1802.04537.

    Args:
        samples: K, the draws of z in a bound of the encoder's.
        estimates: M, the encoder's bounds that are averaged.
    """

    name = "piwae"
    selection = "decoder"

    def objectives(self) -> tuple[Objective, ...]:
        return (
            Objective("decoder", self.decoder_losses, [self.decoder]),
            Objective("encoder", self.losses, [self.encoder]),
        )

    def decoder_losses(self, batch: Batch) -> Terms:
        """The importance-weighted bound of M·K samples, in nats an image."""
        log_weights = self.log_weights(batch.x, batch.y, self.estimates * self.samples)
        return {"loss": -importance_bound(log_weights).mean()}
