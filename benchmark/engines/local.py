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

from ...plugins import InputError, load_file
from ..grid import Cell
from ..store import Store
from .base import Engine, Event, Job, OnEvent, Slot, attempt


class Local(Engine):
    """As many worker processes as asked for; one worker is this process itself.

    A worker that dies (killed, out of memory) costs the cell it was at, which fails, and is
    replaced.
    """

    name = "local"

    def slots(
        self, device: str, devices: int, per_device: int | None, workers: int | None, threads: int
    ) -> tuple[Slot, ...]:
        there = devices_of(device)
        if there == ("cpu",):
            if per_device is not None:
                raise InputError("--per-device is for GPUs: --workers says how many cells at once")
            count = workers or max(1, cores() // (threads * devices))
            return (("cpu",) * devices,) * count
        groups = [there[i : i + devices] for i in range(0, len(there) - devices + 1, devices)]
        if not groups:
            raise InputError(f"--devices {devices}: there are {len(there)}: {', '.join(there)}")
        count = workers or len(groups) * (per_device or 1)
        return tuple(groups[i % len(groups)] for i in range(count))

    def run(self, cells: list[Cell], job: Job, on_event: OnEvent) -> None:
        if len(job.slots) == 1:
            store = Store(job.store)
            for cell in cells:
                on_event(Event("started", cell))
                on_event(attempt(cell, store, job.slots[0], on_event, wait=True))
            return
        waiting = deque(cells)
        workers: list[Worker] = []
        try:
            workers = [Worker.start(job, slot) for slot in job.slots[: len(cells)]]
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
                        workers[i] = worker = Worker.start(job, worker.slot)
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
    slot: Slot
    cell: Cell | None = None

    @classmethod
    def start(cls, job: Job, slot: Slot) -> "Worker":
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, job, slot), daemon=True)
        with main_hidden():
            process.start()
        theirs.close()
        return cls(process, ours, slot)

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


def serve(pipe: Connection, job: Job, slot: Slot) -> None:
    """A worker's life: cells in, events out, until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=die_with_parent, daemon=True).start()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  only the CLI prints
    for file in job.files:
        load_file(file)
    store = Store(job.store)
    while True:
        try:
            cell = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(cell, store, slot, pipe.send))


def die_with_parent() -> None:
    """End this process when its parent ends, however that was, in the middle of a cell too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def devices_of(device: str) -> tuple[str, ...]:
    """The devices that ``device`` names.

    Raises:
        InputError: it names none that is there.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not count):
        return ("cpu",)
    there = tuple(f"cuda:{i}" for i in range(count))
    if device in ("auto", "cuda") and there:
        return there
    if device in there:
        return (device,)
    valid = ", ".join(["auto", "cpu", *(["cuda"] if there else []), *there])
    raise InputError(f"no device {device!r} on this machine; valid: {valid}")
