"""How like the test images the samples are, in the feature space of an extractor."""

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .base import Fitted, Metric, Quantity

Array = NDArray[np.float64]


def frechet_distance(m1: Array, s1: Array, m2: Array, s2: Array) -> float:
    r"""The squared Fréchet distance of two Gaussians.

    .. math:: \lVert m_1 - m_2\rVert^2 + \mathrm{Tr}(S_1 + S_2 - 2 (S_1 S_2)^{1/2})

    The last trace is taken of the symmetric :math:`(S_1^{1/2} S_2 S_1^{1/2})^{1/2}`, which has the
    same eigenvalues: real and not negative, for singular covariances too.

    Args:
        m1: a mean, (d,).
        s1: its covariance, (d, d).
        m2: the other mean.
        s2: its covariance.
    """
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    product = root @ s2 @ root
    shared = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(0)).sum()
    shift = m1 - m2
    return max(0.0, float(shift @ shift + np.trace(s1) + np.trace(s2) - 2 * shared))


def fid(features_a: Tensor, features_b: Tensor) -> float:
    """The Fréchet distance of Gaussians fitted to two sets of features, symmetric in them.

    It is biased upwards, the more the fewer the features: compare at equal numbers only.
    Heusel et al. 2017, arXiv:1706.08500.

    Args:
        features_a: (n, d), n at least 2.
        features_b: (m, d), m at least 2.
    """
    moments = []
    for features in (features_a, features_b):
        rows = features.double().cpu().numpy()
        moments += [rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False))]
    m1, s1, m2, s2 = moments
    return frechet_distance(m1, s1, m2, s2)


def kid(
    features_a: Tensor,
    features_b: Tensor,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> float:
    r"""The squared maximum mean discrepancy of two sets of features: unbiased, so it may be < 0.

    .. math::
        \frac{\sum_{i \ne j} k(a_i, a_j) + k(b_i, b_j)}{m(m-1)}
        - \frac{2}{m^2} \sum_{i, j} k(a_i, b_j), \quad k(a, b) = (a \cdot b / d + 1)^3

    averaged over random subsets of m of each. Bińkowski et al. 2018, arXiv:1801.01401.

    Args:
        features_a: (n, d), n at least 2.
        features_b: the same, of another n.
        subsets: how many subsets; one if each would hold everything.
        subset_size: m, at most the smaller n.
        seed: what the subsets are drawn from.
    """
    a, b = features_a.double(), features_b.double()
    size = min(subset_size, len(a), len(b))
    if size == len(a) == len(b):
        subsets = 1
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for _ in range(subsets):
        x = a[torch.randperm(len(a), generator=generator)[:size]]
        y = b[torch.randperm(len(b), generator=generator)[:size]]
        within = sum(_kernel(z, z).fill_diagonal_(0).sum().item() for z in (x, y))
        total += within / (size * (size - 1)) - 2 * _kernel(x, y).mean().item()
    return total / subsets


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    base = x @ y.T / x.shape[1] + 1
    return base * base * base


class OnFeatures(Metric):
    """A metric over the features of ``fitted.extractor``."""

    def lacks(self, fitted: Fitted) -> str:
        return super().lacks(fitted) or fitted.extractor.why_not()

    def qualifier(self, fitted: Fitted) -> str:
        return fitted.extractor.name


class OfSamples(OnFeatures):
    """A distance between the features of generated and of real images.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        reference: the split of the real images, whole.
    """

    family = "generation"
    per_sampler = True

    def __init__(
        self, *, samples: int | None = None, reference: Literal["test", "train"] = "test"
    ) -> None:
        self.at_least(2, samples=samples)
        self.samples, self.reference = samples, reference

    def number(self, fitted: Fitted) -> int:
        """How many images are generated."""
        return self.samples or fitted.generated

    def generated(self, fitted: Fitted, sampler: str) -> Tensor:
        """The features of the generated images, float64 (n, k)."""
        n = self.number(fitted)
        return fitted.once(
            ("generated", sampler, n), lambda: fitted.features(fitted.samples(sampler, n))
        )

    def estimator(self, fitted: Fitted) -> str:
        real = len(fitted.dataset.split(self.reference))
        return (
            f"{self.number(fitted)} samples against {real} images of the {self.reference} split, "
            f"features of {fitted.extractor.label}"
        )


class FID(OfSamples):
    """Fréchet distance of generated and real images: :func:`fid`.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        reference: the split of the real images, whole.
    """

    name = "fid"
    quantities: ClassVar = (Quantity("fid", "lower", low=0),)
    source = "Heusel et al. 2017, arXiv:1706.08500"
    description = "Fréchet distance between features of samples and of real images"

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        real = fitted.real_features(self.reference)
        return {"fid": fid(real, self.generated(fitted, sampler))}


class KID(OfSamples):
    """Kernel distance of generated and real images: :func:`kid`.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        reference: the split of the real images, whole.
        subsets: how many subsets are averaged over.
        subset_size: images of each kind in a subset; at most the smaller set's number is used.
    """

    name = "kid"
    quantities: ClassVar = (Quantity("kid", "lower"),)
    source = "Bińkowski et al. 2018, arXiv:1801.01401"
    description = "kernel distance between features of samples and of real images, unbiased"

    def __init__(
        self,
        *,
        samples: int | None = None,
        reference: Literal["test", "train"] = "test",
        subsets: int = 100,
        subset_size: int = 1000,
    ) -> None:
        super().__init__(samples=samples, reference=reference)
        self.at_least(1, subsets=subsets)
        self.at_least(2, subset_size=subset_size)
        self.subsets, self.subset_size = subsets, subset_size

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        real = fitted.real_features(self.reference)
        fakes = self.generated(fitted, sampler)
        with fitted.random("kid", sampler) as seed:
            return {"kid": kid(real, fakes, self.subsets, self.subset_size, seed)}

    def estimator(self, fitted: Fitted) -> str:
        real = len(fitted.dataset.split(self.reference))
        size = min(self.subset_size, real, self.number(fitted))
        subsets = 1 if size == real == self.number(fitted) else self.subsets
        return f"{super().estimator(fitted)}, {subsets} subsets of {size}"
