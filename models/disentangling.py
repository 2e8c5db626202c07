"""Variational autoencoders whose objective asks for disentangled codes."""

from typing import Any, Literal

import torch
from torch import Tensor

from ..plugins import InputError
from .backbones import Backbone
from .base import Batch, DataSpec, Terms
from .vae import VAE, DiagonalNormal


class CapacityVAE(VAE):
    r"""VAE whose KL term is held at a capacity that grows during the training.

    .. math::
        -\mathbb E_{q(z|x)} \log p(x|z)
        + \gamma\, \bigl| \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I)) - C_t \bigr|

    The KL term is the mean over the batch before it is compared with C: the capacity is that of the
    code, and images may need more or less of it. Image by image, all would have to carry the same
    information. C rises linearly from 0; outside training it is at its end.

    The reconstruction picks the checkpoint. Training holds the KL term at C; that of the validation
    images is a little off, which γ would weigh more than all that is learnt.

    Burgess et al. 2018, arXiv:1804.03599: γ = 1000, and 25 nats after 100,000 iterations on
    dSprites; a third of the 300,000 of Locatello et al. 2019 (arXiv:1811.12359). Shorter trainings
    may need a smaller γ: where C outruns the networks, means that are shifted alike for all images
    meet it and tell nothing of them. After 1,200 steps on MNIST γ = 10 reconstructed, γ = 1000
    hardly.

    Args:
        gamma: γ, the weight of the distance from the capacity.
        capacity: C at its end, in nats an image.
        warmup: the share of the training in which C rises; 0 for none.
    """

    name = "capacity_vae"
    selection = "reconstruction"
    reference = "Burgess et al. 2018, arXiv:1804.03599"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        gamma: float = 1000.0,
        capacity: float = 25.0,
        warmup: float = 1 / 3,
        **kwargs: Any,
    ) -> None:
        self.at_least(0, gamma=gamma, capacity=capacity)
        if not 0 <= warmup <= 1:
            raise InputError(f"model 'capacity_vae': warmup must be in [0, 1], not {warmup}")
        super().__init__(data, backbone, **kwargs)
        self.gamma, self.capacity, self.warmup = gamma, capacity, warmup

    def losses(self, batch: Batch) -> Terms:
        terms = super().losses(batch)
        capacity = torch.ones_like(terms["kl"]) * self.capacity * self.risen(self.warmup)
        distance = (terms["kl"] - capacity).abs()
        loss = terms["reconstruction"] + self.gamma * distance
        return terms | {"loss": loss, "distance": distance, "capacity": capacity}


class BetaTCVAE(VAE):
    r"""β-TCVAE: the KL term in three parts, each with a weight of its own.

    .. math::
        -\mathbb E_{q(z|x)} \log p(x|z)
        + \alpha\, \mathbb E \log \frac{q(z|x)}{q(z)}
        + \beta\, \mathbb E \log \frac{q(z)}{\prod_j q(z_j)}
        + \gamma\, \mathbb E \log \frac{\prod_j q(z_j)}{\prod_j p(z_j)}

    in nats an image: mutual information, total correlation and dimension-wise KL. q(z) is the
    mixture of the posteriors of all N training images, estimated from the M of a batch as a
    weighted sum of their q(z|x_m); see :meth:`weights`. At α = β = γ = 1 the estimates cancel and
    the loss is the VAE's, with the KL term at the sample z.

    ``mws`` is below log q(z) and every log q(z_j) by about log N, so that the total correlation is
    high by (d - 1) log N: constants, which no gradient sees. ``mss`` estimates q(z) without bias,
    and its logarithm is low where few posteriors reach z.

    Chen et al. 2018, arXiv:1802.04942: β = 6, α = γ = 1, ``mws``, batches of 2,048.

    Args:
        alpha: α, the weight of the mutual information.
        beta: β, the weight of the total correlation.
        gamma: γ, the weight of the dimension-wise KL.
        sampling: minibatch-weighted (``mws``) or minibatch-stratified (``mss``) estimates of q(z).
    """

    name = "beta_tcvae"
    reference = "Chen et al. 2018, arXiv:1802.04942"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
        sampling: Literal["mws", "mss"] = "mws",
        **kwargs: Any,
    ) -> None:
        self.at_least(0, alpha=alpha, beta=beta, gamma=gamma)
        super().__init__(data, backbone, **kwargs)
        self.alpha, self.beta, self.gamma, self.sampling = alpha, beta, gamma, sampling

    def weights(self, batch_size: int) -> Tensor:
        r"""The weight of q(z_i|x_m) in the estimate of q(z_i), (M, M) by i and m.

        Of ``mws`` 1/(NM). Of ``mss``, with z_i drawn from q(z|x_i) and the others of the batch from
        the other N - 1 images,

        .. math:: w_{ii} = \frac1N, \quad w_{ij} = \frac1{M-1}, \quad
            w_{i,i+1} = \frac{N - (M - 1)}{N (M - 1)}

        i + 1 counted modulo M; every row sums to 1. N is at least M, so that a batch of validation
        images larger than the training split has positive weights.
        """
        size = max(self.data.size, batch_size)
        if self.sampling == "mws":
            return torch.full((batch_size,) * 2, 1 / (size * batch_size), device=self.device)
        if batch_size == 1:
            return torch.ones(1, 1, device=self.device)
        others = batch_size - 1
        own = torch.eye(batch_size, device=self.device)
        following = own.roll(1, dims=1)
        weights = torch.full_like(own, 1 / others)
        weights = torch.where(following > 0, (size - others) / (size * others), weights)
        return torch.where(own > 0, 1 / size, weights)

    def losses(self, batch: Batch) -> Terms:
        posterior = self.posterior(batch.x, batch.y)
        z = posterior.sample()
        raw = self.raw(z, self.condition(*batch))
        reconstruction = self.reconstruction_loss(raw, batch.x)
        joint, marginals = self.log_aggregate(posterior, z)
        product = marginals.sum(1)
        information = (posterior.log_prob(z) - joint).mean()
        correlation = (joint - product).mean()
        dimensions = (product - self.log_prior(z)).mean()
        parts = self.alpha * information + self.beta * correlation + self.gamma * dimensions
        return {
            "loss": reconstruction + parts,
            "reconstruction": reconstruction,
            "mutual_information": information,
            "total_correlation": correlation,
            "dimension_wise_kl": dimensions,
        }

    def log_aggregate(self, posterior: DiagonalNormal, z: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates of log q(z) and of every log q(z_j) at codes (M, d) of a batch: (M,), (M, d).

        Row i of ``z`` is drawn from row i of ``posterior``.
        """
        each = DiagonalNormal(posterior.mean[..., None], posterior.log_variance[..., None])
        densities = each.log_prob(z[:, None, :, None])  # by code, posterior and dimension
        log_weights = self.weights(len(z)).log()
        joint = (densities.sum(2) + log_weights).logsumexp(1)
        return joint, (densities + log_weights[..., None]).logsumexp(1)


def covariance(z: Tensor) -> Tensor:
    """The covariance matrix of codes (B, d), divided by B: (d, d).

    It is the covariance of the batch's own distribution, which is 0 for one code.
    """
    centred = z - z.mean(0)
    return centred.T @ centred / len(z)


class DIPVAE(VAE):
    r"""What both DIP-VAEs share: a penalty on the covariance of the codes.

    .. math::
        -\mathbb E_{q(z|x)} \log p(x|z) + \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I))
        + \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2

    C is estimated on the batch, see :func:`covariance`: its batches should hold many more images
    than the code has dimensions. Kumar, Sattigeri and Balakrishnan 2018, arXiv:1711.00848.

    Args:
        lambda_od: λ_od, the weight of the entries off the diagonal.
        lambda_d: λ_d, the weight of those on it.
    """

    reference = "Kumar et al. 2018, arXiv:1711.00848"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        lambda_od: float,
        lambda_d: float,
        **kwargs: Any,
    ) -> None:
        self.at_least(0, lambda_od=lambda_od, lambda_d=lambda_d)
        super().__init__(data, backbone, **kwargs)
        self.lambda_od, self.lambda_d = lambda_od, lambda_d

    def aggregate(self, posterior: DiagonalNormal) -> Tensor:
        """C, the covariance of the codes of a batch: (d, d)."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> Terms:
        posterior = self.posterior(batch.x, batch.y)
        raw = self.raw(posterior.sample(), self.condition(*batch))
        reconstruction = self.reconstruction_loss(raw, batch.x)
        kl = posterior.kl_to_standard().sum(-1).mean()
        c = self.aggregate(posterior)
        off_diagonal = (c - c.diag().diag()).square().sum()
        diagonal = (c.diag() - 1).square().sum()
        penalty = self.lambda_od * off_diagonal + self.lambda_d * diagonal
        return {
            "loss": reconstruction + kl + penalty,
            "reconstruction": reconstruction,
            "kl": kl,
            "off_diagonal": off_diagonal,
            "diagonal": diagonal,
        }


class DIPVAE1(DIPVAE):
    r"""DIP-VAE-I: the covariance of the posterior means is drawn to the identity.

    .. math::
        -\mathbb E_{q(z|x)} \log p(x|z) + \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I))
        + \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2, \quad
        C = \mathrm{Cov}_x[\mu(x)]

    λ_d = 10 λ_od as in the paper; λ_od = 10 is in the middle of the values that Locatello et al.
    2019 (arXiv:1811.12359) compare. See :class:`DIPVAE`.

    Args:
        lambda_od: λ_od, the weight of the entries off the diagonal.
        lambda_d: λ_d, the weight of those on it.
    """

    name = "dip_vae_i"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        lambda_od: float = 10.0,
        lambda_d: float = 100.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, backbone, lambda_od=lambda_od, lambda_d=lambda_d, **kwargs)

    def aggregate(self, posterior: DiagonalNormal) -> Tensor:
        return covariance(posterior.mean)


class DIPVAE2(DIPVAE):
    r"""DIP-VAE-II: the covariance of the codes, samples and all, is drawn to the identity.

    .. math::
        -\mathbb E_{q(z|x)} \log p(x|z) + \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I))
        + \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2, \quad
        C = \mathrm{Cov}_x[\mu(x)] + \mathbb E_x[\mathrm{diag}\,\sigma^2(x)]

    λ_d = λ_od as in the paper; λ_od = 10 is in the middle of the values that Locatello et al.
    2019 (arXiv:1811.12359) compare. See :class:`DIPVAE`.

    Args:
        lambda_od: λ_od, the weight of the entries off the diagonal.
        lambda_d: λ_d, the weight of those on it.
    """

    name = "dip_vae_ii"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        lambda_od: float = 10.0,
        lambda_d: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, backbone, lambda_od=lambda_od, lambda_d=lambda_d, **kwargs)

    def aggregate(self, posterior: DiagonalNormal) -> Tensor:
        return covariance(posterior.mean) + posterior.log_variance.exp().mean(0).diag()
