"""How well the nearest training embeddings of a test image share its label."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Fitted, Metric, NotApplicable, Quantity

Floats = NDArray[np.float64]
AT_ONCE = 1_000_000
"""Distances held at a time."""


def _tied(distances: NDArray[Any], relevant: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """For each rank of each query (q, n): of the group of equal distances that it lies in, the
    first rank from 0, the size and the number of relevant items, and those relevant before it.
    """
    order = distances.argsort(1)
    sorted_distances = np.take_along_axis(distances, order, 1)
    n = distances.shape[1]
    ranks = np.arange(n)
    changes = np.diff(sorted_distances, axis=1) != 0
    edge = np.ones((len(distances), 1), dtype=bool)
    starts = np.where(np.hstack([edge, changes]), ranks, 0)
    first = np.maximum.accumulate(starts, 1)
    ends = np.where(np.hstack([changes, edge]), ranks + 1, n)
    after = np.minimum.accumulate(ends[:, ::-1], 1)[:, ::-1]
    counts = np.zeros((len(distances), n + 1), dtype=np.int64)
    np.cumsum(np.take_along_axis(relevant, order, 1), 1, out=counts[:, 1:])
    before = np.take_along_axis(counts, first, 1)
    return first, after - first, np.take_along_axis(counts, after, 1) - before, before


def average_precision(distances: NDArray[Any], relevant: NDArray[np.bool_]) -> Floats:
    r"""The average precision of each query, expected over the orders of equal distances.

    The mean over relevant items of the precision down to each. In a group of n items at one
    distance of which r are relevant, behind N items of which R are, the item at place k is
    relevant with probability r/n and then has the expected precision of the bracket:

    .. math::
        \frac{1}{\sum r} \sum_{groups} \sum_{k=1}^{n} \frac rn
        \left[ \frac{R + 1 + (k-1)\frac{r-1}{n-1}}{N + k} \right]

    McSherry and Najork 2008, doi:10.1007/978-3-540-78646-7_38.

    Args:
        distances: (q, n).
        relevant: (q, n).

    Returns:
        (q,), NaN for a query without relevant items.
    """
    first, size, inside, before = _tied(distances, relevant)
    ranks = np.arange(distances.shape[1])
    others = (ranks - first) * (inside - 1) / np.maximum(size - 1, 1)
    expected = inside / size * (before + 1 + others) / (ranks + 1)
    total = relevant.sum(1)
    return np.where(total > 0, expected.sum(1) / np.maximum(total, 1), np.nan)


def precision_at(distances: NDArray[Any], relevant: NDArray[np.bool_], k: int) -> Floats:
    """The share of relevant items among the ``k`` nearest, expected over orders of equal distances.

    Args:
        distances: (q, n).
        relevant: (q, n).
        k: how many; all where there are fewer.

    Returns:
        (q,).
    """
    _, size, inside, _ = _tied(distances, relevant)
    return (inside / size)[:, :k].mean(1)


class NearestImages(Metric):
    """Test images retrieve training images by the distance of their embeddings, Euclidean.

    Relevant are those of the same label. Embeddings that are all 0 or 1 are compared by the Hamming
    distance, which is the squared Euclidean one. Queries of a class that the database lacks are
    left out.

    Args:
        queries: the first so many test embeddings ask.
        database: the first so many training embeddings are ranked for each.
        k: how many of the nearest the precision is taken of.
    """

    name = "nearest_images"
    family = "retrieval"
    quantities: ClassVar = (
        Quantity("map", "higher", low=0, high=1),
        Quantity("precision_at_k", "higher", low=0, high=1, ranked=False),
    )
    source = "McSherry and Najork 2008, doi:10.1007/978-3-540-78646-7_38"
    description = "mean average precision of the nearest embeddings of the same label"
    needs_labels = True
    reads_codes = True

    def __init__(self, *, queries: int = 1_000, database: int = 10_000, k: int = 10) -> None:
        self.at_least(1, queries=queries, database=database, k=k)
        self.queries, self.database, self.k = queries, database, k

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        from scipy.spatial.distance import cdist

        queries, labels = (x.numpy() for x in self.parts(fitted, "test"))
        database, held = (x.numpy() for x in self.parts(fitted, "train"))
        if len(np.unique(held)) < 2:
            raise NotApplicable("the training labels are of one class")
        asked = np.isin(labels, held)
        if not asked.any():
            raise NotApplicable("the database has no image of any query's class")
        queries, labels = queries[asked], labels[asked]
        precisions, shares = [], []
        step = max(1, AT_ONCE // len(database))
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            # By differences, so that equal embeddings are equally far, to the last bit.
            distances = cdist(queries[some], database, "sqeuclidean")
            relevant = labels[some, None] == held
            precisions.append(average_precision(distances, relevant))
            shares.append(precision_at(distances, relevant, self.k))
        return {
            "map": float(np.concatenate(precisions).mean()),
            "precision_at_k": float(np.concatenate(shares).mean()),
        }

    def parts(self, fitted: Fitted, split: Any) -> tuple[Any, Any]:
        """The embeddings and labels of the queries (``test``) or of the database (``train``)."""
        limit = self.queries if split == "test" else self.database
        return fitted.embeddings(split, limit), fitted.labels(split, limit)

    def estimator(self, fitted: Fitted) -> str:
        queries, database = (self.parts(fitted, split)[0] for split in ("test", "train"))
        binary = all(bool(((x == 0) | (x == 1)).all()) for x in (queries, database))
        return (
            f"{len(queries)} test embeddings as queries to {len(database)} train embeddings, "
            f"relevant are those of the same label, {'Hamming' if binary else 'Euclidean'} "
            f"distance, k = {self.k}, expected over the orders of equal distances"
        )
