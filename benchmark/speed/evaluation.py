"""What scoring a cell costs, by family of metrics, beside its training."""

import statistics
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from ...plugins import InputError
from ..cell import dataset_of, key_of, run_cell
from ..families import place
from ..grid import Cell, label, narrow, read_grid, specs
from ..metrics import Metric
from ..store import Store, read_json
from .base import Table, in_turn, spread

MODEL = "vae"
GRIDS = ("quick", "mnist_small")
EPOCHS = 2
TRAINING, DRAWING = "training", "pictures and writing"
"""Beside the families: the training by the grid's own budget, and what follows the scoring."""

Parts = dict[str, float]
"""Seconds by part of a cell, in the order of a run."""


def wanted(grids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The first cell of ``MODEL`` on every dataset of the grids, those left out that are missing.

    Raises:
        InputError: no dataset can be had.
    """
    found: dict[str, dict[str, Any]] = {}
    missing = ""
    for grid in grids:
        held = read_grid(grid)[1]
        narrow(held, models=[MODEL])
        for spec in specs(held, "cpu"):
            name = f"{spec['dataset']['name']}, {grid}"
            try:
                dataset_of(spec).split("train")
            except InputError as error:
                missing = str(error)
                continue
            found.setdefault(name, spec)
    if not found:
        raise InputError(missing)
    return found


def parts_of(spec: dict[str, Any]) -> Parts:
    """The seconds of every part of a cell; of its training as long as its budget would take."""
    epochs = spec["training"]["epochs"]
    short = spec | {"training": spec["training"] | {"epochs": min(EPOCHS, epochs)}}
    cell, marks = Cell(short, key_of(short)), list[tuple[str, float]]()

    def on_progress(phase: str, done: int, total: int) -> None:
        if phase.startswith("scoring "):
            metric = phase.removeprefix("scoring ")
            marks.append((Metric.choose(metric).family, time.perf_counter()))

    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, create=True)
        run_cell(cell, store, ("cpu",), on_progress)
        end = time.perf_counter()
        rows = read_json(store.folder(cell) / "metrics.json")
    costs = {row["metric"]: row["value"] for row in rows if row["family"] == "cost"}
    scored = marks[0][1] + costs["evaluate_seconds"]
    found = {TRAINING: costs["train_seconds"] / short["training"]["epochs"] * epochs}
    for (family, start), (_, stop) in zip(marks, [*marks[1:], ("", scored)]):
        found[family] = found.get(family, 0.0) + stop - start
    return found | {DRAWING: end - scored}


def column(held: list[Parts], part: str) -> str:
    """The seconds of a part, and its share of the cell."""
    if part not in held[0]:
        return ""
    share = statistics.median(parts[part] / sum(parts.values()) for parts in held)
    return f"{spread([parts[part] for parts in held])}, {100 * share:.0f} %"


def evaluated(parts: Parts) -> float:
    """The seconds of all that is not training."""
    return sum(parts.values()) - parts[TRAINING]


def measure(pairs: int, grids: Iterable[str] = GRIDS) -> Table:
    """The seconds of every part of a cell on every dataset of the grids.

    Raises:
        InputError: no dataset can be had.
    """
    cells = wanted(grids)
    work = {name: partial(parts_of, spec) for name, spec in cells.items()}
    in_turn(work, 1)  # makes what is kept of a dataset's own images
    found = in_turn(work, pairs)
    families = {name for held in found.values() for name in held[0]} - {TRAINING, DRAWING}
    parts = [TRAINING, *sorted(families, key=place), DRAWING]
    rows = [(part, *(column(held, part) for held in found.values())) for part in parts]
    totals = [
        ("all but training", *(spread([evaluated(p) for p in held]) for held in found.values())),
        (
            "its share",
            *(
                spread([100 * evaluated(p) / sum(p.values()) for p in held], "%")
                for held in found.values()
            ),
        ),
    ]
    return Table(
        f"A cell of `{MODEL}`, by what it spends",
        ("part", *cells),
        (*rows, *totals),
        (
            f"Cells of the grids as they are, trained for {EPOCHS} epochs; the training's seconds "
            "are those of an epoch by the grid's epochs. "
            + "; ".join(
                f"{name}: {label(spec['backbone'])}, {spec['training']['epochs']} epochs, "
                f"{len(spec['evaluation']['metrics'])} metrics"
                for name, spec in cells.items()
            )
            + ".",
            "Families in the order of a run: codes, reconstructions, samples and their features "
            "are computed once a cell and count for the first that needs them. What is kept of a "
            "dataset's own images is at hand.",
            f"One process, one thread; {pairs} cells of each in turn after one that is not "
            "counted: the median and the range.",
        ),
    )
