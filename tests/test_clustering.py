"""Metrics of clustering: known answers and invariants."""

import warnings

import numpy as np
import pytest
import torch
from aebench.benchmark.metrics.clustering import (
    KMeansClusters,
    MixtureClusters,
    agreement,
    hungarian_accuracy,
    kmeans_clusters,
    mixture_clusters,
    purity,
    silhouette,
    whitened,
)
from standins import blobs, fitted_echo


def random_labels(clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 10, 10_000), random.integers(0, clusters, 10_000)


@pytest.mark.parametrize(
    ("clusters", "accuracy", "majority"), [(10, 0.119, 0.120), (100, 0.018, 0.148)]
)
def test_random_labels_give_the_known_answers(
    clusters: int, accuracy: float, majority: float
) -> None:
    """One draw of the original programs, which deviate by .0016 and .0018 (10 clusters) or .0005
    and .0017 (100) from draw to draw."""
    labels, found = random_labels(clusters, 0)
    assert hungarian_accuracy(labels, found) == pytest.approx(accuracy, abs=0.006)
    assert purity(labels, found) == pytest.approx(majority, abs=0.007)
    assert abs(agreement(labels, found)[3]) < 0.001


@pytest.mark.parametrize(
    ("clusters", "accuracy", "majority"), [(10, 0.1136, 0.1158), (100, 0.0187, 0.1511)]
)
def test_random_labels_give_their_expectation(
    clusters: int, accuracy: float, majority: float
) -> None:
    """Means over 100 draws, counted apart from this package; each known to .0002."""
    draws = [random_labels(clusters, 1000 + seed) for seed in range(30)]
    assert np.mean([hungarian_accuracy(*d) for d in draws]) == pytest.approx(accuracy, abs=0.001)
    assert np.mean([purity(*d) for d in draws]) == pytest.approx(majority, abs=0.0013)


def test_hungarian_accuracy_maps_one_to_one() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert hungarian_accuracy(labels, (labels + 1) % 3) == 1
    assert hungarian_accuracy(labels, np.arange(6)) == 0.5  # six clusters, three of them mapped
    assert hungarian_accuracy(labels, np.zeros(6, dtype=int)) == pytest.approx(1 / 3)
    assert hungarian_accuracy(labels, np.array([0, 1, 1, 1, 1, 1])) == pytest.approx(3 / 6)


def test_purity_takes_majorities() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert purity(labels, np.arange(6)) == 1  # which is no merit
    assert purity(labels, np.array([0, 0, 0, 0, 1, 1])) == pytest.approx(4 / 6)
    assert purity(labels, np.array([4, 4, 4, 7, 7, 7])) == pytest.approx(4 / 6)
    assert purity(np.zeros(5, dtype=int), np.arange(5)) == 1


def test_silhouette_of_pairs_by_hand() -> None:
    points = np.array([[0.0], [1.0], [10.0], [12.0]])
    clusters = np.array([0, 0, 1, 1])
    a, b = np.array([1, 1, 2, 2]), np.array([11, 10, 9.5, 11.5])
    assert silhouette(points, clusters) == pytest.approx(np.mean((b - a) / b))
    assert np.isnan(silhouette(points, np.zeros(4, dtype=int)))
    assert np.isnan(silhouette(points, np.arange(4)))


def test_whitened_axes_are_uncorrelated_and_of_length_one() -> None:
    random = np.random.default_rng(0)
    mix = random.standard_normal((5, 5)) * np.array([1, 10, 100, 0.1, 1])
    train = random.standard_normal((300, 5)) @ mix + 7
    test = random.standard_normal((50, 5)) @ mix + 7
    white, other = whitened(train, test)
    assert white.T @ white == pytest.approx(np.eye(5), abs=1e-3)
    assert white.sum(0) == pytest.approx(np.zeros(5), abs=1e-9)
    # The same map for both.
    assert whitened(train, train[:9])[1] == pytest.approx(white[:9])
    assert other.shape == (50, 5)
    # An axis without variance stays so.
    flat = np.hstack([train, np.full((300, 1), 3.0)])
    assert np.abs(whitened(flat, flat)[0]).max(0)[-1] < 1e-6


def planes(x: np.ndarray) -> torch.Tensor:
    """Points (n, 2) as images 1 x 1 x 2."""
    return torch.tensor(x).clamp(0, 255).round().to(torch.uint8)[:, None, None]


def test_whitening_finds_classes_along_an_axis_of_little_variance() -> None:
    random, labels = np.random.default_rng(0), np.arange(600) % 2
    x = np.stack([random.uniform(0, 255, 600), 120 + 16 * labels + random.standard_normal(600)], 1)
    fitted = fitted_echo(planes(x), labels=torch.tensor(labels))
    assert KMeansClusters().compute(fitted)["acc"] < 0.6
    assert KMeansClusters(whiten=True).compute(fitted)["acc"] > 0.95
    assert "whitened" in KMeansClusters(whiten=True).estimator(fitted)
    assert "not scaled" in KMeansClusters().estimator(fitted)


def narrow_in_wide() -> tuple[np.ndarray, np.ndarray]:
    """Points of two classes of unequal spread, and their labels."""
    labels = np.arange(600) % 2
    noise = np.random.default_rng(0).standard_normal((600, 2)) * np.where(labels, 3, 25)[:, None]
    return noise + 128 + labels[:, None] * np.array([30, 0]), labels


def test_a_mixture_finds_a_narrow_class_beside_a_wide_one() -> None:
    x, labels = narrow_in_wide()
    fitted = fitted_echo(planes(x), labels=torch.tensor(labels))
    assert KMeansClusters().compute(fitted)["acc"] < 0.85
    assert MixtureClusters().compute(fitted)["mixture_acc"] > 0.95


def test_a_mixture_does_not_depend_on_the_scale() -> None:
    points, labels = narrow_in_wide()
    expected = mixture_clusters(points, points, 2, 1, 0)
    assert hungarian_accuracy(labels, expected) > 0.95
    for scale in (1e-9, 1e9):
        found = mixture_clusters(points * scale, points * scale, 2, 1, 0)
        assert hungarian_accuracy(expected, found) == 1


def test_clusters_of_blobs_are_perfect() -> None:
    images, labels = blobs(400, 0)
    fitted = fitted_echo(images, labels=labels)
    values = KMeansClusters().compute(fitted)
    assert values["silhouette"] > 0.8
    del values["silhouette"]
    assert values == pytest.approx({"acc": 1, "purity": 1, "nmi": 1, "ari": 1})
    found = MixtureClusters(max_dim=64).compute(fitted)
    assert list(found.values()) == pytest.approx([1, 1, 1, 1])


def test_clusters_of_labels_without_relation_are_chance() -> None:
    labels = torch.randint(0, 4, (1200,), generator=torch.Generator().manual_seed(5))
    values = KMeansClusters().compute(fitted_echo(blobs(1200, 0)[0], labels=labels))
    assert 0.25 < values["acc"] <= values["purity"] < 0.32
    assert values["nmi"] < 0.02
    assert abs(values["ari"]) < 0.02


def test_clusters_of_collapsed_codes_are_silent() -> None:
    images, labels = blobs(120, 0)
    fitted = fitted_echo(torch.zeros_like(images), labels=labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = dict(KMeansClusters().compute(fitted))
        found = MixtureClusters().compute(fitted)
        white = KMeansClusters(whiten=True).compute(fitted)
    for some in (values, white):
        assert "fewer than two clusters" in str(some.pop("silhouette"))
        assert some == pytest.approx({"acc": 0.25, "purity": 0.25, "nmi": 0, "ari": 0})
    assert list(found.values()) == pytest.approx([0.25, 0.25, 0, 0])


@pytest.mark.parametrize("clusters_of", [kmeans_clusters, mixture_clusters])
@pytest.mark.parametrize(
    "points",
    [
        np.zeros((2, 3)),
        np.repeat(np.eye(3), 4, 0),  # fewer distinct points than clusters
        np.repeat(np.eye(4), 4, 0),  # as many: components without variance
        np.eye(5) * 1e-30,  # fewer points than the covariance has entries
        np.eye(5) * 1e15,
        np.r_[np.zeros((40, 3)), 1e-9 * np.random.default_rng(0).standard_normal((10, 3))],
    ],
)
def test_degenerate_codes_have_clusters(clusters_of, points: np.ndarray) -> None:  # type: ignore
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = clusters_of(points, np.r_[points, points], 4, 2, 0)
    assert found.dtype == np.int64
    assert np.array_equal(found[: len(points)], found[len(points) :])
    assert found.min() >= 0
    assert found.max() < 4
    distinct = np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)
    if 2 < distinct.max() + 1 <= 4:
        assert purity(distinct, found[: len(points)]) == 1


def test_the_silhouette_is_of_the_first_points() -> None:
    images, labels = blobs(200, 0, noise=30)
    fitted = fitted_echo(images, labels=labels)
    few, every = (KMeansClusters(silhouette_points=n).compute(fitted) for n in (50, 10_000))
    assert few["silhouette"] != every["silhouette"]
    assert few["silhouette"] == pytest.approx(every["silhouette"], abs=0.1)
    assert few["acc"] == every["acc"]
    assert "silhouette of 50 test" in KMeansClusters(silhouette_points=50).estimator(fitted)


def test_clusters_say_why_they_do_not_apply() -> None:
    images, labels = blobs(40, 0)
    one = fitted_echo(images, labels=labels * 0)
    assert KMeansClusters().lacks(one) == "the labels are of one class"
    with pytest.raises(Exception, match="embeddings of 64 > 63 dimensions"):
        MixtureClusters(max_dim=63).compute(fitted_echo(images, labels=labels))
