"""The engine `ray`: what needs no cluster, and real clusters of several nodes on this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from aebench.benchmark import run
from aebench.benchmark.engines import Event
from aebench.benchmark.engines import ray as engine
from aebench.benchmark.engines.ray import Ray
from aebench.benchmark.grid import Cell
from aebench.benchmark.runner import planned
from aebench.benchmark.store import Store
from aebench.models import Autoencoder
from aebench.plugins import InputError, load_file
from runs import CLI, stopped
from standins import noise_images

LONG = ["training.epochs=300"]
DYING = """
import os, signal, sys
from pathlib import Path
from aebench.models import VAE, Batch, Terms
sys.path.append(os.path.dirname(__file__))
from neighbour import deaths

class Dying(VAE):
    \"\"\"Its process is killed at its first steps: as often as the neighbour says.\"\"\"
    name = "dying{times}"
    def losses(self, batch: Batch) -> Terms:
        told = Path("{folder}") / str(self.times)
        if len(told.read_text() if told.exists() else "") < deaths(self.times):
            with told.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(batch)
    times = {times}
"""


def cell_of(out: Path, **settings: Any) -> Cell:
    """A cell of the grid `smoke`."""
    held = {"datasets": {"digits": {"train": 50, "val": 20, "test": 20}}, "models": ["pca"]}
    from aebench.benchmark.grid import complete

    given = {**held, "metrics": ["mse"], "samplers": [], "seeds": 1, **settings}
    return planned("grid", complete(given, "grid"), out, (("cpu",),)).cells[0]


def test_slots_are_what_fits_on_each_node(monkeypatch) -> None:
    nodes = [{"CPU": 3.0}, {"CPU": 5.0, "GPU": 3.0}, {"memory": 1.0}]
    monkeypatch.setattr(Ray, "nodes", lambda self: nodes)
    ray = Ray(address="auto")
    assert ray.slots("cpu", 1, None, None, 1) == (("cpu",),) * 8
    assert ray.slots("cpu", 1, None, None, 2) == (("cpu",),) * 3  # not four: no cell spans nodes
    assert ray.slots("cpu", 2, None, None, 2) == (("cpu", "cpu"),)
    assert ray.slots("cpu", 1, None, 2, 1) == (("cpu",),) * 2
    assert ray.slots("auto", 1, None, None, 1) == (("cuda",),) * 3
    assert ray.slots("cuda", 1, 2, None, 1) == (("cuda",),) * 6
    assert ray.slots("cuda", 1, 49, None, 1) == (("cuda",),) * 147  # 1 / (1 / 49) is below 49
    assert ray.slots("cuda", 2, None, None, 1) == (("cuda", "cuda"),)
    nodes.pop(1)
    assert ray.slots("auto", 1, None, None, 1) == (("cpu",),) * 3
    assert ray.slots("cuda", 1, None, 7, 1) == (("cuda",),) * 7  # started on demand


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("cuda:1", 1, None, None, 1), "--device cuda:1: Ray chooses"),
        (("tpu", 1, None, None, 1), "valid: auto, cpu, cuda"),
        (("cuda", 1, None, None, 1), "has the 1 GPU that a cell needs"),
        (("cpu", 2, None, None, 2), "has the 4 CPU that a cell needs"),
        (("cpu", 1, 2, None, 1), "--per-device is for GPUs"),
        (("cuda", 2, 2, None, 1), "--per-device is for cells of one device"),
    ],
)
def test_slots_that_a_cluster_lacks_are_refused(given, words: str, monkeypatch) -> None:
    monkeypatch.setattr(Ray, "nodes", lambda self: [{"CPU": 3.0}])
    with pytest.raises(InputError, match=words):
        Ray(address="auto").slots(*given)


@pytest.mark.parametrize("address", ["nowhere", "host:port", "ray://host", "127.0.0.1:1"])
def test_an_address_without_a_cluster_is_refused_soon(address: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=f"--ray-address {address}: "):
        engine.refuse_unreachable(address)
    assert time.monotonic() - begun < 30


def test_an_address_that_answers_is_not_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        engine.refuse_unreachable(f"127.0.0.1:{port}")
        engine.refuse_unreachable(f"ray://127.0.0.1:{port}")


def test_without_ray_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'aebench\[ray\]'"):
        Ray().slots("cpu", 1, None, None, 1)


def test_a_cell_comes_back_as_it_was(tmp_path) -> None:
    cell = cell_of(tmp_path / "a")
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b", create=True)
    from aebench.benchmark.engines import attempt

    assert attempt(cell, first, ("cpu",), lambda event: None).kind == "done"
    files = engine.contents(first.folder(cell))
    assert {"cell.json", "metrics.json", "checkpoint.pt"} <= set(files)
    assert any(name.startswith("pictures/") for name in files)
    key = json.loads(files["cell.json"])["provenance"]["training_key"]
    second.training_file(key).touch()  # of a scoring that failed there
    engine.put(files, second)
    assert engine.contents(second.folder(cell)) == files
    (pointer,) = (tmp_path / "b" / "trained").iterdir()
    assert pointer.read_text() == first.folder(cell).name
    assert not [*second.under_way.iterdir()]

    # What spares a node the training is found by the training alone.
    other = Cell({**cell.spec, "evaluation": {**cell.spec["evaluation"], "metrics": []}}, "0" * 64)
    held = engine.trained_before(other, first)
    assert held == {name: files[name] for name in engine.OF_A_TRAINING}
    more = cell_of(tmp_path / "a", datasets={"digits": {"train": 60, "val": 20, "test": 20}})
    assert engine.trained_before(more, first) == {}


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "a/b/../../../out"])
def test_no_file_leaves_its_folder(name: str, tmp_path) -> None:
    with pytest.raises(ValueError, match="leads out of"):
        engine.write({"in": b"", name: b""}, tmp_path / "cell")
    assert not [*tmp_path.rglob("*")]


def users_file(folder: Path) -> Path:
    """A file with a model, which imports another one beside it."""
    folder.mkdir()
    (folder / "beside_ray.py").write_text("BETA = 2.0\n")
    (folder / "unused.py").write_text("")
    (folder / "mine_ray.py").write_text(
        "import os, sys\nsys.path.append(os.path.dirname(__file__))\n"
        "from beside_ray import BETA\nfrom aebench.models import VAE\n"
        "class Mine(VAE):\n    name = 'mine_ray'\n"
    )
    return folder / "mine_ray.py"


def test_a_users_file_travels_with_what_it_imports(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Autoencoder, "_choices", {**Autoencoder.choices()})
    file = users_file(tmp_path / "there")
    load_file(file)
    path, files = engine.user_file(str(file))
    assert set(files) == {"mine_ray.py", "beside_ray.py"}
    loaded: list[Path] = []
    monkeypatch.setattr(engine, "load_file", loaded.append)
    monkeypatch.setattr(sys, "path", [*sys.path])
    engine.load.cache_clear()
    engine.load(path, tuple(files.items()))
    assert loaded == [file]  # a node that has the same
    (tmp_path / "there" / "beside_ray.py").write_text("BETA = 3.0\n")
    engine.load.cache_clear()
    engine.load(path, tuple(files.items()))
    copy = loaded[-1]
    assert copy.parent != file.parent  # one that has another
    assert engine.contents(copy.parent) == files
    assert str(copy.parent) in sys.path


# Real clusters.


@pytest.fixture
def cluster(request) -> Iterator[Any]:
    """A head and two nodes as processes, with a CPU each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(**node)
        yield made
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> pd.DataFrame:
    """The rows of six cells, run in this process."""
    out = tmp_path_factory.mktemp("runs")
    return run("smoke", out=out, seeds=3, settings=LONG, workers=1, device="cpu")


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """What must repeat to the last bit: all but what a cell cost."""
    return rows[rows.family != "cost"].reset_index(drop=True)


def titles(node: Any) -> list[str]:
    """What the workers of a cluster's node are at: Ray names their processes so."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == raylet.process.pid:
                found.append((path.parent / "cmdline").read_text().strip("\0"))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rows_are_those_of_one_process_though_a_node_is_killed(
    cluster, undisturbed, tmp_path
) -> None:
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        longer = [e.cell for e in events if e.kind == "started" and e.cell.model == "vae"]
        at = {f"ray::{cell.title}" for cell in longer}  # the others may be done before we hear
        if len(cluster.worker_nodes) == 2:
            for node in [node for node in cluster.worker_nodes if at & {*titles(node)}][:1]:
                cluster.remove_node(node, allow_graceful=False)

    rows = run(
        "smoke",
        out=tmp_path,
        seeds=3,
        settings=LONG,
        device="cpu",
        engine=Ray(address=cluster.address),
        on_event=on_event,
    )
    assert len(cluster.worker_nodes) == 1, "no node was killed"
    pd.testing.assert_frame_equal(scores(rows), scores(undisturbed), check_exact=True)
    kinds = Counter(event.kind for event in events)
    assert kinds["done"] == 6
    assert not kinds["failed"]
    started = Counter(event.cell.key for event in events if event.kind == "started")
    assert len(started) == 6
    assert max(started.values()) == 2, "no cell was under way where the node was killed"
    for key in started:
        of_cell = [event.kind for event in events if event.cell.key == key]
        assert (of_cell[0], of_cell[-1]) == ("started", "done")
    assert not [*(tmp_path / "claims").iterdir()], "a claim stays"
    assert not [*(tmp_path / "under_way").iterdir()]


@pytest.mark.slow
def test_a_dead_worker_costs_its_cell_one_retry(cluster, tmp_path) -> None:
    """A user's file, with a neighbour, of which one model dies once and one always."""
    (tmp_path / "neighbour.py").write_text("def deaths(times):\n    return times\n")
    files = []
    for times in (1, 9):
        files.append(tmp_path / f"dying{times}.py")
        files[-1].write_text(DYING.format(times=times, folder=tmp_path))
    command = [*CLI, "run", "smoke", "--seeds", "1", "--out", str(tmp_path / "out")]
    command += ["--engine", "ray", "--ray-address", cluster.address, "--device", "cpu"]
    command += [word for file in files for word in ("--model", str(file))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 1, done.stderr
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    failed = rows[rows.metric == "failed"].set_index("model").unit
    assert set(failed.index) == {"dying9"}
    assert "its worker died, at the second attempt too" in failed["dying9"]
    assert set(rows[rows.metric == "mse"].model) == {"pca", "vae", "dying1"}
    assert (tmp_path / "1").read_text() == "x"
    assert (tmp_path / "9").read_text() == "xx"
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0
    if sys.platform == "linux"
    else True,
    reason="needs the right to mount",
)
def test_a_node_that_does_not_see_the_store_gives_the_same_rows(undisturbed, tmp_path) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    out = tmp_path / "out"
    head = {"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    start = (
        f"mount -t tmpfs none '{tmp_path}' && exec '{Path(sys.executable).with_name('ray')}' start "
        f"--address={made.address} --num-cpus=1 --object-store-memory={80 * 2**20} --block"
    )
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", start],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    how: dict[str, Any] = {
        "out": out,
        "device": "cpu",
        "engine": Ray(address=made.address),
        "workers": 1,
    }
    try:
        rows = run("smoke", settings=LONG, seeds=3, models=["vae"], **how)
        vae = scores(undisturbed).query("model == 'vae'").reset_index(drop=True)
        pd.testing.assert_frame_equal(scores(rows), vae, check_exact=True)

        # Scored otherwise, it is not trained again there: no weights have changed since.
        trained = {p.read_text() for p in (out / "trained").iterdir()}
        again = run("smoke", settings=[*LONG, "metrics=[mse]"], seeds=3, models=["vae"], **how)
        assert len(list((out / "cells").iterdir())) == 6
        seconds = [json.loads((out / "cells" / name / "cell.json").read_text()) for name in trained]
        assert sorted(again[again.metric == "train_seconds"].value) == sorted(
            about["trained"]["seconds"] for about in seconds
        )

        # A user's file that the node does not see.
        mine = run(
            "smoke", seeds=1, models=["mine_ray"], files=[users_file(tmp_path / "mine")], **how
        )
        assert "mine_ray" in set(mine[mine.metric == "mse"].model)

        # A dataset whose file the node does not see.
        np.savez(tmp_path / "a.npz", images=noise_images(60, 1, 8, 8).numpy())
        held = {"datasets": {"npz": {"path": str(tmp_path / "a.npz")}}, "models": ["pca"]}
        seen = run({**held, "metrics": ["mse"], "samplers": [], "seeds": 2}, **how)
        npz = seen[seen.dataset.str.startswith("npz")]
        assert sum(npz.metric == "mse") == 2
    finally:
        with suppress(OSError):
            os.killpg(node.pid, signal.SIGTERM)
        node.wait(30)
        made.shutdown()


def left(mark: str) -> list[str]:
    """The processes that have ``mark`` in their environment and have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_cluster_that_was_started_here(number, tmp_path) -> None:
    """Ctrl-C reaches the whole group, SIGTERM the run alone; what was finished stays."""
    pytest.importorskip("ray")
    temporary = tempfile.mkdtemp(dir="/tmp")  # short: Ray's sockets lie in it
    mark = f"TMPDIR={temporary}"
    command = [*CLI, "run", "smoke", "--engine", "ray", "--device", "cpu", "--seeds", "1"]
    command += ["--set", "training.epochs=100000", "--workers", "2", "--out", str(tmp_path / "out")]
    cells = tmp_path / "out" / "cells"
    environment = {**os.environ, "TMPDIR": temporary}
    process, said = stopped(
        command, number, lambda: list(cells.glob("*pca*")), patience=240, env=environment
    )
    assert process.returncode == 130, said
    assert "goes on from here" in said
    assert "Traceback" not in said
    assert "pca" in (tmp_path / "out" / "rows.csv").read_text()
    assert not [*(tmp_path / "out" / "claims").iterdir()], "a claim stays"
    deadline = time.monotonic() + 30
    while alive := left(mark):
        assert time.monotonic() < deadline, alive
        time.sleep(0.2)
    assert not [*Path(temporary).glob("aebench-*")], "a node's temporary store stays"
    shutil.rmtree(temporary)
