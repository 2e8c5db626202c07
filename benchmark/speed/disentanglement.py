"""What each score of disentanglement takes, at the sizes of the study of Locatello et al. 2019."""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import disentanglement as of
from ..train import arithmetic
from .base import Table, alternate, spread
from .dci import SIZES, known_codes

TRAIN = 10_000
CODES = 10
SEEDS = 5
SLOW = 5.0
"""Seconds from which on one run is all that is timed."""


def work() -> dict[str, Callable[[], object]]:
    """Every score by name, of ten codes that have one factor each for the most part."""
    codes, factors, more_codes, more_factors = known_codes("mixed", TRAIN)
    first = codes, factors
    both = np.concatenate([codes, more_codes]), np.concatenate([factors, more_factors])
    every = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), 1)
    mixing = np.linalg.lstsq(factors - factors.mean(0), codes, rcond=None)[0]
    table = (every @ mixing).astype(np.float32)
    random = np.random.default_rng(0)
    models = [codes[:1_000] + random.standard_normal((1_000, CODES)) for _ in range(SEEDS)]

    def represent(some: of.Ints) -> NDArray[Any]:
        return table[np.ravel_multi_index(tuple(some.T), SIZES)]

    return {
        "mig": lambda: of.mig(*first),
        "mig_sup": lambda: of.mig_sup(*first),
        "dcimig": lambda: of.dcimig(*first),
        "modularity": lambda: of.modularity(*first),
        "irs": lambda: of.irs(*first),
        "unsupervised": lambda: of.unsupervised(codes),
        "sap": lambda: of.sap(*both, train=TRAIN),
        "explicitness": lambda: of.explicitness(*both, train=TRAIN),
        "dci": lambda: of.dci(*both, train=TRAIN),
        "beta_vae": lambda: of.beta_vae_score(represent, SIZES),
        "factor_vae": lambda: of.factor_vae_score(represent, SIZES),
        f"udr, {SEEDS} seeds": lambda: of.udr(models),
    }


def measure(pairs: int) -> Table:
    """Time every score ``pairs`` times in turn, or once where that took long."""
    scores = work()
    with arithmetic(1):
        seconds = alternate(scores, 1)
        quick = {name: act for name, act in scores.items() if seconds[name][0] < SLOW}
        seconds |= alternate(quick, pairs)
    rows = [(name, spread(values)) for name, values in seconds.items()]
    total = sum(statistics.median(values) for values in seconds.values())
    return Table(
        "Scores of disentanglement",
        ("score", "seconds"),
        (*rows, ("all of them", spread([total]))),
        (
            f"{CODES} codes, factors of {', '.join(map(str, SIZES))} values; {TRAIN:,} points, "
            f"{TRAIN // 2:,} more where some are scored; beta_vae and factor_vae look codes up.",
            f"The codes are given: encoding {TRAIN + TRAIN // 2:,} images, and every combination "
            "of the factors for the last two, comes on top once a cell.",
            f"One thread. Median and range of {pairs} in turn; of one where that took {SLOW:g} s.",
        ),
    )
