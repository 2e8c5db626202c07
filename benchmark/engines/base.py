"""What an engine is: what runs cells, on this machine or on many."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...plugins import InputError, Plugin
from ..grid import Cell
from ..provenance import LIBRARIES, versions
from ..store import Store, Unwritable

Slot = tuple[str, ...]
"""The devices of a worker, such as ``("cpu",)``; several where one cell is trained on several."""


@dataclass(frozen=True)
class Event:
    """Something that became of a cell.

    Attributes:
        kind: ``started``, again if its worker died; ``progress``; ``done``; ``failed``; or
            ``elsewhere``: another run is at it, so it was put off, and is started again.
        cell: the cell.
        phase: of ``progress``, what it is at, such as ``training``; of ``failed``, the error.
        done: how much of the phase is done.
        total: of how much.
        unwritable: of ``failed``: the store cannot be written, so the run must end.
    """

    kind: str
    cell: Cell
    phase: str = ""
    done: int = 0
    total: int = 0
    unwritable: bool = False


OnEvent = Callable[[Event], None]


def attempt(cell: Cell, store: Store, slot: Slot, on_event: OnEvent, wait: bool = False) -> Event:
    """Run ``cell`` here; what goes wrong becomes a failed cell.

    Args:
        cell: the cell.
        store: where it goes.
        slot: the devices to train it on.
        on_event: told of progress.
        wait: wait for another run that is at it, rather than leave it as ``elsewhere``.
    """
    from ..cell import run_cell

    def on_progress(phase: str, done: int, total: int) -> None:
        on_event(Event("progress", cell, phase, done, total))

    if wait:
        on_progress("waiting for another run", 0, 0)
    try:
        with store.claimed(cell, wait) as mine:
            if not mine:
                return Event("elsewhere", cell)
            if store.has(cell):
                return Event("done", cell)
            try:
                with current(slot[0]):
                    run_cell(cell, store, slot, on_progress)
            except Unwritable:
                raise
            except Exception as error:
                return failed(cell, store, f"{type(error).__name__}: {error}")
    except Unwritable as error:
        return Event("failed", cell, str(error), unwritable=True)
    return Event("done", cell)


def failed(cell: Cell, store: Store, message: str) -> Event:
    """Write down that ``cell`` failed, and why."""
    try:
        store.fail(cell, message)
    except Unwritable as error:
        return Event("failed", cell, str(error), unwritable=True)
    return Event("failed", cell, message)


def current(device: str) -> AbstractContextManager[Any]:
    """Within, what asks for a GPU without saying which gets ``device``, if that is one."""
    import torch

    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


Work = Callable[[Cell, Store, Slot, OnEvent, bool], Event]
"""What a worker does with a cell; its arguments are those of :func:`attempt`."""


@dataclass(frozen=True)
class Job:
    """What every worker of a run must know.

    Attributes:
        store: the folder of the store.
        files: the user's own files, to be loaded before a cell is run.
        slots: the devices of each worker; there are as many workers as slots.
        work: what a worker does with a cell, a function that it can import.
    """

    store: Path
    files: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = (("cpu",),)
    work: Work = attempt


def refuse_packing(kind: str, per_device: int | None) -> None:
    """Refuse to pack cells on a CPU.

    Raises:
        InputError: ``kind`` is not ``cuda``, and cells are to share a device.
    """
    if kind != "cuda" and per_device is not None:
        raise InputError("--per-device is for GPUs: --workers says how many cells at once")


def refuse_other(cell: Cell, planned: dict[str, str]) -> None:
    """Refuse to run ``cell`` where it would be another one.

    Args:
        cell: the cell.
        planned: the versions of the libraries where it was planned.

    Raises:
        InputError: the libraries, the code or the data are not those it was planned with.
    """
    from ..cell import key_of

    if key_of(cell.spec) == cell.key:
        return
    here = versions()
    other = [
        f"{name} is {here[name]}, not {planned[name]}"
        for name in LIBRARIES
        if here[name] != planned[name]
    ]
    what = "; ".join(other) or "the code or the data is not what it was where the run was started"
    raise InputError(f"{cell.title} would be another cell: {what}")


class Engine(Plugin, kind="engine"):
    """Runs cells and tells what becomes of them.

    An engine's keyword arguments are options of the command line: ``address`` of the engine ``ray``
    is ``--ray-address``, and its line under ``Args:`` is the help.
    """

    @classmethod
    def about(cls, parameter: str) -> str:
        """What the docstring says of a parameter."""
        found = re.search(rf"^ +{parameter}: (.+)$", cls.__doc__ or "", re.MULTILINE)
        return found[1][:1].upper() + found[1][1:] if found else ""

    def slots(
        self, device: str, devices: int, per_device: int | None, workers: int | None, threads: int
    ) -> tuple[Slot, ...]:
        """The devices of each worker. Those of another machine go by their kind, ``cuda``.

        Args:
            device: ``auto``, ``cpu``, ``cuda`` (all of them) or one, such as ``cuda:1``.
            devices: how many each cell is trained on.
            per_device: cells at once on a device; None takes one.
            workers: cells at once; None takes as many as there is room for.
            threads: the CPU threads of a cell.

        Raises:
            InputError: there is no such device, or not as many.
        """
        raise NotImplementedError

    def prepare(self, workers: int | None) -> None:
        """Begin what takes long, while the run is planned.

        Args:
            workers: cells at once, as :meth:`slots` is given them.
        """

    def run(self, cells: list[Cell], job: Job, on_event: OnEvent) -> None:
        """Run ``cells``, the first ones first; returns when each is done or has failed.

        A cell that fails is written to the store as failed, and the others go on. One whose worker
        dies is tried once more.

        Raises:
            KeyboardInterrupt: the user stopped it; the cells under way are abandoned.
        """
        raise NotImplementedError
