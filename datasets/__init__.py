"""One file a dataset; each registers itself by being defined."""

from .base import SPLITS, Dataset, Split, SplitName, dataset_from

__all__ = ["SPLITS", "Dataset", "Split", "SplitName", "dataset_from"]
