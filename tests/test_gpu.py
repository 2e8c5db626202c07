"""The same on a CUDA device; run where there is one."""

import pytest
import torch
from aebench.benchmark import load, run
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset
from aebench.models import Autoencoder, Backbone, DataSpec, model_from
from standins import every_metric

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("name", sorted(Autoencoder.choices()))
def test_every_model_trains_and_reconstructs(name: str) -> None:
    digits = Dataset.make("digits")
    torch.manual_seed(0)
    data = DataSpec(digits.shape, digits.classes, len(digits.split("train")))
    model = model_from(name, {}, data, Backbone.choose("conv")())
    trained = train(model, digits, Budget(epochs=5), ("gpu", name), "cuda")
    assert model.device.type == "cuda"
    if trained.history:
        key = f"val/{model.selection}"
        assert trained.history[trained.best_epoch - 1][key] < trained.history[0][key]
    split = digits.split("test").to("cuda")
    x = split.images().float() / 255
    with torch.no_grad():
        image = model.reconstruct(x, split.labels)
    assert image.device.type == "cuda"
    assert image.isfinite().all()


def test_sprites_are_the_same_on_the_device() -> None:
    sprites = Dataset.make("sprites", {"size": 32})
    factors = sprites.split("test").factors[:200]
    here, there = sprites.render(factors), sprites.render(factors.cuda()).cpu()
    assert (here.int() - there.int()).abs().max() <= 1


def test_a_run_on_the_device_and_its_models_back(tmp_path) -> None:
    out = tmp_path / "out"
    rows = run("smoke", out=out, device="cuda", workers=2)
    assert set(rows[rows.metric == "mse"].model) == {"pca", "vae"}
    host = run("smoke", out=tmp_path / "host", device="cpu", workers=1)
    cells = rows[(rows.model == "vae") & (rows.metric == "mse")]
    same = host[(host.model == "vae") & (host.metric == "mse")]
    assert cells.value.to_numpy() == pytest.approx(same.value.to_numpy(), rel=0.2)
    assert load(out, cells.cell.iloc[0], device="cuda").device.type == "cuda"


def test_every_metric_scores_on_the_device(tmp_path) -> None:
    rows = run(every_metric(), out=tmp_path, device="cuda")
    assert not (rows.metric == "failed").any()
    scored = set(rows[rows.value.notna()].metric.str.partition("[")[0])
    assert {"mse", "nll", "fid", "dci_disentanglement", "lines_distance", "map", "rate"} <= scored
