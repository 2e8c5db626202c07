"""One file a feature extractor; each registers itself by being defined."""

from .base import Extractor

__all__ = ["Extractor"]
