"""Metrics of reconstruction: known answers and invariants."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from aebench.benchmark.metrics import NotApplicable, lpips
from aebench.benchmark.metrics.generation import fid
from aebench.benchmark.metrics.reconstruction import (
    LPIPS,
    MSE,
    PSNR,
    PSNR_CAP,
    SSE,
    SSIM,
    MultiScaleSSIM,
    ReconstructionFID,
    psnr,
)
from aebench.models.similarity import SCALE_WEIGHTS, ms_ssim, scale_weights, ssim, ssim_window
from standins import Echo, fitted_echo, noise_images
from torch import Tensor, nn
from torch.nn import functional as F


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


def test_squared_error_of_an_image_is_that_of_its_pixels_summed() -> None:
    class Dimmed(Echo):
        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().raw(z - 0.1, y)

    images = noise_images(12, 3, 4, 5).clamp(min=26)
    fitted = fitted_echo(images, Dimmed)
    assert SSE().compute(fitted)["sse"] == pytest.approx(60 * 0.01, rel=1e-5)
    assert SSE().compute(fitted)["sse"] == pytest.approx(60 * MSE().compute(fitted)["mse"])


def plain_ssim(x: np.ndarray, y: np.ndarray, side: int) -> tuple[float, float]:
    """Wang's formula at every position at which the window lies within one channel.

    And the mean of its second factor alone.
    """
    at = np.arange(side) - side // 2
    window = np.exp(-(at**2) / (2 * (1.5 * side / 11) ** 2))
    weights = np.outer(window, window) / window.sum() ** 2
    found, contrasts = [], []
    for i in range(x.shape[0] - side + 1):
        for j in range(x.shape[1] - side + 1):
            a, b = x[i : i + side, j : j + side], y[i : i + side, j : j + side]
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            cov = (weights * (a - ma) * (b - mb)).sum()
            top = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4)
            found.append(top / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
            contrasts.append((2 * cov + 9e-4) / (va + vb + 9e-4))
    return float(np.mean(found)), float(np.mean(contrasts))


def noisy_pairs(n: int, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, channels, height, width, generator=generator)
    return x, (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize(
    ("shape", "side"), [((13, 16), 11), ((8, 8), 7), ((11, 40), 11), ((6, 9), 5)]
)
def test_ssim_is_the_formula_within_the_image(shape: tuple[int, int], side: int) -> None:
    x, y = noisy_pairs(3, 2, *shape)
    assert ssim_window(*shape) == side
    expected = [
        np.mean([plain_ssim(a.double().numpy(), b.double().numpy(), side)[0] for a, b in zip(p, q)])
        for p, q in zip(x, y)
    ]
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=1e-9)
    assert ssim(x, x).tolist() == pytest.approx([1] * 3, abs=1e-12)


def plain_ms_ssim(x: np.ndarray, y: np.ndarray, side: int, weights: list[float]) -> float:
    """The definition of one channel: squares of two pixels averaged between scales."""
    value = 1.0
    for scale, weight in enumerate(weights, 1):
        whole, contrast = plain_ssim(x, y, side)
        value *= max(0, whole if scale == len(weights) else contrast) ** weight
        height, width = x.shape[0] // 2, x.shape[1] // 2
        x, y = (
            z[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3)) for z in (x, y)
        )
    return value


@pytest.mark.parametrize(
    ("shape", "side", "scales"),
    [((8, 8), 7, 1), ((21, 40), 11, 1), ((28, 28), 11, 2), ((25, 31), 11, 2), ((45, 47), 11, 3)],
)
def test_ms_ssim_is_the_formula(shape: tuple[int, int], side: int, scales: int) -> None:
    x, y = noisy_pairs(2, 2, *shape)
    weights = [weight / sum(SCALE_WEIGHTS[:scales]) for weight in SCALE_WEIGHTS[:scales]]
    assert scale_weights(*shape) == pytest.approx(weights)
    expected = [
        np.mean(
            [
                plain_ms_ssim(a.numpy(), b.numpy(), side, weights)
                for a, b in zip(p.double(), q.double())
            ]
        )
        for p, q in zip(x, y)
    ]
    assert ms_ssim(x, y).tolist() == pytest.approx(expected, abs=1e-9)
    assert ms_ssim(x, x).tolist() == pytest.approx([1] * 2, abs=1e-12)


def waves(height: int, width: int) -> tuple[Tensor, Tensor]:
    i, j = torch.arange(height).double()[:, None], torch.arange(width).double()
    first = 0.5 + 0.3 * torch.sin(i / 7 + j / 5) + 0.2 * torch.cos(i * j / 50)
    x = torch.stack([first, 0.5 + 0.5 * torch.sin(i / 3) * torch.cos(j / 11)])[None]
    y = 0.8 * x + 0.1 + 0.1 * torch.sin(2.1 * i - 1.3 * j)
    return x.clamp(0, 1), y.clamp(0, 1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((176, 176), 0.9612464), ((176, 208), 0.9611507), ((192, 192), 0.9614538)],
)
def test_ms_ssim_of_five_scales_is_that_of_pytorch_msssim(
    shape: tuple[int, int], expected: float
) -> None:
    # Version 1.0.0; it takes the weights as printed, whose sum is 1.0001.
    assert len(scale_weights(*shape)) == 5
    assert ms_ssim(*waves(*shape)).item() == pytest.approx(expected, abs=5e-6)


def test_ms_ssim_of_opposite_images_is_zero() -> None:
    x, _ = waves(40, 40)
    assert ms_ssim(x, 1 - x).item() == 0
    assert "5 scales of weight 0.0448 " in MultiScaleSSIM().estimator(
        fitted_echo(noise_images(1, 1, 176, 180))
    )
    assert "window 7, sigma 0.955, within the image, 1 scale of weight 1.0000" in (
        MultiScaleSSIM().estimator(fitted_echo(noise_images(4, 1, 8, 8)))
    )


def test_ssim_is_not_applicable_to_tiny_images() -> None:
    tiny = fitted_echo(noise_images(4, 1, 2, 9))
    assert "3 pixels" in SSIM().lacks(tiny)
    assert "3 pixels" in MultiScaleSSIM().lacks(tiny)
    assert "window 7, sigma 0.955" in SSIM().estimator(fitted_echo(noise_images(4, 1, 8, 8)))


def alexnet() -> nn.Sequential:
    """The convolutions as torchvision numbers them, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of random weights in place of AlexNet's."""
    path = tmp_path / "stub.pth"
    state = {f"features.{key}": value for key, value in alexnet().state_dict().items()}
    torch.save(state | {"classifier.1.weight": torch.zeros(3, 3)}, path)
    monkeypatch.setattr(lpips, "PREFIX", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    monkeypatch.setenv("AEBENCH_ALEXNET", str(path))
    return path


def plain_lpips(x: Tensor, y: Tensor) -> Tensor:
    """The distance of images (n, 3, H, W) in [-1, 1], by the weights of torchmetrics' file."""
    import torchmetrics

    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    held = torch.load(folder / "alex.pth", map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])
    x, y = ((z - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for z in (x, y))
    total = torch.zeros(len(x))
    seen = iter(range(5))
    with torch.no_grad():
        for index, layer in enumerate(alexnet()):
            x, y = layer(x), layer(y)
            if index in (1, 4, 7, 9, 11):
                gap = F.normalize(x, dim=1) - F.normalize(y, dim=1)
                linear = held[f"lin{next(seen)}.model.1.weight"]
                total += F.conv2d(gap.square(), linear).mean((1, 2, 3))
    return total


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 80, 70), (1, 64, 96)])
def test_lpips_is_the_formula(shape: tuple[int, int, int], weights: Path) -> None:
    x, y = noisy_pairs(3, *shape)
    network = lpips.network()
    expected = plain_lpips(*(z.expand(-1, 3, -1, -1) * 2 - 1 for z in (x, y)))
    assert expected.min() > 0.001
    assert lpips.distance(network, x, y).tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert lpips.distance(network, x, x).tolist() == [0] * 3
    assert lpips.distance(network, y, x).tolist() == lpips.distance(network, x, y).tolist()


@pytest.mark.parametrize(
    ("shape", "size"), [((28, 28), (64, 64)), ((16, 40), (64, 160)), ((70, 35), (128, 64))]
)
def test_lpips_enlarges_small_images(shape: tuple[int, int], size: tuple[int, int]) -> None:
    x, _ = noisy_pairs(2, 1, *shape)
    larger = F.interpolate(x, size, mode="bilinear", align_corners=False)
    assert torch.equal(lpips.prepared(x), larger.expand(-1, 3, -1, -1) * 2 - 1)


def test_lpips_of_a_model(weights: Path) -> None:
    class Dimmed(Echo):
        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().raw(z * 0.5, y)

    images = noise_images(13, 1, 20, 20)
    fitted = fitted_echo(images, Dimmed, batch_size=4)
    x = fitted.split("test").images()[:10].float() / 255
    expected = lpips.distance(lpips.network(), x, x / 2).mean().item()
    metric = LPIPS(images=10)
    assert metric.compute(fitted)["lpips"] == pytest.approx(expected, rel=1e-5)
    assert "10 images" in metric.estimator(fitted)
    assert "enlarged to 64 pixels" in metric.estimator(fitted)
    assert "enlarged" not in metric.estimator(fitted_echo(noise_images(4, 1, 64, 64)))
    assert LPIPS().compute(fitted_echo(images))["lpips"] == 0
    assert "not 2 channels" in LPIPS().lacks(fitted_echo(noise_images(4, 2, 64, 64)))


def test_lpips_says_what_is_missing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, prefix = fitted_echo(noise_images(4, 1, 8, 8)), lpips.PREFIX
    monkeypatch.setattr(lpips, "PREFIX", "7be5be79")
    why = LPIPS().compute(fitted)["lpips"]
    assert isinstance(why, NotApplicable)
    assert str(why) == "LPIPS: stub.pth is not alexnet-owt-7be5be79.pth: its SHA-256 differs"
    monkeypatch.setenv("AEBENCH_ALEXNET", str(tmp_path / "none.pth"))
    assert "$AEBENCH_ALEXNET names no file" in str(LPIPS().compute(fitted)["lpips"])
    monkeypatch.delenv("AEBENCH_ALEXNET")
    monkeypatch.setattr(lpips, "cache_folder", lambda: tmp_path)
    why = LPIPS().compute(fitted)["lpips"]
    assert isinstance(why, NotApplicable)
    assert "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth" in str(why)
    assert "cache folder" in str(why)
    assert str(tmp_path) not in str(why)  # notes stand in published tables
    weights.rename(tmp_path / lpips.FILE)
    monkeypatch.setattr(lpips, "PREFIX", prefix)
    assert LPIPS().compute(fitted)["lpips"] == 0


def test_reconstruction_fid_compares_the_features_of_bytes() -> None:
    class Dimmed(Echo):
        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().raw(z - 0.1004, y)  # 25.602 bytes: rounds to 26

    images = noise_images(40, 1, 2, 3).clamp(min=30)
    fitted = fitted_echo(images, Dimmed)
    found = ReconstructionFID().compute(fitted)["reconstruction_fid"]
    assert found == pytest.approx(6 * (26 / 255) ** 2, rel=1e-4)  # the means alone differ
    real = images.flatten(1) / 255
    assert found == pytest.approx(fid(real, (images - 26).flatten(1) / 255), rel=1e-4)
    assert ReconstructionFID().qualifier(fitted) == "pixels"
    assert "40 images of the test split" in ReconstructionFID().estimator(fitted)


def test_reconstruction_fid_is_blind_to_which_image_is_whose() -> None:
    class Swapped(Echo):
        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().raw(z.flip(0), y)

    images = noise_images(40, 1, 2, 3)
    same, swapped = fitted_echo(images), fitted_echo(images, Swapped)
    assert ReconstructionFID().compute(same)["reconstruction_fid"] < 1e-6
    assert ReconstructionFID().compute(swapped)["reconstruction_fid"] < 1e-6
    assert MSE().compute(swapped)["mse"] > 0.1
