"""Gradient boosting for the DCI scores, beside scikit-learn's."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.boosting import Boosted, boost
from ..metrics.disentanglement import dci_of
from .base import Table, alternate, ratios, spread

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SIZES = (3, 6, 40, 32, 32)
POINTS = 10_000
FEWER = 2_000
"""Points to fit to; half as many are tested."""

ONE = 1
"""The factor that is fitted alone, of six values."""

ROWS = (
    ("mixed", POINTS),
    ("identity", FEWER),
    ("twice", FEWER),
    ("rotation", FEWER),
    ("noise", FEWER),
    ("beside noise", FEWER),
    ("two beside noise", FEWER),
)
"""Codes and points to fit to; all at ``POINTS`` would take over half an hour."""


def known_codes(kind: str, points: int) -> tuple[Any, Ints, Any, Ints]:
    """What :func:`boost` takes, of codes that are known functions of the factors.

    ``identity`` are the standardised factors; ``twice`` has each of them twice, ``rotation`` turns
    them, ``beside noise`` has five codes of noise too, ``two beside noise`` the first and third
    factors and eight codes of noise, and ``noise`` ten; ``mixed`` are ten codes of one factor for
    the most part, as of a trained model.
    """
    random = np.random.default_rng(0)
    factors = random.integers(0, SIZES, (points + points // 2, len(SIZES)))
    sizes = np.array(SIZES)
    plain = (factors - (sizes - 1) / 2) / np.sqrt((sizes**2 - 1) / 12)
    rotation = np.linalg.qr(random.standard_normal((5, 5)))[0]
    mixing = np.hstack([np.eye(5), np.eye(5)]) + 0.3 * random.standard_normal((5, 10))
    noise = random.standard_normal((len(factors), 10))
    codes = {
        "identity": plain,
        "twice": np.hstack([plain, plain]),
        "rotation": plain @ rotation,
        "beside noise": np.hstack([plain, noise[:, :5]]),
        "two beside noise": np.hstack([plain[:, [0, 2]], noise[:, :8]]),
        "noise": noise,
        "mixed": plain @ mixing + 0.2 * noise,
    }[kind]
    return codes[:points], factors[:points], codes[points:], factors[points:]


def sklearns(codes: Floats, factors: Ints, test_codes: Floats, test_factors: Ints) -> Boosted:
    """The same of scikit-learn's classifiers."""
    from sklearn.ensemble import GradientBoostingClassifier

    importances, train, test = [], [], []
    for k, (factor, test_factor) in enumerate(zip(factors.T, test_factors.T)):
        fitted = GradientBoostingClassifier(random_state=k).fit(codes, factor)
        importances.append(fitted.feature_importances_)
        train.append(fitted.score(codes, factor))
        test.append(fitted.score(test_codes, test_factor))
    return Boosted(np.stack(importances, 1), np.array(train), np.array(test))


def scores(found: Boosted) -> tuple[float, float, float]:
    """Disentanglement, completeness and informativeness at test points."""
    return (*dci_of(found.importances), float(found.test.mean()))


def measure(pairs: int) -> Table:
    """Time both at all factors once, and ``pairs`` times at the factor of six values."""
    rows = [_row(f"{kind}, {points:,} points", known_codes(kind, points)) for kind, points in ROWS]
    codes, factors, test_codes, test_factors = known_codes("mixed", POINTS)
    one = codes, factors[:, [ONE]], test_codes, test_factors[:, [ONE]]
    seconds = alternate({"slow": lambda: sklearns(*one), "fast": lambda: boost(*one)}, pairs)
    slow, fast = seconds["slow"], seconds["fast"]
    times = (spread(slow), spread(fast), ratios(slow, fast))
    rows.append((f"mixed, {POINTS:,} points, factor of six values", *times, "", "", ""))
    return Table(
        "Gradient boosting for DCI: scikit-learn's and ours",
        ("codes", "scikit-learn", "ours", "ratio", "D", "C", "test accuracy"),
        tuple(rows),
        (
            f"Factors of {', '.join(map(str, SIZES))} values; 100 rounds of depth 3 a factor; half "
            "as many test points. Scores are scikit-learn's / ours.",
            f"One run of each a row, one after the other; the last row, {pairs} in turn. "
            "Both compute on one thread.",
        ),
    )


def _row(name: str, data: tuple[Any, Ints, Any, Ints]) -> tuple[str, ...]:
    slow, theirs = _timed(lambda: sklearns(*data))
    fast, ours = _timed(lambda: boost(*data))
    pairs = [f"{a:.3f} / {b:.3f}" for a, b in zip(scores(theirs), scores(ours))]
    return (name, spread([slow]), spread([fast]), ratios([slow], [fast]), *pairs)


def _timed(act: Callable[[], Boosted]) -> tuple[float, Boosted]:
    start = time.perf_counter()
    found = act()
    return time.perf_counter() - start, found
