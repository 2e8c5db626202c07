"""Autoencoders with a maximum mean discrepancy in their loss."""

import math

import pytest
import torch
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset
from aebench.models.mmd import Kernel, kernel_matrix, mmd
from aebench.plugins import InputError
from small import batch, make

KERNELS: list[Kernel] = ["imq", "rbf"]


def kernel_by_hand(kernel: Kernel, a: list[float], b: list[float]) -> float:
    squares = sum((s - t) ** 2 for s, t in zip(a, b))
    if kernel == "rbf":
        return math.exp(-squares / len(a))
    bases = [2 * len(a) * scale for scale in (0.1, 0.2, 0.5, 1, 2, 5, 10)]
    return sum(base / (base + squares) for base in bases)


@pytest.mark.parametrize("kernel", KERNELS)
def test_discrepancy_by_loops(kernel: Kernel) -> None:
    torch.manual_seed(0)
    q, p = torch.randn(4, 3) + 1, torch.randn(4, 3)
    a, b = q.tolist(), p.tolist()
    by_hand = [[kernel_by_hand(kernel, s, t) for t in b] for s in a]
    assert torch.allclose(kernel_matrix(kernel, q, p), torch.tensor(by_hand))
    expected = 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                within = kernel_by_hand(kernel, a[i], a[j]) + kernel_by_hand(kernel, b[i], b[j])
                expected += within / 12
            expected -= 2 * by_hand[i][j] / 16
    assert float(mmd(kernel, q, p)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_estimate_is_unbiased(kernel: Kernel) -> None:
    """Its mean is 0 for two samples of the prior, and above 0 for shifted or shrunken codes."""
    torch.manual_seed(0)
    draws = torch.randn(2000, 2, 5, 3)
    found = torch.stack([mmd(kernel, q, p) for q, p in draws])
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean())) < 3 * error
    assert float(found.min()) < 0
    for q in (draws[:, 0] + 0.5, 0.5 * draws[:, 0]):
        found = torch.stack([mmd(kernel, a, b) for a, b in zip(q, draws[:, 1])])
        assert float(found.mean()) > 5 * error


def test_discrepancy_of_shifted_gaussians() -> None:
    r"""rbf of N(m, I) and N(0, I): 2 (1 + 4/d)^{-d/2} (1 - exp(-‖m‖²/(d + 4)))."""
    torch.manual_seed(0)
    d, shift = 4, torch.tensor([1.0, 0.5, 0.0, -1.0])
    found = mmd("rbf", torch.randn(1500, d) + shift, torch.randn(1500, d))
    gap = 1 - math.exp(-float(shift.square().sum()) / (d + 4))
    assert float(found) == pytest.approx(2 * (1 + 4 / d) ** (-d / 2) * gap, rel=0.08)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_code_has_no_pairs(kernel: Kernel) -> None:
    q, p = torch.ones(1, 2), torch.zeros(1, 2)
    assert float(mmd(kernel, q, p)) == pytest.approx(-2 * float(kernel_matrix(kernel, q, p)))


def test_info_vae_weighs_its_terms() -> None:
    data = batch(n=6)
    for alpha, lambd, weight in ((0.0, 1.0, 0.0), (0.25, 4.0, 3.25), (1.0, 10.0, 10.0)):
        model = make("info_vae", alpha=alpha, lambd=lambd)
        terms = {name: float(term) for name, term in model.losses(data).items()}
        expected = terms["reconstruction"] + (1 - alpha) * terms["kl"] + weight * terms["mmd"]
        assert terms["loss"] == pytest.approx(expected, rel=1e-5)
    assert make("info_vae").weight > 0


@pytest.mark.parametrize(("alpha", "lambd"), [(0.0, 1e-3), (0.5, 0.03), (1.0, -1.0)])
def test_info_vae_refuses_to_drive_codes_away(alpha: float, lambd: float) -> None:
    with pytest.raises(InputError, match="lambd must be") as error:
        make("info_vae", alpha=alpha, lambd=lambd)
    assert "\n" not in str(error.value)


def test_wae_has_the_programs_balance() -> None:
    """Its gradient is that of 0.05 ‖x - x̂‖² + 10 MMD for pixels of [0, 1], but for a factor."""
    data = batch(n=6)
    for sigma in (1.0, 0.5):
        model = make("wae_mmd", sigma=sigma, weight=100 / sigma**2)
        parameters = list(model.parameters())
        torch.manual_seed(3)
        loss = model.losses(data)["loss"]
        torch.manual_seed(3)
        z = model.code(data.x)
        squares = (model.observation.mean(model.raw(z)) - data.x).square().flatten(1).sum(1)
        theirs = 0.05 * squares.mean() + 10 * mmd("imq", z, model.sample_prior(6))
        for a, b in zip(
            torch.autograd.grad(loss, parameters), torch.autograd.grad(theirs, parameters)
        ):
            assert torch.allclose(a * sigma**2 / 10, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["wae_mmd", "info_vae"])
def test_codes_are_drawn_to_the_prior(name: str) -> None:
    digits = Dataset.make("digits", {"train": 600, "val": 100, "test": 200})
    x = digits.split("test").images().float() / 255
    weights = ({"weight": w} if name == "wae_mmd" else {"lambd": w} for w in (0.0, 200.0))
    distances = []
    for weight in weights:
        model = make(name, latent_dim=4, **weight)
        train(model, digits, Budget(epochs=15, batch_size=50), (name,))
        torch.manual_seed(0)
        with torch.no_grad():
            z = model.code(x) if name == "wae_mmd" else model.posterior(x).sample()
            distances.append(float(mmd("imq", z, torch.randn(len(z), 4))))
    assert distances[1] < 0.25 * distances[0]
