"""One file a sampler; each registers itself by being defined."""

from .base import Sampler

__all__ = ["Sampler"]
