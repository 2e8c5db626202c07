"""scikit-learn's handwritten digits."""

import torch

from .base import Dataset, Split, SplitName


class Digits(Dataset):
    """stub"""

    name = "digits"

    def load(self) -> dict[SplitName, Split]:
        from sklearn.datasets import load_digits

        held = load_digits()
        images = torch.as_tensor(held.images * 255 / 16).round().to(torch.uint8).unsqueeze(1)
        return self.permuted(Split(images, torch.as_tensor(held.target)))
