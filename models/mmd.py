"""Autoencoders whose codes are matched to the prior by their maximum mean discrepancy."""

from typing import Any, Literal

import torch
from torch import Tensor

from ..plugins import InputError
from .ae import AE
from .backbones import Backbone
from .base import Batch, DataSpec, Terms
from .vae import VAE

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

Kernel = Literal["imq", "rbf"]


def kernel_matrix(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
    r"""k(a_i, b_j) of codes (n, d) and (m, d): (n, m).

    .. math:: \text{imq:}\quad \sum_s \frac{2ds}{2ds + \lVert a - b \rVert^2}, \qquad
        \text{rbf:}\quad \exp\Bigl(-\frac{\lVert a - b \rVert^2}{d}\Bigr)

    with s in {0.1, 0.2, 0.5, 1, 2, 5, 10}, so that k(a, a) is 7 or 1. Two draws from the prior
    N(0, I) are 2d apart on average, in squares, which is what both are scaled by.
    """
    squares = (a[:, None] - b).square().sum(-1)
    if kernel == "rbf":
        return (-squares / a.shape[1]).exp()
    bases = [2 * a.shape[1] * scale for scale in SCALES]
    return torch.stack([base / (base + squares) for base in bases]).sum(0)


def mmd(kernel: Kernel, q: Tensor, p: Tensor) -> Tensor:
    r"""The squared maximum mean discrepancy of two samples (n, d), without bias: a scalar.

    .. math::
        \frac1{n(n-1)} \sum_{i \ne j} \bigl(k(q_i, q_j) + k(p_i, p_j)\bigr)
        - \frac2{n^2} \sum_{i, j} k(q_i, p_j)

    Its mean is 0 for samples of one distribution, so a single value may be below 0. One code has no
    pairs: the first sum is empty. Gretton et al. 2012, JMLR 13:723.
    """
    n = len(q)
    within = kernel_matrix(kernel, q, q) + kernel_matrix(kernel, p, p)
    pairs = within.sum() - within.diagonal().sum()
    return pairs / max(n * (n - 1), 1) - 2 * kernel_matrix(kernel, q, p).mean()


class InfoVAE(VAE):
    r"""InfoVAE: part of the KL term is replaced by the distance of all codes from the prior.

    .. math::
        -\mathbb E_{q(z|x)} \log p(x|z)
        + (1 - \alpha)\, \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I))
        + (\alpha + \lambda - 1)\, \mathrm{MMD}(q(z), \mathcal N(0, I))

    α is the weight of the information of codes on images: 0 leaves the KL term whole, 1 removes it,
    which the authors call MMD-VAE and is the default. The squared discrepancy is estimated without
    bias from a sample of z for every image of the batch and as many of the prior, see :func:`mmd`.

    It is at most about 1 for ``rbf`` where likelihoods are hundreds of nats, hence a λ of 1000; on
    digits of 8 × 8 pixels the codes collapsed at that weight, and not at 100. The
    authors' program of the MMD-VAE adds it with the weight 1 to the squared error averaged over the
    784 pixels of MNIST: a weight of 392 on nats at σ = 1. It estimates with the diagonals left in,
    and its exp(-‖·‖²/d²) is so wide that, beyond a few dimensions, it sees little but the mean.

    Zhao, Song and Ermon 2019, arXiv:1706.02262.

    Args:
        alpha: α; the KL term has the weight 1 - α.
        lambd: λ; the discrepancy has the weight α + λ - 1.
        kernel: exp(-‖·‖²/d), or inverse multiquadrics at seven scales; see :func:`kernel_matrix`.
    """

    name = "info_vae"
    reference = "Zhao et al. 2019, arXiv:1706.02262"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        alpha: float = 1.0,
        lambd: float = 1000.0,
        kernel: Kernel = "rbf",
        **kwargs: Any,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise InputError(f"model 'info_vae': alpha must be in [0, 1], not {alpha}")
        if not alpha + lambd >= 1:
            raise InputError(
                f"model 'info_vae': lambd must be {1 - alpha:g} or more at alpha = {alpha:g}, "
                f"not {lambd}: a negative weight would drive codes away from the prior"
            )
        super().__init__(data, backbone, **kwargs)
        self.alpha, self.weight, self.kernel = alpha, alpha + lambd - 1, kernel

    def losses(self, batch: Batch) -> Terms:
        posterior = self.posterior(batch.x, batch.y)
        z = posterior.sample()
        raw = self.raw(z, self.condition(*batch))
        reconstruction = self.reconstruction_loss(raw, batch.x)
        kl = posterior.kl_to_standard().sum(-1).mean()
        discrepancy = mmd(self.kernel, z, self.sample_prior(len(z)))
        return {
            "loss": reconstruction + (1 - self.alpha) * kl + self.weight * discrepancy,
            "reconstruction": reconstruction,
            "kl": kl,
            "mmd": discrepancy,
        }


class WAEMMD(AE):
    r"""WAE-MMD: a deterministic autoencoder whose codes, taken together, match the prior N(0, I).

    .. math:: -\log p(x \mid g(f(x))) + \lambda\, \mathrm{MMD}(q(z), \mathcal N(0, I))

    The squared discrepancy of a batch's codes from as many draws of the prior, without bias, by
    inverse multiquadrics at seven scales, added up; see :func:`mmd` and :func:`kernel_matrix`.

    The paper's λ weighs against a cost c(x, x̂). Its program has c = 0.05 ‖x - x̂‖² and λ = 10 for
    MNIST in [0, 1]: over ‖x - x̂‖²/2σ², ours, that is a weight of 10 · 0.5/(0.05 σ²) = 100 at σ = 1.
    For CelebA (λ = 100, pixels in [-1, 1], so c is 0.2 ‖x - x̂‖² of ours) it is 250. The program
    also adds noise of deviation 0.01 to the images it encodes, and first fits the moments of the
    codes to those of the prior; the paper does neither, nor does this.

    Tolstikhin et al. 2018, arXiv:1711.01558.

    Args:
        weight: λ, the weight of the discrepancy.
        kernel: inverse multiquadrics, or exp(-‖·‖²/d).
    """

    name = "wae_mmd"
    sampler = "prior"
    reference = "Tolstikhin et al. 2018, arXiv:1711.01558"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        weight: float = 100.0,
        kernel: Kernel = "imq",
        **kwargs: Any,
    ) -> None:
        self.at_least(0, weight=weight)
        super().__init__(data, backbone, **kwargs)
        self.weight, self.kernel = weight, kernel

    def sample_prior(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, device=self.device)

    def losses(self, batch: Batch) -> Terms:
        z = self.code(batch.x)
        reconstruction = self.reconstruction_loss(self.raw(z), batch.x)
        discrepancy = mmd(self.kernel, z, self.sample_prior(len(z)))
        return {
            "loss": reconstruction + self.weight * discrepancy,
            "reconstruction": reconstruction,
            "mmd": discrepancy,
        }
