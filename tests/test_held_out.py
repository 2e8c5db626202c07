"""A class held out of a dataset: gone from its splits, there among its anomalies."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aebench.benchmark.grid import label, read_grid, specs
from aebench.datasets import SPLITS, Dataset, Split
from aebench.plugins import InputError
from standins import Held


def same(one: Split, other: Split) -> bool:
    return torch.equal(one.images(), other.images())


def npz(folder: Path, **arrays: np.ndarray) -> Dataset:
    np.savez(folder / "a.npz", **arrays)
    return Dataset.make("npz", {"path": str(folder / "a.npz")})


@pytest.mark.parametrize("held_out", [0, 4, 9])
def test_a_class_held_out_is_gone_and_the_others_move_up(held_out: int) -> None:
    whole, part = Dataset.make("digits"), Dataset.make("digits", {"held_out": held_out})
    assert part.classes == 9
    for name in SPLITS:
        labels = whole.split(name).labels
        assert labels is not None
        kept = labels != held_out
        assert same(part.split(name), whole.split(name).take(kept))
        names = [c for c in range(10) if c != held_out]
        found = part.split(name).labels
        assert found is not None
        assert found.dtype == torch.int64
        assert [names[i] for i in found.tolist()] == labels[kept].tolist()
        assert set(found.tolist()) == set(range(9))
    test = whole.split("test")
    assert part.anomalies is not None
    assert same(part.anomalies, test.take(test.labels == held_out))
    assert part.anomalies.labels is None
    assert part.split("anomalies") is part.anomalies


def test_nothing_is_held_out_by_default() -> None:
    dataset = Dataset.make("digits")
    assert dataset.anomalies is None
    assert dataset.classes == 10
    assert list(dataset.splits) == list(SPLITS)


def test_limits_count_what_is_left() -> None:
    whole = Dataset.make("digits", {"held_out": 3})
    part = Dataset.make("digits", {"held_out": 3, "train": 40, "val": 9, "test": 11})
    for name, n in {"train": 40, "val": 9, "test": 11, "anomalies": 11}.items():
        assert len(part.splits[name]) == n  # type: ignore[index]
        assert same(part.splits[name], whole.splits[name].take(slice(n)))  # type: ignore[index]
    assert part.classes == 9


def test_the_hash_is_what_it_was_where_nothing_is_held_out() -> None:
    """Published results name these."""
    assert Dataset.make("digits").hash == "f3078c867e1909c3"
    assert Dataset.make("digits", {"train": 100}).hash == "7153cd05dd3c8256"
    assert Dataset.make("sprites", {"train": 500, "size": 16}).hash == "a0702cb29bbf3265"


def test_the_hash_covers_the_anomalies() -> None:
    images = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 1, 2, 2).clone()
    labels = torch.arange(40) % 4

    def hash_of(images: torch.Tensor, **limits: Any) -> str:
        return Held(images, labels, **limits).hash

    other = images.clone()
    other[labels == 2] += 100
    assert hash_of(images, held_out=2) == hash_of(images.clone(), held_out=2)
    assert hash_of(images, held_out=2) != hash_of(other, held_out=2)
    found = {hash_of(images), *(hash_of(images, held_out=c) for c in range(4))}
    assert len(found) == 5


def test_sprites_hold_out_a_shape() -> None:
    limits = {"train": 300, "val": 40, "test": 50, "size": 16}
    whole, part = Dataset.make("sprites", limits), Dataset.make("sprites", limits | {"held_out": 1})
    assert part.classes == 2
    for name in SPLITS:
        split = part.split(name)
        assert len(split) == limits[name]
        assert split.factors is not None
        assert split.pixels is not None  # few enough to be drawn once
        assert set(split.factors[:, 0].tolist()) == {0, 2}
        assert torch.equal(split.labels, (split.factors[:, 0] == 2).long())
    anomalies = part.anomalies
    assert anomalies is not None
    assert anomalies.factors is not None
    assert len(anomalies) == 50
    assert set(anomalies.factors[:, 0].tolist()) == {1}
    assert torch.equal(anomalies.images(), part.render(anomalies.factors))
    # Any combination can still be drawn, the shape held out included.
    assert part.factor_sizes == whole.factor_sizes == (3, 6, 40, 32, 32)
    first = whole.split("train").take(whole.split("train").labels != 1)
    assert first.factors is not None
    assert torch.equal(part.split("train").factors[: len(first)], first.factors)  # type: ignore


def test_a_grid_of_factors_still_renders(tmp_path: Path) -> None:
    factors = np.array(list(itertools.product(range(2), range(3), range(5))))
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4), np.uint8)
    whole = npz(tmp_path, images=images, factors=factors, labels=factors[:, 1])
    part = Dataset.make("npz", {"path": str(tmp_path / "a.npz"), "held_out": 2})
    assert part.factor_sizes == whole.factor_sizes == (2, 3, 5)
    assert part.factor_names == whole.factor_names
    assert part.renders
    assert torch.equal(part.render(torch.tensor(factors)), torch.tensor(images)[:, None])
    assert sum(len(part.split(name)) for name in SPLITS) == 20


def test_a_class_that_there_is_not_is_refused(tmp_path: Path) -> None:
    def refusal(dataset: Dataset) -> str:
        with pytest.raises(InputError) as caught:
            _ = dataset.splits
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for bad in (10, -1):
        said = refusal(Dataset.make("digits", {"held_out": bad}))
        assert said == f"dataset 'digits': held_out must be a class, 0 to 9, not {bad}"
    images, zero = torch.zeros(9, 1, 2, 2, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64)
    assert "the dataset has no labels" in refusal(Held(images, held_out=0))
    assert "held_out=0 leaves no images in train" in refusal(Held(images, zero, held_out=0))
    arrays = {f"{name}_images": np.zeros((4, 4, 4), np.uint8) for name in SPLITS}
    arrays |= {f"{name}_labels": np.array([0, 1, 0, 1]) for name in SPLITS}
    arrays["train_labels"] = np.array([0, 1, 2, 2])
    npz(tmp_path, **arrays)
    said = refusal(Dataset.make("npz", {"path": str(tmp_path / "a.npz"), "held_out": 2}))
    assert "held_out=2: test has no images of this class" in said
    with pytest.raises(InputError, match="held_out: 'two' is not of type"):
        Dataset.make("digits", {"held_out": "two"})


@pytest.mark.parametrize("name", list(Dataset.choices()))
def test_every_dataset_takes_a_class_to_hold_out(name: str) -> None:
    given = {"path": "somewhere"} if "path" in Dataset.choose(name).parameters_of() else {}
    assert Dataset.make(name, {**given, "held_out": 2}).held_out == 2


def test_a_list_in_a_grid_holds_out_one_class_after_another() -> None:
    grid = {"datasets": {"digits": {"held_out": [0, 1, 2]}}, "models": ["ae"], "seeds": 1}
    _, settings = read_grid(grid | {"metrics": ["mse"]})
    found = [spec["dataset"] for spec in specs(settings, "cpu")]
    assert [label(dataset) for dataset in found] == [f"digits(held_out={c})" for c in range(3)]
    classes = [Dataset.make(**dataset) for dataset in found]
    assert len({dataset.hash for dataset in classes}) == 3
