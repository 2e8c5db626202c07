"""What holds for every metric."""

import math
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from aebench.benchmark.evaluate import evaluate
from aebench.benchmark.families import FAMILIES
from aebench.benchmark.metrics import AcrossSeeds, Fitted
from aebench.benchmark.metrics.generation import OnFeatures
from aebench.datasets import Dataset, Split
from aebench.models.samplers.prior import Prior
from aebench.plugins import InputError
from standins import (
    FEW,
    OURS,
    Echo,
    Everything,
    Held,
    Pixels,
    Shuffled,
    noise_images,
    normed_vae,
    scores,
    spec,
    suited,
    values_of,
)
from torch import Tensor, nn

AT_HAND = {"lpips"}
"""Metrics that need a file which a fresh machine does not have."""
OF_DATA = {"noisy_psnr", "masked_psnr"}
"""Quantities of the data alone."""
EXACT = {
    "mse",
    "sse",
    "psnr",
    "ms_ssim",
    "linear_probe",
    "knn",
    "factor_probe",
    "inpainting",
    "rate",
}
"""Metrics without chance."""
DRAWN = {
    "elbo",
    "nll",
    "bits_per_dim",
    "aggregate",
    "fid",
    "kid",
    "smoothness",
    "midpoint_fid",
    "path_length",
    "mig",
    "denoising",
    "held_out_class",
}
"""Metrics that no two seeds can give the same value of."""


@cache
def alone(name: str) -> dict[str, Any]:
    """What a metric gives by itself."""
    return scores([name])[name]


@pytest.mark.parametrize("name", OURS)
def test_a_metric_gives_its_quantities_within_their_range(name: str) -> None:
    cls, values = OURS[name], alone(name)
    assert cls.family in FAMILIES
    assert cls.description
    assert cls.source or cls.family == "reconstruction"
    whole = {key.partition("[")[0] for key in values}
    assert whole == {quantity.name for quantity in cls.quantities}
    numbers = {key: value for key, value in values.items() if not isinstance(value, str)}
    assert all(math.isfinite(value) for value in numbers.values())
    assert numbers or name in AT_HAND
    assert name in AT_HAND or all(q.name in numbers for q in cls.quantities if q.ranked)
    for quantity in cls.quantities:
        for key, value in numbers.items():
            if key.partition("[")[0] == quantity.name:
                assert quantity.low is None or value >= quantity.low
                assert quantity.high is None or value <= quantity.high


def test_metrics_cover_every_family() -> None:
    assert {cls.family for cls in OURS.values()} == set(FAMILIES)


def test_no_two_metrics_share_a_name() -> None:
    names = [quantity.name for cls in OURS.values() for quantity in cls.quantities]
    assert len(names) == len(set(names))
    assert not set(FAMILIES) & set(OURS)  # a grid could not tell which is meant


def test_every_family_has_a_ranked_metric() -> None:
    ranked = {c.family for c in OURS.values() if any(q.ranked and q.better for q in c.quantities)}
    assert ranked == set(FAMILIES)
    assert all(q.better for c in OURS.values() for q in c.quantities if q.ranked)


@pytest.mark.parametrize("name", OURS)
def test_a_metric_does_not_depend_on_the_batch_size(name: str) -> None:
    found = scores([name], batch_size=7)[name]
    for key, value in alone(name).items():
        near = value if isinstance(value, str) else pytest.approx(value, rel=1e-5, abs=1e-6)
        assert found[key] == near


@pytest.mark.parametrize("name", OURS)
def test_a_metric_does_not_depend_on_the_order_of_the_images(name: str) -> None:
    assert scores([name], cls=Shuffled)[name] == alone(name)


def test_metrics_do_not_depend_on_each_other() -> None:
    together = scores(list(reversed(OURS)))
    assert together == {name: alone(name) for name in together}


def test_the_seed_matters_where_there_is_chance() -> None:
    again = scores(sorted(DRAWN | EXACT), seed=1)
    assert {name for name in again if again[name] != alone(name)} == DRAWN


@pytest.mark.parametrize("name", OURS)
def test_the_train_split_is_read_only_where_the_estimator_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = OURS[name](**FEW.get(name, {}))
    fitted = suited(metric)
    assert fitted.dataset.shape  # which is that of a training image
    read: set[str] = set()
    plain = type(fitted.dataset).split

    def noted(dataset: Dataset, split: Any) -> Split:
        read.add(split)
        return plain(dataset, split)

    monkeypatch.setattr(type(fitted.dataset), "split", noted)
    values_of(metric, fitted)
    words = metric.compared(2) if isinstance(metric, AcrossSeeds) else metric.estimator(fitted)
    assert "train" not in read or "train" in words or metric.per_sampler


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Fails where the weights, the mode or a global random state is another after than before."""

    def state() -> list[Any]:
        weights = [tensor.clone() for tensor in model.state_dict().values()]
        modes = torch.tensor([part.training for part in model.modules()])
        _, numbers, place, *_ = np.random.get_state()  # noqa: NPY002
        drawn = torch.as_tensor([*numbers.astype(np.int64), place])
        return [*weights, modes, torch.get_rng_state(), drawn]

    held, plain = state(), random.getstate()
    grad = torch.is_grad_enabled()
    yield
    assert all(torch.equal(a, b) for a, b in zip(held, state(), strict=True))
    assert random.getstate() == plain
    assert torch.is_grad_enabled() == grad
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", OURS)
def test_a_metric_changes_nothing(name: str) -> None:
    metric = OURS[name](**FEW.get(name, {}))
    fitted = suited(metric)
    with unchanged(fitted.model):
        values_of(metric, fitted)
        metric.qualifier(fitted)
        assert isinstance(metric, AcrossSeeds) or metric.estimator(fitted)


class Told(Echo):
    given = "label"


class OfNaN(Echo):
    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return super().code(x, y) * math.nan


class Collapsed(Echo):
    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return super().code(x, y) * 0


def of_collapsed_vae() -> Fitted:
    model, dataset = normed_vae()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return Fitted(model, dataset, Pixels(dataset), samplers={"prior": Prior()})


def of_nan_vae() -> Fitted:
    fitted = of_collapsed_vae()
    with torch.no_grad():
        for parameter in fitted.model.parameters():
            parameter.fill_(math.nan)
    return fitted


def of(cls: type[Echo], dataset: Dataset) -> Fitted:
    return Fitted(cls(spec(dataset)), dataset, Pixels(dataset), samplers={"prior": Prior()})


def few_images(n: int) -> Held:
    """A few images of one class, whose first factor has one value."""
    labels = torch.zeros(n, dtype=torch.int64)
    return Held(noise_images(n, 1, 4, 4), labels, torch.stack([labels, torch.arange(n) % 3], 1))


SITUATIONS = {
    "neither labels nor factors": lambda: of(Echo, Held(noise_images(9, 1, 4, 4))),
    "a conditional model": lambda: of(Told, Everything()),
    "collapsed codes": lambda: of(Collapsed, Everything()),
    "codes of NaN": lambda: of(OfNaN, Everything()),
    "a collapsed VAE": of_collapsed_vae,
    "a VAE of NaN": of_nan_vae,
    "one image": lambda: of(Echo, few_images(1)),
    "three images of one class": lambda: of(Echo, few_images(3)),
    "identical images": lambda: of(
        Echo, Held(torch.zeros(30, 1, 4, 4, dtype=torch.uint8), torch.arange(30) % 3)
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", OURS)
def test_a_metric_has_a_value_or_says_why_not(name: str, situation: str) -> None:
    fitted = SITUATIONS[situation]()
    metric = OURS[name](**FEW.get(name, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = evaluate(fitted, [metric]).rows
    assert isinstance(metric, AcrossSeeds) or {row.metric.partition("[")[0] for row in rows} == {
        quantity.name for quantity in metric.quantities
    }
    for row in rows:
        assert math.isfinite(row.value) != bool(row.note)
        assert "\n" not in row.note
    if "NaN" in situation:
        assert all(math.isnan(row.value) for row in rows if row.metric not in OF_DATA)


@pytest.mark.parametrize("name", [n for n, c in OURS.items() if c.reads_codes])
def test_metrics_of_codes_are_not_applicable_to_conditional_models(name: str) -> None:
    assert "reads the label" in OURS[name]().lacks(of(Told, Everything()))


def test_metrics_that_read_labels_or_factors_of_codes() -> None:
    families = {"disentanglement", "clustering", "classification", "retrieval"}
    assert {cls.family for cls in OURS.values() if cls.reads_codes} >= families


def test_paths_within_a_label_stand_in_columns_of_their_own() -> None:
    told, free = of(Told, Everything()), of(Echo, Everything())
    smoothness, midpoints = OURS["smoothness"](), OURS["midpoint_fid"]()
    assert smoothness.qualifier(told) == "label"
    assert smoothness.qualifier(free) == ""
    assert midpoints.qualifier(told) == f"{midpoints.qualifier(free)}|label"


@pytest.mark.parametrize("name", [n for n, c in OURS.items() if issubclass(c, OnFeatures)])
def test_metrics_of_features_are_not_applicable_where_the_extractor_is_not(name: str) -> None:
    class Picky(Pixels):
        def why_not(self) -> str:
            return "no such images"

    dataset = Held(noise_images(9, 1, 4, 4))
    fitted = Fitted(Echo(spec(dataset)), dataset, Picky(dataset))
    assert OURS[name]().lacks(fitted) == "no such images"


def test_the_metrics_of_features() -> None:
    found = {name for name, cls in OURS.items() if issubclass(cls, OnFeatures)}
    assert found >= {"fid", "kid", "midpoint_fid", "path_length", "reconstruction_fid"}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("nll", {"samples": 0}),
        ("elbo", {"images": 0}),
        ("fid", {"samples": 1}),
        ("kid", {"subset_size": 1}),
        ("mig", {"bins": 1}),
        ("factor_vae", {"batch": 1}),
        ("smoothness", {"points": 2}),
        ("midpoint_fid", {"pairs": 1}),
        ("kmeans", {"n_init": 0}),
        ("knn", {"neighbours": 0}),
        ("linear_probe", {"train": 0}),
        ("precision_recall", {"neighbours": 0}),
        ("inception_score", {"splits": 0}),
        ("dci", {"train": 0}),
        ("udr", {"points": 1}),
        ("lines", {"points": 2}),
        ("mixture", {"n_init": 0}),
        ("mlp_probe", {"width": 0}),
        ("nearest_images", {"k": 0}),
        ("outlier_trap", {"levels": 1}),
        ("aggregate", {"points": 1}),
        ("denoising", {"images": 0}),
        ("rate", {"train": 0}),
    ],
)
def test_bad_parameters_are_refused(name: str, parameters: dict[str, int]) -> None:
    (key,) = parameters
    with pytest.raises(InputError, match=f"metric {name!r}: {key} must be"):
        OURS[name](**parameters)
