"""How nearly one code stands for one ground-truth factor."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from .base import Fitted, Metric, NotApplicable, Quantity

Ints = NDArray[np.int64]
Represent = Callable[[Ints], NDArray[Any]]
"""Factors (n, K) → codes (n, d)."""

TABLE = 50_000_000
"""Numbers in the largest table of codes of all combinations of factors, 200 MB."""


def mig(codes: NDArray[Any], factors: Ints, bins: int = 20) -> float:
    r"""The mutual information gap.

    .. math::
        \frac1K \sum_k \frac{I(c_{j_k}; v_k) - \max_{j \ne j_k} I(c_j; v_k)}{H(v_k)},
        \quad j_k = \arg\max_j I(c_j; v_k)

    with codes cut into ``bins`` of equal width over their range in this sample. Perfect codes of
    factors with more values than bins score below 1: compare at equal bins and numbers only. A
    constant code tells nothing; a single code's runner-up is 0. Factors of one value are left out.
    NaN where no factor is left or a code is not finite.

    Chen et al. 2018, arXiv:1802.04942, with the estimator of Locatello et al. 2019,
    arXiv:1811.12359.

    Args:
        codes: (n, d).
        factors: (n, K).
        bins: how many bins a code has.
    """
    if not np.isfinite(codes).all():
        return math.nan
    # In float64, where even a code that all but stands still can be cut into bins.
    binned = [np.digitize(c, np.histogram(c, bins)[1][:-1]) - 1 for c in codes.T.astype(np.float64)]
    gaps = []
    for values in factors.T:
        _, index = np.unique(values, return_inverse=True)
        size = int(index.max()) + 1
        entropy = _information(index, index, size, size)
        if size > 1:
            found = sorted([0.0, *(_information(b, index, bins, size) for b in binned)])
            gaps.append((found[-1] - found[-2]) / entropy)
    return float(np.mean(gaps)) if gaps else math.nan


def _information(a: Ints, b: Ints, size_a: int, size_b: int) -> float:
    """The mutual information in nats of two samples of integers in [0, size)."""
    counts = np.bincount(a * size_b + b, minlength=size_a * size_b).reshape(size_a, size_b)
    joint = counts / len(a)
    apart = np.outer(joint.sum(1), joint.sum(0))
    some = joint > 0
    return max(0.0, float((joint[some] * np.log(joint[some] / apart[some])).sum()))


def factor_vae_score(
    represent: Represent,
    factor_sizes: Sequence[int],
    seed: int = 0,
    *,
    variance_points: int = 10_000,
    train: int = 10_000,
    evaluations: int = 5_000,
    batch: int = 64,
    prune: float = 0.05,
) -> float:
    r"""The share of right votes for the factor that a batch has in common.

    A vote is the code that varies least in a batch of images that share one factor's value,

    .. math:: \arg\min_j \mathrm{Var}_{batch}(c_j) / \mathrm{Var}(c_j),

    and each code stands for the factor that it was voted for most often in ``train`` other votes.
    Codes of a standard deviation below ``prune`` do not stand; 0 where none does, as for constant
    codes. Chance is one in the number of factors. Factors of one value are never held. NaN where
    no factor varies or a code is not finite. Kim and Mnih 2018, arXiv:1802.05983; pruned as in
    Locatello et al. 2019, arXiv:1811.12359.

    Args:
        represent: factors int64 (n, K) → codes (n, d).
        factor_sizes: the number of values of each of the K factors.
        seed: what factors and batches are drawn from.
        variance_points: points that the variances of all codes are estimated on.
        train: votes that decide which factor a code stands for.
        evaluations: votes that are scored.
        batch: images a vote.
        prune: the least standard deviation of a code that stands.
    """
    random = np.random.default_rng(seed)
    sizes = np.asarray(factor_sizes, dtype=np.int64)
    vary = np.flatnonzero(sizes > 1)
    points = represent(random.integers(0, sizes, (variance_points, len(sizes))))
    if not len(vary) or not np.isfinite(points).all():
        return math.nan
    variances = points.astype(np.float64).var(0, ddof=1)
    active = np.flatnonzero(np.sqrt(variances) >= prune)
    if not len(active):
        return 0.0

    def votes(n: int) -> Ints:
        """How often each active code was voted for under each factor, (active, K)."""
        table = np.zeros((len(active), len(sizes)), dtype=np.int64)
        for start in range(0, n, 64):
            some = min(64, n - start)
            held = random.choice(vary, some)
            factors = random.integers(0, sizes, (some, batch, len(sizes)))
            rows = np.arange(some)
            factors[rows, :, held] = factors[rows, :1, held]
            codes = represent(factors.reshape(-1, len(sizes))).astype(np.float64)
            within = codes.reshape(some, batch, -1)[:, :, active].var(1, ddof=1)
            np.add.at(table, ((within / variances[active]).argmin(1), held), 1)
        return table

    stands_for = votes(train).argmax(1)
    scored = votes(evaluations)
    return float(scored[np.arange(len(active)), stands_for].sum() / evaluations)


class MIG(Metric):
    """Mutual information gap: :func:`mig` of the first test images' deterministic codes.

    Args:
        points: how many test images; fewer where the split has fewer.
        bins: bins a code.
    """

    name = "mig"
    family = "disentanglement"
    quantities: ClassVar = (Quantity("mig", "higher", low=0, high=1),)
    source = "Chen et al. 2018, arXiv:1802.04942; estimator of Locatello et al. 2019"
    description = "gap in information between a factor's best two codes"
    needs_factors = True
    reads_codes = True

    def __init__(self, *, points: int = 10_000, bins: int = 20) -> None:
        self.at_least(1, points=points)
        self.at_least(2, bins=bins)
        self.points, self.bins = points, bins

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        codes = fitted.embeddings("test", self.points).numpy()
        value = mig(codes, fitted.factors("test", self.points).numpy(), self.bins)
        if math.isnan(value):
            raise NotApplicable("every factor has one value in the test split")
        return {"mig": value}

    def estimator(self, fitted: Fitted) -> str:
        n = min(self.points, len(fitted.dataset.split("test")))
        return f"{n} images of the test split, deterministic codes, {self.bins} bins of equal width"


class FactorVAEScore(Metric):
    """The FactorVAE score: :func:`factor_vae_score` over all combinations of the factors.

    The study of Locatello et al. takes 10,000 votes and scores 5,000; of 2,000 each the standard
    error is .011 at most, for a quarter of the work.

    Args:
        variance_points: points that the variances of all codes are estimated on.
        train: votes that decide which factor a code stands for.
        evaluations: votes that are scored.
        batch: images a vote.
        prune: the least standard deviation of a code that stands.
    """

    name = "factor_vae"
    family = "disentanglement"
    quantities: ClassVar = (Quantity("factor_vae", "higher", low=0, high=1),)
    source = "Kim and Mnih 2018, arXiv:1802.05983"
    description = "accuracy of the least varying code as a classifier of the factor held fixed"
    needs_factors = True
    reads_codes = True

    def __init__(
        self,
        *,
        variance_points: int = 10_000,
        train: int = 2_000,
        evaluations: int = 2_000,
        batch: int = 64,
        prune: float = 0.05,
    ) -> None:
        self.at_least(2, variance_points=variance_points, batch=batch)
        self.at_least(1, train=train, evaluations=evaluations)
        self.variance_points, self.train, self.evaluations = variance_points, train, evaluations
        self.batch, self.prune = batch, prune

    def lacks(self, fitted: Fitted) -> str:
        if why := super().lacks(fitted):
            return why
        if not fitted.dataset.renders:
            return "the dataset does not have every combination of its factors"
        return "" if max(fitted.dataset.factor_sizes) > 1 else "every factor has one value"

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        with fitted.random("factor_vae") as seed:
            value = factor_vae_score(
                self.represent(fitted),
                fitted.dataset.factor_sizes,
                seed,
                variance_points=self.variance_points,
                train=self.train,
                evaluations=self.evaluations,
                batch=self.batch,
                prune=self.prune,
            )
        return {"factor_vae": value}

    def represent(self, fitted: Fitted) -> Represent:
        """The codes of factors, looked up where encoding every combination once is less work."""
        sizes = fitted.dataset.factor_sizes
        combinations = math.prod(sizes)
        points = self.variance_points + (self.train + self.evaluations) * self.batch
        dimension = fitted.represent(torch.zeros(1, len(sizes), dtype=torch.int64)).shape[1]
        if combinations > points or combinations * dimension > TABLE:
            return lambda factors: fitted.represent(torch.from_numpy(factors)).numpy()
        every = np.stack(np.unravel_index(np.arange(combinations), sizes), 1)
        table = fitted.represent(torch.from_numpy(every)).numpy()
        return lambda factors: table[np.ravel_multi_index(tuple(factors.T), sizes)]

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"factors drawn from all combinations, {self.variance_points} points for variances, "
            f"{self.train} votes fitted, {self.evaluations} scored, {self.batch} images a vote, "
            f"codes of standard deviation < {self.prune:g} pruned"
        )
