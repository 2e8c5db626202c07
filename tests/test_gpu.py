"""The same on a CUDA device; run where there is one."""

import warnings

import pytest
import torch
from aebench.benchmark import load, run
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset, Split
from aebench.models import Autoencoder, Backbone, Batch, ClosedForm, DataSpec, Terms, model_from
from aebench.models.ae import AE
from small import quick
from standins import every_metric

TRAINED = [n for n, c in Autoencoder.choices().items() if not issubclass(c, ClosedForm)]

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


def digits_and(name: str) -> tuple[Dataset, Autoencoder]:
    """Digits, and a small model that starts from the same weights every time."""
    digits = Dataset.make("digits", {"train": 400, "val": 100, "test": 10})
    return digits, quick(name, digits.shape, "conv")


@pytest.mark.parametrize("name", TRAINED)
def test_a_captured_step_computes_what_a_plain_one_does(name: str) -> None:
    budget = Budget(epochs=3, batch_size=40)
    found = {}
    for capture in (True, False):
        digits, model = digits_and(name)
        found[capture] = train(model, digits, budget, ("gpu", name), "cuda", capture=capture)
    assert found[True].uncaptured == ""
    assert found[False].uncaptured
    for captured, plain in zip(found[True].history, found[False].history, strict=True):
        assert captured == pytest.approx(plain, rel=1e-2, abs=1e-3)


def test_a_step_that_waits_for_the_device_is_trained_as_it_is() -> None:
    class Waiting(AE):
        def losses(self, batch: Batch) -> Terms:
            terms = super().losses(batch)
            return terms | {"half": torch.tensor(0.5 * terms["loss"].item(), device=self.device)}

    digits = Dataset.make("digits", {"train": 400, "val": 100, "test": 10})
    model = Waiting(DataSpec(digits.shape, 10, 400), Backbone.choose("linear")())
    trained = train(model, digits, Budget(epochs=2, batch_size=40), ("gpu", "waiting"), "cuda")
    assert "waits for the device" in trained.uncaptured
    assert len(trained.history) == 2


@pytest.mark.parametrize("capture", [True, False])
def test_the_host_waits_for_the_device_once_an_epoch(capture: bool) -> None:
    digits, model = digits_and("vae")
    epochs = 12
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            budget = Budget(epochs=epochs, batch_size=20)
            train(model, digits, budget, ("gpu", "waits"), "cuda", capture=capture)
        finally:
            torch.cuda.set_sync_debug_mode(before)
    waits = [w for w in said if "synchroniz" in str(w.message)]
    # The order of the batches in, two sets of means out, and what the start and the end take.
    assert len(waits) <= 4 * epochs + 40, "not one a step, of which there are 240"


def test_a_streamed_split_gives_the_same_training(monkeypatch) -> None:
    digits, model = digits_and("ae")
    budget = Budget(epochs=3, batch_size=40)
    resident = train(model, digits, budget, ("gpu", "streamed"), "cuda").history
    monkeypatch.setattr(Split, "fits", lambda split, device: False)
    digits, model = digits_and("ae")
    trained = train(model, digits, budget, ("gpu", "streamed"), "cuda")
    assert trained.uncaptured == ""
    for streamed, plain in zip(trained.history, resident, strict=True):
        assert streamed == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("name", ["vae", "vq_vae", "aae"])
def test_bfloat16_trains_on_the_device(name: str) -> None:
    digits, model = digits_and(name)
    budget = Budget(epochs=5, batch_size=40, precision="bf16-mixed")
    trained = train(model, digits, budget, ("gpu", name), "cuda")
    key = f"val/{model.selection}"
    assert trained.uncaptured == ""
    assert trained.history[-1][key] < trained.history[0][key]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_several_cells_share_a_device(tmp_path) -> None:
    apart = run("smoke", out=tmp_path / "apart", device="cuda:0", workers=1)
    packed = run("smoke", out=tmp_path / "packed", device="cuda:0", per_device=4)
    assert not (packed.metric == "failed").any()
    scores = [rows[rows.metric == "mse"].value.to_numpy() for rows in (apart, packed)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one device")
def test_a_cell_on_two_devices(tmp_path) -> None:
    grid = {"datasets": ["digits"], "models": ["ae"], "seeds": 1, "metrics": ["mse"]}
    grid |= {"training": {"epochs": 3}}
    one = run(grid, out=tmp_path / "one", device="cuda:0")
    two = run(grid, out=tmp_path / "two", device="cuda", devices=2)
    scores = [rows[rows.metric == "mse"].value.iloc[0] for rows in (one, two)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-2)


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
