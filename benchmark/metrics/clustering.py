"""How well clusters of the embeddings agree with the labels."""

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Fitted, Metric, NotApplicable, Quantity

Ints = NDArray[np.int64]

RIDGE = 1e-6
"""What the mixture adds to each variance, as a share of the codes' mean variance."""


def contingency(labels: Ints, clusters: Ints) -> Ints:
    """How many points each cluster has of each label: square, clusters by labels."""
    size = int(max(labels.max(), clusters.max())) + 1
    return np.bincount(clusters * size + labels, minlength=size**2).reshape(size, size)


def hungarian_accuracy(labels: Ints, clusters: Ints) -> float:
    """The share of right labels under the best one-to-one map of clusters to labels.

    For random labels too it is above one in the number of classes: about .114 for 10 clusters of 10
    classes and 10,000 points. A cluster without a partner is wrong throughout.

    Args:
        labels: (n,), 0 or more.
        clusters: (n,), 0 or more.
    """
    from scipy.optimize import linear_sum_assignment

    counts = contingency(labels, clusters)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))


def purity(labels: Ints, clusters: Ints) -> float:
    """The share of right labels where each cluster takes its most frequent one.

    Not one-to-one, so it grows with the number of clusters: for random labels of 10 classes and
    10,000 points about .116 for 10 clusters and .151 for 100.

    Args:
        labels: (n,), 0 or more.
        clusters: (n,), 0 or more.
    """
    return float(contingency(labels, clusters).max(1).sum() / len(labels))


def agreement(labels: Ints, clusters: Ints) -> tuple[float, float, float, float]:
    """Hungarian accuracy, purity, NMI over the arithmetic mean of both entropies, and ARI.

    Args:
        labels: (n,), 0 or more.
        clusters: (n,), 0 or more.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return (
        hungarian_accuracy(labels, clusters),
        purity(labels, clusters),
        min(1.0, float(normalized_mutual_info_score(labels, clusters))),  # it may round above
        float(adjusted_rand_score(labels, clusters)),
    )


def whitened(train: NDArray[Any], test: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    r"""Both sets on the axes of ``train``, each axis divided by its singular value s + 1e-5.

    .. math:: (x - \bar x)\, V\, \mathrm{diag}(s + 10^{-5})^{-1},
        \quad X_{train} - \bar x = U\, \mathrm{diag}(s)\, V^\top

    The protocol of Berthelot et al. 2019, arXiv:1807.07543.

    Args:
        train: (n, d).
        test: (m, d).

    Returns:
        float64 (n, r) and (m, r), r the lesser of n and d.
    """
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean = train.mean(0)
    _, values, axes = np.linalg.svd(train - mean, full_matrices=False)
    to_white = axes.T / (values + 1e-5)
    return (train - mean) @ to_white, (test - mean) @ to_white


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


def mixture_clusters(
    train: NDArray[Any], test: NDArray[Any], clusters: int, n_init: int, seed: int
) -> Ints:
    """The likeliest component of each of ``test`` in a Gaussian mixture of ``train``: int64 (m,).

    Full covariances, each with :data:`RIDGE` times the mean variance of ``train`` added to its
    diagonal. Where ``train`` has fewer distinct points than ``clusters``, or EM fails, the clusters
    are those of :func:`kmeans_clusters`.

    Args:
        train: (n, d).
        test: (m, d).
        clusters: the number of components.
        n_init: starts by k-means, of which the likeliest end is kept.
        seed: the starts' seed.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = train.astype(np.float64)
    if len(np.unique(points, axis=0)) >= clusters:
        # In units in which the mean variance is 1, so that no scale is too small for the ridge.
        scale = np.sqrt(points.var(0).mean()) or 1.0
        middle = points.mean(0)
        mixture = GaussianMixture(clusters, reg_covar=RIDGE, n_init=n_init, random_state=seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                mixture.fit((points - middle) / scale)
            return mixture.predict((test.astype(np.float64) - middle) / scale).astype(np.int64)
        except ValueError:  # a covariance that is not positive definite in spite of the ridge
            pass
    return kmeans_clusters(train, test, clusters, 10, seed)


def silhouette(points: NDArray[Any], clusters: Ints) -> float:
    r"""The mean silhouette, Euclidean, of Rousseeuw 1987.

    .. math:: \frac1n \sum_i \frac{b_i - a_i}{\max(a_i, b_i)}

    a is the mean distance to the others of a point's own cluster, b the least mean distance to
    another cluster; 0 for a point that is alone in its cluster. NaN where there are not two
    clusters, or as many as points.

    Args:
        points: (n, d).
        clusters: (n,).
    """
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(clusters)) < len(points):
        return float("nan")
    return float(silhouette_score(points.astype(np.float64), clusters))


class Clusters(Metric):
    """Clusters of the embeddings: fitted to train's, scored on the test's against the labels.

    Accuracy is that of the best one-to-one map, found on the test split itself
    (:func:`hungarian_accuracy`); NMI is divided by the arithmetic mean of both entropies; ARI is
    corrected for chance (Hubert and Arabie 1985).

    Args:
        train: the first so many training embeddings are fitted to.
        n_init: starts, of which the best is kept.
        whiten: centre and whiten all embeddings by train's, see :func:`whitened`.
    """

    family = "clustering"
    needs_labels = True
    reads_codes = True

    def __init__(self, *, train: int = 10_000, n_init: int, whiten: bool = False) -> None:
        self.at_least(1, train=train, n_init=n_init)
        self.train, self.n_init, self.whiten = train, n_init, whiten

    def lacks(self, fitted: Fitted) -> str:
        one = "the labels are of one class" if fitted.dataset.classes == 1 else ""
        return super().lacks(fitted) or one

    def embeddings(self, fitted: Fitted) -> tuple[NDArray[Any], NDArray[Any]]:
        """Train's and the test's, whitened where that is asked for."""
        train = fitted.embeddings("train", self.train).numpy()
        test = fitted.embeddings("test").numpy()
        return whitened(train, test) if self.whiten else (train, test)

    def fitted_to(self, fitted: Fitted) -> str:
        """What it was fitted to and scored on, in words."""
        train, test = (len(fitted.dataset.split(name)) for name in ("train", "test"))
        scaled = "whitened by train's singular values" if self.whiten else "not scaled"
        return (
            f"fitted to {min(self.train, train)} train embeddings, scored on {test} of the test, "
            f"{scaled}; Hungarian map and majorities found on test, arithmetic NMI"
        )


class KMeansClusters(Clusters):
    """k-means with as many clusters as classes: :func:`kmeans_clusters`.

    Purity is that of :func:`purity`; the silhouette reads no labels.

    Args:
        train: the first so many training embeddings are fitted to.
        n_init: starts by k-means++, of which the best is kept.
        whiten: centre and whiten all embeddings by train's, see :func:`whitened`.
        silhouette_points: the silhouette is that of the first so many test embeddings.
    """

    name = "kmeans"
    quantities: ClassVar = (
        Quantity("acc", "higher", low=0, high=1),
        Quantity("purity", "higher", low=0, high=1, ranked=False),
        Quantity("nmi", "higher", low=0, high=1),
        Quantity("ari", "higher", low=-0.5, high=1),
        Quantity("silhouette", "higher", low=-1, high=1, ranked=False),
    )
    source = "Hubert and Arabie 1985, J. Classif. 2:193; Kuhn 1955 for the map"
    description = "agreement of k-means clusters of embeddings with labels"

    def __init__(
        self,
        *,
        train: int = 10_000,
        n_init: int = 10,
        whiten: bool = False,
        silhouette_points: int = 2_000,
    ) -> None:
        super().__init__(train=train, n_init=n_init, whiten=whiten)
        self.at_least(2, silhouette_points=silhouette_points)
        self.silhouette_points = silhouette_points

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float | NotApplicable]:
        train, test = self.embeddings(fitted)
        with fitted.random("kmeans") as seed:
            clusters = kmeans_clusters(train, test, fitted.dataset.classes, self.n_init, seed)
        acc, pure, nmi, ari = agreement(fitted.labels("test").numpy(), clusters)
        some = slice(self.silhouette_points)
        mean = silhouette(test[some], clusters[some])
        return {
            "acc": acc,
            "purity": pure,
            "nmi": nmi,
            "ari": ari,
            "silhouette": NotApplicable("fewer than two clusters") if np.isnan(mean) else mean,
        }

    def estimator(self, fitted: Fitted) -> str:
        points = min(self.silhouette_points, len(fitted.dataset.split("test")))
        return (
            f"k-means, {fitted.dataset.classes} clusters, best of {self.n_init} k-means++ starts, "
            f"{self.fitted_to(fitted)}; silhouette of {points} test embeddings, Euclidean"
        )


class MixtureClusters(Clusters):
    """A Gaussian mixture with as many components as classes: :func:`mixture_clusters`.

    Args:
        train: the first so many training embeddings are fitted to.
        n_init: starts by k-means, of which the likeliest end is kept.
        whiten: centre and whiten all embeddings by train's, see :func:`whitened`.
        max_dim: n/a for embeddings of more dimensions, whose covariances are ill-posed and slow.
    """

    name = "mixture"
    quantities: ClassVar = (
        Quantity("mixture_acc", "higher", low=0, high=1, ranked=False),
        Quantity("mixture_purity", "higher", low=0, high=1, ranked=False),
        Quantity("mixture_nmi", "higher", low=0, high=1, ranked=False),
        Quantity("mixture_ari", "higher", low=-0.5, high=1, ranked=False),
    )
    source = "Dempster, Laird and Rubin 1977, J. R. Stat. Soc. B 39:1"
    description = "agreement of a Gaussian mixture's components with labels"

    def __init__(
        self, *, train: int = 10_000, n_init: int = 3, whiten: bool = False, max_dim: int = 64
    ) -> None:
        super().__init__(train=train, n_init=n_init, whiten=whiten)
        self.at_least(1, max_dim=max_dim)
        self.max_dim = max_dim

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        train, test = self.embeddings(fitted)
        if train.shape[1] > self.max_dim:
            raise NotApplicable(f"embeddings of {train.shape[1]} > {self.max_dim} dimensions")
        with fitted.random("mixture") as seed:
            clusters = mixture_clusters(train, test, fitted.dataset.classes, self.n_init, seed)
        names = [quantity.name for quantity in self.quantities]
        return dict(zip(names, agreement(fitted.labels("test").numpy(), clusters)))

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"Gaussian mixture, {fitted.dataset.classes} components of full covariance, best of "
            f"{self.n_init} k-means starts, {RIDGE:g} of the mean variance added to each (k-means' "
            "clusters where there are fewer distinct embeddings than components), "
            f"{self.fitted_to(fitted)}"
        )
