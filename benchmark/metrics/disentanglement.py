"""How nearly one code stands for one ground-truth factor.

Estimators and their sizes are those of the study of Locatello et al. 2019, arXiv:1811.12359, where
nothing else is said. Everywhere codes are (n, d), factors are integers (n, K), factors of one value
are left out, and NaN is the answer where no factor is left or a code is not finite.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...plugins import InputError
from .base import Fitted, Metric, NotApplicable, Quantity, Values
from .unsupervised import UDR, Unsupervised, cut, mutual_information, narrow, udr, unsupervised

__all__ = [
    "DCI",
    "DCIMIG",
    "IRS",
    "MIG",
    "SAP",
    "UDR",
    "BetaVAEScore",
    "Explicitness",
    "FactorVAEScore",
    "MIGSup",
    "Modularity",
    "Unsupervised",
    "beta_vae_score",
    "dci",
    "dci_of",
    "dcimig",
    "explicitness",
    "factor_vae_score",
    "information",
    "irs",
    "mig",
    "mig_sup",
    "modularity",
    "sap",
    "udr",
    "unsupervised",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Represent = Callable[[Ints], NDArray[Any]]
"""Factors (n, K) → codes (n, d)."""

TABLE = 50_000_000
"""Numbers in the largest table of codes of all combinations of factors, 200 MB."""

CHUNK = 1_000
"""Points that are drawn and encoded at a time."""

# Mutual information.


def information(codes: NDArray[Any], factors: Ints, bins: int = 20) -> tuple[Floats, Floats]:
    """How much each code tells of each factor that varies, in nats.

    Codes are cut into ``bins`` of equal width over their range in this sample, so that a constant
    code tells nothing.

    Args:
        codes: (n, d), finite.
        factors: (n, K).
        bins: how many bins a code has.

    Returns:
        The mutual informations (d, K'), and the entropies (K',) of the K' factors that vary.
    """
    # In float64, where even a code that all but stands still can be cut into bins.
    binned = [cut(code, bins) for code in codes.T.astype(np.float64)]
    columns, entropies = [], []
    for values in factors.T:
        _, index = np.unique(values, return_inverse=True)
        size = int(index.max()) + 1
        if size > 1:
            columns.append([mutual_information(b, index, bins, size) for b in binned])
            entropies.append(mutual_information(index, index, size, size))
    return np.array(columns).reshape(-1, len(binned)).T, np.array(entropies)


def _gaps(values: Floats) -> Floats:
    """The largest less the second largest of each row; a lone value's runner-up is 0."""
    ordered = np.sort(np.pad(values, ((0, 0), (0, max(0, 2 - values.shape[1])))), axis=1)
    return ordered[:, -1] - ordered[:, -2]


def _usable(codes: NDArray[Any], factors: Ints) -> bool:
    """Whether there are finite codes and a factor that varies."""
    if not codes.size or not factors.size or not np.isfinite(codes).all():
        return False
    return bool((np.ptp(factors, 0) > 0).any())


def mig(codes: NDArray[Any], factors: Ints, bins: int = 20) -> float:
    r"""The mutual information gap.

    .. math::
        \frac1K \sum_k \frac{I(c_{j_k}; v_k) - \max_{j \ne j_k} I(c_j; v_k)}{H(v_k)},
        \quad j_k = \arg\max_j I(c_j; v_k)

    Perfect codes of factors with more values than bins score below 1: compare at equal bins and
    numbers only. A single code's runner-up is 0. Chen et al. 2018, arXiv:1802.04942, see
    :func:`information` for the estimator.

    Args:
        codes: (n, d).
        factors: (n, K).
        bins: how many bins a code has.
    """
    if not _usable(codes, factors):
        return math.nan
    shared, entropies = information(codes, factors, bins)
    return float((_gaps(shared.T) / entropies).mean())


def mig_sup(codes: NDArray[Any], factors: Ints, bins: int = 20) -> float:
    r"""The mutual information gap of codes: that between the two factors that a code tells most of.

    .. math::
        \frac1d \sum_j \Big( s_{j k_j} - \max_{k \ne k_j} s_{jk} \Big),
        \quad s_{jk} = \frac{I(c_j; v_k)}{H(v_k)}, \quad k_j = \arg\max_k s_{jk}

    over all codes, so that each one that tells nothing lowers it: perfect codes beside as many of
    noise score half. Duplicates do not. A single factor's runner-up is 0. Li et al. 2020,
    arXiv:2002.10549.

    Args:
        codes: (n, d).
        factors: (n, K).
        bins: how many bins a code has.
    """
    if not _usable(codes, factors):
        return math.nan
    shared, entropies = information(codes, factors, bins)
    return float(_gaps(shared / entropies).mean())


def dcimig(codes: NDArray[Any], factors: Ints, bins: int = 20) -> float:
    r"""The mutual information gap of the best code of each factor.

    .. math::
        \frac{\sum_k \max_{j : k_j = k} \big( I(c_j; v_k) - \max_{l \ne k} I(c_j; v_l) \big)}
        {\sum_k H(v_k)}, \quad k_j = \arg\max_k I(c_j; v_k)

    A factor that is no code's first counts 0. Neither duplicates nor codes of noise lower it. A
    single factor's runner-up is 0. Sepliarskaia et al. 2019, arXiv:1910.05587.

    Args:
        codes: (n, d).
        factors: (n, K).
        bins: how many bins a code has.
    """
    if not _usable(codes, factors):
        return math.nan
    shared, entropies = information(codes, factors, bins)
    best = np.zeros(len(entropies))
    np.maximum.at(best, shared.argmax(1), _gaps(shared))
    return float(best.sum() / entropies.sum())


def modularity(codes: NDArray[Any], factors: Ints, bins: int = 20) -> float:
    r"""How nearly a code tells of one factor alone.

    .. math::
        \frac1d \sum_j \left( 1
        - \frac{\sum_{k \ne k_j} I(c_j; v_k)^2}{(K - 1) I(c_j; v_{k_j})^2} \right),
        \quad k_j = \arg\max_k I(c_j; v_k)

    over all codes; one that tells exactly nothing, as a constant does, counts 0. A code of noise
    tells more of factors of many values by chance: ten of them score .67 over the factors of
    dSprites. Of a single factor a code that tells anything scores 1. Ridgeway and Mozer 2018,
    arXiv:1802.05312.

    Args:
        codes: (n, d).
        factors: (n, K).
        bins: how many bins a code has.
    """
    if not _usable(codes, factors):
        return math.nan
    squares = information(codes, factors, bins)[0] ** 2
    most = squares.max(1)
    others = (squares.sum(1) - most) / max(squares.shape[1] - 1, 1)
    return float(np.where(most > 0, 1 - others / np.where(most > 0, most, 1), 0).mean())


# Classifiers.


def _parts(
    codes: NDArray[Any], factors: Ints, train: int | None
) -> tuple[Floats, Ints, Floats, Ints] | None:
    """Codes and varying factors that are fitted to and that are scored; None without any."""
    n = len(codes) * 2 // 3 if train is None else train
    if not 0 < n < len(codes) or not _usable(codes, factors[:n]):
        return None
    factors, codes = factors[:, np.ptp(factors[:n], 0) > 0], codes.astype(np.float64)
    return codes[:n], factors[:n], codes[n:], factors[n:]


@contextmanager
def _converged_or_not() -> Iterator[None]:
    """A fit that ends at its limit of iterations counts, as it does in the study."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def dci(
    codes: NDArray[Any], factors: Ints, *, train: int | None = None, seed: int = 0
) -> dict[str, float]:
    """Disentanglement, completeness and informativeness, by gradient-boosted trees.

    A classifier of each factor by all codes, :func:`.boosting.boost`, gives the codes' importances,
    see :func:`dci_of`, and its mean accuracy is the informativeness. Eastwood and Williams 2018,
    https://openreview.net/forum?id=By-7dz-AZ.

    Args:
        codes: (n, d).
        factors: (n, K).
        train: the classifiers are fitted to the first so many points and scored on the others;
            two thirds without.
        seed: what picks among codes that are equally good.

    Returns:
        ``disentanglement``, ``completeness``, ``informativeness`` at the points scored, and
        ``informativeness_train`` at those fitted to.
    """
    from .boosting import boost

    names = ("disentanglement", "completeness", "informativeness", "informativeness_train")
    parts = _parts(codes, factors, train)
    if parts is None:
        return dict.fromkeys(names, math.nan)
    found = boost(*parts, seed=seed)
    accuracies = float(found.test.mean()), float(found.train.mean())
    return dict(zip(names, (*dci_of(found.importances), *accuracies)))


def dci_of(importances: Floats) -> tuple[float, float]:
    r"""Disentanglement and completeness of the importances R (d, K) of d codes for K factors.

    .. math::
        D = \sum_j \frac{\sum_k R_{jk}}{\sum_{jk} R_{jk}} (1 - H_K(R_{j \cdot})), \quad
        C = \sum_k \frac{\sum_j R_{jk}}{\sum_{jk} R_{jk}} (1 - H_d(R_{\cdot k}))

    with H the entropy of a row or column as a share of one, to the base of its length. Both are 0
    where nothing is of importance. All there is of importance is one factor's where K is 1, and
    one code's where d is 1.
    """
    return _concentration(importances), _concentration(importances.T)


def _concentration(rows: Floats) -> float:
    total = rows.sum(1)
    if not total.sum() > 0:
        return 0.0
    p = rows / np.where(total > 0, total, 1)[:, None]
    entropies = -(p * np.log(np.where(p > 0, p, 1))).sum(1) / math.log(max(rows.shape[1], 2))
    return min(1.0, max(0.0, float(total @ (1 - entropies) / total.sum())))


def sap(codes: NDArray[Any], factors: Ints, *, train: int | None = None) -> float:
    r"""The separated attribute predictability.

    .. math::
        \frac1K \sum_k \Big( a_{j_k k} - \max_{j \ne j_k} a_{jk} \Big),
        \quad j_k = \arg\max_j a_{jk}

    with :math:`a_{jk}` the accuracy of a linear support vector machine (C .01, balanced classes)
    that tells factor k by code j alone, not scaled. A line tells apart the extreme values of an
    ordered factor at most, so that perfect codes score about .24 over the factors of dSprites. A
    single code's runner-up is a constant. Kumar et al. 2018, arXiv:1711.00848.

    Args:
        codes: (n, d).
        factors: (n, K).
        train: the classifiers are fitted to the first so many points and scored on the others;
            two thirds without.
    """
    from sklearn.svm import LinearSVC

    parts = _parts(codes, factors, train)
    if parts is None:
        return math.nan
    x, y, test_x, test_y = parts
    if x.shape[1] == 1:
        x, test_x = (np.pad(some, ((0, 0), (0, 1))) for some in (x, test_x))
    accuracies = np.zeros((y.shape[1], x.shape[1]))
    with _converged_or_not():
        for k, j in np.ndindex(*accuracies.shape):
            judge = LinearSVC(C=0.01, class_weight="balanced", random_state=0)
            judge.fit(x[:, [j]], y[:, k])
            accuracies[k, j] = judge.score(test_x[:, [j]], test_y[:, k])
    return float(_gaps(accuracies).mean())


def explicitness(
    codes: NDArray[Any], factors: Ints, *, train: int | None = None
) -> dict[str, float]:
    """How well a linear classifier of all codes tells each value of a factor from the others.

    The area under the ROC curve of each value's probability by a multinomial logistic regression on
    standardised codes (C 1), averaged over the values of a factor and then over factors. .5 is
    chance: it is not rescaled. Values that none or all of the points have are left out; NaN where
    none is left. Ridgeway and Mozer 2018, arXiv:1802.05312.

    Args:
        codes: (n, d).
        factors: (n, K).
        train: the classifiers are fitted to the first so many points and scored on the others;
            two thirds without.

    Returns:
        ``explicitness`` at the points scored, and ``explicitness_train`` at those fitted to.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    parts = _parts(codes, factors, train)
    areas: dict[str, list[float]] = {"explicitness": [], "explicitness_train": []}
    if parts is not None:
        x, y, test_x, test_y = parts
        scaler = StandardScaler().fit(x)
        x, test_x = scaler.transform(x), scaler.transform(test_x)
        for k in range(y.shape[1]):
            with _converged_or_not():
                judge = LogisticRegression().fit(x, y[:, k])
            for name, z, values in (
                ("explicitness", test_x, test_y[:, k]),
                ("explicitness_train", x, y[:, k]),
            ):
                of_values = _areas(judge.predict_proba(z), values[:, None] == judge.classes_)
                areas[name] += [float(of_values.mean())] if len(of_values) else []
    return {name: float(np.mean(some)) if some else math.nan for name, some in areas.items()}


def _areas(scores: Floats, is_class: NDArray[np.bool_]) -> Floats:
    """The areas under the ROC curves of the classes that some and not all of the points are of.

    Args:
        scores: (n, C).
        is_class: (n, C).
    """
    from scipy.stats import rankdata

    inside = is_class.sum(0)
    outside = len(scores) - inside
    beaten = (rankdata(scores, axis=0) * is_class).sum(0) - inside * (inside + 1) / 2
    both = (inside > 0) & (outside > 0)
    return beaten[both] / (inside * outside)[both]


# Interventions.


def irs(codes: NDArray[Any], factors: Ints, *, bins: int = 20, quantile: float = 0.99) -> float:
    r"""The interventional robustness: how still a code stands when all but one factor change.

    .. math::
        \frac{\sum_j M_j \max_k (1 - \bar\delta_{jk} / M_j)}{\sum_j M_j}, \quad
        M_j = \max |c_j - \mathrm{E}\, c_j|,

    with :math:`\bar\delta_{jk}` the mean over the values v of factor k of the ``quantile`` of
    :math:`|c_j - \mathrm{E}[c_j | v]|` among the points of v. Factors are cut into ``bins`` of
    equal width. Constant codes are left out; 0 where all are. Few points of a value can take it
    below 0, to no less than -1. Suter et al. 2019, arXiv:1811.00007, whose quantile is 1.

    Args:
        codes: (n, d).
        factors: (n, K).
        bins: how many bins a factor has.
        quantile: of the deviations within a bin.
    """
    if not _usable(codes, factors):
        return math.nan
    z = codes[:, np.ptp(codes, 0) > 0].astype(np.float64)
    if not z.shape[1]:
        return 0.0
    furthest = np.abs(z - z.mean(0)).max(0)
    best = np.full(z.shape[1], -math.inf)
    for values in factors[:, np.ptp(factors, 0) > 0].T:
        binned = cut(values, bins)
        deviations = []
        for value in np.unique(binned):
            some = z[binned == value]
            deviations.append(np.quantile(np.abs(some - some.mean(0)), quantile, axis=0))
        best = np.maximum(best, 1 - np.mean(deviations, 0) / furthest)
    return float(np.average(best, weights=furthest))


def beta_vae_score(
    represent: Represent,
    factor_sizes: Sequence[int],
    seed: int = 0,
    *,
    train: int = 10_000,
    evaluations: int = 5_000,
    batch: int = 64,
) -> float:
    r"""The accuracy of a linear classifier of the factor that pairs of images have in common.

    It reads :math:`\frac1B \sum_b |c(x_b) - c(x'_b)|` over ``batch`` pairs of images that share one
    factor's value, which differs from pair to pair; all else is drawn at random. The classifier is
    a logistic regression (C 1, codes not scaled). Chance is one in the number of factors that
    vary; 1 where that is one. Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl.

    Args:
        represent: factors int64 (n, K) → codes (n, d).
        factor_sizes: the number of values of each of the K factors.
        seed: what factors and pairs are drawn from.
        train: how many such means the classifier is fitted to.
        evaluations: how many others it is scored on.
        batch: pairs a mean.
    """
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(seed)
    sizes = np.asarray(factor_sizes, dtype=np.int64)
    vary = np.flatnonzero(sizes > 1)
    if not len(vary):
        return math.nan

    def differences(n: int) -> tuple[Floats, Ints]:
        """The mean differences (n, d), and which factor was shared (n,)."""
        labels, means = random.choice(vary, n), []
        for start in range(0, n, 64):
            held = labels[start : start + 64]
            factors = random.integers(0, sizes, (len(held), 2, batch, len(sizes)))
            rows = np.arange(len(held))
            factors[rows, 1, :, held] = factors[rows, 0, :, held]
            codes = represent(factors.reshape(-1, len(sizes))).astype(np.float64)
            pairs = codes.reshape(len(held), 2, batch, -1)
            means.append(np.abs(pairs[:, 0] - pairs[:, 1]).mean(1))
        return np.concatenate(means), labels

    (x, y), (test_x, test_y) = differences(train), differences(evaluations)
    if not (np.isfinite(x).all() and np.isfinite(test_x).all()):
        return math.nan
    if len(np.unique(y)) < 2:
        return float((test_y == y[0]).mean())
    with _converged_or_not():
        return float(LogisticRegression().fit(x, y).score(test_x, test_y))


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
    codes. Chance is one in the number of factors that vary. Kim and Mnih 2018, arXiv:1802.05983;
    pruned as in Locatello et al. 2019, arXiv:1811.12359.

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
    active = np.flatnonzero((np.sqrt(variances) >= prune) & (variances > 0))
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


# Metrics of points: codes and their factors.


class OfPoints(Metric):
    """A score of the deterministic codes of some images and of their factors.

    The images are drawn at random from all combinations of the factors, as in the study, where the
    dataset has them; all such metrics take the first of the same ones. Else they are of the test
    split.

    Attributes:
        widest: the most codes that it can score; more would take too long.
    """

    family = "disentanglement"
    needs_factors = True
    reads_codes = True
    widest: ClassVar[int] = 4_096

    def points(self, fitted: Fitted, n: int) -> tuple[NDArray[Any], Ints]:
        """The codes float32 (n, d) and the factors (n, K) of so many images, or of all there are.

        Raises:
            NotApplicable: there are too many codes, or one is not finite.
        """

        def drawn(number: int) -> tuple[Tensor, Tensor]:
            with fitted.random("disentanglement points", number):
                sizes = fitted.dataset.factor_sizes
                factors = torch.stack([torch.randint(size, (CHUNK,)) for size in sizes], 1)
            return fitted.represent(factors), factors

        if not fitted.dataset.renders:
            codes, factors = fitted.embeddings("test", n), fitted.factors("test", n)
        else:
            parts = []
            for number in range(math.ceil(n / CHUNK)):
                key = ("disentanglement points", number)
                parts.append(fitted.once(key, partial(drawn, number)))
            codes, factors = (torch.cat(some)[:n] for some in zip(*parts))
        return narrow(codes, self.widest), factors.numpy()

    def of(self, fitted: Fitted, n: int) -> str:
        """Which images :meth:`points` gives, in words."""
        if fitted.dataset.renders:
            return f"{n} images drawn from all combinations of factors, deterministic codes"
        n = min(n, len(fitted.dataset.split("test")))
        return f"{n} images of the test split, deterministic codes"


def _given(values: dict[str, float], why: str) -> Values:
    """``values``, those that are NaN not applicable for the reason given."""
    return {name: NotApplicable(why) if math.isnan(v) else v for name, v in values.items()}


class OfInformation(OfPoints):
    """A score of how much each code tells of each factor: :func:`information`.

    Args:
        points: how many images.
        bins: bins a code.
    """

    score: ClassVar[Callable[..., float]]

    def __init__(self, *, points: int = 10_000, bins: int = 20) -> None:
        self.at_least(1, points=points)
        self.at_least(2, bins=bins)
        self.number, self.bins = points, bins

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        value = type(self).score(*self.points(fitted, self.number), self.bins)
        return _given({self.quantities[0].name: value}, "no factor varies among the images")

    def estimator(self, fitted: Fitted) -> str:
        return f"{self.of(fitted, self.number)}, {self.bins} bins of equal width"


class MIG(OfInformation):
    """Mutual information gap: :func:`mig`.

    Args:
        points: how many images.
        bins: bins a code.
    """

    name = "mig"
    quantities: ClassVar = (Quantity("mig", "higher", low=0, high=1),)
    source = "Chen et al. 2018, arXiv:1802.04942; estimator of Locatello et al. 2019"
    description = "gap in information between a factor's best two codes"
    score = staticmethod(mig)


class MIGSup(OfInformation):
    """Mutual information gap of codes: :func:`mig_sup`.

    Args:
        points: how many images.
        bins: bins a code.
    """

    name = "mig_sup"
    quantities: ClassVar = (Quantity("mig_sup", "higher", low=0, high=1, ranked=False),)
    source = "Li et al. 2020, arXiv:2002.10549"
    description = "gap in information between a code's best two factors, over all codes"
    score = staticmethod(mig_sup)


class DCIMIG(OfInformation):
    """Mutual information gap of the best code of each factor: :func:`dcimig`.

    Args:
        points: how many images.
        bins: bins a code.
    """

    name = "dcimig"
    quantities: ClassVar = (Quantity("dcimig", "higher", low=0, high=1, ranked=False),)
    source = "Sepliarskaia et al. 2019, arXiv:1910.05587"
    description = "gap in information between factors, of the best code of each factor"
    score = staticmethod(dcimig)


class Modularity(OfInformation):
    """How nearly a code tells of one factor alone: :func:`modularity`, over all codes.

    Args:
        points: how many images.
        bins: bins a code.
    """

    name = "modularity"
    quantities: ClassVar = (Quantity("modularity", "higher", low=0, high=1, ranked=False),)
    source = "Ridgeway and Mozer 2018, arXiv:1802.05312"
    description = "how nearly a code tells of one factor alone, over all codes; noise scores .67"
    score = staticmethod(modularity)


class IRS(OfPoints):
    """Interventional robustness: :func:`irs`.

    Args:
        points: how many images.
        bins: bins a factor.
        quantile: of the deviations within a bin.
    """

    name = "irs"
    quantities: ClassVar = (Quantity("irs", "higher", low=-1, high=1, ranked=False),)
    source = "Suter et al. 2019, arXiv:1811.00007"
    description = "how still a code stands when all factors but one change"

    def __init__(self, *, points: int = 10_000, bins: int = 20, quantile: float = 0.99) -> None:
        self.at_least(1, points=points)
        self.at_least(2, bins=bins)
        if not 0 <= quantile <= 1:
            raise InputError(f"metric 'irs': quantile must be 0 to 1, not {quantile}")
        self.number, self.bins, self.quantile = points, bins, quantile

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        points = self.points(fitted, self.number)
        value = irs(*points, bins=self.bins, quantile=self.quantile)
        return _given({"irs": value}, "no factor varies among the images")

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"{self.of(fitted, self.number)}, {self.bins} bins of equal width a factor, "
            f"{self.quantile:g} quantile of deviations"
        )


class OfClassifiers(OfPoints):
    """A score by classifiers of factors, fitted to some images and scored on others.

    Args:
        train: how many images are fitted to.
        test: how many others are scored. Where the test split has fewer than both, its first two
            thirds are fitted to.
    """

    def __init__(self, *, train: int = 10_000, test: int = 5_000) -> None:
        self.at_least(1, train=train, test=test)
        self.train, self.test = train, test

    def parts(self, fitted: Fitted) -> tuple[NDArray[Any], Ints, int]:
        """Codes, factors, and how many of them are fitted to."""
        codes, factors = self.points(fitted, self.train + self.test)
        return codes, factors, self.fitted_to(len(codes))

    def fitted_to(self, n: int) -> int:
        """How many of so many images are fitted to."""
        return self.train if n == self.train + self.test else n * 2 // 3

    def estimator(self, fitted: Fitted) -> str:
        n = self.train + self.test
        if not fitted.dataset.renders:
            n = min(n, len(fitted.dataset.split("test")))
        train = self.fitted_to(n)
        return f"{self.of(fitted, n)}, {self.words}, {train} fitted to and {n - train} scored"

    words: ClassVar[str]
    """What is fitted."""


NO_FACTOR = "no factor varies among the images that are fitted to, or none is left to score"


class DCI(OfClassifiers):
    """Disentanglement, completeness and informativeness: :func:`dci`.

    Args:
        train: how many images are fitted to.
        test: how many others are scored. Where the test split has fewer than both, its first two
            thirds are fitted to.
    """

    name = "dci"
    quantities: ClassVar = (
        Quantity("dci_disentanglement", "higher", low=0, high=1),
        Quantity("dci_completeness", "higher", low=0, high=1, ranked=False),
        Quantity("dci_informativeness", "higher", low=0, high=1, ranked=False),
        Quantity("dci_informativeness_train", "higher", low=0, high=1, ranked=False),
    )
    source = "Eastwood and Williams 2018; estimator of Locatello et al. 2019"
    description = "concentration of boosted trees' importances by code and by factor, and accuracy"
    widest = 128
    words = "gradient-boosted trees, 100 rounds of depth 3"

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        codes, factors, train = self.parts(fitted)
        with fitted.random("dci") as seed:
            found = dci(codes, factors, train=train, seed=seed)
        return _given({f"dci_{name}": value for name, value in found.items()}, NO_FACTOR)


class SAP(OfClassifiers):
    """Separated attribute predictability: :func:`sap`.

    Args:
        train: how many images are fitted to.
        test: how many others are scored. Where the test split has fewer than both, its first two
            thirds are fitted to.
    """

    name = "sap"
    quantities: ClassVar = (Quantity("sap", "higher", low=0, high=1),)
    source = "Kumar et al. 2018, arXiv:1711.00848; estimator of Locatello et al. 2019"
    description = (
        "gap in accuracy between the best two codes as lone linear classifiers of a factor"
    )
    widest = 128
    words = "linear support vector machines, C 0.01, balanced classes"

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        codes, factors, train = self.parts(fitted)
        return _given({"sap": sap(codes, factors, train=train)}, NO_FACTOR)


class Explicitness(OfClassifiers):
    """Area under the ROC curve of linear classifiers of factors: :func:`explicitness`.

    Args:
        train: how many images are fitted to.
        test: how many others are scored. Where the test split has fewer than both, its first two
            thirds are fitted to.
    """

    name = "explicitness"
    quantities: ClassVar = (
        Quantity("explicitness", "higher", low=0, high=1, ranked=False),
        Quantity("explicitness_train", "higher", low=0, high=1, ranked=False),
    )
    source = "Ridgeway and Mozer 2018, arXiv:1802.05312; estimator of Locatello et al. 2019"
    description = "area under the ROC curve of a linear classifier of a factor; chance is .5"
    widest = 1_024
    words = "logistic regressions of standardised codes, C 1"

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        codes, factors, train = self.parts(fitted)
        return _given(explicitness(codes, factors, train=train), NO_FACTOR)


# Metrics of any combination of factors.


class OfCombinations(Metric):
    """A score of the codes of factors that it chooses."""

    family = "disentanglement"
    needs_factors = True
    reads_codes = True

    def lacks(self, fitted: Fitted) -> str:
        if why := super().lacks(fitted):
            return why
        if not fitted.dataset.renders:
            return "the dataset does not have every combination of its factors"
        return "" if max(fitted.dataset.factor_sizes) > 1 else "every factor has one value"

    def represent(self, fitted: Fitted, points: int) -> Represent:
        """The codes of ``points`` factors, looked up where encoding all combinations is less work.

        Metrics share the table of all combinations.
        """
        sizes = fitted.dataset.factor_sizes
        combinations = math.prod(sizes)
        dimension = fitted.represent(torch.zeros(1, len(sizes), dtype=torch.int64)).shape[1]
        if combinations > points or combinations * dimension > TABLE:
            return lambda factors: fitted.represent(torch.from_numpy(factors)).numpy()

        def compute() -> NDArray[Any]:
            every = np.stack(np.unravel_index(np.arange(combinations), sizes), 1)
            return fitted.represent(torch.from_numpy(every)).numpy()

        table = fitted.once("codes of all combinations of factors", compute)
        return lambda factors: table[np.ravel_multi_index(tuple(factors.T), sizes)]


class BetaVAEScore(OfCombinations):
    """The beta-VAE score: :func:`beta_vae_score`, over all combinations of the factors.

    Args:
        train: mean differences that the classifier is fitted to.
        evaluations: others that it is scored on.
        batch: pairs of images a mean.
    """

    name = "beta_vae"
    quantities: ClassVar = (Quantity("beta_vae", "higher", low=0, high=1),)
    source = "Higgins et al. 2017; estimator of Locatello et al. 2019"
    description = "accuracy of a linear classifier of the factor that pairs of images share"

    def __init__(self, *, train: int = 10_000, evaluations: int = 5_000, batch: int = 64) -> None:
        self.at_least(1, train=train, evaluations=evaluations, batch=batch)
        self.train, self.evaluations, self.batch = train, evaluations, batch

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        points = (self.train + self.evaluations) * self.batch * 2
        with fitted.random("beta_vae") as seed:
            value = beta_vae_score(
                self.represent(fitted, points),
                fitted.dataset.factor_sizes,
                seed,
                train=self.train,
                evaluations=self.evaluations,
                batch=self.batch,
            )
        return {"beta_vae": value}

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"factors drawn from all combinations, logistic regression of {self.train} mean "
            f"differences, {self.evaluations} scored, {self.batch} pairs a mean"
        )


class FactorVAEScore(OfCombinations):
    """The FactorVAE score: :func:`factor_vae_score`, over all combinations of the factors.

    2,000 votes fitted and 2,000 scored have a standard error of .011 at most, for a quarter of
    the work.

    Args:
        variance_points: points that the variances of all codes are estimated on.
        train: votes that decide which factor a code stands for.
        evaluations: votes that are scored.
        batch: images a vote.
        prune: the least standard deviation of a code that stands.
    """

    name = "factor_vae"
    quantities: ClassVar = (Quantity("factor_vae", "higher", low=0, high=1),)
    source = "Kim and Mnih 2018, arXiv:1802.05983"
    description = "accuracy of the least varying code as a classifier of the factor held fixed"

    def __init__(
        self,
        *,
        variance_points: int = 10_000,
        train: int = 10_000,
        evaluations: int = 5_000,
        batch: int = 64,
        prune: float = 0.05,
    ) -> None:
        self.at_least(2, variance_points=variance_points, batch=batch)
        self.at_least(1, train=train, evaluations=evaluations)
        self.variance_points, self.train, self.evaluations = variance_points, train, evaluations
        self.batch, self.prune = batch, prune

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        points = self.variance_points + (self.train + self.evaluations) * self.batch
        with fitted.random("factor_vae") as seed:
            value = factor_vae_score(
                self.represent(fitted, points),
                fitted.dataset.factor_sizes,
                seed,
                variance_points=self.variance_points,
                train=self.train,
                evaluations=self.evaluations,
                batch=self.batch,
                prune=self.prune,
            )
        return {"factor_vae": value}

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"factors drawn from all combinations, {self.variance_points} points for variances, "
            f"{self.train} votes fitted, {self.evaluations} scored, {self.batch} images a vote, "
            f"codes of standard deviation < {self.prune:g} pruned"
        )
