"""What a dataset is: uint8 images in three splits, with labels or ground-truth factors."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..plugins import InputError, Plugin
from ..seeds import derive_seed

SplitName = Literal["train", "val", "test", "anomalies"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
"""What every dataset has; ``anomalies`` are there where a class is held out."""

CHUNK = 16 << 20
"""Bytes at a time where all images are read."""

Render = Callable[[Tensor], Tensor]
"""Factors (n, K) int64 → images (n, C, H, W) uint8, on the factors' device."""


@dataclass(frozen=True)
class Split:
    """One split: images on a device, in memory or rendered from their factors on demand.

    Attributes:
        pixels: the stored images, uint8 (m, C, H, W); None where they are rendered.
        labels: the classes, int64 (n,), or None.
        factors: the ground-truth factors as indices, int64 (n, K), or None.
        render: what draws images from factors where ``pixels`` is None.
        grey: of binary images that training draws anew every epoch, the probability of white in
            255ths, uint8 (m, C, H, W); ``pixels`` are one draw. None elsewhere.
        order: which of the stored images are the split's, int64 (n,); None takes them all as they
            are. Splits of one store so share its memory, or its file.
        target: the device on which images are given; None leaves them where they are stored.
    """

    pixels: Tensor | None
    labels: Tensor | None = None
    factors: Tensor | None = None
    render: Render | None = None
    grey: Tensor | None = None
    order: Tensor | None = None
    target: torch.device | None = None

    def __len__(self) -> int:
        for held in (self.order, self.pixels, self.factors):
            if held is not None:
                return len(held)
        raise AssertionError("a split has pixels or factors")

    @property
    def device(self) -> torch.device:
        """Where the images are stored, or the factors that they are rendered from."""
        held = self.factors if self.pixels is None else self.pixels
        assert held is not None
        return held.device

    @property
    def nbytes(self) -> int:
        """The bytes of the images as they are stored; 0 where they are rendered."""
        stored = [held for held in (self.pixels, self.grey) if held is not None]
        return len(self) * sum(held.shape[1:].numel() for held in stored)

    def fits(self, device: torch.device | str) -> bool:
        """Whether the images may be held on ``device``: at most half of what a GPU has free."""
        device = torch.device(device)
        if device.type != "cuda" or self.device.type == "cuda":
            return True
        return self.nbytes <= torch.cuda.mem_get_info(device)[0] // 2

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The images at ``index``, uint8 (n, C, H, W)."""
        return self.given(self.pixels, index)

    def raw(self, index: Tensor) -> Tensor:
        """What :meth:`drawn` makes the training images at ``index`` of, uint8 (n, C, H, W)."""
        return self.given(self.pixels if self.grey is None else self.grey, index)

    def drawn(self, raw: Tensor) -> Tensor:
        """The images of :meth:`raw` as an epoch of training sees them, uint8 (n, C, H, W).

        The same, or a new draw from torch's global stream where there is ``grey``.
        """
        return raw if self.grey is None else binary(raw)

    def given(self, stored: Tensor | None, index: Tensor | slice) -> Tensor:
        """The images at ``index`` of those ``stored``, rendered for None, on the target."""
        if stored is not None:
            images = at(stored, self.places(index))
        else:
            assert self.render is not None and self.factors is not None
            images = self.render(at(self.factors, index))
        return images if self.target is None else images.to(self.target)

    def places(self, index: Tensor | slice) -> Tensor | slice:
        """Where the images at ``index`` are stored."""
        return index if self.order is None else at(self.order, index)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The whole split in order: images uint8 (b, C, H, W) and labels (b,), b ≤ ``size``."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.images(part), None if self.labels is None else self.labels[part]

    def take(self, index: Tensor | slice) -> "Split":
        """The split of the images at ``index``, in that order; no stored image is copied."""
        if self.pixels is None or (self.order is None and isinstance(index, slice)):
            return self.each(lambda held: at(held, index))
        order = self.order
        if order is None:
            order = torch.arange(len(self), device=self.pixels.device)
        listed = replace(self, pixels=None, grey=None, order=order)
        taken = listed.each(lambda held: at(held, index))
        return replace(taken, pixels=self.pixels, grey=self.grey)

    def to(self, device: torch.device | str) -> "Split":
        """The same split with its tensors on ``device``, of the stored images only its own."""
        device = torch.device(device)
        there = self.device.type == device.type and device.index in (None, self.device.index)
        if self.order is None or there:
            return replace(self.each(lambda held: held.to(device)), target=None)
        listed = replace(self, pixels=None, grey=None, order=None, target=None)
        moved = listed.each(lambda held: held.to(device))
        pixels, grey = (
            None if held is None else gathered(held, self.order, device)
            for held in (self.pixels, self.grey)
        )
        return replace(moved, pixels=pixels, grey=grey)

    def on(self, device: torch.device | str) -> "Split":
        """The same split with its images given on ``device``.

        They are held there where they fit, else brought there as they are asked for; labels and
        factors are there.
        """
        if self.fits(device):
            return self.to(device)
        listed = replace(self, pixels=None, grey=None, order=None)
        moved = listed.each(lambda held: held.to(device))
        stored = replace(moved, pixels=self.pixels, grey=self.grey, order=self.order)
        return replace(stored, target=torch.device(device))

    def each(self, change: Callable[[Tensor], Tensor]) -> "Split":
        """The split with every tensor that it holds changed."""
        names = ("pixels", "labels", "factors", "grey", "order")
        held = {name: getattr(self, name) for name in names}
        changed: dict[str, Any] = {k: change(v) for k, v in held.items() if v is not None}
        return replace(self, **changed)


def at(held: Tensor, index: Tensor | slice) -> Tensor:
    """``held[index]``, wherever the index is."""
    return held[index if isinstance(index, slice) else index.to(held.device)]


def parts(stored: Tensor, order: Tensor | None = None) -> Iterator[Tensor]:
    """``stored[order]`` in pieces of some megabytes; all of it for None."""
    size = max(1, CHUNK // max(1, stored.element_size() * stored.shape[1:].numel()))
    if order is None:
        yield from stored.split(size)
    else:
        yield from (stored[index] for index in order.split(size))


def gathered(stored: Tensor, order: Tensor, device: torch.device) -> Tensor:
    """``stored[order]`` on another device, without a whole copy on this one."""
    images = stored.new_empty((len(order), *stored.shape[1:]), device=device)
    done = 0
    for part in parts(stored, order):
        images[done : done + len(part)] = part.to(device)
        done += len(part)
    return images


def as_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.float() / 255


def binary(grey: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images of 0 and 255, white with the probability ``grey`` / 255, of the shape of ``grey``."""
    drawn = torch.rand(grey.shape, device=grey.device, generator=generator)
    return (drawn * 255 < grey).to(torch.uint8) * 255


class Dataset(Plugin, kind="dataset"):
    """Images in splits train / val / test, with labels or ground-truth factors where they exist.

    A subclass states its ``name``, takes its parameters as keyword arguments, passes ``**limits``
    on, and fills :attr:`splits` in :meth:`load`, by :meth:`permuted` where there are no official
    splits. The loading is done once, when the splits are first asked for.

    Args:
        train: keep the first so many images of the (permuted) training split; None keeps all.
        val: the same of the validation split.
        test: the same of the test split.
        held_out: leave the images of this class out of all three splits, before their limits. The
            classes above it move down by one; factors stay as they are, and :meth:`render` still
            draws every combination of them. The test images of that class, at most as many as
            ``test``, are the split ``anomalies``, without labels. None leaves nothing out.

    Attributes:
        shape: (C, H, W) of an image.
        classes: the number of classes; 0 where there are no labels. A class held out is not
            counted.
        factor_names: the names of the ground-truth factors; empty where there are none.
        factor_sizes: the number of values of each factor.
        description: one line for the table of datasets.
    """

    description: ClassVar[str] = ""
    factor_names: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        train: int | None = None,
        val: int | None = None,
        test: int | None = None,
        held_out: int | None = None,
    ) -> None:
        self.limits = {"train": train, "val": val, "test": test}
        self.held_out = held_out
        for split, limit in self.limits.items():
            if limit is not None and limit < 1:
                raise InputError(f"dataset {self.name!r}: {split} must be 1 or more, not {limit}")

    def load(self) -> dict[SplitName, Split]:
        """The three splits, whole.

        Raises:
            InputError: the data cannot be found or read.
        """
        raise NotImplementedError

    def render(self, factors: Tensor) -> Tensor:
        """The images of any factors, int64 (n, K) → uint8 (n, C, H, W), on the factors' device.

        Only a dataset whose every combination of factors exists offers this; see :attr:`renders`.
        """
        raise NotImplementedError

    @property
    def renders(self) -> bool:
        """Whether any combination of factors can be had by :meth:`render`."""
        return type(self).render is not Dataset.render

    def check_factors(self, factors: Tensor) -> None:
        """Refuse what :meth:`render` cannot draw.

        Raises:
            InputError: not int64 (n, K), or an index outside its factor's values.
        """
        sizes = self.factor_sizes
        if factors.dtype != torch.int64 or factors.ndim != 2 or factors.shape[1] != len(sizes):
            raise InputError(
                f"dataset {self.name!r}: factors must be int64 (n, {len(sizes)}), "
                f"not {str(factors.dtype).removeprefix('torch.')} {tuple(factors.shape)}"
            )
        outside = (factors < 0) | (factors >= torch.tensor(sizes, device=factors.device))
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            raise InputError(
                f"dataset {self.name!r}: factor {self.factor_names[column]!r} has no value "
                f"{int(factors[row, column])}; valid: 0 to {sizes[column] - 1}"
            )

    @cached_property
    def whole(self) -> dict[SplitName, Split]:
        """All images, none held out, before the limits: classes and factors depend on no limit."""
        return self.load()

    @cached_property
    def splits(self) -> dict[SplitName, Split]:
        """The splits by name.

        Raises:
            InputError: the data cannot be read, or the class to hold out is none of theirs, or
                nothing is left of a split, or none of it is in test.
        """
        if self.held_out is None:
            found = {name: self.whole[name] for name in SPLITS}
        else:
            found = self.without(self.held_out)
        limits = {**self.limits, "anomalies": self.limits["test"]}
        return {name: split.take(slice(limits[name])) for name, split in found.items()}

    def without(self, held_out: int) -> dict[SplitName, Split]:
        """The whole splits without a class, and its test images as ``anomalies``."""
        where = f"dataset {self.name!r}: held_out"
        if not self._tops:
            raise InputError(f"{where}={held_out}: the dataset has no labels")
        if not 0 <= held_out <= max(self._tops):
            raise InputError(f"{where} must be a class, 0 to {max(self._tops)}, not {held_out}")
        found: dict[SplitName, Split] = {}
        for name in SPLITS:
            split = self.whole[name]
            assert split.labels is not None
            out = split.labels == held_out
            labels = split.labels[~out]
            found[name] = replace(split.take(~out), labels=labels - (labels > held_out).long())
            if not len(labels):
                raise InputError(f"{where}={held_out} leaves no images in {name}")
        found["anomalies"] = replace(split.take(out), labels=None)  # the last is test
        if not len(found["anomalies"]):
            raise InputError(f"{where}={held_out}: test has no images of this class")
        return found

    def split(self, name: SplitName) -> Split:
        """The split called ``name``: train, val or test, or anomalies where a class is held out."""
        return self.splits[name]

    @property
    def anomalies(self) -> Split | None:
        """Test images of the class that is held out; None where none is."""
        return self.splits.get("anomalies")

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.split("train").images(slice(1)).shape[1:]
        return channels, height, width

    @cached_property
    def classes(self) -> int:
        return max(self._tops) + (self.held_out is None) if self._tops else 0

    @property
    def _tops(self) -> list[int]:
        """The largest label of every split; empty where there are no labels."""
        return [int(s.labels.max()) for s in self.whole.values() if s.labels is not None]

    @cached_property
    def factor_sizes(self) -> tuple[int, ...]:
        held = [s.factors for s in self.whole.values() if s.factors is not None]
        return tuple((torch.cat(held).amax(0) + 1).tolist()) if held else ()

    @cached_property
    def hash(self) -> str:
        """The content of all splits as 16 hexadecimal digits.

        Rendered splits enter by their factors and by their first 64 images.
        """
        digest = hashlib.sha256(json.dumps([self.name, self.factor_names]).encode())
        for name, split in self.splits.items():
            digest.update(f"{name} {len(split)}".encode())
            pixels = split.images(slice(64)) if split.pixels is None else split.pixels
            stored = ((pixels, split.order), (split.labels, None), (split.factors, None))
            for held, order in (*stored, (split.grey, split.order)):
                if held is not None:
                    shape = (len(held if order is None else order), *held.shape[1:])
                    digest.update(f"{shape} {held.dtype}".encode())
                    for part in parts(held, order):
                        digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def permuted(
        self, whole: Split, fractions: tuple[float, float] = (0.7, 0.1)
    ) -> dict[SplitName, Split]:
        """``whole`` cut into train, val and test by a permutation that depends on the name alone.

        Args:
            whole: every image there is.
            fractions: the shares of train and val; test has the rest.

        Raises:
            InputError: there are too few images for three splits.
        """
        order = self.permutation(len(whole))
        first = round(len(whole) * fractions[0])
        second = first + round(len(whole) * fractions[1])
        if not 0 < first < second < len(whole):
            raise InputError(
                f"dataset {self.name!r}: too few images for train, val and test: {len(whole)}"
            )
        return {
            "train": whole.take(order[:first]),
            "val": whole.take(order[first:second]),
            "test": whole.take(order[second:]),
        }

    def permutation(self, n: int) -> Tensor:
        """A fixed permutation of n, int64 (n,)."""
        generator = torch.Generator().manual_seed(derive_seed(self.name, "split"))
        return torch.randperm(n, generator=generator)
