"""How near the reconstructions of the test images are to the images."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from ...models.similarity import ms_ssim, scale_weights, ssim, ssim_window
from . import lpips
from .base import Fitted, Metric, NotApplicable, Quantity, Values, as_uint8
from .generation import OnFeatures

LEAST_ERROR = (1 / 255) ** 2 / 12
"""The mean squared error of rounding to 8 bits: a smaller one says nothing of 8-bit images."""
PSNR_CAP = -10 * math.log10(LEAST_ERROR)


def squared_error(images: Tensor, others: Tensor) -> Tensor:
    """The mean squared difference of each pair of images (n, C, H, W): float64 (n,)."""
    return (images.double() - others.double()).square().flatten(1).mean(1)


def psnr(images: Tensor, others: Tensor) -> Tensor:
    r"""The peak signal-to-noise ratio in dB of each pair of images of range 1: float64 (n,).

    .. math:: -10 \log_{10} \max(\mathrm{MSE}, (1/255)^2/12)

    The floor is the error of rounding to 8 bits, so that identical images score 58.9 dB, not ∞.

    Args:
        images: (n, C, H, W) in [0, 1].
        others: the same.
    """
    return -10 * squared_error(images, others).clamp(min=LEAST_ERROR).log10()


class OfPairs(Metric):
    """A number for each pair of test image and reconstruction, averaged over the test split."""

    family = "reconstruction"

    def score(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """The number of each pair (n, C, H, W) in [0, 1]: float64 (n,)."""
        raise NotImplementedError

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        reconstructions = fitted.reconstructions("test").split(fitted.batch_size)
        batches = fitted.batches("test")
        scores = [self.score(x.cpu(), r) for (x, _), r in zip(batches, reconstructions)]
        return {self.name: torch.cat(scores).mean().item()}

    def qualifier(self, fitted: Fitted) -> str:
        return fitted.shown

    def estimator(self, fitted: Fitted) -> str:
        n = len(fitted.dataset.split("test"))
        return f"mean over {n} images of the test split, deterministic codes, pixels in [0, 1]"


class MSE(OfPairs):
    r"""Mean squared error a pixel.

    .. math:: \frac{1}{NCHW} \sum_i \lVert x_i - \hat x_i \rVert^2
    """

    name = "mse"
    quantities: ClassVar = (Quantity("mse", "lower", low=0, high=1),)
    description = "mean squared error a pixel, pixels in [0, 1]"

    def score(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return squared_error(images, reconstructions)


class SSE(OfPairs):
    r"""Squared error an image, D times :class:`MSE`.

    .. math:: \frac1N \sum_i \lVert x_i - \hat x_i \rVert^2

    It ranks models as the mean squared error does, and is what many papers print.
    """

    name = "sse"
    quantities: ClassVar = (Quantity("sse", "lower", low=0, ranked=False),)
    description = "squared error an image, pixels in [0, 1]"

    def score(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return squared_error(images, reconstructions) * images[0].numel()


class PSNR(OfPairs):
    """Peak signal-to-noise ratio: :func:`psnr` of each image, then the mean."""

    name = "psnr"
    quantities: ClassVar = (Quantity("psnr", "higher", "dB", low=0, high=PSNR_CAP),)
    description = "peak signal-to-noise ratio, of each image and then averaged"

    def score(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return psnr(images, reconstructions)

    def estimator(self, fitted: Fitted) -> str:
        return f"{super().estimator(fitted)}, of each image, at most {PSNR_CAP:.1f} dB"


class OfWindows(OfPairs):
    """A comparison of the surroundings of pixels: n/a where an image holds no window."""

    def lacks(self, fitted: Fitted) -> str:
        small = min(fitted.dataset.shape[1:]) < 3
        return super().lacks(fitted) or ("the images are smaller than 3 pixels" if small else "")

    def estimator(self, fitted: Fitted) -> str:
        side = ssim_window(*fitted.dataset.shape[1:])
        window = f"Gaussian window {side}, sigma {1.5 * side / 11:.3g}, within the image"
        return f"{super().estimator(fitted)}, {window}"


class SSIM(OfWindows):
    """Structural similarity: :func:`ssim`."""

    name = "ssim"
    quantities: ClassVar = (Quantity("ssim", "higher", low=-1, high=1),)
    source = "Wang et al. 2004, IEEE TIP 13:600"
    description = "structural similarity, Gaussian window"

    def score(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return ssim(images, reconstructions)


class MultiScaleSSIM(OfWindows):
    """Multi-scale structural similarity: :func:`ms_ssim`."""

    name = "ms_ssim"
    quantities: ClassVar = (Quantity("ms_ssim", "higher", low=0, high=1, ranked=False),)
    source = "Wang et al. 2003, Asilomar 2:1398"
    description = "structural similarity on as many scales as the image has, at most five"

    def score(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return ms_ssim(images, reconstructions)

    def estimator(self, fitted: Fitted) -> str:
        weights = scale_weights(*fitted.dataset.shape[1:])
        scales = "1 scale" if len(weights) == 1 else f"{len(weights)} scales"
        words = " ".join(f"{weight:.4f}" for weight in weights)
        return f"{super().estimator(fitted)}, {scales} of weight {words}"


class LPIPS(Metric):
    """Learned perceptual distance, version 0.1 on AlexNet: :func:`lpips.distance`.

    AlexNet's weights must be at hand: they are not downloaded (:func:`lpips.alexnet_file`).

    Args:
        images: the first so many images of the test split; None takes all.
    """

    name = "lpips"
    family = "reconstruction"
    quantities: ClassVar = (Quantity("lpips", "lower", low=0),)
    source = "Zhang et al. 2018, arXiv:1801.03924"
    description = "learned perceptual distance on AlexNet, whose weights must be at hand"

    def __init__(self, *, images: int | None = 1000) -> None:
        self.at_least(1, images=images)
        self.images = images

    def lacks(self, fitted: Fitted) -> str:
        channels = fitted.dataset.shape[0]
        wrong = "" if channels in (1, 3) else f"LPIPS reads grey or RGB, not {channels} channels"
        return super().lacks(fitted) or wrong

    @torch.no_grad()
    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        reconstructions = fitted.reconstructions("test").split(fitted.batch_size)
        try:
            network = lpips.network().to(fitted.device)
        except NotApplicable as reason:
            return {"lpips": reason}
        distances = []
        for (x, _), other in zip(fitted.batches("test", self.images), reconstructions):
            other = other[: len(x)].to(x)
            pairs = zip(x.split(lpips.AT_ONCE), other.split(lpips.AT_ONCE))
            distances += [lpips.distance(network, a, b).cpu() for a, b in pairs]
        return {"lpips": torch.cat(distances).mean().item()}

    def qualifier(self, fitted: Fitted) -> str:
        return fitted.shown

    def estimator(self, fitted: Fitted) -> str:
        n = len(fitted.dataset.split("test").take(slice(self.images)))
        small = min(fitted.dataset.shape[1:]) < lpips.LEAST_SIDE
        resized = f", enlarged to {lpips.LEAST_SIDE} pixels by bilinear interpolation"
        return (
            f"mean over {n} images of the test split, deterministic codes, AlexNet, version 0.1"
            + (resized if small else "")
        )


class ReconstructionFID(OnFeatures):
    """Fréchet distance of the reconstructions of the test images to the images themselves.

    Both are bytes, so that an exact reconstruction has distance zero. It is blind to which image
    was made of which: one that swaps them scores well.
    """

    name = "reconstruction_fid"
    family = "reconstruction"
    quantities: ClassVar = (Quantity("reconstruction_fid", "lower", low=0),)
    source = "Heusel et al. 2017, arXiv:1706.08500"
    description = "Fréchet distance between features of reconstructions and of test images"

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        images = as_uint8(fitted.reconstructions("test"))
        return {self.name: self.fid(fitted, fitted.features(images))}

    def estimator(self, fitted: Fitted) -> str:
        n = len(fitted.dataset.split("test"))
        return (
            f"reconstructions of the {n} images of the test split against the images, "
            f"deterministic codes, features of {fitted.extractor.label}{self.few(fitted, n)}"
        )
