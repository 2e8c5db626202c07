"""Merging stores: nothing finished is lost, overwritten or trusted."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from aebench.benchmark import merge as merging
from aebench.benchmark.grid import Cell
from aebench.benchmark.merge import merge
from aebench.benchmark.metrics import AcrossSeeds, Metric, Quantity, Values
from aebench.benchmark.metrics.base import Kept
from aebench.benchmark.results import read
from aebench.benchmark.runner import write_tables
from aebench.benchmark.speed import synthetic
from aebench.benchmark.store import Store
from aebench.benchmark.train import Trained
from aebench.plugins import InputError


def make(path: Path, models: int = 2, seeds: int = 2, seed: int = 0) -> Store:
    return synthetic.store(path, models, 1, seeds, 8, seed=seed, epochs=2, titles=("samples",))


@pytest.fixture
def a(tmp_path: Path) -> Store:
    """Two models with two seeds each."""
    return make(tmp_path / "a")


@pytest.fixture
def b(tmp_path: Path) -> Store:
    """Two models with three seeds each: what `a` has is among it."""
    return make(tmp_path / "b", seeds=3)


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its content and when it was changed, what is made anew aside."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent != folder
    }


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    held = json.loads(path.read_text())
    made = change(held)
    path.write_text(json.dumps(held if made is None else made))


def first(store: Store, name: str = "data00-model000-seed0") -> Path:
    return store.find(name)[1]


def test_stores_become_one(a, b, tmp_path) -> None:
    sources = tree(a.path), tree(b.path)
    out = tmp_path / "new" / "out"
    merged = merge([a.path, b.path], out)
    assert (merged.copied, merged.present, merged.failed) == (6, 4, 0)
    assert merged.whole
    assert merged.summary() == f"6 cells copied to {out}, 4 there already"
    assert (tree(a.path), tree(b.path)) == sources, "sources are read only"
    pd.testing.assert_frame_equal(Store(out).rows(), b.rows())
    both = sources[0] | sources[1]
    kept = {k: v for k, v in tree(out).items() if k.startswith("cells")}
    assert kept.keys() == {name for name in both if name.startswith("cells")}
    for name, (content, changed) in kept.items():
        assert (content, changed) in (sources[0].get(name), sources[1].get(name))
    assert {path.name for path in (out / "trained").iterdir()} == {
        path.name for path in (b.path / "trained").iterdir()
    }
    write_tables(b)
    for name in ("rows.csv", "specs.json", "details.json", "leaderboard.csv", "leaderboard.md"):
        assert (out / name).read_bytes() == (b.path / name).read_bytes()
    assert not list((out / "under_way").iterdir())


def test_a_merge_repeated_changes_nothing(a, b, tmp_path) -> None:
    out = tmp_path / "out"
    merge([a.path, b.path], out)
    before = tree(out)
    again = merge([b.path, a.path, out], out)
    assert (again.copied, again.present, again.whole) == (0, 10, True)
    assert tree(out) == before


def test_the_target_may_be_a_source(a, b) -> None:
    merged = merge([a.path, b.path], a.path)
    assert (merged.copied, merged.present) == (2, 4)
    pd.testing.assert_frame_equal(a.rows(), b.rows())


def test_an_interrupted_merge_goes_on(a, b, tmp_path, monkeypatch) -> None:
    """Killed while it copies the second cell, and between a cell and what points to it."""
    out, calls, copyfile = tmp_path / "out", [], shutil.copyfile

    def killed(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 7:
            raise KeyboardInterrupt
        copyfile(source, target)

    monkeypatch.setattr(merging.shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        merge([b.path], out)
    monkeypatch.undo()
    store = Store(out)
    assert [path.name for path in store.cells.iterdir()] == [first(b).name]
    (left,) = store.under_way.iterdir()
    left.rename(left.with_suffix(".999999999"))  # of a process that is gone
    for pointer in (out / "trained").iterdir():
        pointer.unlink()
    (cell, _), *_ = store.finished()
    store.fail(cell, "an earlier failure")
    merged = merge([b.path], out)
    assert (merged.copied, merged.present, merged.whole) == (5, 1, True)
    fresh = tmp_path / "fresh"
    merge([b.path], fresh)
    assert tree(out).keys() == tree(fresh).keys()
    pd.testing.assert_frame_equal(store.rows(), b.rows())


def test_a_cell_with_other_numbers_is_a_conflict(a, b, tmp_path) -> None:
    name = first(b).name

    def other(rows: list[dict[str, Any]]) -> None:
        rows[0]["value"] += 1e-15
        next(row for row in rows[1:] if row["value"] is not None)["value"] = None
        rows.append({**rows[0], "metric": "extra"})

    edit(first(b) / "metrics.json", other)
    mine, theirs = (json.loads((first(s) / "metrics.json").read_text()) for s in (a, b))
    out = tmp_path / "out"
    for expected in (6, 0):  # at once, and again
        merged = merge([a.path, b.path], out)
        assert merged.copied == expected
        assert not merged.whole
        (conflict,) = merged.conflicts
        assert (conflict.cell, conflict.metric, conflict.differing) == (name, "mse", 3)
        assert conflict.values == (mine[0]["value"], theirs[0]["value"])
        assert conflict.other == b.path
        assert conflict.kept == (a.path if expected else out)
        says = merged.summary().splitlines()[-1]
        assert says == (
            f"conflict: {name}: mse is {mine[0]['value']!r} in {conflict.kept}, which stays, and "
            f"{theirs[0]['value']!r} in {b.path}, as 2 more differ"
        )
        assert json.loads((out / "cells" / name / "metrics.json").read_text()) == mine
    assert len(list((out / "cells").iterdir())) == 6, "the others are merged all the same"
    reversed_ = merge([b.path, a.path], tmp_path / "other")
    assert reversed_.conflicts[0].values == conflict.values[::-1]


def test_every_conflict_is_named(a, b, tmp_path) -> None:
    for _, folder in list(a.finished()):
        edit(folder / "metrics.json", lambda rows: [{**row, "value": 1.0} for row in rows])
    merged = merge([a.path, b.path], tmp_path / "out")
    assert [c.cell for c in merged.conflicts] == [folder.name for _, folder in a.finished()]
    assert merged.summary().count("conflict: ") == 4


def test_a_number_that_one_copy_lacks_is_a_conflict(a, b, tmp_path) -> None:
    edit(first(b) / "metrics.json", lambda rows: rows[1:])
    (conflict,) = merge([a.path, b.path], tmp_path / "out").conflicts
    assert conflict.metric == "mse"
    assert conflict.values[1] is None
    assert "missing in" in str(conflict)


def test_costs_and_missing_values_are_no_conflict(a, b, tmp_path) -> None:
    def cost(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["family"] == "cost":
                row["value"] += 1.0

    def lacking(rows: list[dict[str, Any]]) -> None:
        rows[0]["value"] = None

    edit(first(b) / "metrics.json", cost)
    for store in (a, b):
        edit(first(store) / "metrics.json", lacking)
    assert merge([a.path, b.path], tmp_path / "out").whole


def test_a_sampler_is_part_of_what_differs(a, b, tmp_path) -> None:
    def other(rows: list[dict[str, Any]]) -> None:
        (row,) = [r for r in rows if r["sampler"] == "gmm" and r["metric"].startswith("fid")]
        row["value"] = -1.0

    edit(first(b) / "metrics.json", other)
    (conflict,) = merge([a.path, b.path], tmp_path / "out").conflicts
    assert conflict.metric == "fid[classifier] of gmm"
    assert conflict.differing == 1


def test_a_failure_gives_way_to_a_finished_cell(a, b, tmp_path) -> None:
    cell, folder = a.find("data00-model000-seed0")
    shutil.rmtree(folder)
    a.fail(cell, "out of memory")
    lost = Cell({**cell.spec, "seed": 9}, "9" * 64)
    a.fail(lost, "diverged")
    out = tmp_path / "out"
    alone = merge([a.path], out)
    assert (alone.copied, alone.failed) == (3, 2)
    assert "2 failed cells copied" in alone.summary()
    assert set(Store(out).rows().query("family == 'status'").note) == {"out of memory", "diverged"}
    merged = merge([a.path, b.path], out)
    assert (merged.copied, merged.failed) == (3, 0)
    assert [path.name for path in (out / "failed").iterdir()] == [a.failure(lost).name]
    assert merge([a.path, b.path], tmp_path / "at once").failed == 1


def test_of_several_versions_the_last_finished_counts(a, b, tmp_path) -> None:
    """The same specification under other code has another key; both stay."""
    folder = first(b)
    stale = folder.with_name(folder.name[:-12] + "0" * 12)
    folder.rename(stale)
    edit(stale / "cell.json", lambda held: {**held, "key": "0" * 64})
    edit(stale / "metrics.json", lambda rows: [{**row, "value": 5.0} for row in rows])
    for when, counts in ((1e9, first(a).name), (2e9, stale.name)):
        os.utime(stale / "cell.json", (when, when))
        out = tmp_path / f"out{when}"
        merged = merge([a.path, b.path], out)
        assert merged.whole
        assert merged.several == 1
        assert "1 training with several cells" in merged.summary()
        cells = set(Store(out).rows().cell)
        assert {first(a).name, stale.name} & cells == {counts}
        assert len(list((out / "cells").iterdir())) == 7


def test_comparisons_across_seeds_are_made_anew(a, tmp_path) -> None:
    (a.path / "across" / "old.json").write_text("[]")
    merge([a.path], tmp_path / "out")
    assert not list((tmp_path / "out" / "across").iterdir())


def test_comparisons_do_not_depend_on_the_machine(tmp_path) -> None:
    """They take the threads that the cells had, however many this process has."""
    had = []

    class Threads(AcrossSeeds):
        name = "threads_of_a_comparison"
        family = "likeness"
        quantities = (Quantity("threads", ""),)

        def compare(self, kept: list[Kept]) -> list[Values]:
            had.append(torch.get_num_threads())
            return [{"threads": 0.0} for _ in kept]

    store, before = Store(tmp_path / "a", create=True), torch.get_num_threads()
    for seed in (0, 1):
        spec = synthetic.cell_of(0, 0, seed, 1).spec
        spec["evaluation"]["metrics"].append({"name": Threads.name, "parameters": {}})
        spec["training"]["threads"] = 3
        kept = {Threads.name: {"a": np.zeros(1)}}
        provenance = {"training_key": f"{seed:064}"}
        store.write(Cell(spec, f"{seed:064}"), [], kept, Trained(), {}, {}, provenance)
    try:
        rows = store.rows()
        merged = merge([store.path], tmp_path / "out")
    finally:
        Metric._choices.pop(Threads.name)
    assert had == [3, 3]
    assert torch.get_num_threads() == before
    assert list(rows.metric) == ["threads", "threads"]
    assert merged.copied == 2
    pd.testing.assert_frame_equal(Store(tmp_path / "out").rows(), rows)


@pytest.mark.parametrize(
    ("sources", "out", "says"),
    [
        ([], "out", "nothing to merge"),
        (["a", "none"], "out", "none is not a folder of results"),
        (["a", "b/cells"], "out", "b/cells is not a folder of results"),
        (["a", "b/../a"], "out", r"b/\.\./a is named twice"),
        (["a", "link"], "out", "link is named twice"),
        (["a", "hollow"], "out", "hollow cannot be merged: it has no folder 'cells'"),
        (["a", "b"], "a/cells/new", "a/cells/new lies within .*a"),
        (["a", "b"], "link/new", "link/new lies within .*a"),
        (["b/cells/inner"], "b", "inner lies within .*b"),
        (["a"], "file", "file cannot be used"),
    ],
)
def test_what_cannot_be_merged_is_refused_before_anything_is_written(
    a, b, tmp_path, sources, out, says
) -> None:
    (tmp_path / "link").symlink_to(a.path)
    (tmp_path / "file").write_text("")
    (tmp_path / "hollow").mkdir()
    shutil.copy(a.path / "store.json", tmp_path / "hollow")
    if "b/cells/inner" in sources:
        make(b.cells / "inner")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=says) as raised:
        merge([tmp_path / source for source in sources], tmp_path / out)
    assert len(str(raised.value).splitlines()) == 1
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_damaged_target_is_named(a, b) -> None:
    (first(a) / "metrics.json").write_text("[")
    with pytest.raises(InputError, match=r"model000-seed0-\w+ cannot be read: metrics\.json"):
        merge([b.path], a.path)


SECRET = "a secret"


def arrays(folder: Path, metric: str, held: np.ndarray | None) -> None:
    (folder / "kept").mkdir()
    path = folder / "kept" / f"{metric}.npz"
    path.write_text("none") if held is None else np.savez(path, a=held)


def hostile(store: Store, how: str, secret: Path) -> None:
    """Make one cell of a store into what a stranger could have put there."""
    folder = first(store)
    about, metrics, history = (folder / f"{n}.json" for n in ("cell", "metrics", "history"))

    def set_in(*path: str, to: Any) -> None:
        def change(held: dict[str, Any]) -> None:
            for step in path[:-1]:
                held = held[step]
            held[path[-1]] = to

        edit(about, change)

    def linked(path: Path, to: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(to)

    acts: dict[str, Callable[[], object]] = {
        "a linked file": lambda: linked(metrics, secret),
        "a linked cell": lambda: (
            shutil.move(folder, secret.parent / "moved"),
            folder.symlink_to(secret.parent / "moved"),
        ),
        "a pipe": lambda: (metrics.unlink(), os.mkfifo(metrics)),
        "no cell": lambda: (shutil.rmtree(folder), folder.write_text("")),
        "an empty cell": lambda: (shutil.rmtree(folder), folder.mkdir()),
        "another name": lambda: folder.rename(folder.with_name("x; rm -rf ~ \x1b[31m\n..")),
        "a key that climbs": lambda: set_in("key", to="../../../x" + "0" * 54),
        "a key that is no hash": lambda: (
            set_in("key", to="\x1b[31m" + "0" * 59),
            folder.rename(folder.with_name(folder.name[:-12] + "\x1b[31m" + "0" * 7)),
        ),
        "no key": lambda: set_in("key", to=None),
        "another seed": lambda: set_in("spec", "seed", to=5),
        "a seed that is text": lambda: set_in("spec", "seed", to="0"),
        "no specification": lambda: set_in("spec", to={}),
        "a model without a name": lambda: set_in("spec", "model", to={"hyperparameters": {}}),
        "a training key that climbs": lambda: set_in("provenance", "training_key", to="../x"),
        "no training": lambda: set_in("trained", to=3),
        "a list": lambda: about.write_text("[]"),
        "no JSON": lambda: about.write_text("{"),
        "too deep": lambda: about.write_text("[" * 100_000),
        "rows that are none": lambda: metrics.write_text('{"a": 1}'),
        "rows of numbers": lambda: metrics.write_text("[1]"),
        "a value that is text": lambda: edit(metrics, lambda rows: rows[0].update(value="1")),
        "a value too large": lambda: edit(metrics, lambda rows: rows[0].update(value=10**400)),
        "a metric that is none": lambda: edit(metrics, lambda rows: rows[0].update(metric=3)),
        "an unknown field": lambda: edit(metrics, lambda rows: rows[0].update(more=1)),
        "half a character": lambda: edit(metrics, lambda rows: rows[0].update(note="\ud800")),
        "arrays of no metric": lambda: arrays(folder, "other", np.zeros(2)),
        "arrays that are none": lambda: arrays(folder, "mse", None),
        "arrays of objects": lambda: arrays(folder, "mse", np.array([{}], dtype=object)),
        "history that is text": lambda: edit(history, lambda held: held[0].update(loss="x")),
        "history that is none": lambda: history.write_text("3"),
    }
    acts[how]()


HOW = [
    "a linked file",
    "a linked cell",
    "a pipe",
    "no cell",
    "an empty cell",
    "another name",
    "a key that climbs",
    "a key that is no hash",
    "no key",
    "another seed",
    "a seed that is text",
    "no specification",
    "a model without a name",
    "a training key that climbs",
    "no training",
    "a list",
    "no JSON",
    "too deep",
    "rows that are none",
    "rows of numbers",
    "a value that is text",
    "a value too large",
    "a metric that is none",
    "an unknown field",
    "half a character",
    "arrays of no metric",
    "arrays that are none",
    "arrays of objects",
    "history that is text",
    "history that is none",
]


@pytest.mark.parametrize("how", HOW)
def test_a_cell_that_is_none_is_left_out_and_named(a, tmp_path, how) -> None:
    secret = tmp_path / "elsewhere" / "secret.json"
    secret.parent.mkdir()
    secret.write_text(json.dumps([SECRET]))
    hostile(a, how, secret)
    out = tmp_path / "out"
    merged = merge([a.path], out)
    assert merged.copied == 3
    assert not merged.whole
    ((path, why),) = merged.left_out
    assert path.parent == a.cells
    assert why
    said = merged.summary().splitlines()
    assert len(said) == 2
    assert said[1].startswith(f"left out: {a.cells}")
    assert all(line.isprintable() for line in said)
    assert len(read(out).specs) == 3
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert SECRET.encode() not in b"".join(content for content, _ in tree(out).values())
    assert {path.name for path in tmp_path.iterdir()} == {"a", "out", "elsewhere"}


def test_files_that_a_cell_has_not_are_not_copied(a, tmp_path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text(SECRET)
    folder = first(a)
    (folder / "run.sh").write_text("echo ran")
    (folder / "more").mkdir()
    (folder / "more" / "a.png").write_text("")
    (folder / "pictures" / "a.sh").write_text("")
    (folder / "pictures" / "linked.png").symlink_to(secret)
    (folder / "kept").symlink_to(tmp_path)
    (tmp_path / "secret.npz").write_text(SECRET)
    (folder / "checkpoint.pt").unlink()
    (folder / "checkpoint.pt").symlink_to(secret)
    assert merge([a.path], tmp_path / "out").whole
    copied = tmp_path / "out" / "cells" / folder.name
    files = {str(path.relative_to(copied)) for path in copied.rglob("*")}
    assert files == {
        "cell.json",
        "metrics.json",
        "history.json",
        "pictures",
        "pictures/samples.png",
    }


def test_a_failure_that_is_none_is_left_out(a, tmp_path) -> None:
    cell, _ = a.find("data00-model000-seed0")
    a.fail(Cell(cell.spec, "1" * 64), "fine")
    (a.failed / "x.json").write_text("{}")
    (a.failed / "y.json").symlink_to(a.failure(Cell(cell.spec, "1" * 64)))
    a.fail(Cell({**cell.spec, "seed": 4}, "2" * 64), "none")
    edit(
        a.failure(Cell({**cell.spec, "seed": 4}, "2" * 64)), lambda held: held.pop("error") and None
    )
    linked = a.failure(Cell({**cell.spec, "seed": 5}, "3" * 64))
    a.fail(Cell({**cell.spec, "seed": 5}, "3" * 64), SECRET)
    linked.rename(tmp_path / "secret.json")
    linked.symlink_to(tmp_path / "secret.json")
    merged = merge([a.path], tmp_path / "out")
    assert len(merged.left_out) == 4
    assert merged.failed == 1


def test_a_pointer_to_a_training_stays(a, b, tmp_path) -> None:
    """A stranger's cell does not take the place of the weights that are there."""
    key = json.loads((first(a) / "cell.json").read_text())["provenance"]["training_key"]
    stranger = b.find("data00-model001-seed2")[1]

    def claim(held: dict[str, Any]) -> None:
        held["provenance"]["training_key"] = key

    edit(stranger / "cell.json", claim)
    merge([b.path], a.path)
    assert (a.path / "trained" / key).read_text() == first(a).name


def test_a_conflict_points_to_no_training(a, b) -> None:
    edit(first(b) / "metrics.json", lambda rows: rows[1:])
    edit(
        first(b) / "cell.json",
        lambda held: {**held, "provenance": {"training_key": "f" * 64}},
    )
    assert merge([b.path], a.path).conflicts
    assert not (a.path / "trained" / ("f" * 64)).exists()


def test_the_values_of_a_conflict_are_exact() -> None:
    assert merging.number(0.1 + 0.2) == "0.30000000000000004"
    assert merging.number(math.nan) == "n/a"
