"""How likely the test images are under the model, and what of them its posterior tells."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ...datasets import Split, as_float
from ...models import Autoencoder
from ...models.base import Posterior
from ...models.observation import Bernoulli, Gaussian
from .base import Fitted, Metric, NotApplicable, Quantity, Values, finite

AT_ONCE = 1000
"""Decoded images at a time. Not the batch size: the noise is drawn by chunk, and no value may
depend on the batch size."""
SAMPLES_AT_ONCE = 50

LogWeights = Callable[[int], Tensor]
"""A number of samples K → log p(x|z) + log p(z) - log q(z|x) of K fresh draws, (K, B)."""
Bound = Callable[[LogWeights, int], Tensor]
"""Log-weights and a number of samples → a bound on log p(x) of each image, float64 (B,)."""


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


def bits_per_dim(nats: float, pixels: int, levels: int = 1) -> float:
    r"""Bits a pixel value of a negative log-likelihood in nats an image.

    .. math:: \frac{\mathrm{nats} + D \ln(\mathrm{levels})}{D \ln 2}

    Args:
        nats: -log p(x) of an image.
        pixels: D, the number of values of an image.
        levels: 1 where p is a probability; where it is a density over [0, 1] of pixels of so many
            levels, one of which is 1/levels wide, that number.
    """
    return (nats / pixels + math.log(levels)) / math.log(2)


def active_units(means: Tensor, threshold: float = 0.01) -> int:
    r"""The number of dimensions whose posterior mean varies with the image.

    .. math:: \#\{j : \mathrm{Var}_x(\mathbb E_{q(z|x)}[z_j]) > \mathrm{threshold}\}

    Burda et al. 2016, arXiv:1509.00519.

    Args:
        means: (n, d), n at least 1; the variance is that of these n.
        threshold: the least variance of an active dimension.
    """
    return int((means.double().var(0, correction=0) > threshold).sum())


def collapsed(kl: Tensor, epsilon: float = 0.01, delta: float = 0.01) -> float:
    r"""The share of dimensions that are collapsed, in [0, 1].

    .. math:: \Pr_x[\mathrm{KL}(q(z_j|x) \,\Vert\, p(z_j)) < \epsilon] \ge 1 - \delta

    Lucas et al. 2019, arXiv:1911.02469.

    Args:
        kl: KL of n images by d dimensions in nats, (n, d).
        epsilon: ε, in nats.
        delta: δ.
    """
    # Shares of n are compared as counts: 1 - δ has no exact binary form.
    least = math.ceil((1 - delta) * len(kl) - 1e-9)
    return ((kl < epsilon).sum(0) >= least).double().mean().item()


def aggregate_log_prob(posteriors: Iterable[Posterior], z: Tensor, at_once: int = 50) -> Tensor:
    r"""log q(z) of codes under the mixture of the posteriors of N images, in nats: float64 (n,).

    .. math:: \log \frac1N \sum_i q(z|x_i)

    Args:
        posteriors: those of the N images, in batches.
        z: codes (n, d).
        at_once: codes at a time.
    """
    found = []
    batches = list(posteriors)
    number = sum(len(posterior.mean) for posterior in batches)
    for some in z.split(at_once):
        # Each code meets every posterior of a batch: (n, 1, d) over (b, d).
        densities = [
            posterior.log_prob(some[:, None].expand(-1, len(posterior.mean), -1))
            for posterior in batches
        ]
        found.append(torch.cat(densities, 1).double().logsumexp(1) - math.log(number))
    return torch.cat(found)


def drawn(log_weights: LogWeights, samples: int, at_once: int) -> Iterator[Tensor]:
    """``samples`` draws in chunks: float64 (at most ``at_once``, B)."""
    for start in range(0, samples, at_once):
        yield log_weights(min(at_once, samples - start)).double()


def first(fitted: Fitted, images: int | None) -> Split:
    """The first so many images of the test split, all for None."""
    return fitted.split("test").take(slice(images))


@torch.no_grad()
def bounds(
    model: Autoencoder,
    split: Split,
    samples: int,
    of: Bound,
    prepare: Callable[[Tensor], Tensor] = as_float,
) -> Tensor:
    """A bound on the log-likelihood of each image of a split in nats: float64 (n,), on the CPU.

    Args:
        model: what offers ``log_weights``.
        split: the images.
        samples: draws of z an image.
        of: the bound, :func:`elbo` or another of its form.
        prepare: what makes float32 images of bytes; it may draw noise.
    """
    images = max(1, AT_ONCE // min(samples, SAMPLES_AT_ONCE))
    found = []
    for pixels, y in split.batches(images):
        log_weights = partial(model.log_weights, prepare(pixels), y)
        found.append(of(log_weights, samples).cpu())
    return torch.cat(found)


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

    def bound(
        self, fitted: Fitted, of: Bound, prepare: Callable[[Tensor], Tensor] = as_float
    ) -> float:
        """The mean over test images of a bound, see :func:`bounds`."""
        with fitted.random(self.name):
            split = first(fitted, self.images)
            return bounds(fitted.model, split, self.samples, of, prepare).mean().item()

    def qualifier(self, fitted: Fitted) -> str:
        label = fitted.model.observation.label
        return f"{label}|{fitted.model.given}" if fitted.model.given else label

    def estimator(self, fitted: Fitted) -> str:
        n = len(first(fitted, self.images))
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


class BitsPerDim(Likelihood):
    r"""The negative log-likelihood in bits a pixel value, where it is one of 8-bit pixels.

    Of a Gaussian observation model it is the density of :math:`(x + u)/256`, pixels x of 0 to 255
    and u uniform in [0, 1): 8 bits more than its logarithm bound from above the bits of x itself
    (Theis et al. 2016, arXiv:1511.01844), where the density of x/255, which the model was trained
    on, bounds nothing. Of a Bernoulli one it is what :class:`NLL` gives, and n/a unless every
    pixel of the test split is black or white: the cross-entropy of grey pixels is no likelihood.

    Args:
        samples: K, draws of z an image.
        images: the first so many images of the test split; None takes all.
    """

    name = "bits_per_dim"
    quantities: ClassVar = (Quantity("bits_per_dim", "lower", "bits", ranked=False),)
    source = "Theis et al. 2016, arXiv:1511.01844"
    description = "negative log-likelihood in bits a pixel value, of 8-bit or binary pixels"

    def __init__(self, *, samples: int = 100, images: int | None = 500) -> None:
        super().__init__(samples=samples, images=images)

    def lacks(self, fitted: Fitted) -> str:
        if why := super().lacks(fitted):
            return why
        observation = fitted.model.observation
        if fitted.shown:
            return "the likelihood is of a part of the image"
        if isinstance(observation, Gaussian):
            return ""
        if not isinstance(observation, Bernoulli):
            return f"the observation model {observation.label} is not of 8-bit pixels"
        return "" if binary(fitted) else "the cross-entropy of grey pixels is no likelihood"

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        pixels = fitted.model.pixels
        if isinstance(fitted.model.observation, Bernoulli):
            nats = -self.bound(fitted, importance_log_likelihood)
            return {self.name: bits_per_dim(nats, pixels)}
        nats = -self.bound(fitted, importance_log_likelihood, dequantised)
        return {self.name: bits_per_dim(nats, pixels, 256)}

    def estimator(self, fitted: Fitted) -> str:
        grey = "binary pixels"
        if isinstance(fitted.model.observation, Gaussian):
            grey = "pixels (x + u)/256, u uniform in [0, 1), drawn once"
        return f"{super().estimator(fitted)}, importance-sampled from q(z|x), {grey}"


def dequantised(pixels: Tensor) -> Tensor:
    """Bytes plus uniform noise of [0, 1), over 256: float32 in [0, 1]."""
    return (pixels + torch.rand(pixels.shape, device=pixels.device)) / 256


def binary(fitted: Fitted) -> bool:
    """Whether every pixel of the test split is 0 or 255."""

    def compute() -> bool:
        batches = fitted.split("test").batches(AT_ONCE)
        return all(bool(((x == 0) | (x == 255)).all()) for x, _ in batches)

    return fitted.once("binary test images", compute)


class OfPosterior(Metric):
    """What the model's posteriors of test images tell of them."""

    family = "likelihood"
    needs: ClassVar[tuple[str, ...]] = ("posterior",)

    def qualifier(self, fitted: Fitted) -> str:
        return fitted.model.given


class ActiveUnits(OfPosterior):
    """How many dimensions of the code the posterior uses, and how far it is from the prior.

    See :func:`active_units` and :func:`collapsed`. The KL terms are those of each dimension, their
    sum, mean and greatest, each averaged over images; they are n/a where there is no closed form.
    """

    name = "active_units"
    quantities: ClassVar = (
        Quantity("active_units", "", low=0, ranked=False),
        Quantity("kl", "", "nats", low=0, ranked=False),
        Quantity("kl_per_dim", "", "nats", low=0, ranked=False),
        Quantity("kl_per_dim_max", "", "nats", low=0, ranked=False),
        Quantity("collapsed", "", low=0, high=1, ranked=False),
    )
    source = "Burda et al. 2016, arXiv:1509.00519; Lucas et al. 2019, arXiv:1911.02469"
    description = "dimensions whose posterior mean varies, KL to the prior, collapsed dimensions"

    @torch.no_grad()
    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        model, kl = fitted.model, model_kl(fitted)
        means = [model.posterior(x, y).mean.cpu() for x, y in fitted.batches("test")]
        found: dict[str, float | NotApplicable] = {
            "active_units": active_units(finite(torch.cat(means), "posterior means"))
        }
        if kl is None:
            lacking = NotApplicable("the model has no kl")
            return found | {quantity.name: lacking for quantity in self.quantities[1:]}
        each = kl.mean(0)
        return found | {
            "kl": each.sum().item(),
            "kl_per_dim": each.mean().item(),
            "kl_per_dim_max": each.max().item(),
            "collapsed": collapsed(kl),
        }

    def estimator(self, fitted: Fitted) -> str:
        n = len(fitted.dataset.split("test"))
        return (
            f"{n} images of the test split, active above a variance of 0.01 of the posterior mean, "
            "collapsed where KL is below 0.01 nats for 99% of images"
        )


@torch.no_grad()
def model_kl(fitted: Fitted) -> Tensor | None:
    """KL of test images by dimensions in nats, float64 (n, d), on the CPU; None without it.

    Raises:
        NotApplicable: a value is not finite.
    """
    if not fitted.model.offers("kl"):
        return None
    kl = [fitted.model.kl(x, y).double().cpu() for x, y in fitted.batches("test")]
    # A divergence is not below zero, but the rounding of one is.
    return finite(torch.cat(kl), "KL terms").clamp(min=0)


class Aggregate(OfPosterior):
    r"""What a code tells of its image, and how far the codes of all are from the prior.

    .. math:: I_q(x; z) = \mathbb E \log \frac{q(z|x)}{q(z)}, \quad
        \mathrm{KL}(q(z) \,\Vert\, p(z)) = \mathbb E \log \frac{q(z)}{p(z)}

    which add up to the mean KL of an image. q(z) is the mixture of the posteriors of N images, and
    the mean is over one draw of z for each of them. An image's own posterior is in the mixture:
    the first is then the information on which of these N it is, at most log N and near it where
    posteriors do not overlap, and the second too great by what the first lacks. Hoffman and
    Johnson 2016, ELBO surgery.

    Args:
        points: N, the first so many images of the test split.
    """

    name = "aggregate"
    needs = ("posterior", "log_prior")
    quantities: ClassVar = (
        Quantity("mutual_information", "", "nats", ranked=False),
        Quantity("marginal_kl", "lower", "nats", ranked=False),
    )
    source = "Hoffman and Johnson 2016, NeurIPS workshop on approximate inference"
    description = "information of codes on images, and KL from all codes' distribution to the prior"

    def __init__(self, *, points: int = 2000) -> None:
        self.at_least(2, points=points)
        self.points = points

    @torch.no_grad()
    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        model = fitted.model
        with fitted.random(self.name):
            posteriors, codes, own = [], [], []
            for pixels, y in first(fitted, self.points).batches(AT_ONCE):
                posterior = model.posterior(as_float(pixels), y)
                z = posterior.sample()
                posteriors.append(posterior)
                codes.append(finite(z, "codes"))
                own.append(posterior.log_prob(z).double())
        z = torch.cat(codes)
        mixture = aggregate_log_prob(posteriors, z)
        return {
            "mutual_information": (torch.cat(own) - mixture).mean().item(),
            "marginal_kl": (mixture - model.log_prior(z).double()).mean().item(),
        }

    def estimator(self, fitted: Fitted) -> str:
        n = len(first(fitted, self.points))
        return (
            f"mixture of the posteriors of {n} images of the test split, one code of each, its own "
            f"posterior included: mutual information is at most log {n} = {math.log(n):.2f} nats"
        )
