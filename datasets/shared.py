"""Datasets in memory that processes share: however many, they hold one copy."""

import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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


@dataclass(frozen=True)
class View:
    """A tensor by the memory that others of its dataset are in too.

    It can be pickled without a copy, by protocol 5 with buffers out of band.

    Attributes:
        storage: the bytes, uint8 (n,).
        dtype: the tensor's.
        offset: its first element.
        shape: its shape.
        stride: its stride.
    """

    storage: NDArray[np.uint8]
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """The tensor, in the same memory, which must not be written to."""
        flat = tensor_of(self.storage).view(self.dtype)
        return flat.as_strided(self.shape, self.stride, self.offset)


def mapped(region: Region) -> Tensor:
    """The bytes of a file, uint8, read when they are looked at; they must not be written to."""
    held = np.memmap(region.path, np.uint8, "r")
    whole = tensor_of(held)
    _maps[whole.untyped_storage().data_ptr()] = held
    size = torch.Size(region.shape)
    return whole[region.start :][: size.numel()].view(size)


def tensor_of(array: NDArray[Any]) -> Tensor:
    """The tensor of an array that must not be written to: torch has none that cannot be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


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
    held = loaded(dataset, lambda tensor: region_of(tensor) or tensor)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".pt", delete=False) as file:
        torch.save(held, file)
    return Path(file.name)


def adopt(dataset: Dataset, file: Path) -> None:
    """Fill ``dataset``, not loaded yet, with what one of the same choice wrote to ``file``.

    Its tensors are mapped. They may be written to, which the file and other processes do not see.
    """
    with torch.serialization.safe_globals([Region, *kinds(Split)]):
        fill(dataset, torch.load(file, mmap=True, weights_only=True))


def views(dataset: Dataset) -> dict[str, Any] | None:
    """What ``dataset`` has loaded, for :func:`fill`, its tensors as :class:`View`.

    None of what is not in memory, but mapped from a file.

    Raises:
        InputError: the data cannot be read.
    """
    storages: dict[int, NDArray[np.uint8]] = {}
    on_disk: list[Region] = []

    def view(tensor: Tensor) -> View:
        on_disk.extend(filter(None, [region_of(tensor)]))
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages:
            whole = torch.empty(0, dtype=torch.uint8).set_(storage)  # type: ignore[call-overload]
            storages[storage.data_ptr()] = whole.numpy()
        held = storages[storage.data_ptr()]
        return View(held, tensor.dtype, int(tensor.storage_offset()), tensor.shape, tensor.stride())

    held = loaded(dataset, view)
    return None if on_disk else held


def fill(dataset: Dataset, held: Mapping[str, Any]) -> None:
    """Fill ``dataset``, not loaded yet, with what one of the same choice has :func:`loaded`."""
    vars(dataset).update({key: unpacked(value, dataset) for key, value in held.items()})


def loaded(dataset: Dataset, tensor: Callable[[Tensor], Any]) -> dict[str, Any]:
    """What ``dataset`` has loaded, by attribute.

    Args:
        dataset: it is loaded, if it is not yet.
        tensor: what to give in place of a tensor.
    """
    _ = dataset.splits, dataset.hash, dataset.renders  # each may be much work
    held = {}
    for key, value in vars(dataset).items():
        with suppress(TypeError):  # such as a path: the constructor's affair
            held[key] = packed(value, tensor)
    return held


def packed(value: Any, tensor: Callable[[Tensor], Any]) -> Any:
    """``value`` for another process, splits without the method that renders them.

    Raises:
        TypeError: it has other parts than tensors, splits, numbers and strings.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return tensor(value)
    if isinstance(value, Split):
        names = [field.name for field in fields(value) if field.name != "render"]
        return replace(value, render=None, **{n: packed(getattr(value, n), tensor) for n in names})
    if isinstance(value, tuple | list):
        return type(value)([packed(part, tensor) for part in value])
    if isinstance(value, dict):
        return {key: packed(part, tensor) for key, part in value.items()}
    raise TypeError(f"a {type(value).__name__} is not shared")


def unpacked(value: Any, dataset: Dataset) -> Any:
    """What :func:`packed` was given."""
    if isinstance(value, Region):
        return mapped(value)
    if isinstance(value, View):
        return value.tensor()
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
