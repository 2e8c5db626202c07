"""MNIST in the fixed binarisation that likelihoods are reported on."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..plugins import InputError
from .base import Split, SplitName
from .published import PublishedDataset, PublishedFile

FOLDER = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"


class AmatFile(PublishedFile):
    """A text file of zeros and ones, an image a line, with one character between two."""

    def parse(self, data: bytes, path: Path) -> NDArray[np.uint8]:
        found = np.frombuffer(data, np.uint8)
        if len(found) != 2 * np.prod(self.shape):
            raise InputError(f"{path} has {len(data)} bytes, not {2 * np.prod(self.shape)}")
        digits = found[::2] - ord("0")
        if digits.max() > 1:
            raise InputError(f"{path} does not hold zeros and ones")
        return digits.reshape(self.shape) * np.uint8(255)


class StaticMnist(PublishedDataset):
    """MNIST's digits as black and white images, each drawn once from its grey levels.

    The draw of Larochelle and Murray 2011 (AISTATS; after Salakhutdinov and Murray 2008), with its
    official splits of 50,000, 10,000 and 10,000 images. It has no labels. See
    :class:`PublishedDataset` for where the files are looked for.
    """

    name = "static_mnist"
    description = "70,000 handwritten digits in a fixed black and white draw, 1×28×28, no labels"
    mirrors: ClassVar = (FOLDER,)
    files: ClassVar = (
        AmatFile(
            "binarized_mnist_train.amat",
            (50_000, 28, 28),
            ("ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",),
        ),
        AmatFile(
            "binarized_mnist_valid.amat",
            (10_000, 28, 28),
            ("1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",),
        ),
        AmatFile(
            "binarized_mnist_test.amat",
            (10_000, 28, 28),
            ("e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",),
        ),
    )

    def __init__(self, **limits: Any) -> None:
        super().__init__(**limits)

    def load(self) -> dict[SplitName, Split]:
        names: tuple[SplitName, ...] = ("train", "val", "test")
        return {
            name: Split(torch.from_numpy(self.obtain(file)).unsqueeze(1))
            for name, file in zip(names, self.files)
        }
