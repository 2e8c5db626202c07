"""How well clusters of the embeddings agree with the labels."""

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Fitted, Metric, Quantity

Ints = NDArray[np.int64]


def hungarian_accuracy(labels: Ints, clusters: Ints) -> float:
    """The share of right labels under the best one-to-one map of clusters to labels.

    For random labels too it is above one in the number of classes: about .114 for 10 clusters of 10
    classes and 10,000 points. A cluster without a partner is wrong throughout.

    Args:
        labels: (n,), 0 or more.
        clusters: (n,), 0 or more.
    """
    from scipy.optimize import linear_sum_assignment

    size = int(max(labels.max(), clusters.max())) + 1
    counts = np.bincount(clusters * size + labels, minlength=size**2).reshape(size, size)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))


def kmeans_clusters(
    train: NDArray[Any], test: NDArray[Any], clusters: int, n_init: int, seed: int
) -> Ints:
    """The cluster of each of ``test`` by k-means fitted to ``train``: int64 (m,).

    Args:
        train: (n, d).
        test: (m, d).
        clusters: how many; at most n are made.
        n_init: starts by k-means++, of which the best is kept.
        seed: the starts' seed.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    solver = KMeans(min(clusters, len(train)), n_init=n_init, random_state=seed)
    with warnings.catch_warnings():
        # Collapsed codes have fewer distinct points than clusters: a low score, not a fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        solver.fit(train.astype(np.float64))
    return solver.predict(test.astype(np.float64)).astype(np.int64)


class Clustering(Metric):
    """k-means with as many clusters as classes: fitted to train embeddings, scored on the test's.

    Accuracy is that of the best one-to-one map, found on the test split itself
    (:func:`hungarian_accuracy`); NMI is divided by the arithmetic mean of both entropies; ARI is
    corrected for chance (Hubert and Arabie 1985).

    Args:
        train: the first so many training embeddings are fitted to.
        n_init: starts by k-means++, of which the best is kept.
    """

    name = "clustering"
    family = "clustering"
    quantities: ClassVar = (
        Quantity("acc", "higher", low=0, high=1),
        Quantity("nmi", "higher", low=0, high=1),
        Quantity("ari", "higher", low=-0.5, high=1),
    )
    source = "Hubert and Arabie 1985, J. Classif. 2:193; Kuhn 1955 for the map"
    description = "agreement of k-means clusters of embeddings with labels"
    needs_labels = True
    reads_codes = True

    def __init__(self, *, train: int = 10_000, n_init: int = 10) -> None:
        self.at_least(1, train=train, n_init=n_init)
        self.train, self.n_init = train, n_init

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        train, test = fitted.embeddings("train", self.train), fitted.embeddings("test")
        labels = fitted.labels("test").numpy()
        with fitted.random("clustering") as seed:
            clusters = kmeans_clusters(
                train.numpy(), test.numpy(), fitted.dataset.classes, self.n_init, seed
            )
        return {
            "acc": hungarian_accuracy(labels, clusters),
            "nmi": float(normalized_mutual_info_score(labels, clusters)),
            "ari": float(adjusted_rand_score(labels, clusters)),
        }

    def estimator(self, fitted: Fitted) -> str:
        train, test = (len(fitted.dataset.split(name)) for name in ("train", "test"))
        return (
            f"k-means, {fitted.dataset.classes} clusters, best of {self.n_init} k-means++ starts, "
            f"fitted to {min(self.train, train)} train embeddings, scored on {test} test "
            "embeddings, neither scaled nor whitened; Hungarian map on test, arithmetic NMI"
        )
