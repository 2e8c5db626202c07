"""Processes of this machine: long-lived workers, so that imports are paid once."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from ...plugins import load_file
from ..grid import Cell
from ..store import Store
from .base import Engine, Event, Job, OnEvent


class Local(Engine):
    """As many worker processes as asked for; one worker is this process itself.

    A worker that dies (killed, out of memory) costs the cell it was at, which fails, and is
    replaced.
    """

    name = "local"

    def run(self, cells: list[Cell], job: Job, on_event: OnEvent) -> None:
        if self.workers == 1:
            for cell in cells:
                on_event(Event("started", cell))
                on_event(attempt(cell, job, job.devices[0], on_event))
            return
        waiting = deque(cells)
        workers: list[Worker] = []
        try:
            count = min(self.workers, len(cells))
            workers = [Worker.start(job, job.devices[i % len(job.devices)]) for i in range(count)]
            for worker in workers:
                worker.take(waiting, on_event)
            while any(worker.cell for worker in workers):
                ready = wait([worker.pipe for worker in workers if worker.cell])
                for i, worker in enumerate(workers):
                    if worker.pipe not in ready:
                        continue
                    event = worker.receive()
                    if event is None:
                        event = worker.died(job)
                        workers[i] = worker = Worker.start(job, worker.device)
                    if event.kind in ("done", "failed"):
                        # The next cell first: what the listener does must not keep a worker idle.
                        worker.take(waiting, on_event)
                    on_event(event)
        finally:
            for worker in workers:
                worker.process.kill()


@dataclass
class Worker:
    """A process and the pipe to it; ``cell`` is what it is at."""

    process: BaseProcess
    pipe: Connection
    device: str
    cell: Cell | None = None

    @classmethod
    def start(cls, job: Job, device: str) -> "Worker":
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, job, device), daemon=True)
        with main_hidden():
            process.start()
        theirs.close()
        return cls(process, ours, device)

    def take(self, waiting: deque[Cell], on_event: OnEvent) -> None:
        self.cell = waiting.popleft() if waiting else None
        if self.cell:
            with suppress(OSError):  # if it has died, its pipe is ready to be read and says so
                self.pipe.send(self.cell)
            on_event(Event("started", self.cell))

    def receive(self) -> Event | None:
        """What the worker says next; None if it has died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def died(self, job: Job) -> Event:
        self.process.join()
        assert self.cell is not None
        code = self.process.exitcode or 0
        killed = code < 0
        how = f"was killed by {signal.Signals(-code).name}" if killed else f"ended with code {code}"
        message = f"its worker {how}"
        Store(job.store).fail(self.cell, message)
        return Event("failed", self.cell, message)


@contextmanager
def main_hidden() -> Iterator[None]:
    """Within, a new process does not run the user's script again to rebuild its ``__main__``.

    It would start the run once more in every worker, unless the script guards against it.
    """
    main = sys.modules["__main__"]
    names: tuple[str, ...] = ("__spec__", "__file__")
    held = {name: vars(main)[name] for name in names if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(held)


def attempt(cell: Cell, job: Job, device: str, on_event: OnEvent) -> Event:
    """Run ``cell`` here; what goes wrong becomes a failed cell."""
    from ..cell import run_cell

    store = Store(job.store)
    try:
        run_cell(
            cell,
            store,
            device,
            lambda phase, done, total: on_event(Event("progress", cell, phase, done, total)),
        )
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        store.fail(cell, message)
        return Event("failed", cell, message)
    return Event("done", cell)


def serve(pipe: Connection, job: Job, device: str) -> None:
    """A worker's life: cells in, events out, until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=die_with_parent, daemon=True).start()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  only the CLI prints
    for file in job.files:
        load_file(file)
    while True:
        try:
            cell = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(cell, job, device, pipe.send))


def die_with_parent() -> None:
    """End this process when its parent ends, however that was, in the middle of a cell too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
