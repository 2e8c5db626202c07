"""Results: what a store or a published folder has to show, read alike."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plugins import InputError
from ..seeds import digest
from .grid import Cell, Parameters, folder_name
from .rows import COLUMNS, DETAILS
from .store import Store, read_json, unlinked

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = ("rows.csv", "specs.json", "details.json")
"""What makes the tables again, without the store."""
STATED = ["metric", "sampler", *DETAILS]
"""What ``details.json`` has of a row."""


@dataclass(frozen=True, eq=False)
class Results:
    """The results of a run.

    Attributes:
        path: the folder.
        rows: the rows of every cell that counts, as ``Store.rows`` gives them.
        specs: the specification of every finished cell, by its name.
        cells: its folder, by its name; empty where the results are not a store.
        store: the store, if it is one.
    """

    path: Path
    rows: "pd.DataFrame"
    specs: Mapping[str, Parameters]
    cells: Mapping[str, Path]
    store: Store | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def history(self, cell: str) -> list[dict[str, float]]:
        """A cell's losses, a dict an epoch; empty where there are none to be had."""
        return read_json(self.cells[cell] / "history.json") if cell in self.cells else []

    def about(self, cell: str) -> dict[str, Any]:
        """A cell's ``cell.json``; empty where there is none to be had."""
        return read_json(self.cells[cell] / "cell.json") if cell in self.cells else {}

    def pictures(self, cell: str) -> dict[str, Path]:
        """A cell's pictures by their titles; empty where there are none to be had."""
        if cell not in self.cells:
            return {}
        found = sorted(unlinked(self.cells[cell] / "pictures").glob("*.png"))
        return {path.stem: unlinked(path) for path in found}


def read(path: str | Path) -> Results:
    """The results of a store, or of a published folder: rows, specifications and details.

    Raises:
        InputError: it is neither, or a file of it cannot be read.
    """
    path = Path(path).expanduser()
    if (path / "store.json").exists():
        return of_store(Store(path))
    missing = [name for name in PUBLISHED if not (path / name).is_file()]
    if "rows.csv" in missing:
        raise InputError(
            f"{path} is not a folder of results: neither that of a run, with store.json, nor a "
            f"published one, with {', '.join(PUBLISHED)}"
        )
    if missing:
        raise InputError(f"{path} lacks {' and '.join(missing)}, which stand beside its rows.csv")
    try:
        with (path / "rows.csv").open(encoding="utf-8", newline="") as file:
            held = read_rows_csv(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{path / 'rows.csv'} cannot be read: {error}") from None
    specs, details = (mapping(path / name) for name in ("specs.json", "details.json"))
    try:
        rows = with_details(held, details)
    except ValueError as error:
        raise InputError(f"{path / 'details.json'} cannot be read: {error}") from None
    for cell in rows.loc[rows["family"] != "status", "cell"].unique():
        if not isinstance(specs.get(cell), Mapping):
            raise InputError(f"{path / 'specs.json'} has no specification of the cell {cell!r}")
    return Results(path, rows, specs, {})


def of_store(store: Store, planned: list[Cell] | None = None) -> Results:
    """The results of a store.

    Args:
        store: the store.
        planned: the cells of a grid, which count before others of the same training.
    """
    counting = store.counting(planned)
    rows = store.rows_of(counting)
    finished = {
        folder_name(cell.spec, cell.key): (cell.spec, folder)
        for cell, folder, _ in counting
        if folder is not None
    }
    specs = {name: finished[name][0] for name in sorted(finished)}
    folders = {name: finished[name][1] for name in specs}
    return Results(store.path, rows, specs, folders, store)


def mapping(path: Path) -> dict[str, Any]:
    """The JSON object that a file has.

    Raises:
        InputError: it cannot be read, or has something else.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not isinstance(held, dict):
        raise InputError(f"{path} cannot be read: it is not a JSON object")
    return held


def details_json(rows: "pd.DataFrame") -> str:
    """``details.json``: the ``DETAILS`` of the rows in ``rows.csv``, each different one once.

    ``rows`` has them by a name that is their hash, so that it stays when others come; a sequence
    has what a cell's rows are, in their order, and is shared by the cells that are alike. The note
    of a failed cell's row is in ``rows.csv``.
    """
    names: dict[tuple[Any, ...], str] = {}
    sequences: dict[str, list[str]] = defaultdict(list)
    for cell, *stated in zip(*(rows[column].tolist() for column in ["cell", *STATED])):
        if stated[STATED.index("family")] == "status":
            stated[STATED.index("note")] = ""
        found = tuple(stated)
        if found not in names:
            names[found] = digest(*found)[:12]
        sequences[cell].append(names[found])
    cells = {cell: digest(*sequence)[:12] for cell, sequence in sequences.items()}
    held = {
        "rows": {name: dict(zip(STATED, stated)) for stated, name in names.items()},
        "sequences": {cells[cell]: sequence for cell, sequence in sequences.items()},
        "cells": cells,
    }
    return json.dumps(held, sort_keys=True, indent=1)


def read_rows_csv(lines: Iterable[str]) -> dict[str, list[Any]]:
    """The columns that :func:`.rows.rows_csv` wrote.

    Raises:
        ValueError: it is not such a file.
    """
    reader = csv.reader(lines, strict=True)
    try:
        if next(reader, None) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    for n, row in enumerate(rows, start=1):
        if len(row) != len(COLUMNS):
            raise ValueError(f"row {n} has {len(row)} fields in place of {len(COLUMNS)}")
    held: dict[str, list[Any]] = {name: [row[n] for row in rows] for n, name in enumerate(COLUMNS)}
    held["value"] = [math.nan if text == "n/a" else float(text) for text in held["value"]]
    held["seed"] = [int(text) for text in held["seed"]]
    if not set(held["own"]) <= {"True", "False"}:
        raise ValueError("own is neither True nor False")
    held["own"] = [text == "True" for text in held["own"]]
    return held


def with_details(held: dict[str, list[Any]], details: Mapping[str, Any]) -> "pd.DataFrame":
    """The rows whose columns :func:`read_rows_csv` gave, with what :func:`details_json` wrote.

    Raises:
        ValueError: the details are not of these rows.
    """
    import pandas as pd

    try:
        stated = {name: tuple(row[c] for c in STATED) for name, row in details["rows"].items()}
        for row in stated.values():
            if [type(value) for value in row] != [bool if c == "ranked" else str for c in STATED]:
                raise ValueError(f"{row} is not what a row has")
        sequences = {
            name: [stated[row] for row in sequence]
            for name, sequence in details["sequences"].items()
        }
        left = {cell: iter(sequences[name]) for cell, name in details["cells"].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it lacks what others of its entries name: {error}") from None
    found = []
    for cell, metric, sampler in zip(held["cell"], held["metric"], held["sampler"]):
        row = next(left.get(cell, iter(())), ())
        if row[:2] != (metric, sampler):
            raise ValueError(f"it has other rows of the cell {cell!r} than rows.csv")
        found.append(row)
    for cell, rest in left.items():
        if next(rest, None) is not None:
            raise ValueError(f"it has rows of the cell {cell!r} that rows.csv lacks")
    for n, name in enumerate(STATED):
        held[name] = [row[n] for row in found]
    failed = [family == "status" for family in held["family"]]
    held["note"] = [u if f else note for f, u, note in zip(failed, held["unit"], held["note"])]
    held["unit"] = ["" if f else unit for f, unit in zip(failed, held["unit"])]
    return pd.DataFrame({name: held[name] for name in [*COLUMNS, *DETAILS]})
