"""Processes of this machine: long-lived workers, so that imports are paid once."""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from ...plugins import InputError, load_file
from ..grid import Cell
from ..store import Store
from .base import Engine, Event, Job, OnEvent, Slot, failed, refuse_packing

PRELOAD = __package__.rpartition(".")[0] + ".preload"
STARTS = 3
"""So many workers in a row may die before they take a cell; then the run ends."""


class Local(Engine):
    """A worker process a slot; a single one is this process itself.

    A worker that dies (killed, out of memory) is replaced, and its cell is tried once more; the
    second time it fails. The workers share one copy of each dataset.
    """

    name = "local"

    def slots(
        self, device: str, devices: int, per_device: int | None, workers: int | None, threads: int
    ) -> tuple[Slot, ...]:
        there = devices_of(device)
        if there == ("cpu",):
            refuse_packing("cpu", per_device)
            count = workers or max(1, cores() // (threads * devices))
            return (("cpu",) * devices,) * count
        groups = [there[i : i + devices] for i in range(0, len(there) - devices + 1, devices)]
        if not groups:
            raise InputError(f"--devices {devices}: there are {len(there)}: {', '.join(there)}")
        count = workers or len(groups) * (per_device or 1)
        return tuple(groups[i % len(groups)] for i in range(count))

    def prepare(self, workers: int | None) -> None:
        if workers != 1 and cores() > 1:
            with suppress(OSError):  # it is met again when a worker starts
                start_fork_server()

    def run(self, cells: list[Cell], job: Job, on_event: OnEvent) -> None:
        if len(job.slots) > 1:
            with shared_datasets(cells) as datasets:
                Workers(cells, job, datasets, on_event).run()
            return
        queue, store = Queue(cells), Store(job.store)
        while turn := queue.take():
            on_event(Event("started", turn.cell))
            event = job.work(turn.cell, store, job.slots[0], on_event, turn.wait)
            queue.hear(event)
            on_event(event)


class Turn(NamedTuple):
    """A cell to run, and whether to wait for another run that is at it."""

    cell: Cell
    wait: bool = False


class Queue:
    """The cells that no worker has: the given ones in order, then those that were put off."""

    def __init__(self, cells: list[Cell]) -> None:
        self.turns = deque(map(Turn, cells))
        self.put_off: deque[Turn] = deque()

    def take(self) -> Turn | None:
        """The next; None where none is left."""
        turns = self.turns or self.put_off
        return turns.popleft() if turns else None

    def hear(self, event: Event) -> None:
        """Put off a cell that another run is at."""
        if event.kind == "elsewhere":
            self.put_off.append(Turn(event.cell, wait=True))


class Workers:
    """The workers of a run, and the cells they are given."""

    def __init__(
        self, cells: list[Cell], job: Job, datasets: Mapping[str, Path], on_event: OnEvent
    ) -> None:
        self.queue, self.store, self.on_event = Queue(cells), Store(job.store), on_event
        self.workers = [Worker(job, slot, datasets) for slot in job.slots[: len(cells)]]
        self.deaths: dict[str, str] = {}  # of the first worker of a cell, by its key
        self.failed_starts = 0

    def run(self) -> None:
        """Run every cell; no worker outlives this.

        Raises:
            InputError: workers cannot start.
        """
        try:
            for worker in self.workers:
                self.start(worker)
            while busy := [worker for worker in self.workers if worker.turn]:
                ready = wait([handle for worker in busy for handle in worker.handles])
                for worker in busy:
                    if any(handle in ready for handle in worker.handles):
                        self.hear(worker)
        finally:
            for worker in self.workers:
                worker.kill()
            for worker in self.workers:
                if worker.process.pid is not None:
                    worker.process.join()

    def start(self, worker: "Worker") -> None:
        """Start a worker with the next cell."""
        while True:
            try:
                worker.start()
                break
            except (EOFError, OSError) as error:
                self.failed_start(str(error) or "the fork server died")
                time.sleep(0.5)  # until the fork server is seen to be dead, and is replaced
        worker.take(self.queue)

    def failed_start(self, why: str) -> None:
        self.failed_starts += 1
        if self.failed_starts == STARTS:
            raise InputError(f"no worker can start: {why}")

    def hear(self, worker: "Worker") -> None:
        """Pass on what a worker says, and give it its next cell."""
        event = worker.receive()
        if event is None:
            event = self.bury(worker)
            worker.renew()
            self.start(worker)
        else:
            self.failed_starts = 0
            self.queue.hear(event)
            if event.kind not in ("started", "progress"):
                # The next cell first: what the listener does must not keep a worker idle.
                worker.take(self.queue)
        if event is not None:
            self.on_event(event)

    def bury(self, worker: "Worker") -> Event | None:
        """Put the cell of a dead worker back to be tried once more; if it was, it has failed."""
        how = worker.died()
        assert worker.turn is not None
        cell = worker.turn.cell
        if worker.silent:
            self.failed_start(f"the last one {how}")
        elif cell.key in self.deaths:
            first = self.deaths[cell.key]
            second = "twice" if how == first else f"then it {how}"
            return failed(cell, self.store, f"its worker {first}, {second}")
        else:
            self.deaths[cell.key] = how
        self.queue.turns.appendleft(worker.turn)
        return None


class Worker:
    """A process at the head of a group, so that what it starts ends with it, and a pipe to it.

    Attributes:
        turn: the cell that it has.
        silent: whether it has said nothing yet.
    """

    def __init__(self, job: Job, slot: Slot, datasets: Mapping[str, Path]) -> None:
        self.given = (job, slot, datasets)
        self.turn: Turn | None = None
        self.renew()

    def renew(self) -> None:
        """Have a process that is yet to be started."""
        context: Any = multiprocessing.get_context(method())
        self.pipe, self.theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=serve, args=(self.theirs, *self.given, dict(os.environ))
        )
        self.silent = True

    def start(self) -> None:
        """Start the process.

        Raises:
            EOFError, OSError: it cannot be started.
        """
        with main_hidden():
            start_fork_server()
            self.process.start()
        self.theirs.close()

    @property
    def handles(self) -> tuple[Connection, int]:
        """What is ready when the worker has said something, or has died."""
        return self.pipe, self.process.sentinel

    def take(self, queue: Queue) -> None:
        self.turn = queue.take()
        if self.turn:
            with suppress(OSError):  # if it has died, its handles say so
                self.pipe.send(self.turn)

    def receive(self) -> Event | None:
        """What the worker says next; None if it has died.

        Raises:
            InputError: it says that it cannot start.
        """
        try:
            said = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            return None
        if isinstance(said, str):
            raise InputError(f"no worker can start: {said}")
        self.silent = False
        return said

    def died(self) -> str:
        """How it did."""
        self.process.join(1)  # not for ever: perhaps it has only lost its pipe, or the fork server
        self.kill()
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            return "was killed by SIGKILL (out of memory?)"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def kill(self) -> None:
        """End it, and what it has started."""
        if self.process.pid is not None:
            self.process.kill()
            with suppress(OSError):
                kill_group(self.process.pid)


def method() -> str:
    """How workers start: in milliseconds, forked from a process that has imported all, if they can.

    That process listens at a socket in the temporary folder, whose path may have 107 bytes.
    """
    short = len(os.fsencode(tempfile.gettempdir())) <= 70
    can = "forkserver" in multiprocessing.get_all_start_methods()
    return "forkserver" if can and short else "spawn"


def start_fork_server() -> None:
    """Start the process that workers are forked from, unless it is there; it ends with this one."""
    if method() != "forkserver":
        return
    forkserver.set_forkserver_preload([PRELOAD])
    resource_tracker.ensure_running()  # it would unblock the signal below
    # A process inherits what is blocked: Ctrl-C is for this one, which hears of it afterwards.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


@contextmanager
def shared_datasets(cells: list[Cell]) -> Iterator[dict[str, Path]]:
    """A file of every dataset of ``cells`` for workers to map, by the choice as JSON.

    Raises:
        InputError: there is no room for them.
    """
    from ...datasets.shared import share
    from ..cell import choice_of, held_dataset

    choices = dict.fromkeys(choice_of(cell.spec) for cell in cells)
    with tempfile.TemporaryDirectory(prefix="aebench-") as folder:
        try:
            files = {choice: share(held_dataset(choice), Path(folder)) for choice in choices}
        except OSError as error:
            raise InputError(f"datasets cannot be shared in {folder} ($TMPDIR): {error}") from None
        yield files


def serve(
    pipe: Connection,
    job: Job,
    slot: Slot,
    datasets: Mapping[str, Path],
    environment: Mapping[str, str],
) -> None:
    """A worker's life: cells in, events out, until its parent is gone.

    Args:
        pipe: to the parent.
        job: what the run is.
        slot: the worker's devices.
        datasets: the files of :func:`shared_datasets`.
        environment: the parent's; the fork server's is of the time when that was started.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=die_with_parent, args=(datasets,), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # only the CLI prints
    os.environ.clear()
    os.environ.update(environment)
    try:
        from .. import cell

        cell.shared.update(datasets)
        for file in job.files:
            load_file(file)
        store = Store(job.store)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    with suppress(EOFError):
        while True:
            turn = pipe.recv()
            pipe.send(Event("started", turn.cell))
            pipe.send(job.work(turn.cell, store, slot, pipe.send, turn.wait))


def die_with_parent(datasets: Mapping[str, Path]) -> None:
    """End this process when its parent ends, however that was, in the middle of a cell too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    for folder in {file.parent for file in datasets.values()}:
        shutil.rmtree(folder, ignore_errors=True)
    kill_group(0)


def kill_group(leader: int) -> None:
    """End a group of processes, 0 being that of this one; only this one where there are none."""
    if hasattr(os, "killpg"):
        os.killpg(leader, signal.SIGKILL)
    elif not leader:
        os._exit(1)


def cores() -> int:
    """The CPU cores that this process may use, by its affinity and by its container's quota."""
    from joblib import cpu_count  # which imports numpy

    return int(cpu_count())


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
