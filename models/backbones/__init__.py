"""One file a backbone; each registers itself by being defined."""

from .base import Backbone, Shape

__all__ = ["Backbone", "Shape"]
