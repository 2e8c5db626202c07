"""Properties of every model of the registry, and the known answers of each."""

import math

import pytest
import torch
from aebench.benchmark.train import Budget, TrainingFailed, train
from aebench.datasets import Dataset
from aebench.models import (
    Autoencoder,
    Backbone,
    Batch,
    ClosedForm,
    DataSpec,
    Sampler,
    model_from,
)
from aebench.models.observation import Bernoulli, Gaussian
from aebench.models.vae import DiagonalNormal
from aebench.plugins import InputError
from torch import Tensor

MODELS = sorted(Autoencoder.choices())
TRAINED = [n for n in MODELS if not issubclass(Autoencoder.choose(n), ClosedForm)]
SHAPES = [(1, 8, 8), (3, 13, 17), (1, 28, 28)]


def backbone(name: str = "mlp") -> Backbone:
    small = {"mlp": {"hidden": [32]}, "conv": {"width": 4}}
    cls = Backbone.choose(name)
    return cls(**cls.complete(small.get(name, {})))


def make(
    name: str, shape: tuple[int, int, int] = (1, 8, 8), net: str = "mlp", **hyperparameters: object
) -> Autoencoder:
    torch.manual_seed(0)
    return model_from(name, hyperparameters, DataSpec(shape, 10, 64), backbone(net))


def batch(shape: tuple[int, int, int] = (1, 8, 8), n: int = 64, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *shape, generator=generator)
    return Batch(x, torch.randint(10, (n,), generator=generator))


def ready(model: Autoencoder, data: Batch) -> Autoencoder:
    """The model with whatever it takes from data before its first step."""
    if isinstance(model, ClosedForm):
        model.fit(data.x, 0)
    else:
        model.initialise([data])
    return model


@pytest.fixture(scope="module")
def digits():
    return Dataset.make("digits", {"train": 600, "val": 100, "test": 200})


@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_range(name: str, shape: tuple[int, int, int], net: str) -> None:
    model = ready(make(name, shape, net), batch(shape)).eval()
    for n in (1, 3):
        x, y = batch(shape, n)
        code = model.code(x, y)
        assert code.shape[0] == n
        assert torch.equal(model.embed(x, y), code.flatten(1))
        assert torch.equal(model.code(x, y), code), "a code is not a random draw"
        image = model.reconstruct(x, y)
        assert image.shape == x.shape
        assert 0 <= image.min() <= image.max() <= 1
        if model.offers("sample_prior"):
            drawn = model.sample_prior(n)
            assert drawn.shape == code.shape
            image = model.decode(drawn, y)
            assert 0 <= image.min() <= image.max() <= 1
        if model.offers("log_weights"):
            weights = model.log_weights(x, y, 4)
            assert weights.shape == (4, n)
            assert weights.isfinite().all()


@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_every_parameter(name: str, net: str) -> None:
    data = batch()
    model = ready(make(name, net=net), data)
    reached: set[int] = set()
    for objective in model.objectives():
        gradients = torch.autograd.grad(
            objective.terms(data)["loss"], objective.parameters, allow_unused=True
        )
        for parameter, gradient in zip(objective.parameters, gradients):
            assert gradient is not None
            assert gradient.isfinite().all()
            if gradient.abs().sum() > 0:
                reached.add(id(parameter))
    missed = [n for n, p in model.named_parameters() if id(p) not in reached]
    assert not missed


@pytest.mark.parametrize("name", TRAINED)
def test_every_network_is_stepped_by_its_own_losses_alone(name: str) -> None:
    """After a step each parameter holds the gradient of the last loss that owns it, no other."""
    data = batch()
    model = ready(make(name), data).train()
    reference = ready(make(name), data).train()
    optimizers = model.configure_optimizers()
    model.optimizers = lambda use_pl_optimizer: optimizers  # type: ignore[method-assign]
    torch.manual_seed(7)
    model.training_step(data, 0)

    torch.manual_seed(7)
    expected: dict[int, Tensor] = {}
    for objective, optimizer in zip(reference.objectives(), reference.configure_optimizers()):
        for parameter in reference.parameters():
            parameter.grad = None
        objective.terms(data)["loss"].backward()
        owned = {id(p) for p in objective.parameters}
        for parameter in reference.parameters():
            if id(parameter) not in owned:
                parameter.grad = None
        expected |= {id(p): p.grad for p in objective.parameters if p.grad is not None}
        optimizer.step()
    for mine, theirs in zip(model.parameters(), reference.parameters()):
        assert torch.allclose(mine.grad, expected[id(theirs)], atol=1e-6)
        assert torch.allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("name", TRAINED)
def test_loss_falls_on_real_digits(name: str, digits) -> None:
    model = make(name)
    trained = train(model, digits, Budget(epochs=8, batch_size=20), ("falls", name))
    key = f"val/{model.selection}"
    assert trained.history[trained.best_epoch - 1][key] < trained.history[0][key]
    assert trained.history[trained.best_epoch - 1][key] == min(h[key] for h in trained.history)
    assert trained.steps == 8 * 30


@pytest.mark.parametrize("name", MODELS)
def test_same_names_same_numbers_and_a_saved_model_is_the_same(name, digits, tmp_path) -> None:
    def fitted(seed: int) -> Autoencoder:
        model = make(name)
        train(model, digits, Budget(epochs=2, batch_size=50), ("same", name, seed))
        return model

    first, second = fitted(0), fitted(0)
    for a, b in zip(first.state_dict().values(), second.state_dict().values()):
        assert torch.equal(a, b)
    if name in TRAINED:
        states = zip(first.state_dict().values(), fitted(1).state_dict().values())
        assert any(not torch.equal(a, b) for a, b in states)
    torch.save(first.state_dict(), tmp_path / "model.pt")
    again = make(name, latent_dim=first.latent_dim) if name == "pca" else make(name)
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    x, y = batch()
    assert torch.equal(again.eval().reconstruct(x, y), first.reconstruct(x, y))


@pytest.mark.parametrize("name", MODELS)
def test_training_and_evaluation_modes_agree(name: str) -> None:
    data = batch()
    model = ready(make(name, net="conv"), data)
    assert torch.equal(
        model.train().reconstruct(data.x, data.y), model.eval().reconstruct(data.x, data.y)
    )


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("vae", {"latent_dim": 0}),
        ("vae", {"likelihood": "gaussian", "sigma": 0.0}),
        ("beta_vae", {"beta": -1.0}),
        ("dae", {"level": 2.0}),
        ("kmeans", {"clusters": 1000}),
        ("pca", {"latent_dim": 65}),
        ("vq_vae", {"decay": 1.5}),
        ("aae", {"discriminator": [0]}),
        ("vae", {"beta": 1.0}),
    ],
)
def test_refuses_what_makes_no_sense(name: str, hyperparameters: dict) -> None:
    with pytest.raises(InputError) as error:
        make(name, **hyperparameters)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", MODELS)
def test_every_models_own_sampler_serves_it(name: str) -> None:
    model = ready(make(name), batch())
    sampler = Sampler.make(model.sampler)
    assert sampler.why_not(model) == ""
    x, y = batch()
    with torch.no_grad():
        codes = model.code(x, y)
        sampler.fit(model, codes, 0)
        torch.manual_seed(0)
        drawn = sampler.sample(model, 5)
        torch.manual_seed(0)
        again = sampler.sample(model, 5)
    assert drawn.shape == (5, *codes.shape[1:])
    assert drawn.dtype == codes.dtype
    assert torch.equal(drawn, again)


def test_cvae_needs_labels() -> None:
    with pytest.raises(InputError, match="labels"):
        model_from("cvae", {}, DataSpec((1, 8, 8)), backbone())


# Known answers.


def test_bernoulli_and_gaussian_match_torch_distributions() -> None:
    raw, x = torch.randn(5, 3, 4, 4), torch.rand(5, 3, 4, 4)
    expected = torch.distributions.Normal(raw.sigmoid(), 0.3).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(Gaussian(0.3).log_prob(raw, x), expected, rtol=1e-5)
    binary = x.round()
    expected = torch.distributions.Bernoulli(logits=raw).log_prob(binary).sum((1, 2, 3))
    assert torch.allclose(Bernoulli().log_prob(raw, binary), expected, rtol=1e-5)


def test_diagonal_normal_matches_torch_distributions() -> None:
    mean, log_variance, z = torch.randn(3, 6, 4)
    ours = DiagonalNormal(mean, log_variance)
    theirs = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros(4), torch.ones(4))
    assert torch.allclose(ours.log_prob(z), theirs.log_prob(z).sum(-1), rtol=1e-5, atol=1e-5)
    kl = torch.distributions.kl_divergence(theirs, standard)
    assert torch.allclose(ours.kl_to_standard(), kl, rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    drawn = ours.sample(200_000)
    assert torch.allclose(drawn.mean(0), mean, atol=0.03)
    assert torch.allclose(drawn.std(0), (0.5 * log_variance).exp(), rtol=0.02)


def test_pca_leaves_the_discarded_variance(digits) -> None:
    model = make("pca", latent_dim=10)
    x = digits.split("train").images().float() / 255
    model.fit(x, 0)
    flat = x.flatten(1).double()
    variances = torch.linalg.eigvalsh(torch.cov(flat.T, correction=0))
    linear = model.raw(model.code(x)).flatten(1).double()
    error = (linear - flat).square().sum(1).mean()
    assert error == pytest.approx(float(variances[:-10].sum()), rel=1e-4)


def test_kmeans_error_is_its_inertia(digits) -> None:
    from sklearn.cluster import KMeans

    model = make("kmeans")
    x = digits.split("train").images().float() / 255
    model.fit(x, 0)
    inertia = KMeans(10, n_init=10, random_state=0).fit(x.flatten(1).numpy()).inertia_
    assert (model.reconstruct(x) - x).square().sum() == pytest.approx(inertia, rel=1e-4)
    assert torch.equal(model.code(x).sum(1), torch.ones(len(x)))
    assert model.shares.sum() == pytest.approx(1)


def test_linear_autoencoder_reaches_pca() -> None:
    digits = Dataset.make("digits")
    x = digits.split("test").images().float() / 255
    data = DataSpec(digits.shape, 10, len(digits.split("train")))
    pca = model_from("pca", {"latent_dim": 10}, data, None)
    train(pca, digits, Budget(), ("linear",))
    torch.manual_seed(0)
    linear = model_from("ae", {"latent_dim": 10}, data, backbone("linear"))
    train(linear, digits, Budget(epochs=300, batch_size=100, lr=3e-3), ("linear",))
    with torch.no_grad():
        errors = [float((m.reconstruct(x) - x).square().mean()) for m in (linear, pca)]
    assert errors[0] == pytest.approx(errors[1], rel=0.01)


def test_dae_without_corruption_is_ae_and_corrupts_as_told() -> None:
    data = batch()
    clean, noisy = make("ae"), make("dae", level=0.0)
    assert clean.losses(data)["loss"] == noisy.losses(data)["loss"]
    x = torch.full((200, 1, 8, 8), 0.5)
    assert (make("dae").corrupt(x) == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    salted = make("dae", corruption="salt_and_pepper", level=0.4).corrupt(x)
    assert (salted == 0).float().mean() == pytest.approx(0.2, abs=0.02)
    assert (salted == 1).float().mean() == pytest.approx(0.2, abs=0.02)
    assert make("dae", corruption="gaussian", level=0.3).corrupt(x).std() == pytest.approx(
        0.3, abs=0.01
    )


def test_beta_weighs_the_kl_alone() -> None:
    data = batch()
    found = {}
    for beta in (0.0, 1.0, 4.0):
        model = make("beta_vae", beta=beta)
        torch.manual_seed(3)
        with torch.no_grad():
            found[beta] = model.losses(data)
    model = make("vae")
    torch.manual_seed(3)
    with torch.no_grad():
        plain = model.losses(data)
    assert found[0.0]["loss"] == found[0.0]["reconstruction"]
    difference = found[4.0]["loss"] - found[1.0]["loss"]
    assert float(difference) == pytest.approx(3 * float(found[1.0]["kl"]), rel=1e-4)
    assert plain == found[1.0]


def test_mean_log_weight_is_the_elbo() -> None:
    data = batch(n=4)
    model = make("vae", latent_dim=3)
    torch.manual_seed(0)
    with torch.no_grad():
        weights = model.log_weights(data.x, None, 20_000).mean(0)
        draws = [model.losses(data)["loss"] for _ in range(500)]
    assert -weights.mean() == pytest.approx(float(torch.stack(draws).mean()), rel=2e-3)


def test_aae_losses_stay_in_their_own_networks() -> None:
    data = batch()
    model = make("aae").train()
    model.discriminator_losses(data)["loss"].backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is None for p in model.decoder.parameters())
    assert all(p.grad is not None for p in model.discriminator.parameters())

    # The encoder's loss goes through the discriminator, and still does not step it.
    optimizers = model.configure_optimizers()
    for silent in optimizers[:2]:
        for group in silent.param_groups:
            group["lr"] = 0.0
    model.optimizers = lambda use_pl_optimizer: optimizers  # type: ignore[method-assign]
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.training_step(data, 0)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.startswith("encoder.")}


def test_cvae_reads_the_label_at_both_ends() -> None:
    model = make("cvae")
    x, y = batch()
    other = (y + 1) % 10
    assert not torch.equal(model.code(x, y), model.code(x, other))
    z = model.code(x, y)
    assert not torch.equal(model.decode(z, y), model.decode(z, other))


def test_vq_vae_losses_do_not_depend_on_the_batch_size() -> None:
    data = batch(n=8)
    model = ready(make("vq_vae", decay=None), data).eval()
    double = Batch(torch.cat([data.x, data.x]))
    with torch.no_grad():
        single, doubled = model.losses(data), model.losses(double)
    for name, term in single.items():
        assert float(doubled[name]) == pytest.approx(float(term), rel=1e-5)


def test_vq_vae_quantises_to_the_nearest_vector_and_passes_the_gradient() -> None:
    model = make("vq_vae", codes=7, embedding_dim=3)
    z = torch.randn(2, 3, 4, 5)
    distances = torch.cdist(z.movedim(1, -1).reshape(-1, 3), model.codebook)
    assert torch.equal(model.nearest(z).flatten(), distances.argmin(1))
    quantised = model.vectors(model.nearest(z))
    assert torch.equal(model.nearest(quantised), model.nearest(z))
    data = batch(n=8)
    grown = torch.autograd.grad(
        model.losses(data)["reconstruction"], list(model.encoder.parameters())
    )
    assert all(gradient.abs().sum() > 0 for gradient in grown)


def test_vq_vae_codebook_follows_the_averages_of_its_vectors() -> None:
    model = make("vq_vae", codes=2, embedding_dim=1, decay=0.0)
    model.codebook.copy_(torch.tensor([[-1.0], [1.0]]))
    z = torch.tensor([-3.0, -1.0, 2.0, 4.0]).view(4, 1, 1, 1)
    model.follow(z, model.nearest(z))
    assert torch.allclose(model.codebook, torch.tensor([[-2.0], [3.0]]))


def test_a_loss_that_is_not_finite_stops_the_training(digits) -> None:
    class Diverging(Autoencoder.choose("ae")):  # type: ignore[misc]
        def losses(self, batch: Batch) -> dict[str, Tensor]:
            return {"loss": super().losses(batch)["loss"] * math.nan}

    model = Diverging(DataSpec(digits.shape, 10, 600), backbone())
    with pytest.raises(TrainingFailed, match="loss became nan in epoch 1"):
        train(model, digits, Budget(epochs=3, batch_size=50), ("nan",))


def test_validation_leaves_the_training_stream_alone(digits) -> None:
    """The weights do not depend on whether or how often the validation draws."""
    states = []
    for draws in (0, 5):

        class Drawing(Autoencoder.choose("vae")):  # type: ignore[misc]
            extra = draws

            def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
                torch.rand(self.extra)
                return self.terms(batch)

        torch.manual_seed(0)
        model = Drawing(DataSpec(digits.shape, 10, 600), backbone())
        train(model, digits, Budget(epochs=1, batch_size=50), ("stream",))
        states.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values()))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_pythae_conv_has_the_originals_sizes(shape: tuple[int, int, int]) -> None:
    net = backbone("pythae_conv")
    encoder, decoder = net.encoder(shape, 16), net.decoder(16, shape)
    x = torch.rand(2, *shape)
    assert decoder(encoder(x)).shape == x.shape
    # Counted on the original classes of Pythae 0.1.2 with latent_dim 16.
    counts = {
        28: (11_034_256, 6_181_377),
        32: (11_087_504, 11_614_467),
        64: (11_284_112, 18_329_603),
    }
    found = tuple(sum(p.numel() for p in part.parameters()) for part in (encoder, decoder))
    assert found == counts[shape[1]]


def test_conv_refuses_images_out_of_its_range() -> None:
    with pytest.raises(InputError, match="8 to 256"):
        backbone("conv").encoder((1, 4, 4), 8)
