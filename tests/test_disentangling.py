"""VAEs that ask for disentangled codes."""

import math
from itertools import permutations

import pytest
import torch
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset
from aebench.models import DataSpec, model_from
from aebench.models.disentangling import BetaTCVAE, covariance
from aebench.models.vae import DiagonalNormal
from small import backbone, batch, make


def tcvae(size: int, sampling: str = "mss") -> BetaTCVAE:
    hyperparameters = {"sampling": sampling, "latent_dim": 2}
    model = model_from("beta_tcvae", hyperparameters, DataSpec((1, 8, 8), 0, size), backbone())
    assert isinstance(model, BetaTCVAE)
    return model


@torch.no_grad()
def test_capacity_is_compared_with_the_mean_over_the_batch() -> None:
    data = batch(n=6)
    kl = make("vae").kl(*data).sum(1)
    assert kl.std() > 0
    model = make("capacity_vae", capacity=kl.mean().item(), warmup=0.0)
    terms = model.losses(data)
    assert terms["distance"] < 1e-5
    model = make("capacity_vae", gamma=7.0, capacity=0.0)
    terms = model.eval().losses(data)
    expected = terms["reconstruction"] + 7 * kl.mean()
    assert float(terms["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_capacity_rises_with_the_training() -> None:
    model = make("capacity_vae", capacity=8.0, warmup=0.5)
    model.steps = 100
    found = []
    for model.steps_done in (0, 25, 50, 90):
        found.append(float(model.losses(batch())["capacity"]))
    assert found == [0, 4, 8, 8]
    model.steps_done = 0
    assert float(model.eval().losses(batch())["capacity"]) == 8
    assert float(make("capacity_vae", warmup=0.0).losses(batch())["capacity"]) == 25


def test_kl_reaches_its_capacity() -> None:
    digits = Dataset.make("digits", {"train": 1200, "val": 200, "test": 200})
    model = make("capacity_vae", capacity=8.0, gamma=100.0)
    trained = train(model, digits, Budget(epochs=20, batch_size=50), ("capacity",))
    assert trained.history[-1]["train/kl"] == pytest.approx(8, rel=0.05)
    x = digits.split("train").images().float() / 255
    with torch.no_grad():
        assert float(model.kl(x).sum(1).mean()) == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize(("size", "n"), [(100, 1), (100, 2), (100, 7), (7, 7), (3, 7)])
def test_stratified_weights_of_a_code_sum_to_one(size: int, n: int) -> None:
    weights = tcvae(size).weights(n)
    assert torch.allclose(weights.sum(1), torch.ones(n))
    assert (weights > 0).all()
    if n == 7 and size == 100:
        assert torch.allclose(weights.diagonal(), torch.full((7,), 1 / 100))
        # The paper's M is the number of the others: one of them has (N - M)/(NM), the rest 1/M.
        for i in range(7):
            others = sorted(float(weights[i, j]) for j in range(7) if j != i)
            assert others == pytest.approx([94 / 600, *[1 / 6] * 5])


def test_stratified_estimate_is_the_aggregate_posterior_on_average() -> None:
    """Over every minibatch that holds the image which a code was drawn from."""
    size, n = 5, 3
    torch.manual_seed(0)
    means, log_variances = torch.randn(size, 2), torch.randn(size, 2)
    z = means[0] + 0.3
    densities = torch.distributions.Normal(means, (0.5 * log_variances).exp()).log_prob(z).exp()
    model = tcvae(size)
    joint, marginals = [], []
    for others in permutations(range(1, size), n - 1):
        rows = [0, *others]
        posterior = DiagonalNormal(means[rows], log_variances[rows])
        found = model.log_aggregate(posterior, z.expand(n, 2))
        joint.append(found[0][0].exp())
        marginals.append(found[1][0].exp())
    assert float(torch.stack(joint).mean()) == pytest.approx(float(densities.prod(1).mean()))
    assert torch.allclose(torch.stack(marginals).mean(0), densities.mean(0))


def test_weighted_estimate_is_the_papers_formula() -> None:
    size, n = 50, 4
    torch.manual_seed(0)
    posterior = DiagonalNormal(torch.randn(n, 2), torch.randn(n, 2))
    z = posterior.sample()
    joint, marginals = tcvae(size, "mws").log_aggregate(posterior, z)
    for i in range(n):
        whole, parts = 0.0, [0.0, 0.0]
        for m in range(n):
            normal = torch.distributions.Normal(
                posterior.mean[m], (0.5 * posterior.log_variance[m]).exp()
            )
            each = normal.log_prob(z[i]).exp().tolist()
            whole += each[0] * each[1]
            parts = [p + e for p, e in zip(parts, each)]
        assert float(joint[i]) == pytest.approx(math.log(whole / (size * n)), rel=1e-4)
        expected = [math.log(p / (size * n)) for p in parts]
        assert marginals[i].tolist() == pytest.approx(expected, rel=1e-4)


def test_total_correlation_of_a_gaussian() -> None:
    """Codes of correlation r: -½ log(1 - r²)."""
    torch.manual_seed(0)
    n, rho, variance = 1000, 0.9, 0.25
    means = torch.randn(n, 2)
    means[:, 1] = rho * means[:, 0] + math.sqrt(1 - rho**2) * means[:, 1]
    posterior = DiagonalNormal(means, torch.full((n, 2), math.log(variance)))
    joint, marginals = tcvae(n).log_aggregate(posterior, posterior.sample())
    r = rho / (1 + variance)
    found = (joint - marginals.sum(1)).mean()
    assert float(found) == pytest.approx(-0.5 * math.log(1 - r**2), abs=0.05)


@pytest.mark.parametrize("sampling", ["mws", "mss"])
@pytest.mark.parametrize("n", [1, 6])
@torch.no_grad()
def test_parts_add_up_to_the_kl_of_the_sample(sampling: str, n: int) -> None:
    data = batch(n=n)
    model = make("beta_tcvae", alpha=1.0, beta=1.0, gamma=1.0, sampling=sampling)
    torch.manual_seed(5)
    terms = model.losses(data)
    torch.manual_seed(5)
    posterior = model.posterior(data.x)
    z = posterior.sample()
    kl = (posterior.log_prob(z) - model.log_prior(z)).mean()
    reconstruction = model.reconstruction_loss(model.raw(z), data.x)
    parts = ("mutual_information", "total_correlation", "dimension_wise_kl")
    assert float(sum(terms[part] for part in parts)) == pytest.approx(float(kl), abs=1e-3)
    assert float(terms["loss"]) == pytest.approx(float(reconstruction + kl), abs=1e-3)


def test_each_part_has_its_weight() -> None:
    data = batch(n=6)
    model = make("beta_tcvae", alpha=2.0, beta=3.0, gamma=5.0)
    terms = {name: float(term.detach()) for name, term in model.losses(data).items()}
    expected = (
        terms["reconstruction"]
        + 2 * terms["mutual_information"]
        + 3 * terms["total_correlation"]
        + 5 * terms["dimension_wise_kl"]
    )
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["dip_vae_i", "dip_vae_ii"])
def test_dip_penalty_by_loops(name: str) -> None:
    n, d = 5, 3
    data = batch(n=n)
    model = make(name, latent_dim=d, lambda_od=2e3, lambda_d=7.0)
    posterior = model.posterior(data.x)
    mean, variance = posterior.mean.tolist(), posterior.log_variance.exp().tolist()
    average = [sum(row[i] for row in mean) / n for i in range(d)]
    off, on = 0.0, 0.0
    for i in range(d):
        for j in range(d):
            c = sum((row[i] - average[i]) * (row[j] - average[j]) for row in mean) / n
            if i != j:
                off += c**2
                continue
            if name == "dip_vae_ii":
                c += sum(row[i] for row in variance) / n
            on += (c - 1) ** 2
    terms = {name: float(term) for name, term in model.losses(data).items()}
    assert terms["off_diagonal"] == pytest.approx(off, rel=1e-4)
    assert terms["diagonal"] == pytest.approx(on, rel=1e-4)
    expected = terms["reconstruction"] + terms["kl"] + 2e3 * off + 7 * on
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)


def test_covariance_of_one_code_is_zero() -> None:
    assert torch.equal(covariance(torch.randn(1, 3)), torch.zeros(3, 3))


def test_dip_vae_decorrelates_codes() -> None:
    digits = Dataset.make("digits", {"train": 600, "val": 100, "test": 200})
    x = digits.split("test").images().float() / 255
    off = {}
    for lambda_od in (0.0, 100.0):
        model = make("dip_vae_i", latent_dim=4, lambda_od=lambda_od, lambda_d=10.0)
        train(model, digits, Budget(epochs=10, batch_size=50), ("dip",))
        with torch.no_grad():
            c = covariance(model.code(x))
        off[lambda_od] = float((c - c.diag().diag()).abs().max())
    assert off[100.0] < 0.5 * off[0.0]
