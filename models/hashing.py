"""Autoencoders with binary codes."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.special import entr

from .backbones import Backbone
from .base import Batch, DataSpec, Terms
from .sparse import SigmoidAE

DECAY = 0.99
"""Of the moving averages of the bits' frequencies."""
ENOUGH = 10_000
"""Images that the activations are centred and scaled on."""


class HashingAE(SigmoidAE):
    r"""Semantic hashing: noise drives the sigmoid units of the code to 0 or 1; codes are bits.

    .. math::
        -\log p(x | g(h)) + \lambda \sum_j (\log 2 - \mathrm H(\bar h_j)), \qquad
        h = \sigma(a + \epsilon), \quad \epsilon \sim \mathcal N(0, s^2 I), \quad a = (f(x) - m) / r

    in nats an image. H is the entropy of a bit whose frequency is the batch's mean of the unit
    (``balance``). When it embeds, reconstructs or is validated, h is the bit 1[a > 0] instead, so
    codes (B, d) are 0 or 1 and nothing is random. ``constant_bits`` is the share of bits that are
    the same for the whole batch.

    m and r are set once on training images: the median of each output of f, and what makes the
    deviation of each activation s. Every bit starts balanced and as large as the noise, and the
    decoder at the mean image (:class:`SigmoidAE`); in the paper the pre-training by restricted
    Boltzmann machines gives such a start, which other backbones do not have. There the noise is
    drawn once for each image, for conjugate gradients to have a deterministic objective; here anew
    at every step. There is no term of balance there.

    The prior's bits are independent, each as frequent as in recent training batches (a moving
    average). Salakhutdinov and Hinton 2009, Int. J. Approximate Reasoning 50:969, on documents,
    with 128 bits, or 20 to look them up by.

    Args:
        latent_dim: d, the number of bits.
        noise: s, the standard deviation of the noise.
        balance: λ, the weight of the balance of bits.
    """

    name = "hashing_ae"
    selection = "reconstruction"
    sampler = "prior"
    discrete = True
    reference = "Salakhutdinov and Hinton 2009, Int. J. Approximate Reasoning 50:969"
    centre: Tensor
    scale: Tensor
    frequencies: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        latent_dim: int = 128,
        noise: float = 4.0,
        balance: float = 0.1,
        likelihood: Literal["gaussian", "bernoulli"] = "bernoulli",
        **kwargs: Any,
    ) -> None:
        self.at_least(0, noise=noise, balance=balance)
        super().__init__(data, backbone, latent_dim=latent_dim, likelihood=likelihood, **kwargs)
        self.noise, self.balance = noise, balance
        self.register_buffer("centre", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))
        self.register_buffer("frequencies", torch.full((latent_dim,), 0.5))

    @torch.no_grad()
    def initialise(self, batches: Iterable[Batch]) -> None:
        super().initialise(batches)
        found = []
        for batch in batches:
            found.append(self.encoder(batch.x))
            if sum(map(len, found)) >= ENOUGH:
                break
        outputs = torch.cat(found)
        # Between the two middle ones: on one of them, rounding would decide that image's bit.
        ordered, half = outputs.sort(0).values, len(outputs) // 2
        self.centre.copy_((ordered[half - 1] + ordered[half]) / 2)
        self.scale.copy_(outputs.std(0, correction=0).clamp(min=1e-6) / (self.noise or 1.0))

    def activation(self, x: Tensor) -> Tensor:
        """a of images (B, C, H, W), whose signs are the bits: (B, d)."""
        return (self.encoder(x) - self.centre) / self.scale

    def symbols(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (self.activation(x) > 0).long()

    @property
    def alphabet(self) -> int:
        return 2

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.symbols(x).float()

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return super().raw((z > 0.5).float())

    def sample_prior(self, n: int) -> Tensor:
        return torch.bernoulli(self.frequencies.expand(n, -1))

    def losses(self, batch: Batch) -> Terms:
        a = self.activation(batch.x)
        bits = (a > 0).float()
        h = (a + self.noise * torch.randn_like(a)).sigmoid() if self.training else bits
        reconstruction = self.reconstruction_loss(super().raw(h), batch.x)
        mean = h.mean(0).clamp(1e-6, 1 - 1e-6)  # the entropy's slope is infinite at 0 and 1
        balance = (math.log(2) - entr(mean) - entr(1 - mean)).sum()
        if self.training:
            self.frequencies.lerp_(bits.mean(0), 1 - DECAY)
        return {
            "loss": reconstruction + self.balance * balance,
            "reconstruction": reconstruction,
            "balance": balance,
            "constant_bits": (bits == bits[0]).all(0).float().mean(),
        }
