"""The main job: a grid in, every cell in the store, rows and tables out."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plugins import InputError, load_file
from .engines import Engine, Event, Job, OnEvent, Slot
from .grid import Cell, narrow, override, read_grid, specs
from .results import details_json, of_store
from .rows import rows_csv
from .store import Store, Unwritable, unlinked

if TYPE_CHECKING:
    import pandas as pd

    from ..models import Autoencoder


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    Attributes:
        grid: the grid's name.
        cells: every cell of the grid.
        missing: those that the store does not have, the longest first.
        store: where they go.
        slots: the devices of each worker.
    """

    grid: str
    cells: list[Cell]
    missing: list[Cell]
    store: Store
    slots: tuple[Slot, ...]


def run(
    grid: str | Path | Mapping[str, Any],
    *,
    datasets: Iterable[str] | None = None,
    models: Iterable[str] | None = None,
    seeds: int | None = None,
    settings: Iterable[str] = (),
    files: Iterable[str | Path] = (),
    out: str | Path | None = None,
    engine: Engine | str = "local",
    workers: int | None = None,
    device: str = "auto",
    devices: int | None = None,
    per_device: int | None = None,
    precision: str | None = None,
    wandb: bool = False,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    on_event: OnEvent = lambda event: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> "pd.DataFrame":
    """Run the cells of a grid that the store does not have, and return the rows of all it has.

    The rows are also written to the store's folder, as ``rows.csv`` and ``details.json``, with
    ``specs.json``, the specification of every cell in it, ``leaderboard.csv`` and
    ``leaderboard.md``. The longest cells are run first, as far as ``costs.json``, what those of
    the store took, tells.

    Args:
        grid: a shipped grid's name, a YAML file, or the settings themselves.
        datasets: run these of the grid alone.
        models: run these of the grid, and of ``files``, alone.
        seeds: run so many seeds, from 0 on, instead of the grid's.
        settings: changes to the grid, such as ``training.epochs=5``.
        files: the user's own files; the models they define join the grid.
        out: the store's folder; ``runs/<grid>`` by default.
        engine: what runs the cells, by name or made.
        workers: cells at once; by default one a core on the CPU, one a device on GPUs.
        device: ``auto``, ``cpu``, ``cuda`` (all of them) or one, such as ``cuda:1``.
        devices: train each cell on so many devices; the same as ``training.devices``.
        per_device: cells at once on a GPU.
        precision: ``32`` or ``bf16-mixed``; the same as ``training.precision``.
        wandb: log every cell and the leaderboard to Weights & Biases.
        on_plan: told what is going to be done, before it is.
        on_event: told what becomes of every cell.
        on_note: told, in a line, what a person should know besides.

    Raises:
        InputError: bad input, found before anything is trained.
        Unwritable: the store's disk is full, or may not be written any more; what was finished is
            in the store.
        KeyboardInterrupt: the user stopped it; what was finished is in the store and the tables.
    """
    paths = tuple(str(Path(file).expanduser().resolve()) for file in files)
    name, held = read_grid(grid)
    if isinstance(engine, str):
        engine = Engine.make(engine)
    engine.prepare(workers)
    shortcuts = {"training.precision": precision, "training.devices": devices}
    given = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    chosen = changed(held, datasets, models, seeds, [*settings, *given], paths)
    store = Path("runs") / name if out is None else out
    slots = slots_of(engine, chosen, device, per_device, workers)
    plan = planned(name, chosen, store, slots)
    log = None
    if wandb:
        from .report.tracking import WandbLog

        log = WandbLog(plan.grid, plan.store.path, plan.cells)
    on_plan(plan)

    def listen(event: Event) -> None:
        if event.kind == "done" and log is not None:
            log.cell(plan.store.folder(event.cell), event.cell)
        on_event(event)
        if event.unwritable:
            raise Unwritable(event.phase)

    try:
        if plan.missing:
            engine.run(plan.missing, Job(plan.store.path.resolve(), paths, plan.slots), listen)
    finally:
        rows = write_tables(plan.store, plan.cells)
    if log is not None:
        from .leaderboard import leaderboard

        log.leaderboard(leaderboard(rows))
        if log.problem:
            on_note(f"Weights & Biases went offline: {log.problem}")
        if log.sync_command:
            on_note(f"Weights & Biases logged offline; to send it: {log.sync_command}")
    return rows


def changed(
    held: dict[str, Any],
    datasets: Iterable[str] | None,
    models: Iterable[str] | None,
    seeds: int | None,
    settings: Iterable[str],
    files: Iterable[str],
) -> dict[str, Any]:
    """A grid's settings with the user's changes. The arguments are those of :func:`run`."""
    for assignment in settings:
        override(held, assignment)
    for model in defined(files):
        held["models"].setdefault(model, {})
    narrow(held, datasets, models)
    if seeds is not None:
        held["seeds"] = seeds
    return held


def slots_of(
    engine: Engine,
    held: dict[str, Any],
    device: str,
    per_device: int | None,
    workers: int | None,
) -> tuple[Slot, ...]:
    """The devices of each worker, for the settings ``held`` of a grid.

    Raises:
        InputError: a number below 1, or devices that the engine does not have.
    """
    from .train import Budget

    for name, value in (("workers", workers), ("per_device", per_device)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be 1 or more, not {value}")
    budget = Budget.of(held["training"])
    return engine.slots(device, budget.devices, per_device, workers, budget.threads)


def planned(name: str, held: dict[str, Any], out: str | Path, slots: tuple[Slot, ...]) -> Plan:
    """The plan of a run; everything that a user can get wrong is found here, or was before.

    Args:
        name: the grid's name.
        held: its settings.
        out: the store's folder.
        slots: the devices of each worker.
    """
    from .cell import cells_of, refuse_unbuildable
    from .estimate import longest_first

    cells = cells_of(specs(held, slots[0][0].partition(":")[0]))
    store = Store(out, create=True)
    store.clean()
    missing = store.missing(cells)
    refuse_unbuildable([cell.spec for cell in missing])
    return Plan(name, cells, longest_first(missing, store), store, slots)


def defined(files: Iterable[str]) -> list[str]:
    """The models that the user's files define.

    Raises:
        InputError: a file cannot be imported.
    """
    from ..models import Autoencoder

    modules = [load_file(file).__name__ for file in files]
    return [name for name, cls in Autoencoder.choices().items() if cls.__module__ in modules]


def write_tables(store: Store, cells: list[Cell] | None = None) -> "pd.DataFrame":
    """Write the rows of a store and its leaderboard to its folder; returns the rows.

    ``rows.csv``, ``specs.json`` and ``details.json`` are what :func:`.results.read` needs of them.
    """
    from . import estimate
    from .leaderboard import leaderboard

    with store.locked("tables"):  # of several runs at once, the last to write has read them all
        found = of_store(store, cells)
        board = leaderboard(found.rows)
        store.write_text("rows.csv", rows_csv(found.rows))
        store.write_text("specs.json", json.dumps(found.specs, sort_keys=True, indent=1))
        store.write_text("details.json", details_json(found.rows))
        store.write_text("leaderboard.csv", board.draw("csv"))
        store.write_text("leaderboard.md", board.headline().draw("md"))
        store.write_text(estimate.FILE, json.dumps(estimate.learnt(found), sort_keys=True))
    return found.rows


def load(
    directory: str | Path, cell: str, files: Iterable[str | Path] = (), device: str = "cpu"
) -> "Autoencoder":
    """The trained model of a cell, in evaluation mode. Its checkpoint is read without running code.

    Args:
        directory: the store's folder.
        cell: the cell's name or key, or the beginning of one.
        files: the user's own files, if the model is defined in one.
        device: where to put it.

    Raises:
        InputError: no such cell, its model is not defined, or its checkpoint cannot be read.
    """
    import torch

    from .cell import build

    for file in files:
        load_file(file)
    found, folder = Store(directory).find(cell)
    model = build(found.spec)
    try:
        state = torch.load(unlinked(folder / "checkpoint.pt"), weights_only=True)
        model.load_state_dict(state)
    except InputError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{folder / 'checkpoint.pt'} cannot be read: {first}") from None
    return model.to(device).eval()
