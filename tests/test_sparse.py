"""The sparse autoencoders' known answers."""

import math

import pytest
import torch
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset
from aebench.models import Batch
from aebench.plugins import InputError
from test_models import batch, make, ready


@pytest.fixture(scope="module")
def digits():
    return Dataset.make("digits", {"train": 600, "val": 100, "test": 200})


# Sparse autoencoder.


def test_divergence_is_that_of_two_coins_and_zero_at_rho() -> None:
    model = make("sparse_ae", rho=0.2)
    rate = torch.tensor([0.01, 0.2, 0.5, 0.99])
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(0.2), torch.distributions.Bernoulli(rate)
    )
    assert torch.allclose(model.divergence(rate), expected, rtol=1e-4, atol=1e-7)
    assert model.divergence(torch.tensor([0.2])) == pytest.approx(0, abs=1e-7)


def test_sparse_loss_is_the_sum_of_its_terms_by_hand() -> None:
    model, data = make("sparse_ae", weight_decay=0.01, window=1), batch()
    with torch.no_grad():
        terms = model.losses(data)
        h = model.code(data.x)
        squares = (model.reconstruct(data.x) - data.x).square().flatten(1).sum(1).mean()
    rate = h.double().mean(0)
    sparsity = (0.1 * (0.1 / rate).log() + 0.9 * (0.9 / (1 - rate)).log()).sum()
    weights = sum(
        float(layer.weight.detach().square().sum()) / 2
        for network in (model.encoder, model.decoder)
        for layer in network
        if isinstance(layer, torch.nn.Linear)
    )
    constant = 32 * math.log(2 * math.pi)
    assert float(terms["reconstruction"]) - constant == pytest.approx(float(squares) / 2, rel=1e-4)
    assert float(terms["sparsity"]) == pytest.approx(float(sparsity), rel=1e-3, abs=1e-5)
    assert float(terms["weights"]) == pytest.approx(weights, rel=1e-5)
    expected = float(terms["reconstruction"]) + 3 * float(sparsity) + 0.01 * weights
    assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5)


def test_gradient_of_the_sparsity_is_that_of_the_batch_mean() -> None:
    """At the moving average the penalty's slope is KL', passed to the batch's mean alone."""
    model = make("sparse_ae", window=1000)
    model.rates.fill_(0.3)
    h = torch.full((5, model.latent_dim), 0.6, requires_grad=True)
    model.divergence(model.rate(h)).sum().backward()
    average = 0.3 + (0.6 - 0.3) * 5 / 1000
    assert torch.allclose(model.rates, torch.tensor(average))
    slope = -0.1 / average + 0.9 / (1 - average)
    assert h.grad is not None
    assert torch.allclose(h.grad, torch.tensor(slope / 5), rtol=1e-4)


def test_a_large_batch_stands_for_itself_and_evaluation_keeps_the_average() -> None:
    model = make("sparse_ae", window=50)
    h = torch.rand(64, model.latent_dim)
    assert torch.allclose(model.rate(h), h.mean(0))
    held = model.rates.clone()
    model.eval().rate(torch.rand(64, model.latent_dim))
    assert torch.equal(model.rates, held)


def test_units_start_at_the_wanted_rate() -> None:
    h = make("sparse_ae", rho=0.02).code(batch().x).detach()
    assert h.mean() == pytest.approx(0.02, rel=0.3)


def test_single_images_estimate_the_rate_of_all() -> None:
    model, generator = make("sparse_ae", window=200), torch.Generator().manual_seed(0)
    for _ in range(2000):  # units that are on in one image of ten
        model.rate((torch.rand(1, model.latent_dim, generator=generator) < 0.1).float())
    assert model.rates.mean() == pytest.approx(0.1, abs=0.02)
    assert model.divergence(model.rates).mean() < 0.01


@pytest.mark.parametrize("value", [-200.0, 200.0])
def test_saturated_units_are_finite_and_come_back(value: float) -> None:
    model = make("sparse_ae", window=1)
    sign = math.copysign(1, value)
    h = torch.full((1, model.latent_dim), value).sigmoid().requires_grad_()
    sparsity = model.divergence(model.rate(h)).sum()
    sparsity.backward()
    assert sparsity.isfinite()
    assert h.grad is not None and h.grad.isfinite().all()
    assert (sign * h.grad > 0).all(), "descent moves every unit away from saturation"


def test_units_of_real_digits_are_on_at_the_wanted_rate(digits) -> None:
    model = make("sparse_ae", latent_dim=32, sigma=0.3)
    train(model, digits, Budget(epochs=20, batch_size=20), ("sparse",))
    x = digits.split("train").images().float() / 255
    with torch.no_grad():
        h, error = model.code(x), (model.reconstruct(x) - x).square().sum()
    assert h.mean() == pytest.approx(0.1, rel=0.2)
    assert h.mean(0).std() < 0.05
    assert h.std(0).mean() > 0.05, "units are sparse because they differ between images"
    assert error < 0.8 * (x.mean(0) - x).square().sum()


def test_a_sigmoid_code_starts_from_the_mean_image(digits) -> None:
    """Otherwise it saturates on dark images: every unit fully on, every image the mean image."""
    x = digits.split("train").images().float() / 255
    for net in ("mlp", "linear"):
        model = ready(make("sparse_ae", net=net), Batch(x))
        zero = torch.zeros_like(model.raw(model.code(x)))
        started = model.observation.mean(zero + model.offset)
        assert torch.allclose(started, x.mean(0).clamp(0.01, 0.99).expand_as(x), atol=1e-5)


# k-sparse autoencoder.


def test_keeps_exactly_the_k_largest() -> None:
    model = make("k_sparse_ae", k=3)
    x, _ = batch()
    z, code = model.encoder(x), model.code(x)
    assert ((code != 0).sum(1) == 3).all()
    for row, kept in zip(z, code):
        largest = row.sort(descending=True).values[:3]
        assert torch.equal(kept[kept != 0].sort(descending=True).values, largest)
        assert torch.equal(row[kept != 0], kept[kept != 0])


def test_gradient_passes_through_the_kept_units_alone() -> None:
    model = make("k_sparse_ae", k=2)
    z = torch.randn(8, model.latent_dim, requires_grad=True)
    kept = model.largest(z, 2)
    (3 * kept).sum().backward()
    assert torch.equal(z.grad, 3 * (kept != 0).float())


def test_features_keep_alpha_times_k_and_the_training_k() -> None:
    model, data = make("k_sparse_ae", k=3, alpha=2.0), batch()
    assert ((model.code(data.x) != 0).sum(1) == 6).all()
    plain = make("k_sparse_ae", k=3)
    assert model.losses(data)["loss"] == plain.losses(data)["loss"]
    assert ((make("k_sparse_ae", k=9, alpha=2.0).code(data.x) != 0).sum(1) == 16).all()


def test_k_falls_from_the_whole_code_over_the_first_half() -> None:
    model = make("k_sparse_ae", k=4, latent_dim=20).train()
    model.steps, found = 100, []
    for done in range(101):
        model.steps_done = done
        found.append(model.kept())
    assert found[0] == 20
    assert found[25] == 12
    assert found[50:] == [4] * 51
    assert found == sorted(found, reverse=True)
    model.steps_done = 0
    assert model.eval().kept() == 4


@pytest.mark.parametrize(("dim", "k"), [(1000, 25), (64, 16), (16, 4), (3, 1), (1, 1)])
def test_default_k_is_the_papers_and_fits_a_small_code(dim: int, k: int) -> None:
    assert make("k_sparse_ae", latent_dim=dim).k == k


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("sparse_ae", {"rho": 1.0}),
        ("sparse_ae", {"beta": -1.0}),
        ("sparse_ae", {"beta": math.nan}),
        ("sparse_ae", {"weight_decay": -1.0}),
        ("sparse_ae", {"window": 0}),
        ("k_sparse_ae", {"k": 17}),
        ("k_sparse_ae", {"k": 0}),
        ("k_sparse_ae", {"alpha": 0.5}),
        ("k_sparse_ae", {"warmup": 2.0}),
    ],
)
def test_refuses_what_makes_no_sense(name: str, hyperparameters: dict) -> None:
    with pytest.raises(InputError, match=f"model '{name}': {next(iter(hyperparameters))}") as error:
        make(name, **hyperparameters)
    assert "\n" not in str(error.value)
