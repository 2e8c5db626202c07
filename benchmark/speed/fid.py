"""FID against real statistics that are at hand: the symmetric form, and what is about it."""

import numpy as np
import torch
from torch import Tensor

from ..extractors.classifier import Net
from ..metrics.generation import fid_statistics, fid_to
from ..train import arithmetic
from .base import Table, alternate, ratios, spread

IMAGES = 10_000
DIMENSIONS = (64, 2048)
"""Of the classifier's features and of Inception's."""
AT_ONCE = 500


def by_product(mean: Tensor, covariance: Tensor, features: Tensor) -> float:
    """FID by the eigenvalues of the product of the covariances, which is not symmetric."""
    rows = features.numpy()
    shift, other = mean.numpy() - rows.mean(0), np.cov(rows, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(covariance.numpy() @ other).astype(complex)).real
    trace = np.trace(covariance.numpy()) + np.trace(other) - 2 * roots.sum()
    return float(shift @ shift + trace)


def forward(net: Net, images: Tensor) -> Tensor:
    """The features of images, some at a time."""
    with torch.no_grad():
        return torch.cat([net.features(some) for some in images.split(AT_ONCE)])


def row(d: int, pairs: int, generator: torch.Generator) -> tuple[str, str, str, str]:
    """FID at ``d`` dimensions both ways."""
    scales = torch.linspace(0.1, 2, d, dtype=torch.float64)
    real, fake = (
        torch.randn(IMAGES, d, generator=generator, dtype=torch.float64) * scales for _ in range(2)
    )
    statistics, mean, covariance = fid_statistics(real), real.mean(0), torch.cov(real.T)
    work = {
        "ours": lambda: fid_to(statistics, fake),
        "product": lambda: by_product(mean, covariance, fake),
    }
    times = alternate(work, pairs)
    ours, product = times["ours"], times["product"]
    return f"FID, {d} dimensions", spread(ours), spread(product), ratios(product, ours)


def measure(pairs: int) -> Table:
    """The times of FID at both widths, and of the features that the narrower one is taken of."""
    generator = torch.Generator().manual_seed(0)
    with arithmetic(1):
        rows = [row(d, pairs, generator) for d in DIMENSIONS]
        images = torch.randint(0, 256, (IMAGES, 1, 28, 28), generator=generator).to(torch.uint8)
        with torch.random.fork_rng(devices=[]):
            net = Net((1, 28, 28), (10,)).eval()
        times = alternate({"forward": lambda: forward(net, images)}, pairs)
    rows.append(("the classifier's forward pass", spread(times["forward"]), "", ""))
    return Table(
        f"FID of {IMAGES:,} generated images against statistics of the real ones at hand",
        ("work", "ours", "eigenvalues of the product", "ratio"),
        tuple(rows),
        (
            "Ours: mean and covariance of the generated features, then the eigenvalues of a "
            "symmetric matrix; the root of the real covariance is at hand.",
            "The product: the same moments, then the eigenvalues of the covariances' product.",
            f"The forward pass: {IMAGES:,} grey images of 28 x 28 to 64 features, {AT_ONCE} at a "
            "time.",
            "One thread; both ways in turn; the median and the range.",
        ),
    )
