"""The structural similarity of images, on one scale and on several."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The exponents of MS-SSIM from the finest scale on, as Wang et al. 2003 measured them."""


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
    luminance, contrast = similarities(images, others, ssim_window(*images.shape[2:]))
    return (luminance * contrast).flatten(1).mean(1)


def similarities(images: Tensor, others: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The two factors of :func:`ssim`, of the means and of the rest, at every position.

    Args:
        images: (n, C, H, W) in [0, 1].
        others: the same.
        side: of the window, odd, at most H and W.

    Returns:
        Two of float64 (n, C, H - side + 1, W - side + 1).
    """
    x, y = images.double(), others.double()
    # A matrix for each axis: products with them take a tenth of a convolution's time here.
    down, across = (_windows(length, side, x.device) for length in x.shape[2:])

    def smooth(values: Tensor) -> Tensor:
        return down @ values @ across.T

    mean_x, mean_y = smooth(x), smooth(y)
    square_x, square_y, product = mean_x.square(), mean_y.square(), mean_x * mean_y
    variance_x, variance_y = smooth(x.square()) - square_x, smooth(y.square()) - square_y
    luminance = (2 * product + 1e-4) / (square_x + square_y + 1e-4)
    contrast = (2 * (smooth(x * y) - product) + 9e-4) / (variance_x + variance_y + 9e-4)
    return luminance, contrast


@lru_cache
def _windows(length: int, side: int, device: torch.device) -> Tensor:
    """SSIM's window at every position within ``length``: float64 (length - side + 1, length)."""
    starts = torch.arange(length - side + 1, device=device)[:, None]
    at = torch.arange(length, device=device).double() - side // 2 - starts
    inside = at.abs() <= side // 2
    weights = torch.where(inside, (-at.square() / (2 * (1.5 * side / 11) ** 2)).exp(), 0)
    return weights / weights.sum(1, keepdim=True)


def scale_weights(height: int, width: int) -> tuple[float, ...]:
    """The exponents of the scales that MS-SSIM takes of an image, the finest first: sum 1.

    As many scales, at most five, as still hold SSIM's window when each halves the one before.
    """
    window, scales = ssim_window(height, width), 1
    while scales < len(SCALE_WEIGHTS) and min(height, width) >> scales >= window:
        scales += 1
    chosen = SCALE_WEIGHTS[:scales]
    return tuple(weight / sum(chosen) for weight in chosen)


def ms_ssim(images: Tensor, others: Tensor, least: float = 0.0) -> Tensor:
    r"""The multi-scale structural similarity of each pair of images of range 1: float64 (n,).

    .. math:: \overline{l_M c_M}^{\,w_M} \prod_{j<M} \overline{c_j}^{\,w_j}, \quad
        l = \frac{2\mu_x\mu_y + C_1}{\mu_x^2 + \mu_y^2 + C_1}, \quad
        c = \frac{2\sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}

    of each channel, then averaged over channels. Windows, constants and positions are those of
    :func:`ssim`, on every scale the same window; scale j + 1 is scale j averaged in squares of two
    pixels, an odd last row or column left out. A mean below ``least`` counts as that: below zero it
    has no real power, and near zero its gradient has no bounds. The scales and weights are those of
    :func:`scale_weights`: the five of Wang et al. 2003, Asilomar 2:1398, need 176 pixels.

    Args:
        images: (n, C, H, W) in [0, 1], H and W at least 3.
        others: the same.
        least: what a mean is at least; above 0 for a loss.
    """
    x, y = images.double(), others.double()
    side = ssim_window(*x.shape[2:])
    weights = scale_weights(*x.shape[2:])
    product = x.new_ones(x.shape[:2])
    for scale, weight in enumerate(weights, 1):
        luminance, contrast = similarities(x, y, side)
        here = luminance * contrast if scale == len(weights) else contrast
        product = product * here.flatten(2).mean(2).clamp(min=least) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.mean(1)
