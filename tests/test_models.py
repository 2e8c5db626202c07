"""Properties of every model of the registry."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset
from aebench.models import Autoencoder, ClosedForm, DataSpec, Sampler, model_from
from aebench.plugins import InputError
from small import SMALL, backbone, batch, make, quick, ready
from torch import Tensor

MODELS = sorted(Autoencoder.choices())
TRAINED = [n for n in MODELS if not issubclass(Autoencoder.choose(n), ClosedForm)]
SHAPES = [(1, 8, 8), (3, 13, 17), (1, 28, 28)]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Dataset.make("digits", {"train": 600, "val": 100, "test": 200})


@pytest.mark.parametrize("name", MODELS)
def test_says_what_it_is(name: str) -> None:
    """A docstring with the objective in maths, a paper, and hyper-parameters with defaults."""
    cls = Autoencoder.choose(name)
    text = inspect.getdoc(cls)
    assert text
    assert ".. math::" in text
    assert re.search(r"\b(19|20)\d\d\b", cls.reference), "no year"
    first = text.splitlines()[0]
    assert len(first) <= 100
    assert first.endswith((".", ":"))
    own = vars(cls).get("__init__")
    for parameter in inspect.signature(own).parameters.values() if own else ():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty
            passed_on = parameter.name in ("latent_dim", "likelihood", "sigma")
            assert passed_on or f"    {parameter.name}:" in text, f"{parameter.name} is not told of"


@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_range(name: str, shape: tuple[int, int, int], net: str) -> None:
    model = ready(quick(name, shape, net), batch(shape)).eval()
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
            image = model.decode(drawn, model.condition(x, y))
            assert image.shape == x.shape
            assert 0 <= image.min() <= image.max() <= 1
        if model.offers("log_weights"):
            weights = model.log_weights(x, y, 4)
            assert weights.shape == (4, n)
            assert weights.isfinite().all()
        if model.offers("symbols"):
            symbols = model.symbols(x, y)
            assert len(symbols) == n
            assert symbols.dtype == torch.int64
            assert 0 <= symbols.min() <= symbols.max() < model.alphabet


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", TRAINED)
def test_every_term_is_a_finite_number_of_any_batch(name: str, n: int) -> None:
    model = ready(quick(name, (3, 13, 17)), batch((3, 13, 17)))
    data = batch((3, 13, 17), n)
    for mode in (True, False):
        terms = model.train(mode).terms(data)
        assert model.selection in terms
        for name, term in terms.items():
            assert term.ndim == 0, name
            assert term.isfinite(), name


@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_every_parameter(name: str, net: str) -> None:
    data = batch()
    model = ready(quick(name, net=net), data)
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
    missed = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in reached]
    assert not missed


@pytest.mark.parametrize("name", TRAINED)
def test_every_network_is_stepped_by_its_own_losses_alone(name: str) -> None:
    """After a step each parameter holds the gradient of the last loss that owns it, no other."""
    data = batch()
    torch.manual_seed(1)
    model = ready(quick(name), data).train()
    torch.manual_seed(1)
    reference = ready(quick(name), data).train()
    optimizers = model.configure_optimizers()
    torch.manual_seed(7)
    model.step(data, optimizers)

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
        if theirs.requires_grad:
            assert torch.allclose(mine.grad, expected[id(theirs)], atol=1e-6)
        assert torch.allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("name", TRAINED)
def test_loss_falls_on_real_digits(name: str, digits: Dataset) -> None:
    model = quick(name)
    trained = train(model, digits, Budget(epochs=6, batch_size=20), ("falls", name))
    key = f"val/{model.selection}"
    assert trained.history[trained.best_epoch - 1][key] < trained.history[0][key]
    assert trained.history[trained.best_epoch - 1][key] == min(h[key] for h in trained.history)
    assert trained.steps == 6 * 30
    # It is the images that are learnt: their squared error falls too.
    x = digits.split("test").images().float() / 255
    y = digits.split("test").labels
    with torch.no_grad():
        before, after = (
            (m.reconstruct(x, y) - x).square().mean() for m in (quick(name).eval(), model)
        )
    assert after < before


@pytest.mark.parametrize("name", MODELS)
def test_same_names_same_numbers_and_a_saved_model_is_the_same(
    name: str, digits: Dataset, tmp_path: Path
) -> None:
    def fitted(seed: int) -> Autoencoder:
        model = quick(name)
        train(model, digits, Budget(epochs=2, batch_size=50), ("same", name, seed))
        return model

    first, second = fitted(0), fitted(0)
    for a, b in zip(first.state_dict().values(), second.state_dict().values()):
        assert torch.equal(a, b)
    if name in TRAINED:
        states = zip(first.state_dict().values(), fitted(1).state_dict().values())
        assert any(not torch.equal(a, b) for a, b in states)
    torch.save(first.state_dict(), tmp_path / "model.pt")
    again = quick(name).eval()
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    x, y = batch()
    with torch.no_grad():
        assert torch.equal(again.reconstruct(x, y), first.reconstruct(x, y))
        for method, arguments in (("sample_prior", (5,)), ("log_weights", (x, y, 3))):
            if first.offers(method):
                found = []
                for model in (again, first):
                    torch.manual_seed(0)
                    found.append(getattr(model, method)(*arguments))
                assert torch.equal(*found), method


@pytest.mark.parametrize("name", MODELS)
def test_training_and_evaluation_modes_agree(name: str) -> None:
    data = batch()
    model = ready(quick(name, net="conv"), data)
    assert torch.equal(
        model.train().reconstruct(data.x, data.y), model.eval().reconstruct(data.x, data.y)
    )


@pytest.mark.parametrize("name", MODELS)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    data = batch(n=7)
    model = ready(quick(name), batch()).eval()
    with torch.no_grad():
        whole = model.code(*data)
        alone = torch.cat([model.code(x[None], y[None]) for x, y in zip(*data)])
    assert torch.allclose(whole, alone, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in MODELS if Autoencoder.choose(n).offers("kl")])
def test_kl_is_the_mean_of_its_samples(name: str) -> None:
    model = ready(quick(name), batch()).eval()
    x, y = batch(n=3)
    torch.manual_seed(0)
    with torch.no_grad():
        posterior = model.posterior(x, y)
        z = posterior.sample(40_000)
        mean = (posterior.log_prob(z) - model.log_prior(z)).mean(0)
        assert torch.allclose(mean, model.kl(x, y).sum(1), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_is_built_without_memory(name: str) -> None:
    """Grids build every model so once, to refuse what it refuses before anything is trained."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = quick(name)
    assert all(tensor.is_meta for tensor in model.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_schedules_are_at_their_end_outside_training(name: str) -> None:
    """What is validated does not depend on how far the training is."""
    data = batch()
    model = ready(quick(name), data).eval()
    model.steps = 10
    found = []
    for model.steps_done in (0, 10):
        torch.manual_seed(0)
        with torch.no_grad():
            found.append(model.losses(data)["loss"])
    assert torch.equal(*found)


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
def test_numbers_out_of_range_are_refused_in_a_line(name: str) -> None:
    """No hyper-parameter takes -1: a share, a weight, a width, a number of something."""
    cls = Autoencoder.choose(name)
    for key, parameter in cls.parameters_of().items():
        if parameter.annotation not in (int, float):
            continue
        with pytest.raises(InputError) as error:
            make(name, **{key: -1})
        assert key in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", MODELS)
def test_its_own_sampler_serves_it(name: str) -> None:
    model = ready(quick(name), batch())
    assert Sampler.make(model.sampler).why_not(model) == ""


@pytest.mark.parametrize("name", [n for n in MODELS if Autoencoder.choose(n).given == "label"])
def test_needs_labels(name: str) -> None:
    with pytest.raises(InputError, match="labels"):
        model_from(name, {}, DataSpec((1, 8, 8)), backbone())


def test_small_hyperparameters_are_of_models_that_exist() -> None:
    assert set(SMALL) <= set(MODELS)
