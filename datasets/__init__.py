"""One file a dataset; each registers itself by being defined."""

from .base import SPLITS, Dataset, Split, SplitName, as_float

__all__ = ["SPLITS", "Dataset", "Split", "SplitName", "as_float"]
