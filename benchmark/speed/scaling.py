"""What workers bring on the CPU, and what handing out cells costs with simulated devices."""

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..engines import Engine, Event, Job, OnEvent, Slot
from ..engines.base import Work, attempt
from ..engines.local import cores
from ..grid import Cell, read_grid
from ..runner import planned
from ..store import Store
from .base import Table, in_turn, ratios, spread


@dataclass(frozen=True)
class Size:
    """What is run: cells of a small grid, and for each of ``sleeps`` so many cells a slot."""

    grid: dict[str, Any] = field(
        default_factory=lambda: {
            "datasets": ["digits"],
            "models": ["vae"],
            "training": {"epochs": 100, "batch_size": 64},
            "seeds": 6,
            "metrics": ["mse"],
        }
    )
    sleeps: tuple[tuple[float, int], ...] = ((2.0, 5), (0.1, 60))
    slots: tuple[int, ...] = (1, 2, 4)


@dataclass(frozen=True)
class Span:
    """The seconds from the call to the first cell's start, and from there to the last one's end."""

    start: float
    cells: float


def cells_of(grid: dict[str, Any], store: Path, slots: tuple[Slot, ...]) -> list[Cell]:
    """The cells of a grid, none of them done."""
    return planned("speed", read_grid(grid)[1], store, slots).missing


def engine_run(grid: dict[str, Any], slots: tuple[Slot, ...], work: Work = attempt) -> Span:
    """Run a grid by the local engine into an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        store, starts = Path(folder) / "store", []
        cells = cells_of(grid, store, slots)

        def on_event(event: Event) -> None:
            if event.kind == "started":
                starts.append(time.perf_counter())
            elif event.kind == "failed":
                raise RuntimeError(f"{event.cell.title}: {event.phase}")

        call = time.perf_counter()
        Engine.make("local").run(cells, Job(store, slots=slots, work=work), on_event)
        return Span(starts[0] - call, time.perf_counter() - starts[0])


def sleep(
    seconds: float, cell: Cell, store: Store, slot: Slot, on_event: OnEvent, wait: bool = False
) -> Event:
    """What a worker does with a cell here: it claims it and sleeps."""
    with store.claimed(cell, wait):
        time.sleep(seconds)
    return Event("done", cell)


def sleeping(size: Size, seconds: float, each: int, slots: int) -> Span:
    """Sleeping cells on simulated devices, ``each`` a slot."""
    grid = size.grid | {"seeds": each * slots}
    devices = tuple((f"cuda:{i}",) for i in range(slots))
    return engine_run(grid, devices, partial(sleep, seconds))


def worker_table(pairs: int, size: Size) -> Table:
    """One worker a core, and one alone."""
    counts = sorted({1, min(2, cores()), cores()})
    work = {
        str(workers): partial(engine_run, size.grid, (("cpu",),) * workers) for workers in counts
    }
    cells = {name: [span.cells for span in held] for name, held in in_turn(work, pairs).items()}
    rows = [(name, spread(held), ratios(cells["1"], held)) for name, held in cells.items()]
    return Table(
        "Workers on the CPU",
        ("workers", "time", "speed-up"),
        tuple(rows),
        (
            f"{size.grid['seeds']} cells of {', '.join(size.grid['models'])} on "
            f"{', '.join(size.grid['datasets'])}, {size.grid['training']['epochs']} epochs, from "
            f"the first one's start to the last one's end; {cores()} cores, one thread a worker. "
            "One worker is the process itself.",
            f"{pairs} runs of each in turn: the median and the range.",
        ),
    )


def slot_table(pairs: int, size: Size) -> Table:
    """Cells that sleep, on simulated devices."""
    rows = []
    for seconds, each in size.sleeps:
        work = {slots: partial(sleeping, size, seconds, each, slots) for slots in size.slots}
        spans = in_turn({str(slots): act for slots, act in work.items()}, pairs)
        ideal = seconds * each
        for slots, held in spans.items():
            over = spread([100 * (span.cells / ideal - 1) for span in held], "%")
            start = statistics.median(span.start for span in held)
            took = spread([span.cells for span in held])
            cells = f"{each * int(slots)} × {seconds:g} s"
            rows.append((slots, cells, f"{ideal:g} s", took, over, spread([start])))
    return Table(
        "Simulated GPU slots",
        ("slots", "cells", "ideal", "time", "overhead", "start"),
        tuple(rows),
        (
            "The local engine with cells that claim their place in the store and sleep. The time "
            "runs from the first cell's start to the last one's end; the overhead is what it is "
            "over the ideal. The start, of the workers, comes once a run.",
            f"{pairs} runs of each in turn: the median and the range. One slot is the process "
            "itself.",
        ),
    )


def measure(pairs: int, size: Size | None = None) -> tuple[Table, ...]:
    """The times with one worker and more, and the overhead with simulated devices."""
    return worker_table(pairs, size or Size()), slot_table(pairs, size or Size())
