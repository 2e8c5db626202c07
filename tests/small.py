"""Small models and batches for tests of models."""

from typing import Any

import torch
from aebench.models import Autoencoder, Backbone, Batch, ClosedForm, DataSpec, model_from
from torch import Tensor
from torch.nn import functional as F

SMALL: dict[str, dict[str, Any]] = {
    "aae": {"discriminator": [64]},
    "admixture": {"tolerance": 1e-2},
    "ciwae": {"samples": 6},
    "hierarchical_vampprior_vae": {"components": 20, "hidden": 32},
    "iwae": {"samples": 5},
    "miwae": {"samples": 3, "estimates": 2},
    "mog_vae": {"components": 20},
    "piwae": {"samples": 3, "estimates": 2},
    "rbm_ae": {"hidden": [64, 32], "pretraining": 2},
    "stacked_dae": {"hidden": [64, 32], "pretraining": 2},
    "vampprior_vae": {"components": 20},
}
"""Hyper-parameters that make a model quick to test; a model that is not here has its own."""


def backbone(name: str = "mlp") -> Backbone:
    small = {"mlp": {"hidden": [32]}, "conv": {"width": 4}}
    cls = Backbone.choose(name)
    return cls(**cls.complete(small.get(name, {})))


def make(
    name: str, shape: tuple[int, int, int] = (1, 8, 8), net: str = "mlp", **hyperparameters: object
) -> Autoencoder:
    """The untrained model ``name`` on a small backbone, for 64 images of 10 classes."""
    torch.manual_seed(0)
    return model_from(name, hyperparameters, DataSpec(shape, 10, 64), backbone(net))


def quick(name: str, shape: tuple[int, int, int] = (1, 8, 8), net: str = "mlp") -> Autoencoder:
    """What :func:`make` gives, with the hyper-parameters of :data:`SMALL`."""
    return given_maps(make(name, shape, net, **SMALL.get(name, {})))


def batch(shape: tuple[int, int, int] = (1, 8, 8), n: int = 64, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *shape, generator=generator)
    return Batch(x, torch.randint(10, (n,), generator=generator))


def ready(model: Autoencoder, data: Batch) -> Autoencoder:
    """The model with whatever it takes from data before its first step."""
    if isinstance(model, ClosedForm):
        model.fit(data.x, 0)
    else:
        model.initialise([data])
    return model


def given_maps(model: Autoencoder) -> Autoencoder:
    """The model with feature maps to compare images by, where its loss reads some."""
    if getattr(model, "perceives", False):
        model.perceive(maps)
    return model


def maps(images: Tensor) -> list[Tensor]:
    """Images at two scales, as an extractor's feature maps."""
    return [images, F.avg_pool2d(images, 2)]
