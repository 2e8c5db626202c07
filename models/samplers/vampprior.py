"""The mixture of the posteriors of training images."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .base import Sampler

if TYPE_CHECKING:
    from ..base import Autoencoder, Batch

IMAGES_AT_ONCE = 500
"""Images that are encoded at a time."""


class VampPrior(Sampler):
    r"""A mixture of the posteriors of K training images u, any model's that has posteriors.

    .. math:: p(z) = \frac1K \sum_k q(z|u_k)

    A draw is one from q(z|u_k) of a k that is drawn uniformly: with K = N this is the aggregate
    posterior of the training split. Tomczak and Welling 2018 (arXiv:1705.07120) train the model
    against such a prior with learned u; the variants that do have it as their own ``prior``.

    Args:
        components: K, the number of images, or as many as there are.
    """

    name = "vampprior"
    description = "mixture of the posteriors of training images"
    reads_images = True

    def __init__(self, *, components: int = 500) -> None:
        self.at_least(1, components=components)
        self.components = components

    def why_not(self, model: "Autoencoder") -> str:
        if model.discrete:
            return "the codes are discrete"
        return "" if model.offers("posterior") else "the model has no posterior"

    def fit_images(self, model: "Autoencoder", batches: "Iterable[Batch]", seed: int) -> None:
        images, labels, found = [], [], 0
        for x, y in batches:
            images.append(x)
            labels.append(y)
            found += len(x)
            if found >= self.components:
                break
        self.images = torch.cat(images)[: self.components]
        given = [y for y in labels if y is not None]
        self.labels = torch.cat(given)[: self.components] if given else None

    @torch.no_grad()
    def sample(self, model: "Autoencoder", n: int) -> Tensor:
        chosen = torch.randint(len(self.images), (n,), device=self.images.device)
        drawn = []
        for k in chosen.split(IMAGES_AT_ONCE):
            y = None if self.labels is None else self.labels[k]
            drawn.append(model.posterior(self.images[k], y).sample())
        return torch.cat(drawn)
