"""Metrics of likelihood: closed forms and invariants."""

import math
from typing import Any

import pytest
import torch
from aebench.benchmark.evaluate import evaluate
from aebench.benchmark.metrics import Fitted
from aebench.benchmark.metrics.likelihood import (
    ELBO,
    NLL,
    ActiveUnits,
    Aggregate,
    BitsPerDim,
    active_units,
    aggregate_log_prob,
    bits_per_dim,
    collapsed,
    elbo,
    importance_log_likelihood,
)
from aebench.models import VAE
from aebench.models.backbones import Backbone
from aebench.models.conditional import CVAE
from aebench.models.observation import Bernoulli, Gaussian, Observation
from aebench.models.vae import DiagonalNormal, standard_normal_log_prob
from aebench.plugins import InputError
from standins import Echo, Held, Pixels, fitted_echo, noise_images, spec
from torch import Tensor, nn

SIGMA = 0.5


@pytest.fixture(scope="module")
def linear() -> tuple[Fitted, Tensor, float]:
    """A linear-Gaussian VAE, the exact log p(x) of its images, and KL(q ‖ p(z|x)).

    The images are those of the test split in the order that metrics see them in.
    """
    torch.manual_seed(0)
    dataset = Held(noise_images(450, 1, 4, 5))
    model = VAE(
        spec(dataset), Backbone.choose("linear")(), latent_dim=4, likelihood="gaussian", sigma=SIGMA
    )
    weight, bias = 0.35 * torch.randn(20, 4).double(), 0.5 + 0.1 * torch.randn(20).double()
    precision = torch.eye(4).double() + weight.T @ weight / SIGMA**2
    to_mean = torch.linalg.solve(precision, weight.T) / SIGMA**2
    encoder = next(m for m in model.encoder.modules() if isinstance(m, nn.Linear))
    decoder = next(m for m in model.decoder.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.copy_(bias)
        encoder.weight.copy_(torch.cat([to_mean, torch.zeros(4, 20)]))
        encoder.bias.copy_(torch.cat([-to_mean @ bias, -precision.diag().log()]))
    marginal = torch.distributions.MultivariateNormal(
        bias, weight @ weight.T + SIGMA**2 * torch.eye(20).double()
    )
    fitted = Fitted(model, dataset, Pixels(dataset))
    exact = marginal.log_prob(fitted.split("test").images().double().flatten(1) / 255)
    gap = 0.5 * (precision.diag().log().sum() - torch.logdet(precision)).item()
    assert gap > 0.1  # or the bounds below could not be told apart
    return fitted, exact, gap


def test_importance_sampled_nll_is_exact(linear: tuple[Fitted, Tensor, float]) -> None:
    fitted, exact, _ = linear
    value = NLL(samples=5000, images=150).compute(fitted)["nll"]
    assert value == pytest.approx(-exact[:150].mean().item(), abs=0.02)


def test_elbo_is_exact_less_the_posterior_gap(linear: tuple[Fitted, Tensor, float]) -> None:
    fitted, exact, gap = linear
    value = ELBO(samples=300).compute(fitted)["elbo"]
    assert value == pytest.approx(exact.mean().item() - gap, abs=0.02)


def test_bounds_rise_with_the_number_of_samples(linear: tuple[Fitted, Tensor, float]) -> None:
    fitted, exact, _ = linear
    bounds = [-NLL(samples=k, images=None).compute(fitted)["nll"] for k in (1, 5, 50, 1000)]
    assert bounds == sorted(bounds)
    assert bounds[0] < exact.mean().item() - 0.05
    assert bounds[-1] == pytest.approx(exact.mean().item(), abs=0.02)
    assert ELBO(samples=50).compute(fitted)["elbo"] < bounds[1]


def test_the_bound_comes_within_a_hundredth_of_a_nat_as_samples_grow(
    linear: tuple[Fitted, Tensor, float],
) -> None:
    # Of the same draws, a bound by fewer at a time is the lower, whatever they are.
    fitted, exact, _ = linear
    x = fitted.split("test").images()[:100].float() / 255
    with torch.no_grad(), fitted.random("test"):
        weights = fitted.model.log_weights(x, None, 5000).double()
    bounds = []
    for k in (1, 10, 100, 1000, 5000):
        parts = [importance_log_likelihood(lambda _, w=w: w, k, k) for w in weights.split(k)]
        bounds.append(torch.stack(parts).mean().item())
    assert bounds == sorted(bounds)
    gaps = [exact[:100].mean().item() - bound for bound in bounds]
    assert gaps[0] > 0.1
    assert gaps[1] > 0.01
    assert gaps[2] < 0.01
    assert abs(gaps[3]) < 0.005
    assert abs(gaps[4]) < 0.005


@pytest.mark.parametrize("at_once", [1, 7, 50, 64])
def test_bounds_draw_as_many_samples_as_asked(at_once: int) -> None:
    weights = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double() * 400

    def given() -> tuple[list[int], Any]:
        asked: list[int] = []

        def log_weights(k: int) -> Tensor:
            start = sum(asked)
            asked.append(k)
            return weights[start : start + k]

        return asked, log_weights

    asked, log_weights = given()
    expected = weights.logsumexp(0) - math.log(50)
    assert torch.allclose(importance_log_likelihood(log_weights, 50, at_once), expected)
    assert sum(asked) == 50
    assert max(asked) <= at_once
    _, log_weights = given()
    assert torch.allclose(elbo(log_weights, 50, at_once), weights.mean(0))


def test_likelihoods_weigh_every_image_alike() -> None:
    class Bright(Echo):
        def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
            return x.flatten(1).sum(1).expand(samples, -1)

    images = noise_images(130, 1, 2, 2)  # 130 is a multiple of no chunk
    images[100:] //= 4
    fitted = fitted_echo(images, Bright)
    expected = (images.double() / 255).flatten(1).sum(1)
    assert ELBO(samples=30).compute(fitted)["elbo"] == pytest.approx(expected.mean().item())
    assert NLL(samples=70, images=None).compute(fitted)["nll"] == pytest.approx(
        -expected.mean().item()
    )
    assert NLL(samples=70, images=7).compute(fitted)["nll"] == pytest.approx(
        -(fitted.split("test").images()[:7].double() / 255).flatten(1).sum(1).mean().item()
    )


def test_likelihood_names_the_observation_model(linear: tuple[Fitted, Tensor, float]) -> None:
    assert NLL().qualifier(linear[0]) == "gaussian(sigma=0.5)"
    dataset = Held(noise_images(9, 1, 8, 8), torch.arange(9) % 3)
    model = CVAE(spec(dataset), Backbone.choose("mlp")())
    fitted = Fitted(model, dataset, Pixels(dataset))
    assert ELBO().qualifier(fitted) == "bernoulli|label"
    assert math.isfinite(ELBO(samples=3).compute(fitted)["elbo"])
    assert "9 images" in NLL().estimator(fitted)
    assert "4 images" in NLL(images=4).estimator(fitted)


@pytest.mark.parametrize(("bits", "nats"), [(2.91, 6196), (3.15, 6707), (2.87, 6111)])
def test_bits_of_published_nats(bits: float, nats: int) -> None:
    assert bits_per_dim(nats, 3072) == pytest.approx(bits, abs=0.005)
    assert bits_per_dim(nats, 3072, 256) == pytest.approx(bits + 8, abs=0.005)


def test_bits_of_the_density_of_dequantised_pixels(linear: tuple[Fitted, Tensor, float]) -> None:
    fitted, _, _ = linear
    decoder = next(m for m in fitted.model.decoder.modules() if isinstance(m, nn.Linear))
    weight, bias = decoder.weight.detach().double(), decoder.bias.detach().double()
    covariance = weight @ weight.T + SIGMA**2 * torch.eye(20).double()
    marginal = torch.distributions.MultivariateNormal(bias, covariance)
    middles = (fitted.split("test").images().double().flatten(1) + 0.5) / 256
    # The mean over the noise, whose variance is 1/12 of a grey level's square.
    lost = torch.linalg.inv(covariance).trace() / (2 * 12 * 256**2)
    nats = (lost - marginal.log_prob(middles).mean()).item()
    found = BitsPerDim(samples=500, images=None).compute(fitted)["bits_per_dim"]
    assert found == pytest.approx((nats + 20 * math.log(256)) / (20 * math.log(2)), abs=0.002)
    assert "u uniform" in BitsPerDim().estimator(fitted)


@pytest.mark.parametrize("deviation", [0.2, 0.35, 0.5])
def test_bits_bound_those_of_the_bytes(deviation: float) -> None:
    """Pixels of 100 under a normal density about the middle of their grey level."""

    class Peaked(Echo):
        def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
            normal = torch.distributions.Normal(100.5 / 256, deviation / 256)
            return normal.log_prob(x).flatten(1).sum(1).expand(samples, -1)

    fitted = fitted_echo(torch.full((400, 1, 6, 6), 100, dtype=torch.uint8), Peaked)
    fitted.model.observation = Gaussian(deviation / 256)
    nats = 0.5 * math.log(2 * math.pi * deviation**2) + 1 / (24 * deviation**2)
    found = BitsPerDim(samples=2).compute(fitted)["bits_per_dim"]
    assert found == pytest.approx(nats / math.log(2), abs=0.03 / deviation**2)
    mass = torch.erf(torch.tensor(0.5 / deviation / math.sqrt(2))).item()
    assert found > -math.log2(mass)


class Logistic(Observation):
    label = "logistic"

    def mean(self, raw: Tensor) -> Tensor:
        return raw

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        return raw.flatten(-3).sum(-1)


def test_bits_of_binary_pixels_alone_have_a_bernoulli_likelihood() -> None:
    class Coin(Echo):
        def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
            return self.observation.log_prob(torch.zeros_like(x), x).expand(samples, -1)

    grey = noise_images(20, 1, 5, 5)
    binary = (grey > 99).to(torch.uint8) * 255
    fitted = fitted_echo(binary, Coin)
    fitted.model.observation = Bernoulli()
    assert BitsPerDim(samples=2).lacks(fitted) == ""
    assert BitsPerDim(samples=2).compute(fitted)["bits_per_dim"] == pytest.approx(1, abs=1e-6)
    assert "binary pixels" in BitsPerDim().estimator(fitted)
    binary[17, 0, 2, 2] = 254
    fitted = fitted_echo(binary, Coin)
    fitted.model.observation = Bernoulli()
    assert "grey pixels" in BitsPerDim().lacks(fitted)
    fitted.model.observation = Logistic()
    assert "logistic is not of 8-bit pixels" in BitsPerDim().lacks(fitted)


class Coded(Echo):
    """Posteriors about a multiple of the pixels, standardised by what all of them were drawn of."""

    slope, deviation = 1.0, 1.0

    def posterior(self, x: Tensor, y: Tensor | None = None) -> DiagonalNormal:
        mean = self.slope * (x.flatten(1) * 255 - 128) / 20
        return DiagonalNormal(mean, torch.full_like(mean, 2 * math.log(self.deviation)))

    def log_prior(self, z: Tensor) -> Tensor:
        return standard_normal_log_prob(z)


class Closed(Coded):
    def kl(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.posterior(x).kl_to_standard()


def coded(n: int, slope: float, deviation: float, cls: type[Coded] = Closed) -> Fitted:
    """Of images whose two pixels are normal about 128 with a standard deviation of 20."""
    generator = torch.Generator().manual_seed(3)
    pixels = 128 + 20 * torch.randn(n, 1, 1, 2, generator=generator)
    fitted = fitted_echo(pixels.round().clamp(0, 255).to(torch.uint8), cls)
    fitted.model.slope, fitted.model.deviation = slope, deviation
    return fitted


def test_an_encoder_that_ignores_the_image_has_collapsed() -> None:
    fitted = coded(300, 0, 1)
    assert ActiveUnits().compute(fitted) == {
        "active_units": 0,
        "kl": 0,
        "kl_per_dim": 0,
        "kl_per_dim_max": 0,
        "collapsed": 1,
    }
    found = Aggregate().compute(fitted)
    assert found == pytest.approx({"mutual_information": 0, "marginal_kl": 0}, abs=1e-5)


def test_an_encoder_that_repeats_the_image_uses_every_dimension() -> None:
    found = ActiveUnits().compute(coded(3000, 1, 0.5))
    expected = 0.5 * (1 + 0.25 - math.log(0.25) - 1)
    assert found["active_units"] == 2
    assert found["collapsed"] == 0
    assert found["kl"] == pytest.approx(2 * expected, rel=0.05)
    assert found["kl_per_dim"] == pytest.approx(found["kl"] / 2)
    assert found["kl_per_dim"] <= found["kl_per_dim_max"] <= found["kl"]


def test_active_and_collapsed_dimensions_are_counted_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(5000, 4, generator=generator).double()
    noise = (noise - noise.mean(0)) / noise.std(0, correction=0)
    assert active_units(noise * torch.tensor([1, 0.101, 0.099, 0]) + 5) == 2
    kl = torch.tensor([[0.0, 1.0, 0.02], [0.005, 0.0, 0.001]]).repeat(100, 1)
    kl[0] = torch.tensor([9, 1, 0.02])  # one image of two hundred: half a percent
    assert collapsed(kl) == pytest.approx(1 / 3)
    assert collapsed(kl, delta=0.5) == 1
    assert collapsed(kl, delta=0.001) == 0
    assert collapsed(torch.eye(100)) == 1  # exactly one percent of images is above
    assert collapsed(torch.eye(99)) == 0


@pytest.mark.parametrize(("slope", "deviation"), [(0.8, 0.6), (1.0, 0.5), (0.5, 1.0)])
def test_aggregate_posterior_of_a_normal_one(slope: float, deviation: float) -> None:
    fitted = coded(2000, slope, deviation)
    found = Aggregate().compute(fitted)
    variance = slope**2 + deviation**2
    information = math.log(variance / deviation**2)  # of two dimensions, each half of it
    assert found["mutual_information"] == pytest.approx(information, abs=0.06)
    assert found["marginal_kl"] == pytest.approx(variance - 1 - math.log(variance), abs=0.06)
    kl = ActiveUnits().compute(fitted)["kl"]
    assert found["mutual_information"] + found["marginal_kl"] == pytest.approx(kl, abs=0.06)


def test_mutual_information_is_at_most_the_logarithm_of_the_number_of_images() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    fitted = fitted_echo(images, Closed)
    fitted.model.deviation = 1e-4
    for points in (17, 256):
        found = Aggregate(points=points).compute(fitted)["mutual_information"]
        assert found == pytest.approx(math.log(points), abs=1e-6)
    assert "at most log 256 = 5.55 nats" in Aggregate().estimator(fitted)


def test_aggregate_log_prob_is_that_of_the_mixture() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance, z = (torch.randn(9, 3, generator=generator) for _ in range(3))
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(9)),
        torch.distributions.Independent(
            torch.distributions.Normal(mean, (log_variance / 2).exp()), 1
        ),
    )
    parts = [DiagonalNormal(mean[some], log_variance[some]) for some in (slice(4), slice(4, 9))]
    found = aggregate_log_prob(parts, z, 2)
    assert torch.allclose(found, mixture.log_prob(z).double(), atol=1e-5)


def test_posteriors_without_a_closed_divergence() -> None:
    fitted = coded(50, 1, 1, Coded)
    rows = {row.metric: row for row in evaluate(fitted, [ActiveUnits(), Aggregate()]).rows}
    assert rows["active_units"].value == 2
    assert rows["kl"].note == rows["collapsed"].note == "the model has no kl"
    assert math.isfinite(rows["mutual_information"].value)
    assert "no posterior" in ActiveUnits().lacks(fitted_echo(noise_images(4, 1, 2, 2)))


def test_posteriors_that_read_the_label_stand_in_columns_of_their_own() -> None:
    dataset = Held(noise_images(30, 1, 8, 8), torch.arange(30) % 3)
    torch.manual_seed(0)
    for cls, word in ((CVAE, "label"), (VAE, "")):
        model = cls(spec(dataset), Backbone.choose("mlp")(), likelihood="gaussian", latent_dim=2)
        fitted = Fitted(model, dataset, Pixels(dataset))
        for metric in (ActiveUnits(), Aggregate()):
            assert metric.qualifier(fitted) == word
            assert all(math.isfinite(value) for value in metric.compute(fitted).values())
        assert BitsPerDim(samples=2).qualifier(fitted) == "gaussian(sigma=1)" + "|label" * bool(
            word
        )


def test_an_aggregate_of_one_image_is_refused() -> None:
    with pytest.raises(InputError, match="points must be 2 or more"):
        Aggregate(points=1)
