"""Deep autoencoders of sigmoid layers that are pre-trained layer by layer."""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..plugins import InputError
from .backbones import Backbone
from .backbones.base import widths
from .backbones.mlp import MLP
from .base import Autoencoder, Batch, DataSpec, Terms


class SigmoidStack(Autoencoder):
    r"""A deep autoencoder of fully connected sigmoid layers, to be pre-trained a layer at a time.

    .. math:: -\log p(x \mid g_1 \circ \dots \circ g_L(f_L \circ \dots \circ f_1(x)))

    Every f and every g is affine and a sigmoid, but for f_L, whose code (B, d) is linear, and for
    g_1, whose sigmoid belongs to the observation model. The networks are its own, whatever the
    backbone; the weights of g_l are not tied to those of f_l. The observation model is by default
    Bernoulli, whose loss is the cross-entropy.

    A variant pre-trains in :meth:`initialise`. That is not part of a training budget's epochs.

    Args:
        hidden: the widths of the layers between the pixels and the code.
        pretraining: epochs of pre-training a layer; 0 leaves the layers as they were drawn.
    """

    uses_backbone: ClassVar[bool] = False

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone | None = None,
        *,
        hidden: tuple[int, ...] = (1000, 1000, 1000),
        pretraining: int = 10,
        likelihood: Literal["gaussian", "bernoulli"] = "bernoulli",
        **kwargs: Any,
    ) -> None:
        self.at_least(0, pretraining=pretraining)
        inner = widths(hidden, f"model {self.name!r}: hidden")
        super().__init__(data, MLP(), likelihood=likelihood, **kwargs)
        self.pretraining = pretraining
        sizes = [self.pixels, *inner, self.latent_dim]
        pairs = list(zip(sizes, sizes[1:]))
        self.encoders = nn.ModuleList(nn.Linear(below, above) for below, above in pairs)
        self.decoders = nn.ModuleList(nn.Linear(above, below) for below, above in pairs)

    def propagate(self, x: Tensor, depth: int) -> Tensor:
        """What layer ``depth`` makes of images (B, C, H, W), none corrupted: (B, width).

        Pixels at depth 0, the code at the last; all but the code are in [0, 1].
        """
        h = x.flatten(1)
        for level in range(depth):
            h = self.encoders[level](h)
            if level + 1 < len(self.encoders):
                h = h.sigmoid()
        return h

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.propagate(x, len(self.encoders))

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        for level in range(len(self.decoders) - 1, 0, -1):
            z = self.decoders[level](z).sigmoid()
        return self.decoders[0](z).unflatten(1, self.data.shape)

    def losses(self, batch: Batch) -> Terms:
        return {"loss": self.reconstruction_loss(self.raw(self.code(batch.x)), batch.x)}


class StackedDAE(SigmoidStack):
    r"""Stacked denoising autoencoder: each layer is pre-trained to repair what the one below gives.

    .. math::
        \min_{f_l, g_l} \; \mathbb E_{\tilde v \sim C(\tilde v | v)}
        \mathrm{CE}(v, g_l(f_l(\tilde v))), \qquad v = f_{l-1} \circ \dots \circ f_1(x)

    in nats, summed over the units of v and averaged over images. C sets a share of units to 0, in
    the input of the layer being trained alone: layers below read and give clean values. Then the
    whole is trained as one autoencoder, on clean images: there is no corruption but in
    pre-training (corrupting the images of the whole is the variant ``dae``).

    Vincent et al. 2010, JMLR 11:3371. They fine-tune the encoder to classify; we fine-tune encoder
    and decoder to reconstruct, and add the code layer, which is linear. Theirs is pre-trained by
    gradient descent, the rate, the noise and 1,000 to 3,000 units a layer chosen by validation,
    for far more epochs; ours by Adam.

    Args:
        noise: the share of a layer's inputs that is set to 0 while it is pre-trained.
        pretraining_lr: Adam's learning rate while pre-training.
    """

    name = "stacked_dae"
    reference = "Vincent et al. 2010, JMLR 11:3371"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone | None = None,
        *,
        noise: float = 0.25,
        pretraining_lr: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        if not 0 <= noise < 1:
            raise InputError(f"model 'stacked_dae': noise must be in [0, 1), not {noise}")
        if not pretraining_lr > 0:
            raise InputError(
                f"model 'stacked_dae': pretraining_lr must be positive, not {pretraining_lr}"
            )
        super().__init__(data, backbone, **kwargs)
        self.noise, self.pretraining_lr = noise, pretraining_lr

    def initialise(self, batches: Iterable[Batch]) -> None:
        for level, layer in enumerate(zip(self.encoders, self.decoders)):
            parameters = [p for part in layer for p in part.parameters()]
            optimizer = torch.optim.Adam(parameters, lr=self.pretraining_lr, fused=True)
            for _ in range(self.pretraining):
                for batch in batches:
                    with torch.no_grad():
                        v = self.propagate(batch.x, level)
                    self.denoising_loss(v, level).backward()
                    optimizer.step()
                    optimizer.zero_grad()

    def corrupt(self, v: Tensor) -> Tensor:
        """A draw from C(·|v), of the shape of ``v``."""
        return v.masked_fill(torch.rand_like(v) < self.noise, 0)

    def denoising_loss(self, v: Tensor, level: int) -> Tensor:
        """The cross-entropy of clean inputs (B, n) of layer ``level`` and its repair of them."""
        h = self.encoders[level](self.corrupt(v))
        if level + 1 < len(self.encoders):
            h = h.sigmoid()
        raw = self.decoders[level](h)
        return F.binary_cross_entropy_with_logits(raw, v, reduction="sum") / len(v)
