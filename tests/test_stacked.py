"""Stacked denoising autoencoders: what each layer's pre-training reads, lowers and moves."""

import pytest
import torch
from aebench.datasets import Dataset
from aebench.models import Batch, DataSpec, model_from
from aebench.models.stacked import StackedDAE
from aebench.plugins import InputError
from small import batch, make
from torch import Tensor


@pytest.fixture(scope="module")
def digits() -> Tensor:
    images = Dataset.make("digits", {"train": 600, "val": 100, "test": 200}).split("train").images()
    return images.float() / 255


def small(**hyperparameters: object) -> StackedDAE:
    return make("stacked_dae", hidden=[64, 32], latent_dim=8, **hyperparameters)


class Spy:
    """What a model's denoising losses were asked and gave while it was pre-trained."""

    def __init__(self, model: StackedDAE, monkeypatch) -> None:
        self.calls: list[tuple[int, Tensor, float]] = []
        self.states: list[dict[str, Tensor]] = []
        loss = model.denoising_loss

        def spied(v: Tensor, level: int) -> Tensor:
            found = loss(v, level)
            self.calls.append((level, v.clone(), float(found.detach())))
            self.states.append({n: p.detach().clone() for n, p in model.named_parameters()})
            return found

        monkeypatch.setattr(model, "denoising_loss", spied)


def test_pre_training_lowers_every_layers_loss(digits: Tensor, monkeypatch) -> None:
    model = small(pretraining=5)
    spy = Spy(model, monkeypatch)
    model.initialise([Batch(x) for x in digits.split(50)])
    assert [level for level, _, _ in spy.calls] == [level for level in range(3) for _ in range(60)]
    for level in range(3):
        losses = [loss for where, _, loss in spy.calls if where == level]
        assert sum(losses[-12:]) < 0.98 * sum(losses[:12])


def test_each_layer_reads_clean_values_of_the_one_below(monkeypatch) -> None:
    model = small(pretraining=2, noise=0.5)
    spy = Spy(model, monkeypatch)
    data = [batch(seed=1), batch(seed=2)]
    model.initialise(data)
    for i, (level, v, _) in enumerate(spy.calls):
        assert torch.equal(v, model.propagate(data[i % 2].x, level))


def test_only_the_layer_under_training_moves(monkeypatch) -> None:
    model = small(pretraining=3)
    spy = Spy(model, monkeypatch)
    model.initialise([batch()])
    for level in range(3):
        first, *_, last = (s for s, call in zip(spy.states, spy.calls) if call[0] == level)
        moved = {name for name in first if not torch.equal(first[name], last[name])}
        assert moved == {
            f"{part}.{level}.{kind}"
            for part in ("encoders", "decoders")
            for kind in ("weight", "bias")
        }
    assert all(p.grad is None for p in model.parameters())


def test_denoising_loss_compares_the_repair_with_the_clean_values() -> None:
    model = small(noise=0.4)
    v = batch().x.flatten(1)
    torch.manual_seed(3)
    corrupted = model.corrupt(v)
    hit = corrupted == 0
    assert hit.float().mean() == pytest.approx(0.4, abs=0.03)
    assert torch.equal(corrupted[~hit], v[~hit])
    encoder, decoder = model.encoders[0], model.decoders[0]
    p = decoder(encoder(corrupted).sigmoid()).sigmoid()
    expected = -(v * p.log() + (1 - v) * (1 - p).log()).sum(1).mean()
    torch.manual_seed(3)
    assert model.denoising_loss(v, 0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_code_is_linear_and_the_layers_below_are_not() -> None:
    model = small()
    x = batch().x
    below = model.propagate(x, 2)
    assert 0 < below.min() < below.max() < 1
    with torch.no_grad():
        model.encoders[-1].weight.mul_(2)
        before = model.code(x) - model.encoders[-1].bias
        model.encoders[-1].weight.mul_(100)
        after = model.code(x) - model.encoders[-1].bias
    assert torch.allclose(after, 100 * before, rtol=1e-3, atol=1e-3)


def test_nothing_is_corrupted_after_pre_training() -> None:
    data = batch()
    quiet, noisy = small(noise=0.0).train(), small(noise=0.9).train()
    assert quiet.losses(data)["loss"] == noisy.losses(data)["loss"]
    assert torch.equal(quiet.code(data.x), noisy.code(data.x))
    assert torch.equal(quiet.reconstruct(data.x), noisy.reconstruct(data.x))


def test_pre_training_starts_below_no_pre_training(digits: Tensor) -> None:
    batches = [Batch(x) for x in digits.split(20)]
    losses = []
    for pretraining in (0, 10):
        model = small(pretraining=pretraining)
        model.initialise(batches)
        with torch.no_grad():
            losses.append(float(model.losses(Batch(digits))["loss"]))
    assert losses[1] < 0.7 * losses[0]


def test_needs_no_backbone() -> None:
    model = model_from("stacked_dae", {}, DataSpec((3, 5, 7)), None)
    sizes = [tuple(layer.weight.shape) for layer in model.encoders]
    assert sizes == [(1000, 105), (1000, 1000), (1000, 1000), (16, 1000)]


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"noise": 1.0},
        {"noise": -0.1},
        {"pretraining_lr": 0.0},
        {"pretraining": -1},
        {"hidden": [0]},
    ],
)
def test_refuses_what_makes_no_sense(hyperparameters: dict) -> None:
    with pytest.raises(InputError, match=f"stacked_dae.*{next(iter(hyperparameters))}") as error:
        make("stacked_dae", **hyperparameters)
    assert "\n" not in str(error.value)
