"""Observation models p(x|z): what a decoder's raw output says of an image, in nats."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..plugins import InputError

Squash = Callable[[Tensor], Tensor]


class Observation(ABC):
    """p(x|z) over the pixels of an image, given a decoder's raw output.

    Attributes:
        label: how the observation model is called in a row, such as ``gaussian(sigma=1)``.
    """

    label: str

    @abstractmethod
    def mean(self, raw: Tensor) -> Tensor:
        """E[x|z] of the shape of ``raw``, not clamped."""

    @abstractmethod
    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """log p(x|z) in nats an image: summed over C, H, W. (…, C, H, W) → (…)."""


class Bernoulli(Observation):
    """Independent Bernoulli pixels with logits ``raw``.

    On grey pixels this is the cross-entropy that the field trains with, not the logarithm of a
    density; rows name it so that it is compared with its like alone.
    """

    label = "bernoulli"

    def mean(self, raw: Tensor) -> Tensor:
        return torch.sigmoid(raw)

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        target = x.expand_as(raw)
        loss = F.binary_cross_entropy_with_logits(raw, target, reduction="none")
        return -loss.flatten(-3).sum(-1)


class Gaussian(Observation):
    r"""Independent Gaussian pixels, N(squash(raw), σ²).

    .. math:: \log p(x|z) = -\frac{\lVert x - \mu\rVert^2}{2\sigma^2} - \frac{D}{2}\log 2\pi\sigma^2

    The constant is kept, so that likelihoods of different σ compare.
    """

    def __init__(self, sigma: float, squash: Squash = torch.sigmoid) -> None:
        if not sigma > 0:
            raise InputError(f"sigma must be positive, not {sigma}")
        self.sigma, self.squash = sigma, squash
        self.label = f"gaussian(sigma={sigma:g})"

    def mean(self, raw: Tensor) -> Tensor:
        return self.squash(raw)

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        squares = (self.squash(raw) - x).square().flatten(-3)
        constant = 0.5 * squares.shape[-1] * math.log(2 * math.pi * self.sigma**2)
        return -squares.sum(-1) / (2 * self.sigma**2) - constant


class LearnedGaussian(Gaussian):
    r"""Independent Gaussian pixels, N(squash(raw), σ²), of a σ that the model fits to its data.

    .. math:: \log p(x|z) = -\frac{\lVert x - \mu\rVert^2}{2\sigma^2} - \frac{D}{2}\log 2\pi\sigma^2

    Args:
        deviation: what returns the model's σ, a scalar tensor.
        squash: the mean pixels of a decoder's raw output.
    """

    label = "gaussian(sigma=learned)"

    def __init__(self, deviation: Callable[[], Tensor], squash: Squash = torch.sigmoid) -> None:
        self.deviation, self.squash = deviation, squash

    def log_prob(self, raw: Tensor, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """log p(x|z) in nats an image, at another ``sigma`` than the model's where one is given."""
        sigma = self.deviation() if sigma is None else sigma
        squares = (self.squash(raw) - x).square().flatten(-3)
        constant = 0.5 * squares.shape[-1] * (2 * math.pi * sigma.square()).log()
        return -squares.sum(-1) / (2 * sigma.square()) - constant
