"""What a store and a published folder have to show: the same, to the last bit."""

import json
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aebench.benchmark import run
from aebench.benchmark.grid import Cell
from aebench.benchmark.leaderboard import leaderboard
from aebench.benchmark.objective import described, objective
from aebench.benchmark.results import PUBLISHED, details_json, read
from aebench.benchmark.rows import COLUMNS, DETAILS, Row, rows_csv
from aebench.benchmark.runner import write_tables
from aebench.benchmark.speed import synthetic
from aebench.benchmark.store import Store, frame, hyperparameters
from aebench.models import VAE, Autoencoder
from aebench.plugins import InputError

HOSTILE = [
    "two\nlines\r\nand, a comma",
    'say "no"',
    "<script>alert(1)</script>",
    "a/../../b",
    "'; n/a",
    " leading and trailing ",
    "😀 é \u2028 \x1b[31m",
    "a" * 300,
    "",
]


def cell(name: str, seed: int = 0) -> Cell:
    """A cell whose model and dataset have this name."""
    spec = synthetic.cell_of(0, 0, seed, 1).spec
    model = {"name": name, "hyperparameters": {"note": name}}
    return Cell(
        {**spec, "model": model, "dataset": {"name": name, "parameters": {"of": name}}},
        f"{HOSTILE.index(name) if name in HOSTILE else 0:x}{seed:063x}",
    )


def publish(rows: pd.DataFrame, specs: dict[str, object], folder: Path) -> Path:
    """A folder with what is published of these rows."""
    folder.mkdir()
    contents = (rows_csv(rows), json.dumps(specs), details_json(rows))
    for name, text in zip(PUBLISHED, contents):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def published(source: Path, folder: Path) -> Path:
    """A folder with the published files of a store, and nothing else."""
    folder.mkdir()
    for name in PUBLISHED:
        shutil.copy(source / name, folder)
    return folder


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid `smoke`, with a cell that failed."""
    out = tmp_path_factory.mktemp("runs") / "smoke"
    run("smoke", out=out, workers=1, device="cpu")
    store = Store(out)
    finished, _ = store.find("digits-vae-seed0")
    lost = Cell({**finished.spec, "seed": 7}, "7" * 64)
    store.fail(lost, 'RuntimeError: "out", of\nmemory')
    write_tables(store)
    return out


def test_a_published_folder_gives_the_rows_of_its_store(smoke, tmp_path) -> None:
    there, here = Store(smoke).rows(), read(published(smoke, tmp_path / "smoke"))
    assert there.value.isna().sum() > 5
    assert (there.note == 'RuntimeError: "out", of memory').sum() == 1
    pd.testing.assert_frame_equal(here.rows, there, check_exact=True)
    assert [*here.rows] == [*COLUMNS, *DETAILS]
    assert here.name == "smoke"
    assert here.store is None
    assert not here.cells
    assert here.specs == read(smoke).specs == json.loads((smoke / "specs.json").read_text())
    finished = there[there.family != "status"].cell
    assert set(here.specs) == set(finished)


def test_the_tables_of_a_published_folder_are_the_same_to_the_last_byte(smoke, tmp_path) -> None:
    board = leaderboard(read(published(smoke, tmp_path / "smoke")).rows)
    assert board.draw("csv") == (smoke / "leaderboard.csv").read_text()
    assert board.headline().draw("md") == (smoke / "leaderboard.md").read_text()
    assert board.draw("md") == leaderboard(Store(smoke).rows()).draw("md")


def test_a_store_gives_what_its_cells_have(smoke, tmp_path) -> None:
    results = read(smoke)
    assert results.store is not None
    pd.testing.assert_frame_equal(results.rows, Store(smoke).rows())
    assert set(results.cells) == set(results.specs)
    (name,) = [name for name in results.cells if name.startswith("digits-vae-seed0")]
    history = results.history(name)
    assert [epoch["epoch"] for epoch in history] == list(range(1, len(history) + 1))
    assert "train/kl" in history[0]
    assert results.about(name)["spec"] == results.specs[name]
    pictures = results.pictures(name)
    assert {"reconstructions", "interpolations", "traversals"} <= set(pictures)
    assert all(path.is_file() for path in pictures.values())
    elsewhere = read(published(smoke, tmp_path / "smoke"))
    for other in (elsewhere, results):
        missing = name if other is elsewhere else "digits-vae-seed7-777777777777"
        assert (other.history(missing), other.about(missing), other.pictures(missing)) == (
            [],
            {},
            {},
        )


def test_names_and_values_survive_the_files(tmp_path) -> None:
    random = np.random.default_rng(0)
    values = [
        0.1 + 0.2,
        -0.0,
        5e-324,
        1.7e308,
        math.nan,
        math.inf,
        1 / 3,
        1e16,
        *random.normal(size=4),
    ]
    held = {
        name: [
            Row(
                f"m{i}{name}",
                float(value),
                name,
                name,
                name,
                i % 2 == 0,
                name,
                i % 3 == 0,
                name,
                name,
            )
            for i, value in enumerate(values)
        ]
        for name in HOSTILE
    }
    held["status"] = [Row("failed", math.nan, family="status", note=HOSTILE[0])]
    rows = frame((cell(name), map(vars, some)) for name, some in held.items())
    again = read(publish(rows, {name: {} for name in rows.cell}, tmp_path / "out"))
    pd.testing.assert_frame_equal(again.rows, rows, check_exact=True)
    assert np.array_equal(np.signbit(again.rows.value), np.signbit(rows.value))
    assert set(rows.model) == set(held)


def test_no_rows_survive_the_files(tmp_path) -> None:
    rows = Store(tmp_path / "empty", create=True).rows()
    pd.testing.assert_frame_equal(read(publish(rows, {}, tmp_path / "out")).rows, rows)


def test_details_are_small_and_change_little() -> None:
    few, more = synthetic.rows(5, 2, 5, 40), synthetic.rows(6, 2, 5, 40)
    text = details_json(more)
    assert len(text) < len(rows_csv(more)) / 5
    assert details_json(more.copy()) == text
    (error,) = set(more[more.family == "status"].note)
    assert error not in text, "rows.csv has it"
    before, after = json.loads(details_json(few)), json.loads(text)
    for part in ("rows", "sequences", "cells"):
        assert before[part].items() <= after[part].items(), "what was said of a cell is said again"


def damage(folder: Path, file: str, how: str) -> None:
    path = folder / file
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    held = json.loads(text) if file.endswith("json") else {}
    first = next(iter(held.get("cells", held)), "")
    made = {
        "missing": "",
        "empty": "",
        "list": "[]",
        "truncated": text[: len(text) // 2],
        "a line short": "".join(lines[:-1]),
        "a line twice": "".join([*lines, lines[-1]]),
        "a field more": text.rstrip("\n") + ",more\n",
        "a field short": text.rstrip("\n").rpartition(",")[0] + "\n",
        "no header": "".join(lines[1:]),
        "other metric": text.replace(",mse,", ",mae,", 1),
        "no number": text.replace("0.0", "O.O", 1),
        "no seed": text.replace(",0,,", ",zero,,", 1),
        "no own": text.replace(",False,", ",false,", 1),
        "a cell short": json.dumps({k: v for k, v in held.items() if k != first}),
        "an entry short": json.dumps({**held, "rows": dict([*held.get("rows", {}).items()][1:])}),
        "wrong type": text.replace('"ranked": true', '"ranked": "yes"'),
        "wrong name": text.replace(first, "x") if first else "",
        "no part": json.dumps({**held, "cells": 3}),
    }[how]
    assert made != text, "the damage is none"
    path.write_text(made)
    if how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("rows.csv", "empty"),
        ("rows.csv", "truncated"),
        ("rows.csv", "a line short"),
        ("rows.csv", "a line twice"),
        ("rows.csv", "a field more"),
        ("rows.csv", "a field short"),
        ("rows.csv", "no header"),
        ("rows.csv", "other metric"),
        ("rows.csv", "no number"),
        ("rows.csv", "no seed"),
        ("rows.csv", "no own"),
        ("specs.json", "missing"),
        ("specs.json", "empty"),
        ("specs.json", "list"),
        ("specs.json", "truncated"),
        ("specs.json", "a cell short"),
        ("details.json", "missing"),
        ("details.json", "empty"),
        ("details.json", "list"),
        ("details.json", "truncated"),
        ("details.json", "an entry short"),
        ("details.json", "wrong type"),
        ("details.json", "wrong name"),
        ("details.json", "no part"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(smoke, tmp_path, file, how) -> None:
    folder = published(smoke, tmp_path / "out")
    read(folder)
    damage(folder, file, how)
    with pytest.raises(InputError) as raised:
        read(folder)
    assert ("lacks " if how == "missing" else "") + file in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_what_has_no_results_is_refused(tmp_path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"is not a folder of results.*store\.json.*rows\.csv"):
            read(folder)


def test_rows_are_those_of_the_records_sorted() -> None:
    """Against the plain way: a dict a row, sorted by what a cell is."""
    held = [
        (cell(name, seed), some)
        for name in HOSTILE
        for seed in (10, 2)
        for some in [
            [
                {"metric": "mse", "value": 0.5, "ranked": True, "note": name},
                {"metric": "nll", "value": None, "unit": "nats", "own": True},
            ]
        ]
    ]
    blank = vars(Row("", 0.0))
    records = [
        {
            **blank,
            **row,
            "value": math.nan if row["value"] is None else row["value"],
            "dataset": of.dataset,
            "model": of.model,
            "hyperparameters": hyperparameters(of.spec),
            "backbone": of.backbone,
            "seed": of.seed,
            "cell": frame([(of, [row])]).cell[0],
        }
        for of, rows in held
        for row in rows
    ]
    keys = ["dataset", "model", "hyperparameters", "backbone", "seed", "cell"]
    plain = pd.DataFrame(records, columns=[*COLUMNS, *DETAILS])
    plain = plain.sort_values(keys, kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(frame(held), plain)
    assert plain.own.dtype == bool
    assert plain.seed.dtype == "int64"


def test_of_several_cells_of_a_training_only_what_counts_is_read(tmp_path) -> None:
    store = synthetic.store(tmp_path / "out", 1, 1, 2, 3, epochs=1, titles=())
    held, folder = store.find("data00-model000-seed1")
    other = Cell(held.spec, "0" * 64)
    shutil.copytree(folder, store.folder(other))
    about = json.loads((folder / "cell.json").read_text())
    path = store.folder(other) / "cell.json"
    path.write_text(json.dumps({**about, "key": other.key}))
    os.utime(path, (1e9, 1e9))
    (store.folder(other) / "metrics.json").write_text("damaged")
    assert set(store.rows().cell) == {found.name for _, found in store.finished()} - {
        store.folder(other).name
    }
    with pytest.raises(InputError, match=r"metrics\.json cannot be read"):
        store.rows([other])


def test_synthetic_rows_are_those_of_the_synthetic_store(tmp_path) -> None:
    store = synthetic.store(tmp_path / "out", 6, 2, 9, 12, epochs=2, titles=("samples",))
    rows = synthetic.rows(6, 2, 9, 12)
    pd.testing.assert_frame_equal(store.rows(), rows)
    assert {"status", "cost", "generation"} <= set(rows.family)
    assert set(rows[rows.note != ""].note) >= {"the model has no log_weights"}
    assert len(read(store.path).pictures(rows[rows.family == "cost"].cell.iloc[0])) == 1
    pd.testing.assert_frame_equal(synthetic.rows(6, 2, 9, 12), rows)
    few = synthetic.rows(3, 1, 2, 12)
    kept = rows[rows.cell.isin(set(few.cell))].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, kept)
    assert not rows.equals(synthetic.rows(6, 2, 9, 12, seed=1))


@pytest.mark.slow
def test_twenty_thousand_rows_are_read_in_three_seconds(tmp_path) -> None:
    store = synthetic.store(tmp_path / "out", 10, 5, 10, 40, epochs=1, titles=())
    start = time.perf_counter()
    rows = store.rows()
    assert time.perf_counter() - start < 3
    assert len(rows) > 20_000


@pytest.mark.parametrize("name", Autoencoder.choices())
def test_every_model_states_its_objective_in_one_line(name: str) -> None:
    said = described(Autoencoder.choose(name))
    assert all(said.values()), said
    line = said["objective"]
    assert line == " ".join(line.split())
    assert line[-1] not in ",.;"
    assert "\\\\" not in line
    assert "&" not in line
    bare = line.replace(r"\{", "").replace(r"\}", "")
    depth = np.cumsum([(sign == "{") - (sign == "}") for sign in bare])
    assert depth.min() >= 0
    assert depth[-1] == 0
    for opening, closing in ((r"\bigl", r"\bigr"), (r"\Bigl", r"\Bigr")):
        assert line.count(opening) == line.count(closing)


def test_a_model_without_maths_has_no_objective() -> None:
    class Silent(VAE):
        pass

    class Wordy(VAE):
        """A VAE of mine.

        It has no maths.
        """

    assert described(Silent) == {
        "description": "",
        "objective": "",
        "reference": VAE.reference,
    }
    assert described(Wordy)["description"] == "A VAE of mine."
    assert described(Wordy)["objective"] == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (".. math:: a + b\n\nmore\n\n.. math:: c", "a + b"),
        (".. math:: a\n    + b,\n\nmore", "a + b"),
        (".. math::\n\n    a\n    + b.\n\n    c\n", "a + b"),
        (".. math::\n    :label: x\n\n    a &= b, \\\\[2pt]\n    c &= d\n", r"a = b;\quad c = d"),
        (".. math:: a \\& b\\,", r"a \& b\,"),
        (
            ".. math::\n    \\begin{cases} a & b \\\\\n c & d \\end{cases}",
            "\\begin{cases} a & b \\\\ c & d \\end{cases}",
        ),
        (".. math::\nnot maths", ""),
        ("no maths", ""),
    ],
)
def test_maths_becomes_one_line(text: str, line: str) -> None:
    assert objective(f"A model.\n\n{text}") == line


def test_a_cell_keeps_what_its_model_says_of_itself(tmp_path) -> None:
    store = synthetic.store(tmp_path / "out", 1, 1, 1, 3, epochs=1, titles=())
    ((_, folder),) = store.finished()
    held = read(store.path).about(folder.name)
    assert held["about"]["objective"] == r"-\log p(x \mid z)"
    assert "about" not in held["provenance"]
