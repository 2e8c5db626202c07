"""VAEs that set the balance of reconstruction and KL term themselves."""

import copy
import math
from pathlib import Path

import pytest
import torch
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset
from aebench.models.constrained import GECO, MULTIPLIERS, MovingAverage, SigmaVAE
from aebench.models.observation import Gaussian
from aebench.plugins import InputError
from small import batch, make
from torch import Tensor
from torch.nn import functional as F


def geco(**hyperparameters: object) -> GECO:
    model = make("geco", **hyperparameters)
    assert isinstance(model, GECO)
    return model


def sigma_vae(**hyperparameters: object) -> SigmaVAE:
    model = make("sigma_vae", **hyperparameters)
    assert isinstance(model, SigmaVAE)
    return model


def squared_error(model: GECO | SigmaVAE, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The mean over images of the squared error and of the KL term, with the sample of a seed."""
    torch.manual_seed(seed)
    posterior = model.posterior(x)
    mean = model.observation.mean(model.raw(posterior.sample()))
    return (mean - x).square().flatten(1).sum(1).mean(), posterior.kl_to_standard().sum(1).mean()


def test_a_moving_average_starts_at_the_first_value() -> None:
    average = MovingAverage(0.75, 9.0)
    assert float(average.value) == 9
    average.follow(torch.tensor(4.0))
    assert float(average.value) == 4
    average.follow(torch.tensor(0.0))
    assert float(average.value) == 3


def test_geco_has_the_value_of_the_average_and_the_gradient_of_the_batch() -> None:
    model = geco(tolerance=0.2)
    model.losses(batch(seed=2))
    model.multiplier.fill_(3.0)
    x = batch(seed=3).x
    torch.manual_seed(4)
    terms = model.losses(batch(seed=3))
    squares, kl = squared_error(model, x, 4)
    constraint = squares - 64 * 0.2**2
    assert float(terms["constraint"].detach()) == pytest.approx(
        float(constraint.detach()), rel=1e-4
    )
    assert abs(float(model.average.value - constraint.detach())) > 1e-3
    expected = float(kl.detach() + 3 * model.average.value)
    assert float(terms["loss"].detach()) == pytest.approx(expected, rel=1e-4)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(terms["loss"], parameters)
    theirs = torch.autograd.grad(kl + 3 * constraint, parameters)
    for a, b in zip(ours, theirs):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_geco_moves_its_multiplier_by_the_average_of_the_constraint() -> None:
    rate, decay, tolerance = 0.1, 0.5, 0.1
    model = geco(rate=rate, decay=decay, tolerance=tolerance)
    average, multiplier, clipped = 0.0, 1.0, []
    for step in range(5):
        # The images leave the untrained reconstruction from step to step.
        x = 0.5 + 0.4 * step * (batch(n=6, seed=step).x - 0.5)
        terms = model.losses(type(batch())(x))
        assert float(terms["multiplier"]) == pytest.approx(multiplier, rel=1e-4)
        constraint = float(terms["constraint"])
        average = constraint if step == 0 else decay * average + (1 - decay) * constraint
        multiplier *= math.exp(rate * min(average / (64 * tolerance**2), 1))
        clipped.append(average > 64 * tolerance**2)
        assert float(model.multiplier) == pytest.approx(multiplier, rel=1e-4)
    assert not clipped[0] and clipped[-1]
    before = float(model.multiplier)
    model.eval().losses(batch())
    assert float(model.multiplier) == before


def test_geco_bounds_its_multiplier() -> None:
    for tolerance, bound in ((1e-3, MULTIPLIERS[1]), (10.0, MULTIPLIERS[0])):
        model = geco(tolerance=tolerance, rate=10.0)
        for _ in range(4):
            model.losses(batch(n=4))
        assert float(model.multiplier) == pytest.approx(bound)


def test_geco_selects_the_least_kl_within_the_tolerance() -> None:
    data = batch(n=6)
    wide, narrow = geco(tolerance=1.0).eval(), geco(tolerance=0.1).eval()
    with torch.no_grad():
        terms = wide.losses(data)
        assert terms["constraint"] < 0
        assert terms["penalised"] == terms["kl"]
        terms = narrow.losses(data)
    expected = terms["kl"] + terms["constraint"] / (2 * 0.1**2)
    assert float(terms["penalised"]) == pytest.approx(float(expected), rel=1e-5)
    # So it differs by a constant from the negative ELBO at sigma = tolerance.
    assert narrow.observation.label == "gaussian(sigma=0.1)"


def trained_geco(tolerance: float, epochs: int, rate: float) -> dict[str, float]:
    """The terms of the best epoch, held to the constraint on the training images of the last."""
    digits = Dataset.make("digits", {"train": 1200, "val": 200, "test": 200})
    model = geco(tolerance=tolerance, rate=rate)
    trained = train(model, digits, Budget(epochs=epochs, batch_size=50), ("geco",))
    bound = 64 * tolerance**2
    assert trained.history[0]["train/constraint"] > 0.5 * bound
    assert abs(trained.history[-1]["train/constraint"]) < 0.15 * bound
    best = trained.history[trained.best_epoch - 1]
    assert best["val/constraint"] < 0.05 * bound
    return best


def test_geco_meets_its_constraint() -> None:
    trained_geco(0.25, 45, 0.01)


@pytest.mark.slow
def test_a_wider_tolerance_needs_less_information() -> None:
    narrow, wide = (trained_geco(tolerance, 100, 0.005) for tolerance in (0.15, 0.2))
    assert wide["val/kl"] < 0.7 * narrow["val/kl"]


def test_sigma_is_the_root_of_the_mean_squared_error() -> None:
    data = batch(n=6)
    model = sigma_vae()
    torch.manual_seed(4)
    terms = model.losses(data)
    squares, kl = squared_error(model, data.x, 4)
    error = squares / 64
    root = math.sqrt(float(error))
    assert float(terms["sigma"]) == pytest.approx(root + math.exp(-6), rel=1e-5)
    # The soft bound as the paper's program has it.
    log_sigma = -6 + F.softplus(torch.tensor(math.log(root) + 6))
    assert math.log(float(terms["sigma"])) == pytest.approx(float(log_sigma), rel=1e-4)
    # The value and the gradient are those of D/2 log MSE, but for a constant and the soft bound.
    loss = 32 * error.log() + kl
    constant = 32 * (1 + math.log(2 * math.pi))
    assert float(terms["loss"]) == pytest.approx(float(loss) + constant, abs=0.05)
    parameters = list(model.parameters())
    ours = torch.cat([g.flatten() for g in torch.autograd.grad(terms["loss"], parameters)])
    theirs = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    assert float((ours - theirs).norm() / theirs.norm()) < 0.03


def test_sigma_is_the_likeliest() -> None:
    data = batch(n=6)
    model = sigma_vae()
    with torch.no_grad():
        torch.manual_seed(4)
        terms = model.losses(data)
        torch.manual_seed(4)
        raw = model.raw(model.posterior(data.x).sample())
        for factor in (0.9, 1.1):
            worse = -model.observation.log_prob(raw, data.x, factor * terms["sigma"]).mean()
            assert worse > terms["reconstruction"]


def test_evaluation_reads_the_average_of_the_training_batches() -> None:
    model = sigma_vae(decay=0.5, latent_dim=3)
    errors = []
    for seed in range(3):
        terms = model.losses(batch(seed=seed))
        errors.append((float(terms["sigma"]) - math.exp(-6)) ** 2)
    average = 0.25 * errors[0] + 0.25 * errors[1] + 0.5 * errors[2]
    sigma = math.sqrt(average) + math.exp(-6)
    model.eval()
    for n in (1, 6):
        assert float(model.losses(batch(n=n))["sigma"]) == pytest.approx(sigma, rel=1e-4)
    assert float(model.observation.deviation()) == pytest.approx(sigma, rel=1e-4)

    x = batch(n=4).x
    with torch.no_grad():
        torch.manual_seed(0)
        found = model.log_weights(x, None, 2)
        torch.manual_seed(0)
        posterior = model.posterior(x)
        z = posterior.sample(2)
        mean = model.observation.mean(model.raw(z.flatten(0, 1))).unflatten(0, (2, 4))
        likelihood = torch.distributions.Normal(mean, sigma).log_prob(x).flatten(2).sum(2)
        expected = likelihood + model.log_prior(z) - posterior.log_prob(z)
    assert torch.allclose(found, expected, rtol=1e-3)


def test_learned_sigma_goes_with_its_model(tmp_path: Path) -> None:
    model = sigma_vae()
    model.losses(batch())
    x = batch(n=4).x
    raw = torch.zeros_like(x)
    expected = model.observation.log_prob(raw, x)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    loaded = sigma_vae()
    assert not torch.allclose(loaded.observation.log_prob(raw, x), expected)
    loaded.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    copied = copy.deepcopy(model)
    model.error.value.fill_(7.0)
    for other in (loaded, copied):
        assert torch.equal(other.observation.log_prob(raw, x), expected)
    moved = copied.double()
    assert moved.observation.deviation().dtype == torch.float64


def test_learned_sigma_is_a_gaussian_by_another_name() -> None:
    """Bits a pixel value are of Gaussians, and no column mixes two observation models."""
    observation = sigma_vae().observation
    assert isinstance(observation, Gaussian)
    assert observation.label == "gaussian(sigma=learned)"


@pytest.mark.parametrize("name", ["geco", "sigma_vae"])
@pytest.mark.parametrize("key", ["likelihood", "sigma"])
def test_the_observation_model_is_no_choice(name: str, key: str) -> None:
    with pytest.raises(InputError, match=key):
        make(name, **{key: "bernoulli" if key == "likelihood" else 1.0})
