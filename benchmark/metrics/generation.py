"""How like the test images the samples are, in the feature space of an extractor."""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...datasets import SplitName
from .base import Fitted, Metric, NotApplicable, Quantity, Values, finite

ROWS = 500
"""Rows of a matrix of distances at a time: memory is this by the number of the others."""
SLACK = 1e-12
"""Relative rounding error of a squared distance: nearer than that to a ball's border is on it."""


def frechet_distance(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> float:
    r"""The squared Fréchet distance of two Gaussians.

    .. math:: \lVert m_1 - m_2\rVert^2 + \mathrm{Tr}(S_1 + S_2 - 2 (S_1 S_2)^{1/2})

    The last trace is taken of the symmetric :math:`(S_1^{1/2} S_2 S_1^{1/2})^{1/2}`, which has the
    same eigenvalues: real and not negative, for singular covariances too.

    Args:
        m1: a mean, float64 (d,).
        s1: its covariance, (d, d).
        m2: the other mean.
        s2: its covariance.
    """
    return _frechet(m1, _root(s1), m2, s2)


def _frechet(m1: Tensor, root: Tensor, m2: Tensor, s2: Tensor) -> float:
    product = root @ s2 @ root
    shared = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (m1 - m2).square().sum() + root.square().sum() + s2.trace() - 2 * shared
    return max(0.0, distance.item())


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance (d, d)."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,) and the unbiased covariance (d, d) of features (n, d), float64, on the CPU."""
    rows = features.double().cpu()
    if len(rows) < 2:
        raise NotApplicable("one image has no covariance")
    mean = rows.mean(0)
    rows = rows - mean
    return mean, rows.T @ rows / (len(rows) - 1)


def fid(features_a: Tensor, features_b: Tensor) -> float:
    """The Fréchet distance of Gaussians fitted to two sets of features, symmetric in them.

    It is biased upwards, the more the fewer the features: compare at equal numbers only. With no
    more of them than dimensions a covariance is singular, and the bias at its greatest.
    Heusel et al. 2017, arXiv:1706.08500.

    Args:
        features_a: (n, d), n at least 2.
        features_b: (m, d), m at least 2.

    Raises:
        NotApplicable: there are fewer.
    """
    return fid_to(fid_statistics(features_a), features_b)


def fid_statistics(features: Tensor) -> Tensor:
    """What FID asks of one set of features (n, d): float64 (d + 1, d).

    The mean, and below it the symmetric root of the covariance. Of real images they are the same
    for every model, and the root is the slowest part of FID.
    """
    mean, covariance = _moments(features)
    return torch.cat([mean[None], _root(covariance)])


def fid_to(statistics: Tensor, features: Tensor) -> float:
    """:func:`fid` of ``features`` (n, d) to those of which :func:`fid_statistics` were taken."""
    return _frechet(statistics[0], statistics[1:], *_moments(features))


def mmd(x: Tensor, y: Tensor) -> float:
    r"""The squared maximum mean discrepancy of two sets of features: unbiased, so it may be < 0.

    .. math::
        \frac{\sum_{i \ne j} k(x_i, x_j) + k(y_i, y_j)}{m(m-1)}
        - \frac{2}{m^2} \sum_{i, j} k(x_i, y_j), \quad k(x, y) = (x \cdot y / d + 1)^3

    Args:
        x: (m, d), m at least 2.
        y: the same.
    """
    m = len(x)
    within = _kernels(x, x) + _kernels(y, y)
    with_self = sum(((z.square().mean(1) + 1) ** 3).sum().item() for z in (x, y))
    return (within - with_self) / (m * (m - 1)) - 2 * _kernels(x, y) / m**2


def _kernels(x: Tensor, y: Tensor) -> float:
    """The sum of the kernel over all pairs."""
    base = torch.addmm(x.new_ones(()), x, y.T, alpha=1 / x.shape[1]).flatten()
    return torch.dot(base.square(), base).item()


def kid(
    features_a: Tensor,
    features_b: Tensor,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> tuple[float, float]:
    """The squared discrepancy (:func:`mmd`) of two sets of features, averaged over random subsets.

    Subsets are drawn without replacement, of the first set and then of the second, as
    torch-fidelity draws them. Bińkowski et al. 2018, arXiv:1801.01401.

    Args:
        features_a: (n, d), n at least 2.
        features_b: the same, of another n.
        subsets: how many subsets; one if each would hold everything.
        subset_size: images of each set in a subset, at most the smaller n.
        seed: what the subsets are drawn from.

    Returns:
        The mean over the subsets, and their standard deviation (not that of the mean), NaN for one.

    Raises:
        NotApplicable: a set has fewer than 2 features.
    """
    a, b = features_a.double(), features_b.double()
    size = min(subset_size, len(a), len(b))
    if size < 2:
        raise NotApplicable("one image has no kernel distance")
    if size == len(a) == len(b):
        return mmd(a, b), math.nan
    stream = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x, y = (z[torch.from_numpy(stream.choice(len(z), size, replace=False))] for z in (a, b))
        values.append(mmd(x, y))
    return _spread(values)


def _spread(values: list[float]) -> tuple[float, float]:
    """The mean and the standard deviation; one value has none."""
    return float(np.mean(values)), float(np.std(values)) if len(values) > 1 else math.nan


def inception_score(logits: Tensor, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    r"""How sure a classifier is of each image, and how many classes it sees.

    .. math:: \exp \frac{1}{n} \sum_i \mathrm{KL}\big(p(y \mid x_i) \,\big\|\, p(y)\big),
        \quad p(y) = \frac{1}{n} \sum_i p(y \mid x_i)

    of each of ``splits`` parts of the shuffled images: from 1 to the number of classes. It grows
    with the size of a part. Salimans et al. 2016, arXiv:1606.03498.

    Args:
        logits: (n, classes), up to a constant an image.
        splits: how many parts.
        seed: what the order is drawn from.

    Returns:
        The mean over the parts, and their standard deviation (not that of the mean), NaN for one.

    Raises:
        NotApplicable: there are fewer images than parts.
    """
    n = len(logits)
    if n < splits:
        raise NotApplicable(f"{n} images are too few for {splits} splits")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
    log_p = logits.double().cpu()[order].log_softmax(1)
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        p = part.exp()
        # A class of no probability at all adds nothing.
        marginal = p.mean(0).clamp(min=torch.finfo(p.dtype).tiny).log()
        divergence = (p * (part - marginal)).sum(1).mean()
        scores.append(divergence.clamp(min=0).exp().item())
    return _spread(scores)


def radii(features: Tensor, neighbours: int) -> Tensor:
    """The squared distance of each point to its ``neighbours``-th nearest other: float64 (n,).

    Args:
        features: the points, float64 (n, d), their mean near 0, on which the rounding depends.
        neighbours: k, at least 1.

    Raises:
        NotApplicable: there are no more than k points.
    """
    if len(features) <= neighbours:
        raise NotApplicable(f"{len(features)} images are too few for {neighbours} neighbours")
    # Each is its own nearest, or as near as another.
    found = [gaps.topk(neighbours + 1, largest=False) for gaps in _gaps(features, features)]
    return torch.cat([nearest.values.amax(1) for nearest in found])


def _gaps(points: Tensor, others: Tensor, slack: float = 0.0) -> Iterator[Tensor]:
    """Squared distances (rows, m) of ``points`` (n, d) to ``others`` (m, d), some rows at a time.

    Args:
        points: float64 (n, d).
        others: float64 (m, d).
        slack: by how much of its points' squared norms each is too great.
    """
    norms = others.square().sum(1) * (1 + slack)
    for some in points.split(ROWS):
        sums = some.square().sum(1)[:, None] * (1 + slack) + norms
        yield torch.addmm(sums, some, others.T, alpha=-2)


def _centred(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Both less the mean of the real: distances are the same, their rounding is the least."""
    real, fake = real.double().cpu(), fake.double().cpu()
    mean = real.mean(0)
    return real - mean, fake - mean


def precision_recall(
    real: Tensor, fake: Tensor, neighbours: int = 3, real_radii: Tensor | None = None
) -> tuple[float, float]:
    """The shares of the fakes near a real image, and of the real images near a fake.

    Near a point is what is no farther from it than its k-th nearest of its own kind. Improved
    precision and recall, Kynkäänniemi et al. 2019, arXiv:1904.06991.

    Args:
        real: features (n, d), more than ``neighbours``.
        fake: features (m, d), more than ``neighbours``.
        neighbours: k.
        real_radii: :func:`radii` of the real features less their mean, where they are at hand.

    Raises:
        NotApplicable: either has no more than k.
    """
    real, fake = _centred(real, fake)
    reach = radii(real, neighbours) if real_radii is None else real_radii
    fake_reach = radii(fake, neighbours)
    precise = torch.zeros(len(fake), dtype=torch.bool)
    recalled = []
    for gaps, some in zip(_gaps(real, fake, -SLACK), reach.split(ROWS)):
        precise |= (gaps <= some[:, None]).any(0)
        recalled.append((gaps <= fake_reach).any(1))
    return precise.double().mean().item(), torch.cat(recalled).double().mean().item()


def density_coverage(
    real: Tensor, fake: Tensor, neighbours: int = 5, real_radii: Tensor | None = None
) -> tuple[float, float]:
    r"""How many real images a fake is near to, over k, and the share of them that a fake is near.

    .. math:: \frac{1}{km} \sum_{j=1}^m \sum_{i=1}^n [y_j \in B_k(x_i)], \quad
        \frac{1}{n} \sum_{i=1}^n [\exists j: y_j \in B_k(x_i)]

    for reals x and fakes y, :math:`B_k(x)` being the open ball up to the k-th nearest other real,
    which is empty where k others equal it. Both are near 1 where the fakes are distributed as the
    reals; density can exceed 1. Naeem et al. 2020, arXiv:2002.09797.

    Args:
        real: features (n, d), more than ``neighbours``.
        fake: features (m, d).
        neighbours: k.
        real_radii: :func:`radii` of the real features less their mean, where they are at hand.

    Raises:
        NotApplicable: there are no more than k real features.
    """
    real, fake = _centred(real, fake)
    reach = radii(real, neighbours) if real_radii is None else real_radii
    inside = [
        (gaps < some[:, None]).sum(1)
        for gaps, some in zip(_gaps(real, fake, SLACK), reach.split(ROWS))
    ]
    counts = torch.cat(inside)
    return counts.sum().item() / (neighbours * len(fake)), (counts > 0).double().mean().item()


def defined(deviation: float, of: str) -> float | NotApplicable:
    """A deviation, n/a where it is NaN for there was one value."""
    return NotApplicable(f"{of} has no deviation") if math.isnan(deviation) else deviation


class OnFeatures(Metric):
    """A metric over the features of ``fitted.extractor``."""

    def lacks(self, fitted: Fitted) -> str:
        return super().lacks(fitted) or fitted.extractor.why_not()

    def qualifier(self, fitted: Fitted) -> str:
        return "|".join(word for word in (fitted.extractor.name, fitted.shown) if word)

    def real(self, fitted: Fitted, split: SplitName) -> Tensor:
        """The features of a split's images, float64 (n, k)."""
        return finite(fitted.real_features(split), "features of real images")

    def statistics(self, fitted: Fitted, split: SplitName) -> Tensor:
        """:func:`fid_statistics` of a split's images, computed once a dataset."""
        return fitted.extractor.cached(
            f"{split}-canonical-mean-and-root-of-covariance",
            lambda: fid_statistics(self.real(fitted, split)),
        )

    def fid(self, fitted: Fitted, features: Tensor, split: SplitName = "test") -> float:
        """:func:`fid` of features (n, k) to those of a split's images."""
        return fid_to(self.statistics(fitted, split), finite(features, "features"))

    def few(self, fitted: Fitted, n: int, split: SplitName = "test") -> str:
        """What an estimator adds where ``n`` images or the split's are too few for FID."""
        dimensions = self.statistics(fitted, split).shape[1]
        least = min(n, len(fitted.dataset.split(split)))
        return f", no more images than the {dimensions} features" if least <= dimensions else ""


class OfSamples(OnFeatures):
    """A metric of the features of generated images.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
    """

    family = "generation"
    per_sampler = True

    def __init__(self, *, samples: int | None = None) -> None:
        self.at_least(2, samples=samples)
        self.samples = samples

    def number(self, fitted: Fitted) -> int:
        """How many images are generated."""
        return self.samples or fitted.generated

    def generated(self, fitted: Fitted, sampler: str) -> Tensor:
        """The features of the generated images, float64 (n, k)."""
        n = self.number(fitted)
        features = fitted.once(
            ("generated", sampler, n), lambda: fitted.features(fitted.samples(sampler, n))
        )
        return finite(features, "features of the samples")


class AgainstReal(OfSamples):
    """A comparison of the features of generated images with those of real ones.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        reference: the split of the real images, whole.
    """

    def __init__(
        self, *, samples: int | None = None, reference: Literal["test", "train"] = "test"
    ) -> None:
        super().__init__(samples=samples)
        self.reference = reference

    def estimator(self, fitted: Fitted) -> str:
        real = len(fitted.dataset.split(self.reference))
        return (
            f"{self.number(fitted)} samples against {real} images of the {self.reference} split, "
            f"features of {fitted.extractor.label}"
        )


class FID(AgainstReal):
    """Fréchet distance of generated and real images: :func:`fid`.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        reference: the split of the real images, whole.
    """

    name = "fid"
    quantities: ClassVar = (Quantity("fid", "lower", low=0),)
    source = "Heusel et al. 2017, arXiv:1706.08500"
    description = "Fréchet distance between features of samples and of real images"

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        return {"fid": self.fid(fitted, self.generated(fitted, sampler), self.reference)}

    def estimator(self, fitted: Fitted) -> str:
        few = self.few(fitted, self.number(fitted), self.reference)
        return super().estimator(fitted) + few


class KID(AgainstReal):
    """Kernel distance of generated and real images: :func:`kid`, the mean over subsets.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        reference: the split of the real images, whole.
        subsets: how many subsets are averaged over.
        subset_size: images of each kind in a subset; at most the smaller set's number is used.
    """

    name = "kid"
    quantities: ClassVar = (
        Quantity("kid", "lower"),
        Quantity("kid_std", "", low=0, ranked=False),
    )
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

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        real = self.real(fitted, self.reference)
        fakes = self.generated(fitted, sampler)
        with fitted.random("kid", sampler) as seed:
            mean, deviation = kid(real, fakes, self.subsets, self.subset_size, seed)
        return {"kid": mean, "kid_std": defined(deviation, "one subset")}

    def estimator(self, fitted: Fitted) -> str:
        real = len(fitted.dataset.split(self.reference))
        size = min(self.subset_size, real, self.number(fitted))
        subsets = 1 if size == real == self.number(fitted) else self.subsets
        return f"{super().estimator(fitted)}, {subsets} subsets of {size}"


class InceptionScore(OfSamples):
    """How sure the extractor's classes are of each sample, and how varied: :func:`inception_score`.

    Only with Inception is it the published score. It never sees a real image: samples that differ
    from the data in all but their class score well.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        splits: how many parts the samples are scored in.
    """

    name = "inception_score"
    quantities: ClassVar = (
        Quantity("inception_score", "higher", low=1, ranked=False),
        Quantity("inception_score_std", "", low=0, ranked=False),
    )
    source = "Salimans et al. 2016, arXiv:1606.03498"
    description = "how sure the extractor's classes are of each sample, and how varied over all"

    def __init__(self, *, samples: int | None = None, splits: int = 10) -> None:
        super().__init__(samples=samples)
        self.at_least(1, splits=splits)
        self.splits = splits

    def lacks(self, fitted: Fitted) -> str:
        return super().lacks(fitted) or fitted.extractor.why_no_logits()

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        images = fitted.samples(sampler, self.number(fitted))
        extractor, batches = fitted.extractor, images.split(fitted.batch_size)
        with torch.no_grad():
            logits = torch.cat([extractor.logits(x.to(fitted.device)).cpu() for x in batches])
        mean, deviation = inception_score(finite(logits, "logits"), self.splits)
        return {"inception_score": mean, "inception_score_std": defined(deviation, "one split")}

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"{self.number(fitted)} samples in {self.splits} splits, "
            f"classes of {fitted.extractor.label}"
        )


class OfNeighbours(AgainstReal):
    """A comparison by balls around images, up to their k-th nearest neighbour.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        reference: the split of the real images, whole.
        neighbours: k.
    """

    def __init__(
        self, *, samples: int | None, reference: Literal["test", "train"], neighbours: int
    ) -> None:
        super().__init__(samples=samples, reference=reference)
        self.at_least(1, neighbours=neighbours)
        self.neighbours = neighbours

    def radii(self, fitted: Fitted) -> Tensor:
        """:func:`radii` of the real images, computed once a dataset."""

        def compute() -> Tensor:
            real = self.real(fitted, self.reference)
            return radii(real - real.mean(0), self.neighbours)

        purpose = f"{self.reference}-canonical-squared-radii-{self.neighbours}"
        return fitted.extractor.cached(purpose, compute)

    def estimator(self, fitted: Fitted) -> str:
        return f"{super().estimator(fitted)}, {self.neighbours} nearest neighbours"


class PrecisionRecall(OfNeighbours):
    """Improved precision and recall of the samples: :func:`precision_recall`.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        reference: the split of the real images, whole.
        neighbours: k.
    """

    name = "precision_recall"
    quantities: ClassVar = (
        Quantity("precision", "higher", low=0, high=1),
        Quantity("recall", "higher", low=0, high=1),
    )
    source = "Kynkäänniemi et al. 2019, arXiv:1904.06991"
    description = "shares of samples that are near a real image, and of real images near a sample"

    def __init__(
        self,
        *,
        samples: int | None = None,
        reference: Literal["test", "train"] = "test",
        neighbours: int = 3,
    ) -> None:
        super().__init__(samples=samples, reference=reference, neighbours=neighbours)

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        real, fakes = self.real(fitted, self.reference), self.generated(fitted, sampler)
        found = precision_recall(real, fakes, self.neighbours, self.radii(fitted))
        return dict(zip(("precision", "recall"), found))


class DensityCoverage(OfNeighbours):
    """Density and coverage of the samples: :func:`density_coverage`.

    Args:
        samples: how many images are generated; None takes the test split's number, at most 10,000.
        reference: the split of the real images, whole.
        neighbours: k.
    """

    name = "density_coverage"
    quantities: ClassVar = (
        Quantity("density", "higher", low=0, ranked=False),
        Quantity("coverage", "higher", low=0, high=1, ranked=False),
    )
    source = "Naeem et al. 2020, arXiv:2002.09797"
    description = "how many real images a sample is near to, over k; share of real images near one"

    def __init__(
        self,
        *,
        samples: int | None = None,
        reference: Literal["test", "train"] = "test",
        neighbours: int = 5,
    ) -> None:
        super().__init__(samples=samples, reference=reference, neighbours=neighbours)

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        real, fakes = self.real(fitted, self.reference), self.generated(fitted, sampler)
        found = density_coverage(real, fakes, self.neighbours, self.radii(fitted))
        return dict(zip(("density", "coverage"), found))
