"""One file a family of metrics; each metric registers itself by being defined."""

from .base import Fitted, Metric, NotApplicable, Quantity, as_uint8

__all__ = ["Fitted", "Metric", "NotApplicable", "Quantity", "as_uint8"]
