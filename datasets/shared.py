"""Datasets in files that processes map: however many, they hold one copy, in the page cache."""

import tempfile
import warnings
import weakref
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Dataset, Split

_maps: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""The arrays that map a file, by their address."""


@dataclass(frozen=True)
class Region:
    """The part of a file that a tensor maps.

    Attributes:
        path: the file.
        start: its first byte.
        shape: of the tensor of bytes.
    """

    path: str
    start: int
    shape: tuple[int, ...]


def mapped(region: Region) -> Tensor:
    """The bytes of a file, uint8, read when they are looked at; they must not be written to."""
    held = np.memmap(region.path, np.uint8, "r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no tensors that cannot be written to
        whole = torch.from_numpy(held)
    _maps[whole.untyped_storage().data_ptr()] = held
    size = torch.Size(region.shape)
    return whole[region.start :][: size.numel()].view(size)


def region_of(tensor: Tensor) -> Region | None:
    """What :func:`mapped` made ``tensor`` from; None of one in memory."""
    held = _maps.get(tensor.untyped_storage().data_ptr())
    if held is None or not tensor.is_contiguous():
        return None
    return Region(str(held.filename), int(tensor.storage_offset()), tuple(tensor.shape))


def share(dataset: Dataset, folder: Path) -> Path:
    """Write what ``dataset`` has loaded to a file in ``folder``, for :func:`adopt`; gives the file.

    A tensor that is mapped already is named, not copied. The file is needed until the last process
    has adopted it, not longer.

    Raises:
        InputError: the data cannot be read.
        OSError: the folder cannot be written.
    """
    _ = dataset.splits, dataset.hash, dataset.renders  # each may be much work
    held = {}
    for key, value in vars(dataset).items():
        with suppress(TypeError):  # such as a path: the constructor's affair
            held[key] = packed(value)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".pt", delete=False) as file:
        torch.save(held, file)
    return Path(file.name)


def adopt(dataset: Dataset, file: Path) -> None:
    """Fill ``dataset``, not loaded yet, with what one of the same choice wrote to ``file``.

    Its tensors are mapped. They may be written to, which the file and other processes do not see.
    """
    with torch.serialization.safe_globals([Region, *kinds(Split)]):
        held = torch.load(file, mmap=True, weights_only=True)
    vars(dataset).update({key: unpacked(value, dataset) for key, value in held.items()})


def packed(value: Any) -> Any:
    """``value`` for a file: mapped tensors by name, splits without the method that renders them.

    Raises:
        TypeError: it has other parts than tensors, splits, numbers and strings.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return region_of(value) or value
    if isinstance(value, Split):
        names = [field.name for field in fields(value) if field.name != "render"]
        return replace(value, render=None, **{n: packed(getattr(value, n)) for n in names})
    if isinstance(value, tuple | list):
        return tuple(map(packed, value)) if isinstance(value, tuple) else list(map(packed, value))
    if isinstance(value, dict):
        return {key: packed(part) for key, part in value.items()}
    raise TypeError(f"a {type(value).__name__} is not shared")


def unpacked(value: Any, dataset: Dataset) -> Any:
    """What :func:`packed` was given."""
    if isinstance(value, Region):
        return mapped(value)
    if isinstance(value, Split):
        held = {f.name: unpacked(getattr(value, f.name), dataset) for f in fields(value)}
        if value.pixels is None:
            held["render"] = dataset.render
        return replace(value, **held)
    if isinstance(value, tuple | list):
        return type(value)(unpacked(part, dataset) for part in value)
    if isinstance(value, dict):
        return {key: unpacked(part, dataset) for key, part in value.items()}
    return value


def kinds(cls: type[Any]) -> list[type[Any]]:
    """``cls`` and everything derived from it."""
    found = [cls]
    for derived in cls.__subclasses__():
        found += kinds(derived)
    return found
