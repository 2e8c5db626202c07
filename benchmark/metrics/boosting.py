"""Gradient-boosted trees as scikit-learn grows them, some ten times as fast."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..extractors.classifier import one_thread

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SAME = np.float32(1e-7)
"""Values of a code no further apart than this are not told apart."""

PURE = float(np.finfo(np.float64).eps)
"""A node whose residuals have no more variance than this is a leaf."""

TIED = 1 - 1e-9
"""Decreases from this share of the largest on are equal to it up to rounding."""


@dataclass(frozen=True)
class Boosted:
    """What classifiers of each of K factors by d codes came to.

    Attributes:
        importances: (d, K), each code's share of the decrease in squared error of a factor's
            trees; columns sum to one, or are zero where no tree was split.
        train: (K,), the accuracy on the points fitted to.
        test: (K,), the accuracy on the other points; NaN where there are none.
    """

    importances: Floats
    train: Floats
    test: Floats


@dataclass(frozen=True)
class _Points:
    """The codes of N points, of which the first n are fitted to.

    Attributes:
        codes: float32 (d, N).
        order: int32 (d, n), the points fitted to, ascending along each code.
        inverse: (n + 1,), 0 and then 1/m for every m up to n.
        scratch: (d n,), room for the sums of one node at a time; fresh memory is slow.
    """

    codes: NDArray[np.float32]
    order: torch.Tensor
    inverse: Floats
    scratch: torch.Tensor


def boost(
    codes: NDArray[Any],
    factors: Ints,
    test_codes: NDArray[Any],
    test_factors: Ints,
    *,
    rounds: int = 100,
    depth: int = 3,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> Boosted:
    r"""Fit a classifier of each factor by all codes, by gradient boosting.

    Class c of C has a score :math:`F_c(x)`, at first the logarithm of its share. Each round grows
    a regression tree for every class to the residuals
    :math:`r_{ic} = 1[y_i = c] - \mathrm{softmax}_c F(x_i)`, and adds to :math:`F_c` in each of its
    leaves :math:`l`, times ``learning_rate``, a Newton step

    .. math::
        \frac{C - 1}{C} \frac{\sum_{i \in l} r_{ic}}{\sum_{i \in l} |r_{ic}| (1 - |r_{ic}|)}.

    Two classes share one tree, of the logistic loss, whose step has no :math:`(C - 1) / C`. A node
    is split at the code and the threshold of the largest decrease in squared error,

    .. math:: \frac{n_L n_R}{n_L + n_R} (\bar r_L - \bar r_R)^2,

    and a code's importance is the sum of the decreases of its splits, over all trees.

    Friedman 2001, Ann. Stat. 29:1189, in the conventions of scikit-learn's
    ``GradientBoostingClassifier``: codes are float32, thresholds lie halfway between neighbours,
    equally good codes are picked from at random, and a leaf may hold one point. All neighbours are
    tried: among histograms' few thresholds codes that are noise gain less by chance, and come out
    less important.

    The codes are sorted once, and a node's order along each code is its parent's less the points
    on the other side. Along it runs the sum S of residuals less the node's mean, and a split's
    decrease is :math:`S^2 (1/n_L + 1/n_R)`. The answer does not depend on the number of threads.

    Args:
        codes: (n, d), finite.
        factors: (n, K), any integers. A factor of one value is predicted to keep it.
        test_codes: (m, d); m may be 0.
        test_factors: (m, K). Values that ``factors`` lacks are never predicted.
        rounds: how many trees a class has.
        depth: the most splits from a tree's root to a leaf.
        learning_rate: what steps are multiplied by.
        seed: what picks among equally good codes.
    """
    n, d = codes.shape
    both = np.ascontiguousarray(np.concatenate([codes, test_codes]).T, dtype=np.float32)
    order = np.argsort(both[:, :n], axis=1, kind="stable").astype(np.int32)
    inverse = np.append(0, 1 / np.arange(1, n + 1))
    scratch = torch.empty(d * n, dtype=torch.float64)
    points = _Points(both, torch.from_numpy(order), inverse, scratch)
    importances = np.zeros((d, factors.shape[1]))
    train, test = np.full((2, factors.shape[1]), math.nan)
    for k, factor in enumerate(factors.T):
        random = np.random.default_rng([seed, k])
        # More gain nothing on arrays this small, and wait for each other on a busy machine.
        with one_thread():
            decreases, predicted = _fit(points, factor, rounds, depth, learning_rate, random)
        importances[:, k] = decreases / (decreases.sum() or 1)
        train[k] = (predicted[:n] == factor).mean()
        if len(test_factors):
            test[k] = (predicted[n:] == test_factors[:, k]).mean()
    return Boosted(importances, train, test)


def _fit(
    points: _Points,
    factor: Ints,
    rounds: int,
    depth: int,
    learning_rate: float,
    random: np.random.Generator,
) -> tuple[Floats, Ints]:
    """A factor's decreases by code (d,), and its values predicted at all points (N,)."""
    classes, index, counts = np.unique(factor, return_inverse=True, return_counts=True)
    (d, n), total = points.order.shape, points.codes.shape[1]
    decreases = np.zeros(d)
    if len(classes) == 1:
        return decreases, np.full(total, classes[0])
    binary = len(classes) == 2
    if binary:
        is_class = index[None] == 1
        start = np.log(counts[1:] / counts[0])
    else:
        is_class = index == np.arange(len(classes))[:, None]
        start = np.log(counts / n)
        learning_rate *= (len(classes) - 1) / len(classes)
    scores = np.repeat(start[:, None], total, 1)
    for _ in range(rounds):
        # Of the scores before the round, for all classes.
        residuals = is_class - (_logistic if binary else _softmax)(scores[:, :n])
        for residual, score in zip(residuals, scores):
            leaf = _grow(points, residual, depth, random, decreases)
            score += learning_rate * _steps(residual, leaf[:n])[leaf]
    best = (scores[0] >= 0).astype(np.int64) if binary else scores.argmax(0)
    return decreases, classes[best]


def _logistic(scores: Floats) -> Floats:
    with np.errstate(over="ignore"):  # the limit is right
        return 1 / (1 + np.exp(-scores))


def _softmax(scores: Floats) -> Floats:
    """Over the first axis."""
    p = np.exp(scores - scores.max(0))
    p /= p.sum(0)
    return p


def _steps(residual: Floats, leaf: NDArray[np.uint32]) -> Floats:
    """Each leaf's Newton step; 0 where every point is certain."""
    size = np.abs(residual)
    slope = np.bincount(leaf, residual)
    curvature = np.bincount(leaf, size * (1 - size))
    return np.divide(slope, curvature, out=np.zeros_like(slope), where=curvature > 1e-150)


def _grow(
    points: _Points,
    residual: Floats,
    depth: int,
    random: np.random.Generator,
    decreases: Floats,
) -> NDArray[np.uint32]:
    """Grow a tree: the leaf of every point, (N,). Its splits are added to ``decreases`` (d,)."""
    codes, r = points.codes, torch.from_numpy(residual)
    leaf = np.zeros(codes.shape[1], dtype=np.uint32)
    leaves = 0
    # Each node's order along each code, which of all points it has, and levels left below it.
    nodes = [(points.order, np.ones(len(leaf), dtype=bool), depth)]
    while nodes:
        order, here, below = nodes.pop()
        split = _split(points, r, order, random) if below else None
        if split is None:
            leaf += here * np.uint32(leaves)
            leaves += 1
            continue
        code, threshold, decrease = split
        decreases[code] += decrease
        left = codes[code] <= threshold
        flat = order.view(-1)
        goes_left = torch.from_numpy(left).index_select(0, flat).numpy()
        for goes, side in ((goes_left, left), (~goes_left, ~left)):
            # The same points along every code: what is left of the matrix is a matrix.
            kept = flat.index_select(0, torch.from_numpy(goes.nonzero()[0]))
            nodes.append((kept.view(len(order), -1), here & side, below - 1))
    return leaf


def _split(
    points: _Points, r: torch.Tensor, order: torch.Tensor, random: np.random.Generator
) -> tuple[int, np.float32, float] | None:
    """A node's best split: its code, threshold and decrease. None where the node is a leaf."""
    d, m = order.shape
    along = points.scratch[: d * m]
    torch.index_select(r, 0, order.view(-1), out=along)
    along = along.view(d, m)
    decrease = along.numpy()
    decrease -= decrease[0].mean()
    if decrease[0] @ decrease[0] <= PURE * m:
        return None
    torch.cumsum(along, 1, out=along)
    decrease *= decrease
    weight = points.inverse[1 : m + 1] + points.inverse[m - 1 :: -1]
    weight[-1] = -1  # none are to the right
    decrease *= weight
    best = decrease.max(1)
    while (most := best.max()) >= 0:
        ties = (best >= most * TIED).nonzero()[0]
        code = int(ties[0] if len(ties) == 1 else random.choice(ties))
        at = int(decrease[code].argmax())
        values, by = points.codes[code], order[code].numpy()
        if at + 1 < m and values[by[at + 1]] > values[by[at]] + SAME:
            return code, _halfway(values[by[at]], values[by[at + 1]]), float(most)
        # Equal values cannot be parted; looked at here alone, as most codes have few.
        values = values.take(by)
        decrease[code, :-1][values[1:] <= values[:-1] + SAME] = -1
        decrease[code, -1] = -1
        best[code] = decrease[code].max()
    return None


def _halfway(low: np.float32, high: np.float32) -> np.float32:
    """The largest float32 that is not above the middle: it parts float32 as the middle does."""
    middle = np.float64(low) / 2 + np.float64(high) / 2
    threshold = np.float32(middle)
    return threshold if threshold <= middle else np.nextafter(threshold, low)
