"""How near the reconstructions of the test images are to the images."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from .base import Fitted, Metric, Quantity

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


def ssim_window(height: int, width: int) -> int:
    """The side of SSIM's window: 11, or the greatest odd number that fits the image."""
    side = min(height, width, 11)
    return side if side % 2 else side - 1


def ssim(images: Tensor, others: Tensor) -> Tensor:
    r"""The structural similarity of each pair of images of range 1: float64 (n,).

    .. math::
        \frac{(2\mu_x\mu_y + C_1)(2\sigma_{xy} + C_2)}
             {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}

    with :math:`C_i = K_i^2`, K = (.01, .03), averaged over channels and over every position at
    which the Gaussian window of 11 pixels and σ = 1.5 lies within the image. A smaller image has
    the window of :func:`ssim_window` and σ in proportion. Wang et al. 2004, IEEE TIP 13:600.

    Args:
        images: (n, C, H, W) in [0, 1], H and W at least 3.
        others: the same.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    side = ssim_window(*images.shape[2:])
    margin = side // 2
    # torchmetrics reflects the image at its border and, depending on its version, averages over
    # the border too: the positions are chosen here.
    _, every_position = structural_similarity_index_measure(
        images.float(),
        others.float(),
        sigma=1.5 * side / 11,
        data_range=1.0,
        k1=0.01,
        k2=0.03,
        reduction="none",
        return_full_image=True,
    )
    inside = every_position[..., margin:-margin, margin:-margin]
    return inside.double().flatten(1).mean(1)


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


class PSNR(OfPairs):
    """Peak signal-to-noise ratio: :func:`psnr` of each image, then the mean."""

    name = "psnr"
    quantities: ClassVar = (Quantity("psnr", "higher", "dB", low=0, high=PSNR_CAP),)
    description = "peak signal-to-noise ratio, of each image and then averaged"

    def score(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return psnr(images, reconstructions)

    def estimator(self, fitted: Fitted) -> str:
        return f"{super().estimator(fitted)}, of each image, at most {PSNR_CAP:.1f} dB"


class SSIM(OfPairs):
    """Structural similarity: :func:`ssim`."""

    name = "ssim"
    quantities: ClassVar = (Quantity("ssim", "higher", low=-1, high=1),)
    source = "Wang et al. 2004, IEEE TIP 13:600"
    description = "structural similarity, Gaussian window"

    def lacks(self, fitted: Fitted) -> str:
        small = min(fitted.dataset.shape[1:]) < 3
        return super().lacks(fitted) or ("the images are smaller than 3 pixels" if small else "")

    def score(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return ssim(images, reconstructions)

    def estimator(self, fitted: Fitted) -> str:
        side = ssim_window(*fitted.dataset.shape[1:])
        window = f"Gaussian window {side}, sigma {1.5 * side / 11:.3g}, within the image"
        return f"{super().estimator(fitted)}, {window}"
