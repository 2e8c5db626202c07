"""Bounds of several samples, against loops and a model whose likelihood is known."""

import math

import pytest
import torch
from aebench.models import Autoencoder, Backbone, Batch, DataSpec, model_from
from aebench.models.importance import importance_bound
from aebench.plugins import InputError
from test_models import batch, make
from torch import Tensor

SHAPE = (1, 2, 3)


def linear(name: str, **hyperparameters: object) -> Autoencoder:
    """A linear Gaussian model, whose log p(x) is :func:`marginal`."""
    torch.manual_seed(0)
    chosen = {"latent_dim": 2, "likelihood": "gaussian", "sigma": 0.5} | hyperparameters
    return model_from(name, chosen, DataSpec(SHAPE), Backbone.make("linear"))


def marginal(model: Autoencoder, x: Tensor) -> Tensor:
    """log p(x) = log N(x; b, W Wᵀ + σ² I) of images: (B,)."""
    layer = model.decoder[0]
    covariance = layer.weight @ layer.weight.T + 0.5**2 * torch.eye(6)
    return torch.distributions.MultivariateNormal(layer.bias, covariance).log_prob(x.flatten(1))


def loss(model: Autoencoder, data: Batch, seed: int = 3) -> Tensor:
    torch.manual_seed(seed)
    return model.losses(data)["loss"]


def given(model: Autoencoder, log_weights: Tensor) -> Autoencoder:
    """The model, whose log-weights are these (samples, B)."""

    def stored(x: Tensor, y: Tensor | None, samples: int) -> Tensor:
        assert samples == len(log_weights)
        return log_weights

    model.log_weights = stored  # type: ignore[method-assign]
    return model


def looped(log_weights: Tensor) -> float:
    """1/B Σ_b 1/M Σ_m log 1/K Σ_k w_mkb of log-weights (M, K, B)."""
    total = 0.0
    m, k, b = log_weights.shape
    for i in range(b):
        for j in range(m):
            total += math.log(sum(math.exp(log_weights[j, n, i]) for n in range(k)) / k)
    return total / (b * m)


def test_the_bound_neither_overflows_nor_forgets_the_number_of_samples() -> None:
    same = torch.tensor([[-1000.0, 900.0]]).expand(7, 2)
    assert torch.allclose(importance_bound(same), torch.tensor([-1000.0, 900.0]))
    assert importance_bound(torch.tensor([0.0, math.log(3.0)])) == pytest.approx(math.log(2.0))


def test_every_bound_averages_over_its_own_axis() -> None:
    weights = 2 * torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    flat, x = weights.flatten(0, 1), batch(n=4)

    def value(name: str, **hyperparameters: object) -> float:
        return -float(given(make(name, **hyperparameters), flat).losses(x)["loss"])

    by_bound, together = looped(weights), looped(flat[None])
    swapped = looped(flat.view(5, 3, 4))
    assert value("miwae", estimates=3, samples=5) == pytest.approx(by_bound)
    assert value("miwae", estimates=5, samples=3) == pytest.approx(swapped)
    assert swapped < by_bound - 0.1 < together - 0.1, "larger bounds are tighter"
    assert value("miwae", estimates=1, samples=15) == pytest.approx(together)
    assert value("miwae", estimates=15, samples=1) == pytest.approx(float(flat.mean()))
    assert value("iwae", samples=15) == pytest.approx(together)
    for beta in (0.0, 0.3, 1.0):
        expected = beta * float(flat.mean()) + (1 - beta) * together
        assert value("ciwae", samples=15, beta=beta) == pytest.approx(expected)
    piwae = given(make("piwae", estimates=3, samples=5), flat)
    terms = piwae.terms(x)
    assert -float(terms["encoder"]) == pytest.approx(by_bound)
    assert -float(terms["decoder"]) == pytest.approx(together)
    assert piwae.selection in terms
    for name in ("iwae", "ciwae"):
        terms = given(make(name, samples=15), flat).losses(x)
        assert float(terms["elbo"]) == pytest.approx(float(flat.mean()))


def test_one_sample_is_the_elbo_with_the_same_noise() -> None:
    data = batch(n=6)
    model = make("iwae", samples=1)
    torch.manual_seed(3)
    elbo = model.log_weights(data.x, None, 1).mean()
    assert torch.equal(loss(model, data), -elbo)
    assert torch.allclose(loss(make("ciwae", samples=1), data), -elbo)
    assert torch.equal(loss(make("miwae", samples=1, estimates=1), data), -elbo)


def test_one_estimate_is_iwae_with_the_same_noise() -> None:
    data = batch(n=6)
    single = loss(make("miwae", samples=7, estimates=1), data)
    assert torch.allclose(single, loss(make("iwae", samples=7), data))
    assert torch.allclose(single, loss(make("ciwae", samples=7, beta=0.0), data))


@torch.no_grad()
def test_the_bound_rises_with_the_samples_to_the_known_likelihood_and_not_above() -> None:
    model = linear("iwae")
    x = 0.3 * torch.randn(8, *SHAPE)
    exact = marginal(model, x).mean()
    bounds, errors = [], []
    for samples in (1, 4, 16, 256):
        draws = importance_bound(model.log_weights(x, None, 2000 * samples).view(samples, 2000, 8))
        bounds.append(float(draws.mean()))
        errors.append(float(draws.mean(1).std()) / math.sqrt(2000))
    for (lower, upper), error in zip(zip(bounds, bounds[1:]), errors):
        assert lower < upper - 4 * error
    for bound, error in zip(bounds, errors):
        assert bound < exact + 4 * error
    assert exact - bounds[-1] < 0.02 < exact - bounds[0]


@torch.no_grad()
def test_the_loss_is_the_bound_on_the_known_likelihood_in_nats() -> None:
    data = Batch(0.3 * torch.randn(8, *SHAPE))
    model = linear("iwae", samples=20_000)
    assert -float(loss(model, data)) == pytest.approx(
        float(marginal(model, data.x).mean()), abs=0.1
    )


@torch.no_grad()
def test_all_weights_are_the_likelihood_where_the_posterior_is_exact() -> None:
    model = linear("iwae", samples=5)
    w, b = model.decoder[0].weight, model.decoder[0].bias
    # The exact posterior is not diagonal; it is for orthogonal columns.
    w.copy_(torch.linalg.qr(w).Q * torch.tensor([0.7, 1.5]))
    precision = 1 + w.square().sum(0) / 0.25
    encoder = model.encoder[1]
    encoder.weight.zero_()
    encoder.weight[:2] = w.T / 0.25 / precision[:, None]
    encoder.bias[:2] = -encoder.weight[:2] @ b
    encoder.bias[2:] = -precision.log()
    x = torch.randn(4, *SHAPE)
    expected = marginal(model, x)
    assert torch.allclose(model.log_weights(x, None, 5), expected.expand(5, 4), atol=1e-4)
    for name in ("iwae", "miwae", "ciwae"):
        other = linear(name)
        other.load_state_dict(model.state_dict())
        assert torch.allclose(-loss(other, Batch(x)), expected.mean(), atol=1e-4)


def test_piwae_steps_each_network_by_its_own_bound() -> None:
    """The encoder's gradient is MIWAE's and the decoder's IWAE's, through a real step."""
    data = batch(n=5)
    m, k = 3, 4
    model = make("piwae", estimates=m, samples=k).train()
    optimizers = model.configure_optimizers()
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # so that both gradients are of the same weights
    torch.manual_seed(7)
    model.step(data, optimizers)
    stepped = {name: p.grad.clone() for name, p in model.named_parameters()}

    torch.manual_seed(7)
    first, second = (  # the decoder's samples, then the encoder's
        model.log_weights(data.x, None, m * k).double().exp().view(m, k, -1) for _ in range(2)
    )
    of_iwae = -first.mean((0, 1)).log().mean()
    of_miwae = -second.mean(1).log().mean()
    leaked = of_miwae - second.mean((0, 1)).log().mean()
    decoder = dict(model.decoder.named_parameters())
    encoder = dict(model.encoder.named_parameters())
    expected = torch.autograd.grad(of_iwae, list(decoder.values()))
    for name, gradient in zip(decoder, expected):
        assert torch.allclose(stepped[f"decoder.{name}"], gradient, atol=1e-5)
    expected = torch.autograd.grad(of_miwae, list(encoder.values()), retain_graph=True)
    wrong = torch.autograd.grad(leaked, list(encoder.values()))
    for name, gradient, other in zip(encoder, expected, wrong):
        assert torch.allclose(stepped[f"encoder.{name}"], gradient, atol=1e-5)
        assert not torch.allclose(stepped[f"encoder.{name}"], other, atol=1e-3)


@pytest.mark.parametrize("name", ["iwae", "miwae", "piwae", "ciwae"])
def test_training_raises_the_likelihood_towards_the_best_of_the_model(name: str) -> None:
    """Data of a linear Gaussian model: the trained one's exact log p(x) nears the true one's."""
    true = linear("iwae")
    with torch.no_grad():
        true.decoder[0].weight.mul_(3)
        z = torch.randn(4000, 2)
        x = true.decoder(z) + 0.5 * torch.randn(4000, *SHAPE)
        best = float(marginal(true, x).mean())
    sizes = {"samples": 8} | ({"estimates": 2} if name in ("miwae", "piwae") else {})
    model = linear(name, **sizes).train()
    with torch.no_grad():
        model.decoder[0].weight.normal_()
        model.decoder[0].bias.zero_()
        start = float(marginal(model, x).mean())
    model.lr = 2e-2
    optimizers = model.configure_optimizers()
    for step in range(600):
        torch.manual_seed(step)
        model.step(Batch(x[torch.randint(len(x), (100,))]), optimizers)
    with torch.no_grad():
        reached = float(marginal(model, x).mean())
    assert start < best - 0.5
    assert reached == pytest.approx(best, abs=0.04)


@pytest.mark.parametrize(
    ("name", "hyperparameters", "parameter"),
    [
        ("iwae", {"samples": 0}, "samples"),
        ("miwae", {"estimates": 0}, "estimates"),
        ("piwae", {"samples": 0}, "samples"),
        ("ciwae", {"beta": 1.5}, "beta"),
        ("ciwae", {"beta": math.nan}, "beta"),
    ],
)
def test_refuses_in_one_line_that_names_model_and_parameter(name, hyperparameters, parameter):
    with pytest.raises(InputError, match=f"^model '{name}': {parameter} must .*, not [^\n]*$"):
        make(name, **hyperparameters)
