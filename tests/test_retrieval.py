"""Metrics of retrieval: known answers and invariants."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from aebench.benchmark.metrics import Fitted, NotApplicable, retrieval
from aebench.benchmark.metrics.retrieval import NearestImages, average_precision, precision_at
from aebench.datasets import Split
from sklearn.metrics import average_precision_score
from standins import Echo, Held, Pixels, blobs, fitted_echo, noise_images, spec


def by_hand(order: tuple[int, ...], relevant: np.ndarray, k: int) -> tuple[float, float]:
    """Average precision and precision at ``k`` of one ranking without ties."""
    hits = [bool(relevant[i]) for i in order]
    precisions = [sum(hits[: p + 1]) / (p + 1) for p, hit in enumerate(hits) if hit]
    return sum(precisions) / len(precisions), sum(hits[:k]) / len(hits[:k])


@pytest.mark.parametrize("seed", range(12))
def test_ties_count_as_the_mean_over_their_orders(seed: int) -> None:
    random = np.random.default_rng(seed)
    distances = random.integers(0, 1 + seed % 4, 7).astype(float)  # from one group to seven items
    relevant = random.random(7) < 0.5
    relevant[random.integers(7)] = True
    orders = [
        order
        for order in itertools.permutations(range(7))
        if all(distances[a] <= distances[b] for a, b in itertools.pairwise(order))
    ]
    for k in (1, 3, 20):
        found = np.array([by_hand(order, relevant, k) for order in orders]).mean(0)
        assert average_precision(distances[None], relevant[None])[0] == pytest.approx(found[0])
        assert precision_at(distances[None], relevant[None], k)[0] == pytest.approx(found[1])


def test_without_ties_it_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    distances, relevant = random.random((40, 200)), random.random((40, 200)) < 0.1
    expected = [average_precision_score(r, -d) for d, r in zip(distances, relevant)]
    assert average_precision(distances, relevant) == pytest.approx(expected)
    order = distances.argsort(1)
    hits = np.take_along_axis(relevant, order, 1)[:, :10].mean(1)
    assert precision_at(distances, relevant, 10) == pytest.approx(hits)


def test_a_query_without_relevant_items_has_no_average_precision() -> None:
    found = average_precision(
        np.array([[1.0, 2], [1, 2]]), np.array([[False, False], [True, False]])
    )
    assert np.isnan(found[0])
    assert found[1] == 1


def test_nothing_depends_on_the_order_of_equal_items() -> None:
    random = np.random.default_rng(3)
    distances, relevant = random.integers(0, 9, (5, 300)), random.random((5, 300)) < 0.3
    order = random.permutation(300)
    for measure in (average_precision, lambda d, r: precision_at(d, r, 10)):
        one, other = measure(distances, relevant), measure(distances[:, order], relevant[:, order])
        assert one == pytest.approx(other, abs=1e-12)


class Two(Held):
    """A database and queries of their own."""

    def __init__(self, database: Split, queries: Split) -> None:
        super().__init__(torch.zeros(1))
        self.parts = {"train": database, "val": queries, "test": queries}

    def load(self) -> dict[Any, Split]:
        return self.parts


def scored(database: Split, queries: Split, **parameters: int) -> dict[str, float]:
    dataset = Two(database, queries)
    fitted = Fitted(Echo(spec(dataset)), dataset, Pixels(dataset))
    return NearestImages(**parameters).compute(fitted)


def test_images_of_far_classes_are_retrieved() -> None:
    database, queries = Split(*blobs(200, 0)), Split(*blobs(40, 1))
    assert scored(database, queries) == pytest.approx({"map": 1, "precision_at_k": 1})


def test_labels_without_relation_are_retrieved_by_chance() -> None:
    random = torch.Generator().manual_seed(0)
    database = Split(noise_images(2000, 1, 2, 2), torch.randint(0, 4, (2000,), generator=random))
    queries = Split(
        noise_images(300, 1, 2, 2, seed=1), torch.randint(0, 4, (300,), generator=random)
    )
    values = scored(database, queries)
    assert values["map"] == pytest.approx(0.25, abs=0.01)
    assert values["precision_at_k"] == pytest.approx(0.25, abs=0.03)


def test_equal_codes_are_retrieved_by_chance_exactly() -> None:
    """A third of the database is relevant, all at one distance: P@k is a third for any k."""
    database = Split(torch.full((30, 1, 3, 3), 7, dtype=torch.uint8), torch.arange(30) % 3)
    queries = database.take(slice(9))
    values = scored(database, queries, k=7)
    # Item i of n is relevant with probability 1/3, and then has (1 + 9 (i - 1) / 29) / i.
    expected = sum((1 + 9 * i / 29) / (i + 1) for i in range(30)) / 30
    assert values == pytest.approx({"map": expected, "precision_at_k": 1 / 3})


def test_queries_of_an_unknown_class_are_left_out() -> None:
    images, labels = blobs(80, 0)
    database = Split(images[labels < 3], labels[labels < 3])
    few = labels != 1
    for parts in (Split(images, labels), Split(images[few], labels[few])):
        assert scored(database, parts) == pytest.approx({"map": 1, "precision_at_k": 1})
    with pytest.raises(NotApplicable, match="no image of any query's class"):
        scored(database, Split(images[labels == 3], labels[labels == 3]))
    with pytest.raises(NotApplicable, match="of one class"):
        scored(database.take(database.labels == 1), Split(images, labels))


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = blobs(150, 0, noise=90)
    fitted = fitted_echo(images, labels=labels)
    whole = NearestImages().compute(fitted)
    assert 0.3 < whole["map"] < 0.99
    monkeypatch.setattr(retrieval, "AT_ONCE", 1000)
    assert NearestImages().compute(fitted) == whole


def test_the_first_queries_and_the_first_of_the_database_are_taken() -> None:
    images, labels = blobs(150, 0, noise=90)
    fitted = fitted_echo(images, labels=labels)
    metric = NearestImages(queries=20, database=60, k=3)
    queries, database = fitted.embeddings("test")[:20], fitted.embeddings("train")[:60]
    relevant = (fitted.labels("test")[:20, None] == fitted.labels("train")[:60]).numpy()
    distances = torch.cdist(queries.double(), database.double()).numpy()
    assert metric.compute(fitted) == pytest.approx(
        {
            "map": average_precision(distances, relevant).mean(),
            "precision_at_k": precision_at(distances, relevant, 3).mean(),
        }
    )
    assert "20 test embeddings as queries to 60 train embeddings" in metric.estimator(fitted)
    assert "k = 3" in metric.estimator(fitted)


def test_binary_codes_are_compared_by_hamming_distance() -> None:
    random = np.random.default_rng(0)
    images = torch.tensor(random.integers(0, 2, (120, 1, 2, 4)) * 255, dtype=torch.uint8)
    labels = torch.arange(120) % 3
    fitted = fitted_echo(images, labels=labels)
    metric = NearestImages()
    assert "Hamming distance" in metric.estimator(fitted)
    bits = fitted.embeddings("test").numpy().astype(int)
    y = fitted.labels("test").numpy()
    hamming = (bits[:, None] != bits).sum(2)
    assert metric.compute(fitted) == pytest.approx(
        {
            "map": average_precision(hamming, y[:, None] == y).mean(),
            "precision_at_k": precision_at(hamming, y[:, None] == y, 10).mean(),
        }
    )
    grey = fitted_echo(noise_images(9, 1, 2, 2), labels=torch.arange(9) % 2)
    assert "Euclidean distance" in metric.estimator(grey)
