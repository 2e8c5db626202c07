"""The steps of a training: what a graph may replay, what is streamed, what bfloat16 computes."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from aebench.benchmark.loader import Loader
from aebench.benchmark.steps import LOOKED_AT, Means, Steps, outline
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset, Split
from aebench.models import Autoencoder, Backbone, Batch, ClosedForm, DataSpec, Terms, model_from
from aebench.models.ae import AE
from small import batch, quick, ready
from torch import Tensor

TRAINED = [n for n, c in Autoencoder.choices().items() if not issubclass(c, ClosedForm)]


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_changes_tensors_in_place_and_nothing_else(name: str) -> None:
    """What a graph does not see: other tensors under old names, numbers and lists of Python."""
    data = batch()
    model = ready(quick(name), data).train()
    model.steps, model.steps_done = 10, 3
    optimizers = model.configure_optimizers()
    model.step(data, optimizers)
    before = outline(model)
    model.step(data, optimizers)
    assert outline(model) == before


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_reads_no_number_back_from_the_device(name: str) -> None:
    """Tensors without content refuse what would make the host wait: .item(), masks, counts."""
    data = batch()
    model = ready(quick(name), data).train()
    model.steps, model.steps_done = 10, 3
    model, data = model.to("meta"), Batch(data.x.to("meta"), data.y.to("meta"))
    for objective in model.objectives():
        torch.autograd.grad(objective.terms(data)["loss"], objective.parameters)


class Counting(AE):
    """What a graph cannot replay: a count in Python, a list that grows, a tensor replaced."""

    name = "counting"
    what = ""

    def losses(self, batch: Batch) -> Terms:
        if self.what == "number":
            self.seen = getattr(self, "seen", 0) + 1
        elif self.what == "list":
            self.seen = [*getattr(self, "seen", []), 1]
        elif self.what == "tensor":
            self.rates = getattr(self, "rates", torch.zeros(())) + 1
        elif self.what == "inside":
            self.encoder.seen = getattr(self.encoder, "seen", 0) + 1
        return super().losses(batch)


Autoencoder._choices.pop("counting")


@pytest.mark.parametrize("what", ["number", "list", "tensor", "inside"])
def test_what_a_graph_does_not_see_is_found(what: str) -> None:
    model = Counting(DataSpec((1, 8, 8), 10, 64), Backbone.make("linear")).train()
    model.what = what
    optimizers, data = model.configure_optimizers(), batch()
    model.step(data, optimizers)
    before = outline(model)
    model.step(data, optimizers)
    changed = [name for name, held in outline(model).items() if before[name] != held]
    assert changed == [{"tensor": "rates", "inside": "encoder.seen"}.get(what, "seen")]


def test_means_are_over_images() -> None:
    means = Means()
    for values, n in (((1.0, 10.0), 3), ((5.0, 30.0), 1)):
        means.add({name: torch.tensor(v) for name, v in zip("ab", values)}, n)
    means.add({"c": torch.tensor(7)}, 2)
    assert means.read() == {"a": 2.0, "b": 15.0, "c": 7.0}
    assert means.read() == {}
    means.add({"a": torch.tensor(4.0)}, 1)
    assert means.read() == {"a": 4.0}


def digits_and(name: str, **hyperparameters: object) -> tuple[Dataset, Autoencoder]:
    digits = Dataset.make("digits", {"train": 210, "val": 50, "test": 10})
    torch.manual_seed(0)
    backbone = Backbone.make("mlp", {"hidden": [16]})
    return digits, model_from(name, hyperparameters, DataSpec(digits.shape, 10, 210), backbone)


class Replay:
    """Stands for a CUDA graph: what is captured computes nothing, a replay runs it."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    @contextmanager
    def recording(self) -> Iterator[None]:
        held = [self.steps.model, *self.steps.optimizers]
        states = [copy.deepcopy(one.state_dict()) for one in held]
        totals = {k: v.clone() for k, v in self.steps.means.totals.items()}
        stream = torch.get_rng_state()
        yield
        for one, state in zip(held, states):
            one.load_state_dict(state)
        for name, total in totals.items():
            self.steps.means.totals[name].copy_(total)
        torch.set_rng_state(stream)

    def replay(self) -> None:
        images = dict(self.steps.means.images)
        self.steps.eager(self.steps.inputs)
        self.steps.means.images = images


@pytest.mark.parametrize("name", ["vae", "aae", "capacity_vae"])
def test_captured_steps_are_the_same_steps(name: str, monkeypatch) -> None:
    """All but the graph itself: its inputs, its counts, the schedule it follows."""

    def history(captured: bool) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
        digits, model = digits_and(name)
        torch.manual_seed(1)
        loader, means = Loader(digits.split("train"), 20, seed=0), Means()
        model.steps, model.steps_done = 3 * len(loader), 0
        steps = Steps(model.train(), loader, model.configure_optimizers(), means)
        if captured:
            monkeypatch.setattr(steps, "uncaptured", "")
            monkeypatch.setattr(steps, "looked_at", steps.eager)
            graph = Replay(steps)
            monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
            monkeypatch.setattr(torch.cuda, "graph", lambda held, **_: held.recording())
        found = []
        for _ in range(3):
            for item in loader.items():
                steps.take(*item)
            found.append(means.read())
        assert (steps.graph is not None) == captured
        assert steps.taken == model.steps_done == 30
        return found, model.state_dict()

    (plain, weights), (replayed, others) = history(False), history(True)
    assert plain == replayed
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    assert LOOKED_AT < 10, "most of an epoch is replayed"


def test_a_streamed_split_gives_the_batches_of_a_resident_one(monkeypatch) -> None:
    digits, model = digits_and("vae")
    resident = train(model, digits, Budget(epochs=3, batch_size=20), ("streamed",))
    monkeypatch.setattr(Split, "fits", lambda split, device: False)
    loader = Loader(digits.split("train"), 20, seed=0)
    assert not loader.resident
    assert len(list(loader)) == len(loader) == 10
    _, model = digits_and("vae")
    streamed = train(model, digits, Budget(epochs=3, batch_size=20), ("streamed",))
    assert streamed.history == resident.history


def test_parts_of_a_batch_make_it_up() -> None:
    digits, _ = digits_and("ae")
    whole = list(Loader(digits.split("train"), 30, seed=0))
    parts = [list(Loader(digits.split("train"), 30, seed=0, part=(r, 3))) for r in range(3)]
    for i, full in enumerate(whole):
        assert [len(part[i].x) for part in parts] == [10, 10, 10]
        together = torch.stack([part[i].x for part in parts], 1).flatten(0, 1)
        assert torch.equal(together, full.x)


def test_a_drawn_image_is_drawn_anew_every_epoch_and_streamed_alike(monkeypatch) -> None:
    grey = torch.full((40, 1, 4, 4), 128, dtype=torch.uint8)
    split = Split(pixels=grey.clone() * 0, grey=grey)

    def epochs() -> list[Tensor]:
        torch.manual_seed(0)
        loader = Loader(split, 40, seed=0)
        return [next(iter(loader)).x for _ in range(2)]

    resident = epochs()
    assert not torch.equal(*resident)
    assert set(torch.cat(resident).unique().tolist()) == {0.0, 1.0}
    (fixed,) = Loader(split, 40)
    assert fixed.x.max() == 0, "validation sees the one draw that is kept"
    monkeypatch.setattr(Split, "fits", lambda split, device: False)
    assert all(torch.equal(a, b) for a, b in zip(resident, epochs()))


@pytest.mark.parametrize("name", TRAINED)
def test_bfloat16_trains_every_model(name: str, monkeypatch) -> None:
    """The networks compute in it; weights, terms and what comes after are float32."""
    digits = Dataset.make("digits", {"train": 200, "val": 50, "test": 10})
    model = quick(name)
    seen: set[torch.dtype] = set()
    linear = torch.nn.functional.linear

    def watched(*args: Any) -> Tensor:
        out = linear(*args)
        seen.add(out.dtype)
        return out

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    plain = {id(m): vars(m).get("forward") for m in model.modules()}
    budget = Budget(epochs=3, batch_size=20, lr=3e-3, precision="bf16-mixed")
    trained = train(model, digits, budget, ("bf16", name))
    assert torch.bfloat16 in seen
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(math.isfinite(v) for record in trained.history for v in record.values())
    assert {id(m): vars(m).get("forward") for m in model.modules()} == plain
    seen.clear()
    model.reconstruct(*next(iter(Loader(digits.split("val"), 10))))
    assert torch.bfloat16 not in seen


def test_bfloat16_is_near_float32() -> None:
    losses = {}
    for precision in (32, "bf16-mixed"):
        digits, model = digits_and("vae")
        budget = Budget(epochs=10, batch_size=20, lr=3e-3, precision=precision)
        trained = train(model, digits, budget, ("near",))
        losses[precision] = [record["val/loss"] for record in trained.history]
    assert losses[32] != losses["bf16-mixed"]
    assert losses["bf16-mixed"] == pytest.approx(losses[32], rel=0.02)


@pytest.mark.parametrize("name", ["vae", "aae", "k_sparse_ae"])
def test_lightnings_trainer_takes_the_same_steps(name: str) -> None:
    from aebench.benchmark.lightning import LightningAutoencoder  # slow to import
    from pytorch_lightning import Trainer

    digits, ours = digits_and(name)
    (epoch,) = train(ours, digits, Budget(epochs=1, batch_size=20), ("lightning",)).history
    _, theirs = digits_and(name)
    from aebench.seeds import derive_seed

    torch.manual_seed(derive_seed("lightning", "train"))
    loader = Loader(digits.split("train"), 20, derive_seed("lightning", "order"))
    theirs.make_optimizer = Budget().make_optimizer()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(LightningAutoencoder(theirs), loader, Loader(digits.split("val"), 500))
    assert theirs.share_done == 1
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert set(logged) == set(epoch) - {"epoch"}
    for key in logged:
        if key.startswith("train/") or name == "k_sparse_ae":  # else validation draws codes
            assert logged[key] == pytest.approx(epoch[key], rel=1e-5), key
