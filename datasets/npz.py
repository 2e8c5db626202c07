"""A NumPy archive of the user's own."""

import math
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..plugins import InputError
from .base import SPLITS, Dataset, Split, SplitName

Arrays = dict[str, np.ndarray]


class Npz(Dataset):
    """The arrays of an ``.npz`` file.

    ================ ============================================================================
    ``images``       (n, H, W), (n, C, H, W) or (n, H, W, C), with C 1 or 3; uint8, or floats in
                     [0, 1], which are rounded to 256 levels
    ``labels``       optional: (n,) non-negative integers
    ``factors``      optional: (n, K) non-negative integers, the ground-truth factors
    ``factor_names`` optional: K names
    ================ ============================================================================

    Of four axes, the second holds the channels where it has 1 or 3 entries, else the last.

    With ``train_images``, ``val_images`` and ``test_images`` in the place of ``images`` (and
    ``train_labels``, …) these are the splits; otherwise the images are split 70 / 10 / 20 by a
    fixed permutation. The values of the labels and of each factor are numbered from 0, in order.
    Where every combination of the factors occurs exactly once, :meth:`render` looks it up.

    Args:
        path: the file.
        limits: ``train``, ``val`` and ``test``, see :class:`Dataset`.

    Raises:
        InputError: no such file, a missing array, or one of the wrong type, shape or values.
    """

    name = "npz"
    description = "the arrays of an .npz file (`path`): images, labels, factors"

    def __init__(self, *, path: str, **limits: Any) -> None:
        super().__init__(**limits)
        self.path = Path(path).expanduser()
        self._names: tuple[str, ...] = ()

    @cached_property
    def factor_names(self) -> tuple[str, ...]:  # type: ignore[override]
        _ = self.whole  # read with the rest of the file
        return self._names

    def load(self) -> dict[SplitName, Split]:
        arrays = self.read()
        official = [f"{split}_images" for split in SPLITS if f"{split}_images" in arrays]
        prefixes = [f"{split}_" for split in SPLITS] if official else [""]
        images = [self.images(arrays, f"{prefix}images") for prefix in prefixes]
        for prefix, some in zip(prefixes, images):
            if some.shape[1:] != images[0].shape[1:]:
                raise self.error(
                    f"{prefix}images are {tuple(some.shape[1:])} where {prefixes[0]}images are "
                    f"{tuple(images[0].shape[1:])} (channels, height, width)"
                )
        counts = [len(some) for some in images]
        labels = self.indices(arrays, "labels", prefixes, counts, 1)
        factors = self.indices(arrays, "factors", prefixes, counts, 2)
        if factors[0] is not None:
            self._names = self.names(arrays, factors[0].shape[1])
        splits = [Split(*held) for held in zip(images, labels, factors)]
        return dict(zip(SPLITS, splits)) if official else self.permuted(splits[0])

    def read(self) -> Arrays:
        """Every array of the file by its name."""
        try:
            held = np.load(self.path, allow_pickle=False)
            if isinstance(held, np.ndarray):
                raise self.error("it is a single array (.npy), not an .npz archive")
            with held:
                return {key: held[key] for key in held.files}
        except FileNotFoundError:
            raise self.error("no such file") from None
        except InputError:
            raise
        except ValueError as error:  # of np.load, where it would have to unpickle
            raise self.error(f"it is not an archive of plain arrays: {error}") from None
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self.error(f"it cannot be read: {error}") from None

    def error(self, what: str) -> InputError:
        return InputError(f"dataset {self.name!r}: {self.path}: {what}")

    def images(self, arrays: Arrays, key: str) -> Tensor:
        """The images called ``key``, uint8 (n, C, H, W)."""
        if key not in arrays:
            raise self.error(f"no array {key!r}; it has {', '.join(sorted(arrays)) or 'none'}")
        images = arrays[key]
        if images.ndim == 3:
            images = images[:, None]
        elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
            images = images.transpose(0, 3, 1, 2)
        if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
            raise self.error(
                f"{key} has the shape {arrays[key].shape}; valid: (n, H, W), (n, C, H, W) and "
                "(n, H, W, C) with C 1 or 3, none of them 0"
            )
        if np.issubdtype(images.dtype, np.floating):
            if not (images.min() >= 0 and images.max() <= 1):  # NaN fails both
                raise self.error(
                    f"{key} must be in [0, 1], found {images.min():g} to {images.max():g}; "
                    "divide by their range, or store uint8"
                )
            images = (images * np.float32(255)).round().astype(np.uint8)
        elif images.dtype != np.uint8:
            raise self.error(f"{key} is {images.dtype}; valid: uint8, or floats in [0, 1]")
        return torch.from_numpy(np.ascontiguousarray(images))

    def indices(
        self, arrays: Arrays, what: str, prefixes: list[str], counts: list[int], ndim: int
    ) -> list[Tensor] | list[None]:
        """The labels or factors of every split, int64, their values numbered from 0 in order."""
        keys = [f"{prefix}{what}" for prefix in prefixes]
        present = [key for key in keys if key in arrays]
        if not present:
            return [None] * len(keys)
        for key, count in zip(keys, counts):
            if key not in arrays:
                raise self.error(f"no array {key!r}, though there is {present[0]!r}")
            held, shape = arrays[key], (count,) if ndim == 1 else (count, "K")
            if held.ndim != ndim or len(held) != count or not held.size:
                raise self.error(f"{key} has the shape {held.shape}, not {shape}")
            if not np.issubdtype(held.dtype, np.integer) or held.min() < 0:
                raise self.error(f"{key} must be non-negative integers ({held.dtype} here)")
            if held.shape[1:] != arrays[keys[0]].shape[1:]:
                raise self.error(f"{key} and {keys[0]} differ in their number of columns")
        columns = np.concatenate([arrays[key].reshape(len(arrays[key]), -1) for key in keys]).T
        numbered = np.stack([np.unique(column, return_inverse=True)[1] for column in columns], 1)
        whole = torch.from_numpy(numbered.astype(np.int64))
        return list((whole[:, 0] if ndim == 1 else whole).split(counts))

    def names(self, arrays: Arrays, count: int) -> tuple[str, ...]:
        """The names of the factors, ``factor_0`` and so on where the file has none."""
        if "factor_names" not in arrays:
            return tuple(f"factor_{i}" for i in range(count))
        names = tuple(map(str, arrays["factor_names"].reshape(-1)))
        if len(set(names)) != count or len(names) != count:
            raise self.error(f"factor_names must be {count} different names, not {names}")
        return names

    @cached_property
    def grid(self) -> Tensor | None:
        """The images of all combinations, the last factor fastest; None if any is not there once.

        uint8 (product of the factors' sizes, C, H, W).
        """
        splits = list(self.whole.values())
        factors = [split.factors for split in splits if split.factors is not None]
        pixels = [split.images() for split in splits]
        if not factors or sum(map(len, factors)) != math.prod(self.factor_sizes):
            return None
        flat, order = self.flat(torch.cat(factors)).sort()
        return torch.cat(pixels)[order] if flat.unique().numel() == flat.numel() else None

    def flat(self, factors: Tensor) -> Tensor:
        """The place of each row of factors in :attr:`grid`."""
        place = torch.zeros_like(factors[:, 0])
        for column, size in zip(factors.unbind(1), self.factor_sizes):
            place = place * size + column
        return place

    @property
    def renders(self) -> bool:
        return self.grid is not None

    def render(self, factors: Tensor) -> Tensor:
        """The images of factors int64 (n, K): uint8 (n, C, H, W), on the factors' device.

        Raises:
            InputError: the file lacks a combination, or an index is outside its factor's values.
        """
        if self.grid is None:
            raise self.error("it does not hold every combination of factors exactly once")
        self.check_factors(factors)
        return self.grid[self.flat(factors).to(self.grid.device)].to(factors.device)
