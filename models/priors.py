"""Variational autoencoders whose prior is learned: a mixture of Gaussians."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..plugins import InputError
from .backbones import Backbone
from .base import Autoencoder, Batch, DataSpec, Posterior, Terms
from .vae import VAE, DiagonalNormal

CODES_AT_ONCE = 1000
"""Codes whose densities under all components are in memory at a time."""
LOG_VARIANCES = (-6.0, 2.0)
"""The least and the largest log-variance of a component of :class:`MoGVAE`."""


class Mixture:
    r"""Σ_k π_k N(mean_k, diag(exp(log_variance_k))) over codes.

    Args:
        components: K Gaussians, of (K, d).
        log_mixing: log π, (K,); None for 1/K each.
    """

    def __init__(self, components: DiagonalNormal, log_mixing: Tensor | None = None) -> None:
        if log_mixing is None:
            number = len(components.mean)
            log_mixing = components.mean.new_full((number,), -math.log(number))
        self.components, self.log_mixing = components, log_mixing

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats of codes (…, d): (…)."""
        found = [
            (self.components.log_prob(some.unsqueeze(1)) + self.log_mixing).logsumexp(1)
            for some in z.reshape(-1, z.shape[-1]).split(CODES_AT_ONCE)
        ]
        return torch.cat(found).reshape(z.shape[:-1])

    def sample(self, n: int) -> Tensor:
        """``n`` draws, each from a component drawn with probability π_k: (n, d)."""
        k = self.log_mixing.exp().multinomial(n, replacement=True)
        return DiagonalNormal(self.components.mean[k], self.components.log_variance[k]).sample()


class LearnedPriorVAE(VAE):
    r"""What variants with a learned mixture as prior share; they implement :meth:`prior`.

    .. math::
        -\mathbb E_{q(z|x)} \log p(x|z) + \beta\,\mathbb E_{q(z|x)} [\log q(z|x) - \log p(z)]

    The second term is the KL to the prior, of the same sample of z, as there is no closed form.
    β rises from 0 to 1 over the first share ``warmup`` of the training and stays there.
    """

    kl = Autoencoder.kl

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        components: int = 500,
        warmup: float = 0.05,
        **kwargs: Any,
    ) -> None:
        self.at_least(1, components=components)
        if not 0 <= warmup <= 1:
            raise InputError(f"model {self.name!r}: warmup must be in [0, 1], not {warmup}")
        super().__init__(data, backbone, **kwargs)
        self.warmup = warmup

    def prior(self) -> Mixture:
        """p(z), with gradients to what it is made of."""
        raise NotImplementedError

    def project(self) -> None:
        """Put the prior's parameters back into their bounds."""

    @property
    def beta(self) -> Tensor | float:
        """β, the weight of the KL at this point of the training."""
        return self.risen(self.warmup)

    def log_prior(self, z: Tensor) -> Tensor:
        return self.prior().log_prob(z)

    def sample_prior(self, n: int) -> Tensor:
        return self.prior().sample(n)

    def losses(self, batch: Batch) -> Terms:
        if self.training:
            self.project()
        posterior = self.posterior(batch.x)
        z = posterior.sample()
        reconstruction = self.reconstruction_loss(self.raw(z), batch.x)
        kl = self.kl_terms(posterior, z)
        loss = reconstruction + self.beta * torch.stack([*kl.values()]).sum()
        return {"loss": loss, "reconstruction": reconstruction, **kl}

    def kl_terms(self, posterior: Posterior, z: Tensor) -> Terms:
        """The KL to the prior by name, estimated with one sample z of (B, d) an image."""
        return {"kl": (posterior.log_prob(z) - self.log_prior(z)).mean()}


class MoGVAE(LearnedPriorVAE):
    r"""VAE with a mixture of Gaussians as prior, whose means and variances are learned.

    .. math:: p(z) = \sum_k \pi_k\,\mathcal N(z; \mu_k, \mathrm{diag}(\sigma_k^2))

    The loss, in nats an image, is the ELBO with that prior and a warmed-up KL, which is estimated
    with the sample of z. The prior starts near N(0, I): unit variances, means of deviation 0.05.
    Log-variances are kept in [-6, 2] by projection before each step, so that no component shrinks
    to a point.

    The baseline "MoG" of Tomczak and Welling 2018, arXiv:1705.07120. Started from noise it does not
    cluster like the VaDE (Jiang et al. 2017, arXiv:1611.05148), which pre-trains.

    Args:
        components: K.
        mixing: π: ``uniform``, or ``learned`` as the softmax of K logits.
        warmup: the share of the training in which β rises to 1; 0 for none. The paper's is 100 of
            at most 2,000 epochs.
    """

    name = "mog_vae"
    reference = "Tomczak and Welling 2018, arXiv:1705.07120"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        components: int = 500,
        mixing: Literal["uniform", "learned"] = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(data, backbone, components=components, **kwargs)
        self.means = nn.Parameter(0.05 * torch.randn(components, self.latent_dim))
        self.log_variances = nn.Parameter(torch.zeros(components, self.latent_dim))
        self.logits = nn.Parameter(torch.zeros(components)) if mixing == "learned" else None

    @torch.no_grad()
    def project(self) -> None:
        self.log_variances.clamp_(*LOG_VARIANCES)

    def prior(self) -> Mixture:
        components = DiagonalNormal(self.means, self.log_variances.clamp(*LOG_VARIANCES))
        return Mixture(components, None if self.logits is None else self.logits.log_softmax(0))


class VampPriorVAE(LearnedPriorVAE):
    r"""VAE whose prior is the mixture of the posteriors of K learned pseudo-inputs u.

    .. math:: p(z) = \frac1K \sum_k q(z|u_k), \quad u_k \in [0, 1]^{C \times H \times W}

    The loss, in nats an image, is the ELBO with that prior and a warmed-up KL, which is estimated
    with the sample of z. Tomczak and Welling 2018, arXiv:1705.07120.

    The authors clip pseudo-inputs by a hard tanh, whose gradient leaves a pixel outside [0, 1]
    there for good; here they are projected onto [0, 1] before each step. The encoder reads them as
    it does in evaluation: its batch normalisation neither takes statistics of them nor averages
    them with the images'.

    Args:
        components: K.
        start: pseudo-inputs start from ``noise``, N(0.05, 0.01²) a pixel, or from training images
            (``data``) with noise of deviation 0.01.
        warmup: the share of the training in which β rises to 1; 0 for none. The paper's is 100 of
            at most 2,000 epochs.
    """

    name = "vampprior_vae"
    reference = "Tomczak and Welling 2018, arXiv:1705.07120"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        components: int = 500,
        start: Literal["noise", "data"] = "noise",
        **kwargs: Any,
    ) -> None:
        super().__init__(data, backbone, components=components, **kwargs)
        self.start = start
        self.pseudo_inputs = nn.Parameter(0.05 + 0.01 * torch.randn(components, *data.shape))

    @torch.no_grad()
    def initialise(self, batches: Iterable[Batch]) -> None:
        if self.start == "noise":
            return
        found: list[Tensor] = []
        for batch in batches:
            found.append(batch.x)
            if sum(map(len, found)) >= len(self.pseudo_inputs):
                break
        images = torch.cat(found)
        # Fewer images than pseudo-inputs are taken in turn; noise tells the copies apart.
        turn = torch.arange(len(self.pseudo_inputs), device=images.device) % len(images)
        self.pseudo_inputs.copy_(images[turn] + 0.01 * torch.randn_like(self.pseudo_inputs))

    @torch.no_grad()
    def project(self) -> None:
        self.pseudo_inputs.clamp_(0, 1)

    def prior(self) -> Mixture:
        training = self.encoder.training
        self.encoder.eval()
        # At the bounds themselves clamp passes the gradient, so a projected pixel can return.
        mean, log_variance = self.encoder(self.pseudo_inputs.clamp(0, 1)).chunk(2, dim=1)
        self.encoder.train(training)
        return Mixture(DiagonalNormal(mean, log_variance))


class TwoLevelPosterior:
    """q(z₂|x) q(z₁|x, z₂) over codes (z₂, z₁) of (B, 2d).

    Args:
        upper: q(z₂|x), of (B, d).
        lower: z₂ (…, B, d) → q(z₁|x, z₂), of (…, B, d).
    """

    def __init__(self, upper: DiagonalNormal, lower: Callable[[Tensor], DiagonalNormal]) -> None:
        self.upper, self.lower = upper, lower

    @property
    def mean(self) -> Tensor:
        """The mean of z₂, and that of z₁ given it: (B, 2d)."""
        return torch.cat([self.upper.mean, self.lower(self.upper.mean).mean], -1)

    def sample(self, *samples: int) -> Tensor:
        """Reparametrised draws, (\\*samples, B, 2d)."""
        z2 = self.upper.sample(*samples)
        return torch.cat([z2, self.lower(z2).sample()], -1)

    def log_probs(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log q(z₂|x) and log q(z₁|x, z₂) in nats of codes (…, B, 2d): (…, B) each."""
        z2, z1 = z.chunk(2, -1)
        return self.upper.log_prob(z2), self.lower(z2).log_prob(z1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z₂, z₁|x) in nats of codes (…, B, 2d): (…, B)."""
        upper, lower = self.log_probs(z)
        return upper + lower


class HierarchicalVampPriorVAE(VampPriorVAE):
    r"""Two levels of codes, the upper with the VampPrior.

    .. math::
        -\mathbb E_q \log p(x|z_1, z_2)
        + \beta\,\mathbb E_q \Bigl[\log\frac{q(z_2|x)}{p(z_2)}
        + \log\frac{q(z_1|x, z_2)}{p(z_1|z_2)}\Bigr], \quad p(z_2) = \frac1K \sum_k q(z_2|u_k)

    in nats an image. A code is (z₂, z₁) of (B, 2d), d dimensions a level: the mean of z₂, and that
    of z₁ given it. q(z₂|x) is the backbone's encoder; q(z₁|x, z₂) joins another encoder's features
    of x with those of z₂ by gated layers, of which p(z₁|z₂) consists too; the backbone's decoder
    reads the code. The authors' decoder joins the levels by gated layers first, and they bound
    log-variances to [-6, 2]; ours are free. Tomczak and Welling 2018, arXiv:1705.07120.

    Args:
        components: K, the pseudo-inputs.
        start: as of :class:`VampPriorVAE`.
        hidden: the width of the gated layers.
        warmup: the share of the training in which β rises to 1; 0 for none. The paper's is 100 of
            at most 2,000 epochs.
    """

    name = "hierarchical_vampprior_vae"

    def __init__(
        self, data: DataSpec, backbone: Backbone, *, hidden: int = 300, **kwargs: Any
    ) -> None:
        self.at_least(1, hidden=hidden)
        self.hidden = hidden
        super().__init__(data, backbone, **kwargs)

    def build(self, backbone: Backbone) -> None:
        shape, d, hidden = self.data.shape, self.latent_dim, self.hidden
        self.encoder = backbone.encoder(shape, 2 * d)
        self.decoder = backbone.decoder(2 * d, shape)
        self.image_features = nn.Sequential(backbone.encoder(shape, 2 * hidden), nn.GLU())
        self.code_features = gated(d, hidden)
        self.join = nn.Sequential(gated(2 * hidden, hidden), nn.Linear(hidden, 2 * d))
        self.conditional_prior = nn.Sequential(
            gated(d, hidden), gated(hidden, hidden), nn.Linear(hidden, 2 * d)
        )

    def posterior(  # type: ignore[override]
        self, x: Tensor, y: Tensor | None = None
    ) -> TwoLevelPosterior:
        """q(z₂, z₁|x) of images (B, C, H, W), over (B, 2d)."""
        features = self.image_features(x)

        def lower(z2: Tensor) -> DiagonalNormal:
            both = [features.expand(*z2.shape[:-1], -1), self.code_features(z2)]
            return DiagonalNormal(*self.join(torch.cat(both, -1)).chunk(2, -1))

        return TwoLevelPosterior(super().posterior(x), lower)

    def log_priors(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z₂) and log p(z₁|z₂) in nats of codes (…, 2d): (…) each."""
        z2, z1 = z.chunk(2, -1)
        return self.prior().log_prob(z2), self.lower_prior(z2).log_prob(z1)

    def lower_prior(self, z2: Tensor) -> DiagonalNormal:
        """p(z₁|z₂) of codes (…, d), over (…, d)."""
        return DiagonalNormal(*self.conditional_prior(z2).chunk(2, -1))

    def log_prior(self, z: Tensor) -> Tensor:
        upper, lower = self.log_priors(z)
        return upper + lower

    def sample_prior(self, n: int) -> Tensor:
        z2 = self.prior().sample(n)
        return torch.cat([z2, self.lower_prior(z2).sample()], -1)

    def kl_terms(self, posterior: Posterior, z: Tensor) -> Terms:
        assert isinstance(posterior, TwoLevelPosterior)
        pairs = zip(posterior.log_probs(z), self.log_priors(z))
        upper, lower = ((log_q - log_p).mean() for log_q, log_p in pairs)
        return {"kl_upper": upper, "kl_lower": lower}


def gated(n_in: int, n_out: int) -> nn.Sequential:
    """A gated layer, (Wx + b) ⊙ sigmoid(Vx + c): (…, n_in) → (…, n_out)."""
    return nn.Sequential(nn.Linear(n_in, 2 * n_out), nn.GLU())
