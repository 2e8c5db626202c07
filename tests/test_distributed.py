"""One training on several devices: here two processes of the CPU, over gloo."""

import re
from pathlib import Path

import pandas as pd
import pytest
from aebench.benchmark import run
from aebench.benchmark.results import read
from aebench.benchmark.train import Budget
from aebench.plugins import InputError

OWN = """
import os, signal
from aebench.models import Batch, Terms
from aebench.models.ae import AE

class Diverging(AE):
    name = "diverging"
    def losses(self, batch: Batch) -> Terms:
        return {"loss": super().losses(batch)["loss"] * float("nan")}

class Killed(AE):
    name = "killed"
    def losses(self, batch: Batch) -> Terms:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(batch)

class Refusing(AE):
    name = "refusing"
    def losses(self, batch: Batch) -> Terms:
        raise RuntimeError("it does not like\\nthese images")
"""
GRID = {
    "datasets": {"digits": {"train": 400, "val": 100, "test": 50}},
    "models": {"ae": {}, "vae": {}, "k_sparse_ae": {}},
    "backbones": {"mlp": {"hidden": [32]}},
    "training": {"epochs": 4, "batch_size": 40, "lr": 0.01},
    "seeds": 1,
    "metrics": ["mse"],
    "samplers": ["own"],
}


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    settings = {"device": "cpu", "workers": 1}
    one = run(GRID, out=tmp_path / "one", **settings)
    two = run(GRID, out=tmp_path / "two", devices=2, **settings)
    assert len(two) == len(one)
    assert not (two.metric == "failed").any()
    histories = [
        {cell.split("-")[1]: held.history(cell) for cell in held.specs}
        for held in (read(tmp_path / "one"), read(tmp_path / "two"))
    ]
    for model, history in histories[0].items():
        close = 0.05 if model == "vae" else 1e-5  # each process draws its noise itself
        for before, after in zip(history, histories[1][model], strict=True):
            for term in ("train/loss", "val/loss"):
                assert after[term] == pytest.approx(before[term], rel=close), model
    spec = next(iter(read(tmp_path / "two").specs.values()))
    assert spec["training"]["devices"] == 2
    assert two.hyperparameters.str.contains('"training.devices":2').all()


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_a_failed_row(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    grid = GRID | {"models": {"diverging": {}, "killed": {}, "refusing": {}}}
    rows = run(grid, files=[file], out=tmp_path / "out", devices=2, device="cpu", workers=1)
    failed = rows[rows.metric == "failed"].set_index("model").note
    assert failed["diverging"] == "TrainingFailed: train/loss became nan in epoch 1"
    assert failed["refusing"] == "RuntimeError: RuntimeError: it does not like these images"
    # The first to die by its signal, unless the other has missed it sooner.
    assert re.search("SIGKILL|[Cc]onnection|[Tt]imeout|peer", failed["killed"]), failed["killed"]
    assert pd.notna(failed).all()


def test_a_batch_can_be_shared_out() -> None:
    with pytest.raises(InputError, match=r"batch_size must be a multiple of devices \(3\), not 10"):
        Budget.of({"batch_size": 10, "devices": 3})
