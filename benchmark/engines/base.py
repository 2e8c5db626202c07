"""What an engine is: what runs cells, on this machine or on many."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...plugins import Plugin
from ..grid import Cell
from ..store import Store

Slot = tuple[str, ...]
"""The devices of a worker, such as ``("cpu",)``; several where one cell is trained on several."""


@dataclass(frozen=True)
class Event:
    """Something that became of a cell.

    Attributes:
        kind: ``started``, ``progress``, ``done``, ``failed``, or ``elsewhere``: another run is at
            it.
        cell: the cell.
        phase: of ``progress``, what it is at, such as ``training``; of ``failed``, the error.
        done: how much of the phase is done.
        total: of how much.
    """

    kind: str
    cell: Cell
    phase: str = ""
    done: int = 0
    total: int = 0


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Job:
    """What every worker of a run must know.

    Attributes:
        store: the folder of the store.
        files: the user's own files, to be loaded before a cell is run.
        slots: the devices of each worker; there are as many workers as slots.
    """

    store: Path
    files: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = (("cpu",),)


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

    def run(self, cells: list[Cell], job: Job, on_event: OnEvent) -> None:
        """Run ``cells``, the first ones first; returns when each is done or has failed.

        A cell that fails is written to the store as failed, and the others go on. One whose worker
        dies is tried once more.

        Raises:
            KeyboardInterrupt: the user stopped it; the cells under way are abandoned.
        """
        raise NotImplementedError


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

    with store.claimed(cell, wait) as mine:
        if not mine:
            return Event("elsewhere", cell)
        if store.has(cell):
            return Event("done", cell)
        try:
            run_cell(
                cell,
                store,
                slot,
                lambda phase, done, total: on_event(Event("progress", cell, phase, done, total)),
            )
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            store.fail(cell, message)
            return Event("failed", cell, message)
    return Event("done", cell)
