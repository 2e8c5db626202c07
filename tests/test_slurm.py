"""The engine `slurm`: what Slurm is asked for, what becomes of lost jobs, and real jobs.

Real jobs are submitit's local ones, and Slurm's where the tests run on a machine that has it.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aebench.benchmark import run
from aebench.benchmark.engines import Event, Job, Slot
from aebench.benchmark.grid import Cell
from aebench.benchmark.store import Store
from aebench.plugins import InputError
from filelock import FileLock

pytest.importorskip("submitit")

from aebench.benchmark.engines import slurm
from aebench.benchmark.engines.slurm import Array, Queue, Report, Slurm
from runs import CLI, helped, members, numbers, stopped

CLUSTERS = [
    "local",
    pytest.param("slurm", marks=pytest.mark.skipif(not shutil.which("sbatch"), reason="no Slurm")),
]


def made(n: int, threads: int = 1) -> list[Cell]:
    """Cells that are never run."""
    spec: dict[str, Any] = {
        "dataset": {"name": "digits", "parameters": {}},
        "model": {"name": "vae", "hyperparameters": {}},
        "backbone": None,
        "training": {"threads": threads},
        "evaluation": {},
        "device": "cpu",
    }
    return [Cell({**spec, "seed": i}, f"{i:064}") for i in range(n)]


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Path:
    """Stand-ins for Slurm's commands; the folder has what each was given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        command = folder / name
        command.write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/{name}.said\n'
            + (f'cat "$1" > {folder}/script\necho "Submitted batch job 7"\n' * (name == "sbatch"))
        )
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_without_submitit_a_line_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs submitit: pip install 'aebench\[slurm\]'"):
        Slurm(cluster="local")


def test_without_slurm_a_line_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="this machine has no sbatch"):
        Slurm()


def test_without_accounting_a_line_says_so(commands) -> None:
    (commands / "sacct").write_text("#!/bin/sh\necho 'accounting is disabled' >&2\nexit 1\n")
    with pytest.raises(InputError, match="needs sacct: accounting is disabled"):
        Slurm()


def test_slots_are_of_a_kind_and_need_no_gpu_here() -> None:
    engine = Slurm(cluster="local")
    assert engine.slots("auto", 1, None, None, 1) == (("cpu",),) * 16
    assert engine.slots("cpu", 2, None, 3, 1) == (("cpu", "cpu"),) * 3
    assert engine.slots("cuda", 1, None, 1000, 1) == (("cuda",),) * 1000
    with pytest.raises(InputError, match="no device 'cuda:1'; valid: auto"):
        engine.slots("cuda:1", 1, None, None, 1)
    with pytest.raises(InputError, match="--per-device is for GPUs"):
        engine.slots("cpu", 1, 2, None, 1)


@pytest.mark.parametrize(
    "given", [{"minutes": 0}, {"memory": 0}, {"cluster": "ray"}, {"partition": 3}]
)
def test_bad_values_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(given))):
        Slurm.make("slurm", {"cluster": "local", **given})


def asked(commands: Path, tmp_path: Path, engine: Slurm, cells: list[Cell], **of: Any) -> set[str]:
    """The options of the script that sbatch is given."""
    given = {"device": "auto", "devices": 1, "per_device": None, "workers": 4, "threads": 1, **of}
    slots = engine.slots(**given)
    executor = engine.executor(tmp_path / "jobs", cells, slots[0], 4)
    executor.map_array(print, range(4))
    lines = (commands / "script").read_text().splitlines()
    return {line.partition("--")[2] for line in lines if line.startswith("#SBATCH")}


def test_what_slurm_is_asked_for(commands, tmp_path) -> None:
    engine = Slurm(
        partition="long", account="lab", qos="low", constraint="a100", minutes=30, memory=8
    )
    cells = [*made(3), *made(1, threads=4)]
    assert {
        "array=0-3%4",
        "partition=long",
        "account=lab",
        "qos=low",
        "constraint=a100",
        "time=30",
        "mem=8GB",
        "nodes=1",
        "ntasks-per-node=1",
        "cpus-per-task=8",  # of the cell with most threads, on each of two devices
        "no-requeue",
    } <= asked(commands, tmp_path, engine, cells, device="cpu", devices=2)
    assert "--cpus-per-task=8" in (commands / "script").read_text().splitlines()[-1]


def test_what_nobody_asked_for_is_left_to_the_cluster(commands, tmp_path) -> None:
    options = asked(commands, tmp_path, Slurm(), made(1))
    names = {option.partition("=")[0] for option in options}
    assert not names & {"partition", "account", "qos", "constraint", "mem", "gpus-per-node"}


def test_gpus_are_asked_for_and_packed(commands, tmp_path) -> None:
    options = asked(commands, tmp_path, Slurm(), made(1), device="cuda", devices=2, per_device=3)
    assert {"gpus-per-node=2", "ntasks-per-node=3", "cpus-per-task=2"} <= options


def test_a_refusal_of_sbatch_is_one_line(commands, tmp_path) -> None:
    (commands / "sbatch").write_text("#!/bin/sh\necho 'error: invalid partition' >&2\nexit 1\n")
    store = Store(tmp_path / "store", create=True)
    engine = Slurm(partition="nowhere")
    slots = engine.slots("auto", 1, None, 2, 1)
    with pytest.raises(InputError, match=r"^engine 'slurm': error: invalid partition$"):
        engine.run(made(2), Job(store.path, slots=slots), lambda event: None)


def test_a_queue_gives_each_cell_once(tmp_path) -> None:
    cells = made(3)
    Queue(tmp_path).write(cells)
    assert list(Queue(tmp_path)) == cells
    assert list(Queue(tmp_path)) == []


def test_a_queue_is_read_by_one_at_a_time(tmp_path) -> None:
    Queue(tmp_path).write(made(2))
    with ThreadPoolExecutor(1) as pool:
        with FileLock(Queue(tmp_path).cursor.with_suffix(".lock")):
            taken = pool.submit(Queue(tmp_path).take)
            with pytest.raises(TimeoutError):
                taken.result(timeout=0.3)
        assert taken.result(timeout=30)


class Cluster:
    """Jobs that do what a test says: a stand-in for submitit's executor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[SimpleNamespace] = []
        self.firsts: list[list[Cell]] = []

    def map_array(self, work, shared, names, firsts) -> list[SimpleNamespace]:
        jobs = [
            SimpleNamespace(
                job_id=name,
                state="RUNNING",
                report=Report(self.folder / f"{name}.0.jsonl"),
                paths=SimpleNamespace(stderr=f"{name}.err"),
                get_info=lambda mode: {},
            )
            for name in names
        ]
        self.jobs += jobs
        self.firsts += firsts
        return jobs


@pytest.fixture
def array(tmp_path, monkeypatch) -> Array:
    """Two jobs for four cells, and the events that are told."""
    monkeypatch.setattr(slurm, "READ", 0)
    store = Store(tmp_path / "store", create=True)
    folder = tmp_path / "jobs"
    folder.mkdir()
    events: list[Event] = []
    found: Any = Array(Cluster(folder), 1, 2, made(4), Job(store.path), folder, events.append)  # type: ignore[arg-type]
    found.submit([[], []])
    found.events = events
    return found


def tell(array: Array, job: int, kind: str, *cells: int) -> None:
    for i in cells:
        cell = array.cells[i]
        if kind == "done":
            array.store.folder(cell).mkdir()
        array.executor.jobs[job].report.tell(Event(kind, cell))


def lose(array: Array, job: int, state: str) -> None:
    array.executor.jobs[job].state = state
    array.read()


def told(array: Array) -> list[tuple[str, int]]:
    return [(event.kind, event.cell.seed) for event in array.events]


def test_what_jobs_tell_is_passed_on(array) -> None:
    tell(array, 0, "started", 0)
    tell(array, 1, "started", 1)
    array.executor.jobs[0].report.tell(Event("progress", array.cells[0], "training", 1, 3))
    array.read()
    tell(array, 0, "done", 0)
    tell(array, 1, "failed", 1)
    array.read()
    assert told(array) == [
        ("started", 0),
        ("progress", 0),
        ("started", 1),
        ("failed", 1),
        ("done", 0),
    ]
    assert array.events[1] == Event("progress", array.cells[0], "training", 1, 3)
    assert set(array.left) == {cell.key for cell in array.cells[2:]}


def test_a_finished_cell_is_told_once_it_is_seen(array) -> None:
    tell(array, 0, "started", 0)
    array.executor.jobs[0].report.tell(Event("done", array.cells[0]))
    array.read()
    assert told(array) == [("started", 0)]
    array.store.folder(array.cells[0]).mkdir()
    array.read()
    assert told(array) == [("started", 0), ("done", 0)]


def test_half_a_line_waits_for_its_end(array) -> None:
    tell(array, 0, "started", 0)
    path = array.executor.jobs[0].report.path
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    array.read()
    assert told(array) == []
    path.write_bytes(whole)
    array.read()
    assert told(array) == [("started", 0)]


def test_a_lost_job_is_replaced_by_one_that_begins_with_its_cell(array) -> None:
    tell(array, 0, "started", 0)
    lose(array, 0, "NODE_FAIL")
    assert array.executor.firsts[2:] == [[array.cells[0]]]
    tell(array, 2, "started", 0)
    lose(array, 2, "OUT_OF_MEMORY")
    event = array.events[-1]
    assert event.kind == "failed"
    assert event.phase == "its job ended NODE_FAIL, and the next one OUT_OF_MEMORY"
    about = json.loads(array.store.failure(array.cells[0]).read_text())
    assert about["error"] == event.phase
    assert array.executor.firsts[3:] == [[]]  # there are more cells to take


def test_a_cell_that_was_finished_before_its_job_was_lost_is_done(array) -> None:
    tell(array, 0, "started", 0)
    array.store.folder(array.cells[0]).mkdir()
    lose(array, 0, "TIMEOUT")
    assert told(array) == [("started", 0), ("done", 0)]
    assert array.executor.firsts[2:] == [[]]


def test_preemption_is_held_against_no_cell(array) -> None:
    tell(array, 0, "started", 0)
    for job, state in ((0, "PREEMPTED"), (2, "NODE_FAIL"), (3, "PREEMPTED")):
        lose(array, job, state)
        tell(array, len(array.executor.jobs) - 1, "started", 0)
    assert array.executor.firsts[2:] == [[array.cells[0]]] * 3
    assert not list(array.store.failed.iterdir())


def test_a_cell_that_was_put_off_is_not_lost_with_its_job(array) -> None:
    tell(array, 0, "started", 0)
    tell(array, 0, "elsewhere", 0)
    tell(array, 0, "started", 1)
    lose(array, 0, "TIMEOUT")
    assert array.executor.firsts[2:] == [[array.cells[1], array.cells[0]]]
    assert set(array.lost) == {array.cells[1].key}


def test_a_replacement_that_does_not_begin_passes_its_cell_on(array) -> None:
    tell(array, 0, "started", 0)
    lose(array, 0, "NODE_FAIL")
    lose(array, 2, "NODE_FAIL")
    assert array.executor.firsts[2:] == [[array.cells[0]]] * 2
    assert not list(array.store.failed.iterdir())


def test_no_job_is_submitted_for_nothing(array) -> None:
    for job, cells in ((0, (0, 1)), (1, (2, 3))):
        for i in cells:
            tell(array, job, "started", i)
            tell(array, job, "done", i)
    array.read()
    lose(array, 0, "FAILED")
    array.executor.jobs[1].report.write(kind="left")
    array.read()
    assert not array.left
    assert len(array.executor.jobs) == 2


def test_jobs_that_a_person_cancels_end_the_run(array) -> None:
    tell(array, 0, "started", 0)
    lose(array, 0, "CANCELLED by 1000")
    assert len(array.jobs) == 1
    with pytest.raises(KeyboardInterrupt):
        lose(array, 1, "CANCELLED by 1000")


def test_cells_of_which_nothing_was_told_are_tried_again(array) -> None:
    tell(array, 0, "started", 0, 1, 2, 3)
    tell(array, 0, "done", 0)
    for job in array.executor.jobs:
        job.report.write(kind="left")
    array.read()
    assert array.executor.firsts[2:] == [[array.cells[1], array.cells[3]], [array.cells[2]]]


def test_jobs_that_cannot_begin_end_the_run_and_name_the_log(array) -> None:
    with pytest.raises(InputError, match=r"ended before their first cell; .* FAILED, its log 2"):
        for job in range(9):
            lose(array, job, "FAILED")
    assert len(array.executor.jobs) < 6


def test_a_refusal_to_work_ends_the_run(array) -> None:
    array.executor.jobs[1].report.write(kind="refused", phase="on n1: torch is 2.0, not 2.1")
    with pytest.raises(InputError, match=r"on n1: torch is 2.0, not 2.1"):
        array.read()


def test_a_thousand_jobs_are_read_a_hundred_a_second(array, monkeypatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(slurm, "READ", 1.0)
    monkeypatch.setattr(slurm.time, "sleep", slept.append)
    array.read()
    array.submit([[]] * 998)
    array.read()
    assert slept == [1, 10]


def test_arrays_are_cancelled_whole(commands, array) -> None:
    from submitit.slurm.slurm import SlurmJob

    ids = ["12_0", "12_1", "31"]
    array.jobs = [slurm.Submitted(SlurmJob(folder=array.folder, job_id=name), []) for name in ids]
    array.cancel()
    assert (commands / "scancel.said").read_text() == "12 31\n"


def test_progress_is_told_once_a_second(tmp_path) -> None:
    report, (cell,) = Report(tmp_path / "report"), made(1)
    for i in range(100):
        report.tell(Event("progress", cell, "training", i, 100))
    report.tell(Event("done", cell))
    kinds = [json.loads(line)["kind"] for line in report.path.read_text().splitlines()]
    assert kinds == ["progress", "done"]


def test_a_report_that_cannot_be_written_stops_nothing(tmp_path) -> None:
    Report(tmp_path / "gone" / "report").tell(Event("done", made(1)[0]))


# Real jobs.

PLUGINS = """
import os, signal
from pathlib import Path
from aebench.models import VAE, Batch, Terms

class Killed(VAE):
    name = "killed"
    def losses(self, batch: Batch) -> Terms:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(batch)

class Survivor(VAE):
    name = "survivor"
    def losses(self, batch: Batch) -> Terms:
        marker = Path(os.environ["KILLED_ONCE"])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(batch)
"""


class Packed(Slurm):
    """Two processes a job, without a GPU."""

    def slots(self, *given: Any) -> tuple[Slot, ...]:
        slots = super().slots(*given)
        self.per_job = 2
        return slots


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("kind", [Slurm, Packed])
def test_rows_equal_those_of_the_local_engine(cluster: Any, kind: type[Slurm], tmp_path) -> None:
    run("smoke", seeds=3, out=tmp_path / "here", workers=1, device="cpu")
    events: list[Event] = []
    out, engine = tmp_path / "there", kind(cluster=cluster, minutes=10)
    run("smoke", seeds=3, out=out, engine=engine, workers=2, on_event=events.append)
    assert numbers(out) == numbers(tmp_path / "here")
    kinds = [event.kind for event in events if event.kind != "progress"]
    assert sorted(kinds) == ["done"] * 6 + ["started"] * 6
    reports = [path for path in (out / "slurm").glob("*/*.jsonl") if path.name != "cells.jsonl"]
    assert {path.name for path in reports} == (
        {"0.0.jsonl", "1.0.jsonl"} if kind is Slurm else {"0.0.jsonl", "0.1.jsonl"}
    )
    # The next run leaves nothing of the last one's folder.
    run("smoke", seeds=4, out=out, engine=Slurm(cluster="local"), workers=1)
    assert len(list((out / "slurm").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_killed_jobs_cost_a_cell_one_try(cluster: Any, tmp_path, monkeypatch) -> None:
    """A cell that is killed once is run again; one that always is fails; the others go on."""
    file = tmp_path / "plugins.py"
    file.write_text(PLUGINS)
    marker = tmp_path / "marker"
    monkeypatch.setenv("KILLED_ONCE", str(marker))
    given: dict[str, Any] = {"models": ["pca", "survivor"], "files": [file], "seeds": 2}
    engine = Slurm(cluster=cluster, minutes=10)
    run("smoke", **given, out=tmp_path / "out", engine=engine, workers=2)
    assert marker.exists()
    run("smoke", **given, out=tmp_path / "whole", workers=1, device="cpu")
    assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")

    given |= {"models": ["pca", "killed"], "seeds": 1}
    rows = run("smoke", **given, out=tmp_path / "failing", engine=engine, workers=2)
    failed = rows[rows.metric == "failed"].set_index("model").note
    ended = "FINISHED" if cluster == "local" else "FAILED"
    assert dict(failed) == {"killed": f"its job ended {ended}, and the next one {ended}"}
    assert set(rows[rows.metric == "mse"].model) == {"pca"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_jobs(number: signal.Signals, tmp_path) -> None:
    """Ctrl-C reaches the whole group, a SIGTERM the run alone; the next run finishes the rest."""
    out = tmp_path / "out"
    command = [*CLI, "run", "smoke", "--seeds", "10", "--workers", "2", "--out", str(out)]
    command += ["--engine", "slurm", "--slurm-cluster", "local", "--set", "metrics=[mse]"]
    process, said = stopped(command, number, lambda: list(out.glob("cells/*")))
    assert process.returncode == 130, said
    assert "goes on from here" in said
    deadline = time.monotonic() + 20
    while alive := members(process.pid):
        assert time.monotonic() < deadline, alive
        time.sleep(0.2)
    made_before = {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*")}
    assert 0 < len(made_before) < 20
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    made_after = {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*")}
    assert len(made_after) == 20
    assert made_before.items() <= made_after.items()


@pytest.mark.slow
def test_jobs_outlive_who_started_them(tmp_path) -> None:
    """What the driver loses, the jobs finish."""
    out = tmp_path / "out"
    command = [*CLI, "run", "smoke", "--seeds", "10", "--workers", "2", "--out", str(out)]
    command += ["--engine", "slurm", "--slurm-cluster", "local", "--set", "metrics=[mse]"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(out.glob("cells/*")):
            time.sleep(0.1)
        process.kill()
        process.wait()
        assert len(list(out.glob("cells/*"))) < 20
        while time.monotonic() < deadline and members(process.pid):
            time.sleep(0.2)
        assert len(list(out.glob("cells/*"))) == 20
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_help_imports_no_submitit() -> None:
    assert "--slurm-partition" in helped(["run", "--help"], {"submitit", "torch"})
