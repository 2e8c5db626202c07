"""A folder of images of the user's own."""

import hashlib
import inspect
import math
import multiprocessing
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from joblib import cpu_count
from torch import Tensor
from torch.utils.data import DataLoader

from ..plugins import InputError
from ..seeds import digest
from .base import SPLITS, Dataset, Split, SplitName
from .cache import cache_folder
from .shared import Region, mapped, region_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
HELD_BYTES = 256 << 20
"""Images of no more bytes are held in memory."""


class Folder(Dataset):
    """The images below a folder: png, jpg, jpeg, bmp, webp, gif (the first frame).

    Sub-folders are classes, numbered in alphabetical order, and hold their images at any depth; a
    folder without sub-folders has no labels. Where the folder has the three sub-folders ``train``,
    ``val`` and ``test``, these are the splits, and the classes are their sub-folders; otherwise the
    images are split 70 / 10 / 20 by a fixed permutation. Images are read in the order of their
    paths. Names that begin with a dot are passed over.

    Images of at most 256 MiB are held in memory. More are decoded once, by a process a core, into
    a file in ``images`` of the cache (``$AEBENCH_CACHE``, or the user's cache folder), which is
    mapped from then on. A file's name, size or time that changes makes another.

    Args:
        path: the folder.
        size: the side, or (height, width), to which every image is resized, bilinear and
            anti-aliased; None keeps the images as they are, which must then agree.
        channels: 3 for colour, 1 for grey.
        limits: ``train``, ``val`` and ``test``, see :class:`Dataset`.

    Raises:
        InputError: no folder, no images, an image that cannot be read, sizes that differ, images
            both with and without a class, or no room in the cache.
    """

    name = "folder"
    description = "the images below a folder (`path`), its sub-folders being classes or splits"

    def __init__(
        self,
        *,
        path: str,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        **limits: Any,
    ) -> None:
        super().__init__(**limits)
        sides = (size, size) if isinstance(size, int) else size
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise InputError(
                f"dataset {self.name!r}: size must be a number of pixels or (height, width), "
                f"not {size!r}"
            )
        self.path, self.size, self.channels = Path(path).expanduser(), sides, channels

    def load(self) -> dict[SplitName, Split]:
        if not self.path.is_dir():
            raise InputError(f"dataset {self.name!r}: no such folder: {self.path}")
        official = [split for split in SPLITS if (self.path / split).is_dir()]
        if len(official) == 2:
            missing = next(split for split in SPLITS if split not in official)
            raise InputError(
                f"dataset {self.name!r}: {self.path} has {official[0]} and {official[1]} but no "
                f"{missing}: add it, or rename them if they are classes"
            )
        if len(official) < 3:
            (split,) = self.read([self.path])
            return self.permuted(split)
        return dict(zip(SPLITS, self.read([self.path / split for split in SPLITS])))

    def read(self, roots: list[Path]) -> list[Split]:
        """The images below each root, with the classes numbered over all of them."""
        found = [images_below(root) for root in roots]
        for root, names in zip(roots, found):
            if not names:
                raise InputError(
                    f"dataset {self.name!r}: no images in {root}; read are {', '.join(SUFFIXES)}"
                )
        tops = [[top(name) for name in names] for names in found]
        every = {name for some in tops for name in some}
        if "" in every and len(every) > 1:
            loose = next(
                root / name for root, ns in zip(roots, found) for name in ns if not top(name)
            )
            raise InputError(
                f"dataset {self.name!r}: {loose} is in no class, while other images are in "
                "sub-folders: move it into one"
            )
        classes = {name: i for i, name in enumerate(sorted(every - {""}))}
        pixels = self.stacked([f"{root}/{name}" for root, ns in zip(roots, found) for name in ns])
        return [
            Split(part, torch.tensor([classes[name] for name in some]) if classes else None)
            for part, some in zip(pixels.split([len(names) for names in found]), tops)
        ]

    def stacked(self, paths: list[str]) -> Tensor:
        """The images at ``paths``, uint8 (n, C, H, W), in memory or in a mapped file."""
        shape = (len(paths), *self.decoded(paths[0]).shape)
        if math.prod(shape) > HELD_BYTES:
            return mapped(Region(str(self.decoded_file(paths, shape)), 0, shape))
        pixels = np.empty(shape, np.uint8)
        for i, path in enumerate(paths):
            pixels[i] = self.checked(path, paths[0], shape)
        return torch.from_numpy(pixels)

    def decoded_file(self, paths: list[str], shape: tuple[int, ...]) -> Path:
        """The file of the images at ``paths``, one after another, uint8 of ``shape``.

        It is there only whole. Processes that ask for it at the same time wait for the first.
        """
        file = cache_folder() / "images" / f"{self.content_of(paths)}.u8"
        if file.exists():
            return file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock")):
                if not file.exists():
                    free, size = shutil.disk_usage(file.parent).free, math.prod(shape)
                    if free < size:
                        raise OSError(f"{size >> 20} MiB are needed, {free >> 20} MiB are free")
                    self.decode(Images(self, paths, shape, file.with_suffix(".part")))
        except OSError as error:
            raise InputError(
                f"dataset {self.name!r}: {file.parent} cannot be written: {error}; "
                "$AEBENCH_CACHE may name another place"
            ) from None
        return file

    def content_of(self, paths: list[str]) -> str:
        """A hash of all that the decoded images depend on, as far as no image must be read."""
        from PIL import __version__

        source = inspect.getsource(type(self).decoded)
        content = hashlib.sha256(digest(self.size, self.channels, source, __version__).encode())
        for path in paths:
            about = os.stat(path)
            name = os.fsencode(path.removeprefix(str(self.path)))
            content.update(b"%b\0%d\0%d\0" % (name, about.st_size, about.st_mtime_ns))
        return content.hexdigest()[:32]

    def decode(self, images: "Images") -> None:
        """Make the file of ``images``, by a process a core where there may be any."""
        part = images.file
        daemonic = multiprocessing.current_process().daemon
        loader: DataLoader[Any] = DataLoader(
            images,  # type: ignore[arg-type]
            batch_size=64,
            num_workers=0 if daemonic else cpu_count(),
            collate_fn=first,
            worker_init_fn=end_with_parent,
            generator=torch.Generator(),  # the global stream stays as it is
        )
        try:
            with part.open("wb") as file:
                file.truncate(math.prod(images.shape))
                for fault in loader:
                    if fault:
                        raise fault
                os.fsync(file.fileno())
            part.replace(part.with_suffix(".u8"))
        finally:
            part.unlink(missing_ok=True)

    @cached_property
    def hash(self) -> str:
        """The content of all splits; that of a mapped file is computed once and kept beside it."""
        pixels = self.whole["train"].pixels
        region = None if pixels is None else region_of(pixels)
        if region is None:
            return super().hash
        chosen = digest(self.name, self.limits, self.held_out, inspect.getsource(Dataset))[:16]
        note = Path(region.path).with_suffix(f".{chosen}.hash")
        if not note.exists():
            found = super().hash
            with suppress(OSError):
                part = note.with_suffix(f".{os.getpid()}.part")
                part.write_text(found)
                part.replace(note)
            return found
        return note.read_text()

    def checked(self, path: str, first: str, shape: tuple[int, ...]) -> np.ndarray:
        """One image, which must be of the ``shape`` (n, C, H, W) that the first one has given."""
        image = self.decoded(path)
        if image.shape != shape[1:]:
            (h, w), (height, width) = image.shape[1:], shape[2:]
            raise InputError(
                f"dataset {self.name!r}: {path} is {h}×{w} where {first} is {height}×{width}: "
                "give a size to resize them to"
            )
        return image

    def decoded(self, path: str) -> np.ndarray:
        """One image, uint8 (C, H, W)."""
        from PIL import Image

        try:
            with Image.open(path) as opened:
                if opened.mode.startswith(("I", "F")):  # Pillow would clip them, not scale
                    raise ValueError(f"its pixels ({opened.mode}) are not of 8 bits")
                image = opened.convert("L" if self.channels == 1 else "RGB")
        except Exception as error:  # Pillow's decoders raise of every kind
            raise InputError(f"dataset {self.name!r}: cannot read {path}: {error}") from None
        if self.size is not None:
            height, width = self.size
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def end_with_parent(worker: int) -> None:
    """End this process with its parent; torch looks for the parent only once it is at work."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@dataclass(frozen=True)
class Images:
    """Images that a :class:`DataLoader` writes to a file, each in its place.

    Attributes:
        folder: what decodes them.
        paths: where they are.
        shape: (n, C, H, W) of them all.
        file: where they go.
    """

    folder: Folder
    paths: list[str]
    shape: tuple[int, ...]
    file: Path

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Exception | None:
        """Write one image; gives what went wrong, which a worker cannot raise as it is."""
        try:
            image = self.folder.checked(self.paths[i], self.paths[0], self.shape)
            with self.file.open("rb+") as file:
                file.seek(i * image.nbytes)
                file.write(image.tobytes())
        except (InputError, OSError) as error:
            return error
        return None


def first(faults: list[Exception | None]) -> Exception | None:
    """The first of ``faults`` that is one."""
    return next(filter(None, faults), None)


def top(name: str) -> str:
    """The first folder of a relative path; empty where it has none."""
    return name.partition("/")[0] if "/" in name else ""


def images_below(root: Path | str) -> list[str]:
    """The images below ``root`` at any depth, relative to it, in the order of their paths."""
    found = []
    with suppress(PermissionError):
        for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                found += [f"{entry.name}/{name}" for name in images_below(entry.path)]
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                found.append(entry.name)
    return found
