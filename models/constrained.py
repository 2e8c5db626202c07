"""Variational autoencoders that set the balance of reconstruction and KL term themselves."""

import math

import torch
from torch import Tensor, nn

from ..plugins import InputError
from .backbones import Backbone
from .base import Batch, DataSpec, Terms
from .observation import LearnedGaussian
from .vae import VAE

MULTIPLIERS = (1e-6, 1e6)
"""The range that GECO's multiplier is held in, where a constraint cannot be met or always is."""


class MovingAverage(nn.Module):
    """The average of a scalar over steps, which forgets; the first value starts it.

    Args:
        decay: how much of the average a step keeps.
        start: what it is before the first step.
    """

    value: Tensor
    empty: Tensor

    def __init__(self, decay: float, start: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("value", torch.tensor(start))
        self.register_buffer("empty", torch.tensor(True))

    @torch.no_grad()
    def follow(self, value: Tensor) -> None:
        """Take the scalar of another step in."""
        moved = self.value.lerp(value, 1 - self.decay)
        self.value.copy_(torch.where(self.empty, value, moved))
        self.empty.fill_(False)


def check_decay(model: str, decay: float) -> None:
    """Refuse a decay of a moving average outside [0, 1).

    Raises:
        InputError: naming the model and the value.
    """
    if not 0 <= decay < 1:
        raise InputError(f"model {model!r}: decay must be in [0, 1), not {decay}")


class GECO(VAE):
    r"""GECO: the least KL term at which reconstructions are within a tolerance.

    .. math::
        \min \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I)) \quad\text{where}\quad
        C = \mathbb E_{q(z|x)} \lVert x - g(z) \rVert^2 - \kappa^2 \le 0

    by gradient steps on KL + λC, in nats and squared pixels an image. The multiplier λ starts at 1;
    after every step it is multiplied by exp(ν min(C̄/κ², 1)), C̄ the moving average of C. The loss
    has the value of C̄ and the gradient of the batch's C. ``tolerance`` is τ, the root of the mean
    squared error of a pixel: κ² = Dτ², so that it means one thing for images of every size.

    The paper leaves the size of λ's steps open. C̄/κ² is -1 or more, so that here λ changes by a
    factor of at most exp(ν), either way, while C̄ is still that of an untrained network too.

    The observation model is the Gaussian of σ = τ, whose squared error is κ² in expectation. λ
    changes, so that losses of two epochs do not compare: ``penalised`` picks the checkpoint,

    .. math:: \mathrm{KL} + \frac{\max(C, 0)}{2\tau^2}

    which is least at the constrained optimum wherever λ there is below 1/2τ², the weight of squared
    pixels in the ELBO. Where it is not, the tolerance is finer than that ELBO would pay for.

    Rezende and Viola 2018, arXiv:1810.00597, with averages of decay 0.99. Their κ is chosen for a
    dataset; 0.15 a pixel is κ² = 18 for MNIST.

    Args:
        latent_dim: d, the dimension of the code.
        tolerance: τ, the root of the mean squared error that is allowed, in pixels of [0, 1].
        rate: ν, the most that log λ changes in a step.
        decay: how much of the average of C a step keeps.
    """

    name = "geco"
    selection = "penalised"
    reference = "Rezende and Viola 2018, arXiv:1810.00597"
    multiplier: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        latent_dim: int = 16,
        tolerance: float = 0.15,
        rate: float = 0.005,
        decay: float = 0.99,
    ) -> None:
        for name, value in (("tolerance", tolerance), ("rate", rate)):
            if not value > 0:
                raise InputError(f"model 'geco': {name} must be positive, not {value}")
        check_decay("geco", decay)
        super().__init__(
            data, backbone, latent_dim=latent_dim, likelihood="gaussian", sigma=tolerance
        )
        self.tolerance, self.rate = tolerance, rate
        self.average = MovingAverage(decay, 0.0)
        self.register_buffer("multiplier", torch.tensor(1.0))

    def losses(self, batch: Batch) -> Terms:
        posterior = self.posterior(batch.x, batch.y)
        raw = self.raw(posterior.sample(), self.condition(*batch))
        squares = (self.observation.mean(raw) - batch.x).square().flatten(1).sum(1).mean()
        kl = posterior.kl_to_standard().sum(-1).mean()
        constraint = squares - self.pixels * self.tolerance**2
        multiplier = self.multiplier.clone()
        valued = constraint
        if self.training:
            self.average.follow(constraint.detach())
            valued = constraint + (self.average.value - constraint).detach()
            self.adapt()
        return {
            "loss": kl + multiplier * valued,
            "kl": kl,
            "constraint": constraint,
            "multiplier": multiplier,
            "penalised": kl + constraint.clamp(min=0) / (2 * self.tolerance**2),
        }

    @torch.no_grad()
    def adapt(self) -> None:
        """Move the multiplier by the average of the constraint."""
        relative = self.average.value / (self.pixels * self.tolerance**2)
        self.multiplier.mul_((self.rate * relative.clamp(max=1)).exp()).clamp_(*MULTIPLIERS)


class SigmaVAE(VAE):
    r"""σ-VAE: the Gaussian decoder's σ is the optimum for the batch.

    .. math::
        D \log \sigma + \frac{\mathbb E_{q(z|x)} \lVert x - g(z) \rVert^2}{2\sigma^2}
        + \frac D2 \log 2\pi + \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I)), \quad
        \sigma = \sqrt{\tfrac1D \mathbb E \lVert x - g(z) \rVert^2} + e^{-6}

    in nats an image; the mean squared error is over images and pixels alike. e^-6, half a grey
    level of 256, is what the authors' soft bound of log σ ≥ -6 comes to. No gradient goes through
    σ: at its optimum there is none, so that the loss has the gradient of D/2 log ‖x - g(z)‖² + KL.

    A likelihood may not depend on the images that it is asked for with. Outside training σ is that
    of the moving average of the training batches' mean squared errors, and 1 before the first;
    the authors' program takes the test batch's own.

    Rybkin, Daniilidis and Levine 2021, arXiv:2006.13202.

    Args:
        latent_dim: d, the dimension of the code.
        decay: how much of the average of the squared errors a step keeps.
    """

    name = "sigma_vae"
    reference = "Rybkin et al. 2021, arXiv:2006.13202"
    observation: LearnedGaussian

    def __init__(
        self, data: DataSpec, backbone: Backbone, *, latent_dim: int = 16, decay: float = 0.99
    ) -> None:
        check_decay("sigma_vae", decay)
        super().__init__(data, backbone, latent_dim=latent_dim, likelihood="gaussian")
        self.error = MovingAverage(decay, 1.0)
        self.observation = LearnedGaussian(self.deviation, backbone.squash)

    def deviation(self) -> Tensor:
        """σ outside training: a scalar."""
        return deviation(self.error.value)

    def losses(self, batch: Batch) -> Terms:
        posterior = self.posterior(batch.x, batch.y)
        raw = self.raw(posterior.sample(), self.condition(*batch))
        sigma = self.deviation()
        if self.training:
            error = (self.observation.mean(raw) - batch.x).square().mean().detach()
            self.error.follow(error)
            sigma = deviation(error)
        reconstruction = -self.observation.log_prob(raw, batch.x, sigma).mean()
        kl = posterior.kl_to_standard().sum(-1).mean()
        return {
            "loss": reconstruction + kl,
            "reconstruction": reconstruction,
            "kl": kl,
            "sigma": sigma,
        }


def deviation(error: Tensor) -> Tensor:
    """The σ of a mean squared error."""
    return error.sqrt() + math.exp(-6)
