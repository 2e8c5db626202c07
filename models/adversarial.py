"""Autoencoders whose codes are matched to a prior by a discriminator."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..plugins import InputError
from .ae import AE
from .backbones import Backbone
from .backbones.base import widths
from .backbones.mlp import layers
from .base import Batch, DataSpec, Objective, Terms


class AAE(AE):
    r"""Adversarial autoencoder with a deterministic encoder and the prior N(0, I).

    Three losses, each stepping its own networks with gradients of its own alone:

    .. math::
        \text{encoder and decoder:}\quad & -\log p(x \mid g(f(x))) \\
        \text{discriminator:}\quad & -\log D(z) - \log(1 - D(f(x))), \quad z \sim \mathcal N(0, I)\\
        \text{encoder:}\quad & -\log D(f(x))

    The last is the non-saturating form. Makhzani et al. 2015, arXiv:1511.05644, whose networks have
    two layers of 1,000 units; theirs are trained by SGD with momentum, ours by Adam.

    Args:
        discriminator: the widths of the discriminator's hidden layers.
        adversarial_lr: the learning rate of the two adversarial losses, as a multiple of the
            training budget's.
    """

    name = "aae"
    selection = "reconstruction"
    sampler = "prior"
    reference = "Makhzani et al. 2015, arXiv:1511.05644"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        discriminator: tuple[int, ...] = (1000, 1000),
        adversarial_lr: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if not adversarial_lr > 0:
            raise InputError(f"model 'aae': adversarial_lr must be positive, not {adversarial_lr}")
        super().__init__(data, backbone, **kwargs)
        hidden = widths(discriminator, "model 'aae': discriminator")
        self.discriminator = nn.Sequential(*layers([self.latent_dim, *hidden, 1]))
        self.adversarial_lr = adversarial_lr

    def objectives(self) -> tuple[Objective, ...]:
        return (
            Objective("reconstruction", self.losses, [self.encoder, self.decoder]),
            Objective(
                "discriminator",
                self.discriminator_losses,
                [self.discriminator],
                self.adversarial_lr,
            ),
            Objective("generator", self.generator_losses, [self.encoder], self.adversarial_lr),
        )

    def sample_prior(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, device=self.device)

    def discriminator_losses(self, batch: Batch) -> Terms:
        """The discriminator's cross-entropy over prior draws and codes, in nats."""
        with torch.no_grad():
            fake = self.code(batch.x)
        real_logits = self.discriminator(self.sample_prior(len(fake)))
        fake_logits = self.discriminator(fake)
        loss = (F.softplus(-real_logits) + F.softplus(fake_logits)).mean()
        return {"loss": loss}

    def generator_losses(self, batch: Batch) -> Terms:
        """What the encoder pays for codes that the discriminator tells from the prior, in nats."""
        return {"loss": F.softplus(-self.discriminator(self.code(batch.x))).mean()}
