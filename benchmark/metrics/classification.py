"""How well a simple classifier of the embeddings finds the labels, or the factors."""

import math
import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...datasets import SplitName
from .base import Fitted, Metric, NotApplicable, Quantity

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
MAX_ITER = 300
FACTOR_STRENGTHS = (1.0, 100.0)
"""Of a factor's probe, which fits tens of values: few for speed, the greatest for ordered values,
of which only large weights tell neighbours apart."""
FACTOR_MAX_ITER = 100
FEW = (100, 1000)
"""Numbers of training labels that accuracy is stated at besides all."""
CHECKS = 30
LEAST_STEPS = 300

Pair = tuple[NDArray[Any], NDArray[np.int64]]
"""Embeddings (n, d) and labels (n,)."""


def linear_probe_accuracy(
    train: Pair,
    val: Pair,
    test: Pair,
    strengths: tuple[float, ...] = STRENGTHS,
    max_iter: int = MAX_ITER,
) -> float:
    """The test accuracy of a logistic regression on standardised embeddings.

    Fitted to ``train`` for each C of ``strengths``; ``val`` chooses among them, the smallest C
    where they tie.

    Args:
        train: embeddings and labels of at least two classes.
        val: the same, of any number of classes.
        test: the same.
        strengths: the values of C, rising.
        max_iter: at most so many steps of L-BFGS for each C.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_val, y_val), (x_test, y_test) = standardised(train, val, test)
    best = (-1.0, 0.0)
    # The solution for one C starts the search for the next.
    probe = LogisticRegression(max_iter=max_iter, warm_start=True)
    for strength in strengths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.set_params(C=strength).fit(x, y)
        score = float(probe.score(x_val, y_val))
        if score > best[0]:
            best = (score, float(probe.score(x_test, y_test)))
    return best[1]


def standardised(train: Pair, *others: Pair) -> list[Pair]:
    """Every pair with its embeddings less ``train``'s mean over ``train``'s deviation, float64."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train[0].astype(np.float64))
    return [(scaler.transform(x.astype(np.float64)), y) for x, y in (train, *others)]


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


def mlp_probe_accuracy(
    train: Pair, val: Pair, test: Pair, width: int = 128, seed: int = 0
) -> float:
    """The test accuracy of a network with one hidden layer on standardised embeddings.

    ReLU, Adam at 0.003 and batches of 200, over 30 epochs of ``train``, or as many more as make 300
    steps. ``val`` is scored 30 times on the way and chooses where to stop, the earliest where they
    tie.

    Args:
        train: embeddings and labels of at least two classes.
        val: the same, of any number of classes.
        test: the same.
        width: of the hidden layer.
        seed: of the first weights and the order of the batches.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    (x, y), (x_val, y_val), (x_test, y_test) = standardised(train, val, test)
    classes, best = np.unique(y), (-1.0, 0.0)
    batch = min(200, len(x))
    # One stream for all epochs: of a seed in its place every epoch would make the same order.
    stream = np.random.RandomState(seed)
    probe = MLPClassifier((width,), learning_rate_init=3e-3, batch_size=batch, random_state=stream)
    epochs = max(1, math.ceil(LEAST_STEPS / (CHECKS * math.ceil(len(x) / batch))))
    for _ in range(CHECKS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for _ in range(epochs):
                probe.partial_fit(x, y, classes=classes)
        score = float(probe.score(x_val, y_val))
        if score > best[0]:
            best = (score, float(probe.score(x_test, y_test)))
    return best[1]


def few_labels(name: str) -> tuple[Quantity, ...]:
    """A probe's accuracy with all training labels, which is ranked, and with each of ``FEW``."""
    return (
        Quantity(name, "higher", low=0, high=1),
        *(Quantity(f"{name}_{n}", "higher", low=0, high=1, ranked=False) for n in FEW),
    )


class Probe(Metric):
    """The test accuracy of a classifier fitted to train embeddings, and to the first few of them.

    With n labels only n validation labels are read too. The images come in an order that does not
    depend on their classes, so the first are a random sample, not a balanced one.

    Args:
        train: the first so many training embeddings are fitted to.
    """

    family = "classification"
    needs_labels = True
    reads_codes = True

    def __init__(self, *, train: int = 10_000) -> None:
        self.at_least(1, train=train)
        self.train = train

    def accuracy(self, train: Pair, val: Pair, test: Pair, seed: int) -> float:
        """The test accuracy of the classifier fitted to ``train``."""
        raise NotImplementedError

    def pair(self, fitted: Fitted, split: SplitName, limit: int | None = None) -> Pair:
        """Embeddings and labels of a split's first ``limit`` images."""
        return fitted.embeddings(split, limit).numpy(), fitted.labels(split, limit).numpy()

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float | NotApplicable]:
        train = self.pair(fitted, "train", self.train)
        val, test = self.pair(fitted, "val"), self.pair(fitted, "test")
        if len(np.unique(train[1])) < 2:
            raise NotApplicable("the training labels are of one class")
        values: dict[str, float | NotApplicable] = {}
        with fitted.random(self.name) as seed:
            values[self.name] = self.accuracy(train, val, test, seed)
            for n in FEW:
                (x, y), (x_val, y_val) = train, val
                if len(y) < n:
                    value: float | NotApplicable = NotApplicable(f"fewer than {n} training labels")
                elif len(np.unique(y[:n])) < 2:
                    value = NotApplicable(f"the first {n} training labels are of one class")
                else:
                    value = self.accuracy((x[:n], y[:n]), (x_val[:n], y_val[:n]), test, seed)
                values[f"{self.name}_{n}"] = value
        return values

    def fitted_to(self, fitted: Fitted) -> str:
        """What it was fitted to and scored on, in words."""
        train, test = (len(fitted.dataset.split(name)) for name in ("train", "test"))
        dimensions = fitted.embeddings("test").shape[1]
        return (
            f"fitted to {min(self.train, train)} train embeddings of {dimensions} dimensions, "
            f"scored on {test} of the test"
        )


class LinearProbe(Probe):
    """Logistic regression on standardised embeddings: :func:`linear_probe_accuracy`.

    The label efficiency is the accuracy with 100 labels over that with all (Locatello et al. 2019,
    arXiv:1811.12359).

    Args:
        train: the first so many training embeddings are fitted to.
    """

    name = "linear_probe"
    quantities: ClassVar = (
        *few_labels("linear_probe"),
        Quantity("label_efficiency", "higher", low=0, ranked=False),
    )
    source = "Alain and Bengio 2016, arXiv:1610.01644"
    description = "test accuracy of a logistic regression on embeddings"

    def accuracy(self, train: Pair, val: Pair, test: Pair, seed: int) -> float:
        return linear_probe_accuracy(train, val, test)

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float | NotApplicable]:
        values = super().compute(fitted, sampler)
        few, every = values[f"{self.name}_{FEW[0]}"], values[self.name]
        if isinstance(few, NotApplicable) or isinstance(every, NotApplicable):
            values["label_efficiency"] = few
        else:
            none = NotApplicable("the accuracy with all labels is 0")
            values["label_efficiency"] = few / every if every else none
        return values

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
    quantities: ClassVar = few_labels("knn")
    source = "Cover and Hart 1967, IEEE Trans. Inf. Theory 13:21"
    description = "test accuracy of the nearest neighbours among embeddings"

    def __init__(self, *, train: int = 10_000, neighbours: int = 5) -> None:
        super().__init__(train=train)
        self.at_least(1, neighbours=neighbours)
        self.neighbours = neighbours

    def accuracy(self, train: Pair, val: Pair, test: Pair, seed: int) -> float:
        return knn_accuracy(train, test, self.neighbours)

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"{self.neighbours} neighbours, Euclidean, embeddings not scaled, "
            f"{self.fitted_to(fitted)}"
        )


class MLPProbe(Probe):
    """A network with one hidden layer on standardised embeddings: :func:`mlp_probe_accuracy`.

    Args:
        train: the first so many training embeddings are fitted to.
        width: of the hidden layer.
    """

    name = "mlp_probe"
    quantities: ClassVar = few_labels("mlp_probe")
    source = "Alain and Bengio 2016, arXiv:1610.01644, with a hidden layer"
    description = "test accuracy of a network with one hidden layer on embeddings"

    def __init__(self, *, train: int = 10_000, width: int = 128) -> None:
        super().__init__(train=train)
        self.at_least(1, width=width)
        self.width = width

    def accuracy(self, train: Pair, val: Pair, test: Pair, seed: int) -> float:
        return mlp_probe_accuracy(train, val, test, self.width, seed)

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"standardised, one hidden layer of {self.width}, ReLU, Adam at 0.003, batches of 200, "
            f"{CHECKS} epochs, or as many as make {LEAST_STEPS} steps, stopped by validation "
            f"accuracy, {self.fitted_to(fitted)}"
        )


class FactorProbe(Probe):
    """A logistic regression for every ground-truth factor: :func:`linear_probe_accuracy`.

    The mean test accuracy over the factors of more than one value; chance is the mean of one over
    their numbers of values. Each factor's accuracy is a part.

    Args:
        train: the first so many training embeddings are fitted to.
    """

    name = "factor_probe"
    quantities: ClassVar = (Quantity("factor_probe", "higher", low=0, high=1),)
    source = "Locatello et al. 2019, arXiv:1811.12359"
    description = "test accuracy of a logistic regression for each ground-truth factor"
    needs_labels = False
    needs_factors = True

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float | NotApplicable]:
        splits: tuple[SplitName, ...] = ("train", "val", "test")
        limits = (self.train, None, None)
        codes = [fitted.embeddings(name, n).numpy() for name, n in zip(splits, limits)]
        factors = [fitted.factors(name, n).numpy() for name, n in zip(splits, limits)]
        found: dict[str, float | NotApplicable] = {}
        for k, factor in enumerate(fitted.dataset.factor_names):
            if len(np.unique(factors[0][:, k])) > 1:
                train, val, test = ((x, f[:, k]) for x, f in zip(codes, factors))
                found[f"{self.name}[{factor}]"] = linear_probe_accuracy(
                    train, val, test, FACTOR_STRENGTHS, FACTOR_MAX_ITER
                )
        if not found:
            raise NotApplicable("no factor has more than one value")
        return {self.name: float(np.mean(list(found.values()))), **found}

    def estimator(self, fitted: Fitted) -> str:
        choices = " or ".join(f"{c:g}" for c in FACTOR_STRENGTHS)
        return (
            f"standardised, logistic regression, C of {choices} by validation accuracy, at most "
            f"{FACTOR_MAX_ITER} iterations, mean over factors, {self.fitted_to(fitted)}"
        )
