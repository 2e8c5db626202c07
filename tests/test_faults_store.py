"""The store under faults: full or read-only disks, runs at once, kills, clocks, strangers."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from aebench.benchmark.grid import Cell
from aebench.benchmark.results import read
from aebench.benchmark.rows import Row
from aebench.benchmark.runner import load, run, write_tables
from aebench.benchmark.speed import synthetic
from aebench.benchmark.store import Store, Unwritable
from aebench.benchmark.train import Trained
from aebench.models import Backbone, DataSpec, model_from
from aebench.plugins import InputError
from runs import CLI, members, numbers
from standins import Malicious

SMOKE = ["smoke", "--device", "cpu", "--workers", "2"]


def aebench(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, **environment},
    )


def until(what: Any, seconds: float = 120) -> Any:
    """What ``what`` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def of_seeds(out: Path, seeds: int) -> list[list[str]]:
    """:func:`numbers` of the first seeds."""
    header, *rows = numbers(out)
    return [header, *(row for row in rows if int(row[header.index("seed")]) < seeds)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = aebench("run", *SMOKE, "--seeds", 20, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk: 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=300k", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def mount(*arguments: object) -> None:
    try:
        subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not permitted")


def cell_of(seed: int) -> Cell:
    """A cell that keeps codes to be compared with those of other seeds."""
    cell = synthetic.cell_of(0, 0, seed, 1)
    metrics = [{"name": "udr", "parameters": {}}]
    spec = {**cell.spec, "evaluation": {**cell.spec["evaluation"], "metrics": metrics}}
    return Cell(spec, cell.key)


def made(store: Store, seed: int = 0, size: int = 10) -> Cell:
    """A cell of ``size`` weights, written."""
    cell = cell_of(seed)
    trained = Trained([], best_epoch=1, steps=1, seconds=1.0, peak_memory=1.0)
    state, rows = {"weights": torch.zeros(size)}, [Row("mse", 0.5, family="reconstruction")]
    codes = np.random.default_rng(seed).normal(size=(50, 4))
    kept = {"udr": {"codes": codes, "kl": np.ones(4)}}
    store.write(cell, rows, kept, trained, state, {}, {"training_key": cell.key})
    return cell


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last thing said, where nothing before it was a complaint."""
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    lines = done.stderr.strip().splitlines()
    assert not [line for line in lines[:-1] if line.startswith("aebench: ")]
    assert lines[-1].startswith("aebench: "), done.stderr
    return lines[-1]


# A full disk


def test_a_cell_that_does_not_fit_leaves_nothing(disk: Path) -> None:
    store = Store(disk, create=True)
    made(store)
    with pytest.raises(Unwritable, match="cannot be written: No space left on device"):
        made(store, seed=1, size=200_000)
    assert not list(store.under_way.iterdir())
    assert [cell.seed for cell, _ in store.finished()] == [0]
    with pytest.raises(Unwritable, match="No space left"):
        store.write_text("rows.csv", "x" * 1_000_000)
    assert not list(store.under_way.iterdir())
    made(store, seed=1)


def test_tables_that_do_not_fit_leave_the_old_ones(disk: Path) -> None:
    store = Store(disk, create=True)
    made(store)
    write_tables(store)
    before = (disk / "rows.csv").read_bytes()
    made(store, seed=1)
    fill(disk)
    with pytest.raises(Unwritable, match="No space left"):
        write_tables(store)
    assert (disk / "rows.csv").read_bytes() == before
    (disk / "ballast").unlink()
    assert set(write_tables(store).seed) == {0, 1}
    assert (disk / "rows.csv").read_bytes() != before


def fill(disk: Path) -> None:
    """Leave no byte."""
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(
    workers: int, disk: Path, undisturbed: Path
) -> None:
    out = disk / "out"
    command = ["run", "smoke", "--device", "cpu", "--workers", workers, "--seeds", 6, "--out", out]
    full = aebench(*command)
    assert full.returncode == 1
    assert "No space left on device" in the_line(full)
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*/cell.json")}
    count = len(list(out.glob("cells/*")))
    assert 0 < count < 12
    mount("-o", "remount,size=20m", disk)
    done = aebench(*command)
    assert done.returncode == 0, done.stderr
    assert f"12 cells, {count} done already" in done.stderr
    assert numbers(out) == of_seeds(undisturbed, 6)
    again = {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*/cell.json")}
    assert again.items() >= finished.items()
    fill(disk)
    tables = aebench(*command)
    assert tables.returncode == 1
    assert "No space left on device" in the_line(tables)
    assert numbers(out) == of_seeds(undisturbed, 6)


# A disk that is read only


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A finished store that nobody may write."""
    folder, store = tmp_path / "mounted", tmp_path / "store"
    folder.mkdir()
    run("smoke", out=store, workers=1, device="cpu")
    shutil.rmtree(store / "across")  # nobody may make it again
    mount("--bind", store, folder)
    mount("-o", "remount,bind,ro", folder)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_read_only_store_is_read_and_not_written(read_only: Path, tmp_path: Path) -> None:
    name = next((read_only / "cells").iterdir()).name
    with pytest.raises(InputError, match=r"cannot be (used|written): .*Read-only file system"):
        run("smoke", out=read_only, workers=1, device="cpu")
    assert load(read_only, name)
    assert len(read(read_only).specs) == 4


@pytest.mark.slow
def test_every_command_works_on_a_read_only_store(read_only: Path, tmp_path: Path) -> None:
    for seeds in (2, 3):  # nothing is missing, a cell is
        refused = aebench("run", *SMOKE, "--seeds", seeds, "--out", read_only)
        assert refused.returncode == 2
        assert refused.stdout == ""
        assert "Read-only file system" in the_line(refused)
    name = next((read_only / "cells").iterdir()).name
    page = tmp_path / "page.html"
    for command in (
        ["table", read_only],
        ["compare", read_only, "--model", "vae"],
        ["show", read_only, name],
        ["report", read_only, "--out", page],
    ):
        done = aebench(*command)
        assert done.returncode == 0, done.stderr
    assert page.stat().st_size > 100_000
    refused = aebench("report", read_only)
    assert refused.returncode == 2
    assert "Read-only file system" in the_line(refused)


def test_what_cannot_be_kept_across_seeds_is_computed_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    for seed in (0, 1):
        made(store, seed)
    folder = tmp_path / "mounted"
    folder.mkdir()
    mount("--bind", store.path, folder)
    mount("-o", "remount,bind,ro", folder)
    try:
        rows = Store(folder).rows()
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    assert not list((store.path / "across").iterdir())
    compared = rows[rows.metric == "udr"]
    assert compared.value.notna().all()
    pd.testing.assert_frame_equal(store.rows(), rows)
    assert len(list((store.path / "across").iterdir())) == 1
    pd.testing.assert_frame_equal(store.rows(), rows)


# Several runs at once


HOLDING = """
import sys, time
from pathlib import Path
from aebench.benchmark.speed.synthetic import cell_of
from aebench.benchmark.store import Store
store, cell = Store(sys.argv[1]), cell_of(0, 0, 0, 1)
with store.claimed(cell) as mine:
    (store.under_way / store.folder(cell).name).mkdir()
    print(mine, flush=True)
    time.sleep(600)
"""


def holder(store: Store) -> subprocess.Popen[str]:
    """A process that is at the first cell of ``store``."""
    command = [sys.executable, "-c", HOLDING, str(store.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_claim_is_anothers_until_it_dies(tmp_path: Path) -> None:
    store, cell = Store(tmp_path, create=True), synthetic.cell_of(0, 0, 0, 1)
    process = holder(store)
    try:
        with store.claimed(cell) as mine:
            assert not mine
        store.clean()
        assert [left.name for left in store.under_way.iterdir()] == [store.folder(cell).name]
    finally:
        process.kill()
        process.wait()
    with store.claimed(cell) as mine:
        assert mine
    store.clean()
    assert not list(store.under_way.iterdir())
    assert not list((tmp_path / "claims").iterdir())


COUNTING = """
import os
import aebench.benchmark.cell as cell
from aebench.models import VAE

class Unused(VAE):
    name = "unused"

def run_cell(one, *arguments, _run=cell.run_cell):
    with open({log!r}, "a") as file:
        file.write(one.key + "\\n")
    _run(one, *arguments)

cell.run_cell = run_cell
"""


@pytest.mark.slow
def test_two_runs_at_once_train_every_cell_once(undisturbed: Path, tmp_path: Path) -> None:
    """A third joins and is killed; the others do what it had claimed."""
    out, log, file = tmp_path / "out", tmp_path / "log", tmp_path / "counting.py"
    file.write_text(COUNTING.format(log=str(log)))
    command = [*CLI, "run", *SMOKE, "--seeds", "20", "--out", str(out)]
    command += ["--model", str(file), "--models", "pca,vae"]
    runs = [
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(3)
    ]
    until(lambda: len(list(out.glob("cells/*"))) > 5)
    os.killpg(runs[2].pid, signal.SIGKILL)
    said = [process.communicate(timeout=500)[1] for process in runs]
    until(lambda: not members(runs[2].pid))
    for process, text in zip(runs[:2], said):
        assert process.returncode == 0, text
    times = Counter(log.read_text().split())
    assert len(times) == 40
    assert sum(times.values()) <= 42, "only what the killed run was at is trained again"
    assert numbers(out) == numbers(undisturbed)
    assert not list((out / "under_way").iterdir())
    assert aebench("run", *SMOKE, "--seeds", 20, "--out", out).returncode == 0
    assert not list((out / "claims").iterdir())


@pytest.mark.slow
def test_tables_of_several_writers_have_all_rows(tmp_path: Path) -> None:
    """Each finishes a cell and writes the tables; the last to write has seen them all."""
    store = Store(tmp_path, create=True)
    children = []
    for seed in range(4):
        code = (
            "import sys, test_faults_store as t; from aebench.benchmark.store import Store\n"
            "from aebench.benchmark.runner import write_tables\n"
            "store = Store(sys.argv[1]); t.made(store, int(sys.argv[2])); write_tables(store)"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        command = [sys.executable, "-c", code, str(tmp_path), str(seed)]
        children.append(subprocess.Popen(command, env=environment))
    assert [child.wait(timeout=300) for child in children] == [0] * 4
    assert set(pd.read_csv(tmp_path / "rows.csv").seed) == set(range(4))
    assert not list(store.under_way.iterdir())


# Clocks and signals


@pytest.mark.slow
def test_clocks_that_jump_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import random, time\n"
        "real = time.time\n"
        "time.time = lambda: real() + random.choice([-1e7, 0.0, 1e7])\n"
    )
    out = tmp_path / "out"
    jumping = {"PYTHONPATH": str(tmp_path)}
    began = time.monotonic()
    first = aebench("run", *SMOKE, "--seeds", 2, "--out", out, **jumping)
    assert first.returncode == 0, first.stderr
    stamps = {}
    for n, path in enumerate(sorted(out.glob("cells/*/cell.json"))):
        os.utime(path, (time.time() + 1e7, 5e9) if n % 2 else (1.0, 1.0))
        stamps[path] = path.stat().st_mtime_ns
    done = aebench("run", *SMOKE, "--seeds", 4, "--out", out, **jumping)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert "8 cells, 4 done already, 4 to do" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert numbers(out) == of_seeds(undisturbed, 4)
    rows = read(out).rows
    spent = rows[rows.metric.isin(["train_seconds", "evaluate_seconds"])].value
    assert spent.between(0, seconds).all()


SLOWLY = """
import time
import aebench.benchmark.store as store
from aebench.models import VAE

class Unused(VAE):
    name = "unused"

def to_json(content, _to_json=store.to_json):
    time.sleep(3)
    return _to_json(content)

store.to_json = to_json
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_while_a_cell_is_written(workers: int, undisturbed: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "slowly.py"
    file.write_text(SLOWLY)
    command = [*CLI, "run", "smoke", "--device", "cpu", "--workers", str(workers)]
    command += ["--seeds", "1", "--out", str(out)]
    slow = [*command, "--model", str(file), "--models", "pca,vae"]
    process = subprocess.Popen(slow, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: list(out.glob("under_way/digits-*/checkpoint.pt")))
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "goes on from here" in said
    until(lambda: not members(process.pid))
    for folder in out.glob("cells/*"):
        assert json.loads((folder / "metrics.json").read_text())
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert numbers(out) == of_seeds(undisturbed, 1)
    assert not list((out / "under_way").iterdir())


# Strangers


def test_no_file_of_a_store_runs_code(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    store = Store(tmp_path / "store", create=True)
    model = model_from("vae", {}, DataSpec((1, 8, 8), 10, 64), Backbone.make("mlp"))
    malicious = pickle.dumps(Malicious(ran))
    pickle.loads(pickle.dumps(Malicious(tmp_path / "proof")))
    assert (tmp_path / "proof").is_dir(), "the attack works on those who unpickle"
    (tmp_path / "proof").rmdir()
    cell = made(store)
    folder = store.folder(cell)
    checkpoint, kept = folder / "checkpoint.pt", folder / "kept" / "udr.npz"
    torch.save({"weights": Malicious(tmp_path / "proof")}, tmp_path / "zipped.pt")
    for content in (malicious, (tmp_path / "zipped.pt").read_bytes()):
        checkpoint.write_bytes(content)
        assert store.trained(cell.key, model) is None
        with pytest.raises(InputError):
            load(store.path, folder.name)
        store.training_file("f" * 64).write_bytes(content)
        assert store.trained("f" * 64, model) is None
    made(store, seed=1)
    np.savez(kept, codes=np.array([Malicious(ran)], dtype=object), kl=np.ones(4))
    for content in (kept.read_bytes(), malicious):
        kept.write_bytes(content)
        with pytest.raises(InputError, match=r"udr.npz cannot be read"):
            store.rows()
    assert not ran.exists()
    assert not (tmp_path / "proof").exists()


def test_the_cache_of_tensors_runs_no_code(tmp_path: Path, monkeypatch) -> None:
    from aebench.benchmark import cache

    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    names = ("a", 1)
    held = cache.cached_tensors(names, lambda: {"x": torch.ones(2)})
    (file,) = tmp_path.glob("*.pt")
    file.write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    monkeypatch.setattr(cache, "_memory", {})
    again = cache.cached_tensors(names, lambda: {"x": torch.ones(2)})
    assert torch.equal(again["x"], held["x"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("pointer", ["../../elsewhere", "/ABSOLUTE", "link", "."])
def test_a_pointer_leads_nowhere_else(pointer: str, tmp_path: Path) -> None:
    """What lies outside of the store is a cell that could be taken."""
    store = Store(tmp_path / "store", create=True)
    other = Store(tmp_path / "other", create=True)
    model = torch.nn.Linear(1, 1)

    def finish(into: Store) -> Path:
        trained = Trained([], best_epoch=1, steps=1, seconds=1.0, peak_memory=1.0)
        cell = synthetic.cell_of(0, 0, 0, 1)
        state = model.state_dict()
        into.write(cell, [], {}, trained, state, {}, {"training_key": cell.key})
        return into.folder(cell)

    folder = finish(other)
    shutil.copytree(folder, tmp_path / "elsewhere")
    (store.cells / "link").symlink_to(folder)
    key = "0" * 64
    name = pointer.replace("/ABSOLUTE", str(folder))
    (store.path / "trained" / key).write_text(name)
    taken: Any = model
    assert store.trained(key, taken) is None
    inside = finish(store)
    (store.path / "trained" / key).write_text(inside.name)
    assert store.trained(key, taken) is not None


@pytest.mark.parametrize(
    "file", ["", "cell.json", "metrics.json", "kept", "kept/udr.npz", "history.json", "pictures"]
)
def test_links_in_a_store_are_not_followed(file: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    made(store, seed=1)
    cell = made(store)
    target = store.folder(cell) / file if file else store.folder(cell)
    target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        held = read(store.path)
        held.history(next(iter(held.cells)))
        held.pictures(next(iter(held.cells)))


def test_a_key_cannot_lead_out_of_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    cell = made(store)
    about = store.folder(cell) / "cell.json"
    held = json.loads(about.read_text())
    for wrong in ({**held, "key": "/../../x" * 8}, {**held, "spec": {}}, {**held, "key": 1}, []):
        about.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"cell.json is not that of this cell"):
            list(store.finished())
