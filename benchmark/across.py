"""Metrics that compare the seeds of one model: computed when a store's rows are read, once."""

import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from ..seeds import digest
from .grid import Cell

if TYPE_CHECKING:
    from .store import Store


def across_seeds(store: "Store", cells: Iterable[Cell]) -> dict[str, list[dict[str, Any]]]:
    """The rows that each cell has by comparison with its other seeds, by the cell's key.

    What was compared is kept in the store under the keys of all the cells that took part.
    """
    from .store import unlinked

    groups: dict[tuple[str, str], list[tuple[Cell, Path]]] = defaultdict(list)
    for cell in cells:
        kept = sorted(unlinked(store.folder(cell) / "kept").glob("*.npz"))
        same = digest({k: v for k, v in cell.spec.items() if k != "seed"}) if kept else ""
        for path in kept:
            groups[path.stem, same].append((cell, path))
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (metric, _), held in groups.items():
        held.sort(key=lambda entry: entry[0].seed)
        for (cell, _), rows in zip(held, compared(store, metric, held)):
            found[cell.key] += rows
    return found


def compared(
    store: "Store", name: str, held: list[tuple[Cell, Path]]
) -> list[list[dict[str, Any]]]:
    """The rows of each cell by one metric, in the order of ``held``."""
    from .store import Unwritable, read_json, to_json

    file = f"across/{digest(name, *(cell.key for cell, _ in held))}.json"
    if (store.path / file).is_file():
        return read_json(store.path / file)
    from .evaluate import rows_of
    from .metrics import AcrossSeeds, Metric, NotApplicable, Values
    from .train import arithmetic

    spec = held[0][0].spec
    choices = {m["name"]: m["parameters"] for m in spec["evaluation"]["metrics"]}
    metric = Metric.make(name, choices[name])
    assert isinstance(metric, AcrossSeeds)
    values: list[Values] = [{} for _ in held]
    note = "one seed has no other to be compared with" if len(held) < 2 else ""
    if not note:
        try:
            with arithmetic(spec["training"]["threads"]):  # not on as many as this machine has
                values = metric.compare([arrays(path) for _, path in held])
        except NotApplicable as reason:
            note = str(reason)
    estimator = "" if note else metric.compared(len(held))
    rows = [
        [asdict(row) for row in rows_of(metric, some, estimator=estimator, note=note)]
        for some in values
    ]
    text = to_json(rows)
    with suppress(Unwritable):  # what cannot be kept is computed again
        store.write_text(file, text)
    return json.loads(text)


def arrays(path: Path) -> dict[str, Any]:
    """The arrays of a file that a cell keeps; no code of it is run.

    Raises:
        InputError: it cannot be read.
    """
    import numpy as np

    from .store import unlinked, unreadable

    unlinked(path)
    try:
        with np.load(path, allow_pickle=False) as held:
            return dict(held)
    except (AttributeError, EOFError, OSError, TypeError, ValueError, BadZipFile) as error:
        raise unreadable(path, error) from None
