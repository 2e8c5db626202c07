"""How well a simple classifier of the embeddings finds the labels."""

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Fitted, Metric, NotApplicable, Quantity

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
MAX_ITER = 300

Pair = tuple[NDArray[Any], NDArray[np.int64]]
"""Embeddings (n, d) and labels (n,)."""


def linear_probe_accuracy(train: Pair, val: Pair, test: Pair) -> float:
    """The test accuracy of a logistic regression on standardised embeddings.

    Fitted to ``train`` for each C of ``STRENGTHS``; ``val`` chooses among them, the smallest C
    where they tie.

    Args:
        train: embeddings and labels of at least two classes.
        val: the same, of any number of classes.
        test: the same.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train[0].astype(np.float64))
    x, x_val, x_test = (scaler.transform(z.astype(np.float64)) for z, _ in (train, val, test))
    best = (-1.0, 0.0)
    # The solution for one C starts the search for the next.
    probe = LogisticRegression(max_iter=MAX_ITER, warm_start=True)
    for strength in STRENGTHS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.set_params(C=strength).fit(x, train[1])
        score = float(probe.score(x_val, val[1]))
        if score > best[0]:
            best = (score, float(probe.score(x_test, test[1])))
    return best[1]


def knn_accuracy(train: Pair, test: Pair, neighbours: int = 5) -> float:
    """The test accuracy of the majority of the nearest training embeddings, Euclidean.

    The smaller label wins a tie.

    Args:
        train: embeddings and labels.
        test: the same.
        neighbours: how many vote; all where there are fewer.
    """
    from sklearn.neighbors import KNeighborsClassifier

    judge = KNeighborsClassifier(min(neighbours, len(train[0])), algorithm="brute")
    judge.fit(train[0].astype(np.float64), train[1])
    return float(judge.score(test[0].astype(np.float64), test[1]))


class Probe(Metric):
    """The test accuracy of a classifier fitted to train embeddings.

    Args:
        train: the first so many training embeddings are fitted to.
    """

    family = "classification"
    needs_labels = True
    reads_codes = True

    def __init__(self, *, train: int = 10_000) -> None:
        self.at_least(1, train=train)
        self.train = train

    def pair(self, fitted: Fitted, split: Any, limit: int | None = None) -> Pair:
        """Embeddings and labels of a split's first ``limit`` images."""
        return fitted.embeddings(split, limit).numpy(), fitted.labels(split, limit).numpy()

    def fitted_to(self, fitted: Fitted) -> str:
        """What it was fitted to and scored on, in words."""
        train, test = (len(fitted.dataset.split(name)) for name in ("train", "test"))
        return f"fitted to {min(self.train, train)} train embeddings, scored on {test} of the test"


class LinearProbe(Probe):
    """Logistic regression on standardised embeddings: :func:`linear_probe_accuracy`.

    Args:
        train: the first so many training embeddings are fitted to.
    """

    name = "linear_probe"
    quantities: ClassVar = (Quantity("linear_probe", "higher", low=0, high=1),)
    source = "Alain and Bengio 2016, arXiv:1610.01644"
    description = "test accuracy of a logistic regression on embeddings"

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        train = self.pair(fitted, "train", self.train)
        if len(np.unique(train[1])) < 2:
            raise NotApplicable("the training labels are of one class")
        val, test = self.pair(fitted, "val"), self.pair(fitted, "test")
        return {"linear_probe": linear_probe_accuracy(train, val, test)}

    def estimator(self, fitted: Fitted) -> str:
        choices = ", ".join(f"{c:g}" for c in STRENGTHS)
        return (
            f"standardised, logistic regression, C of {choices} by validation accuracy, "
            f"at most {MAX_ITER} iterations, {self.fitted_to(fitted)}"
        )


class KNN(Probe):
    """Nearest neighbours among train embeddings: :func:`knn_accuracy`.

    Args:
        train: the first so many training embeddings are fitted to.
        neighbours: how many vote.
    """

    name = "knn"
    quantities: ClassVar = (Quantity("knn", "higher", low=0, high=1),)
    source = "Cover and Hart 1967, IEEE Trans. Inf. Theory 13:21"
    description = "test accuracy of the nearest neighbours among embeddings"

    def __init__(self, *, train: int = 10_000, neighbours: int = 5) -> None:
        super().__init__(train=train)
        self.at_least(1, neighbours=neighbours)
        self.neighbours = neighbours

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        train, test = self.pair(fitted, "train", self.train), self.pair(fitted, "test")
        return {"knn": knn_accuracy(train, test, self.neighbours)}

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"{self.neighbours} neighbours, Euclidean, embeddings not scaled, "
            f"{self.fitted_to(fitted)}"
        )
