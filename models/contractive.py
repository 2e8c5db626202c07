"""Autoencoders whose code is made insensitive to the image by a penalty on its derivatives."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from .backbones import Backbone
from .base import Batch, DataSpec, Terms
from .sparse import SigmoidAE, squared_weights


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode for a while.

    Batch normalisation in training mode makes an image's output depend on the other images, and
    has no Jacobian of its own.
    """
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def directions(code: Tensor, probes: int) -> Tensor:
    r"""Vectors v of the space of codes (B, d), with Σ v vᵀ = I on average: (n, B, d).

    Random signs over √``probes``, so that Σ‖vᵀJ‖² is an unbiased estimate of ‖J‖² (Hutchinson
    1990), or the d unit vectors where ``probes`` is at least d, which make it exact.
    """
    dim = code.shape[1]
    if dim <= probes:
        units = torch.eye(dim, dtype=code.dtype, device=code.device)
        return units.unsqueeze(1).expand(dim, *code.shape)
    signs = torch.randint(2, (probes, *code.shape), dtype=code.dtype, device=code.device)
    return (2 * signs - 1) / probes**0.5


class ContractiveAE(SigmoidAE):
    r"""Contractive autoencoder: the code changes little with the image.

    .. math::
        -\log p(x \mid g(h)) + \lambda \lVert J_h(x) \rVert_F^2
        + \tfrac{\mu}{2} \lVert W_g \rVert^2, \quad h = \mathrm{sigmoid}(f(x))

    Codes are (B, d) in (0, 1), and J_h(x) = ∂h/∂x is the Jacobian of one image's code, its squares
    summed over the image and the code and averaged over the batch. The paper's encoder is one
    layer, where the norm is Σ_j (h_j (1 - h_j))² Σ_i W_ji². For any encoder it is here the sum of
    squared vector-Jacobian products with ``probes`` random directions an image: an unbiased
    estimate, and the exact value where ``probes`` is d or more. Batch normalisation reads its
    running statistics there.

    The paper ties the decoder's weights to the encoder's. Where they are not tied, an encoder that
    shrinks and a decoder that grows by as much drive the penalty to zero and change no image; the
    decoder of a backbone cannot be tied, so its weights W_g pay too. The paper's loss is the
    cross-entropy: ``likelihood: bernoulli``.

    Rifai et al. 2011, ICML, where λ was chosen by validation.

    Args:
        contraction: λ, the weight of ‖J‖².
        weight_decay: μ, the weight of ½‖W_g‖², without biases.
        probes: how many directions estimate ‖J‖²; the penalty's cost is proportional to it.
    """

    name = "contractive_ae"
    reference = "Rifai et al. 2011, ICML"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        contraction: float = 0.1,
        weight_decay: float = 1e-4,
        probes: int = 1,
        **kwargs: Any,
    ) -> None:
        self.at_least(0, contraction=contraction, weight_decay=weight_decay)
        self.at_least(1, probes=probes)
        super().__init__(data, backbone, **kwargs)
        self.contraction, self.weight_decay, self.probes = contraction, weight_decay, probes

    def squared_jacobian(self, x: Tensor) -> Tensor:
        """‖∂h/∂x‖² of images (B, C, H, W), or its estimate: (B,)."""
        with evaluating(self.encoder):
            h, pull = vjp(self.code, x)[:2]
            (rows,) = vmap(pull)(directions(h, self.probes))
        return rows.square().flatten(2).sum((0, 2))

    def losses(self, batch: Batch) -> Terms:
        reconstruction = self.reconstruction_loss(self.raw(self.code(batch.x)), batch.x)
        contraction = self.squared_jacobian(batch.x).mean()
        weights = squared_weights(self.decoder)
        return {
            "loss": reconstruction + self.contraction * contraction + self.weight_decay * weights,
            "reconstruction": reconstruction,
            "contraction": contraction,
            "weights": weights,
        }
