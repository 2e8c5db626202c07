"""One file a family of metrics; each metric registers itself by being defined."""

from .base import AcrossSeeds, Fitted, Metric, NotApplicable, Quantity, Values, as_uint8

__all__ = [
    "AcrossSeeds",
    "Fitted",
    "Metric",
    "NotApplicable",
    "Quantity",
    "Values",
    "as_uint8",
]
