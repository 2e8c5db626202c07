"""MNIST and its drop-in replacements: four IDX files, found or downloaded, always checked."""

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..plugins import InputError
from ..seeds import derive_seed
from .base import Split, SplitName, binary
from .published import PublishedDataset, PublishedFile

SIDE = 28


class IdxFile(PublishedFile):
    """A file of unsigned bytes in the IDX format, gzipped where it is published."""

    suffix = ".gz"

    def parse(self, data: bytes, path: Path) -> NDArray[np.uint8]:
        # Two zeros, 8 for unsigned bytes, the number of axes; then the length of each in 4 bytes.
        magic, header = bytes([0, 0, 8, len(self.shape)]), 4 + 4 * len(self.shape)
        if not data.startswith(magic):
            raise InputError(
                f"{path} is not an IDX file of {len(self.shape)} axes: it begins with "
                f"{data[:4].hex() or 'nothing'}, not {magic.hex()}"
            )
        if len(data) < header:
            raise InputError(f"{path} is cut short: {len(data)} bytes")
        shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
        if shape != self.shape:
            raise InputError(f"{path} holds an array of shape {shape}, not {self.shape}")
        promised = header + math.prod(shape)
        if len(data) != promised:
            raise InputError(f"{path} has {len(data)} bytes where its header says {promised}")
        return np.frombuffer(data, np.uint8, offset=header).reshape(shape)

    def spellings(self) -> tuple[str, ...]:
        return (self.name, self.name.replace("-idx", ".idx"))


def idx_files(*hashes: tuple[str, ...]) -> tuple[IdxFile, ...]:
    """MNIST's four files with the hashes of each, in this order."""
    shapes: dict[str, tuple[int, ...]] = {
        "train-images-idx3-ubyte": (60_000, SIDE, SIDE),
        "train-labels-idx1-ubyte": (60_000,),
        "t10k-images-idx3-ubyte": (10_000, SIDE, SIDE),
        "t10k-labels-idx1-ubyte": (10_000,),
    }
    return tuple(IdxFile(*item, known) for item, known in zip(shapes.items(), hashes, strict=True))


class IdxDataset(PublishedDataset):
    """28 × 28 grey images in 10 classes, in the four files of MNIST.

    See :class:`PublishedDataset` for where the files are looked for; each may also be spelt
    ``….idx3-ubyte``. The official test set is test; the official training set is cut into 50,000
    train and 10,000 val by a fixed permutation.

    Args:
        binarisation: ``dynamic`` takes a grey level as the probability of white and draws the
            training images anew every epoch, val and test once (Salakhutdinov and Murray 2008;
            the protocol of Burda et al. 2016, arXiv:1509.00519); ``threshold`` makes white what is
            brighter than half. The published fixed draw is the dataset ``static_mnist``.
        size: the side of an image in pixels, 28 or more, reached by a black margin.
        limits: ``train``, ``val``, ``test`` and ``held_out``, see :class:`Dataset`.

    Attributes:
        files: training images and labels, then test images and labels.
        val_size: the size of val.

    Raises:
        InputError: ``size`` is odd or out of range.
    """

    files: ClassVar[tuple[IdxFile, ...]]
    val_size: ClassVar[int] = 10_000

    def __init__(
        self,
        *,
        binarisation: Literal["none", "dynamic", "threshold"] = "none",
        size: int = SIDE,
        **limits: Any,
    ) -> None:
        super().__init__(**limits)
        if not SIDE <= size <= 256 or size % 2:
            raise InputError(f"dataset {self.name!r}: size must be even, 28 to 256, not {size}")
        self.binarisation, self.size = binarisation, size

    def load(self) -> dict[SplitName, Split]:
        arrays = [torch.from_numpy(self.obtain(file).copy()) for file in self.files]
        training, test = (
            Split(images.unsqueeze(1), labels.long()) for images, labels in (arrays[:2], arrays[2:])
        )
        order = self.permutation(len(training))
        return {
            "train": self.prepared(training.take(order[: -self.val_size]), "train"),
            "val": self.prepared(training.take(order[-self.val_size :]), "val"),
            "test": self.prepared(test, "test"),
        }

    def prepared(self, split: Split, name: SplitName) -> Split:
        """A split of the published images, in this dataset's size and binarisation."""
        grey = padded(split.images(), self.size)
        if self.binarisation == "none":
            return Split(grey, split.labels)
        if self.binarisation == "threshold":
            return Split((grey > 127).to(torch.uint8) * 255, split.labels)
        seed = derive_seed(self.name, "binarisation", name)
        drawn = binary(grey, torch.Generator().manual_seed(seed))
        return Split(drawn, split.labels, grey=grey if name == "train" else None)


def padded(images: Tensor, size: int) -> Tensor:
    """Square images (n, C, S, S) with a black margin, (n, C, size, size)."""
    margin = (size - images.shape[-1]) // 2
    return F.pad(images, (margin,) * 4)


class Mnist(IdxDataset):
    """Handwritten digits (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist/).

    See :class:`IdxDataset` for its parameters, its splits and where the files are looked for.
    """

    name = "mnist"
    description = "70,000 handwritten digits, 1×28×28, 10 classes"
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    files = idx_files(
        ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",),
        ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",),
        ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",),
        ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",),
    )


class FashionMnist(IdxDataset):
    """Articles of clothing (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747).

    See :class:`IdxDataset` for its parameters, its splits and where the files are looked for.
    """

    name = "fashion_mnist"
    description = "70,000 articles of clothing, 1×28×28, 10 classes"
    mirrors = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    )
    files = idx_files(
        ("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",),
        ("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",),
        ("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",),
        ("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",),
    )


class Kmnist(IdxDataset):
    """Cursive Japanese characters (Clanuwat et al. 2018, arXiv:1812.01718; CC BY-SA 4.0).

    See :class:`IdxDataset` for its parameters, its splits and where the files are looked for. The
    training images are known by the SHA-256 of the published gzip file, which torchvision's sources
    state, and by git's hash of their content, as public repositories hold it.
    """

    name = "kmnist"
    description = "70,000 cursive Japanese characters, 1×28×28, 10 classes"
    mirrors = (
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    )
    files = idx_files(
        (
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "3cf037df1ccd08cf71c7e9465ca6bc729e79a251",
        ),
        ("2a16eeae62da984b8bd24fa32e31d47291f01dac3fe84d5594f304f71e7d374b",),
        ("76fbd229ce87db80dd281af5e6670de4ad0e42fb30a7bd643972994c47c1f42e",),
        ("a11dc742be8e781a40a92f53d6a4957e7b7d36df2faa097659131ebfd8fd60c6",),
    )
