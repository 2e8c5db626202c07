"""Variational autoencoders with a normalising flow: on the posterior, or as the prior."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zuko.flows import MAF
from zuko.nn import MaskedMLP

from ..plugins import InputError
from .backbones import Backbone
from .backbones.base import widths
from .base import Autoencoder, Batch, DataSpec, Terms
from .vae import VAE, DiagonalNormal, standard_normal_log_prob

MARGIN = 1e-3
"""How far planar and radial flows stay from what cannot be inverted."""
GATE = 2.0
"""What the gates of an inverse autoregressive flow start at, before the sigmoid."""

Module = TypeVar("Module", bound=nn.Module)


def planar(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r"""A planar flow, z + û tanh(w·z + b).

    It is invertible where w·û > -1. û is u, moved along w so that w·û = celu(w·u), which bends a
    w·u below 0 to above -1 and leaves any other. The paper bends by log(1 + exp(w·u)) - 1, which
    moves u also where w·u is 0, and without bound as w nears 0.

    Args:
        z: codes, (…, d).
        u: (…, d).
        w: (…, d).
        b: (…).

    Returns:
        the codes (…, d), and log|det| in nats (…).
    """
    product = (w * u).sum(-1)
    bent = F.celu(product, 1 - MARGIN)
    along = (bent - product) / w.square().sum(-1).clamp(min=1e-12)
    height = torch.tanh((w * z).sum(-1) + b)
    moved = z + (u + along.unsqueeze(-1) * w) * height.unsqueeze(-1)
    return moved, torch.log1p((1 - height.square()) * bent)


def radial(z: Tensor, centre: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r"""A radial flow, z + β (z - centre) / (α + r), where r is the distance from the centre.

    It is invertible where β > -α and α > 0: α = softplus(a), β = softplus(b) - α.

    Args:
        z: codes, (…, d).
        centre: (…, d).
        a: (…).
        b: (…).

    Returns:
        the codes (…, d), and log|det| in nats (…).
    """
    alpha, sum_of_both = F.softplus(a) + MARGIN, F.softplus(b) + MARGIN
    offset = z - centre
    r = torch.linalg.vector_norm(offset, dim=-1)
    pull = (sum_of_both - alpha) / (alpha + r)
    # Across the radius the flow scales by 1 + pull, along it by 1 + αβ/(α + r)².
    across = (r + sum_of_both).log() - (r + alpha).log()
    along = (r.square() + 2 * alpha * r + alpha * sum_of_both).log() - 2 * (r + alpha).log()
    return z + pull.unsqueeze(-1) * offset, (z.shape[-1] - 1) * across + along


def on_default_device(make: Callable[[], Module]) -> Module:
    """A module of zuko, whose constructors read their masks and so fail on the meta device."""
    device = torch.get_default_device()
    with torch.device("cpu"):
        made = make()
    return made.to(device)


class FlowVAE(VAE):
    r"""What variants share whose posterior is a Gaussian sent through K invertible maps.

    .. math::
        z_0 \sim \mathcal N(\mu(x), \mathrm{diag}(\sigma^2(x))), \quad z_K = f_K \circ \dots
        \circ f_1(z_0), \quad
        \log q(z_K|x) = \log q(z_0|x) - \sum_k \log\Bigl|\det\frac{\partial f_k}{\partial z}\Bigr|

    The encoder gives μ, log σ² and what the flow reads of an image. A code is z_K of z_0 = μ: it
    is deterministic, and not the mean of q(z_K|x). log q is known of a flow's own draws alone, so
    no posterior is offered. Variants implement :meth:`flow` and state :attr:`context_dim`.
    """

    posterior = Autoencoder.posterior  # type: ignore[assignment]
    kl = Autoencoder.kl

    def __init__(
        self, data: DataSpec, backbone: Backbone, *, flows: int = 10, **kwargs: Any
    ) -> None:
        self.at_least(1, flows=flows)
        self.flows = flows
        super().__init__(data, backbone, **kwargs)

    @property
    def context_dim(self) -> int:
        """The number of values that the flow reads of an image."""
        raise NotImplementedError

    def flow(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """z_K of z_0 (…, B, d) with context (B, context_dim), and log|det| in nats (…, B)."""
        raise NotImplementedError

    def build(self, backbone: Backbone) -> None:
        self.encoder = backbone.encoder(self.data.shape, 2 * self.latent_dim + self.context_dim)
        self.decoder = backbone.decoder(self.latent_dim, self.data.shape)

    def encode(self, x: Tensor) -> tuple[DiagonalNormal, Tensor]:
        """q(z_0|x) of images (B, C, H, W), and their context (B, context_dim)."""
        sizes = [self.latent_dim, self.latent_dim, self.context_dim]
        mean, log_variance, context = self.encoder(x).split(sizes, dim=1)
        return DiagonalNormal(mean, log_variance), context

    def draw(self, x: Tensor, *samples: int) -> tuple[Tensor, Tensor]:
        """z ~ q(z|x) of (\\*samples, B, d), and log q(z|x) in nats, (\\*samples, B)."""
        start, context = self.encode(x)
        z_0 = start.sample(*samples)
        z, log_det = self.flow(z_0, context)
        return z, start.log_prob(z_0) - log_det

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        start, context = self.encode(x)
        return self.flow(start.mean, context)[0]

    def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
        z, log_q = self.draw(x, samples)
        raw = self.raw(z.flatten(0, 1)).unflatten(0, (samples, len(x)))
        return self.observation.log_prob(raw, x) + self.log_prior(z) - log_q


class AnnealedFlowVAE(FlowVAE):
    """What the flows of Rezende and Mohamed share: they are made of the encoder's outputs alone."""

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        flows: int = 10,
        warmup: float = 0.02,
        **kwargs: Any,
    ) -> None:
        if not 0 <= warmup <= 1:
            raise InputError(f"model {self.name!r}: warmup must be in [0, 1], not {warmup}")
        super().__init__(data, backbone, flows=flows, **kwargs)
        self.warmup = warmup

    @property
    def beta(self) -> Tensor | float:
        """β, the inverse temperature at this point of the training."""
        return self.risen(self.warmup, start=0.01)

    def losses(self, batch: Batch) -> Terms:
        z, log_q = self.draw(batch.x)
        reconstruction = self.reconstruction_loss(self.raw(z), batch.x)
        kl = (log_q - self.log_prior(z)).mean()
        entropy = -log_q.mean()
        return {
            "loss": self.beta * (reconstruction + kl) - (1 - self.beta) * entropy,
            "reconstruction": reconstruction,
            "kl": kl,
            "entropy": entropy,
        }


class PlanarVAE(AnnealedFlowVAE):
    r"""VAE whose posterior is a Gaussian sent through planar flows.

    .. math::
        -\beta\,\mathbb E_q [\log p(x|z_K) + \log p(z_K)] + \mathbb E_q \log q(z_K|x), \quad
        f_k(z) = z + \hat u_k \tanh(w_k \cdot z + b_k)

    in nats an image, by one sample of z_0. u, w and b are of each image, outputs of its encoder.
    β = min(1, 0.01 + t) over the first steps t, after which the loss is -ELBO = ``reconstruction``
    + ``kl``; ``entropy`` is that of q. A code is z_K of the mean of z_0, not the mean of q.

    Rezende and Mohamed 2015, arXiv:1505.05770; we bend u into û otherwise (:func:`planar`), so that
    zero parameters make the flow the identity.

    Args:
        flows: K; the paper's are 10 to 80.
        warmup: the share of the training in which β rises to 1; 0 for none. The paper's is 10,000
            of 500,000 updates.
    """

    name = "planar_vae"
    reference = "Rezende and Mohamed 2015, arXiv:1505.05770"

    @property
    def context_dim(self) -> int:
        return self.flows * (2 * self.latent_dim + 1)

    def flow(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        d = self.latent_dim
        total = z.new_zeros(z.shape[:-1])
        for parameters in context.chunk(self.flows, dim=1):
            u, w, b = parameters.split([d, d, 1], dim=1)
            z, log_det = planar(z, u, w, b.squeeze(1))
            total = total + log_det
        return z, total


class RadialVAE(AnnealedFlowVAE):
    r"""VAE whose posterior is a Gaussian sent through radial flows.

    .. math::
        -\beta\,\mathbb E_q [\log p(x|z_K) + \log p(z_K)] + \mathbb E_q \log q(z_K|x), \quad
        f_k(z) = z + \frac{\beta_k\,(z - c_k)}{\alpha_k + \lVert z - c_k \rVert}

    in nats an image, by one sample of z_0. c, α and β_k are of each image, outputs of its encoder.
    β = min(1, 0.01 + t) over the first steps t, after which the loss is -ELBO = ``reconstruction``
    + ``kl``; ``entropy`` is that of q. A code is z_K of the mean of z_0, not the mean of q.

    Rezende and Mohamed 2015, arXiv:1505.05770.

    Args:
        flows: K; the paper's are 10 to 80.
        warmup: the share of the training in which β rises to 1; 0 for none. The paper's is 10,000
            of 500,000 updates.
    """

    name = "radial_vae"
    reference = "Rezende and Mohamed 2015, arXiv:1505.05770"

    @property
    def context_dim(self) -> int:
        return self.flows * (self.latent_dim + 2)

    def flow(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[:-1])
        for parameters in context.chunk(self.flows, dim=1):
            centre, a, b = parameters.split([self.latent_dim, 1, 1], dim=1)
            z, log_det = radial(z, centre, a.squeeze(1), b.squeeze(1))
            total = total + log_det
        return z, total


class IAFVAE(FlowVAE):
    r"""VAE whose posterior is a Gaussian sent through inverse autoregressive flows.

    .. math::
        -\mathbb E_q \log p(x|z_T) + \sum_j \max\bigl(\lambda,
        \mathbb E_x \mathbb E_q [\log q_j - \log p(z_{T,j})]\bigr), \quad
        z_t = s_t \odot z_{t-1} + (1 - s_t) \odot m_t

    in nats an image, by one sample of z_0. m_t and the logits of the gates s_t are outputs of a
    masked network: those of dimension i read the dimensions before i of z_{t-1}, and a context that
    the encoder gives; the order of the dimensions is reversed between steps. log q_j = log q(z_0,j)
    - Σ log s_t,j. Gates start at sigmoid(2) on average, so that a step is near the identity. A code
    is z_T of the mean of z_0, not the mean of q.

    Free bits λ > 0 hold up the KL of each dimension, averaged over the batch (the paper's groups
    are feature maps): ``floored_kl`` is then what is minimised, and ``kl`` the KL itself.

    Kingma et al. 2016, arXiv:1606.04934. Their best on MNIST has 8 steps of width 1920.

    Args:
        flows: T.
        hidden: the widths of a masked network's hidden layers.
        context: the number of values that the networks read of an image.
        free_bits: λ in nats a dimension; 0 for none. The paper's for CIFAR-10 are 0.1 to 0.25.
    """

    name = "iaf_vae"
    reference = "Kingma et al. 2016, arXiv:1606.04934"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        flows: int = 2,
        hidden: tuple[int, ...] = (320,),
        context: int = 64,
        free_bits: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.at_least(1, context=context)
        self.at_least(0, free_bits=free_bits)
        self.hidden = widths(hidden, "model 'iaf_vae': hidden")
        self.context, self.free_bits = context, free_bits
        super().__init__(data, backbone, flows=flows, **kwargs)

    @property
    def context_dim(self) -> int:
        return self.context

    def build(self, backbone: Backbone) -> None:
        super().build(backbone)
        self.networks = nn.ModuleList(
            on_default_device(partial(self.masked, reverse=k % 2 == 1)) for k in range(self.flows)
        )

    def masked(self, reverse: bool) -> MaskedMLP:
        """A network of z and its context, (…, d + context), to m and the gates' logits, (…, 2d)."""
        d = self.latent_dim
        before = torch.ones(d, d, dtype=torch.bool).tril(-1)
        reads = torch.cat([before.flip(0, 1) if reverse else before] * 2)
        reads = torch.cat([reads, torch.ones(2 * d, self.context, dtype=torch.bool)], dim=1)
        network = MaskedMLP(reads, self.hidden, activation=nn.ELU)
        with torch.no_grad():
            network[-1].bias[d:] = GATE
        return network

    def steps_of(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """z_T of z_0 (…, B, d) with context (B, context_dim), and Σ log s_t, (…, B, d)."""
        context = context.expand(*z.shape[:-1], -1)
        total = torch.zeros_like(z)
        for network in self.networks:
            m, logits = network(torch.cat([z, context], dim=-1)).chunk(2, dim=-1)
            gate = torch.sigmoid(logits)
            z = gate * z + (1 - gate) * m
            total = total + F.logsigmoid(logits)
        return z, total

    def flow(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        z, log_scale = self.steps_of(z, context)
        return z, log_scale.sum(-1)

    def losses(self, batch: Batch) -> Terms:
        start, context = self.encode(batch.x)
        z_0 = start.sample()
        z, log_scale = self.steps_of(z_0, context)
        reconstruction = self.reconstruction_loss(self.raw(z), batch.x)
        squares = (z_0 - start.mean).square() / start.log_variance.exp()
        kl = (0.5 * (z.square() - squares - start.log_variance) - log_scale).mean(0)
        terms = {"reconstruction": reconstruction, "kl": kl.sum()}
        if not self.free_bits:
            return {"loss": reconstruction + kl.sum(), **terms}
        floored = kl.clamp(min=self.free_bits).sum()
        return {"loss": reconstruction + floored, **terms, "floored_kl": floored}


class FlowPriorVAE(VAE):
    r"""VAE with a masked autoregressive flow as prior, learned with the rest.

    .. math::
        -\mathbb E_{q(z|x)} \log p(x|z) + \mathbb E_{q(z|x)} [\log q(z|x) - \log p(z)], \quad
        p(z) = \mathcal N(g(z); 0, I) \Bigl|\det\frac{\partial g}{\partial z}\Bigr|

    in nats an image, by one sample of z. g is K autoregressive affine maps, each scaling and
    shifting a dimension by what a masked network says of those before it, in an order that is
    reversed between maps. The posterior is the VAE's diagonal Gaussian. A density is one pass; a
    draw from the prior takes d passes a map.

    The autoregressive flow prior of Chen et al. 2017, arXiv:1611.02731, without their
    autoregressive decoder.

    Args:
        flows: K.
        hidden: the widths of a masked network's hidden layers.
    """

    name = "flow_prior_vae"
    reference = "Chen et al. 2017, arXiv:1611.02731"
    kl = Autoencoder.kl

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        flows: int = 4,
        hidden: tuple[int, ...] = (128, 128),
        **kwargs: Any,
    ) -> None:
        self.at_least(1, flows=flows)
        hidden = widths(hidden, "model 'flow_prior_vae': hidden")
        super().__init__(data, backbone, **kwargs)
        self.prior: nn.Module = on_default_device(
            lambda: MAF(self.latent_dim, transforms=flows, hidden_features=hidden).transform
        )

    def log_prior(self, z: Tensor) -> Tensor:
        noise, log_det = self.prior().call_and_ladj(z)
        return standard_normal_log_prob(noise) + log_det

    def sample_prior(self, n: int) -> Tensor:
        return self.prior().inv(torch.randn(n, self.latent_dim, device=self.device))

    def losses(self, batch: Batch) -> Terms:
        posterior = self.posterior(batch.x)
        z = posterior.sample()
        reconstruction = self.reconstruction_loss(self.raw(z), batch.x)
        kl = (posterior.log_prob(z) - self.log_prior(z)).mean()
        return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
