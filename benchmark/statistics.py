"""The leaderboard's statistics: intervals, ranks over datasets, tests and the seeds they need."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

Better = Literal["higher", "lower"]

# Of four values 1 resample in 64 is of one value alone and has no deviation: intervals cover still,
# but are ten times Student's in the mean. Of five they are a third wider in the median.
LEAST_BOOTSTRAP = 5
# 2.5 % of one more than these is a whole number: the ends are order statistics.
RESAMPLES = 4999
MOST_SEEDS = 2**20


@dataclass(frozen=True)
class Friedman:
    """Friedman's chi² and Iman and Davenport's F, with their p-values."""

    chi2: float
    p: float
    f: float
    p_f: float


@dataclass(frozen=True)
class Difference:
    """The mean of a less that of b, its 95 % interval, and the two-sided p-value."""

    mean: float
    low: float
    high: float
    p: float


def interval(values: Sequence[float]) -> tuple[float, float]:
    r"""The mean and the half-width of its 95 % interval.

    .. math:: \bar v \pm t_{n-1,\,0.975}\, s / \sqrt n

    with s the standard deviation of n values (n - 1 in its denominator), from Student's t with
    n - 1 degrees of freedom: exact under normal noise from two values on. NaN where there are too
    few values.
    """
    from scipy.special import stdtrit

    n = len(values)
    if not n:
        return math.nan, math.nan
    mean = average(values)
    if n == 1:
        return mean, math.nan
    return mean, float(stdtrit(n - 1, 0.975)) * deviation(values) / math.sqrt(n)


def average(values: Sequence[float]) -> float:
    """The mean; of equal values exactly theirs, so that models that do not vary compare."""
    return values[0] if min(values) == max(values) else statistics.fmean(values)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation, n - 1 in its denominator; of equal values exactly 0.

    The standard library's computes in fractions, which takes half the time of a leaderboard.
    """
    mean = average(values)
    return math.hypot(*(v - mean for v in values)) / math.sqrt(len(values) - 1)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    r"""The ends of the mean's 95 % interval by the studentised bootstrap.

    .. math:: \bar v - t^*_{0.975}\, s / \sqrt n, \quad \bar v - t^*_{0.025}\, s / \sqrt n

    with :math:`t^* = (\bar v^* - \bar v) \sqrt n / s^*` over resamples (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, section 12.5). The same values give the same interval. Of 5
    values of normal noise it covers the mean 95 % of the time, the percentile and BCa intervals
    82 to 83 %; of exponential noise 93 %, Student's 88 %. NaN of fewer than ``LEAST_BOOTSTRAP``
    values, and where ties leave too many resamples without a deviation to bound it.
    """
    import numpy as np

    v = np.sort(np.asarray(values, dtype=float))
    n = len(v)
    if n < LEAST_BOOTSTRAP or not np.isfinite(v).all():
        return math.nan, math.nan
    mean, sd = average(v.tolist()), deviation(v.tolist())
    if not sd:
        return mean, mean
    z = (v - mean) / sd
    counts = resamples(n)
    means = counts @ z / n
    variances = (counts @ z**2 / n - means**2) * n / (n - 1)
    variances[variances < 1e-12] = 0  # of one value alone, but for rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(means / np.sqrt(variances), nan=0.0, posinf=np.inf, neginf=-np.inf)
    last = round(0.025 * (RESAMPLES + 1)) - 1
    t.partition((last, RESAMPLES - 1 - last))
    low, high = t[RESAMPLES - 1 - last], t[last]
    if not (math.isfinite(low) and math.isfinite(high)):
        return math.nan, math.nan
    # Sums of products differ in the last bits from machine to machine; tables must not.
    ends = (mean - float(low) * sd, mean - float(high) * sd)
    return float(f"{ends[0]:.12g}"), float(f"{ends[1]:.12g}")


@lru_cache(maxsize=32)
def resamples(n: int) -> "np.ndarray":
    """How often each of n values is drawn, of shape (RESAMPLES, n): the same in every process."""
    import numpy as np

    return np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)


def ranks(values: "ArrayLike", better: Better) -> "np.ndarray":
    """The ranks of values: 1 is best, ties share the average of their ranks, NaN stay NaN."""
    import numpy as np
    from scipy.stats import rankdata

    v = np.asarray(values, dtype=float)
    return rankdata(v if better == "lower" else -v, nan_policy="omit")


def friedman(ranks: "ArrayLike") -> Friedman:
    r"""Friedman's test that all models rank alike, corrected for ties.

    .. math:: \chi^2 = (k - 1) \frac{S}{T}, \quad
        F = \frac{(N - 1)\chi^2}{N(k - 1) - \chi^2} = \frac{(N - 1) S}{N T - S}

    with :math:`S = \sum_j (\sum_i d_{ij})^2`, :math:`T = \sum_{ij} d_{ij}^2` and d the ranks less
    their mean (k + 1) / 2. chi² has k - 1 degrees of freedom; F, of k - 1 and (k - 1)(N - 1), is
    less conservative (Iman and Davenport, 1980). NaN where all ranks tie, of one dataset, and of
    two models, where it is the sign test: ``wilcoxon`` sees more.

    Args:
        ranks: N datasets by k models.
    """
    import numpy as np
    from scipy.special import chdtrc, fdtrc

    r = np.asarray(ranks, dtype=float)
    n, k = r.shape
    d = r - (k + 1) / 2
    s, t = float((d.sum(0) ** 2).sum()), float((d**2).sum())
    if n < 2 or k < 3 or not t > 0:
        return Friedman(math.nan, math.nan, math.nan, math.nan)
    chi2, left = (k - 1) * s / t, n * t - s
    p = float(chdtrc(k - 1, chi2))
    if left <= 1e-12 * n * t:
        return Friedman(chi2, p, math.inf, 0.0)
    f = (n - 1) * s / left
    return Friedman(chi2, p, f, float(fdtrc(k - 1, (k - 1) * (n - 1), f)))


def rank_interval(ranks: "ArrayLike") -> float:
    r"""The half-width of the 95 % interval of every mean rank.

    .. math:: t_{(N-1)(k-1),\,0.975}\, \sqrt{\frac{1}{N} \cdot \frac{1}{k(N - 1)}
        \sum_{ij} (r_{ij} - \bar r_j)^2}

    from the mean variance of the k models' ranks over N datasets, as Friedman's and Nemenyi's tests
    pool it: a model's own few ranks, which cannot leave 1 to k, understate theirs. NaN of one
    dataset and of one model.

    Args:
        ranks: N datasets by k models.
    """
    import numpy as np
    from scipy.special import stdtrit

    r = np.asarray(ranks, dtype=float)
    n, k = r.shape
    if n < 2 or k < 2:
        return math.nan
    variance = float(r.var(0, ddof=1).mean())
    return float(stdtrit((n - 1) * (k - 1), 0.975)) * math.sqrt(variance / n)


@lru_cache(maxsize=256)
def critical_difference(models: int, datasets: int, alpha: float = 0.05) -> float:
    r"""The difference of two mean ranks from which on Nemenyi's test tells them apart.

    .. math:: q_\alpha \sqrt{\frac{k(k + 1)}{6N}}

    of k models over N datasets, with q the studentised range's quantile over :math:`\sqrt 2`
    (Demšar, JMLR 7, 2006). NaN of fewer than two models or without a dataset.
    """
    from scipy.stats import studentized_range

    if models < 2 or datasets < 1:
        return math.nan
    q = float(studentized_range.ppf(1 - alpha, models, math.inf)) / math.sqrt(2)
    return q * math.sqrt(models * (models + 1) / (6 * datasets))


def cliques(means: Sequence[float], cd: float) -> tuple[tuple[int, int], ...]:
    """The largest groups of models whose mean ranks lie within ``cd``, as first and last index.

    Args:
        means: the mean ranks, ascending.
        cd: the critical difference; there are no groups where it is NaN.
    """
    found: list[tuple[int, int]] = []
    last = 0
    for first, mean in enumerate(means):
        reach = max(last, first)
        while reach + 1 < len(means) and means[reach + 1] - mean <= cd:
            reach += 1
        if reach > max(last, first):
            found.append((first, reach))
        last = max(last, reach)
    return tuple(found)


def welch(a: Sequence[float], b: Sequence[float]) -> Difference:
    r"""The difference of two means of independent samples, by Welch's test.

    .. math:: t = \frac{\bar a - \bar b}{\sqrt{v_a + v_b}}, \quad v = \frac{s^2}{n}, \quad
        \nu = \frac{(v_a + v_b)^2}{v_a^2 / (n_a - 1) + v_b^2 / (n_b - 1)}

    Interval and p are NaN where a sample has fewer than two values. Where neither varies, as with
    deterministic models, the interval has no width and p is 1 of equal means, otherwise its bound
    :math:`2 (n_a / n)^{n_a} (n_b / n)^{n_b}` with :math:`n = n_a + n_b`: with no greater chance
    two equal models of a two-valued score are each constant and differ.
    """
    from scipy.special import stdtr, stdtrit

    if not (len(a) and len(b)):
        return Difference(math.nan, math.nan, math.nan, math.nan)
    mean = average(a) - average(b)
    if len(a) < 2 or len(b) < 2:
        return Difference(mean, math.nan, math.nan, math.nan)
    of_a = deviation(a) / math.sqrt(len(a))
    error = math.hypot(of_a, deviation(b) / math.sqrt(len(b)))
    if not error:
        of_all = len(a) / (len(a) + len(b))
        chance = 2 * of_all ** len(a) * (1 - of_all) ** len(b)
        return Difference(mean, mean, mean, chance if mean else 1.0)
    share = (of_a / error) ** 2
    freedom = 1 / (share**2 / (len(a) - 1) + (1 - share) ** 2 / (len(b) - 1))
    half = float(stdtrit(freedom, 0.975)) * error
    return Difference(mean, mean - half, mean + half, 2 * float(stdtr(freedom, -abs(mean) / error)))


def wilcoxon(differences: "ArrayLike") -> float:
    """The two-sided p of Wilcoxon's signed-rank test, exact with ties too.

    Zeros are ranked and then left out (Pratt, 1959). NaN where all differences are zero.
    """
    import numpy as np
    from scipy.stats import rankdata

    d = np.asarray(differences, dtype=float)
    if np.isnan(d).any() or not d.any():
        return math.nan
    # Twice the ranks are whole numbers, ties or none.
    doubled = np.rint(2 * rankdata(abs(d)))[d != 0].astype(int)
    positive = doubled[d[d != 0] > 0].sum()
    chances = np.ones(1)  # of each sum of ranks, every sign being as likely
    for rank in doubled:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    smaller = min(positive, doubled.sum() - positive)
    return min(1.0, 2 * float(chances[: smaller + 1].sum()))


def holm(p: "ArrayLike") -> "np.ndarray":
    r"""p-values adjusted for their number by Holm's step-down method (1979).

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    NaN stay NaN, and do not count among the m.
    """
    import numpy as np

    adjusted = np.array(p, dtype=float)
    order = np.argsort(adjusted)[: np.count_nonzero(~np.isnan(adjusted))]
    steps = np.arange(len(order), 0, -1) * adjusted[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def win_rate(a: Sequence[float], b: Sequence[float], better: Better) -> float:
    """The share of pairs of seeds in which a beats b, ties as half a win. NaN without seeds."""
    import numpy as np

    if not (len(a) and len(b)):
        return math.nan
    ahead = np.subtract.outer(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    signs = np.sign(ahead if better == "higher" else -ahead)
    return float((signs.mean() + 1) / 2)


def seeds_needed(
    difference: float, sd_a: float, sd_b: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    r"""The fewest seeds a model with which Welch's two-sided test sees a difference.

    .. math:: P(|T| > t_{\nu,\,1 - \alpha/2}) \ge \text{power}, \quad
        \nu = (n - 1) \frac{(s_a^2 + s_b^2)^2}{s_a^4 + s_b^4}

    with T of the noncentral t distribution with :math:`\nu` degrees of freedom and noncentrality
    :math:`\delta \sqrt{n / (s_a^2 + s_b^2)}`. Where neither varies, the fewest at which
    ``welch`` bounds p by :math:`\alpha`. Infinite where ``MOST_SEEDS`` do not suffice.
    """
    from scipy.special import ncfdtr, stdtrit

    if math.isnan(difference + sd_a + sd_b):
        return math.nan
    if not difference:
        return math.inf
    error = math.hypot(sd_a, sd_b)
    if not error:
        return float(max(2, math.ceil((1 - math.log2(alpha)) / 2)))
    share, effect = (sd_a / error) ** 2, abs(difference) / error

    def reached(n: int) -> bool:
        freedom = (n - 1) / (share**2 + (1 - share) ** 2)
        critical = float(stdtrit(freedom, 1 - alpha / 2))
        # T² is of the noncentral F distribution: scipy's is NaN where there is no doubt left.
        return not ncfdtr(1, freedom, n * effect * effect, critical**2) > 1 - power

    enough = 2
    while not reached(enough):
        enough *= 2
        if enough > MOST_SEEDS:
            return math.inf
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if reached(middle) else (middle, enough)
    return float(enough)
