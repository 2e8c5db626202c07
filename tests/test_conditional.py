"""What a decoder is given beside the code: a label, or a part of the image."""

import pytest
import torch
from aebench.benchmark.metrics import Fitted, Metric, NotApplicable
from aebench.benchmark.metrics.interpolation import Smoothness
from aebench.benchmark.metrics.likelihood import NLL, BitsPerDim
from aebench.benchmark.report.pictures import interpolations, traversals
from aebench.models.conditional import quadrants
from aebench.models.samplers.prior import Prior
from aebench.models.vae import DiagonalNormal
from aebench.plugins import InputError
from small import batch, make
from standins import Held, Pixels, noise_images
from torch.distributions import Normal, kl_divergence


def test_cvae_reads_the_label_at_both_ends() -> None:
    model = make("cvae")
    x, y = batch()
    other = (y + 1) % 10
    assert not torch.equal(model.code(x, y), model.code(x, other))
    z = model.code(x, y)
    assert not torch.equal(model.decode(z, y), model.decode(z, other))


def test_quadrants_that_are_seen_grow() -> None:
    assert quadrants((1, 4, 4), 1)[0].int().tolist() == [[0] * 4] * 2 + [[1, 1, 0, 0]] * 2
    assert quadrants((1, 4, 4), 2)[0].int().tolist() == [[1, 1, 0, 0]] * 4
    assert quadrants((1, 4, 4), 3)[0].int().tolist() == [[1] * 4] * 2 + [[1, 1, 0, 0]] * 2
    assert quadrants((3, 5, 7), 1).sum() == 3 * 3 * 3


@pytest.mark.parametrize("observed", [1, 2, 3])
def test_seen_pixels_stay_and_hidden_ones_are_not_read(observed: int) -> None:
    model = make("structured_cvae", (3, 9, 8), observed=observed)
    x, _ = batch((3, 9, 8), 5)
    seen = quadrants((3, 9, 8), observed)
    z = torch.randn(5, 16)
    image = model.decode(z, model.condition(x))
    assert torch.equal(image[:, seen], x[:, seen])
    other = torch.where(seen, x, torch.rand_like(x))
    assert torch.equal(model.decode(z, model.condition(other)), image)
    # The other way round, what is seen changes what is made of the rest.
    other = torch.where(seen, torch.rand_like(x), x)
    changed = model.decode(z, model.condition(other))
    assert not torch.allclose(changed[:, ~seen], image[:, ~seen])


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_likelihood_is_of_hidden_pixels(likelihood: str) -> None:
    model = make("structured_cvae", likelihood=likelihood)
    x, _ = batch(n=4)
    raw = torch.randn(3, 4, 1, 8, 8)
    seen = quadrants((1, 8, 8), 1)
    whole = model.observation.log_prob(raw, x)
    of_seen = model.observation.log_prob(
        raw[..., seen][..., None, None, :], x[..., seen][..., None, None, :]
    )
    assert torch.allclose(model.log_likelihood(raw, x), whole - of_seen, rtol=1e-5)
    other = torch.where(seen, torch.randn_like(raw), raw)
    assert torch.equal(model.log_likelihood(other, x), model.log_likelihood(raw, x))


def test_codes_are_whitened_by_the_prior_of_what_is_seen() -> None:
    model = make("structured_cvae")
    x, _ = batch(n=5)
    prior, features = model.read(model.condition(x))
    mean, log_variance = model.encoder(x).chunk(2, dim=1)
    of_z = DiagonalNormal(mean, log_variance)
    expected = kl_divergence(
        Normal(mean, (0.5 * log_variance).exp()),
        Normal(prior.mean, (0.5 * prior.log_variance).exp()),
    )
    assert torch.allclose(model.kl(x), expected, rtol=1e-4, atol=1e-5)
    z = of_z.sample()
    whitened = (z - prior.mean) / (0.5 * prior.log_variance).exp()
    raw = model.decoder(torch.cat([z, features], dim=1))
    assert torch.allclose(model.raw(whitened, model.condition(x)), raw, atol=1e-5)
    # log q(z) - log p(z) does not depend on the coordinates.
    difference = of_z.log_prob(z) - prior.log_prob(z)
    same = model.posterior(x).log_prob(whitened) - model.log_prior(whitened)
    assert torch.allclose(difference, same, rtol=1e-4, atol=1e-4)


def test_mean_log_weight_is_the_elbo_of_what_is_hidden() -> None:
    model = make("structured_cvae", latent_dim=3)
    data = batch(n=4)
    torch.manual_seed(0)
    with torch.no_grad():
        weights = model.log_weights(data.x, None, 20_000).mean(0)
        draws = [model.losses(data)["loss"] for _ in range(500)]
    assert -weights.mean() == pytest.approx(float(torch.stack(draws).mean()), rel=2e-3)


def test_hybrid_adds_the_prediction_from_the_prior() -> None:
    data = batch(n=6)
    whole, half, none = (make("structured_cvae", alpha=alpha) for alpha in (1.0, 0.5, 0.0))
    found = []
    for model in (whole, half, none):
        torch.manual_seed(2)
        with torch.no_grad():
            found.append(model.losses(data))
    assert "prediction" not in found[0]
    prediction = found[1]["prediction"]
    assert torch.allclose(found[1]["loss"], 0.5 * found[0]["loss"] + 0.5 * prediction)
    assert torch.equal(found[2]["loss"], found[2]["prediction"])
    torch.manual_seed(2)
    torch.randn(6, 16)  # the posterior's
    with torch.no_grad():
        raw = none.raw(none.sample_prior(6), none.condition(data.x))
    assert torch.allclose(found[2]["prediction"], none.reconstruction_loss(raw, data.x))


def test_structured_cvae_needs_what_is_seen() -> None:
    with pytest.raises(InputError, match="quadrants"):
        make("structured_cvae").raw(torch.zeros(2, 16))


def test_metrics_of_a_model_that_is_given_quadrants() -> None:
    images = noise_images(60, 1, 8, 8)
    dataset = Held(images, torch.arange(60) % 10)
    model = make("structured_cvae", observed=3)
    fitted = Fitted(model, dataset, Pixels(dataset), samplers={"prior": Prior()})
    assert NLL().qualifier(fitted) == "bernoulli|3 quadrants"
    assert "a part of the image" in BitsPerDim().lacks(fitted)
    assert Smoothness().lacks(fitted) == "the decoder reads 3 quadrants of the image"
    with pytest.raises(NotApplicable):
        interpolations(fitted)
    assert traversals(fitted).ndim == 3
    # Samples keep three quadrants each of some training image.
    seen = model.seen[0]
    drawn = fitted.samples("prior", 30)[:, 0, seen]
    held = images[:, 0, seen]
    assert all((held == some).all(1).any() for some in drawn)
    assert len({bytes(some.numpy()) for some in drawn}) > 10


@pytest.mark.parametrize(
    ("observed", "shown"), [(1, "1 quadrant"), (2, "2 quadrants"), (3, "3 quadrants")]
)
def test_scores_of_images_that_show_pixels_stand_in_columns_of_their_own(
    observed: int, shown: str
) -> None:
    dataset = Held(noise_images(60, 1, 8, 8), torch.arange(60) % 10, held_out=1)
    told = [make("structured_cvae", observed=observed), make("cvae"), make("vae")]
    fits = [Fitted(model, dataset, Pixels(dataset), samplers={"prior": Prior()}) for model in told]
    for name in ("mse", "psnr", "ssim", "lpips", "denoising", "inpainting", "outlier_trap"):
        qualifiers = [Metric.choose(name)().qualifier(fitted) for fitted in fits]
        assert qualifiers == [shown, "", ""], name
    for name in ("fid", "kid", "reconstruction_fid"):
        qualifiers = [Metric.choose(name)().qualifier(fitted) for fitted in fits]
        assert qualifiers == [f"pixels|{shown}", "pixels", "pixels"], name
    # Its codes are of the image alone, and are compared with all others.
    knn = Metric.choose("knn")()
    assert knn.lacks(fits[0]) == knn.qualifier(fits[0]) == ""
    assert "reads the label" in knn.lacks(fits[1])
