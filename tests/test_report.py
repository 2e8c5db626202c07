"""Pictures of a real model."""

import numpy as np
import pytest
import torch
from aebench.benchmark.metrics import Fitted
from aebench.benchmark.report.pictures import interpolations, pictures, tiled, traversals
from aebench.datasets import Dataset, Split
from aebench.models import Backbone, DataSpec, Sampler, model_from


class StandIn(Dataset):
    """Images that encode their own index; the class has no name, so it registers nowhere."""

    def __init__(self, n: int = 50, shape: tuple[int, int, int] = (1, 8, 8)) -> None:
        super().__init__()
        self.name, self.n, self.size = "stand_in", n, shape

    def load(self) -> dict[str, Split]:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (self.n, *self.size), generator=generator, dtype=torch.uint8)
        split = Split(pixels, torch.arange(self.n) % 10)
        return {"train": split, "val": split, "test": split}


def fit(
    name: str = "vae", seed: int = 0, n: int = 50, shape: tuple[int, int, int] = (1, 8, 8)
) -> Fitted:
    torch.manual_seed(0)
    dataset = StandIn(n, shape)
    cls = Backbone.choose("mlp")
    backbone = cls(**cls.complete({"hidden": [16]}))
    model = model_from(name, {}, DataSpec(shape, 10, n), backbone)
    samplers = {"prior": Sampler.choose("prior")(), "gmm": Sampler.choose("gmm")(components=2)}
    return Fitted(model, dataset, None, seed, samplers)


def sheet(rows: int, columns: int, height: int = 32, width: int = 32) -> tuple[int, int, int]:
    return (rows * (height + 2) - 2, columns * (width + 2) - 2, 3)


def test_pictures_have_their_shapes() -> None:
    found = pictures(fit())
    assert {name: picture.shape for name, picture in found.items()} == {
        "reconstructions": sheet(2, 10),
        "samples-prior": sheet(8, 8),
        "samples-gmm": sheet(8, 8),
        "interpolations": sheet(6, 10),
        "traversals": sheet(10, 8),
    }
    assert all(picture.dtype == np.uint8 for picture in found.values())


def test_the_same_seed_draws_the_same_pictures_and_leaves_the_random_state() -> None:
    fitted = fit()
    before = torch.get_rng_state()
    first = pictures(fitted)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    again, other = pictures(fit()), pictures(fit(seed=1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["samples-prior"], other["samples-prior"])
    assert not np.array_equal(first["interpolations"], other["interpolations"])


def test_originals_stand_above_their_reconstructions() -> None:
    fitted = fit()
    picture = pictures(fitted)["reconstructions"]
    original = fitted.split("test").images(slice(3, 4))
    with torch.no_grad():
        rebuilt = fitted.model.reconstruct(original / 255)
    image, copy = original[0, 0].numpy(), rebuilt[0, 0].mul(255).round().numpy()
    left = 3 * 34
    assert np.array_equal(picture[:32:4, left : left + 32 : 4, 0], image)
    assert np.abs(picture[34::4, left : left + 32 : 4, 0] - copy).max() <= 1  # of other batches


def test_interpolations_end_at_reconstructions() -> None:
    fitted = fit()
    picture = interpolations(fitted)
    copies = fitted.reconstructions("test").mul(255).round()[:, 0].numpy()
    for column in (0, 9):
        tile = picture[:32:4, column * 34 : column * 34 + 32 : 4, 0]
        assert any(np.abs(tile - copy).max() <= 1 for copy in copies)


def test_conditional_interpolations_keep_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, seen = fit("cvae"), []
    decode = fitted.decode

    def spy(codes: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        seen.append((codes, labels))
        return decode(codes, labels)

    monkeypatch.setattr(fitted, "decode", spy)
    assert interpolations(fitted).shape == sheet(6, 10)
    ((codes, labels),) = seen
    held, of = fitted.codes("test"), fitted.labels("test")
    for start in range(0, 60, 10):
        for end in (start, start + 9):
            nearest = (held - codes[end]).norm(dim=1).argmin()
            assert of[nearest] == labels[start] == labels[end]


def test_traversals_vary_one_dimension_between_the_quantiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted, seen = fit(), []
    decode = fitted.decode
    monkeypatch.setattr(fitted, "decode", lambda z, y: (seen.append(z), decode(z, y))[1])
    traversals(fitted)
    codes = fitted.codes("test")
    path = seen[0].unflatten(0, (10, 8))
    order = codes.var(0).argsort(descending=True)[:10].tolist()
    for row, dim in enumerate(order):
        others = [d for d in range(16) if d != dim]
        assert torch.equal(path[row][:, others], codes[0, others].expand(8, -1))
        expected = torch.quantile(codes[:, dim], torch.tensor([0.025, 0.975]))
        assert torch.allclose(path[row, [0, -1], dim], expected, atol=1e-6)


def test_discrete_and_spatial_codes_are_not_traversed() -> None:
    found = pictures(fit("vq_vae"))
    assert set(found) == {"reconstructions", "samples-prior", "interpolations"}


def test_few_images_of_another_shape() -> None:
    found = pictures(fit(n=3, shape=(3, 40, 20)))
    assert found["reconstructions"].shape == sheet(2, 3, 40, 20)
    assert found["interpolations"].shape == sheet(6, 10, 40, 20)


@pytest.mark.parametrize(("channels", "value"), [(1, 8), (2, 8), (3, None), (4, 8)])
def test_tiles_are_rgb(channels: int, value: int | None) -> None:
    images = torch.full((1, channels, 30, 40), 8, dtype=torch.uint8)
    if channels == 3:
        images[:, 1] = 99
    found = tiled(images, 1)
    assert found.shape == (30, 40, 3)
    assert found[0, 0].tolist() == ([8, 99, 8] if value is None else [value] * 3)
