"""Metrics of classification: known answers and invariants."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from aebench.benchmark.evaluate import evaluate
from aebench.benchmark.metrics import Fitted, NotApplicable
from aebench.benchmark.metrics.classification import (
    KNN,
    FactorProbe,
    LinearProbe,
    MLPProbe,
    knn_accuracy,
    linear_probe_accuracy,
    mlp_probe_accuracy,
)
from standins import Echo, Everything, Pixels, Rendered, blobs, fitted_echo, noise_images, spec

Accuracy = Callable[..., float]


def separable(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    return np.eye(3)[labels] * 5 + 0.3 * random.standard_normal((n, 3)), labels


def test_probes_of_separable_codes_are_perfect() -> None:
    train, val, test = (separable(n, i) for i, n in enumerate((200, 50, 100)))
    assert linear_probe_accuracy(train, val, test) == 1
    assert knn_accuracy(train, test) == 1
    assert mlp_probe_accuracy(train, val, test) == 1


@pytest.mark.parametrize("accuracy", [linear_probe_accuracy, mlp_probe_accuracy])
def test_probes_are_standardised(accuracy: Accuracy) -> None:
    scale = np.array([1e-5, 1.0, 1e5])
    train, val, test = (
        (x * scale + 7, y) for x, y in (separable(n, i) for i, n in enumerate((200, 50, 100)))
    )
    assert accuracy(train, val, test) == 1


def test_probes_of_noise_are_at_chance() -> None:
    random = np.random.default_rng(0)
    parts = [(random.standard_normal((n, 8)), random.integers(0, 4, n)) for n in (800, 200, 2000)]
    assert linear_probe_accuracy(*parts) == pytest.approx(0.25, abs=0.04)
    assert knn_accuracy(parts[0], parts[2]) == pytest.approx(0.25, abs=0.04)
    assert mlp_probe_accuracy(*parts) == pytest.approx(0.25, abs=0.04)


def test_linear_probe_is_chosen_on_the_validation_split() -> None:
    """Two features: one right for train but wrong for val, one a little right for both."""
    random = np.random.default_rng(0)

    def part(n: int, sign: float) -> tuple[np.ndarray, np.ndarray]:
        labels = random.integers(0, 2, n)
        side = 2.0 * labels - 1
        misleading = sign * side * 1.0 + 0.5 * random.standard_normal(n)
        x = np.stack([misleading, *(side[:, None] + 3 * random.standard_normal((n, 40))).T], 1)
        return x, labels

    train, deceived, honest = part(60, 1), part(400, -1), part(400, 1)
    # The test split is the same: only the split that chooses C differs.
    assert linear_probe_accuracy(train, deceived, deceived) > linear_probe_accuracy(
        train, honest, deceived
    )


def test_mlp_probe_stops_by_the_validation_split() -> None:
    random = np.random.default_rng(0)
    train, test = ((random.standard_normal((n, 8)), random.integers(0, 2, n)) for n in (100, 400))
    # The best and the worst of its checks.
    best = mlp_probe_accuracy(train, test, test)
    worst = mlp_probe_accuracy(train, (test[0], 1 - test[1]), test)
    assert worst < best - 0.02


def test_knn_is_a_majority_of_five() -> None:
    train = np.array([[0.0], [1], [2], [10], [11], [12]]), np.array([0, 1, 1, 0, 0, 0])
    assert knn_accuracy(train, (np.array([[0.0]]), np.array([0]))) == 1  # 0, 1, 1, 0, 0
    assert knn_accuracy(train, (np.array([[0.0]]), np.array([1])), neighbours=3) == 1
    assert knn_accuracy(train, (np.array([[0.0]]), np.array([0])), neighbours=100) == 1
    assert "3 neighbours" in KNN(neighbours=3).estimator(
        fitted_echo(*blobs(8, 0)[:1], labels=blobs(8, 0)[1])
    )


def exclusive_or(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two features of which no linear function tells whether their signs agree."""
    x = np.random.default_rng(seed).standard_normal((n, 2))
    return x, (x.prod(1) > 0).astype(int)


def test_the_mlp_probe_tells_what_a_linear_one_cannot() -> None:
    parts = [exclusive_or(n, i) for i, n in enumerate((1000, 300, 1000))]
    assert linear_probe_accuracy(*parts) < 0.7
    assert mlp_probe_accuracy(*parts) > 0.95
    assert mlp_probe_accuracy(*parts, width=1) < 0.9


def test_the_mlp_probe_depends_on_its_seed_alone() -> None:
    parts = [exclusive_or(n, i) for i, n in enumerate((50, 50, 1000))]
    torch.manual_seed(1)
    first = mlp_probe_accuracy(*parts, seed=3)
    torch.manual_seed(2)
    assert mlp_probe_accuracy(*parts, seed=3) == first
    assert len({mlp_probe_accuracy(*parts, seed=seed) for seed in range(3)}) > 1


@pytest.mark.parametrize("cls", [LinearProbe, KNN, MLPProbe])
def test_accuracy_with_few_labels(cls: type[LinearProbe | KNN | MLPProbe]) -> None:
    images, labels = blobs(1200, 0, noise=90)
    fitted = fitted_echo(images, labels=labels)
    values = cls().compute(fitted)
    assert list(values) == [quantity.name for quantity in cls.quantities]
    every, some, few = (values[cls.name + end] for end in ("", "_1000", "_100"))
    assert 0.3 < few < some <= every + 0.02
    # It reads the first labels alone, as if there were no others.
    assert cls(train=100).compute(fitted)[f"{cls.name}_100"] == few


def test_label_efficiency_is_the_share_that_100_labels_give() -> None:
    images, labels = blobs(400, 0, noise=90)
    fitted = fitted_echo(images, labels=labels)
    values = LinearProbe().compute(fitted)
    assert values["label_efficiency"] == values["linear_probe_100"] / values["linear_probe"]
    assert values["label_efficiency"] < 1
    x, y = fitted.embeddings("train").numpy(), fitted.labels("train").numpy()
    few = x[:100], y[:100]
    assert values["linear_probe_100"] == linear_probe_accuracy(few, few, (x, y))


def test_probes_of_too_few_labels_are_not_applicable() -> None:
    images, labels = blobs(120, 0)
    values = LinearProbe().compute(fitted_echo(images, labels=labels))
    assert values["linear_probe_100"] == 1
    assert str(values["linear_probe_1000"]) == "fewer than 1000 training labels"
    values = LinearProbe(train=99).compute(fitted_echo(images, labels=labels))
    assert values["linear_probe"] == 1
    for name in ("linear_probe_100", "label_efficiency"):
        assert str(values[name]) == "fewer than 100 training labels"


@pytest.mark.parametrize("cls", [LinearProbe, KNN, MLPProbe])
def test_probes_of_one_class_are_not_applicable(cls: type[LinearProbe | KNN | MLPProbe]) -> None:
    fitted = fitted_echo(noise_images(20, 1, 3, 3), labels=torch.ones(20, dtype=torch.int64))
    with pytest.raises(NotApplicable, match="one class"):
        cls().compute(fitted)


@pytest.mark.parametrize("cls", [LinearProbe, KNN, MLPProbe])
def test_probes_of_collapsed_codes_are_silent(cls: type[LinearProbe | KNN | MLPProbe]) -> None:
    images, labels = blobs(120, 0)
    fitted = fitted_echo(torch.zeros_like(images), labels=labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cls().compute(fitted)[cls.name] == 0.25


def test_the_dimension_is_stated() -> None:
    images, labels = blobs(12, 0)
    for cls in (LinearProbe, KNN, MLPProbe):
        said = cls().estimator(fitted_echo(images, labels=labels))
        assert "12 train embeddings of 64 dimensions, scored on 12 of the test" in said


def fitted_to(dataset: Rendered) -> Fitted:
    return Fitted(Echo(spec(dataset)), dataset, Pixels(dataset))


def test_the_factor_probe_of_codes_that_are_the_factors_is_perfect() -> None:
    """With a value more than two an ordered factor is told by the largest of linear functions."""
    values = FactorProbe().compute(fitted_to(Rendered((3, 4, 5))))
    assert values == {f"factor_probe{part}": 1 for part in ("", "[a]", "[b]", "[c]")}


def test_the_factor_probe_is_a_mean_over_factors_that_vary() -> None:
    class Half(Rendered):
        """The first factor is seen, the second is not, and the third has one value."""

        def render(self, factors: torch.Tensor) -> torch.Tensor:
            return super().render(factors * torch.tensor([1, 0, 1]))

    values = FactorProbe().compute(fitted_to(Half((3, 4, 1))))
    assert values == {"factor_probe": 0.625, "factor_probe[a]": 1, "factor_probe[b]": 0.25}
    with pytest.raises(NotApplicable, match="no factor has more than one value"):
        FactorProbe().compute(fitted_to(Half((1, 1, 1))))


def test_parts_of_the_factor_probe_have_rows_of_their_own() -> None:
    rows = evaluate(fitted_to(Everything()), [FactorProbe()]).rows
    assert [row.metric for row in rows] == [
        "factor_probe",
        *(f"factor_probe[{name}]" for name in "abcd"),
    ]
    assert [row.ranked for row in rows] == [True, False, False, False, False]
