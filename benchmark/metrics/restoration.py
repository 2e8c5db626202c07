"""How near the model brings a test image that was spoilt to what it was."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ...datasets import as_float
from ...plugins import InputError
from .base import Fitted, Metric, NotApplicable, Quantity, Values, finite
from .reconstruction import PSNR_CAP, psnr

AT_ONCE = 500
"""Images at a time. Not the batch size: the noise is drawn by chunk, and no value may depend on
the batch size."""


def noisy(images: Tensor, sigma: float) -> Tensor:
    """Images of [0, 1] plus Gaussian noise of deviation ``sigma``, clamped to [0, 1].

    The noise is drawn on the CPU, so that it is the same on every device.
    """
    return (images + sigma * torch.randn(images.shape).to(images)).clamp(0, 1)


def hole(height: int, width: int, side: float) -> tuple[slice, slice]:
    """The rows and columns of a square in the middle of an image.

    Args:
        height: H.
        width: W.
        side: the square's side as a share of the shorter of the two, in (0, 1].
    """
    pixels = max(1, round(side * min(height, width)))
    top, left = (height - pixels) // 2, (width - pixels) // 2
    return slice(top, top + pixels), slice(left, left + pixels)


def masked(images: Tensor, side: float) -> Tensor:
    """Images (n, C, H, W), black within :func:`hole`."""
    height, width = images.shape[2:]
    rows, columns = hole(height, width, side)
    spoilt = images.clone()
    spoilt[..., rows, columns] = 0
    return spoilt


class Restoration(Metric):
    """The reconstructions of spoilt test images beside the images as they were.

    Args:
        images: the first so many images of the test split; None takes all.
    """

    family = "restoration"

    def __init__(self, *, images: int | None) -> None:
        self.at_least(1, images=images)
        self.images = images

    def spoil(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1], spoilt, in [0, 1]; it may draw noise."""
        raise NotImplementedError

    @torch.no_grad()
    def restored(self, fitted: Fitted) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images, spoilt images and the reconstructions of those, (b, C, H, W) in [0, 1]."""
        with fitted.random(self.name):
            for pixels, y in fitted.split("test").take(slice(self.images)).batches(AT_ONCE):
                x = as_float(pixels)
                spoilt = self.spoil(x)
                yield x, spoilt, fitted.model.reconstruct(spoilt, y)

    def qualifier(self, fitted: Fitted) -> str:
        return fitted.shown

    def estimator(self, fitted: Fitted) -> str:
        n = len(fitted.dataset.split("test").take(slice(self.images)))
        return (
            f"mean over {n} images of the test split, deterministic codes, of each image, "
            f"at most {PSNR_CAP:.1f} dB"
        )


def mean_or_why(scores: list[Tensor]) -> float | NotApplicable:
    """The mean of all scores, n/a where one is not finite."""
    try:
        return finite(torch.cat(scores), "reconstructions").mean().item()
    except NotApplicable as reason:
        return reason


class Denoising(Restoration):
    """PSNR of the reconstructions of noisy images to the images without the noise.

    Beside it the PSNR of the noisy images themselves: a model below that makes them worse. The
    model is not told of the noise, nor trained on it unless its variant is. Vincent et al. 2008,
    ICML (doi:10.1145/1390156.1390294).

    Args:
        sigma: the standard deviation of the noise, in pixels of [0, 1].
        images: the first so many images of the test split; None takes all.
    """

    name = "denoising"
    quantities: ClassVar = (
        Quantity("denoising_psnr", "higher", "dB", low=0, high=PSNR_CAP),
        Quantity("noisy_psnr", "", "dB", low=0, high=PSNR_CAP, ranked=False),
    )
    source = "Vincent et al. 2008, doi:10.1145/1390156.1390294"
    description = "peak signal-to-noise ratio of reconstructed noisy images to the clean ones"

    def __init__(self, *, sigma: float = 0.2, images: int | None = 2000) -> None:
        super().__init__(images=images)
        if not 0 < sigma < float("inf"):
            raise InputError(f"metric {self.name!r}: sigma must be positive, not {sigma}")
        self.sigma = sigma

    def spoil(self, images: Tensor) -> Tensor:
        return noisy(images, self.sigma)

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        after, before = [], []
        for x, spoilt, restored in self.restored(fitted):
            after.append(psnr(x, restored).cpu())
            before.append(psnr(x, spoilt).cpu())
        return {"denoising_psnr": mean_or_why(after), "noisy_psnr": mean_or_why(before)}

    def estimator(self, fitted: Fitted) -> str:
        noise = f"Gaussian noise of sigma {self.sigma:g}, clamped to [0, 1], drawn once"
        return f"{super().estimator(fitted)}, {noise}"


class Inpainting(Restoration):
    """PSNR of the reconstructions of images with a black square in the middle to the whole images.

    Over the whole image, and over the square alone: that is what counts where the known pixels are
    pasted back. Beside them the PSNR of the masked images themselves. Pathak et al. 2016,
    arXiv:1604.07379.

    Args:
        side: the square's side as a share of the shorter side of the image.
        images: the first so many images of the test split; None takes all.
    """

    name = "inpainting"
    quantities: ClassVar = (
        Quantity("inpainting_psnr", "higher", "dB", low=0, high=PSNR_CAP),
        Quantity("inpainting_hole_psnr", "higher", "dB", low=0, high=PSNR_CAP, ranked=False),
        Quantity("masked_psnr", "", "dB", low=0, high=PSNR_CAP, ranked=False),
    )
    source = "Pathak et al. 2016, arXiv:1604.07379"
    description = "peak signal-to-noise ratio of reconstructed images whose middle was black"

    def __init__(self, *, side: float = 0.5, images: int | None = 2000) -> None:
        super().__init__(images=images)
        if not 0 < side <= 1:
            raise InputError(f"metric {self.name!r}: side must be in (0, 1], not {side}")
        self.side = side

    def spoil(self, images: Tensor) -> Tensor:
        return masked(images, self.side)

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        rows, columns = hole(*fitted.dataset.shape[1:], self.side)
        after, within, before = [], [], []
        for x, spoilt, restored in self.restored(fitted):
            after.append(psnr(x, restored).cpu())
            within.append(psnr(x[..., rows, columns], restored[..., rows, columns]).cpu())
            before.append(psnr(x, spoilt).cpu())
        return {
            "inpainting_psnr": mean_or_why(after),
            "inpainting_hole_psnr": mean_or_why(within),
            "masked_psnr": mean_or_why(before),
        }

    def estimator(self, fitted: Fitted) -> str:
        rows, _ = hole(*fitted.dataset.shape[1:], self.side)
        pixels = rows.stop - rows.start
        return f"{super().estimator(fitted)}, the middle {pixels} x {pixels} pixels black"
