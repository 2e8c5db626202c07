"""The regularised autoencoders' known answers."""

import math

import pytest
import torch
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset
from aebench.models import Autoencoder, Batch
from aebench.plugins import InputError
from test_models import batch, make
from torch import nn

NAMES = ["rae_l2", "rae_gp", "rae_sn"]


@pytest.fixture(scope="module")
def digits():
    return Dataset.make("digits", {"train": 600, "val": 100, "test": 200})


def matrices(model: Autoencoder) -> list[torch.Tensor]:
    """The decoder's weights as they act, each as a matrix of output channels by the rest."""
    found = []
    for layer in model.decoder.modules():
        if isinstance(layer, (nn.Linear, nn.ConvTranspose2d)):
            transposed = isinstance(layer, nn.ConvTranspose2d)
            weight = layer.weight.movedim(1, 0) if transposed else layer.weight
            found.append(weight.flatten(1).detach())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_code_pays_half_beta_times_its_square(name: str) -> None:
    data = batch()
    terms = {beta: make(name, beta=beta).losses(data) for beta in (0.0, 0.5)}
    model = make(name)
    expected = 0.5 * model.code(data.x).square().sum(1).mean()
    assert float(terms[0.5]["embedding"]) == pytest.approx(float(expected), rel=1e-5)
    difference = terms[0.5]["loss"] - terms[0.0]["loss"]
    assert float(difference) == pytest.approx(0.5 * float(expected), rel=1e-3)


def test_without_a_regulariser_it_is_an_autoencoder() -> None:
    data = batch()
    plain = make("ae").losses(data)["loss"]
    assert make("rae_l2", beta=0.0, weight=0.0).losses(data)["loss"] == plain
    assert make("rae_gp", beta=0.0, weight=0.0).losses(data)["loss"] == plain


@pytest.mark.parametrize(
    ("name", "reference", "weight"), [("rae_l2", 1e-7, 1.0), ("rae_gp", 0.5e-7, 16.7 / 16)]
)
def test_the_defaults_are_the_programs_setting_of_mnist(name, reference, weight) -> None:
    """The program's loss of 32×32 images, times D / 2, is ours at σ = 1."""
    model = make(name, (1, 32, 32))
    assert model.latent_dim == 16
    x, z = batch((1, 32, 32), 4).x, torch.randn(4, 16)
    terms = model.regularised(x, z)
    mean = model.observation.mean(model.raw(z))
    theirs = (mean - x).square().mean() + 1e-4 * z.square().mean()
    ours = terms["reconstruction"] - 512 * math.log(2 * math.pi) + model.beta * terms["embedding"]
    assert float(ours) == pytest.approx(512 * float(theirs), rel=1e-5)
    assert model.weight == pytest.approx(512 * reference * weight, rel=0.02)
    assert make("rae_sn").beta == pytest.approx(90 * make("rae_l2").beta)


def test_l2_is_the_sum_of_squares_of_the_decoder_alone() -> None:
    model, data = make("rae_l2", net="conv", weight=0.1), batch()
    terms = model.losses(data)
    expected = sum(float(p.square().sum()) for p in model.decoder.parameters())
    assert float(terms["penalty"]) == pytest.approx(expected, rel=1e-5)
    rest = terms["reconstruction"] + model.beta * terms["embedding"]
    assert float(terms["loss"]) == pytest.approx(float(rest) + 0.1 * expected, rel=1e-5)
    reached = torch.autograd.grad(
        terms["penalty"], list(model.encoder.parameters()), allow_unused=True
    )
    assert all(gradient is None for gradient in reached)


@pytest.mark.parametrize("net", ["linear", "mlp", "conv"])
def test_gp_is_the_square_of_the_decoders_jacobian_at_the_code(net: str) -> None:
    model = make("rae_gp", net=net, latent_dim=3, probes=3)
    x, _ = batch(n=4)
    z = model.code(x).detach()
    columns = [
        torch.autograd.functional.jacobian(lambda z: model.observation.mean(model.raw(z)), c[None])
        for c in z
    ]
    expected = torch.stack(columns).flatten(1).square().sum(1)
    assert torch.allclose(model.squared_jacobian(z), expected, rtol=1e-4)
    assert float(model.losses(Batch(x))["penalty"]) == pytest.approx(
        float(expected.mean()), rel=1e-4
    )
    if net == "linear":
        assert expected.mean() == pytest.approx(float(model.decoder[0].weight.square().sum()))


def test_gp_of_a_sigmoid_layer_and_its_gradients_have_the_closed_form() -> None:
    """Both networks are trained by it: the decoder directly, the encoder through its code."""
    model = make("rae_gp", latent_dim=3, probes=3)
    model.decoder = nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, (1, 8, 8)))
    x, _ = batch(n=4)
    parameters = list(model.parameters())
    z = model.code(x)
    pixels = model.decoder(z).flatten(1).sigmoid()
    rows = model.decoder[0].weight.square().sum(1)
    closed = ((pixels * (1 - pixels)).square() * rows).sum(1).mean()
    penalty = model.losses(Batch(x))["penalty"]
    assert float(penalty) == pytest.approx(float(closed), rel=1e-4)
    ours = torch.autograd.grad(penalty, parameters)
    theirs = torch.autograd.grad(closed, parameters)
    for mine, other in zip(ours, theirs):
        assert other.abs().sum() > 0
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-7)


def test_gp_probes_are_unbiased() -> None:
    model = make("rae_gp", latent_dim=4, probes=4)
    z = torch.randn(3, 4)
    exact = model.squared_jacobian(z)
    model.probes = 1
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([model.squared_jacobian(z) for _ in range(1000)])
    assert found.std(0).min() > 0
    assert ((found.mean(0) - exact).abs() / (found.std(0) / 1000**0.5)).max() < 4


def test_gp_smooths_the_decoder() -> None:
    data, found = batch(n=32), {}
    for weight in (0.0, 10.0):
        model = make("rae_gp", weight=weight, latent_dim=2, probes=2)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(150):
            optimizer.zero_grad()
            model.losses(data)["loss"].backward()
            optimizer.step()
        z = model.code(data.x)
        found[weight] = float(model.squared_jacobian(z).mean() * z.var(0).sum())
    assert found[10.0] < 0.5 * found[0.0]


@pytest.mark.parametrize("net", ["mlp", "conv"])
def test_sn_keeps_every_spectral_norm_at_one_while_it_trains(net: str, digits) -> None:
    model = make("rae_sn", net=net)
    train(model, digits, Budget(epochs=3, batch_size=20), ("norms", net))
    found = matrices(model)
    assert len(found) == 2
    for matrix in found:
        assert torch.linalg.matrix_norm(matrix, 2) == pytest.approx(1, abs=0.1)
    free = make("rae_l2", net=net)
    train(free, digits, Budget(epochs=3, batch_size=20), ("norms", net))
    assert any(torch.linalg.matrix_norm(m, 2) > 1.2 for m in matrices(free)), "norms would move"


def test_sn_iterates_once_a_training_step_and_at_no_other_time() -> None:
    model, data = make("rae_sn"), batch()
    assert model.training

    def state() -> list[torch.Tensor]:
        return [buffer.clone() for buffer in model.decoder.buffers()]

    with torch.no_grad():
        for layer in model.decoder:
            if isinstance(layer, nn.Linear):  # another matrix, whose norm is not known yet
                layer.parametrizations.weight.original.normal_()
    before = state()
    model.reconstruct(data.x)
    model.eval().losses(data)
    model.train().reconstruct(data.x)
    assert all(torch.equal(a, b) for a, b in zip(before, state()))
    for _ in range(2):
        model.losses(data)
        assert not any(torch.equal(a, b) for a, b in zip(before, state()))
        before = state()
    for _ in range(200):
        model.iterate()
    for matrix in matrices(model):
        assert torch.linalg.matrix_norm(matrix, 2) == pytest.approx(1, abs=1e-3)


def test_sn_saves_and_loads_with_equal_outputs(tmp_path) -> None:
    model, data = make("rae_sn", net="conv"), batch()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        model.losses(data)["loss"].backward()
        optimizer.step()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.manual_seed(5)
    again = make("rae_sn", net="conv")
    assert not torch.equal(again.reconstruct(data.x), model.reconstruct(data.x))
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(again.reconstruct(data.x), model.reconstruct(data.x))
    assert torch.equal(again.eval().reconstruct(data.x), model.eval().reconstruct(data.x))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("rae_l2", {"beta": -1.0}),
        ("rae_l2", {"weight": -1.0}),
        ("rae_gp", {"weight": math.nan}),
        ("rae_gp", {"probes": 0}),
        ("rae_sn", {"beta": -1.0}),
        ("rae_sn", {"weight": 1.0}),
    ],
)
def test_refuses_what_makes_no_sense(name: str, bad: dict) -> None:
    with pytest.raises(InputError, match=f"model '{name}'.*{next(iter(bad))}") as error:
        make(name, **bad)
    assert "\n" not in str(error.value)
