"""What an engine is: what runs cells, on this machine or on many."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...plugins import Plugin
from ..grid import Cell


@dataclass(frozen=True)
class Event:
    """Something that became of a cell.

    Attributes:
        kind: ``started``, ``progress``, ``done`` or ``failed``.
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
        devices: the devices to run on; each worker has one.
    """

    store: Path
    files: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)


class Engine(Plugin, kind="engine"):
    """Runs cells and tells what becomes of them.

    A cell that fails is written to the store as failed, and the others go on.

    Args:
        workers: how many cells run at once.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, cells: list[Cell], job: Job, on_event: OnEvent) -> None:
        """Run ``cells``; returns when each is done or has failed.

        Raises:
            KeyboardInterrupt: the user stopped it; the cells under way are abandoned.
        """
        raise NotImplementedError
