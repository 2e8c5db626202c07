"""One training on several devices: a process each, which has its part of every batch."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor
from torch.multiprocessing import ProcessRaisedException

from ..plugins import InputError, load_file, loaded_files
from . import cell
from .engines.base import Slot
from .engines.local import main_hidden
from .train import OnEpoch, Trained, TrainingFailed, arithmetic

Outcome = tuple[Trained, dict[str, Any]] | TrainingFailed | str
"""What a training leaves, or how it failed, or what went wrong in one of the processes."""

for _name in ("lightning_fabric", "torch.multiprocessing"):
    logging.getLogger(_name).setLevel(logging.ERROR)  # only the CLI prints


def train_on(
    spec: dict[str, Any], slot: Slot, on_epoch: OnEpoch
) -> tuple[Trained, dict[str, Tensor]]:
    """What a training on the devices of ``slot`` leaves, and the weights.

    Every process has the same weights and takes the same steps: gradients, and the statistics that
    follow the batches, are averaged over the processes. A loss that is no mean over images, and
    batch normalisation, are of each process's part of the batch.

    Raises:
        InputError: the slot has not as many devices as the specification asks for.
        TrainingFailed: a term of the loss is not finite.
        RuntimeError: a process failed.
    """
    wanted = spec["training"]["devices"]
    if len(slot) != wanted:
        raise InputError(f"training.devices={wanted}: this worker has {len(slot)}: {slot}")
    on_cpu = slot[0] == "cpu"
    fabric = Fabric(
        accelerator="cpu" if on_cpu else "cuda",
        devices=wanted if on_cpu else [torch.device(name).index or 0 for name in slot],
        strategy=DDPStrategy(start_method="spawn", cluster_environment=LightningEnvironment()),
    )
    found: list[Outcome] = []
    try:
        with main_hidden(), own_port(), listening(on_epoch, found.append) as parent:
            datasets = {of: file for of, file in cell.shared.items() if isinstance(file, Path)}
            files = loaded_files()
            fabric.launch(partial(member, spec=spec, files=files, datasets=datasets, parent=parent))
    except ProcessRaisedException:
        if not found:
            raise
    outcome = found[0]
    if isinstance(outcome, TrainingFailed):
        raise outcome
    if isinstance(outcome, str):
        raise RuntimeError(outcome)
    trained, state = outcome
    return trained, {name: torch.from_numpy(array) for name, array in state.items()}


def member(
    fabric: Fabric,
    spec: dict[str, Any],
    files: list[str],
    datasets: dict[str, Path],
    parent: Connection,
) -> None:
    """The life of one of the processes; the first one tells ``parent`` of it."""
    cell.shared.update(datasets)
    for file in files:
        load_file(file)

    def tell(message: Any) -> None:
        if fabric.is_global_zero:
            parent.send(message)

    with arithmetic(spec["training"]["threads"]):
        try:
            model, trained = cell.train_here(
                spec, fabric.device, lambda done, total: tell((done, total)), fabric
            )
        except TrainingFailed as error:  # all of them see the same record
            tell(error)
            return
        except Exception as error:
            parent.send(f"{type(error).__name__}: {error}"[:1000])
            raise
    # As arrays: a tensor would be a handle of memory that ends with this process.
    tell((trained, {name: tensor.numpy() for name, tensor in cell.on_host(model).items()}))


@contextmanager
def listening(on_epoch: OnEpoch, on_outcome: Callable[[Outcome], None]) -> Iterator[Connection]:
    """A connection by which another process tells of its epochs, and then of their outcome."""
    reader, writer = get_context("spawn").Pipe(duplex=False)

    def listen() -> None:
        with suppress(EOFError):
            while True:
                message = reader.recv()
                if isinstance(message, tuple) and isinstance(message[0], int):
                    on_epoch(*message)
                else:
                    on_outcome(message)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        writer.close()
        thread.join()


@contextmanager
def own_port() -> Iterator[None]:
    """Within, processes find each other by a port that is free, whatever another training took."""
    names = ("MASTER_PORT", "MASTER_ADDR")
    held = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(held)
