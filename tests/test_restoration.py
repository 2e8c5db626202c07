"""Metrics of restoration: closed forms and invariants."""

import math

import pytest
import torch
from aebench.benchmark.evaluate import evaluate
from aebench.benchmark.metrics import Fitted
from aebench.benchmark.metrics.reconstruction import PSNR_CAP
from aebench.benchmark.metrics.restoration import Denoising, Inpainting, hole, masked, noisy
from aebench.plugins import InputError
from standins import Echo, fitted_echo, noise_images
from torch import Tensor

GREY = torch.full((60, 3, 16, 18), 128, dtype=torch.uint8)


class Grey(Echo):
    """Gives the one image there is, whatever it is shown."""

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return super().raw(z, y) * 0 + 128 / 255


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_a_model_that_repeats_the_noise_gains_nothing(sigma: float) -> None:
    found = Denoising(sigma=sigma).compute(fitted_echo(GREY))
    assert found["denoising_psnr"] == found["noisy_psnr"]
    # The mean square of 864 normal draws is near its expectation, nothing being clamped.
    assert found["noisy_psnr"] == pytest.approx(-20 * math.log10(sigma), abs=0.05)


def test_a_model_that_knows_the_image_removes_all_noise() -> None:
    fitted = fitted_echo(GREY, Grey)
    assert Denoising().compute(fitted)["denoising_psnr"] == pytest.approx(PSNR_CAP)
    found = Inpainting().compute(fitted)
    assert found["inpainting_psnr"] == pytest.approx(PSNR_CAP)
    assert found["inpainting_hole_psnr"] == pytest.approx(PSNR_CAP)
    assert found["masked_psnr"] < 20


def test_noise_is_clamped() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        black = noisy(torch.zeros(10, 1, 50, 50), 0.2)
    assert (black.min(), black.max() <= 1) == (0, True)
    assert (black == 0).double().mean().item() == pytest.approx(0.5, abs=0.01)
    # Half of the mean square of the noise is left of black pixels, and nothing above white.
    assert black.square().mean().item() == pytest.approx(0.02, rel=0.05)


def test_noise_is_drawn_once_and_by_its_seed() -> None:
    images = noise_images(30, 1, 6, 6)
    values = [
        Denoising().compute(fitted_echo(images, batch_size=size, seed=seed))["noisy_psnr"]
        for size, seed in ((500, 0), (7, 0), (500, 1))
    ]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    ("shape", "side", "rows", "columns"),
    [
        ((28, 28), 0.5, (7, 21), (7, 21)),
        ((8, 20), 0.5, (2, 6), (8, 12)),
        ((5, 5), 0.5, (1, 3), (1, 3)),
        ((1, 1), 0.5, (0, 1), (0, 1)),
        ((9, 9), 1.0, (0, 9), (0, 9)),
    ],
)
def test_the_hole_is_in_the_middle(
    shape: tuple[int, int], side: float, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    assert hole(*shape, side) == (slice(*rows), slice(*columns))
    white = torch.ones(2, 3, *shape)
    spoilt = masked(white, side)
    assert white.min() == 1
    expected = torch.ones(shape)
    for row in range(*rows):
        for column in range(*columns):
            expected[row, column] = 0
    assert torch.equal(spoilt, expected.expand(2, 3, -1, -1))


def test_inpainting_of_a_model_that_repeats_the_hole() -> None:
    found = Inpainting(side=0.5).compute(fitted_echo(GREY))  # 8 x 8 of 16 x 18 pixels
    share, square = 64 / 288, (128 / 255) ** 2
    assert found["inpainting_psnr"] == found["masked_psnr"]
    assert found["masked_psnr"] == pytest.approx(-10 * math.log10(share * square), abs=1e-4)
    assert found["inpainting_hole_psnr"] == pytest.approx(-10 * math.log10(square), abs=1e-4)
    assert "the middle 8 x 8 pixels black" in Inpainting().estimator(fitted_echo(GREY))


def test_every_image_counts_alike_and_no_more_than_asked() -> None:
    images = noise_images(1100, 1, 2, 2)  # more than two chunks
    fitted = fitted_echo(images)
    x = fitted.split("test").images().double() / 255
    for n in (3, 1100):
        found = Inpainting(side=1, images=n).compute(fitted)["masked_psnr"]
        errors = x[:n].square().flatten(1).mean(1)
        assert found == pytest.approx((-10 * errors.log10()).mean().item(), abs=1e-4)
    assert "3 images" in Inpainting(images=3).estimator(fitted)
    assert "1100 images" in Denoising().estimator(fitted)


def test_labels_reach_the_model_in_the_order_of_the_images() -> None:
    class Told(Echo):
        given = "label"

        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            assert y is not None
            return torch.ones_like(super().raw(z)) * y.view(-1, 1, 1, 1) * 60 / 255

    labels = torch.arange(40) % 4
    images = (labels.view(-1, 1, 1, 1) * 60).expand(-1, 1, 3, 3).to(torch.uint8)
    fitted = fitted_echo(images, Told, labels=labels)
    assert Denoising().compute(fitted)["denoising_psnr"] == pytest.approx(PSNR_CAP)
    assert Inpainting().compute(fitted)["inpainting_psnr"] == pytest.approx(PSNR_CAP)


def test_a_model_of_nan_has_a_baseline_alone() -> None:
    class Broken(Echo):
        def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return super().code(x, y) * math.nan

    fitted: Fitted = fitted_echo(GREY, Broken)
    rows = {row.metric: row for row in evaluate(fitted, [Denoising(), Inpainting()]).rows}
    assert {name for name, row in rows.items() if not row.note} == {"noisy_psnr", "masked_psnr"}
    assert rows["inpainting_hole_psnr"].note == "the reconstructions are not finite"


@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf])
def test_bad_noise_is_refused(sigma: float) -> None:
    with pytest.raises(InputError, match="metric 'denoising': sigma must be positive"):
        Denoising(sigma=sigma)


@pytest.mark.parametrize("side", [0, 1.1, math.nan])
def test_bad_holes_are_refused(side: float) -> None:
    with pytest.raises(InputError, match="metric 'inpainting': side must be in"):
        Inpainting(side=side)
    with pytest.raises(InputError, match="images must be 1 or more"):
        Inpainting(images=0)
