"""The main job: what it writes, what it repeats, what it survives."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from aebench.benchmark import evaluate as evaluation
from aebench.benchmark import load, run
from aebench.benchmark.engines import Event
from aebench.benchmark.grid import read_grid
from aebench.benchmark.rows import COLUMNS
from aebench.benchmark.store import Store
from aebench.models import Autoencoder, ClosedForm
from aebench.plugins import InputError
from runs import CLI, helped, members, numbers, stopped
from standins import OURS, every_metric

PLUGINS = """
import os, signal
from typing import Any
from torch import Tensor
from aebench.models import VAE, Backbone, Batch, DataSpec, Terms

class Diverging(VAE):
    name = "diverging"
    def losses(self, batch: Batch) -> Terms:
        return {"loss": super().losses(batch)["loss"] * float("nan")}

class Unbuildable(VAE):
    name = "unbuildable"
    def __init__(self, data: DataSpec, backbone: Backbone, **kwargs: Any) -> None:
        raise RuntimeError("cannot be built")

class Killed(VAE):
    name = "killed"
    def losses(self, batch: Batch) -> Terms:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(batch)
"""


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """The grid `smoke`, run in this process."""
    out = tmp_path_factory.mktemp("runs") / "smoke"
    return out, run("smoke", out=out, workers=1, device="cpu")


def test_a_run_writes_rows_tables_and_cells(smoke) -> None:
    out, rows = smoke
    written = pd.read_csv(out / "rows.csv")
    assert list(written.columns) == COLUMNS
    assert len(written) == len(rows)
    assert set(written.model) == {"pca", "vae"}
    assert set(written.seed) == {0, 1}
    scored = written[(written.model == "vae") & (written.metric == "mse")]
    assert len(scored) == 2
    assert scored.value.between(0, 1).all()
    assert {"train_seconds", "peak_memory", "parameters"} <= set(written.metric)
    lacking = rows[(rows.model == "pca") & rows.metric.str.startswith("elbo")]
    assert lacking.value.isna().all()
    assert set(lacking.note) == {"the model has no log_weights"}
    assert "vae" in (out / "leaderboard.md").read_text()
    assert "vae" in (out / "leaderboard.csv").read_text()
    for name in written.cell.unique():
        folder = out / "cells" / name
        names = {path.name for path in folder.iterdir()}
        assert names == {
            "cell.json",
            "metrics.json",
            "history.json",
            "checkpoint.pt",
            "pictures",
        }
        pictures = {path.stem for path in (folder / "pictures").iterdir()}
        assert {"reconstructions", "interpolations", "traversals"} <= pictures
        json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert not list((out / "under_way").iterdir())


def test_nothing_is_trained_twice(smoke) -> None:
    out, rows = smoke
    events = []
    again = run("smoke", out=out, workers=1, device="cpu", on_event=events.append)
    assert events == []
    pd.testing.assert_frame_equal(rows, again)


def test_other_metrics_need_no_other_training(smoke, tmp_path) -> None:
    _, grid = read_grid("smoke")
    grid["metrics"] = {"mse": {}, "nll": {"samples": 3}, "knn": {}}
    out = tmp_path / "copy"
    shutil.copytree(smoke[0], out)
    (broken,) = (out / "cells").glob("digits-vae-seed1-*")
    (broken / "checkpoint.pt").write_bytes(b"none")
    phases: list[tuple[str, int, str]] = []

    def listen(event: Event) -> None:
        phases.append((event.cell.model, event.cell.seed, event.phase))

    rows = run(grid, out=out, workers=1, device="cpu", on_event=listen)
    assert ("vae", 0, "scoring mse") in phases
    trained = {(model, seed) for model, seed, phase in phases if phase == "training"}
    assert trained == {("vae", 1)}  # its checkpoint could not be read
    # Of two cells that differ in what is scored, the one of this run counts.
    fresh = run(grid, out=tmp_path / "fresh", workers=1, device="cpu")
    assert numbers(out) == numbers(tmp_path / "fresh")
    assert len(list((out / "cells").iterdir())) == 8
    seconds = rows[(rows.model == "vae") & (rows.metric == "train_seconds")].set_index("seed").value
    before = smoke[1][(smoke[1].model == "vae") & (smoke[1].metric == "train_seconds")]
    assert seconds[0] == before.set_index("seed").value[0]
    assert len(fresh) == len(rows)


def test_a_scoring_that_fails_loses_no_training(smoke, tmp_path, monkeypatch) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("cannot be scored")

    with monkeypatch.context() as broken:
        broken.setattr(evaluation, "evaluate", breaks)
        rows = run("smoke", out=tmp_path, workers=1, device="cpu")
    assert set(rows.metric) == {"failed"}
    assert len(list((tmp_path / "trained").glob("*.pt"))) == len(rows) == 4
    phases = []
    run("smoke", out=tmp_path, workers=1, device="cpu", on_event=lambda e: phases.append(e.phase))
    assert "scoring mse" in phases
    assert "training" not in phases
    assert numbers(tmp_path) == numbers(smoke[0])
    assert not list((tmp_path / "trained").glob("*.pt"))


@pytest.mark.slow
def test_no_metric_depends_on_the_number_of_workers(tmp_path) -> None:
    found = [run(every_metric(), out=tmp_path / str(n), workers=n, device="cpu") for n in (1, 2)]
    assert numbers(tmp_path / "1") == numbers(tmp_path / "2")
    scored = found[0][found[0].value.notna()].metric.str.partition("[")[0]
    lacking = {q.name for cls in OURS.values() for q in cls.quantities} - set(scored)
    assert lacking <= {"lpips", "knn_1000", "linear_probe_1000", "mlp_probe_1000"}


TWINS = """
import numpy as np
from aebench.benchmark.metrics import AcrossSeeds, Quantity

class Twins(AcrossSeeds):
    name = "twins"
    family = "likeness"
    quantities = (Quantity("apart", "lower", low=0),)

    def keep(self, fitted):
        return {"mean": fitted.embeddings("test", 10).numpy().mean(0)}

    def compare(self, kept):
        means = np.stack([held["mean"] for held in kept])
        return [{"apart": float(np.linalg.norm(means - own, axis=1).sum())} for own in means]

    def compared(self, seeds):
        return f"{seeds} seeds, 10 test images"
"""


def test_seeds_are_compared_when_rows_are_read(tmp_path) -> None:
    file = tmp_path / "twins.py"
    file.write_text(TWINS)
    _, grid = read_grid("smoke")
    grid["metrics"], grid["models"] = {"mse": {}, "likeness": {}}, {"vae": {}}
    out, settings = tmp_path / "out", {"files": [file], "workers": 1, "device": "cpu"}
    alone = run(grid, seeds=1, out=out, **settings)
    row = alone[alone.metric == "apart"].iloc[0]
    assert row.isna().value
    assert row.note == "one seed has no other to be compared with"
    both = run(grid, seeds=2, out=out, **settings)
    apart = both[both.metric == "apart"]
    assert list(apart.seed) == [0, 1]
    assert apart.value.iloc[0] == apart.value.iloc[1] > 0
    assert set(apart.estimator) == {"2 seeds, 10 test images"}
    assert set(apart.family) == {"likeness"}
    three = run(grid, seeds=3, out=out, **settings)
    assert (three[three.metric == "apart"].value > apart.value.iloc[0]).all()
    pd.testing.assert_frame_equal(Store(out).rows(), three)
    assert len(list((out / "across").iterdir())) == 3  # one a set of seeds, each computed once
    table = subprocess.run(
        [*CLI, "table", out, "--metric", "apart"], capture_output=True, text=True
    )
    assert table.returncode == 0
    assert "apart" in table.stdout


def test_a_trained_model_comes_back(smoke) -> None:
    out, rows = smoke
    name = rows[(rows.model == "vae") & (rows.seed == 1)].cell.iloc[0]
    model = load(out, name)
    assert not model.training
    from aebench.datasets import Dataset

    parameters = {"train": 200, "val": 50, "test": 100}
    x = Dataset.make("digits", parameters).split("test").images().float() / 255
    with torch.no_grad():
        error = float((model.reconstruct(x) - x).square().mean())
    stored = rows[(rows.cell == name) & (rows.metric == "mse")].value.iloc[0]
    assert error == pytest.approx(stored, rel=1e-5)
    with pytest.raises(InputError, match="no cell 'nothing'"):
        load(out, "nothing")


def test_a_checkpoint_that_is_none_is_refused(smoke, tmp_path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(smoke[0], out)
    (folder,) = [f for f in (out / "cells").iterdir() if f.name.startswith("digits-vae-seed0")]
    (folder / "checkpoint.pt").write_bytes(b"cos\nsystem\n(S'echo ran'\ntR.")
    with pytest.raises(InputError, match=r"checkpoint.pt cannot be read"):
        load(out, folder.name)


def test_same_rows_from_two_workers_and_in_another_order(smoke, tmp_path) -> None:
    """One worker and two, grid's order and reversed, one by one: equal to the last bit."""
    out, _ = smoke
    grid = {"models": {"vae": {}, "pca": {}}, "seeds": [1, 0]}
    settings = [f"models={json.dumps(grid['models'])}", f"seeds={grid['seeds']}"]
    run("smoke", out=tmp_path / "two", workers=2, device="cpu", settings=settings)
    assert numbers(tmp_path / "two") == numbers(out)
    run("smoke", out=tmp_path / "alone", workers=1, device="cpu", models=["vae"])
    assert numbers(tmp_path / "alone") == [row for row in numbers(out) if row[1] != "pca"]


def test_failures_are_rows_and_the_others_go_on(tmp_path) -> None:
    file = tmp_path / "plugins.py"
    file.write_text(PLUGINS)
    command = [*CLI, "run", "smoke", "--seeds", "1", "--workers", "2", "--device", "cpu"]
    command += ["--model", str(file), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    failed = rows[rows.metric == "failed"].set_index("model").unit
    assert set(failed.index) == {"diverging", "unbuildable", "killed"}
    assert "loss became nan in epoch 1" in failed["diverging"]
    assert "RuntimeError: cannot be built" in failed["unbuildable"]
    assert "SIGKILL" in failed["killed"]
    assert set(rows[rows.metric == "mse"].model) == {"pca", "vae"}
    assert "3 failed" in done.stdout
    for name in failed.index:
        assert name in done.stdout
    assert "Traceback" not in done.stdout + done.stderr

    # What failed is tried again, and what succeeds then is no failure any more.
    file.write_text(PLUGINS.replace('* float("nan")', ""))
    command[command.index("--workers") + 1] = "2"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    assert set(rows[rows.metric == "failed"].model) == {"unbuildable", "killed"}
    assert "diverging" in set(rows[rows.metric == "mse"].model)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_and_gone_on(tmp_path) -> None:
    """Ten kills within seconds of the start, ten just after a cell was finished."""
    grid = ["smoke", "--seeds", "75", "--device", "cpu", "--workers", "2"]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*CLI, "run", *grid, "--out", str(whole)], check=True, capture_output=True)
    command = [*CLI, "run", *grid, "--out", str(out)]
    generator = random.Random(0)
    finished: dict[str, int] = {}
    interrupted = 0
    for n in range(20):
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        if n % 2:
            next(line for line in process.stderr if " done (" in line)
            time.sleep(generator.uniform(0, 0.7))
        else:
            time.sleep(generator.uniform(0, 6))
        interrupted += process.poll() is None
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 20
        while members(process.pid):
            assert time.monotonic() < deadline, "a worker outlived its parent"
            time.sleep(0.1)
        for folder in out.glob("cells/*"):
            assert json.loads((folder / "metrics.json").read_text())
            made = (folder / "cell.json").stat().st_mtime_ns
            assert finished.setdefault(folder.name, made) == made, "a finished cell ran again"
    assert interrupted == 20
    assert 10 <= len(finished) < 150
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert numbers(out) == numbers(whole)
    for folder in out.glob("cells/*"):
        made = (folder / "cell.json").stat().st_mtime_ns
        assert finished.setdefault(folder.name, made) == made
    assert not list((out / "under_way").iterdir())


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_stops_a_run_cleanly(number: signal.Signals, tmp_path) -> None:
    """Ctrl-C reaches the whole group, a cluster's SIGTERM the run alone; no worker stays."""
    command = [*CLI, "run", "smoke", "--workers", "3", "--device", "cpu"]  # two stay at the VAEs
    command += ["--set", "training.epochs=100000", "--out", str(tmp_path / "out")]
    cells = tmp_path / "out" / "cells"
    process, said = stopped(command, number, lambda: list(cells.glob("*pca*")))
    assert process.returncode == 130
    assert "goes on from here" in said
    assert "Traceback" not in said
    assert "pca" in (tmp_path / "out" / "rows.csv").read_text()
    deadline = time.monotonic() + 20
    while alive := members(process.pid):
        assert time.monotonic() < deadline, alive
        time.sleep(0.2)


@pytest.mark.slow
def test_a_users_script_needs_no_guard(smoke, tmp_path) -> None:
    """Workers do not run the script that started them again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import aebench.benchmark\n"
        "print('started')\n"
        f"rows = aebench.benchmark.run('smoke', out={str(tmp_path / 'out')!r}, workers=2,\n"
        "                             device='cpu')\n"
        "print(len(rows))\n"
    )
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["started", str(len(smoke[1]))]


def test_a_new_model_is_ranked_beside_the_baselines(smoke, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(smoke[0], out)
    file = tmp_path / "my.py"
    file.write_text(
        "from aebench.models import VAE, Batch, Terms\n"
        "class MyVAE(VAE):\n"
        "    name = 'my_vae'\n"
        "    def losses(self, batch: Batch) -> Terms:\n"
        "        terms = super().losses(batch)\n"
        "        return terms | {'loss': terms['reconstruction'] + 0.5 * terms['kl']}\n"
    )
    started = []
    try:
        rows = run("smoke", out=out, files=[file], workers=1, device="cpu", on_event=started.append)
        assert {event.cell.model for event in started} == {"my_vae"}
        assert set(rows.model) == {"pca", "vae", "my_vae"}
        assert "my_vae" in (out / "leaderboard.md").read_text()
    finally:
        Autoencoder._choices.pop("my_vae", None)


def test_two_versions_of_a_cell_are_not_averaged(smoke, tmp_path) -> None:
    """Of two cells with one specification, made by other code, the planned one counts."""
    out = tmp_path / "out"
    shutil.copytree(smoke[0], out)
    (folder,) = [f for f in (out / "cells").iterdir() if f.name.startswith("digits-vae-seed0")]
    stale = out / "cells" / "digits-vae-seed0-000000000000"
    shutil.copytree(folder, stale)
    about = json.loads((stale / "cell.json").read_text())
    (stale / "cell.json").write_text(json.dumps(about | {"key": "0" * 64}))
    os.utime(stale / "cell.json", (2e9, 2e9))
    rows = run("smoke", out=out, workers=1, device="cpu")
    assert stale.name not in set(rows.cell)
    assert stale.name in set(Store(out).rows().cell), "without a plan the newest counts"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nothing"], "no grid 'nothing'.*smoke"),
        (["run", "smoke", "--datasets", "mnist"], "the grid has no dataset 'mnist'.*digits"),
        (["run", "smoke", "--models", "vae,vea"], "the grid has no model 'vea'.*did you mean"),
        (["run", "smoke", "--seeds", "-1"], "seeds must be .*-1"),
        (["run", "smoke", "--seeds", "x"], "x"),
        (["run", "smoke", "--workers", "0"], "workers must be 1 or more, not 0"),
        (["run", "smoke", "--device", "tpu"], "no device 'tpu'.*cpu"),
        (["run", "smoke", "--set", "training.epochs"], "key=value"),
        (["run", "smoke", "--set", "models.vae.beta=1"], "no parameter 'beta'"),
        (["run", "smoke", "--set", "hyperparameters.latent_dim=0"], "1 or more, not 0"),
        (["run", "smoke", "--set", "backbones=[pythae_conv]"], "28×28.*not .*8, 8"),
        (["run", "smoke", "--model", "missing.py"], "no such file.*missing.py"),
        (["run"], "GRID"),
        (["run", "smoke", "--what"], "--what"),
        (["table", "missing"], "missing is not a folder of results"),
        (["table", "STORE", "--metric", "mmse"], "mmse.*mse"),
        (["table", "STORE", "--format", "pdf"], "pdf"),
        (["table", "OTHER"], "format 99"),
        (["run", "smoke", "--out", "OTHER"], "format 99"),
        (["run", "smoke", "--out", "FILE"], "FILE"),
        (["run", "smoke", "--out", "/proc/nothing"], "/proc/nothing cannot be used"),
        (["run", "mnist", "--out", "NEW"], "mnist.*train-images-idx3-ubyte.* not an IDX file"),
        (["show", "STORE", "nothing"], "no cell 'nothing'"),
        (["show", "STORE", "digits"], "several cells"),
        (["list", "model"], "cannot list 'model'.*models"),
        (["nothing"], "nothing"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    smoke, tmp_path, arguments, says, capsys, monkeypatch
) -> None:
    import re

    from aebench.benchmark.cli import main

    other = tmp_path / "other"
    other.mkdir()
    (other / "store.json").write_text('{"format": 99}')
    (tmp_path / "FILE").write_text("")
    damaged = tmp_path / "data" / "mnist" / "train-images-idx3-ubyte"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    monkeypatch.setenv("AEBENCH_DATA", str(tmp_path / "data"))
    places = {"STORE": str(smoke[0]), "OTHER": str(other), "FILE": str(tmp_path / "FILE")}
    places["NEW"] = str(tmp_path / "new")
    arguments = [places.get(argument, argument) for argument in arguments]
    if arguments[:2] == ["run", "smoke"] and "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "new")]
    before, sys.argv = sys.argv, ["aebench", *arguments]
    try:
        with pytest.raises(SystemExit) as stop:
            main()
    finally:
        sys.argv = before
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.out == ""
    lines = said.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("aebench: ")
    assert re.search(says, lines[0]), lines[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be used"):
        run("smoke", out=tmp_path / "out", workers=1)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    assert "leaderboard" in helped(["--help"], {"torch", "pandas", "sklearn", "numpy", "wandb"})


def test_workers_import_no_lightning() -> None:
    """It takes longer than all else that they import."""
    code = (
        "import sys\n"
        "import aebench.benchmark.preload\n"
        "assert 'aebench.benchmark.train' in sys.modules\n"
        "slow = {'pytorch_lightning', 'lightning_fabric', 'torchmetrics'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "kind", ["datasets", "models", "backbones", "samplers", "metrics", "grids"]
)
def test_list_names_every_choice(kind: str, capsys) -> None:
    from aebench.benchmark.catalogue import catalogue
    from aebench.benchmark.cli import app

    app(["list", kind], standalone_mode=False)
    said = capsys.readouterr().out
    for entry in catalogue(kind):
        assert entry.name in said
        assert entry.about, f"{entry.name} says nothing of itself"


@pytest.mark.parametrize("format", ["text", "md", "csv", "latex", "svg"])
def test_table_prints_every_model_in_every_format(smoke, format: str, capsys) -> None:
    from aebench.benchmark.cli import app

    app(["table", str(smoke[0]), "--format", format], standalone_mode=False)
    said = capsys.readouterr().out
    assert "pca" in said
    assert "vae" in said


def test_show_prints_specification_metrics_and_pictures(smoke, capsys) -> None:
    from aebench.benchmark.cli import app

    app(["show", str(smoke[0]), "digits-vae-seed1"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "latent_dim: 4" in said
    assert "mse" in said
    assert "reconstructions.png" in said


@pytest.mark.slow
def test_on_digits_every_trained_model_of_quick_beats_kmeans(tmp_path) -> None:
    """The grid `quick`, its budget whole, one seed; the reconstruction alone."""
    rows = run(
        "quick",
        datasets=["digits"],
        seeds=1,
        settings=["metrics=[mse]", "samplers=[prior]"],
        out=tmp_path,
        workers=1,
        device="cpu",
    )
    errors = rows[rows.metric == "mse"].set_index("model").value
    trained = [n for n in errors.index if not issubclass(Autoencoder.choose(n), ClosedForm)]
    assert len(trained) > 5
    for name in trained:
        assert errors[name] < 0.9 * errors["kmeans"], name
