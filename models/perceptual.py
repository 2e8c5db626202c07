"""Variational autoencoders that compare images as people or networks see them, not by pixels."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..plugins import InputError
from .backbones import Backbone
from .base import Autoencoder, Batch, DataSpec, Terms
from .similarity import ms_ssim
from .vae import VAE

LEAST = 1e-3
"""What MS-SSIM's means count as at least, so that gradients are bounded."""
IMAGES = 1000
"""Training images by which the sizes of feature maps are measured."""


class PerceptualVAE(VAE):
    r"""What variants share whose reconstruction term is no likelihood; they implement ``distance``.

    .. math:: \lambda\,\mathbb E_{q(z|x)}\,\mathrm{distance}(x, g(z))
        + \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I))

    g(z) is the mean image. There is no p(x|z), so no likelihood is offered. A published β of the
    KL term, beside a distance of weight 1, is 1/λ.

    Args:
        weight: λ, the nats that a distance of 1 is worth.
    """

    log_weights = Autoencoder.log_weights

    def __init__(self, data: DataSpec, backbone: Backbone, *, weight: float, **kwargs: Any) -> None:
        self.at_least(0, weight=weight)
        super().__init__(data, backbone, **kwargs)
        self.weight = weight

    def distance(self, image: Tensor, x: Tensor) -> Tensor:
        """How unlike mean images are to images, both (B, C, H, W): averaged, a scalar."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> Terms:
        posterior = self.posterior(batch.x, batch.y)
        image = self.observation.mean(self.raw(posterior.sample(), self.condition(*batch)))
        distance = self.distance(image, batch.x)
        kl = posterior.kl_to_standard().sum(-1).mean()
        return {"loss": self.weight * distance + kl, "distance": distance, "kl": kl}


class MSSSIMVAE(PerceptualVAE):
    r"""VAE whose reconstructions are judged by their multi-scale structural similarity.

    .. math:: \lambda\,\mathbb E_{q(z|x)} [1 - \mathrm{MSSSIM}(x, g(z))]
        + \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I))

    The similarity is that of the metric ``ms_ssim`` (:func:`ms_ssim`), with a mean of at least
    0.001 on every scale, for gradients. It is at most 1, so that λ is about the number of nats that
    an image's reconstruction may cost: 100 is what Pythae's benchmark has for MNIST, as a β of
    0.01; for CelebA it has 1,000. Snell et al. 2017, arXiv:1511.06409.

    Args:
        weight: λ, the nats that a distance of 1 is worth.
    """

    name = "ms_ssim_vae"
    reference = "Snell et al. 2017, arXiv:1511.06409"

    def __init__(
        self, data: DataSpec, backbone: Backbone, *, weight: float = 100.0, **kwargs: Any
    ) -> None:
        if min(data.shape[1:]) < 3:
            raise InputError(f"model 'ms_ssim_vae' needs images of 3 pixels, not {data.shape}")
        super().__init__(data, backbone, weight=weight, **kwargs)

    def distance(self, image: Tensor, x: Tensor) -> Tensor:
        return 1 - ms_ssim(image, x, LEAST).mean().float()


class DFCVAE(PerceptualVAE):
    r"""Deep feature consistent VAE: reconstructions are judged by a network's feature maps Φ.

    .. math:: \lambda\,\frac D2 \sum_l \mathbb E_{q(z|x)}
        \frac{\lVert \Phi_l(x) - \Phi_l(g(z)) \rVert^2}{\mathbb E_x \lVert \Phi_l(x) \rVert^2}
        + \mathrm{KL}(q(z|x)\,\Vert\,\mathcal N(0, I))

    The maps are those of an extractor, which the benchmark hands to :meth:`perceive` before the
    training and which stays as it is; nothing else needs it. The paper adds up
    ‖Φ_l(x) - Φ_l(g(z))‖²/2n_l, n_l the size of map l, with the weight 0.5, on VGG-19's first three
    stages or its last (its "123" and "345", here ``vgg19`` and ``vgg19_345``). Here each map is
    measured by its own mean square over training images instead, and the whole by the D pixels, as
    half a squared error is: λ then means the same for every extractor and image size.

    Hou et al. 2017, arXiv:1610.00291.

    Args:
        weight: λ, the nats that a distance of 1 is worth.
        extractor: the extractor whose maps are compared, such as ``classifier`` or ``vgg19``.
    """

    name = "dfc_vae"
    perceives = True
    reference = "Hou et al. 2017, arXiv:1610.00291"

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        weight: float = 1.0,
        extractor: str = "classifier",
        **kwargs: Any,
    ) -> None:
        super().__init__(data, backbone, weight=weight, **kwargs)
        self.extractor = extractor
        self.maps: Callable[[Tensor], list[Tensor]] | None = None
        self.sizes: list[Tensor] = []

    def perceive(self, maps: Callable[[Tensor], list[Tensor]]) -> None:
        self.maps, self.sizes = maps, []

    def seen(self, x: Tensor) -> list[Tensor]:
        """Φ of images (B, C, H, W): each (B, n).

        Raises:
            InputError: no maps were given.
        """
        if self.maps is None:
            raise InputError(f"model {self.name!r} needs feature maps: call perceive")
        return [found.flatten(1) for found in self.maps(x)]

    @torch.no_grad()
    def initialise(self, batches: Iterable[Batch]) -> None:
        squares: list[list[Tensor]] = []
        images = 0
        for batch in batches:
            squares.append([found.square().sum(1) for found in self.seen(batch.x)])
            images += len(batch.x)
            if images >= IMAGES:
                break
        self.sizes = [torch.cat(found).mean().clamp(min=1e-12) for found in zip(*squares)]

    def distance(self, image: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.seen(x)
        if not self.sizes:
            raise InputError(f"model {self.name!r} has not measured its maps: call initialise")
        relative = [
            (a - b).square().sum(1).mean() / size
            for a, b, size in zip(self.seen(image), wanted, self.sizes, strict=True)
        ]
        return 0.5 * self.pixels * torch.stack(relative).sum()
