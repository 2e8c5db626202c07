"""The steps of a training: taken one by one, or replayed from a CUDA graph."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..models import Autoencoder, Terms
from ..models.base import Reduce
from .loader import Loader

LOOKED_AT = 3
"""How many steps are taken before one is captured: the first allocate what all others use."""


class Means:
    """Means of named terms over images, summed on the device and read once."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.images: dict[str, int] = {}

    def add(self, terms: Terms, n: int) -> None:
        """Take in the terms of a batch of ``n`` images."""
        for name, term in terms.items():
            if name not in self.totals:
                dtype = torch.promote_types(term.dtype, torch.float32)
                self.totals[name] = torch.zeros((), dtype=dtype, device=term.device)
            self.totals[name].add_(term.detach(), alpha=n)
        self.count(terms, n)

    def count(self, names: Any, n: int) -> None:
        for name in names:
            self.images[name] = self.images.get(name, 0) + n

    def read(self) -> dict[str, float]:
        """The mean of each term since they were last read; the device is waited for once."""
        names = list(self.images)
        means = [self.totals[name] / self.images[name] for name in names]
        found = torch.stack(means).tolist() if means else []
        for total in self.totals.values():
            total.zero_()  # in place: a captured step adds to this very tensor
        self.images = {}
        return dict(zip(names, found))


class Steps:
    """Takes a model's training steps: on CUDA from a graph, where they can be captured.

    Capturing launches a whole step (batch, forward, backward, optimiser) as one. It computes
    nothing, so that the numbers are those of steps taken one by one. The first steps are, and are
    looked at: one that makes the host wait for the device, or changes what a graph does not see,
    cannot be captured.

    Args:
        model: on its device, in training mode.
        loader: makes its batches.
        optimizers: one for each objective of the model.
        means: gets the terms.
        capture: whether to capture steps where they can be.
        reduce: what averages tensors over processes, see :meth:`Autoencoder.step`.

    Attributes:
        uncaptured: on CUDA, why steps are not captured; empty where they are, or may yet be.
    """

    def __init__(
        self,
        model: Autoencoder,
        loader: Loader,
        optimizers: list[torch.optim.Optimizer],
        means: Means,
        capture: bool = True,
        reduce: Reduce | None = None,
    ) -> None:
        self.model, self.loader, self.optimizers, self.means = model, loader, optimizers, means
        self.reduce, self.taken, self.n = reduce, 0, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.uncaptured = ""
        if model.device.type != "cuda" or not capture:
            self.uncaptured = "capturing is off"
        elif reduce is not None:
            self.uncaptured = "it is trained on several devices"

    def take(self, *item: Tensor) -> None:
        """The step on the batch of an item of :meth:`Loader.items`."""
        if not self.uncaptured and self.graph is None and self.taken >= LOOKED_AT:
            self.capture(item)
        if self.graph is not None:
            for held, given in zip(self.inputs, item):
                held.copy_(given)
            self.graph.replay()
            self.means.count(self.means.totals, self.n)
        elif self.uncaptured:
            self.eager(item)
        else:
            self.looked_at(item)
        self.model.steps_done += 1
        self.taken += 1

    def eager(self, item: tuple[Tensor, ...]) -> None:
        batch = self.loader.batch(*item)
        self.n = len(batch.x)
        self.means.add(self.model.step(batch, self.optimizers, self.reduce), self.n)

    def looked_at(self, item: tuple[Tensor, ...]) -> None:
        """A step taken on a stream of its own, as capturing asks for."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        before = outline(self.model)
        with torch.cuda.stream(stream), waits() as found:
            self.eager(item)
        torch.cuda.current_stream().wait_stream(stream)
        if self.taken:  # the first step makes the optimisers' state
            changed = [name for name, held in outline(self.model).items() if before[name] != held]
            if found:
                self.uncaptured = f"a step waits for the device: {found[0]}"
            elif changed:
                self.uncaptured = f"a step changes {changed[0]} outside the device"

    def capture(self, item: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(tensor.clone() for tensor in item)
        images, graph = dict(self.means.images), torch.cuda.CUDAGraph()
        try:
            # Other threads, such as the loader's, may go on meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.eager(self.inputs)
        except RuntimeError as error:
            self.uncaptured = str(error).strip().splitlines()[0]
        else:
            self.graph = graph
        self.means.images = images


@contextmanager
def waits() -> Iterator[list[str]]:
    """What made the host wait for the device within, in words."""
    mode, found = torch.cuda.get_sync_debug_mode(), []  # type: ignore[var-annotated]
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield found
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    found += [str(warning.message) for warning in said if "synchroniz" in str(warning.message)]


def outline(model: nn.Module) -> dict[str, Any]:
    """What a step may not change where it is replayed from a graph, by name.

    That is every attribute of the model's modules but the content of tensors: a graph writes where
    the captured step wrote, and runs none of its Python.
    """
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        for name, held in vars(module).items():
            if name not in ("_objectives", "_steps_done", "_parameters", "_buffers", "_modules"):
                found[f"{path}.{name}".strip(".")] = mark(held)
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            found[f"{path}.{name}".strip(".")] = mark(tensor)
    return found


def mark(held: Any) -> Any:
    """What tells whether an attribute has changed: its value, or which object it is."""
    if isinstance(held, Tensor):
        return id(held), held.data_ptr()
    if isinstance(held, (int, float, str, bool, type(None))):
        return held
    if isinstance(held, (list, tuple)):
        return [mark(item) for item in held]
    if isinstance(held, dict):
        return {key: mark(value) for key, value in held.items()}
    return id(held)
