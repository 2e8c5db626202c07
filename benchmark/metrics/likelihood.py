"""How likely the test images are under the model, in nats an image."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ...datasets import as_float
from .base import Fitted, Metric, Quantity

AT_ONCE = 1000
"""Decoded images at a time. Not the batch size: the noise is drawn by chunk, and no value may
depend on the batch size."""
SAMPLES_AT_ONCE = 50

LogWeights = Callable[[int], Tensor]
"""A number of samples K → log p(x|z) + log p(z) - log q(z|x) of K fresh draws, (K, B)."""


def elbo(log_weights: LogWeights, samples: int, at_once: int = SAMPLES_AT_ONCE) -> Tensor:
    r"""The evidence lower bound of each image in nats: float64 (B,).

    .. math:: \frac1K \sum_k \log w_k, \quad w_k = \frac{p(x|z_k)\,p(z_k)}{q(z_k|x)}

    Args:
        log_weights: draws log w.
        samples: K.
        at_once: samples drawn at a time.
    """
    return torch.stack([w.sum(0) for w in drawn(log_weights, samples, at_once)]).sum(0) / samples


def importance_log_likelihood(
    log_weights: LogWeights, samples: int, at_once: int = SAMPLES_AT_ONCE
) -> Tensor:
    r"""The importance-sampled bound on log p(x) of each image in nats: float64 (B,).

    .. math:: \log \frac1K \sum_k w_k \quad\text{in expectation below } \log p(x)

    It rises to log p(x) with K. Burda et al. 2016, arXiv:1509.00519.

    Args:
        log_weights: draws log w.
        samples: K.
        at_once: samples drawn at a time.
    """
    chunks = [torch.logsumexp(w, 0) for w in drawn(log_weights, samples, at_once)]
    return torch.logsumexp(torch.stack(chunks), 0) - math.log(samples)


def drawn(log_weights: LogWeights, samples: int, at_once: int) -> Iterator[Tensor]:
    """``samples`` draws in chunks: float64 (at most ``at_once``, B)."""
    for start in range(0, samples, at_once):
        yield log_weights(min(at_once, samples - start)).double()


class Likelihood(Metric):
    """A bound on the log-likelihood of the test images, averaged over them.

    Args:
        samples: K, draws of z an image.
        images: the first so many images of the test split; None takes all.
    """

    family = "likelihood"
    needs = ("log_weights",)

    def __init__(self, *, samples: int, images: int | None) -> None:
        self.at_least(1, samples=samples, images=images)
        self.samples, self.images = samples, images

    @torch.no_grad()
    def bound(self, fitted: Fitted, of: Callable[[LogWeights, int], Tensor]) -> float:
        """The mean over test images of a bound: :func:`elbo` or another of its form."""
        images = max(1, AT_ONCE // min(self.samples, SAMPLES_AT_ONCE))
        bounds = []
        with fitted.random(self.name):
            for pixels, y in fitted.split("test").take(slice(self.images)).batches(images):
                x = as_float(pixels)
                log_weights = partial(fitted.model.log_weights, x, y)
                bounds.append(of(log_weights, self.samples).cpu())
        return torch.cat(bounds).mean().item()

    def qualifier(self, fitted: Fitted) -> str:
        label = fitted.model.observation.label
        return f"{label}|label" if fitted.model.conditional else label

    def estimator(self, fitted: Fitted) -> str:
        n = len(fitted.dataset.split("test").take(slice(self.images)))
        return f"mean over {n} images of the test split, {self.samples} samples of z an image"


class ELBO(Likelihood):
    """The evidence lower bound with the KL term's weight 1, whatever the model was trained on.

    Kingma and Welling 2014, arXiv:1312.6114. See :func:`elbo`.

    Args:
        samples: K, draws of z an image.
        images: the first so many images of the test split; None takes all.
    """

    name = "elbo"
    quantities: ClassVar = (Quantity("elbo", "higher", "nats"),)
    source = "Kingma and Welling 2014, arXiv:1312.6114"
    description = "evidence lower bound of an image"

    def __init__(self, *, samples: int = 10, images: int | None = 10_000) -> None:
        super().__init__(samples=samples, images=images)

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        return {"elbo": self.bound(fitted, elbo)}

    def estimator(self, fitted: Fitted) -> str:
        return f"{super().estimator(fitted)}, beta = 1"


class NLL(Likelihood):
    """The negative log-likelihood by importance sampling: an upper bound that falls with K.

    Burda et al. 2016, arXiv:1509.00519. See :func:`importance_log_likelihood`.

    Args:
        samples: K, draws of z an image.
        images: the first so many images of the test split; None takes all.
    """

    name = "nll"
    quantities: ClassVar = (Quantity("nll", "lower", "nats"),)
    source = "Burda et al. 2016, arXiv:1509.00519"
    description = "negative log-likelihood of an image by importance sampling"

    def __init__(self, *, samples: int = 500, images: int | None = 500) -> None:
        super().__init__(samples=samples, images=images)

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        return {"nll": -self.bound(fitted, importance_log_likelihood)}

    def estimator(self, fitted: Fitted) -> str:
        return f"{super().estimator(fitted)}, importance-sampled from q(z|x)"
