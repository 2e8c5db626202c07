"""The contractive autoencoder's known answers."""

import pytest
import torch
from aebench.models import Batch, DataSpec, model_from
from aebench.models.contractive import directions
from aebench.plugins import InputError
from test_models import backbone, batch, make
from torch import nn


def jacobian(model, x: torch.Tensor) -> torch.Tensor:
    """∂h/∂x of each image by autograd, one image at a time: (B, d, D)."""
    found = [torch.autograd.functional.jacobian(model.code, image[None]) for image in x]
    return torch.stack(found).flatten(3).squeeze(1).squeeze(2)


def test_single_layer_matches_the_papers_closed_form() -> None:
    model = make("contractive_ae", net="linear", probes=16)
    x, _ = batch(n=6)
    h, weight = model.code(x), model.encoder[1].weight
    closed = ((h * (1 - h)).square() * weight.square().sum(1)).sum(1)
    assert torch.allclose(model.squared_jacobian(x), closed, rtol=1e-4)
    assert torch.allclose(jacobian(model, x).square().sum((1, 2)), closed, rtol=1e-4)


@pytest.mark.parametrize("net", ["mlp", "conv"])
def test_deep_encoders_match_the_jacobian_by_autograd(net: str) -> None:
    model = make("contractive_ae", net=net, probes=16)
    x, _ = batch(n=4)
    expected = jacobian(model, x).square().sum((1, 2))
    assert torch.allclose(model.squared_jacobian(x), expected, rtol=1e-4)


def test_probes_are_unbiased_and_exact_when_there_are_enough() -> None:
    model = make("contractive_ae", latent_dim=4, probes=4)
    x, _ = batch(n=3)
    exact = model.squared_jacobian(x)
    assert torch.equal(model.squared_jacobian(x), exact)
    torch.manual_seed(0)
    for probes, draws in ((1, 1000), (3, 600)):
        model.probes = probes
        with torch.no_grad():
            found = torch.stack([model.squared_jacobian(x) for _ in range(draws)])
        assert found.std(0).min() > 0
        error = (found.mean(0) - exact).abs() / (found.std(0) / draws**0.5)
        assert error.max() < 4


@pytest.mark.parametrize("probes", [1, 3, 8])
def test_directions_add_up_to_the_identity(probes: int) -> None:
    torch.manual_seed(0)
    v = directions(torch.zeros(20_000, 4), probes)
    second = torch.einsum("nbi,nbj->ij", v, v) / v.shape[1]
    assert torch.allclose(second, torch.eye(4), atol=0 if probes >= 4 else 0.03)


def test_the_gradient_of_the_penalty_is_that_of_the_jacobian() -> None:
    model = make("contractive_ae", latent_dim=3, probes=3)
    x, _ = batch(n=4)
    parameters = list(model.encoder.parameters())
    ours = torch.autograd.grad(model.squared_jacobian(x).mean(), parameters, allow_unused=True)
    rows = []
    x.requires_grad_()
    h = model.code(x)
    for j in range(3):
        rows.append(torch.autograd.grad(h[:, j].sum(), x, create_graph=True)[0])
    expected = torch.stack(rows).square().sum() / 4
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    for mine, other in zip(ours, theirs):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-7)


def test_without_penalties_it_is_a_sigmoid_autoencoder_and_their_weights_count() -> None:
    data, terms = batch(), {}
    for contraction, decay in ((0.0, 0.0), (2.0, 0.5)):
        model = make("contractive_ae", contraction=contraction, weight_decay=decay, probes=16)
        terms[contraction] = {k: float(v.detach()) for k, v in model.losses(data).items()}
    assert terms[0.0]["loss"] == terms[0.0]["reconstruction"]
    with torch.no_grad():
        raw = model.decoder(model.encoder(data.x).sigmoid())
    assert float(model.reconstruction_loss(raw, data.x)) == terms[0.0]["loss"]
    layers = [layer for layer in model.decoder if isinstance(layer, nn.Linear)]
    weights = sum(float(layer.weight.detach().square().sum()) / 2 for layer in layers)
    exact = float(model.squared_jacobian(data.x).mean())
    assert terms[2.0]["contraction"] == pytest.approx(exact, rel=1e-5)
    expected = terms[0.0]["loss"] + 2 * exact + 0.5 * weights
    assert terms[2.0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_batch_normalisation_keeps_its_statistics_and_images_stay_apart() -> None:
    torch.manual_seed(0)
    data = DataSpec((1, 28, 28), 10, 64)
    net = backbone("linear")
    net.encoder = lambda shape, features: nn.Sequential(  # type: ignore[method-assign]
        nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, features)
    )
    model = model_from("contractive_ae", {"latent_dim": 2, "probes": 2}, data, net).train()
    x, _ = batch((1, 28, 28), 6)
    before = {name: buffer.clone() for name, buffer in model.encoder.named_buffers()}
    together = model.squared_jacobian(x)
    assert model.encoder.training
    assert all(module.training for module in model.encoder)
    assert all(torch.equal(before[name], b) for name, b in model.encoder.named_buffers())
    alone = torch.cat([model.squared_jacobian(image[None]) for image in x])
    assert torch.allclose(together, alone, rtol=1e-5)


def test_works_without_gradients_as_validation_does() -> None:
    model, data = make("contractive_ae", probes=16), batch(n=4)
    expected = float(model.losses(data)["contraction"])
    with torch.inference_mode():
        found = model.eval().losses(Batch(data.x.clone()))
    assert float(found["contraction"]) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_contracts() -> None:
    """Relative to the spread of the codes, not by making them all alike."""
    data, found = batch(n=32), {}
    for contraction in (0.0, 30.0):
        model = make("contractive_ae", contraction=contraction, latent_dim=2, probes=2)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(150):
            optimizer.zero_grad()
            model.losses(data)["loss"].backward()
            optimizer.step()
        found[contraction] = float(model.squared_jacobian(data.x).mean())
    assert found[30.0] < 0.5 * found[0.0]


@pytest.mark.parametrize("bad", [{"contraction": -1.0}, {"weight_decay": -1.0}, {"probes": 0}])
def test_refuses_what_makes_no_sense(bad: dict) -> None:
    with pytest.raises(InputError, match=f"model 'contractive_ae': {next(iter(bad))}") as error:
        make("contractive_ae", **bad)
    assert "\n" not in str(error.value)
