"""Genotypes are of the admixture model, and the two models of it find out how they were made."""

import functools

import numpy as np
import pytest
import torch
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset
from aebench.datasets.genotypes import simulate
from aebench.models import DataSpec, model_from
from aebench.models.admixture import Admixture, NeuralAdmixture, dirichlet, em
from aebench.plugins import InputError
from scipy.optimize import linear_sum_assignment
from small import backbone, batch, make, ready
from torch import Tensor

SMALL = {"populations": 3, "size": 16, "individuals": 600, "fst": 0.2}


@functools.cache
def small() -> Dataset:
    return Dataset.make("genotypes", SMALL)


def genotypes(split: str) -> Tensor:
    """Copies of the allele, 0, 1 or 2: int64 (n, M)."""
    return (small().split(split).images().flatten(1).double() / 127.5).round().long()  # type: ignore[arg-type]


def halves(split: str) -> Tensor:
    """Genotypes as images of exactly 0, one half and 1."""
    return (genotypes(split).float() / 2).unflatten(1, (1, 16, 16))


@functools.cache
def fitted() -> Admixture:
    x = halves("train")
    model = Admixture(DataSpec((1, 16, 16), 3, len(x)), populations=3)
    model.fit(x, 0)
    return model


def agreement(found: Tensor, true: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The correlations of columns (n, K) matched one to one, and the partner of each true one."""
    k = true.shape[1]
    table = np.corrcoef(true.double().T, found.detach().double().T)[:k, k:]
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns], columns


def log_likelihood(x: Tensor, q: Tensor, p: Tensor) -> float:
    """In nats an image, pixel by pixel as it is defined."""
    mixed = q.detach().double() @ p.detach().double()
    flat = x.flatten(1).double()
    return float(-torch.nn.functional.binary_cross_entropy(mixed, flat, reduction="sum") / len(x))


# The dataset.


def test_genotypes_are_binomial() -> None:
    """Of Q and P, with the mean 2QP and the variance 2QP(1 - QP), and nothing else in common."""
    images = small().split("train").images()
    assert images.unique().tolist() == [0, 128, 255]
    rate = small().proportions("train") @ small().frequencies
    left = genotypes("train") - 2 * rate
    expected = 2 * rate * (1 - rate)
    n = left.numel()
    assert left.sum().abs() < 4 * expected.sum().sqrt()
    weights = torch.stack([(1 - rate) ** 2, expected, rate**2])
    copies = torch.arange(3.0).double()[:, None, None]
    fourth = (weights * (copies - 2 * rate) ** 4).sum(0)
    spread = (fourth - expected.square()).sum().sqrt()
    assert (left.square().sum() - expected.sum()).abs() < 4 * spread
    z = left / expected.clamp(min=1e-6).sqrt()
    usual = expected > 0.05
    z = torch.where(usual, z, torch.zeros(()).double())
    for pairs in (z[:, 1:] * z[:, :-1], z[1:] * z[:-1]):
        assert pairs.sum().abs() < 4 * n**0.5


def test_proportions_and_frequencies_are_as_told() -> None:
    dataset = Dataset.make("genotypes", {"populations": 4, "fst": 0.15, "alpha": 0.5})
    proportions = torch.cat([dataset.proportions(name) for name in ("train", "val", "test")])
    assert torch.allclose(proportions.sum(1), torch.ones(5000).double())
    assert torch.allclose(proportions.mean(0), torch.tensor(0.25).double(), atol=0.02)
    # Of Dirichlet proportions of K α = 2: m (1 - m) / (2 + 1).
    assert torch.allclose(proportions.var(0), torch.tensor(0.0625).double(), rtol=0.05)
    # E[Var(p|a)] = F E[a (1 - a)], of which E[p (1 - p)] is 1 - F.
    frequencies = dataset.frequencies
    within = frequencies.var(0).mean()
    heterozygous = (frequencies * (1 - frequencies)).mean()
    assert float(within / (within + heterozygous)) == pytest.approx(0.15, abs=0.015)
    assert frequencies.mean() == pytest.approx(0.5, abs=0.02)


def test_labels_are_the_largest_proportion() -> None:
    for name in ("train", "val", "test"):
        assert torch.equal(small().split(name).labels, small().proportions(name).argmax(1))
    assert small().classes == 3
    assert small().shape == (1, 16, 16)


def test_the_same_data_twice() -> None:
    first = small().split("test").images().clone(), small().frequencies.clone()
    simulate.cache_clear()
    again = Dataset.make("genotypes", SMALL)
    assert torch.equal(first[0], again.split("test").images())
    assert torch.equal(first[1], again.frequencies)
    assert torch.equal(small().proportions("test"), again.proportions("test"))
    assert [len(again.split(name)) for name in ("train", "val", "test")] == [420, 60, 120]
    assert Dataset.make("genotypes", SMALL | {"fst": 0.3}).hash != again.hash


def test_proportions_follow_limits_and_a_class_held_out() -> None:
    limited = Dataset.make("genotypes", SMALL | {"train": 50, "val": 5, "test": 7})
    for name, n in (("train", 50), ("val", 5), ("test", 7)):
        assert torch.equal(limited.proportions(name), small().proportions(name)[:n])
        assert torch.equal(limited.split(name).images(), small().split(name).images(slice(n)))
    without = Dataset.make("genotypes", SMALL | {"held_out": 1, "test": 20})
    kept = small().split("train").labels != 1
    assert torch.equal(without.proportions("train"), small().proportions("train")[kept])
    assert (without.proportions("anomalies").argmax(1) == 1).all()
    assert len(without.proportions("anomalies")) == len(without.split("anomalies")) > 0


@pytest.mark.parametrize(
    "parameters",
    [
        {"populations": 0},
        {"size": 7},
        {"individuals": 0},
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"fst": 0.0},
        {"fst": 1.0},
    ],
)
def test_refuses_what_makes_no_sense(parameters: dict[str, float]) -> None:
    with pytest.raises(InputError) as error:
        Dataset.make("genotypes", parameters)
    assert f"{next(iter(parameters))} must be" in str(error.value)
    assert "\n" not in str(error.value)


# ADMIXTURE.


def test_em_never_falls_and_knows_the_likelihood() -> None:
    x = halves("train").flatten(1)
    generator = torch.Generator().manual_seed(0)
    q = torch.rand(len(x), 4, generator=generator).double()
    q, p = q / q.sum(1, keepdim=True), torch.rand(4, 256, generator=generator).double() * 0.9 + 0.05
    found = []
    for _ in range(60):
        exact = log_likelihood(x, q, p)
        q, p, likelihood = em(x, q, p)
        assert float(likelihood.mean()) == pytest.approx(exact, rel=1e-9)
        assert torch.allclose(q.sum(1), torch.ones(len(x)).double())
        found.append(exact)
    assert np.all(np.diff(found) > 0)
    assert found[-1] > found[0] + 5


def test_a_step_of_em_is_the_expected_share_of_alleles() -> None:
    """One image, two populations, two pixels, by hand."""
    x = torch.tensor([[1.0, 0.5]])
    q, p = torch.tensor([[0.25, 0.75]]).double(), torch.tensor([[0.8, 0.4], [0.2, 0.6]]).double()
    # QP = (0.35, 0.55). Shares of the first population in white and black alleles:
    white = np.array([0.25 * 0.8 / 0.35, 0.25 * 0.4 / 0.55])
    black = np.array([0.25 * 0.2 / 0.65, 0.25 * 0.6 / 0.45])
    after, frequencies, _ = em(x, q, p)
    ones, zeros = np.array([1, 0.5]) * white, np.array([0, 0.5]) * black
    assert after[0, 0] == pytest.approx((ones + zeros).sum() / 2)
    assert frequencies[0, 1] == pytest.approx(ones[1] / (ones[1] + zeros[1]))
    assert frequencies[0, 0] == pytest.approx(1 - 1e-5)
    assert torch.equal(em(x, q, p, fixed=True)[1], p)
    assert torch.equal(em(x, q, p, fixed=True)[0], after)


def test_a_longer_fit_is_never_worse() -> None:
    x = halves("train")
    found = []
    for steps in (1, 4, 7, 16, 40):
        model = make("admixture", (1, 16, 16), populations=3, max_iter=steps, n_init=1)
        model.fit(x, 0)
        model.max_iter = 1000
        found.append(log_likelihood(x, model.code(x), model.frequencies))
    assert np.all(np.diff(found) > -1e-3)
    assert found[-1] > found[0] + 0.05


def test_a_leap_that_falls_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def astray(start: Tensor, *steps: Tensor, dim: int | None = None) -> Tensor:
        return torch.full_like(start, 0.5)

    monkeypatch.setattr("aebench.models.admixture.leap", astray)
    x = halves("train")
    model = make("admixture", (1, 16, 16), populations=3, max_iter=60)
    model.fit(x, 0)
    found, _ = agreement(model.code(x), small().proportions("train"))
    assert found.min() > 0.95


def test_admixture_finds_the_proportions_and_frequencies() -> None:
    model, x = fitted(), halves("train")
    for name in ("train", "test"):
        found, order = agreement(model.code(halves(name)), small().proportions(name))
        assert found.min() > 0.95
    found, columns = agreement(model.frequencies.T, small().frequencies.T)
    assert found.min() > 0.95
    assert columns.tolist() == order.tolist()
    true = log_likelihood(x, small().proportions("train"), small().frequencies)
    assert log_likelihood(x, model.code(x), model.frequencies) > true


def test_admixture_reconstructs_the_mixture() -> None:
    model, x = fitted(), halves("test")
    q = model.code(x)
    mixed = (q @ model.frequencies).unflatten(1, (1, 16, 16))
    assert torch.allclose(model.reconstruct(x), mixed, atol=1e-5)
    loss = float(model.reconstruction_loss(model.raw(q), x))
    assert loss == pytest.approx(-log_likelihood(x, q, model.frequencies), rel=1e-5)


def test_a_code_is_the_likeliest() -> None:
    """No gain in moving any share to any other population: the optimum of a concave problem."""
    model, x = fitted(), halves("test").flatten(1).double()
    q, p = model.code(halves("test")).double(), model.frequencies.double()
    mixed = q @ p
    slope = (x / mixed) @ p.T + ((1 - x) / (1 - mixed)) @ (1 - p).T
    gain = slope.amax(1) - (q * slope).sum(1)  # bounds what is lost, in nats
    assert gain.max() < 0.1
    assert gain.mean() < 0.01
    # Not only near where it starts.
    assert (q < 1e-3).any()
    assert torch.equal(model.code(halves("test")), q.float())


def test_admixture_of_black_and_white_is_finite() -> None:
    """Pixels that never change leave no image impossible."""
    x = torch.zeros(64, 1, 8, 8)
    x[:32, :, :4] = 1
    model = ready(make("admixture", populations=2), batch()._replace(x=x))
    other = 1 - x[:1]
    for images in (x, other):
        assert model.code(images).isfinite().all()
        assert model.raw(model.code(images)).isfinite().all()
    assert torch.allclose(model.reconstruct(x), x, atol=1e-3)
    # What a sampler draws off the simplex is decoded too.
    assert model.raw(torch.tensor([[-1.0, -2.0], [-0.1, 3.0]])).isfinite().all()


def test_prior_has_the_moments_of_the_proportions() -> None:
    generator = np.random.default_rng(0)
    for alpha in ([0.3, 0.3, 0.3], [4.0, 1.0, 0.5]):
        q = torch.tensor(generator.dirichlet(alpha, 50_000))
        assert torch.allclose(dirichlet(q), torch.tensor(alpha).double(), rtol=0.05)
    assert dirichlet(torch.ones(5, 1).double()).isfinite().all()
    assert dirichlet(torch.full((5, 4), 0.25).double()).isfinite().all()
    model = fitted()
    torch.manual_seed(0)
    drawn, q = model.sample_prior(20_000), model.code(halves("train"))
    assert torch.allclose(drawn.sum(1), torch.ones(20_000), atol=1e-5)
    assert torch.allclose(drawn.mean(0), q.mean(0), atol=0.02)
    assert float(drawn.var(0).sum()) == pytest.approx(float(q.var(0).sum()), rel=0.1)


# Neural ADMIXTURE.


def test_neural_admixture_finds_the_proportions() -> None:
    torch.manual_seed(0)
    dataset = small()
    data = DataSpec(dataset.shape, 3, len(dataset.split("train")))
    model = model_from("neural_admixture", {"populations": 3}, data, backbone("mlp"))
    assert isinstance(model, NeuralAdmixture)
    train(model, dataset, Budget(epochs=40, batch_size=20, lr=2e-3), ("neural",))
    x = dataset.split("test").images().float() / 255
    found, order = agreement(model.code(x), dataset.proportions("test"))
    assert found.min() > 0.95
    frequencies, columns = agreement(model.frequencies.T, dataset.frequencies.T)
    assert frequencies.min() > 0.9
    assert columns.tolist() == order.tolist()


def test_neural_admixture_minimises_admixtures_likelihood() -> None:
    data = batch((1, 16, 16))
    model = ready(make("neural_admixture", (1, 16, 16), populations=4), data)
    assert isinstance(model, NeuralAdmixture)
    exact = -log_likelihood(data.x, model.code(data.x), model.frequencies)
    assert model.losses(data)["loss"].item() == pytest.approx(exact, rel=1e-5)


def test_neural_admixture_starts_from_the_groups_and_stays_within_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = (torch.rand(3, 1, 8, 8, generator=generator) > 0.5).float()
    x = groups[torch.arange(60) % 3]
    model = make("neural_admixture", populations=3)
    assert isinstance(model, NeuralAdmixture)
    model.initialise([batch()._replace(x=part) for part in x.split(25)])
    nearest = torch.cdist(groups.flatten(1), model.weight.detach()).amin(1)
    assert nearest.max() < 1e-3
    with torch.no_grad():
        model.weight[0] = 2.0
        model.weight[1] = -1.0
    assert model.reconstruct(x).isfinite().all()
    model.train().losses(batch()._replace(x=x))
    assert 0 < model.weight.min() < model.weight.max() < 1
