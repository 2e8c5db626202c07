"""Metrics: known answers, invariants, and that they change nothing."""

import math
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from aebench.benchmark.extractors import Extractor
from aebench.benchmark.families import FAMILIES
from aebench.benchmark.metrics import Fitted, Metric, NotApplicable, disentanglement
from aebench.benchmark.metrics.classification import KNN, knn_accuracy, linear_probe_accuracy
from aebench.benchmark.metrics.clustering import Clustering, hungarian_accuracy, kmeans_clusters
from aebench.benchmark.metrics.disentanglement import MIG, FactorVAEScore, factor_vae_score, mig
from aebench.benchmark.metrics.generation import FID, KID, fid, frechet_distance, kid
from aebench.benchmark.metrics.interpolation import (
    MidpointFID,
    Smoothness,
    draw_pairs,
    unevenness,
)
from aebench.benchmark.metrics.likelihood import ELBO, NLL, elbo, importance_log_likelihood
from aebench.benchmark.metrics.reconstruction import (
    MSE,
    PSNR,
    PSNR_CAP,
    SSIM,
    psnr,
    ssim,
    ssim_window,
)
from aebench.datasets import Dataset, Split
from aebench.models import VAE, Autoencoder, DataSpec, Sampler
from aebench.models.backbones import Backbone
from aebench.models.samplers.prior import Prior
from aebench.models.vae import CVAE
from aebench.plugins import InputError
from torch import Tensor, nn

OURS = {
    name: cls
    for name, cls in Metric.choices().items()
    if cls.__module__.startswith("aebench.benchmark.metrics.")
}


# Stand-ins. None states a name in its class, so none can be chosen in other tests.


class Held(Dataset):
    """Images that are given, one third each split where one tensor is given for all."""

    def __init__(self, images: Tensor, labels: Tensor | None = None, factors: Tensor | None = None):
        super().__init__()
        self.name = "held"  # type: ignore[misc]
        self.factor_names = () if factors is None else tuple("abcdefg"[: factors.shape[1]])
        self.given = Split(images, labels, factors)

    def load(self) -> dict[Any, Split]:
        return {"train": self.given, "val": self.given, "test": self.given}


class Rendered(Held):
    """One pixel a factor, as bright as its value."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        every = torch.cartesian_prod(*[torch.arange(size) for size in sizes])
        super().__init__(self.render(every), None, every)

    def render(self, factors: Tensor) -> Tensor:
        return (factors * 20).to(torch.uint8)[:, None, None, :]


class Echo(Autoencoder):
    """The code is the image, flattened, and the image is the code."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data, Backbone.choose("linear")())
        self.held = nn.Parameter(torch.zeros(1))

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.flatten(1)

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z.unflatten(1, self.data.shape)


class Pixels(Extractor):
    """The features are the pixels."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.name = "pixels"  # type: ignore[misc]

    fingerprint = "pixels"

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1).float() / 255


class Given(Sampler):
    """Gives the same codes every time."""

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    def sample(self, model: Autoencoder, n: int) -> Tensor:
        return self.codes[:n]


def spec(dataset: Dataset) -> DataSpec:
    return DataSpec(dataset.shape, dataset.classes, len(dataset.split("train")))


def fitted_echo(images: Tensor, cls: type[Echo] = Echo, **kwargs: Any) -> Fitted:
    dataset = Held(images, kwargs.pop("labels", None), kwargs.pop("factors", None))
    return Fitted(cls(spec(dataset)), dataset, Pixels(dataset), **kwargs)


def noise_images(n: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)


# Reconstruction.


@pytest.mark.parametrize(("mse", "decibels"), [(1e-2, 20), (1e-3, 30), (1e-4, 40)])
def test_psnr_of_known_errors(mse: float, decibels: float) -> None:
    x = torch.full((2, 1, 8, 8), 0.25, dtype=torch.float64)
    assert psnr(x, x + math.sqrt(mse)).tolist() == pytest.approx([decibels] * 2, abs=1e-9)


def test_psnr_is_averaged_over_images_and_capped() -> None:
    x = torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    others = x + torch.tensor([0.1, 0.01, 0.0]).double().view(3, 1, 1, 1)
    assert psnr(x, others).tolist() == pytest.approx([20, 40, 58.9226], abs=1e-3)
    images = noise_images(10, 1, 8, 8)
    fitted = fitted_echo(images)
    assert PSNR().compute(fitted)["psnr"] == pytest.approx(PSNR_CAP)
    assert MSE().compute(fitted)["mse"] == 0
    assert SSIM().compute(fitted)["ssim"] == 1


def test_psnr_metric_is_not_that_of_the_pooled_error() -> None:
    class Dimmed(Echo):
        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().raw(z * 0.9, y)

    images = torch.stack([torch.full((1, 8, 8), v, dtype=torch.uint8) for v in (255, 51)])
    fitted = fitted_echo(images, Dimmed)
    assert PSNR().compute(fitted)["psnr"] == pytest.approx((20 + 33.979) / 2, abs=1e-3)
    assert MSE().compute(fitted)["mse"] == pytest.approx((1e-2 + 4e-4) / 2, rel=1e-5)


def plain_ssim(x: np.ndarray, y: np.ndarray, side: int) -> float:
    """Wang's formula at every position at which the window lies within one channel."""
    at = np.arange(side) - side // 2
    window = np.exp(-(at**2) / (2 * (1.5 * side / 11) ** 2))
    weights = np.outer(window, window) / window.sum() ** 2
    found = []
    for i in range(x.shape[0] - side + 1):
        for j in range(x.shape[1] - side + 1):
            a, b = x[i : i + side, j : j + side], y[i : i + side, j : j + side]
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            cov = (weights * (a - ma) * (b - mb)).sum()
            top = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4)
            found.append(top / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("shape", "side"), [((13, 16), 11), ((8, 8), 7), ((11, 40), 11), ((6, 9), 5)]
)
def test_ssim_is_the_formula_within_the_image(shape: tuple[int, int], side: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, 2, *shape, generator=generator)
    y = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    assert ssim_window(*shape) == side
    expected = [
        np.mean([plain_ssim(a.double().numpy(), b.double().numpy(), side) for a, b in zip(p, q)])
        for p, q in zip(x, y)
    ]
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=1e-5)
    assert ssim(x, x).tolist() == pytest.approx([1] * 3, abs=1e-6)


def test_ssim_is_not_applicable_to_tiny_images() -> None:
    assert "3 pixels" in SSIM().lacks(fitted_echo(noise_images(4, 1, 2, 9)))
    assert "window 7, sigma 0.955" in SSIM().estimator(fitted_echo(noise_images(4, 1, 8, 8)))


# Likelihood.

SIGMA = 0.5


@pytest.fixture(scope="module")
def linear() -> tuple[Fitted, Tensor, float]:
    """A linear-Gaussian VAE, the exact log p(x) of its images, and KL(q ‖ p(z|x))."""
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
    exact = marginal.log_prob(dataset.split("test").images().double().flatten(1) / 255)
    gap = 0.5 * (precision.diag().log().sum() - torch.logdet(precision)).item()
    assert gap > 0.1  # or the bounds below could not be told apart
    return Fitted(model, dataset, Pixels(dataset)), exact, gap


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
        -expected[:7].mean().item()
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


# Generation.


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "d"), [(500, 20), (30, 64)])
def test_fid_of_a_set_with_itself_is_zero(n: int, d: int) -> None:
    x = normal(n, d, 0)
    assert 0 <= fid(x, x) < 1e-3


def test_fid_of_a_shift_is_its_square() -> None:
    x = normal(400, 10, 0)
    shift = torch.arange(10).double() / 5
    assert fid(x, x + shift) == pytest.approx(shift.square().sum().item(), abs=1e-6)
    assert fid(x + shift, x) == pytest.approx(fid(x, x + shift), abs=1e-6)


@pytest.mark.parametrize(("n", "expected", "tolerance"), [(1000, 2.2, 0.15), (2000, 1.07, 0.08)])
def test_fid_has_the_known_bias(n: int, expected: float, tolerance: float) -> None:
    assert fid(normal(n, 64, 1), normal(n, 64, 2)) == pytest.approx(expected, abs=tolerance)


def test_frechet_distance_of_general_covariances() -> None:
    from scipy.linalg import sqrtm

    a, b = normal(8, 6, 3).numpy(), normal(8, 6, 4).numpy()
    s1, s2, m1, m2 = a.T @ a, b.T @ b, a[0], b[0]
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert frechet_distance(m1, s1, m2, s2) == pytest.approx(expected, rel=1e-8)
    diagonals = np.array([4.0, 9.0, 0.0]), np.array([1.0, 0.0, 16.0])
    zero = np.zeros(3)
    found = frechet_distance(zero, np.diag(diagonals[0]), zero, np.diag(diagonals[1]))
    assert found == pytest.approx(1 + 9 + 16)


def plain_kid(a: np.ndarray, b: np.ndarray) -> float:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    n, m = len(a), len(b)
    aa = np.mean([k(a[i], a[j]) for i in range(n) for j in range(n) if i != j])
    bb = np.mean([k(b[i], b[j]) for i in range(m) for j in range(m) if i != j])
    return float(aa + bb - 2 * np.mean([k(x, y) for x in a for y in b]))


def test_kid_is_the_direct_formula() -> None:
    a, b = normal(12, 5, 0), normal(12, 5, 1) + 0.3
    expected = plain_kid(a.numpy(), b.numpy())
    assert kid(a, b) == pytest.approx(expected, rel=1e-10)
    assert kid(b, a, subset_size=12, subsets=3) == pytest.approx(expected, rel=1e-10)
    assert kid(a, a) < 0  # unbiased: not clipped


def test_kid_is_capped_at_the_smaller_set_and_seeded() -> None:
    a, b = normal(40, 5, 0), normal(15, 5, 1)
    assert kid(a, b, 20, 1000, seed=0) == kid(a, b, 20, 15, seed=0)
    assert kid(a, b, 20, 1000, seed=0) != kid(a, b, 20, 1000, seed=1)


def test_kid_is_unbiased() -> None:
    values = [kid(normal(40, 4, 2 * i), normal(40, 4, 2 * i + 1), 5, 20) for i in range(150)]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    # With its diagonal the estimate would be above by two kernel gaps over the subset's size.
    assert error < 0.1
    assert kid(normal(200, 4, 0), normal(200, 4, 1) + 1) > 0.5


def test_a_sampler_of_the_test_images_has_no_distance() -> None:
    images = noise_images(60, 1, 3, 3)
    codes = images.flatten(1).float() / 255
    fitted = fitted_echo(images, samplers={"same": Given(codes), "half": Given(codes / 2)})
    assert FID().compute(fitted, "same")["fid"] < 1e-6
    assert FID().compute(fitted, "half")["fid"] > 0.1
    metric = KID(subset_size=30)
    assert metric.compute(fitted, "half")["kid"] > metric.compute(fitted, "same")["kid"] + 0.01
    assert metric.qualifier(fitted) == "pixels"
    assert "60 samples against 60 images of the test split" in metric.estimator(fitted)
    assert "100 subsets of 30" in metric.estimator(fitted)
    assert "1 subsets of 60" in KID().estimator(fitted)
    assert "25 samples against 60 images of the train split" in FID(
        samples=25, reference="train"
    ).estimator(fitted)


def test_a_sampler_is_fitted_once_to_the_train_codes() -> None:
    class Fits(Sampler):
        def __init__(self) -> None:
            self.held: list[Tensor] = []

        def fit(self, model: Autoencoder, codes: Tensor, seed: int) -> None:
            self.held.append(codes)

        def sample(self, model: Autoencoder, n: int) -> Tensor:
            return self.held[-1][:n]

    model, dataset = normed_vae()
    sampler = Fits()
    fitted = Fitted(model, dataset, Pixels(dataset), samplers={"fits": sampler})
    FID(samples=20).compute(fitted, "fits")
    FID(samples=30).compute(fitted, "fits")
    assert len(sampler.held) == 1
    assert torch.equal(sampler.held[0], fitted.codes("train"))
    assert not torch.equal(sampler.held[0], fitted.codes("test"))


# Disentanglement: the answers of disentanglement_lib's own code for these six representations.

SIZES = (3, 6, 40, 32, 32)


def standardised(factors: np.ndarray) -> np.ndarray:
    sizes = np.array(SIZES)
    return (factors - (sizes - 1) / 2) / np.sqrt((sizes**2 - 1) / 12)


def representations(seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.standard_normal((5, 5)))[0]

    def beside(scale: float) -> Any:
        return lambda f: np.hstack([standardised(f), scale * random.standard_normal((len(f), 5))])

    return {
        "identity": standardised,
        "tiny": beside(0.02),
        "prior": beside(1.0),
        "rotation": lambda f: standardised(f) @ rotation,
        "noise": lambda f: random.standard_normal((len(f), 10)),
        "dup": lambda f: np.hstack([standardised(f)] * 2),
    }


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("identity", 0.896), ("tiny", 0.895), ("prior", 0.896), ("noise", 0.0), ("dup", 0.0)],
)
def test_mig_known_answers(kind: str, expected: float) -> None:
    factors = np.random.default_rng(0).integers(0, SIZES, (10_000, 5))
    assert mig(representations()[kind](factors), factors) == pytest.approx(expected, abs=0.01)


def test_mig_of_a_rotation_is_far_from_both_ends() -> None:
    factors = np.random.default_rng(0).integers(0, SIZES, (10_000, 5))
    found = [mig(representations(s)["rotation"](factors), factors) for s in range(5)]
    assert 0.03 < min(found) < max(found) < 0.4


@pytest.mark.parametrize(("bins", "expected"), [(10, 0.787), (40, 0.988)])
def test_mig_depends_on_the_bins(bins: int, expected: float) -> None:
    factors = np.random.default_rng(0).integers(0, SIZES, (10_000, 5))
    assert mig(standardised(factors), factors, bins) == pytest.approx(expected, abs=0.01)


def test_mig_is_the_definition() -> None:
    from sklearn.metrics import mutual_info_score

    random = np.random.default_rng(3)
    factors = random.integers(0, (3, 5), (400, 2))
    codes = factors @ random.standard_normal((2, 4)) + 0.5 * random.standard_normal((400, 4))
    binned = [np.digitize(c, np.histogram(c, 7)[1][:-1]) for c in codes.T]
    gaps = []
    for values in factors.T:
        information = sorted(mutual_info_score(values, b) for b in binned)
        gaps.append((information[-1] - information[-2]) / mutual_info_score(values, values))
    assert mig(codes, factors, 7) == pytest.approx(np.mean(gaps), rel=1e-9)


def test_mig_of_degenerate_codes_and_factors() -> None:
    factors = np.random.default_rng(0).integers(0, (3, 6), (500, 2))
    codes = factors.astype(float)
    assert mig(np.ones((500, 3)), factors) == 0
    assert mig(np.full((500, 2), 1 + 1e-7, dtype=np.float32), factors) == 0
    assert mig(codes, factors) == pytest.approx(1, abs=0.05)
    assert mig(codes[:, :1], factors[:, :1]) == pytest.approx(1)  # no runner-up
    still = np.hstack([factors, np.full((500, 1), 4)])
    assert mig(codes, still) == mig(codes, factors)
    assert math.isnan(mig(codes, np.zeros((500, 1), dtype=int)))
    codes[3, 1] = math.nan
    assert math.isnan(mig(codes, factors))


@pytest.mark.parametrize(
    ("kind", "expected", "tolerance"),
    [("identity", 1.0, 0), ("prior", 1.0, 0), ("noise", 0.2, 0.025), ("dup", 1.0, 0)],
)
def test_factor_vae_known_answers(kind: str, expected: float, tolerance: float) -> None:
    represent = representations()[kind]
    score = factor_vae_score(represent, SIZES, train=4000, evaluations=4000)
    assert score == pytest.approx(expected, abs=tolerance + 1e-9)


def test_factor_vae_of_a_rotation_is_below_one() -> None:
    represent = representations()["rotation"]
    assert 0.5 < factor_vae_score(represent, SIZES, train=2000, evaluations=2000) < 0.99


def test_factor_vae_prunes_codes_that_hardly_vary() -> None:
    def represent(factors: np.ndarray) -> np.ndarray:
        return standardised(factors) * [0.04, 1, 1, 1, 1]

    few = {"train": 1000, "evaluations": 1000}
    assert factor_vae_score(represent, SIZES, prune=0, **few) == 1
    assert factor_vae_score(represent, SIZES, **few) < 0.9
    assert factor_vae_score(lambda f: standardised(f) * 0.04, SIZES, **few) == 0
    assert factor_vae_score(lambda f: np.ones((len(f), 3)), SIZES, **few) == 0
    assert math.isnan(factor_vae_score(lambda f: standardised(f) * math.nan, SIZES, **few))
    assert math.isnan(factor_vae_score(lambda f: f * 1.0, (1, 1), **few))


def test_factor_vae_holds_the_variances_of_the_whole_set() -> None:
    """A code's scale must not matter: local variances are divided by global ones."""
    random = np.random.default_rng(0)

    def represent(factors: np.ndarray) -> np.ndarray:
        noise = 0.1 * random.standard_normal(factors.shape)
        return (standardised(factors) + noise) * [100, 1, 0.1, 10, 1]

    assert factor_vae_score(represent, SIZES, train=1000, evaluations=1000) == 1


def test_disentanglement_of_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Rendered((3, 4, 5))
    fitted = Fitted(Echo(spec(dataset)), dataset, Pixels(dataset), batch_size=16)
    metric = FactorVAEScore(train=200, evaluations=200, prune=0.01)
    assert metric.compute(fitted)["factor_vae"] == 1
    assert MIG().compute(fitted)["mig"] == pytest.approx(1)
    assert "60 images" in MIG().estimator(fitted)
    assert "12 images" in MIG(points=12).estimator(fitted)
    # Encoding each batch gives what looking its codes up gives.
    rough = FactorVAEScore(train=30, evaluations=100, batch=2, prune=0.01)
    looked_up = rough.compute(fitted)["factor_vae"]
    monkeypatch.setattr(disentanglement, "TABLE", 0)
    assert rough.compute(fitted)["factor_vae"] == looked_up < 1


def test_disentanglement_without_every_combination() -> None:
    factors = torch.stack([torch.arange(30) % 3, torch.arange(30) % 5], 1)
    fitted = fitted_echo(noise_images(30, 1, 2, 2), factors=factors)
    assert "every combination" in FactorVAEScore().lacks(fitted)
    assert MIG().lacks(fitted) == ""
    with pytest.raises(NotApplicable, match="every combination"):
        fitted.represent(factors)


# Interpolation.


def test_unevenness() -> None:
    even, jump = torch.full((1, 15), 0.2), torch.zeros(1, 15)
    jump[0, 6] = 3.0
    still = torch.full((1, 15), 1e-5)
    found = unevenness(torch.cat([even, jump, still]).double())
    assert found[:2].tolist() == pytest.approx([0, 1 - 1 / 15])
    assert found[2].isnan()


def test_smoothness_of_a_linear_decoder_is_zero() -> None:
    fitted = fitted_echo(noise_images(30, 1, 4, 4))
    assert Smoothness(pairs=20).compute(fitted)["smoothness"] == pytest.approx(0, abs=1e-5)
    assert "20 random pairs of the test split" in Smoothness(pairs=20).estimator(fitted)


def test_smoothness_of_a_jump() -> None:
    class Nearest(Echo):
        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().raw(z, y).round()

    fitted = fitted_echo((noise_images(30, 1, 4, 4) > 127).byte() * 255, Nearest)
    found = Smoothness(pairs=20, points=10).compute(fitted)["smoothness"]
    assert found == pytest.approx(1 - 1 / 9, abs=1e-6)


def test_smoothness_leaves_degenerate_paths_out() -> None:
    images = noise_images(2, 1, 4, 4)[torch.arange(40) % 2]
    fitted = fitted_echo(images)
    metric = Smoothness(pairs=50)
    assert metric.compute(fitted)["smoothness"] == pytest.approx(0, abs=1e-5)
    left_out = int(metric.estimator(fitted).split(" degenerate")[0].split()[-1])
    assert 10 < left_out < 40

    class Constant(Echo):
        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().raw(0 * z, y)

    with pytest.raises(NotApplicable, match="does not change"):
        metric.compute(fitted_echo(images, Constant))


def test_pairs_are_of_different_images_of_one_label() -> None:
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 5])
    torch.manual_seed(0)
    first, second = draw_pairs(7, 3000, labels).T
    assert (first != second).all()
    assert (labels[first] == labels[second]).all()
    counts = torch.zeros(7, 7).index_put_((first, second), torch.ones(3000), accumulate=True)
    drawn = counts[counts > 0]
    assert len(drawn) == 2 + 6  # every ordered pair within a label, none of a single
    assert counts[3:6, 3:6].sum(1).min() > 500
    assert counts[3, 4:6].min() > 230
    first, second = draw_pairs(4, 3000).T
    counts = torch.zeros(4, 4).index_put_((first, second), torch.ones(3000), accumulate=True)
    assert counts.diag().sum() == 0
    assert counts[counts > 0].min() > 190
    with pytest.raises(NotApplicable):
        draw_pairs(3, 10, torch.arange(3))


def test_pairs_of_a_conditional_model_share_the_label_it_decodes() -> None:
    seen = []

    class Told(Echo):
        conditional = True

        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            assert y is not None
            seen.append((z[:, 0] * 255 - 20.0 * y).abs().max().item())
            return super().raw(z, y)

    labels = torch.arange(40) % 4
    images = noise_images(40, 1, 3, 3)
    images[:, 0, 0, 0] = (20 * labels).byte()  # the first pixel says the label
    fitted = fitted_echo(images, Told, labels=labels)
    Smoothness(pairs=10).compute(fitted)
    MidpointFID().compute(fitted)
    assert len(seen) > 10
    assert max(seen) < 1e-3
    assert "of one label" in MidpointFID().estimator(fitted)


def test_midpoint_fid_is_of_the_midpoints() -> None:
    images = noise_images(200, 1, 2, 2) // 2 * 2
    fitted = fitted_echo(images)
    metric = MidpointFID(pairs=150)
    a, b, _ = metric.ends(fitted, 150)
    real = images.flatten(1).double() / 255
    middle = ((a + b) / 2 * 255).round().double() / 255
    assert metric.compute(fitted)["midpoint_fid"] == pytest.approx(fid(real, middle), abs=1e-6)
    assert fid(real, middle) > 0.01
    assert metric.qualifier(fitted) == "pixels"


# Clustering and classification.


@pytest.mark.parametrize(("clusters", "expected"), [(10, 0.114), (100, 0.018)])
def test_hungarian_accuracy_of_random_labels(clusters: int, expected: float) -> None:
    random = np.random.default_rng(0)
    labels, found = random.integers(0, 10, 10_000), random.integers(0, clusters, 10_000)
    assert hungarian_accuracy(labels, found) == pytest.approx(expected, abs=0.003)


def test_hungarian_accuracy_maps_one_to_one() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert hungarian_accuracy(labels, (labels + 1) % 3) == 1
    assert hungarian_accuracy(labels, np.arange(6)) == 0.5  # six clusters, three of them mapped
    assert hungarian_accuracy(labels, np.zeros(6, dtype=int)) == pytest.approx(1 / 3)


def blobs(n: int, seed: int, noise: float = 4) -> tuple[Tensor, Tensor]:
    """Images 1 x 8 x 8 of four classes far apart, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(99)) * 200 + 20
    labels = torch.arange(n) % 4
    noisy = centres[labels] + noise * torch.randn(n, 1, 8, 8, generator=generator)
    return noisy.clamp(0, 255).to(torch.uint8), labels


def test_clustering_of_blobs_is_perfect() -> None:
    images, labels = blobs(120, 0)
    values = Clustering().compute(fitted_echo(images, labels=labels))
    assert values == pytest.approx({"acc": 1, "nmi": 1, "ari": 1})


def test_clustering_of_labels_without_relation_is_chance() -> None:
    labels = torch.randint(0, 4, (1200,), generator=torch.Generator().manual_seed(5))
    values = Clustering().compute(fitted_echo(blobs(1200, 0)[0], labels=labels))
    assert 0.25 < values["acc"] < 0.32
    assert values["nmi"] < 0.02
    assert abs(values["ari"]) < 0.02


def test_clustering_of_collapsed_codes_is_silent() -> None:
    images, labels = blobs(120, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = Clustering().compute(fitted_echo(torch.zeros_like(images), labels=labels))
    assert values == pytest.approx({"acc": 0.25, "nmi": 0, "ari": 0})
    assert kmeans_clusters(np.zeros((2, 3)), np.zeros((5, 3)), 10, 1, 0).tolist() == [0] * 5


def separable(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    return np.eye(3)[labels] * 5 + 0.3 * random.standard_normal((n, 3)), labels


def test_probes_of_separable_codes_are_perfect() -> None:
    train, val, test = (separable(n, i) for i, n in enumerate((200, 50, 100)))
    assert linear_probe_accuracy(train, val, test) == 1
    assert knn_accuracy(train, test) == 1


def test_linear_probe_is_standardised() -> None:
    scale = np.array([1e-5, 1.0, 1e5])
    train, val, test = (
        (x * scale + 7, y) for x, y in (separable(n, i) for i, n in enumerate((200, 50, 100)))
    )
    assert linear_probe_accuracy(train, val, test) == 1


def test_probes_of_noise_are_at_chance() -> None:
    random = np.random.default_rng(0)
    parts = [(random.standard_normal((n, 8)), random.integers(0, 4, n)) for n in (800, 200, 2000)]
    assert linear_probe_accuracy(*parts) == pytest.approx(0.25, abs=0.04)
    assert knn_accuracy(parts[0], parts[2]) == pytest.approx(0.25, abs=0.04)


def test_linear_probe_is_chosen_on_the_validation_split() -> None:
    """Two features: one right for train but wrong for val, one a little right for both."""
    random = np.random.default_rng(0)

    def part(n: int, sign: float) -> tuple[np.ndarray, np.ndarray]:
        labels = random.integers(0, 2, n)
        side = 2.0 * labels - 1
        misleading = sign * side * 1.0 + 0.5 * random.standard_normal(n)
        x = np.stack([misleading, *(side[:, None] + 3 * random.standard_normal((n, 40))).T], 1)
        return x, labels

    train, deceived, honest = part(60, 1), part(400, -1), part(400, 1)
    # The test split is the same: only the split that chooses C differs.
    assert linear_probe_accuracy(train, deceived, deceived) > linear_probe_accuracy(
        train, honest, deceived
    )


def test_knn_is_a_majority_of_five() -> None:
    train = np.array([[0.0], [1], [2], [10], [11], [12]]), np.array([0, 1, 1, 0, 0, 0])
    assert knn_accuracy(train, (np.array([[0.0]]), np.array([0]))) == 1  # 0, 1, 1, 0, 0
    assert knn_accuracy(train, (np.array([[0.0]]), np.array([1])), neighbours=3) == 1
    assert knn_accuracy(train, (np.array([[0.0]]), np.array([0])), neighbours=100) == 1
    assert "3 neighbours" in KNN(neighbours=3).estimator(
        fitted_echo(*blobs(8, 0)[:1], labels=blobs(8, 0)[1])
    )


def test_probes_of_one_class_are_not_applicable() -> None:
    fitted = fitted_echo(noise_images(20, 1, 3, 3), labels=torch.ones(20, dtype=torch.int64))
    with pytest.raises(NotApplicable, match="one class"):
        OURS["linear_probe"]().compute(fitted)


# What holds for all of them.

FEW: dict[str, dict[str, Any]] = {
    "nll": {"samples": 20},
    "kid": {"subsets": 3, "subset_size": 30},
    "smoothness": {"pairs": 10, "points": 5},
    "factor_vae": {"variance_points": 200, "train": 100, "evaluations": 100, "prune": 0.0},
}


class Everything(Rendered):
    """Factors, labels, every combination, and enough pixels for all metrics."""

    def __init__(self) -> None:
        super().__init__((4, 3, 5, 2))
        given = self.given
        labels = given.factors[:, 0]
        order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
        self.given = Split(given.pixels, labels, given.factors).take(order)

    def load(self) -> dict[Any, Split]:
        return self.permuted(self.given, (0.4, 0.1))

    def render(self, factors: Tensor) -> Tensor:
        rows = (factors[:, None, :, None] * 40 + 10).to(torch.uint8)
        return rows.expand(-1, 1, 4, 4) // torch.arange(1, 5, dtype=torch.uint8)


def normed_vae(seed: int = 0) -> tuple[VAE, Everything]:
    """An untrained VAE with a batch norm, which a forward pass in training mode would change."""
    dataset = Everything()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VAE(spec(dataset), Backbone.choose("mlp")(), latent_dim=3)
    model.encoder = nn.Sequential(nn.BatchNorm2d(1), model.encoder)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(3)
    return model, dataset


def scores(names: list[str], batch_size: int = 500, seed: int = 0) -> dict[str, dict[str, float]]:
    model, dataset = normed_vae()
    fitted = Fitted(
        model, dataset, Pixels(dataset), seed, {"prior": Prior()}, batch_size=batch_size
    )
    found = {}
    for name in names:
        metric = OURS[name](**FEW.get(name, {}))
        assert metric.lacks(fitted) == ""
        found[name] = metric.compute(fitted, "prior" if metric.per_sampler else "")
    return found


@pytest.fixture(scope="module")
def all_scores() -> dict[str, dict[str, float]]:
    return scores(list(OURS))


@pytest.mark.parametrize("name", OURS)
def test_a_metric_gives_its_quantities_within_their_range(
    name: str, all_scores: dict[str, dict[str, float]]
) -> None:
    cls, values = OURS[name], all_scores[name]
    assert cls.family in FAMILIES
    assert cls.description
    assert cls.source or cls.family == "reconstruction"
    assert list(values) == [quantity.name for quantity in cls.quantities]
    for quantity in cls.quantities:
        value = values[quantity.name]
        assert math.isfinite(value)
        assert quantity.low is None or value >= quantity.low
        assert quantity.high is None or value <= quantity.high


def test_metrics_cover_every_family() -> None:
    assert {cls.family for cls in OURS.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", OURS)
def test_a_metric_depends_neither_on_the_batch_size_nor_on_the_others(
    name: str, all_scores: dict[str, dict[str, float]]
) -> None:
    assert scores([name], batch_size=7)[name] == pytest.approx(all_scores[name], rel=1e-5, abs=1e-6)


def test_metrics_do_not_depend_on_their_order(all_scores: dict[str, dict[str, float]]) -> None:
    assert scores(list(reversed(OURS))) == all_scores


def test_the_seed_matters_where_there_is_chance(all_scores: dict[str, dict[str, float]]) -> None:
    again = scores(list(OURS), seed=1)
    changed = {name for name in OURS if again[name] != all_scores[name]}
    drawn = {"elbo", "nll", "fid", "kid", "smoothness", "midpoint_fid"}
    assert drawn <= changed
    assert not changed & {"mse", "psnr", "ssim", "mig", "linear_probe", "knn"}


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Fails where the weights, the mode or a global random state is another after than before."""

    def state() -> list[Any]:
        weights = [tensor.clone() for tensor in model.state_dict().values()]
        modes = torch.tensor([part.training for part in model.modules()])
        numbers = torch.as_tensor(np.random.get_state()[1].astype(np.int64))  # noqa: NPY002
        return [*weights, modes, torch.get_rng_state(), numbers]

    held, plain = state(), random.getstate()
    grad = torch.is_grad_enabled()
    yield
    assert all(torch.equal(a, b) for a, b in zip(held, state(), strict=True))
    assert random.getstate() == plain
    assert torch.is_grad_enabled() == grad
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", OURS)
def test_a_metric_changes_nothing(name: str) -> None:
    model, dataset = normed_vae()
    fitted = Fitted(model, dataset, Pixels(dataset), 0, {"prior": Prior()})
    metric = OURS[name](**FEW.get(name, {}))
    with unchanged(model):
        metric.compute(fitted, "prior" if metric.per_sampler else "")
        assert metric.estimator(fitted)
        metric.qualifier(fitted)


def test_metrics_say_what_is_lacking() -> None:
    bare = fitted_echo(noise_images(9, 1, 4, 4))
    reasons = {name: cls().lacks(bare) for name, cls in OURS.items()}
    no_labels, no_factors = "the dataset has no labels", "the dataset has no ground-truth factors"
    assert {name: why for name, why in reasons.items() if why} == {
        "clustering": no_labels,
        "linear_probe": no_labels,
        "knn": no_labels,
        "mig": no_factors,
        "factor_vae": no_factors,
        "elbo": "the model has no log_weights",
        "nll": "the model has no log_weights",
    }


def test_metrics_of_codes_are_not_applicable_to_conditional_models() -> None:
    class Told(Echo):
        conditional = True

    dataset = Everything()
    fitted = Fitted(Told(spec(dataset)), dataset, Pixels(dataset))
    told = {name for name, cls in OURS.items() if "reads the label" in cls().lacks(fitted)}
    assert told == {"clustering", "linear_probe", "knn", "mig", "factor_vae"}


def test_paths_within_a_label_stand_in_columns_of_their_own() -> None:
    class Told(Echo):
        conditional = True

    dataset = Everything()
    told = Fitted(Told(spec(dataset)), dataset, Pixels(dataset))
    free = Fitted(Echo(spec(dataset)), dataset, Pixels(dataset))
    smoothness, midpoints = OURS["smoothness"](), OURS["midpoint_fid"]()
    assert smoothness.qualifier(told) == "label"
    assert smoothness.qualifier(free) == ""
    assert midpoints.qualifier(told) == f"{midpoints.qualifier(free)}|label"


def test_metrics_of_features_are_not_applicable_where_the_extractor_is_not() -> None:
    class Picky(Pixels):
        def why_not(self) -> str:
            return "no such images"

    dataset = Held(noise_images(9, 1, 4, 4))
    fitted = Fitted(Echo(spec(dataset)), dataset, Picky(dataset))
    refused = {name for name, cls in OURS.items() if cls().lacks(fitted) == "no such images"}
    assert refused == {"fid", "kid", "midpoint_fid"}


@pytest.mark.parametrize("name", sorted(set(OURS) - {"elbo", "nll"}))
def test_a_model_of_nan_is_not_applicable(name: str) -> None:
    model, dataset = normed_vae()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    fitted = Fitted(model, dataset, Pixels(dataset), 0, {"prior": Prior()})
    metric = OURS[name](**FEW.get(name, {}))
    with pytest.raises(NotApplicable, match="not finite"):
        metric.compute(fitted, "prior" if metric.per_sampler else "")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("nll", {"samples": 0}),
        ("elbo", {"images": 0}),
        ("fid", {"samples": 1}),
        ("kid", {"subset_size": 1}),
        ("mig", {"bins": 1}),
        ("factor_vae", {"batch": 1}),
        ("smoothness", {"points": 2}),
        ("midpoint_fid", {"pairs": 1}),
        ("clustering", {"n_init": 0}),
        ("knn", {"neighbours": 0}),
        ("linear_probe", {"train": 0}),
    ],
)
def test_bad_parameters_are_refused(name: str, parameters: dict[str, int]) -> None:
    (key,) = parameters
    with pytest.raises(InputError, match=f"metric {name!r}: {key} must be"):
        OURS[name](**parameters)
