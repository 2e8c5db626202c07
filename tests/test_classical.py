"""Linear autoencoders and centroids: known answers, against scikit-learn where it has them."""

import numpy as np
import pytest
import torch
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset
from aebench.models import Autoencoder, ClosedForm, DataSpec, model_from
from aebench.models.classical import LinearAE, SoftKMeans
from scipy.linalg import subspace_angles
from small import batch, make
from torch import Tensor

SPECTRUM = torch.tensor([4.0, 3.0, 2.0, 0.5, 0.3, 0.2, 0.1, 0.1])


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Dataset.make("digits", {"train": 600, "val": 100, "test": 200})


def floats(dataset: Dataset, split: str) -> Tensor:
    return dataset.split(split).images().float() / 255  # type: ignore[arg-type]


def gaussian(n: int, seed: int) -> Tensor:
    """Images (n, 1, 2, 4) of a Gaussian with the variances SPECTRUM along random directions."""
    generator = torch.Generator().manual_seed(5)
    directions = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    noise = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return (3 + (noise * SPECTRUM.sqrt()) @ directions.T).unflatten(1, (1, 2, 4))


def fitted(name: str, x: Tensor, **hyperparameters: object) -> Autoencoder:
    model = model_from(name, hyperparameters, DataSpec(tuple(x.shape[1:]), 0, len(x)), None)  # type: ignore[arg-type]
    assert isinstance(model, ClosedForm)
    model.fit(x, 0)
    return model.eval()


def descended(x: Tensor, **hyperparameters: float) -> LinearAE:
    """A linear autoencoder of 3 dimensions after full-batch gradient steps on ``x``."""
    torch.manual_seed(0)
    model = LinearAE(DataSpec((1, 2, 4), 0, len(x)), latent_dim=3, **hyperparameters)
    data = batch()._replace(x=x)
    model.initialise([data])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500, 1e-5)
    for _ in range(500):
        optimizer.zero_grad()
        model.losses(data)["loss"].backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def error(model: Autoencoder, x: Tensor) -> float:
    """The squared error an image, of the raw means."""
    with torch.no_grad():
        return float((model.raw(model.code(x)) - x).flatten(1).square().sum(1).mean())


def test_pca_leaves_the_discarded_variance(digits: Dataset) -> None:
    x = floats(digits, "train")
    model = fitted("pca", x, latent_dim=10)
    variances = torch.linalg.eigvalsh(torch.cov(x.flatten(1).double().T, correction=0))
    assert error(model, x) == pytest.approx(float(variances[:-10].sum()), rel=1e-4)


def test_linear_ae_finds_the_principal_subspace() -> None:
    x, test = gaussian(4000, 0), gaussian(4000, 1)
    model, pca = descended(x), fitted("pca", x, latent_dim=3)
    assert error(model, test) == pytest.approx(error(pca, test), rel=1e-3)
    angles = subspace_angles(model.maps[1].weight.detach().numpy(), pca.directions.T.numpy())
    assert angles.max() < 1e-2


def test_linear_ae_with_weight_decay_finds_the_directions_and_shrinks_along_them() -> None:
    """Kunin et al. 2019: transposed maps, singular vectors, 1 - λ/s; below λ all is lost."""
    x = gaussian(4000, 0)
    decay = 2.5
    model = descended(x, weight_decay=decay)
    encoder, decoder = (m.weight.detach().double() for m in model.maps)
    assert torch.allclose(encoder, decoder.T, atol=1e-4)
    vectors, sizes, _ = torch.linalg.svd(decoder, full_matrices=False)
    variances, directions = torch.linalg.eigh(torch.cov(x.flatten(1).double().T, correction=0))
    top, along = variances.flip(0)[:3], directions.flip(1)[:, :3]
    expected = (1 - decay / top).clamp(min=0)
    assert expected[2] == 0
    assert torch.allclose(sizes.square(), expected, atol=1e-4)
    assert ((vectors * along).sum(0).abs()[:2] > 0.999).all()


def test_linear_ae_reaches_pca_on_digits() -> None:
    digits = Dataset.make("digits")
    data = DataSpec(digits.shape, 10, len(digits.split("train")))
    pca = fitted("pca", floats(digits, "train"), latent_dim=10)
    torch.manual_seed(0)
    model = model_from("linear_ae", {"latent_dim": 10}, data, None)
    budget = Budget(epochs=100, batch_size=100, lr=2e-2, milestones=(60, 80, 90))
    train(model, digits, budget, ("linear",))
    x = floats(digits, "test")
    assert error(model, x) == pytest.approx(error(pca, x), rel=1e-3)


def test_linear_ae_starts_from_the_mean() -> None:
    x = gaussian(100, 0)
    model = make("linear_ae", (1, 2, 4), latent_dim=3)
    assert isinstance(model, LinearAE)
    model.initialise([batch()._replace(x=part) for part in x.split(30)])
    assert torch.allclose(model.mean, x.mean(0), atol=1e-5)
    assert torch.allclose(model.raw(torch.zeros(1, 3)), x.mean(0), atol=1e-5)
    assert torch.allclose(model.code(x.mean(0)), model.maps[0].bias, atol=1e-5)


def test_kmeans_error_is_its_inertia(digits: Dataset) -> None:
    from sklearn.cluster import KMeans

    x = floats(digits, "train")
    model = fitted("kmeans", x)
    inertia = KMeans(10, n_init=10, random_state=0).fit(x.flatten(1).numpy()).inertia_
    assert error(model, x) * len(x) == pytest.approx(inertia, rel=1e-4)
    assert torch.equal(model.code(x).sum(1), torch.ones(len(x)))
    assert torch.allclose(model.shares, model.code(x).mean(0))
    torch.manual_seed(0)
    assert torch.allclose(model.sample_prior(20_000).mean(0), model.shares, atol=0.02)


def test_stiff_soft_kmeans_is_kmeans(digits: Dataset) -> None:
    x = floats(digits, "train")
    soft, hard = fitted("soft_kmeans", x, stiffness=1e4), fitted("kmeans", x)
    assert torch.allclose(soft.centroids, hard.centroids, atol=1e-4)
    assert torch.allclose(soft.shares, hard.shares, atol=1e-4)
    assert torch.equal(soft.code(x).round(), hard.code(x))


def test_soft_kmeans_is_scikit_learns_mixture() -> None:
    """Of one pixel, one covariance for all components is one variance for all."""
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(0)
    x = rng.normal(np.array([0.2, 0.5, 0.9])[rng.integers(3, size=600)], 0.1)[:, None]
    images = torch.tensor(x).float().reshape(-1, 1, 1, 1)
    model = fitted("soft_kmeans", images, clusters=3, tolerance=1e-12, max_iter=5000)
    assert isinstance(model, SoftKMeans)
    start = fitted("kmeans", images, clusters=3).centroids.numpy()
    theirs = GaussianMixture(
        3, covariance_type="tied", means_init=start, tol=1e-12, max_iter=5000, reg_covar=0
    ).fit(x)
    assert np.allclose(model.centroids, theirs.means_, atol=1e-3)
    assert np.allclose(model.shares, theirs.weights_, atol=2e-3)
    assert float(model.variance) == pytest.approx(theirs.covariances_.item(), rel=1e-3)
    assert np.allclose(model.code(images), theirs.predict_proba(x), atol=5e-3)
    exact = model.log_weights(images, None, 2)
    assert torch.equal(exact[0], exact[1])
    assert np.allclose(exact[0], theirs.score_samples(x), atol=5e-3)


@pytest.mark.parametrize("stiffness", [None, 3.0])
def test_soft_kmeans_climbs(digits: Dataset, stiffness: float | None) -> None:
    x = floats(digits, "train")
    found = []
    for steps in (1, 2, 3, 5, 10, 40):
        model = fitted("soft_kmeans", x, stiffness=stiffness, max_iter=steps, n_init=1)
        found.append(float(model.log_weights(x, None, 1).double().mean()))
    assert np.all(np.diff(found) > -1e-4)
    assert found[-1] > found[0] + 0.05


def test_soft_kmeans_finds_the_means_of_a_mixture() -> None:
    rng = np.random.default_rng(1)
    means = rng.uniform(0, 1, (4, 16))
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    drawn = rng.choice(4, 4000, p=shares)
    x = torch.tensor(rng.normal(means[drawn], 0.25)).float().reshape(-1, 1, 4, 4)
    model = fitted("soft_kmeans", x, clusters=4)
    distances = torch.cdist(torch.tensor(means).float(), model.centroids)
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2, 3]
    assert distances.amin(1).max() < 0.1
    assert torch.allclose(
        model.shares[distances.argmin(1)].double(), torch.tensor(shares), atol=0.03
    )
    assert float(model.variance) == pytest.approx(0.0625, rel=0.02)
    assert ((model.code(x) > 0.01) & (model.code(x) < 0.99)).any(), "it is soft"
    # What it draws is a cluster, as often as it weighs.
    torch.manual_seed(0)
    prior = model.sample_prior(20_000)
    assert torch.equal(prior.amax(1), torch.ones(20_000))
    assert torch.allclose(prior.mean(0), model.shares, atol=0.02)


def test_soft_kmeans_survives_centroids_on_the_images() -> None:
    x = batch(n=10).x
    model = fitted("soft_kmeans", x, clusters=10)
    assert model.log_weights(x, None, 1).isfinite().all()
    assert torch.allclose(model.reconstruct(x), x, atol=1e-4)


def test_soft_kmeans_names_its_observation_model() -> None:
    assert make("soft_kmeans", stiffness=2.0).observation.label == "gaussian(sigma=0.5)"
    assert make("soft_kmeans").observation.label == "gaussian(sigma=fitted)"
