"""Deterministic autoencoders trained on the reconstruction alone."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..plugins import InputError
from .backbones import Backbone
from .base import Autoencoder, Batch, DataSpec, Terms


class AE(Autoencoder):
    r"""Autoencoder.

    .. math:: -\log p(x \mid g(f(x)))

    With the Gaussian observation model this is the squared error over 2σ² and a constant; on the
    ``linear`` backbone its optimum is PCA's. Codes are (B, d). There is no prior: it is sampled
    through a density fitted to its codes. Hinton and Salakhutdinov 2006, Science 313:504.
    """

    name = "ae"
    reference = "Hinton and Salakhutdinov 2006, Science 313:504"

    def __init__(self, data: DataSpec, backbone: Backbone, **kwargs: Any) -> None:
        super().__init__(data, backbone, **kwargs)
        self.encoder: nn.Module = backbone.encoder(data.shape, self.latent_dim)
        self.decoder: nn.Module = backbone.decoder(self.latent_dim, data.shape)

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.encoder(x)

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.decoder(z)

    def losses(self, batch: Batch) -> Terms:
        return {"loss": self.reconstruction_loss(self.raw(self.code(batch.x)), batch.x)}


class DAE(AE):
    r"""Denoising autoencoder: the input is corrupted, the target is the clean image.

    .. math:: -\mathbb E_{\tilde x \sim C(\tilde x | x)} \log p(x \mid g(f(\tilde x)))

    Nothing is corrupted when it embeds or reconstructs. Vincent et al. 2008, ICML.

    Args:
        corruption: ``masking`` sets pixels to 0, ``salt_and_pepper`` to 0 or 1, ``gaussian`` adds
            noise, which is not clipped.
        level: the share of corrupted pixels, or the standard deviation of the noise.
    """

    name = "dae"
    reference = "Vincent et al. 2008, ICML"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        corruption: Literal["masking", "salt_and_pepper", "gaussian"] = "masking",
        level: float = 0.25,
        **kwargs: Any,
    ) -> None:
        if level < 0 or (corruption != "gaussian" and level > 1):
            raise InputError(f"model 'dae': {corruption} cannot have level {level}")
        super().__init__(data, backbone, **kwargs)
        self.corruption, self.level = corruption, level

    def corrupt(self, x: Tensor) -> Tensor:
        """A draw from C(·|x), of the shape of ``x``."""
        if self.corruption == "gaussian":
            return x + self.level * torch.randn_like(x)
        hit = torch.rand_like(x) < self.level
        if self.corruption == "masking":
            return x.masked_fill(hit, 0)
        return torch.where(hit, torch.rand_like(x).round(), x)

    def losses(self, batch: Batch) -> Terms:
        raw = self.raw(self.code(self.corrupt(batch.x)))
        return {"loss": self.reconstruction_loss(raw, batch.x)}
