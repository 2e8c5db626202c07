"""scikit-learn's handwritten digits: real data that needs no download."""

import torch

from .base import Dataset, Split, SplitName


class Digits(Dataset):
    """1,797 handwritten digits of 8 × 8 pixels, in 10 classes.

    The test part of the UCI set (Alpaydin and Kaynak 1998,
    https://archive.ics.uci.edu/dataset/80), which comes with scikit-learn. Its grey levels 0 to 16
    are scaled to 0 to 255 and rounded. Split 70 / 10 / 20 by a fixed permutation.
    """

    name = "digits"
    description = "1,797 handwritten digits, 1×8×8, 10 classes; comes with scikit-learn"

    def load(self) -> dict[SplitName, Split]:
        from sklearn.datasets import load_digits

        held = load_digits()
        images = torch.from_numpy(held.images * 255 / 16).round().to(torch.uint8).unsqueeze(1)
        return self.permuted(Split(images, torch.from_numpy(held.target).long()))
