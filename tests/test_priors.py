"""Learned priors, against torch.distributions, grids of codes and known mixtures."""

import math

import pytest
import torch
from aebench.benchmark.metrics.likelihood import aggregate_log_prob
from aebench.models import Autoencoder, Batch, DataSpec
from aebench.models.priors import CODES_AT_ONCE, Mixture
from aebench.models.vae import DiagonalNormal, standard_normal_log_prob
from aebench.plugins import InputError
from test_models import backbone, batch, make
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal
from torch.distributions import Normal as TorchNormal

TINY = (1, 2, 3)
NAMES = ["mog_vae", "vampprior_vae", "hierarchical_vampprior_vae"]


def scattered(name: str, dimensions: int = 2, components: int = 5, **more: object) -> Autoencoder:
    """A model whose prior's components lie apart and differ in size; codes have 2 dimensions."""
    latent_dim = dimensions // 2 if name == "hierarchical_vampprior_vae" else dimensions
    if name == "hierarchical_vampprior_vae":
        more["hidden"] = 8
    model = make(name, TINY, "linear", latent_dim=latent_dim, components=components, **more).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        if name == "mog_vae":
            model.means.normal_(0, 2, generator=generator)
            model.log_variances.uniform_(-3, 1, generator=generator)
            if model.logits is not None:
                model.logits.normal_(generator=generator)
        else:
            model.pseudo_inputs.uniform_(0, 1, generator=generator)
            model.encoder[1].weight.normal_(0, 2, generator=generator)
            model.encoder[1].weight[latent_dim:].mul_(0.2)
            model.encoder[1].bias[latent_dim:].fill_(-1.0)
    return model


def grid(reach: float = 16.0, points: int = 320) -> tuple[Tensor, float]:
    """Codes at the centres of a square's cells, (points², 2), and the area of a cell."""
    size = 2 * reach / points
    axis = -reach + size * (torch.arange(points) + 0.5)
    return torch.cartesian_prod(axis, axis), size**2


def normal(mean: Tensor, log_variance: Tensor) -> Independent:
    return Independent(TorchNormal(mean, log_variance.exp().sqrt()), 1)


def pieces(model: Autoencoder, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log q(z₂|x), log q(z₁|x,z₂), log p(z₂) and log p(z₁|z₂), network by network."""
    z2, z1 = z.chunk(2, -1)
    q2 = normal(*model.encoder(x).chunk(2, -1)).log_prob(z2)
    both = torch.cat([model.image_features(x), model.code_features(z2)], -1)
    q1 = normal(*model.join(both).chunk(2, -1)).log_prob(z1)
    components = normal(*model.encoder(model.pseudo_inputs).chunk(2, -1))
    number = len(model.pseudo_inputs)
    p2 = MixtureSameFamily(Categorical(torch.ones(number)), components).log_prob(z2)
    p1 = normal(*model.conditional_prior(z2).chunk(2, -1)).log_prob(z1)
    return q2, q1, p2, p1


# The mixture.


def test_mixture_matches_torch_distributions_in_every_shape() -> None:
    mean, log_variance = torch.randn(2, 6, 3)
    logits = torch.randn(6)
    for given in (None, logits.log_softmax(0)):
        ours = Mixture(DiagonalNormal(mean, log_variance), given)
        mixing = Categorical(logits=torch.zeros(6) if given is None else logits)
        theirs = MixtureSameFamily(mixing, normal(mean, log_variance))
        for shape in ((3,), (1, 3), (2, 5, 3), (CODES_AT_ONCE + 1, 3)):
            z = 3 * torch.randn(shape)
            assert ours.log_prob(z).shape == shape[:-1]
            assert torch.allclose(ours.log_prob(z), theirs.log_prob(z), rtol=1e-5, atol=1e-5)
        assert ours.log_prob(torch.full((1, 3), 1e4)).isfinite()
        assert ours.log_prob(torch.empty(0, 3)).shape == (0,)


def test_mixture_draws_components_by_their_proportions_with_their_own_variances() -> None:
    mean = torch.tensor([[-30.0, 0.0], [0.0, 0.0], [30.0, 0.0]])
    # exp of half the raw log-variance; a squashed one would be far from it.
    log_variance = torch.tensor([[-4.0, -4.0], [0.0, 2.0], [2.0, -4.0]])
    proportions = torch.tensor([0.1, 0.3, 0.6])
    torch.manual_seed(0)
    for given in (None, proportions.log()):
        drawn = Mixture(DiagonalNormal(mean, log_variance), given).sample(60_000)
        k = torch.cdist(drawn, mean).argmin(1)
        shares = torch.bincount(k, minlength=3) / len(drawn)
        expected = torch.full((3,), 1 / 3) if given is None else proportions
        assert torch.allclose(shares, expected, atol=0.01)
        assert (k[:-1] != k[1:]).any(), "components are not taken in turn"
        independent = (k[:-1] == k[1:]).float().mean()
        assert independent == pytest.approx(float(expected.square().sum()), abs=0.01)
        for j in range(3):
            spread = drawn[k == j].std(0)
            assert torch.allclose(spread, (0.5 * log_variance[j]).exp(), rtol=0.05)


# Every learned prior.


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [*((name, {}) for name in NAMES), ("mog_vae", {"mixing": "learned"})],
)
@torch.no_grad()
def test_density_integrates_to_one_and_draws_follow_it(name: str, hyperparameters: dict) -> None:
    model = scattered(name, **hyperparameters)
    codes, area = grid()
    mass = model.log_prior(codes).exp() * area
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    torch.manual_seed(0)
    drawn = model.sample_prior(100_000)
    assert drawn.shape == (100_000, 2)
    # Shares of draws in the cells of a coarse grid against the mass there.
    edges = torch.linspace(-16, 16, 33)
    expected, found = torch.zeros(34, 34), torch.zeros(34, 34)
    for at, of, weight in ((codes, expected, mass), (drawn, found, torch.full((100_000,), 1e-5))):
        cell = torch.bucketize(at.contiguous(), edges)
        of.index_put_((cell[:, 0], cell[:, 1]), weight, accumulate=True)
    assert (expected > 0.002).sum() > 10, "spread over cells"
    assert 0.5 * (found - expected).abs().sum() < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_offers_what_has_a_density_and_no_closed_form_kl(name: str) -> None:
    model = make(name)
    for method in ("log_weights", "log_prior", "posterior", "sample_prior"):
        assert model.offers(method)
    assert not model.offers("kl")
    assert model.sampler == "prior"


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_reconstruction_and_the_sampled_kl(name: str) -> None:
    data = batch(n=6)
    model = make(name, components=7).eval()
    torch.manual_seed(5)
    terms = model.losses(data)
    torch.manual_seed(5)
    posterior = model.posterior(data.x)
    z = posterior.sample()
    kl = (posterior.log_prob(z) - model.log_prior(z)).mean()
    reconstruction = -model.observation.log_prob(model.raw(z), data.x).mean()
    assert torch.allclose(terms["reconstruction"], reconstruction)
    assert torch.allclose(terms["loss"], reconstruction + kl)
    found = sum(term for name, term in terms.items() if name.startswith("kl"))
    assert torch.allclose(found, kl, rtol=1e-4)
    torch.manual_seed(5)
    assert torch.allclose(-model.log_weights(data.x, None, 1).mean(), terms["loss"])


@pytest.mark.parametrize("name", NAMES)
def test_the_kl_warms_up_over_its_share_of_the_training(name: str) -> None:
    data = batch(n=6)
    model = make(name, components=7, warmup=0.2)
    model.steps = 100
    for done, beta in ((0, 0.0), (5, 0.25), (20, 1.0), (70, 1.0)):
        model.steps_done = done
        terms = model.train().losses(data)
        kl = sum(term for name, term in terms.items() if name.startswith("kl"))
        assert torch.allclose(terms["loss"], terms["reconstruction"] + beta * kl)
        assert model.eval().beta == 1
    model.steps_done = 0
    assert model.train().beta == 0
    model = make(name, warmup=0.0).train()
    model.steps = 100
    assert model.beta == 1


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_log_weights_average_to_the_likelihood(name: str) -> None:
    """E over q of the weights is ∫ p(x|z) p(z) dz, summed here over a grid of the codes."""
    model = scattered(name, likelihood="gaussian", sigma=1.0)
    # A posterior as wide as the prior, so that few samples are enough.
    model.encoder[1].weight.mul_(0.2)
    model.encoder[1].bias[model.latent_dim :].fill_(1.0)
    x = batch(TINY, 2).x
    codes, area = grid()
    joint = model.log_prior(codes)[:, None] + torch.cat(
        [model.observation.log_prob(model.raw(some)[:, None], x) for some in codes.split(5000)]
    )
    expected = joint.double().logsumexp(0) + math.log(area)
    torch.manual_seed(0)
    weights = model.log_weights(x, None, 20_000).double()
    assert torch.allclose(weights.logsumexp(0) - math.log(20_000), expected, atol=0.03)


@pytest.mark.parametrize(
    ("name", "hyperparameters", "parameter"),
    [
        ("mog_vae", {"components": 0}, "components"),
        ("vampprior_vae", {"components": 0}, "components"),
        ("vampprior_vae", {"warmup": 1.5}, "warmup"),
        ("hierarchical_vampprior_vae", {"warmup": -0.1}, "warmup"),
        ("hierarchical_vampprior_vae", {"hidden": 0}, "hidden"),
    ],
)
def test_refuses_in_one_line_that_names_model_and_parameter(name, hyperparameters, parameter):
    with pytest.raises(InputError, match=f"^model '{name}': {parameter} must .*, not [^\n]*$"):
        make(name, **hyperparameters)


# The mixture of Gaussians.


@torch.no_grad()
def test_mog_of_one_standard_component_is_the_vae() -> None:
    data = batch(n=6)
    mog, vae = make("mog_vae", components=1), make("vae")
    mog.load_state_dict(vae.state_dict(), strict=False)
    mog.means.zero_()
    z = torch.randn(9, mog.latent_dim)
    assert torch.allclose(mog.log_prior(z), standard_normal_log_prob(z), atol=1e-5)
    torch.manual_seed(0)
    kl = torch.stack([mog.losses(data)["kl"] for _ in range(3000)]).mean()
    assert kl == pytest.approx(float(vae.kl(data.x).sum(1).mean()), rel=0.02)


@torch.no_grad()
def test_mog_starts_near_the_standard_normal() -> None:
    model = make("mog_vae")
    assert len(model.means) == 500
    assert model.means.std() == pytest.approx(0.05, rel=0.05)
    z = torch.randn(100, model.latent_dim)
    assert torch.allclose(model.log_prior(z), standard_normal_log_prob(z), atol=0.5)


def test_mog_keeps_its_variances_in_bounds_and_lets_them_return() -> None:
    data = batch(n=6)
    model = make("mog_vae", components=2).train()
    with torch.no_grad():
        model.log_variances.copy_(torch.tensor([[-50.0], [50.0]]).expand(2, model.latent_dim))
    inside = model.prior().components.log_variance
    assert inside.min() == -6
    assert inside.max() == 2
    (gradient,) = torch.autograd.grad(model.losses(data)["loss"], [model.log_variances])
    assert torch.equal(model.log_variances, inside)
    assert (gradient[1] != 0).all()


@pytest.mark.parametrize("mixing", ["uniform", "learned"])
def test_mog_prior_learns_a_known_mixture(mixing: str) -> None:
    """Maximum likelihood reaches the known entropy, which one Gaussian is far from."""
    model = make("mog_vae", latent_dim=2, components=8, mixing=mixing)
    true = Mixture(
        DiagonalNormal(torch.tensor([[-3.0, 0.0], [3.0, 1.0]]), torch.tensor([[-2.0], [0.0]])),
        torch.tensor([0.25, 0.75]).log(),
    )
    true.components.log_variance = true.components.log_variance.expand(2, 2)
    torch.manual_seed(0)
    z = true.sample(4000)
    entropy = -float(true.log_prob(z).mean())
    with torch.no_grad():
        model.means.normal_(0, 2)
    chosen = [p for p in (model.means, model.log_variances, model.logits) if p is not None]
    optimizer = torch.optim.Adam(chosen, lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = -model.log_prior(z).mean()
        loss.backward()
        optimizer.step()
    single = MultivariateNormal(z.mean(0), torch.cov(z.T))
    assert -float(single.log_prob(z).mean()) > entropy + 0.2
    assert float(loss.detach()) == pytest.approx(entropy, abs=0.05)


# The VampPrior.


def test_vampprior_is_the_mean_of_the_posteriors_of_its_pseudo_inputs() -> None:
    model = scattered("vampprior_vae")
    z = torch.randn(20, 2)
    posterior = model.posterior(model.pseudo_inputs)
    expected = aggregate_log_prob([posterior], z)
    assert torch.allclose(model.log_prior(z).double(), expected, atol=1e-5)


@torch.no_grad()
def test_vampprior_of_the_images_own_posterior_costs_nothing() -> None:
    model = make("vampprior_vae", components=1).eval()
    data = Batch(model.pseudo_inputs.detach().clamp(0, 1).expand(5, -1, -1, -1))
    assert model.losses(data)["kl"] == pytest.approx(0, abs=1e-5)


def test_pseudo_inputs_start_as_told() -> None:
    data = batch(n=20)
    noise = make("vampprior_vae")
    assert noise.pseudo_inputs.shape == (500, 1, 8, 8)
    before = noise.pseudo_inputs.detach().clone()
    noise.initialise([data])
    assert torch.equal(noise.pseudo_inputs, before)
    assert before.mean() == pytest.approx(0.05, abs=1e-3)
    assert before.std() == pytest.approx(0.01, rel=0.05)

    for components in (10, 50):
        model = make("vampprior_vae", components=components, start="data")
        model.initialise([data])
        started = model.pseudo_inputs.detach()
        near = torch.cdist(started.flatten(1), data.x.flatten(1)).argmin(1)
        assert len(near.unique()) == min(components, 20)
        assert (started - data.x[near]).std() == pytest.approx(0.01, rel=0.1)
        assert len(started.unique(dim=0)) == components


def test_every_pseudo_input_is_trained_and_pixels_return_from_the_bounds() -> None:
    data = batch()
    model = make("vampprior_vae", components=6).train()
    with torch.no_grad():
        model.pseudo_inputs[:3] = -1.0 - torch.rand(3, 1, 8, 8)
        model.pseudo_inputs[3:] = 2.0 + torch.rand(3, 1, 8, 8)
    optimizers = model.configure_optimizers()
    model.step(data, optimizers)
    assert (model.pseudo_inputs.grad.flatten(1).abs().sum(1) > 0).all()
    inside = (model.pseudo_inputs > 0) & (model.pseudo_inputs < 1)
    assert inside.float().mean() > 0.2
    assert (model.pseudo_inputs - model.pseudo_inputs.clamp(0, 1)).abs().max() <= 1.01 * model.lr
    clipped = DiagonalNormal(*model.encoder(model.pseudo_inputs.clamp(0, 1)).chunk(2, 1))
    assert torch.allclose(model.prior().components.mean, clipped.mean)


@pytest.mark.parametrize("name", ["vampprior_vae", "hierarchical_vampprior_vae"])
def test_batch_normalisation_sees_the_images_alone(name: str) -> None:
    data = batch((1, 28, 28), 3)
    more = {"hidden": 8} if name == "hierarchical_vampprior_vae" else {}
    model = make(name, (1, 28, 28), "pythae_conv", components=2, **more).train()
    before = [b.clone() for b in model.encoder.buffers()]
    model.prior()
    assert all(torch.equal(b, saved) for b, saved in zip(model.encoder.buffers(), before))
    assert all(module.training for module in model.modules())
    optimizers = model.configure_optimizers()
    model.step(data, optimizers)  # the step's own update of the averages leaves backward whole
    assert any(not torch.equal(b, saved) for b, saved in zip(model.encoder.buffers(), before))
    mean = model.prior().components.mean
    assert torch.equal(model.eval().prior().components.mean, mean)
    assert torch.allclose(model.posterior(model.pseudo_inputs.clamp(0, 1)).mean[:, :16], mean)


# The two levels.


@torch.no_grad()
def test_two_levels_by_brute_force() -> None:
    data = batch(n=4)
    model = make("hierarchical_vampprior_vae", latent_dim=3, components=7)
    posterior = model.posterior(data.x)
    torch.manual_seed(0)
    z = posterior.sample(2)
    assert z.shape == (2, 4, 6)
    torch.manual_seed(0)
    weights = model.log_weights(data.x, None, 2)
    torch.manual_seed(0)
    terms = model.losses(data)
    for s in range(2):
        q2, q1, p2, p1 = pieces(model, data.x, z[s])
        assert torch.allclose(posterior.log_prob(z[s]), q2 + q1, atol=1e-4)
        assert torch.allclose(model.log_prior(z[s]), p2 + p1, atol=1e-4)
        log_likelihood = model.observation.log_prob(model.decoder(z[s]), data.x)
        assert torch.allclose(weights[s], log_likelihood + p2 + p1 - q2 - q1, atol=1e-3)
    torch.manual_seed(0)
    q2, q1, p2, p1 = pieces(model, data.x, posterior.sample())
    assert float(terms["kl_upper"]) == pytest.approx(float((q2 - p2).mean()), abs=1e-4)
    assert float(terms["kl_lower"]) == pytest.approx(float((q1 - p1).mean()), abs=1e-4)


@torch.no_grad()
def test_two_level_posterior_is_a_distribution_over_both_codes() -> None:
    model = scattered("hierarchical_vampprior_vae")
    model.image_features[0][1].weight.mul_(20)
    x = batch(TINY, 2).x
    posterior = model.posterior(x)
    codes, area = grid()
    density = posterior.log_prob(codes[:, None].expand(-1, 2, -1)).exp() * area
    assert torch.allclose(density.sum(0), torch.ones(2), atol=1e-3)
    torch.manual_seed(0)
    drawn = posterior.sample(100_000)
    moments = torch.einsum("nb,ni,nj->bij", density, codes, codes)
    assert torch.allclose(torch.einsum("sbi,sbj->bij", drawn, drawn) / 1e5, moments, atol=0.03)
    expected = aggregate_log_prob([posterior], codes[:10])
    assert torch.allclose(expected.exp(), density[:10].double().mean(1) / area)
    # The code is the mean of the upper level, and that of the lower one given it.
    z2 = model.encoder(x)[:, :1]
    both = torch.cat([model.image_features(x), model.code_features(z2)], -1)
    assert torch.allclose(model.code(x), torch.cat([z2, model.join(both)[:, :1]], 1))


def test_two_levels_read_what_they_should() -> None:
    model = make("hierarchical_vampprior_vae", latent_dim=3, components=7)
    x = batch(n=2).x
    posterior = model.posterior(x)
    z = posterior.sample()
    other_z2 = torch.cat([z[:, :3] + 1, z[:, 3:]], 1)
    other_z1 = torch.cat([z[:, :3], z[:, 3:] + 1], 1)
    assert not torch.allclose(model.raw(z), model.raw(other_z1), atol=1e-3)
    assert not torch.allclose(model.raw(z), model.raw(other_z2), atol=1e-3)
    lower = posterior.lower(z[:, :3]).mean
    assert not torch.allclose(lower, posterior.lower(z[:, :3] + 1).mean, atol=1e-3)
    assert not torch.allclose(lower, model.posterior(1 - x).lower(z[:, :3]).mean, atol=1e-3)
    assert not torch.allclose(
        model.lower_prior(z[:, :3]).mean, model.lower_prior(z[:, :3] + 1).mean, atol=1e-3
    )


def test_models_are_built_without_memory() -> None:
    for name in NAMES:
        cls = Autoencoder.choose(name)
        with torch.device("meta"):
            model = cls(DataSpec((3, 64, 64), 0, 1), backbone())
        assert all(p.is_meta for p in model.parameters())
