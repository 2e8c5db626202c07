"""One file a family of variants; each registers itself by being defined."""

from .backbones import Backbone
from .base import Autoencoder, Batch, ClosedForm, DataSpec, Objective, Terms, model_from
from .samplers import Sampler
from .vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "Backbone",
    "Batch",
    "ClosedForm",
    "DataSpec",
    "Objective",
    "Sampler",
    "Terms",
    "model_from",
]
