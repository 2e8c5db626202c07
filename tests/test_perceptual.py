"""Losses that compare images by structural similarity and by feature maps."""

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from aebench.benchmark import cell, run
from aebench.benchmark.cell import training_key_of
from aebench.benchmark.extractors import Extractor, vgg19
from aebench.benchmark.grid import Cell, read_grid, specs
from aebench.benchmark.store import Store
from aebench.models import Backbone, DataSpec, model_from
from aebench.models.perceptual import LEAST
from aebench.models.similarity import ms_ssim
from aebench.plugins import InputError
from small import batch, make, maps, ready
from standins import Held, noise_images
from torch import Tensor, nn


def test_ms_ssim_loss_is_one_less_the_metric() -> None:
    model, data = make("ms_ssim_vae", (1, 28, 28), weight=7.0), batch((1, 28, 28), 6)
    torch.manual_seed(1)
    with torch.no_grad():
        terms = model.losses(data)
        torch.manual_seed(1)
        posterior = model.posterior(data.x)
        image = model.observation.mean(model.raw(posterior.sample()))
        expected = 1 - ms_ssim(image, data.x, LEAST).mean().float()
    assert torch.allclose(terms["distance"], expected)
    assert torch.allclose(terms["loss"], 7 * expected + terms["kl"])
    assert torch.allclose(terms["kl"], posterior.kl_to_standard().sum(1).mean())
    assert not model.offers("log_weights")


def test_ms_ssim_loss_of_equal_images_is_none_and_of_noise_is_large() -> None:
    model = make("ms_ssim_vae", (1, 28, 28))
    a, b = (batch((1, 28, 28), 8, seed=seed).x for seed in (1, 2))
    assert float(model.distance(a, a)) == pytest.approx(0, abs=1e-6)
    assert float(model.distance(a, b)) > 0.6


@pytest.mark.parametrize("size", [3, 9, 28])
def test_ms_ssim_has_a_gradient(size: int) -> None:
    x, y = (batch((1, size, size), 2, seed=seed).x.double() for seed in (1, 2))
    y = 0.5 * x + 0.3 * y  # alike enough for every scale to be above the least
    assert (ms_ssim(x, y) > 2 * LEAST).all()
    y.requires_grad_()
    assert torch.autograd.gradcheck(lambda y: ms_ssim(x, y, LEAST), (y,), eps=1e-6, atol=1e-5)


def test_ms_ssim_of_opposite_images_has_a_finite_gradient() -> None:
    x = batch((1, 28, 28), 4).x
    y = (1 - x).requires_grad_()
    (gradient,) = torch.autograd.grad(ms_ssim(x, y, LEAST).sum(), y)
    assert gradient.isfinite().all()


def test_the_gradient_of_ms_ssim_is_bounded_where_structures_turn_opposite() -> None:
    x = batch((1, 28, 28), 1).x.double()
    t = torch.linspace(0.3, 0.7, 4001).double().view(-1, 1, 1, 1)
    y = (t * x + (1 - t) * (1 - x)).requires_grad_()
    steepest = []
    for least in (0.0, LEAST):
        (gradient,) = torch.autograd.grad(ms_ssim(x.expand_as(y), y, least).sum(), y)
        steepest.append(float(gradient.flatten(1).norm(dim=1).max()))
    assert steepest[1] < 1.5
    assert steepest[0] > 2 * steepest[1]


def test_ms_ssim_vae_refuses_images_without_a_window() -> None:
    with pytest.raises(InputError, match="3 pixels"):
        model_from("ms_ssim_vae", {}, DataSpec((1, 2, 8)), Backbone.choose("mlp")())


def test_dfc_loss_is_relative_in_every_map() -> None:
    data = batch(n=6)
    model = make("dfc_vae", weight=3.0)
    model.perceive(maps)
    ready(model, data)
    torch.manual_seed(1)
    with torch.no_grad():
        terms = model.losses(data)
        torch.manual_seed(1)
        image = model.observation.mean(model.raw(model.posterior(data.x).sample()))
    relative = 0.0
    for wanted, found in zip(maps(data.x), maps(image)):
        error = (wanted - found).square().flatten(1).sum(1).mean()
        relative += float(error / wanted.square().flatten(1).sum(1).mean())
    assert float(terms["distance"]) == pytest.approx(32 * relative, rel=1e-5)
    assert torch.allclose(terms["loss"], 3 * terms["distance"] + terms["kl"])
    # An extractor of other units changes nothing.
    model.perceive(lambda x: [100 * found for found in maps(x)])
    ready(model, data)
    torch.manual_seed(1)
    with torch.no_grad():
        assert torch.allclose(model.losses(data)["distance"], terms["distance"], rtol=1e-4)


def test_dfc_vae_needs_maps_to_train_and_nothing_else() -> None:
    model, data = make("dfc_vae"), batch(n=3)
    assert model.reconstruct(data.x).shape == data.x.shape
    with pytest.raises(InputError, match="call perceive"):
        model.losses(data)
    model.perceive(maps)
    with pytest.raises(InputError, match="call initialise"):
        model.losses(data)
    assert ready(model, data).losses(data)["distance"] > 0
    model.perceive(maps)  # of which nothing is known
    with pytest.raises(InputError, match="call initialise"):
        model.losses(data)


def test_the_network_that_is_asked_stays_as_it_is() -> None:
    dataset = Held(noise_images(60, 1, 8, 8), torch.arange(60) % 3)
    extractor = Extractor.choose("classifier")(dataset)
    model, data = make("dfc_vae"), batch(n=6)
    model.perceive(extractor.maps)
    ready(model, data)
    names = {name for name, _ in model.named_parameters()}
    gradients = torch.autograd.grad(model.losses(data)["distance"], list(model.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert all(name.startswith(("encoder", "decoder")) for name in names)
    assert set(model.state_dict()) == names
    assert not any(p.requires_grad for p in extractor._net.parameters())


def test_the_classifiers_maps_are_those_its_features_come_from() -> None:
    dataset = Held(noise_images(60, 1, 9, 9), torch.arange(60) % 3)
    extractor = Extractor.choose("classifier")(dataset)
    x = torch.rand(4, 1, 9, 9)
    found = extractor.maps(x)
    assert [tuple(m.shape) for m in found] == [(4, 32, 5, 5), (4, 64, 3, 3)]
    net = extractor._net
    rest = nn.Sequential(*list(net.body)[4:])
    assert torch.allclose(rest(found[-1]) / net.scale, extractor.features(x))
    assert extractor.why_no_maps() == ""


def grid(**model: object) -> dict:
    return {
        "datasets": {"digits": {"train": 100, "val": 30, "test": 30}},
        "models": {"dfc_vae": model},
        "backbones": {"mlp": {"hidden": [16]}},
        "training": {"epochs": 1, "batch_size": 50},
        "seeds": 1,
        "metrics": ["mse", "elbo"],
    }


def test_a_cell_hands_the_model_its_extractor(tmp_path: Path) -> None:
    rows = run(grid(), out=tmp_path / "store", workers=1, device="cpu")
    values = rows.set_index("metric").value
    assert math.isfinite(values["mse"])
    assert rows[rows.metric == "elbo"].note.item() == "the model has no log_weights"
    first, other = (
        specs(read_grid(grid(extractor=name))[1], "cpu")[0] for name in ("classifier", "vgg19")
    )
    assert training_key_of(first) != training_key_of(other)


@pytest.mark.parametrize("name", ["classifier", "vgg19"])
def test_a_training_depends_on_its_extractors_code(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = specs(read_grid(grid(extractor=name))[1], "cpu")[0]
    before, seen = training_key_of(spec), []

    def other_code(*roots: object) -> str:
        seen.extend(roots)
        return "other"

    monkeypatch.setattr(cell, "code_digest", other_code)
    assert training_key_of(spec) != before
    assert Extractor.choose(name) in seen


def test_the_extractor_is_made_before_the_training_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    chosen = Extractor.choose("classifier")
    plain, train = chosen.maps, cell.training.train

    def count(self: Extractor, images: Tensor) -> list[Tensor]:
        asked.append(len(images))
        return plain(self, images)

    def timed(*args: Any, **kwargs: Any) -> Any:
        assert asked == [1]
        return train(*args, **kwargs)

    monkeypatch.setattr(chosen, "maps", count)
    monkeypatch.setattr(cell.training, "train", timed)
    (one,) = specs(read_grid(grid())[1], "cpu")
    planned = Cell(one, cell.key_of(one))
    cell.run_cell(planned, Store(tmp_path / "store", create=True), ("cpu",), lambda *_: None)
    assert len(asked) > 2


@pytest.mark.parametrize(
    ("extractor", "says"),
    [("inception", "inception gives no feature maps"), ("vgg", "did you mean 'vgg19'?")],
)
def test_extractors_that_cannot_serve_are_refused_at_once(
    extractor: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        run(grid(extractor=extractor), out=tmp_path / "store", workers=1, device="cpu")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


# VGG-19.


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """VGG-19 up to relu5_1 with random weights, whose file is found in place of torchvision's."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, *[256] * 4, 0, *[512] * 4, 0, 512):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    network = nn.Sequential(*layers)
    path = tmp_path / "stub.pth"
    torch.save({f"features.{k}": v for k, v in network.state_dict().items()}, path)
    monkeypatch.setattr(vgg19, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    monkeypatch.setenv("AEBENCH_VGG19", str(path))
    return network


@pytest.mark.parametrize(("name", "at"), [("vgg19", (1, 6, 11)), ("vgg19_345", (11, 20, 29))])
@pytest.mark.parametrize("channels", [1, 3])
def test_vgg19_is_torchvisions_network(
    channels: int, name: str, at: tuple[int, ...], weights: nn.Sequential
) -> None:
    dataset = Held(noise_images(6, channels, 16, 20))
    extractor = Extractor.choose(name)(dataset)
    x = torch.rand(2, channels, 16, 20, requires_grad=True)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    y = (x.expand(-1, 3, -1, -1) - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    expected: list[Tensor] = []
    for index, layer in enumerate(weights):
        y = layer(y)
        if index in at:
            expected.append(y)
    found = extractor.maps(x)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert torch.autograd.grad(found[-1].sum(), x)[0].abs().sum() > 0
    features = extractor.features(x)
    assert torch.allclose(features, expected[-1].mean((2, 3)), atol=1e-5)
    assert not features.requires_grad
    bytes_ = (x.detach() * 255).round().to(torch.uint8)
    assert torch.allclose(extractor.features(bytes_), extractor.features(bytes_.float() / 255))


def test_vgg19_refuses_what_it_cannot_read(
    weights: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = Extractor.choose("vgg19")(Held(noise_images(6, 2, 8, 8)))
    assert "not 2 channels" in extractor.why_no_maps()
    for name, least in (("vgg19", 4), ("vgg19_345", 16)):
        for side in (least - 1, least):
            extractor = Extractor.choose(name)(Held(noise_images(6, 1, side, 20)))
            if side < least:
                assert extractor.why_no_maps().endswith(f"{least} pixels or more, not {side}")
            else:
                assert extractor.maps(torch.rand(1, 1, side, 20))[-1].shape[2:] == (1, 20 // least)
    monkeypatch.setattr(vgg19, "SHA256", "dcbb9e9d")
    extractor = Extractor.choose("vgg19")(Held(noise_images(6, 1, 8, 8)))
    with pytest.raises(InputError, match=r"stub\.pth is not vgg19-dcbb9e9d\.pth"):
        extractor.maps(torch.rand(1, 1, 8, 8))
