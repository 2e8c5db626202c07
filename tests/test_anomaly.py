"""Metrics of anomalies: known answers and invariants."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from aebench.benchmark.evaluate import evaluate
from aebench.benchmark.metrics import Fitted, NotApplicable
from aebench.benchmark.metrics.anomaly import (
    HeldOutClass,
    OutlierTrap,
    aupr,
    auroc,
    constant_images,
)
from aebench.datasets import Dataset, as_float
from aebench.models import ClosedForm, model_from
from standins import Echo, Everything, Held, Pixels, blobs, normed_vae, spec
from torch import Tensor


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(0)
    usual, odd = random.integers(0, 9, 40) / 3, random.integers(3, 12, 15) / 3  # many are equal
    pairs = [(b > a) + (b == a) / 2 for a, b in itertools.product(usual, odd)]
    assert auroc(usual, odd) == pytest.approx(np.mean(pairs))
    assert auroc(-usual, -odd) == pytest.approx(1 - auroc(usual, odd))
    assert auroc(odd, usual) == pytest.approx(1 - auroc(usual, odd))


def test_areas_of_constant_scores_are_chance() -> None:
    usual, odd = np.full(30, 2.5), np.full(10, 2.5)
    assert auroc(usual, odd) == 0.5
    assert aupr(usual, odd) == 0.25


def test_areas_of_perfect_scores() -> None:
    usual, odd = np.arange(30.0), np.arange(40.0, 50)
    assert auroc(usual, odd) == aupr(usual, odd) == 1
    assert auroc(-usual, -odd) == 0
    # Ranked last, the anomaly at place i of 10 has the precision i / (30 + i).
    assert aupr(-usual, -odd) == pytest.approx(np.mean([i / (30 + i) for i in range(1, 11)]))


class Knows(Echo):
    """Knows the mean images of some classes; an image is rebuilt as the nearest of them."""

    known: Tensor

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.known[torch.cdist(x.flatten(1), self.known).argmin(1)]


class KnowsButOne(Knows):
    """As :class:`Knows`, with a likelihood that falls with the squared error."""

    sign = 1

    def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
        error = (self.reconstruct(x) - x).square().flatten(1).sum(1)
        return -self.sign * error + 1e-3 * torch.randn(samples, len(x))


class Inverted(KnowsButOne):
    sign = -1


def knowing(cls: type[Knows], held_out: int | None, known: list[int], **kwargs: Any) -> Fitted:
    """A model that knows some classes of the blobs, of which one may be held out."""
    images, labels = blobs(200, 0)
    dataset = Held(images, labels, held_out=held_out)
    model = cls(spec(dataset))
    model.known = torch.stack([images[labels == c].float().mean(0) / 255 for c in known]).flatten(1)
    return Fitted(model, dataset, Pixels(dataset), **kwargs)


@pytest.mark.parametrize("held_out", range(4))
def test_a_model_of_the_other_classes_tells_the_one_held_out(held_out: int) -> None:
    known = [c for c in range(4) if c != held_out]
    fitted = knowing(KnowsButOne, held_out, known)
    assert HeldOutClass().lacks(fitted) == ""
    values = HeldOutClass().compute(fitted)
    assert list(values) == [quantity.name for quantity in HeldOutClass.quantities]
    assert list(values.values()) == [1, 1, 1, 1]
    assert HeldOutClass().estimator(fitted).startswith("50 test images of the class held out")


def test_a_model_of_the_class_held_out_alone_ranks_it_last() -> None:
    values = HeldOutClass().compute(knowing(KnowsButOne, 2, [2]))
    assert values["auroc_reconstruction"] == values["auroc_likelihood"] == 0
    assert values["aupr_reconstruction"] < 0.25


def test_a_likelihood_that_favours_the_unknown_is_seen_to() -> None:
    values = HeldOutClass().compute(knowing(Inverted, 1, [0, 2, 3]))
    assert values["auroc_reconstruction"] == 1
    assert values["auroc_likelihood"] == 0


def test_a_model_without_a_likelihood_keeps_its_reconstruction() -> None:
    values = HeldOutClass().compute(knowing(Knows, 1, [0, 2, 3]))
    assert values["auroc_reconstruction"] == values["aupr_reconstruction"] == 1
    for name in ("auroc_likelihood", "aupr_likelihood"):
        assert isinstance(values[name], NotApplicable)
        assert str(values[name]) == "the model has no log_weights"
    trap = OutlierTrap().compute(knowing(Knows, None, [0, 1]))
    assert isinstance(trap["constant_auroc_likelihood"], NotApplicable)
    assert isinstance(trap["constant_auroc_reconstruction"], float)


def test_what_it_needs() -> None:
    assert HeldOutClass().lacks(knowing(Knows, None, [0])) == "no class is held out of training"
    assert OutlierTrap().lacks(knowing(Knows, None, [0])) == ""

    class Told(Knows):
        given = "label"

    for metric in (HeldOutClass(), OutlierTrap()):
        assert metric.lacks(knowing(Told, 1, [0])) == "a label is needed to score an image"


def test_the_first_images_of_either_kind_are_scored() -> None:
    fitted = knowing(KnowsButOne, 1, [0, 2, 3])
    metric = HeldOutClass(images=20)
    assert metric.compute(fitted)["auroc_likelihood"] == 1
    assert metric.estimator(fitted).startswith("20 test images of the class held out")
    assert "20 test images, scored" in metric.estimator(fitted)


def test_constant_images_are_every_grey_from_black_to_white() -> None:
    images = constant_images(256, (3, 2, 4))
    assert images.shape == (256, 3, 2, 4)
    assert torch.equal(images.flatten(1).unique(dim=1)[:, 0], torch.arange(256).to(torch.uint8))
    assert constant_images(2, (1, 1, 1)).flatten().tolist() == [0, 255]
    assert constant_images(4, (1, 1, 1)).flatten().tolist() == [0, 85, 170, 255]


class Flat(Echo):
    """Sees nothing but an image's mean: constant images are all that it knows."""

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.flatten(1).mean(1, keepdim=True).expand(-1, x[0].numel())

    def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
        error = (self.reconstruct(x) - x).square().flatten(1).sum(1)
        return -error.expand(samples, -1)


def test_the_trap_tells_a_model_that_prefers_constant_images() -> None:
    dataset = Held(blobs(200, 0)[0])
    fitted = Fitted(Flat(spec(dataset)), dataset, Pixels(dataset))
    assert OutlierTrap().compute(fitted) == {
        "constant_auroc_reconstruction": 0,
        "constant_auroc_likelihood": 0,
    }
    assert OutlierTrap().compute(knowing(KnowsButOne, None, [0, 1, 2, 3])) == {
        "constant_auroc_reconstruction": 1,
        "constant_auroc_likelihood": 1,
    }


def test_the_likelihood_is_the_importance_sampled_one() -> None:
    """log w of ± ln 2 in turns: the log of their mean is ln 1.25, their mean is 0."""

    class Alternating(Echo):
        def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
            signs = torch.arange(samples)[:, None] % 2 * 2 - 1
            return signs * math.log(2) + x.flatten(1).mean(1)

    dataset = Held(blobs(60, 0)[0])
    fitted = Fitted(Alternating(spec(dataset)), dataset, Pixels(dataset))
    for samples in (2, 16):
        split = fitted.split("test")
        found = OutlierTrap(samples=samples).surprise(fitted, split, "usual")
        expected = -split.images().double().flatten(1).mean(1) / 255 - math.log(1.25)
        assert found == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize("cls", [HeldOutClass, OutlierTrap])
def test_a_likelihood_does_not_depend_on_the_batch_size(cls: type) -> None:
    model, dataset = normed_vae(dataset=Everything(held_out=1))
    found = [
        cls().compute(Fitted(model, dataset, Pixels(dataset), batch_size=size)) for size in (7, 500)
    ]
    assert found[0] == pytest.approx(found[1])
    assert 0 < min(found[0].values()) <= max(found[0].values()) < 1


def test_scores_that_are_not_finite_are_not_applicable() -> None:
    class HalfNaN(KnowsButOne):
        def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
            return super().log_weights(x, y, samples) * math.nan

    class AllNaN(HalfNaN):
        def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return super().code(x, y) * math.nan

    half = HeldOutClass().compute(knowing(HalfNaN, 1, [0, 2, 3]))
    assert half["auroc_reconstruction"] == 1
    assert str(half["auroc_likelihood"]) == "the likelihoods are not finite"
    rows = evaluate(knowing(AllNaN, 1, [0, 2, 3]), [HeldOutClass(), OutlierTrap()]).rows
    assert len(rows) == 6
    assert all(math.isnan(row.value) and "not finite" in row.note for row in rows)


def test_principal_components_tell_a_digit_held_out() -> None:
    """Against the residuals of a singular value decomposition, compared in pairs."""
    dataset = Dataset.make("digits", {"held_out": 0})
    model = model_from("pca", {"latent_dim": 12}, spec(dataset), None)
    assert isinstance(model, ClosedForm)
    x = {name: as_float(split.images()).double() for name, split in dataset.splits.items()}
    model.fit(x["train"].float(), 0)
    mean = x["train"].flatten(1).mean(0)
    axes = torch.linalg.svd(x["train"].flatten(1) - mean, full_matrices=False)[2][:12]
    usual, odd = (
        (y - (mean + (y - mean) @ axes.T @ axes).clamp(0, 1)).square().sum(1)
        for y in (x[name].flatten(1) for name in ("test", "anomalies"))
    )
    value = HeldOutClass().compute(Fitted(model, dataset, Pixels(dataset)))["auroc_reconstruction"]
    assert value == pytest.approx((odd > usual[:, None]).double().mean().item(), abs=1e-3)
    assert value > 0.7
