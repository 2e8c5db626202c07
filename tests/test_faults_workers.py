"""Workers that are killed or run out of memory: no row is lost, wrong or made twice."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aebench.benchmark.engines import Event, Job, OnEvent, Slot
from aebench.benchmark.engines.local import Local
from aebench.benchmark.grid import Cell
from aebench.benchmark.store import Store
from runs import CLI, members, numbers

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def servers(run: int) -> list[int]:
    """The fork servers of a run."""
    found = []
    for pid in children(run):
        try:
            if "multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
        except OSError:
            continue
    return found


def workers(run: int) -> list[int]:
    return [worker for server in servers(run) for worker in children(server)]


def ends(leader: int) -> bool:
    """Whether nothing of a session is left, soon."""
    deadline = time.monotonic() + 20
    while members(leader) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not members(leader)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The folder in which a run shares its datasets; empty again at the end.

    Its path is short: the fork server's socket is below it.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        assert not list(Path(folder).glob("aebench-*"))


def test_workers_killed_at_random_in_a_hundred_cells(tmp_path, temporary) -> None:
    """Workers and, now and then, the server that they fork from."""
    grid = ["smoke", "--seeds", "50", "--device", "cpu", "--workers", "2"]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    start = time.monotonic()
    subprocess.run([*CLI, "run", *grid, "--out", str(whole)], check=True, capture_output=True)
    interval = 1.5 * 2 * (time.monotonic() - start) / 100  # half as long again as a cell takes
    command = [*CLI, "run", *grid, "--out", str(out)]
    generator, kills = random.Random(0), Counter[str]()
    finished: dict[str, int] = {}
    for _ in range(20):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
            start_new_session=True,
        )
        while process.poll() is None:
            time.sleep(generator.expovariate(1 / interval))
            found, kind = workers(process.pid), "worker"
            if found and generator.random() < 0.05:
                found, kind = servers(process.pid), "server"
            if found:
                with suppress(ProcessLookupError):
                    os.kill(generator.choice(found), signal.SIGKILL)
                    kills[kind] += 1
        said, _ = process.communicate()
        assert "Traceback" not in said
        assert ends(process.pid)
        for folder in out.glob("cells/*"):
            made = (folder / "cell.json").stat().st_mtime_ns
            assert finished.setdefault(folder.name, made) == made, "a finished cell ran again"
        if "no worker can start" in said:  # three in a row were killed as soon as they were born
            continue
        assert process.returncode in (0, 1), said
        rows = pd.read_csv(out / "rows.csv")
        lost = rows[rows.metric == "failed"]
        assert len(set(rows.cell)) == 100, "a failed cell is a row"
        assert process.returncode == bool(len(lost))
        assert lost.unit.str.startswith("its worker ").all()
        if process.returncode == 0:
            break
    assert kills["worker"] >= 10
    assert len(finished) == 100
    assert numbers(out) == numbers(whole)
    assert not list((out / "under_way").iterdir())
    assert not list((out / "failed").iterdir())


GREEDY = """
import os, signal
import torch
from torch import Tensor
from aebench.models import VAE, Batch, Terms

class Greedy(VAE):
    name = "greedy"
    def losses(self, batch: Batch) -> Terms:
        held = []
        while True:
            held.append(torch.empty(2**30, dtype=torch.uint8))

class Hungry(VAE):
    name = "hungry"
    def losses(self, batch: Batch) -> Terms:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does to what takes too much
"""


def test_out_of_memory_fails_a_cell_and_the_others_go_on(tmp_path, temporary) -> None:
    file = tmp_path / "greedy.py"
    file.write_text(GREEDY)
    command = [*CLI, "run", "smoke", "--workers", "2", "--device", "cpu", "--seeds", "3"]
    command += ["--model", str(file), "--out", str(tmp_path / "out")]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))

    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.returncode == 1, done.stderr
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    failed = rows[rows.metric == "failed"]
    assert Counter(failed.model) == {"greedy": 3, "hungry": 3}
    assert failed[failed.model == "greedy"].unit.str.contains("can't allocate memory").all()
    killed = "its worker was killed by SIGKILL (out of memory?), twice"
    assert set(failed[failed.model == "hungry"].unit) == {killed}
    assert Counter(rows[rows.metric == "mse"].model) == {"pca": 3, "vae": 3}
    assert "Traceback" not in done.stdout + done.stderr


def test_ctrl_c_while_the_workers_start(tmp_path, temporary) -> None:
    """The server that imports for them says nothing."""
    command = [*CLI, "run", "smoke", "--workers", "2", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
        # A job in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not servers(process.pid):
        time.sleep(0.01)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from here" in said
    assert "Traceback" not in said
    assert ends(process.pid)


def test_a_killed_run_leaves_no_process_and_no_file(tmp_path, temporary) -> None:
    """In the middle of a training that is shared by two processes of each worker."""
    command = [*CLI, "run", "smoke", "--models", "vae", "--workers", "2", "--device", "cpu"]
    command += ["--set", "training.epochs=100000", "--devices", "2", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            members = [member for worker in workers(process.pid) for member in children(worker)]
            if len(members) >= 4:
                break
            time.sleep(0.1)
        assert len(members) >= 4
        assert list(temporary.glob("aebench-*"))
    finally:
        process.kill()
        process.wait()
    assert ends(process.pid)
    store = Store(tmp_path / "out")
    for claim in (store.path / "claims").iterdir():
        with store.locked(claim.name, wait=False) as free:
            assert free, f"{claim.name} is held by nobody alive"


def weigh(of: Cell, store: Store, slot: Slot, on_event: OnEvent, wait: bool) -> Event:
    """Read the whole dataset, then tell what memory is this process's alone, and in all."""
    from aebench.benchmark.cell import dataset_of

    dataset = dataset_of(of.spec)
    total = sum(
        int(images.sum())
        for name in ("train", "val", "test")
        for images, _ in dataset.split(name).batches(64)
    )
    barrier = store.path / "barrier"
    (barrier / of.key).touch()
    while len(list(barrier.iterdir())) < 3:  # until all of them have it in memory at once
        time.sleep(0.01)
    fields = Counter[str]()
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        fields[name.rstrip(":")] += int(value) * 1024
    private = fields["Private_Clean"] + fields["Private_Dirty"]
    on_event(Event("progress", of, json.dumps([total, private, fields["Rss"]])))
    (barrier / f"{of.key}.weighed").touch()
    while len(list(barrier.iterdir())) < 6:
        time.sleep(0.01)
    return Event("done", of)


def test_workers_share_one_copy_of_a_dataset(tmp_path) -> None:
    """Every worker has read all of it, and none holds it as memory of its own."""
    pixels = np.random.default_rng(0).integers(256, size=(4096, 256, 256), dtype=np.uint8)
    np.savez(tmp_path / "large.npz", images=pixels)
    dataset = {"name": "npz", "parameters": {"path": str(tmp_path / "large.npz")}}
    store = Store(tmp_path, create=True)
    (tmp_path / "barrier").mkdir()
    found: list[list[int]] = []

    def listen(event: Event) -> None:
        if event.phase:
            found.append(json.loads(event.phase))

    cells = [Cell({"dataset": dataset}, str(n)) for n in range(3)]
    Local().run(cells, Job(store.path, (), (("cpu",),) * 3, weigh), listen)
    assert [total for total, _, _ in found] == [int(pixels.sum())] * 3
    for _, private, resident in found:
        assert resident > pixels.nbytes
        assert private < pixels.nbytes / 2
