"""Autoencoders with sparse codes."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..plugins import InputError
from .ae import AE
from .backbones import Backbone
from .base import Batch, DataSpec, Terms


def squared_weights(*networks: nn.Module) -> Tensor:
    """½‖W‖² over every weight of the networks, without biases and scales: a scalar."""
    weights = [p for network in networks for p in network.parameters() if p.ndim > 1]
    return 0.5 * torch.stack([weight.square().sum() for weight in weights]).sum()


class SigmoidAE(AE):
    """What autoencoders with a sigmoid code share: codes (B, d) in (0, 1).

    The decoder's raw output is added to that of the mean training image, set before the first step.
    Without it the quickest way to dark images is to turn every unit fully on or off, where its
    gradient vanishes: on MNIST such a code never recovers and each image decodes to the mean image.

    Attributes:
        offset: (C, H, W), the raw output of the mean image; 0 until :meth:`initialise`.
        bias: what is added before the sigmoid.
    """

    offset: Tensor

    def __init__(self, data: DataSpec, backbone: Backbone, **kwargs: Any) -> None:
        super().__init__(data, backbone, **kwargs)
        self.bias = 0.0
        self.register_buffer("offset", torch.zeros(data.shape))

    @torch.no_grad()
    def initialise(self, batches: Iterable[Batch]) -> None:
        mean = torch.stack([batch.x.mean(0) for batch in batches]).mean(0).clamp(0.01, 0.99)
        linear = torch.equal(self.observation.mean(mean), mean)
        self.offset.copy_(mean if linear else mean.logit())

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.sigmoid(self.encoder(x) + self.bias)

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.decoder(z) + self.offset


class SparseAE(SigmoidAE):
    r"""Sparse autoencoder: each unit of a sigmoid code is on at a rate near ρ.

    .. math::
        -\log p(x \mid g(h)) + \beta \sum_j \mathrm{KL}(\rho \,\Vert\, \hat\rho_j)
        + \tfrac{\lambda}{2} \lVert W \rVert^2, \quad h = \mathrm{sigmoid}(f(x)),
        \quad \hat\rho_j = \mathbb E[h_j]

    The divergence is of Bernoulli rates, in nats, and W are the weights of both networks without
    biases. With the Gaussian observation model and σ = 1 the first term is the source's
    ½‖x - x̂‖², so its weights hold as they are. Units start at a rate of about ρ.

    The source has ρ̂ over the whole training set. KL is convex, so the mean of a few images instead
    is biased: a batch of one would have every unit at ρ for that image. ρ̂ is therefore a moving
    average over about ``window`` images, with the gradient of the batch's mean; a batch of that
    many stands for itself. In evaluation it is the average as the training left it.

    Ng 2011, CS294A lecture notes; ρ and β are those of the course's exercise on MNIST. Its λ = 3e-3
    is for one layer each way, 196 units and a second-order optimiser. Under Adam it takes every
    weight of a deeper backbone to zero before anything is learned, so there is none by default.

    Args:
        rho: ρ, the wanted rate of each unit, in (0, 1).
        beta: β, the weight of the sparsity term.
        weight_decay: λ, the weight of ½‖W‖².
        window: how many images ρ̂ is taken over; 1 is each batch on its own.
    """

    name = "sparse_ae"
    reference = "Ng 2011, CS294A lecture notes"
    rates: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        rho: float = 0.1,
        beta: float = 3.0,
        weight_decay: float = 0.0,
        window: int = 200,
        **kwargs: Any,
    ) -> None:
        if not 0 < rho < 1:
            raise InputError(f"model 'sparse_ae': rho must be in (0, 1), not {rho}")
        self.at_least(0, beta=beta, weight_decay=weight_decay)
        self.at_least(1, window=window)
        super().__init__(data, backbone, **kwargs)
        self.rho, self.beta, self.weight_decay, self.window = rho, beta, weight_decay, window
        self.bias = math.log(rho / (1 - rho))
        self.register_buffer("rates", torch.full((self.latent_dim,), rho))

    def rate(self, h: Tensor) -> Tensor:
        """ρ̂ (d,) of codes (B, d): the moving average, with the gradient of the batch's mean."""
        mean = h.mean(0)
        if self.training:
            self.rates.lerp_(mean.detach(), min(1.0, len(h) / self.window))
        # Clamped without its gradient, so that a saturated unit finds its way back.
        return self.rates.clamp(1e-6, 1 - 1e-6) + (mean - mean.detach())

    def divergence(self, rate: Tensor) -> Tensor:
        """KL(ρ ‖ ρ̂_j) in nats of rates (d,): (d,)."""
        on, off = self.rho, 1 - self.rho
        return on * (on / rate).log() + off * (off / (1 - rate)).log()

    def losses(self, batch: Batch) -> Terms:
        h = self.code(batch.x)
        reconstruction = self.reconstruction_loss(self.raw(h), batch.x)
        sparsity = self.divergence(self.rate(h)).sum()
        weights = squared_weights(self.encoder, self.decoder)
        return {
            "loss": reconstruction + self.beta * sparsity + self.weight_decay * weights,
            "reconstruction": reconstruction,
            "sparsity": sparsity,
            "weights": weights,
        }


class KSparseAE(AE):
    r"""k-sparse autoencoder: only the k largest units of each image's code are kept.

    .. math:: -\log p(x \mid g(\mathrm{supp}_k(f(x))))

    supp_k keeps the k largest values, by value and not by magnitude, and makes the others zero; the
    gradient passes through those that are kept. Codes are (B, d), linear in the encoder's last
    layer, and keep the αk largest: the paper found features with α ≥ 1 slightly better than those
    of training, and chose α on validation data.

    A small k from the start leaves units that are never among the largest and so never learn. As in
    the paper, k falls linearly over the first half of the training; here from the whole code, with
    ``warmup`` a share of the training.

    The paper has one linear layer each way with tied weights; here the backbone's networks, not
    tied. Its k = 25 of 1000 units for MNIST is ``latent_dim: 1000, k: 25``; that share would leave
    a code of 16 without a second unit, so the default keeps at most 25 and at most a quarter.
    Makhzani and Frey 2014, arXiv:1312.5663.

    Args:
        k: how many units are kept; None is 25, and at most a quarter of the code.
        alpha: α, how many times k are kept outside training; at most the whole code.
        warmup: the share of the training in which k falls to its value.
    """

    name = "k_sparse_ae"
    reference = "Makhzani and Frey 2014, arXiv:1312.5663"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        k: int | None = None,
        alpha: float = 1.0,
        warmup: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, backbone, **kwargs)
        if k is None:
            k = min(25, max(1, self.latent_dim // 4))
        if not 1 <= k <= self.latent_dim:
            raise InputError(
                f"model 'k_sparse_ae': k must be in 1 to latent_dim ({self.latent_dim}), not {k}"
            )
        self.at_least(1, alpha=alpha)
        if not 0 <= warmup <= 1:
            raise InputError(f"model 'k_sparse_ae': warmup must be in [0, 1], not {warmup}")
        self.k, self.alpha, self.warmup = k, alpha, warmup

    @staticmethod
    def largest(z: Tensor, k: Tensor | int) -> Tensor:
        """(B, d) with all but the ``k`` largest values of each row at zero."""
        values, index = z.sort(dim=1, descending=True, stable=True)
        kept = values * (torch.arange(z.shape[1], device=z.device) < k)
        return torch.zeros_like(z).scatter(1, index, kept)

    def kept(self) -> Tensor | int:
        """How many units the training keeps at this point of its schedule."""
        rest = 1 - self.risen(self.warmup)
        many = rest * (self.latent_dim - self.k)
        return self.k + (many.round() if isinstance(many, Tensor) else round(many))

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.largest(self.encoder(x), min(round(self.alpha * self.k), self.latent_dim))

    def losses(self, batch: Batch) -> Terms:
        z = self.largest(self.encoder(batch.x), self.kept())
        return {"loss": self.reconstruction_loss(self.raw(z), batch.x)}
