"""Batches of a split, on the device that trains."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ..datasets import Split, as_float
from ..models import Batch

AHEAD = 3
"""How many batches are gathered before they are asked for."""


class Loader:
    """Batches of a split that lives on the device as uint8 and is converted there.

    A split that does not fit the device stays on the host: a thread gathers the batches to come
    into pinned memory while the device computes.

    Args:
        split: the images.
        batch_size: images a batch.
        seed: shuffles anew every epoch and drops a last, smaller batch; None keeps the order and
            every image.
        device: where the batches are wanted.
        part: which part of each batch, and of how many, where several devices share it.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.device, self.part = torch.device(device), part
        self.resident = split.fits(self.device)
        self.split = split.to(self.device) if self.resident else split
        self.batch_size = min(batch_size, len(split))
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.split), self.batch_size)
        return whole + (self.generator is None and rest > 0)

    def __iter__(self) -> Iterator[Batch]:
        for item in self.items():
            yield self.batch(*item)

    def items(self) -> Iterator[tuple[Tensor, ...]]:
        """What :meth:`batch` makes each batch of an epoch from, on the device.

        An index of images that are there, or the images themselves and their labels.
        """
        order = torch.arange(len(self.split))
        if self.generator is not None:  # drawn on the host: the same order on every device
            order = torch.randperm(len(self.split), generator=self.generator)
        if self.resident:
            order = order.to(self.device)
        rank, parts = self.part
        indices = [index[rank::parts] for index in order.split(self.batch_size)[: len(self)]]
        if self.resident:
            yield from ((index,) for index in indices)
        else:
            yield from self.streamed(indices)

    def streamed(self, indices: list[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """The images at each index with their labels, gathered some batches ahead."""
        with ThreadPoolExecutor(1) as pool:
            coming = deque(pool.submit(self.gathered, index) for index in indices[:AHEAD])
            for i in range(len(indices)):
                held = coming.popleft().result()
                if i + AHEAD < len(indices):
                    coming.append(pool.submit(self.gathered, indices[i + AHEAD]))
                yield tuple(tensor.to(self.device, non_blocking=True) for tensor in held)

    def gathered(self, index: Tensor) -> tuple[Tensor, ...]:
        labels = self.split.labels
        held = (self.stored(index), *(() if labels is None else (labels[index],)))
        return tuple(t.pin_memory() for t in held) if self.device.type == "cuda" else held

    def stored(self, index: Tensor) -> Tensor:
        return self.split.images(index) if self.generator is None else self.split.raw(index)

    def batch(self, held: Tensor, labels: Tensor | None = None) -> Batch:
        """The batch of an item of :meth:`items`."""
        if self.resident:
            labels = None if self.split.labels is None else self.split.labels[held]
            held = self.stored(held)
        return Batch(as_float(held if self.generator is None else self.split.drawn(held)), labels)
