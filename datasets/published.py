"""Datasets in files that were published: found or downloaded, always checked."""

import gzip
import hashlib
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ..plugins import InputError
from .base import Dataset
from .cache import cache_folder

GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class PublishedFile(ABC):
    """One file of an array of bytes and what it must be.

    Attributes:
        name: its name without ``.gz``.
        shape: the shape of its array.
        hashes: those known, of which one must match: the SHA-256 of the content, decompressed; the
            SHA-256 of the gzip file; or git's hash of the content as a blob.
        suffix: what its name has besides where it is published, such as ``.gz``.
    """

    name: str
    shape: tuple[int, ...]
    hashes: tuple[str, ...]
    suffix: ClassVar[str] = ""

    @property
    def published(self) -> str:
        """Its name at a mirror."""
        return self.name + self.suffix

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The checked array in the file at ``path``, gzipped or not.

        Raises:
            InputError: it has another form, is cut short, or has another hash.
        """
        raw = data = path.read_bytes()
        if raw.startswith(GZIP):
            try:
                data = gzip.decompress(raw)
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(f"{path} is a damaged gzip file: {error}") from None
        array = self.parse(data, path)
        if not any(found in self.hashes for found in digests(raw, data)):
            raise InputError(
                f"{path} is not the published file: its content has the SHA-256 "
                f"{next(digests(raw, data))}, known is {' or '.join(self.hashes)}"
            )
        return array

    @abstractmethod
    def parse(self, data: bytes, path: Path) -> NDArray[np.uint8]:
        """The array of :attr:`shape` in ``data``, the content of ``path``.

        Raises:
            InputError: it has another form, or is cut short.
        """

    def spellings(self) -> tuple[str, ...]:
        """The names it may have, without ``.gz``."""
        return (self.name,)


def digests(raw: bytes, data: bytes) -> Iterator[str]:
    """Every hash by which a file of bytes ``raw`` and content ``data`` may be known."""
    yield hashlib.sha256(data).hexdigest()
    yield hashlib.sha256(raw).hexdigest()
    yield hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class PublishedDataset(Dataset):
    """A dataset of published files.

    Each file, gzipped or not, is looked for in ``$AEBENCH_DATA/<name>``, in ``$AEBENCH_DATA``, and
    in ``data/<name>`` of the cache: ``$AEBENCH_CACHE``, or the user's cache folder. A file that is
    nowhere is downloaded into the cache from the first mirror that has it; an interrupted download
    goes on where it stopped.

    Every file is checked by its hash, on every load. As datasets share the names, a file in
    ``$AEBENCH_DATA`` itself that fails the check is passed over; elsewhere it is an error.

    Attributes:
        mirrors: addresses to which a file's name is appended.
        files: what there is to obtain.
    """

    mirrors: ClassVar[tuple[str, ...]]
    files: ClassVar[tuple[PublishedFile, ...]]

    def folders(self) -> list[Path]:
        """Where files are looked for, in order; the last is where downloads go."""
        data = os.environ.get("AEBENCH_DATA")
        given = Path(data).expanduser() if data else None
        held = cache_folder() / "data" / self.name
        return [*([given / self.name, given] if given else []), held]

    def obtain(self, file: PublishedFile) -> NDArray[np.uint8]:
        """The array of one file, from a folder or from a mirror.

        Raises:
            InputError: a file found is not what it should be, or none is found or downloaded.
        """
        folders, failures = self.folders(), []
        for folder in folders:
            for path in candidates(folder, file):
                try:
                    return file.read(path)
                except InputError as error:
                    if folder.name == self.name:
                        raise InputError(f"dataset {self.name!r}: {error}") from None
                    failures.append(str(error))
        path = folders[-1] / file.published
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
        wanted = ", ".join(file.published for file in self.files)
        raise InputError(
            f"dataset {self.name!r}: {file.name}[.gz] is not in {', '.join(map(str, folders))} "
            f"and cannot be downloaded; put {wanted} into {folders[0]} by hand "
            f"({'; '.join(failures)})"
        )


def candidates(folder: Path, file: PublishedFile) -> Iterator[Path]:
    """The files in ``folder`` that may be ``file``."""
    for spelling in file.spellings():
        for suffix in (".gz", ""):
            path = folder / (spelling + suffix)
            if path.is_file():
                yield path


def download(url: str, path: Path, file: PublishedFile) -> NDArray[np.uint8]:
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
