"""Planning: the cells of a grid, their keys, their order, and what of them is missing."""

import copy
import heapq
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aebench.benchmark import cell as cells
from aebench.benchmark import estimate
from aebench.benchmark.cell import cells_of, key_of, training_key_of
from aebench.benchmark.grid import Cell, folder_name, read_grid, specs
from aebench.benchmark.rows import Row
from aebench.benchmark.runner import planned, write_tables
from aebench.benchmark.speed import planning
from aebench.benchmark.store import Store
from aebench.benchmark.train import Trained
from aebench.plugins import InputError

SMALL = {"train": 100, "val": 30, "test": 30}
GRID: dict[str, Any] = {
    "datasets": {"digits": SMALL},
    "models": {"vae": {"latent_dim": [2, 4]}, "pca": {}},
    "metrics": ["mse"],
    "seeds": 3,
}


def expanded(**changes: Any) -> list[dict[str, Any]]:
    return specs(read_grid({**GRID, **changes})[1], "cpu")


def test_cells_share_their_parts_and_are_told_apart_by_their_seeds() -> None:
    found = expanded()
    assert [spec["seed"] for spec in found] == [0, 1, 2] * 3
    first, second = found[:2]
    assert all(first[name] is second[name] for name in first if name != "seed")
    assert first["dataset"] is found[-1]["dataset"]
    assert len({cell.key for cell in cells_of(found)}) == 9


def test_a_key_is_the_same_alone_among_others_and_for_any_order_of_keys() -> None:
    found = expanded()
    for cell in cells_of(found):
        alone = json.loads(json.dumps(cell.spec))
        assert key_of(alone) == cell.key
        turned = json.loads(json.dumps(cell.spec, sort_keys=True))
        assert list(turned) != list(cell.spec)
        assert key_of(turned) == cell.key


@pytest.mark.parametrize(
    "path",
    ["dataset.parameters.train", "model.hyperparameters.latent_dim", "training.epochs", "seed"],
)
def test_everything_counts_in_both_keys(path: str) -> None:
    spec = copy.deepcopy(expanded()[0])
    before = key_of(spec), training_key_of(spec)
    *way, last = path.split(".")
    inner = spec
    for name in way:
        inner = inner[name]
    inner[last] += 1
    assert key_of(spec) != before[0]
    assert training_key_of(spec) != before[1]


def test_what_scores_counts_in_the_key_of_the_cell_alone() -> None:
    first, other = expanded()[0], expanded(metrics=["psnr"])[0]
    assert key_of(first) != key_of(other)
    assert training_key_of(first) == training_key_of(other)


def test_equal_numbers_of_other_types_are_other_cells() -> None:
    """1 and 1.0 are equal in Python and differ in a file."""
    one, also = expanded(models={"vae": {}}, seeds=1), expanded(models={"vae": {}}, seeds=1)
    also[0]["model"]["hyperparameters"]["latent_dim"] *= 1.0
    keys = [cell.key for cell in cells_of([*one, *also])]
    assert keys[0] != keys[1]


def test_a_cell_crosses_to_another_process() -> None:
    (cell, *_) = cells_of(expanded())
    assert pickle.loads(pickle.dumps(cell)) == cell


def test_what_is_missing_is_what_has_no_folder(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    wanted = cells_of(expanded())
    assert store.missing(wanted) == wanted
    for cell in wanted[::2]:
        store.folder(cell).mkdir()
    assert store.missing(wanted) == wanted[1::2] == [c for c in wanted if not store.has(c)]


def test_only_the_models_of_missing_cells_are_built(tmp_path: Path, monkeypatch) -> None:
    settings = read_grid(GRID)[1]
    store = Store(tmp_path / "out", create=True)
    wanted = cells_of(specs(settings, "cpu"))
    for cell in wanted[:3] + wanted[6:]:
        store.folder(cell).mkdir()
    built = []
    monkeypatch.setattr(cells, "build", lambda spec: built.append(spec["model"]))
    plan = planned("grid", settings, store.path, (("cpu",),))
    assert plan.missing == wanted[3:6]
    assert built == [wanted[3].spec["model"]]


def test_a_large_grid_is_planned(tmp_path: Path) -> None:
    """The benchmark's own grid, small: it would not say if it measured something else."""
    planning.done_but_ten(1000, tmp_path)
    settings = read_grid(planning.grid(1000, tmp_path / "images.npz"))[1]
    plan = planned("grid", settings, tmp_path / "store", (("cpu",),))
    assert len(plan.cells) == 1000
    assert plan.missing == plan.cells[:10]


# What cells take


def finish(store: Store, cell: Cell, training: float, evaluation: float) -> None:
    values = {"train_seconds": training, "evaluate_seconds": evaluation}
    rows = [Row("mse", 0.1, family="reconstruction", better="lower", ranked=True)]
    rows += [Row(name, value, "s", family="cost") for name, value in values.items()]
    trained = Trained([], best_epoch=1, steps=1, seconds=training, peak_memory=1.0)
    store.write(cell, rows, {}, trained, {}, {}, {"training_key": cell.key})


def expected(spec: Mapping[str, Any], store: Store) -> float | None:
    return estimate.estimate(dict(spec), estimate.read(store))


def test_the_nearest_kin_tells_what_a_cell_takes(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    wanted = cells_of(expanded(training={"epochs": 10}))
    two, four, pca = wanted[0], wanted[3], wanted[6]
    assert expected(two.spec, store) is None
    finish(store, two, 20.0, 3.0)
    finish(store, wanted[1], 40.0, 5.0)
    finish(store, four, 100.0, 8.0)
    write_tables(store)
    assert expected(wanted[2].spec, store) == pytest.approx(30 + 4), "the mean over seeds"
    longer = expanded(training={"epochs": 30})
    assert expected(longer[0], store) == pytest.approx(90 + 4), "by the epochs"
    eight = expanded(training={"epochs": 10}, models={"vae": {"latent_dim": 8}})[0]
    assert expected(eight, store) == pytest.approx((20 + 40 + 100) / 3 + 16 / 3), "the model's"
    other = expanded(training={"epochs": 10}, models={"ae": {}})[0]
    assert expected(other, store) == expected(eight, store), "the backbone's"
    assert expected(pca.spec, store) is None, "it has no backbone"
    assert expected({**two.spec, "device": "cuda"}, store) is None
    elsewhere = expanded(datasets={"digits": {**SMALL, "train": 101}})[0]
    assert expected(elsewhere, store) is None


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": 1}', '{"a": ["x", 1]}', '{"a": [null, 1]}', "[" * 100_000]
)
def test_damaged_costs_cost_nothing_but_order(text: str, tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    wanted = cells_of(expanded())
    (tmp_path / "costs.json").write_text(text)
    assert estimate.read(store) == {}
    ordered = estimate.longest_first(wanted, store)
    assert sorted(cell.key for cell in ordered) == sorted(cell.key for cell in wanted)


def test_unknown_cells_go_first_by_their_work(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    known = cells_of(expanded(models={"vae": {}}, seeds=2))
    finish(store, known[0], 1000.0, 1.0)
    write_tables(store)
    more = {"digits": {**SMALL, "train": 200}}
    large = cells_of(expanded(models={"vae": {}}, datasets=more, seeds=1))
    small = cells_of(expanded(models={"pca": {}}, seeds=1))
    found = estimate.longest_first([*known, *small, *large], store)
    assert found == [*large, *small, *known]


def makespan(ordered: list[Cell], seconds: Mapping[str, float], workers: int) -> float:
    """When the last is done, if each worker takes the next cell when it is free."""
    free = [0.0] * workers
    for cell in ordered:
        heapq.heapreplace(free, free[0] + seconds[cell.key])
    return max(free)


def test_learnt_costs_bring_two_workers_near_the_bound(tmp_path: Path) -> None:
    """The longest stand last in the grid; one seed of each was run before."""
    widths = [2, 4, 6, 8, 10]
    wanted = cells_of(expanded(models={"vae": {"latent_dim": widths}}, seeds=2))
    took = {width: float(n) for width, n in zip(widths, (1, 1, 1, 2, 30))}
    seconds = {
        cell.key: took[cell.spec["model"]["hyperparameters"]["latent_dim"]] for cell in wanted
    }
    store = Store(tmp_path, create=True)
    for cell in wanted[::2]:
        finish(store, cell, seconds[cell.key], 0.0)
    write_tables(store)
    left = store.missing(wanted)
    bound = max(sum(seconds[cell.key] for cell in left) / 2, *(seconds[c.key] for c in left))
    assert makespan(left, seconds, 2) > 1.05 * bound
    assert makespan(estimate.longest_first(left, store), seconds, 2) <= 1.01 * bound


def test_a_folders_name_is_safe() -> None:
    spec = expanded()[0]
    hostile = {**spec, "seed": "../../0", "model": {"name": "a/b"}}
    assert "/" not in folder_name(hostile, "0" * 64)


def test_a_grid_that_cannot_be_built_is_refused_before_anything_is_trained(tmp_path) -> None:
    settings = read_grid({**GRID, "backbones": ["pythae_conv"]})[1]
    with pytest.raises(InputError, match="28×28"):
        planned("grid", settings, tmp_path / "out", (("cpu",),))
