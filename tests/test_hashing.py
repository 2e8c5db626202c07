"""Binary codes: bits that are balanced, noise in training alone, and images found by them."""

import math

import pytest
import torch
from aebench.benchmark.metrics.retrieval import average_precision
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset, as_float
from aebench.models import Autoencoder, Batch, DataSpec, model_from
from aebench.models.sparse import SigmoidAE
from aebench.plugins import InputError
from small import backbone, batch, make, ready
from torch import Tensor


def test_codes_are_bits() -> None:
    data = batch()
    model = ready(make("hashing_ae"), data).train()
    code = model.code(data.x)
    assert code.shape == (64, 128)
    assert set(code.unique().tolist()) == {0.0, 1.0}
    symbols = model.symbols(data.x)
    assert symbols.dtype == torch.int64
    assert torch.equal(symbols.float(), code)
    assert torch.equal(code, (model.activation(data.x) > 0).float())
    assert model.alphabet == 2


def test_decodes_the_nearest_bits() -> None:
    model = make("hashing_ae", latent_dim=4).eval()
    soft, hard = torch.tensor([[0.2, 0.7, -3.0, 9.0]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    assert torch.equal(model.decode(soft), model.decode(hard))
    assert not torch.equal(model.decode(soft), model.decode(1 - hard))


@pytest.mark.parametrize(("noise", "deviation"), [(3.0, 3.0), (0.0, 1.0)])
def test_starts_balanced_and_as_large_as_the_noise(noise: float, deviation: float) -> None:
    model = make("hashing_ae", noise=noise)
    data = [batch(n=50, seed=1), batch(n=51, seed=2)]
    model.initialise(data)
    with torch.no_grad():
        a = torch.cat([model.activation(b.x) for b in data])
    share = (a > 0).float().mean(0)
    assert torch.allclose(share, torch.full_like(share, 0.5), atol=0.006)
    assert a.abs().min() > 0, "no image lies on the threshold"
    assert torch.allclose(a.std(0, correction=0), torch.full((128,), deviation), rtol=1e-3)


def test_noise_is_in_training_alone() -> None:
    data = batch()
    model = ready(make("hashing_ae"), data)
    with torch.no_grad():
        first, second = (model.train().losses(data)["loss"] for _ in range(2))
        assert first != second
        first, second = (model.eval().losses(data) for _ in range(2))
        assert first == second
        raw = model.raw(model.code(data.x))
        assert first["reconstruction"] == model.reconstruction_loss(raw, data.x)


def test_training_adds_gaussian_noise_to_what_the_sigmoid_reads() -> None:
    model = make("hashing_ae", latent_dim=50, noise=4.0).train()
    read: list[Tensor] = []
    model.activation = lambda x: torch.full((len(x), 50), 1.5)  # type: ignore[method-assign]
    model.decoder.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    model.losses(batch(n=200))
    noisy = read[0].double().clamp(1e-7, 1 - 1e-7).logit()
    assert noisy.median() == pytest.approx(1.5, abs=0.15)
    quartiles = noisy.quantile(torch.tensor([0.25, 0.75], dtype=torch.double))
    assert quartiles.diff() == pytest.approx(2 * 0.6745 * 4, rel=0.05)


def test_balance_and_constant_bits_of_known_bits() -> None:
    model = make("hashing_ae", latent_dim=4, balance=0.5).eval()
    bits = torch.tensor([[1, 0, 1, 1], [1, 0, 0, 1], [1, 0, 1, 1], [1, 0, 0, 0]])
    model.activation = lambda x: 2.0 * bits - 1  # type: ignore[method-assign]
    with torch.no_grad():
        terms = {name: float(term) for name, term in model.losses(batch(n=4)).items()}
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    expected = 2 * math.log(2) + 0 + (math.log(2) - quarter)
    assert terms["balance"] == pytest.approx(expected, abs=1e-4)
    assert terms["constant_bits"] == 0.5
    assert terms["loss"] == pytest.approx(terms["reconstruction"] + 0.5 * expected)


def test_prior_draws_bits_as_often_as_they_are_seen() -> None:
    model = make("hashing_ae", latent_dim=3)
    a = torch.tensor([[1.0, -1.0, 1.0], [1.0, -1.0, -1.0]])
    model.activation = lambda x: a  # type: ignore[method-assign]
    model.eval().losses(batch(n=2))
    assert torch.equal(model.frequencies, torch.full((3,), 0.5))
    model.train()
    for _ in range(1000):
        model.losses(batch(n=2))
    assert torch.allclose(model.frequencies, torch.tensor([1.0, 0.0, 0.5]), atol=1e-3)
    torch.manual_seed(0)
    model.frequencies.copy_(torch.tensor([0.9, 0.1, 0.5]))
    drawn = model.sample_prior(20_000)
    assert torch.allclose(drawn.mean(0), model.frequencies, atol=0.02)
    assert torch.allclose(torch.corrcoef(drawn.T), torch.eye(3), atol=0.03)


def test_the_reconstruction_trains_the_encoder() -> None:
    data = batch()
    model = ready(make("hashing_ae", net="conv"), data).train()
    found = torch.autograd.grad(
        model.losses(data)["reconstruction"], list(model.encoder.parameters())
    )
    assert all(gradient.abs().sum() > 0 for gradient in found)


def mean_average_precision(queries: Tensor, asked: Tensor, held: Tensor, labels: Tensor) -> float:
    distances = torch.cdist(queries.double(), held.double(), p=1).round()
    relevant = asked[:, None] == labels
    return float(average_precision(distances.numpy(), relevant.numpy()).mean())


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Dataset.make("digits")


def fitted(digits: Dataset, **hyperparameters: object) -> Autoencoder:
    torch.manual_seed(0)
    data = DataSpec(digits.shape, 10, len(digits.split("train")))
    model = model_from("hashing_ae", {"latent_dim": 16, **hyperparameters}, data, backbone())
    train(model, digits, Budget(epochs=20, batch_size=50), ("hashing",))
    return model


def test_bits_stay_alive_and_find_digits_better_than_random_planes(digits: Dataset) -> None:
    splits = [digits.split("test"), digits.split("train")]
    (queries, asked), (held, labels) = ((as_float(s.images()), s.labels) for s in splits)
    model = fitted(digits)
    codes = [model.code(x) for x in (queries, held)]
    share = codes[0].mean(0)
    assert share.min() > 0.2
    assert share.max() < 0.8
    with torch.no_grad():
        certain = (model.activation(queries).sigmoid() - 0.5).abs() > 0.45
    assert certain.float().mean() > 0.8, "the noise saturates the units"
    found = mean_average_precision(codes[0], asked, codes[1], labels)

    centre = held.flatten(1).mean(0)
    baseline = []
    for seed in range(3):
        planes = torch.randn(64, 16, generator=torch.Generator().manual_seed(seed))
        bits = [((x.flatten(1) - centre) @ planes > 0).float() for x in (queries, held)]
        baseline.append(mean_average_precision(bits[0], asked, bits[1], labels))
    assert found > max(baseline) + 0.1


def test_the_balance_evens_the_bits(digits: Dataset) -> None:
    x = as_float(digits.split("test").images())
    uneven, even = (
        (fitted(digits, balance=weight).code(x).mean(0) - 0.5).abs().max() for weight in (0.0, 1.0)
    )
    assert even < 0.7 * uneven


def test_bits_die_where_the_decoder_must_learn_the_mean_image(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SigmoidAE, "initialise", lambda self, batches: None)
    share = fitted(digits, balance=0.0).code(as_float(digits.split("test").images())).mean(0)
    assert ((share == 0) | (share == 1)).any()


@pytest.mark.parametrize("hyperparameters", [{"noise": -1.0}, {"balance": -0.1}])
def test_refuses_what_makes_no_sense(hyperparameters: dict) -> None:
    with pytest.raises(InputError, match=f"hashing_ae.*{next(iter(hyperparameters))}") as error:
        make("hashing_ae", **hyperparameters)
    assert "\n" not in str(error.value)


def test_one_image_and_no_noise_give_finite_losses() -> None:
    model = make("hashing_ae", noise=0.0)
    data = batch(n=1)
    model.initialise([data])
    terms = model.losses(Batch(data.x))
    assert all(term.isfinite() for term in terms.values())
    gradients = torch.autograd.grad(terms["loss"], list(model.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
