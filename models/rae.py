"""Regularised autoencoders: deterministic, with small codes and a smooth decoder."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn.utils.parametrizations import spectral_norm

from .ae import AE
from .backbones import Backbone
from .base import Batch, DataSpec, Terms
from .contractive import directions, evaluating


class RAE(AE):
    r"""What the regularised autoencoders share.

    .. math:: -\log p(x \mid D(z)) + \tfrac{\beta}{2} \lVert z \rVert^2 + \lambda L_\text{REG}(D),
        \quad z = E(x)

    Codes are (B, d). The decoder's regulariser is what the variants differ in; the sampler is the
    paper's mixture fitted to the codes of the trained model.

    Weights are of nats. The paper adds its terms to ‖x - x̂‖², which is 2σ² times ours, so its β and
    λ over 2σ² are ours. The authors' program averages over the D pixels and over the d dimensions
    instead of adding up: its β · D/dσ² and its λ · D/2σ² are ours. The defaults are its setting of
    MNIST at σ = 1, D = 32 · 32 and d = 16. Ghosh et al. 2020, arXiv:1903.12436.

    Args:
        beta: β, the weight of ½‖z‖².
    """

    reference = "Ghosh et al. 2020, arXiv:1903.12436"

    def __init__(self, data: DataSpec, backbone: Backbone, *, beta: float, **kwargs: Any) -> None:
        self.at_least(0, beta=beta)
        super().__init__(data, backbone, **kwargs)
        self.beta = beta

    def regularised(self, x: Tensor, z: Tensor) -> Terms:
        """The terms of images (B, C, H, W) and their codes (B, d)."""
        reconstruction = self.reconstruction_loss(self.raw(z), x)
        embedding = 0.5 * z.square().sum(1).mean()
        return {
            "loss": reconstruction + self.beta * embedding,
            "reconstruction": reconstruction,
            "embedding": embedding,
        }

    def losses(self, batch: Batch) -> Terms:
        return self.regularised(batch.x, self.code(batch.x))


class RAEL2(RAE):
    r"""RAE-L2: weight decay of the decoder alone.

    .. math:: -\log p(x \mid D(z)) + \tfrac{\beta}{2} \lVert z \rVert^2
        + \lambda \lVert \theta_D \rVert^2

    θ_D are all parameters of the decoder, as in the paper; the authors' program decays the kernels
    of its transposed convolutions. β = 1e-4 · 1024/16 and λ = 1e-7 · 1024/2 from its setting of
    MNIST (see :class:`RAE` for the units). Ghosh et al. 2020, arXiv:1903.12436.

    Args:
        beta: β, the weight of ½‖z‖².
        weight: λ, the weight of ‖θ_D‖².
    """

    name = "rae_l2"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        beta: float = 6.4e-3,
        weight: float = 5.12e-5,
        **kwargs: Any,
    ) -> None:
        self.at_least(0, weight=weight)
        super().__init__(data, backbone, beta=beta, **kwargs)
        self.weight = weight

    def regularised(self, x: Tensor, z: Tensor) -> Terms:
        terms = super().regularised(x, z)
        penalty = torch.stack([p.square().sum() for p in self.decoder.parameters()]).sum()
        return terms | {"loss": terms["loss"] + self.weight * penalty, "penalty": penalty}


class RAEGP(RAE):
    r"""RAE-GP: a penalty on the decoder's derivatives at the codes of the images.

    .. math:: -\log p(x \mid D(z)) + \tfrac{\beta}{2} \lVert z \rVert^2
        + \lambda \lVert \nabla_z D(z) \rVert_F^2, \quad z = E(x)

    D(z) is the mean image, so the gradient is its D × d Jacobian by the code; its squares are
    summed over both and averaged over the batch. They are those of Jacobian-vector products with
    ``probes`` random directions an image: an unbiased estimate, and the exact value where
    ``probes`` is d or more. Batch normalisation reads its running statistics there. As the
    objective says, the encoder is trained by it too, through z.

    The authors' program penalises the gradient of the scalar ‖D(z)‖² instead, which does not see a
    decoder that changes an image without changing its norm. At the codes of models trained on MNIST
    its square was 16.7 times ‖∇D‖², so this λ weighs there what theirs does:
    16.7 · 0.5e-7 · 1024/2 · 1/16, where 1/16 is its average over the code.

    Ghosh et al. 2020, arXiv:1903.12436.

    Args:
        beta: β, the weight of ½‖z‖².
        weight: λ, the weight of ‖∇D‖².
        probes: how many directions estimate ‖∇D‖²; the penalty's cost is proportional to it.
    """

    name = "rae_gp"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        beta: float = 6.4e-3,
        weight: float = 2.7e-5,
        probes: int = 1,
        **kwargs: Any,
    ) -> None:
        self.at_least(0, weight=weight)
        self.at_least(1, probes=probes)
        super().__init__(data, backbone, beta=beta, **kwargs)
        self.weight, self.probes = weight, probes

    def squared_jacobian(self, z: Tensor) -> Tensor:
        """‖∂D/∂z‖² at codes (B, d), or its estimate: (B,)."""

        def mean(z: Tensor) -> Tensor:
            return self.observation.mean(self.raw(z))

        with evaluating(self.decoder):
            columns = vmap(lambda v: jvp(mean, (z,), (v,))[1])(directions(z, self.probes))
        return columns.square().flatten(2).sum((0, 2))

    def regularised(self, x: Tensor, z: Tensor) -> Terms:
        terms = super().regularised(x, z)
        penalty = self.squared_jacobian(z).mean()
        return terms | {"loss": terms["loss"] + self.weight * penalty, "penalty": penalty}


class RAESN(RAE):
    r"""RAE-SN: every weight matrix of the decoder has spectral norm 1.

    .. math:: -\log p(x \mid D(z)) + \tfrac{\beta}{2} \lVert z \rVert^2,
        \quad \sigma_1(W) = 1 \text{ for every weight } W \text{ of } D

    A convolution's weight is a matrix of its output channels by the rest, as in Miyato et al. 2018
    (arXiv:1802.05957). The largest singular value comes from a power iteration that advances by one
    at every training step and at no other time, so that training and evaluation compute the same
    function. The authors' program normalises the encoder too; the paper the decoder.

    β = 9e-3 · 1024/16 from its setting of MNIST (see :class:`RAE` for the units). Its decoder has
    batch normalisation, which gives the scale back that the norms take; in one that has none, such
    as ``mlp`` or ``conv``, only large codes reach far from the mean image and β wants to be some
    hundred times smaller.

    Ghosh et al. 2020, arXiv:1903.12436.

    Args:
        beta: β, the weight of ½‖z‖².
    """

    name = "rae_sn"

    def __init__(
        self, data: DataSpec, backbone: Backbone, *, beta: float = 0.576, **kwargs: Any
    ) -> None:
        super().__init__(data, backbone, beta=beta, **kwargs)
        self.norms: list[nn.Module] = []
        for layer in list(self.decoder.modules()):
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.ndim > 1:
                spectral_norm(layer)
                self.norms.append(layer.get_submodule("parametrizations.weight"))
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for norm in self.norms:  # in training mode every reading of a weight would change it
            norm.eval()
        return self

    @torch.no_grad()
    def iterate(self) -> None:
        """Advance the power iteration of every weight by one."""
        for norm in self.norms:
            norm.train()
            norm()
            norm.eval()

    def losses(self, batch: Batch) -> Terms:
        if self.training:
            self.iterate()
        return super().losses(batch)
