"""Restricted Boltzmann machines on problems that can be enumerated, and what they pre-train."""

import itertools
import math

import pytest
import torch
from aebench.datasets import Dataset
from aebench.models import Batch, DataSpec, model_from
from aebench.models.rbm import RBM, RBMAE
from aebench.plugins import InputError
from small import batch, make
from torch import Tensor
from torch.nn import functional as F


def states(n: int) -> Tensor:
    """Every state of n binary units, (2^n, n)."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)))


def machine(visible: int, hidden: int, linear: bool = False) -> RBM:
    """A machine whose weights and biases are all of size one."""
    torch.manual_seed(0)
    rbm = RBM(visible, hidden, linear=linear)
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.normal_()
    return rbm


def joint(rbm: RBM) -> Tensor:
    """p(v, h) of a binary machine by its energy, (2^visible, 2^hidden)."""
    v, h = states(len(rbm.visible_bias)), states(len(rbm.hidden_bias))
    weighted = v @ rbm.weight.T @ h.T
    minus_energy = (v @ rbm.visible_bias)[:, None] + h @ rbm.hidden_bias + weighted
    return minus_energy.flatten().softmax(0).view_as(minus_energy)


def log_likelihood(rbm: RBM, v: Tensor) -> Tensor:
    """The exact mean log p(v) in nats."""
    normaliser = (-rbm.free_energy(states(v.shape[1]))).logsumexp(0)
    return (-rbm.free_energy(v) - normaliser).mean()


def test_binary_machine_matches_its_enumerated_joint() -> None:
    rbm = machine(4, 3)
    p = joint(rbm)
    v, h = states(4), states(3)
    assert torch.allclose((-rbm.free_energy(v)).softmax(0), p.sum(1), atol=1e-6)
    assert torch.allclose(rbm.hidden(v), p / p.sum(1, keepdim=True) @ h, atol=1e-6)
    assert torch.allclose(rbm.visible(h), (p / p.sum(0)).T @ v, atol=1e-6)
    energy = -(v @ rbm.visible_bias)[:, None] - h @ rbm.hidden_bias - v @ rbm.weight.T @ h.T
    assert torch.allclose(rbm.free_energy(v), -(-energy).logsumexp(1), atol=1e-5)


def test_linear_machine_matches_its_integrated_joint() -> None:
    rbm = machine(4, 2, linear=True)
    v, line = states(4), torch.linspace(-15, 15, 601)
    h = torch.cartesian_prod(line, line)
    squares = 0.5 * (h - rbm.hidden_bias).square().sum(1)
    minus_energy = (v @ rbm.visible_bias)[:, None] - squares + v @ rbm.weight.T @ h.T
    area = 2 * math.log(float(line[1] - line[0]))
    assert torch.allclose(rbm.free_energy(v), -minus_energy.logsumexp(1) - area, atol=1e-3)
    assert torch.allclose(rbm.hidden(v), minus_energy.softmax(1) @ h, atol=1e-3)
    drawn = rbm.draw(torch.full((100_000, 2), 3.0))
    assert drawn.mean() == pytest.approx(3, abs=0.02)
    assert drawn.var() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("linear", [False, True])
def test_contrastive_divergence_ascends_the_likelihood(linear: bool) -> None:
    """Its mean over many draws lies within an acute angle of the exact gradient."""
    rbm = machine(4, 3, linear)
    with torch.no_grad():
        rbm.weight.mul_(0.3)
    data = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]])
    exact = torch.autograd.grad(
        log_likelihood(rbm, data), [rbm.weight, rbm.visible_bias, rbm.hidden_bias]
    )
    with torch.no_grad():
        found = rbm.contrast(data.repeat(20_000, 1))
    for ours, true in zip(found, exact, strict=True):
        assert ours.shape == true.shape
        assert F.cosine_similarity(ours.flatten(), true.flatten(), dim=0) > 0.8


def test_contrast_is_the_mean_over_hidden_states() -> None:
    rbm = machine(4, 3)
    data = torch.tensor([[1.0, 1, 0, 0], [0, 0.5, 1, 1]])
    h, mean = states(3), rbm.hidden(data)
    chances = torch.where(h.bool(), mean[:, None], 1 - mean[:, None]).prod(2)
    seen = rbm.visible(h)
    again = rbm.hidden(seen)
    weight = (mean.T @ data - torch.einsum("ns,sh,sv->hv", chances, again, seen)) / 2
    torch.manual_seed(0)
    found = rbm.contrast(data.repeat(100_000, 1))
    expected = (
        weight,
        data.mean(0) - (chances @ seen).mean(0),
        (mean - chances @ again).mean(0),
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=5e-3)


def test_fit_raises_the_exact_likelihood_of_bars_and_stripes() -> None:
    rows = states(2)
    images = torch.cat([rows.repeat_interleave(2, 1), rows.repeat(1, 2)]).unique(dim=0)
    assert len(images) == 6
    torch.manual_seed(0)
    rbm = RBM(4, 8)
    found = []
    for epochs in (0, 100, 900):
        rbm.fit([[images]] * epochs, lr=0.1, weight_decay=0.0)
        found.append(log_likelihood(rbm, images).item())
    assert found[0] == pytest.approx(-math.log(16), abs=0.1)
    assert found == sorted(found)
    assert found[-1] > -2.25  # the data allow -log 6 = -1.79; one step of divergence is biased


def test_fit_takes_the_published_steps(monkeypatch) -> None:
    """An increment of momentum · increment + rate · (direction - decay · weight), by hand."""
    rbm = machine(3, 2)
    directions = [torch.ones(2, 3), torch.ones(3), torch.ones(2)]
    monkeypatch.setattr(rbm, "contrast", lambda v: tuple(d.clone() for d in directions))
    parameters = [rbm.weight, rbm.visible_bias, rbm.hidden_bias]
    expected = [p.detach().clone() for p in parameters]
    increments = [torch.zeros_like(p) for p in expected]
    rbm.fit([[torch.zeros(1, 3)]] * 7, lr=0.1, weight_decay=0.5)
    for epoch in range(7):
        momentum = 0.5 if epoch < 5 else 0.9
        for i, decay in enumerate((0.5, 0.0, 0.0)):
            increments[i] = momentum * increments[i] + 0.1 * (directions[i] - decay * expected[i])
            expected[i] = expected[i] + increments[i]
    for ours, theirs in zip(parameters, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    images = Dataset.make("digits", {"train": 600, "val": 100, "test": 200}).split("train").images()
    return images.float() / 255


def small(**hyperparameters: object) -> RBMAE:
    return make("rbm_ae", hidden=[64, 32], latent_dim=8, **hyperparameters)


def test_unrolled_layers_are_the_machines_and_their_transposes() -> None:
    model = small(pretraining=2)
    x = batch().x
    model.initialise([Batch(x)])
    for encoder, decoder in zip(model.encoders, model.decoders, strict=True):
        assert torch.equal(decoder.weight, encoder.weight.T)
    w = [layer.weight for layer in model.encoders]
    c, b = ([layer.bias for layer in part] for part in (model.encoders, model.decoders))
    h = (x.flatten(1) @ w[0].T + c[0]).sigmoid()
    z = (h @ w[1].T + c[1]).sigmoid() @ w[2].T + c[2]
    assert torch.allclose(model.code(x), z, atol=1e-5)
    assert z.min() < 0
    h = ((z @ w[2] + b[2]).sigmoid() @ w[1] + b[1]).sigmoid()
    expected = (h @ w[0] + b[0]).sigmoid().unflatten(1, (1, 8, 8))
    assert torch.allclose(model.reconstruct(x), expected, atol=1e-5)

    # Once training begins, the two ends are weights of their own.
    optimizers = model.configure_optimizers()
    model.step(Batch(x), optimizers)
    for encoder, decoder in zip(model.encoders, model.decoders, strict=True):
        assert not torch.equal(decoder.weight, encoder.weight.T)


def test_each_machine_sees_the_means_of_the_one_below(monkeypatch) -> None:
    fitted = []
    fit = RBM.fit

    def spy(rbm: RBM, epochs, lr: float, weight_decay: float) -> None:
        seen = [list(batches) for batches in epochs]
        fitted.append((rbm, lr, weight_decay, seen))
        fit(rbm, seen, lr, weight_decay)

    monkeypatch.setattr(RBM, "fit", spy)
    model = small(pretraining=3)
    data = [batch(seed=1), batch(seed=2)]
    model.initialise(data)
    assert [rbm.linear for rbm, *_ in fitted] == [False, False, True]
    assert [lr for _, lr, _, _ in fitted] == [0.1, 0.1, 0.001]
    assert {weight_decay for _, _, weight_decay, _ in fitted} == {2e-4}
    for level, (rbm, _, _, seen) in enumerate(fitted):
        encoder, decoder = model.encoders[level], model.decoders[level]
        assert torch.equal(encoder.weight, rbm.weight)
        assert torch.equal(encoder.bias, rbm.hidden_bias)
        assert torch.equal(decoder.bias, rbm.visible_bias)
        assert [len(batches) for batches in seen] == [2, 2, 2]
        for batches in seen:
            for v, given in zip(batches, data):
                assert torch.equal(v, model.propagate(given.x, level))
                assert ((v > 0) & (v < 1)).float().mean() > 0.9, "means, not binary draws"


def test_pre_training_starts_well_below_no_pre_training(digits: Tensor) -> None:
    batches = [Batch(x) for x in digits.split(20)]
    errors = []
    for pretraining in (0, 30):
        model = small(pretraining=pretraining)
        model.initialise(batches)
        with torch.no_grad():
            errors.append(
                float((model.reconstruct(digits) - digits).square().flatten(1).sum(1).mean())
            )
    variance = float(digits.var(0).sum())
    assert errors[0] > variance  # no better than the mean image
    assert errors[1] < 0.7 * variance


def test_no_pre_training_leaves_the_layers_alone() -> None:
    model = small(pretraining=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.initialise([batch()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_pre_training_follows_the_seed() -> None:
    def start(seed: int) -> list[Tensor]:
        model = small(pretraining=2)
        torch.manual_seed(seed)
        model.initialise([batch()])
        return list(model.state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(start(0), start(0)))
    assert any(not torch.equal(a, b) for a, b in zip(start(0), start(1)))


def test_has_the_papers_layers_and_needs_no_backbone() -> None:
    model = model_from("rbm_ae", {"latent_dim": 30}, DataSpec((1, 28, 28)), None)
    sizes = [tuple(layer.weight.shape) for layer in model.encoders]
    assert sizes == [(1000, 784), (500, 1000), (250, 500), (30, 250)]
    assert [tuple(layer.weight.shape[::-1]) for layer in model.decoders] == sizes
    assert model.observation.label == "bernoulli"


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"pretraining": -1},
        {"pretraining_lr": 0.0},
        {"code_lr": -1.0},
        {"weight_decay": -1.0},
        {"hidden": [0]},
    ],
)
def test_refuses_what_makes_no_sense(hyperparameters: dict) -> None:
    with pytest.raises(InputError, match=f"rbm_ae.*{next(iter(hyperparameters))}") as error:
        make("rbm_ae", **hyperparameters)
    assert "\n" not in str(error.value)
