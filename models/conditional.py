"""Variational autoencoders whose networks are told something of the image."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..plugins import InputError
from .backbones import Backbone, Shape
from .base import Batch, DataSpec, Terms
from .vae import VAE, DiagonalNormal


class CVAE(VAE):
    r"""Conditional VAE: encoder and decoder read the label, and the prior is N(0, I).

    .. math:: -\mathbb E_{q(z|x,y)} \log p(x|z,y) + \mathrm{KL}(q(z|x,y)\,\Vert\,\mathcal N(0, I))

    The label enters the encoder as one more image channel, a learned linear map of its one-hot
    form, so that every backbone serves; and the decoder as its one-hot form beside z. Likelihoods
    are of x given y. Sohn, Lee and Yan 2015, NeurIPS; theirs is the ``structured_cvae``.
    """

    name = "cvae"
    given = "label"
    reference = "Sohn, Lee and Yan 2015, NeurIPS"

    def build(self, backbone: Backbone) -> None:
        channels, height, width = self.data.shape
        self.plane = nn.Linear(self.data.classes, height * width)
        self.encoder = backbone.encoder((channels + 1, height, width), 2 * self.latent_dim)
        self.decoder = backbone.decoder(self.latent_dim + self.data.classes, self.data.shape)

    def one_hot(self, y: Tensor | None) -> Tensor:
        if y is None:
            raise InputError(f"model {self.name!r} needs labels")
        return F.one_hot(y, self.data.classes).float()

    def posterior(self, x: Tensor, y: Tensor | None = None) -> DiagonalNormal:
        plane = self.plane(self.one_hot(y)).unflatten(1, (1, *x.shape[2:]))
        return super().posterior(torch.cat([x, plane], dim=1))

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.decoder(torch.cat([z, self.one_hot(y)], dim=1))


class StructuredCVAE(VAE):
    r"""Conditional VAE for structured output: it completes an image of which quadrants are seen.

    .. math::
        \alpha \bigl[-\mathbb E_{q(z|x)} \log p(x_h|z, x_s)
        + \mathrm{KL}(q(z|x)\,\Vert\,p(z|x_s))\bigr]
        - (1 - \alpha)\,\mathbb E_{p(z|x_s)} \log p(x_h|z, x_s)

    x_s are the quadrants that are seen, x_h those that are hidden. The likelihood, in nats, is of
    the hidden pixels alone; a decoded image has the seen ones as they are. The second bracket is
    the Gaussian stochastic network's, with codes from where they come at prediction time.

    A code (B, d) is that of z whitened by the prior, ε = (z - μ(x_s)) / σ(x_s), the decoder's raw
    output that of z = μ(x_s) + σ(x_s) ε: nothing else changes, and the prior of ε is N(0, I)
    whatever is seen, so that codes of different images can be compared, drawn and modelled. One
    more encoder gives μ, σ and ``context`` features of x_s, which the decoder reads beside z.

    Sohn, Lee and Yan 2015, NeurIPS, on MNIST's quadrants; their decoder reads a first guess by a
    deterministic network in place of features.

    Args:
        observed: how many quadrants are seen: the lower left; the left half; all but the lower
            right, in the order of Pyro's example.
        alpha: α, the share of the conditional VAE's objective in the hybrid one.
        context: the number of features of what is seen.
    """

    name = "structured_cvae"
    given = "quadrants"  # how many, an instance knows
    reference = "Sohn, Lee and Yan 2015, NeurIPS"
    seen: Tensor
    hidden: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        observed: Literal[1, 2, 3] = 1,
        alpha: float = 1.0,
        context: int = 64,
        **kwargs: Any,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise InputError(f"model 'structured_cvae': alpha must be in [0, 1], not {alpha}")
        self.at_least(1, context=context)
        self.alpha, self.context = alpha, context
        super().__init__(data, backbone, **kwargs)
        self.given = "1 quadrant" if observed == 1 else f"{observed} quadrants"
        seen = quadrants(data.shape, observed)
        self.register_buffer("seen", seen, persistent=False)
        self.register_buffer("hidden", (~seen).flatten().nonzero()[:, 0], persistent=False)

    def build(self, backbone: Backbone) -> None:
        d, shape = self.latent_dim, self.data.shape
        self.encoder = backbone.encoder(shape, 2 * d)
        self.prior: nn.Module = backbone.encoder(shape, 2 * d + self.context)
        self.decoder = backbone.decoder(d + self.context, shape)

    def condition(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The images with what is hidden black, (B, C, H, W)."""
        return x * self.seen

    def read(self, seen: Tensor) -> tuple[DiagonalNormal, Tensor]:
        """p(z|x_s) of conditions (B, C, H, W), and their features (B, context)."""
        d = self.latent_dim
        mean, log_variance, features = self.prior(seen).split([d, d, self.context], dim=1)
        return DiagonalNormal(mean, log_variance), features

    def posterior(self, x: Tensor, y: Tensor | None = None) -> DiagonalNormal:
        """q(ε|x) of images (B, C, H, W), over whitened codes (B, d)."""
        posterior, (prior, _) = super().posterior(x), self.read(self.condition(x))
        scale = (0.5 * prior.log_variance).exp()
        return DiagonalNormal(
            (posterior.mean - prior.mean) / scale, posterior.log_variance - prior.log_variance
        )

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            raise InputError(f"model {self.name!r} needs the quadrants that are seen")
        prior, features = self.read(y)
        z = prior.mean + (0.5 * prior.log_variance).exp() * z
        return self.decoder(torch.cat([z, features], dim=1))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        image = super().decode(z, y)
        assert y is not None
        return torch.where(self.seen, y, image)

    def log_likelihood(self, raw: Tensor, x: Tensor) -> Tensor:
        """log p(x_h|z, x_s) in nats of images (B, C, H, W): (…, B)."""
        # An observation model adds up over the last three dimensions.
        kept = (t.flatten(-3)[..., self.hidden] for t in (raw, x))
        return self.observation.log_prob(*(t[..., None, None, :] for t in kept))

    def losses(self, batch: Batch) -> Terms:
        terms = super().losses(batch)
        if self.alpha == 1:
            return terms
        given = self.condition(batch.x)
        drawn = self.raw(self.sample_prior(len(batch.x)), given)
        prediction = self.reconstruction_loss(drawn, batch.x)
        loss = self.alpha * terms["loss"] + (1 - self.alpha) * prediction
        return terms | {"loss": loss, "prediction": prediction}


def quadrants(shape: Shape, observed: int) -> Tensor:
    """Which pixels of images of ``shape`` are seen: bool (C, H, W), on the CPU."""
    _, height, width = shape
    seen = torch.zeros(shape, dtype=torch.bool, device="cpu")
    seen[:, height // 2 :, : width // 2] = True
    if observed > 1:
        seen[:, :, : width // 2] = True
    if observed > 2:
        seen[:, : height // 2] = True
    return seen
