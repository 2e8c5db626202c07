"""A Slurm cluster: an array of jobs that take cells from one queue until none is left."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from ...plugins import InputError, load_file
from ..grid import Cell
from ..provenance import versions
from ..store import Store, unlinked
from .base import Engine, Event, Job, OnEvent, Slot, failed, refuse_other, refuse_packing

if TYPE_CHECKING:
    from submitit import Executor

JOBS = 16
"""Cells at once where ``--workers`` does not say."""

READ = 1.0
"""Seconds between two looks at what the jobs tell; a hundred jobs are read in each."""

ASK = 60.0
"""Seconds between two questions to Slurm whether all jobs live."""

ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
    # of submitit's local jobs
    "FINISHED",
    "INTERRUPTED",
)
"""The states of a job that does not come back."""


class Slurm(Engine):
    """An array of Slurm jobs, by submitit; ``workers`` cells are run at once.

    The store, the user's files and this Python are on a file system that every node has. A job
    takes cells until none is left. One that is lost (killed, out of memory, out of time, its node
    down) is replaced by one that begins with the cell it was at; a cell that loses two has failed.
    What the jobs print is in ``slurm/`` of the store until the next run.

    Args:
        partition: the partition [the cluster's default].
        account: whom the jobs are charged to.
        qos: the quality of service.
        constraint: what a node must have, such as a100.
        minutes: the time limit of a job, which must be enough for any one cell [60].
        memory: of a job, in GB [the cluster's default].
        cluster: slurm, or local: processes of this machine, to try it [slurm].
    """

    name = "slurm"

    def __init__(
        self,
        *,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        minutes: int = 60,
        memory: int | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        self.at_least(1, minutes=minutes, memory=memory)
        if importlib.util.find_spec("submitit") is None:
            raise InputError("engine 'slurm' needs submitit: pip install 'aebench[slurm]'")
        if cluster == "slurm":
            for command in ("sbatch", "srun", "sacct"):
                if shutil.which(command) is None:
                    raise InputError(
                        f"engine 'slurm': this machine has no {command}: start the run where jobs "
                        "are submitted"
                    )
            asked = subprocess.run(["sacct", "--jobs=0"], capture_output=True, text=True)
            if asked.returncode:  # then nobody would tell of a lost job
                said = asked.stderr.strip().splitlines() or ["no reason given"]
                raise InputError(f"engine 'slurm' needs sacct: {said[-1]}")
        self.queue = {
            "partition": partition,
            "account": account,
            "qos": qos,
            "constraint": constraint,
        }
        self.minutes = minutes
        self.memory = memory
        self.cluster = cluster
        self.per_job = 1

    def slots(
        self, device: str, devices: int, per_device: int | None, workers: int | None, threads: int
    ) -> tuple[Slot, ...]:
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"engine 'slurm': no device {device!r}; valid: auto (cpu), cpu, cuda")
        kind = "cuda" if device == "cuda" else "cpu"
        refuse_packing(kind, per_device)
        self.per_job = per_device or 1
        return ((kind,) * devices,) * (workers or JOBS)

    def run(self, cells: list[Cell], job: Job, on_event: OnEvent) -> None:
        store = Store(job.store)
        try:
            folder = prepared(store.path, cells)
        except OSError as error:
            raise store.unwritable(error) from error
        jobs = -(-min(len(job.slots), len(cells)) // self.per_job)
        executor = self.executor(folder, cells, job.slots[0], jobs)
        array = Array(executor, self.per_job, jobs, cells, job, folder, on_event)
        try:
            array.submit([[] for _ in range(jobs)])
            while array.left:
                array.read()
        finally:
            array.cancel()
            with suppress(OSError):
                (folder / "ended").touch()

    def executor(self, folder: Path, cells: list[Cell], slot: Slot, jobs: int) -> "Executor":
        """What submits jobs for ``cells``, each on devices like ``slot``, so many at once."""
        from submitit import AutoExecutor

        cpus = len(slot) * max(cell.spec["training"]["threads"] for cell in cells)
        executor = AutoExecutor(folder, cluster=self.cluster)
        executor.update_parameters(
            name="aebench",
            nodes=1,
            tasks_per_node=self.per_job,
            cpus_per_task=cpus,
            gpus_per_node=len(slot) if slot[0] == "cuda" else None,
            timeout_min=self.minutes,
            mem_gb=self.memory,
            slurm_array_parallelism=jobs,
            # srun does not take it from sbatch since Slurm 22.05
            slurm_srun_args=[f"--cpus-per-task={cpus}"],
            # Lost jobs are replaced here: Slurm would run a cell that kills its node for ever.
            slurm_additional_parameters={"no_requeue": True},
            **{f"slurm_{name}": value for name, value in self.queue.items()},
        )
        return executor


def prepared(store: Path, cells: list[Cell]) -> Path:
    """A new folder of the store for the queue of ``cells`` and what the jobs write."""
    parent = unlinked(store / "slurm")
    parent.mkdir(exist_ok=True)
    for old in parent.iterdir():
        if (old / "ended").exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d-%H%M%S-"), dir=parent))
    Queue(folder).write(cells)
    return folder


class Queue:
    """Cells in a file, a line each, and how far it has been read: no cell is taken twice."""

    def __init__(self, folder: Path) -> None:
        self.cells, self.cursor = folder / "cells.jsonl", folder / "cursor"

    def write(self, cells: list[Cell]) -> None:
        with self.cells.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps([cell.spec, cell.key]) + "\n" for cell in cells)
        self.cursor.write_text(f"{0:020}")

    def __iter__(self) -> Iterator[Cell]:
        """The cells that nobody has taken, until there is none."""
        while line := self.take():
            yield Cell(*json.loads(line))

    def take(self) -> bytes:
        lock = FileLock(self.cursor.with_suffix(".lock"))
        with lock, self.cursor.open("r+b") as cursor, self.cells.open("rb") as cells:
            cells.seek(int(cursor.read()))
            line = cells.readline()
            cursor.seek(0)
            cursor.write(b"%020d" % cells.tell())
        return line


@dataclass(frozen=True)
class Work:
    """What every job of an array must know.

    Attributes:
        job: the store, the files and the devices.
        folder: where the queue is, and where it tells what becomes of its cells.
        versions: of the libraries, on the machine that planned the cells.
    """

    job: Job
    folder: Path
    versions: dict[str, str]


def work(work: Work, name: str, first: list[Cell]) -> None:
    """A job's life: cells in, events out, until none is left.

    Args:
        work: what every job must know.
        name: of this job, unique in its folder.
        first: the cells to begin with, shared out to the job's processes.
    """
    # Submitit survives SIGTERM, and saves a job that runs out of time as failed. Here a cell is
    # abandoned, and its claim is free, when the process ends; who started the jobs does the rest.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    from submitit import JobEnvironment

    environment = JobEnvironment()
    rank, ranks = environment.global_rank, environment.num_tasks
    report = Report(work.folder / f"{name}.{rank}.jsonl")
    slot = work.job.slots[0]
    if slot[0] == "cuda":
        slot = tuple(f"cuda:{i}" for i in range(len(slot)))
    known, own, put_off = set(), first[rank::ranks], deque[Cell]()

    def turns() -> Iterator[tuple[Cell, bool]]:
        # What is left of a lost job may hold its cell for a while.
        yield from ((cell, True) for cell in own)
        yield from ((cell, False) for cell in Queue(work.folder))
        while put_off:
            yield put_off.popleft(), True

    try:
        for file in work.job.files:
            load_file(file)
        store = Store(work.job.store)
        for cell, wait in turns():
            kind = (cell.dataset, cell.model, cell.backbone)
            if kind not in known:
                refuse_other(cell, work.versions)
                known.add(kind)
            report.tell(Event("started", cell))
            event = work.job.work(cell, store, slot, report.tell, wait)
            report.tell(event)
            if event.unwritable:
                break
            if event.kind == "elsewhere":
                put_off.append(cell)
    except InputError as error:
        report.write(kind="refused", phase=f"on {socket.gethostname()}: {error}")
    else:
        report.write(kind="left")


class Report:
    """A file in which a process of a job tells what becomes of its cells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told = 0.0

    def tell(self, event: Event) -> None:
        """Tell an event; of progress, once a second is enough."""
        if event.kind == "progress":
            if time.monotonic() - self.told < 1:
                return
            self.told = time.monotonic()
        self.write(**{**vars(event), "cell": event.cell.key})

    def write(self, **said: Any) -> None:
        # A line that is not told is no reason to lose a cell: the store has it all the same.
        with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(said) + "\n")


@dataclass(eq=False)
class Process:
    """What a process of a job has told.

    Attributes:
        path: its report.
        later: the keys of the cells that it has besides: to begin with, or put off as another run
            is at them.
        at: the key of the cell that it is at.
        read: how many bytes of its report have been read.
        started: whether it has begun a cell.
        left: whether it has ended well.
    """

    path: Path
    later: set[str]
    at: str = ""
    read: int = 0
    started: bool = False
    left: bool = False

    def news(self) -> list[dict[str, Any]]:
        """What it has told since."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.read)
                text = file.read()
        except OSError:  # it has not begun
            return []
        lines = text[: text.rfind(b"\n") + 1]
        self.read += len(lines)
        said = []
        for line in lines.splitlines():
            with suppress(ValueError):  # a disk that was full for a while
                said.append(json.loads(line))
        return said


@dataclass(eq=False)
class Submitted:
    """A job and its processes."""

    job: Any
    processes: list[Process]


@dataclass(eq=False)
class Array:
    """The jobs of a run, as seen from where it was started.

    Attributes:
        executor: what submits jobs.
        per_job: the processes of a job.
        size: how many jobs there may be.
        cells: what is to be run.
        job: what every worker must know.
        folder: where the queue is, and the reports.
        on_event: told what becomes of every cell.
    """

    executor: "Executor"
    per_job: int
    size: int
    cells: list[Cell]
    job: Job
    folder: Path
    on_event: OnEvent
    jobs: list[Submitted] = field(default_factory=list)
    count: int = 0
    started: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    unseen: dict[str, Cell] = field(default_factory=dict)
    fruitless: int = 0
    cancelled: bool = False
    asked: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.left = {cell.key: cell for cell in self.cells}
        self.store = Store(self.job.store)

    def submit(self, firsts: list[list[Cell]]) -> None:
        """Submit a job for each list of cells, which are those it begins with.

        Raises:
            InputError: Slurm refuses them.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        names = [str(self.count + i) for i in range(len(firsts))]
        self.count += len(firsts)
        alike = replace(self.job, slots=self.job.slots[:1])
        shared = [Work(alike, self.folder, versions())] * len(firsts)
        try:
            jobs = self.executor.map_array(work, shared, names, firsts)
        except (FailedJobError, FailedSubmissionError) as error:
            said = str(error).strip().splitlines() or ["no reason given"]
            raise InputError(f"engine 'slurm': {said[-1]}") from None
        for name, job, first in zip(names, jobs, firsts):
            processes = [
                Process(
                    self.folder / f"{name}.{rank}.jsonl",
                    {cell.key for cell in first[rank :: self.per_job]},
                )
                for rank in range(self.per_job)
            ]
            self.jobs.append(Submitted(job, processes))

    def read(self) -> None:
        """Wait a little, pass on what the jobs have told, and replace those that are lost."""
        time.sleep(READ * max(1, len(self.jobs) / 100))
        if self.jobs and time.monotonic() - self.asked > ASK:
            self.jobs[0].job.get_info(mode="force")  # one question for all
            self.asked = time.monotonic()
        again: list[list[Cell]] = []
        for submitted in list(self.jobs):
            state = submitted.job.state.partition(" ")[0]  # first: what is read then is all
            for process in submitted.processes:
                self.listen(process)
            if all(process.left for process in submitted.processes):
                self.jobs.remove(submitted)
            elif state in ENDED:
                self.jobs.remove(submitted)
                again += self.replaced(submitted, state)
        self.look()
        if not self.jobs and not again and self.left:
            again = self.forgotten()
        if again:
            self.submit(again)

    def listen(self, process: Process) -> None:
        """Pass on what a process tells.

        Raises:
            InputError: it refuses to work.
        """
        for said in process.news():
            if said["kind"] == "left":
                process.left = True
            elif said["kind"] == "refused":
                raise InputError(said["phase"])
            elif cell := self.left.get(said["cell"]):
                event = Event(**{**said, "cell": cell})
                if event.kind == "started":
                    process.at, process.started = cell.key, True
                    process.later.discard(cell.key)
                    self.started.add(cell.key)
                elif event.kind != "progress":
                    process.at = ""
                    self.fruitless = 0
                if event.kind == "elsewhere":
                    process.later.add(cell.key)
                if event.kind == "done":
                    self.unseen[cell.key] = cell
                else:
                    self.tell(event)

    def tell(self, event: Event) -> None:
        if event.kind in ("done", "failed"):
            self.left.pop(event.cell.key, None)
        self.on_event(event)

    def look(self) -> None:
        """Tell of finished cells once they are seen here: a file system may be a minute late."""
        for cell in [cell for cell in self.unseen.values() if self.store.has(cell)]:
            del self.unseen[cell.key]
            self.tell(Event("done", cell))

    def replaced(self, submitted: Submitted, state: str) -> list[list[Cell]]:
        """The cells that a job begins with which replaces a lost one, if one must.

        Raises:
            InputError: jobs end before they begin a cell.
        """
        if state == "CANCELLED":  # by a person
            self.cancelled = True
            return []
        if not any(process.started for process in submitted.processes):
            self.fruitless += 1
            if self.fruitless > self.size:
                raise InputError(
                    f"engine 'slurm': {self.fruitless} jobs ended before their first cell; the "
                    f"last one is {state}, its log {submitted.job.paths.stderr}"
                )
        first: list[Cell] = []
        for process in submitted.processes:
            first += self.once_more(self.still({process.at}), state)
            first += self.still(process.later)
        return [first] if first or len(self.started) < len(self.cells) else []

    def still(self, keys: Iterable[str]) -> list[Cell]:
        """The cells of ``keys`` that are not known to have ended."""
        return [self.left[key] for key in keys if key in self.left and key not in self.unseen]

    def once_more(self, cells: list[Cell], state: str) -> list[Cell]:
        """Those of ``cells``, whose job was lost in ``state``, that are tried once more."""
        again = []
        for cell in cells:
            before = self.lost.get(cell.key)
            if self.store.has(cell):
                self.unseen[cell.key] = cell
            elif before and state != "PREEMPTED":
                how = f"its job ended {before}, and the next one {state}"
                self.tell(failed(cell, self.store, how))
            else:
                again.append(cell)
                if state != "PREEMPTED":
                    self.lost[cell.key] = state
        return again

    def forgotten(self) -> list[list[Cell]]:
        """The cells that no job has told the end of, for jobs to begin with, when none is left.

        Raises:
            KeyboardInterrupt: the user cancelled the jobs.
        """
        cells = self.still(self.left)
        if cells and self.cancelled:
            raise KeyboardInterrupt
        first = self.once_more(cells, "without a word")
        return [part for i in range(self.size) if (part := first[i :: self.size])]

    def cancel(self) -> None:
        """Cancel the jobs that are left."""
        if not self.jobs:
            return
        from submitit.slurm.slurm import SlurmJob

        if isinstance(self.jobs[0].job, SlurmJob):
            arrays = {submitted.job.job_id.partition("_")[0] for submitted in self.jobs}
            subprocess.run(["scancel", *sorted(arrays)], check=False)
            return
        for submitted in self.jobs:
            # Submitit would send SIGINT, which processes in a shell's background ignore.
            with suppress(ProcessLookupError):
                os.kill(int(submitted.job.job_id), signal.SIGTERM)
