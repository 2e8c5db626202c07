"""Restricted Boltzmann machines, and the deep autoencoder that they pre-train."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..plugins import InputError
from .backbones import Backbone
from .base import Batch, DataSpec
from .stacked import SigmoidStack

MOMENTUM = (0.5, 0.9)
"""Of the first :data:`SLOW_EPOCHS` epochs, and of the others."""
SLOW_EPOCHS = 5


class RBM(nn.Module):
    r"""Restricted Boltzmann machine of binary visible units, hidden ones binary or Gaussian.

    .. math::
        E(v, h) = -b^\top v - h^\top W v -
        \begin{cases} c^\top h & \text{binary} \\ -\tfrac12 \lVert h - c \rVert^2 & \text{linear}
        \end{cases}

    so that p(v|h) = σ(b + hW), and p(h|v) is σ(c + Wv) or 𝒩(c + Wv, I). Visible units in [0, 1]
    are taken for the probabilities of binary ones.

    Args:
        visible: the number of visible units.
        hidden: the number of hidden units.
        linear: whether hidden units are Gaussian of unit variance.
    """

    def __init__(self, visible: int, hidden: int, *, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.weight = nn.Parameter(0.1 * torch.randn(hidden, visible))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def hidden(self, v: Tensor) -> Tensor:
        """E[h|v] of (B, visible): (B, hidden)."""
        total = F.linear(v, self.weight, self.hidden_bias)
        return total if self.linear else total.sigmoid()

    def draw(self, mean: Tensor) -> Tensor:
        """Hidden units of that mean, drawn: of the shape of ``mean``."""
        return mean + torch.randn_like(mean) if self.linear else torch.bernoulli(mean)

    def visible(self, h: Tensor) -> Tensor:
        """E[v|h] of (B, hidden): (B, visible)."""
        return (h @ self.weight + self.visible_bias).sigmoid()

    def free_energy(self, v: Tensor) -> Tensor:
        """-log of the sum, or the integral, of exp(-E(v, h)) over h, of (B, visible): (B,)."""
        field = F.linear(v, self.weight)
        if self.linear:
            over_h = 0.5 * field.square() + field * self.hidden_bias + 0.5 * math.log(2 * math.pi)
        else:
            over_h = F.softplus(field + self.hidden_bias)
        return -(v @ self.visible_bias) - over_h.sum(1)

    def contrast(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The ascent direction of contrastive divergence with one step, for visible units (B, n).

        Hidden units are drawn to drive the reconstruction; elsewhere the means are used, which
        have less noise.

        Returns:
            For the weight (hidden, visible), the visible and the hidden bias; means over v.
        """
        h = self.hidden(v)
        seen = self.visible(self.draw(h))
        again = self.hidden(seen)
        weight = (h.T @ v - again.T @ seen) / len(v)
        return weight, (v - seen).mean(0), (h - again).mean(0)

    @torch.no_grad()
    def fit(self, epochs: Iterable[Iterable[Tensor]], lr: float, weight_decay: float) -> None:
        """Train by contrastive divergence.

        Args:
            epochs: of each, batches of visible units (B, n).
            lr: the learning rate of gradient ascent, whose momentum grows after the first epochs.
            weight_decay: pulls weights, not biases, to 0.
        """
        parameters = [self.weight, self.visible_bias, self.hidden_bias]
        groups: list[dict[str, Any]] = [
            {"params": parameters[:1], "weight_decay": weight_decay},
            {"params": parameters[1:]},
        ]
        optimizer = torch.optim.SGD(groups, lr=lr, maximize=True)
        for epoch, batches in enumerate(epochs):
            for group in optimizer.param_groups:
                group["momentum"] = MOMENTUM[epoch >= SLOW_EPOCHS]
            for v in batches:
                for parameter, direction in zip(parameters, self.contrast(v)):
                    parameter.grad = direction
                optimizer.step()


class RBMAE(SigmoidStack):
    r"""Deep autoencoder pre-trained as a stack of restricted Boltzmann machines.

    Each machine (:class:`RBM`) is fitted to the hidden means that the one below gives of training
    images, the first to the pixels, the last with linear Gaussian hidden units, which are the code.
    The stack is then unrolled: with W_l, b_l, c_l of machine l the layers start as

    .. math:: f_l(v) = \sigma(W_l v + c_l), \qquad g_l(h) = \sigma(W_l^\top h + b_l),

    f_L without σ, and part ways as the whole is trained on the reconstruction, from then on untied.

    Hinton and Salakhutdinov 2006, Science 313:504, with d = 30, 50 epochs a machine and batches of
    100; their published program (``mnistdeepauto``) has 10 epochs, and so have we. They fine-tune
    by conjugate gradients, we as every variant is trained.

    Args:
        hidden: the widths of the layers between the pixels and the code.
        pretraining_lr: the learning rate of binary machines. The paper's suits MNIST, where most
            pixels are dark; with thousands of bright pixels it saturates the first machine, and
            about 0.01 serves better.
        code_lr: the learning rate of the last machine, whose hidden units have no bounds.
        weight_decay: of the machines; fine-tuning has none.
    """

    name = "rbm_ae"
    reference = "Hinton and Salakhutdinov 2006, Science 313:504"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone | None = None,
        *,
        hidden: tuple[int, ...] = (1000, 500, 250),
        pretraining_lr: float = 0.1,
        code_lr: float = 0.001,
        weight_decay: float = 2e-4,
        **kwargs: Any,
    ) -> None:
        for name, value in (("pretraining_lr", pretraining_lr), ("code_lr", code_lr)):
            if not value > 0:
                raise InputError(f"model 'rbm_ae': {name} must be positive, not {value}")
        self.at_least(0, weight_decay=weight_decay)
        super().__init__(data, backbone, hidden=hidden, **kwargs)
        self.pretraining_lr, self.code_lr = pretraining_lr, code_lr
        self.weight_decay = weight_decay

    def initialise(self, batches: Iterable[Batch]) -> None:
        if not self.pretraining:
            return
        for level in range(len(self.encoders)):
            self.pretrain(level, batches)

    @torch.no_grad()
    def pretrain(self, level: int, batches: Iterable[Batch]) -> None:
        """Fit machine ``level`` to what the layers below give, and start its two layers from it."""
        encoder, decoder = self.encoders[level], self.decoders[level]
        assert isinstance(encoder, nn.Linear)
        assert isinstance(decoder, nn.Linear)
        linear = level + 1 == len(self.encoders)
        rbm = RBM(encoder.in_features, encoder.out_features, linear=linear).to(self.device)
        epochs = (
            (self.propagate(batch.x, level) for batch in batches) for _ in range(self.pretraining)
        )
        rbm.fit(epochs, self.code_lr if linear else self.pretraining_lr, self.weight_decay)
        encoder.weight.copy_(rbm.weight)
        encoder.bias.copy_(rbm.hidden_bias)
        decoder.weight.copy_(rbm.weight.T)
        decoder.bias.copy_(rbm.visible_bias)
