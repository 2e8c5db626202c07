"""MNIST and its drop-in replacements: four IDX files, found or downloaded, always checked."""

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from platformdirs import user_cache_path

from ..plugins import InputError
from .base import Dataset, Split, SplitName

GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class IdxFile:
    """One file of unsigned bytes and what it must be.

    Attributes:
        name: its name without ``.gz``.
        shape: the shape of its array.
        hashes: those known, of which one must match: the SHA-256 of the content, decompressed; the
            SHA-256 of the gzip file; or git's hash of the content as a blob.
    """

    name: str
    shape: tuple[int, ...]
    hashes: tuple[str, ...]

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The checked array in the file at ``path``, gzipped or not.

        Raises:
            InputError: it is no IDX file, cut short, of another shape, or of another hash.
        """
        raw = data = path.read_bytes()
        if raw.startswith(GZIP):
            try:
                data = gzip.decompress(raw)
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(f"{path} is a damaged gzip file: {error}") from None
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
        if not any(found in self.hashes for found in digests(raw, data)):
            raise InputError(
                f"{path} is not the published file: its content has the SHA-256 "
                f"{next(digests(raw, data))}, known is {' or '.join(self.hashes)}"
            )
        return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def digests(raw: bytes, data: bytes) -> Iterator[str]:
    """Every hash by which a file of bytes ``raw`` and content ``data`` may be known."""
    yield hashlib.sha256(data).hexdigest()
    yield hashlib.sha256(raw).hexdigest()
    yield hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def idx_files(*hashes: tuple[str, ...]) -> tuple[IdxFile, ...]:
    """MNIST's four files with the hashes of each, in this order."""
    shapes: dict[str, tuple[int, ...]] = {
        "train-images-idx3-ubyte": (60_000, 28, 28),
        "train-labels-idx1-ubyte": (60_000,),
        "t10k-images-idx3-ubyte": (10_000, 28, 28),
        "t10k-labels-idx1-ubyte": (10_000,),
    }
    return tuple(IdxFile(*item, known) for item, known in zip(shapes.items(), hashes, strict=True))


class IdxDataset(Dataset):
    """28 × 28 grey images in 10 classes, in the four files of MNIST.

    Each file, gzipped or not, spelt ``…-idx3-ubyte`` or ``….idx3-ubyte``, is looked for in
    ``$AEBENCH_DATA/<name>``, in ``$AEBENCH_DATA``, and in ``data/<name>`` of the cache:
    ``$AEBENCH_CACHE``, or the user's cache folder. A file that is nowhere is downloaded into the
    cache from the first mirror that has it; an interrupted download goes on where it stopped.

    Every file is checked by its hash, on every load. As datasets share the names, a file in
    ``$AEBENCH_DATA`` itself that fails the check is passed over; elsewhere it is an error.

    The official test set is test; the official training set is cut into 50,000 train and
    10,000 val by a fixed permutation.

    Attributes:
        mirrors: addresses to which a file's name with ``.gz`` is appended.
        files: training images and labels, then test images and labels.
        val_size: the size of val.
    """

    mirrors: ClassVar[tuple[str, ...]]
    files: ClassVar[tuple[IdxFile, ...]]
    val_size: ClassVar[int] = 10_000

    def load(self) -> dict[SplitName, Split]:
        arrays = [torch.from_numpy(self.obtain(file).copy()) for file in self.files]
        training, test = (
            Split(images.unsqueeze(1), labels.long()) for images, labels in (arrays[:2], arrays[2:])
        )
        order = self.permutation(len(training))
        return {
            "train": training.take(order[: -self.val_size]),
            "val": training.take(order[-self.val_size :]),
            "test": test,
        }

    def folders(self) -> list[Path]:
        """Where files are looked for, in order; the last is where downloads go."""
        data, cache = os.environ.get("AEBENCH_DATA"), os.environ.get("AEBENCH_CACHE")
        given = Path(data).expanduser() if data else None
        held = Path(cache).expanduser() if cache else user_cache_path("aebench")
        return [*([given / self.name, given] if given else []), held / "data" / self.name]

    def obtain(self, file: IdxFile) -> NDArray[np.uint8]:
        """The array of one file, from a folder or from a mirror.

        Raises:
            InputError: a file found is not what it should be, or none is found or downloaded.
        """
        folders, failures = self.folders(), []
        for folder in folders:
            for path in candidates(folder, file.name):
                try:
                    return file.read(path)
                except InputError as error:
                    if folder.name == self.name:
                        raise InputError(f"dataset {self.name!r}: {error}") from None
                    failures.append(str(error))
        path = folders[-1] / f"{file.name}.gz"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if path.exists():  # another process has brought it meanwhile
                    return file.read(path)
                for mirror in self.mirrors:
                    try:
                        return download(mirror + path.name, path, file)
                    except (OSError, ImportError, InputError) as error:
                        failures.append(f"{mirror}{path.name}: {error}")
        except OSError as error:
            failures.append(f"{path.parent} cannot be written: {error}")
        wanted = ", ".join(f"{file.name}.gz" for file in self.files)
        raise InputError(
            f"dataset {self.name!r}: {file.name}[.gz] is not in {', '.join(map(str, folders))} "
            f"and cannot be downloaded; put {wanted} into {folders[0]} by hand "
            f"({'; '.join(failures)})"
        )


def candidates(folder: Path, name: str) -> Iterator[Path]:
    """The files in ``folder`` that may be the one called ``name``, in either spelling."""
    for spelling in (name, name.replace("-idx", ".idx")):
        for suffix in (".gz", ""):
            path = folder / (spelling + suffix)
            if path.is_file():
                yield path


def download(url: str, path: Path, file: IdxFile) -> NDArray[np.uint8]:
    """Bring ``url`` to ``path`` and read it; ``path`` appears only whole and checked.

    What has come of an interrupted download stays in ``path``.part, and the next one asks for the
    rest. What then fails the check is dropped and asked for once more from the start.

    Raises:
        OSError: the network or the server fails.
        InputError: the file is not what it should be.
    """
    import pooch

    part = path.with_name(f"{path.name}.part")
    start = part.stat().st_size if part.exists() else 0
    # Without this a server may send the file decompressed, of which no part can be asked for.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    fetch = pooch.HTTPDownloader(chunk_size=1 << 13, timeout=30, headers=headers)
    try:
        with part.open("ab") as target:
            fetch(url, target, None)
        array = file.read(part)
    except (OSError, InputError) as error:
        # 416: there is no rest, so the part is not this file's.
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, InputError) or status == 416:
            part.unlink()
            if start:
                return download(url, path, file)
        raise
    part.replace(path)
    return array


class Mnist(IdxDataset):
    """Handwritten digits (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist/).

    See :class:`IdxDataset` for where the files are looked for, and for the splits.
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

    See :class:`IdxDataset` for where the files are looked for, and for the splits.
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

    See :class:`IdxDataset` for where the files are looked for, and for the splits. The training
    images are known by the SHA-256 of the published gzip file, which torchvision's sources state,
    and by git's hash of their content, as public repositories hold it.
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
