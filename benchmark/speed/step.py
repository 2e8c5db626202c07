"""A step of our training beside a bare PyTorch loop and Lightning's Trainer, in one process."""

import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from ...datasets import Dataset
from ...models import Autoencoder, Backbone, Batch, DataSpec, model_from
from ..lightning import LightningAutoencoder
from ..loader import Loader
from ..train import Budget, arithmetic, train
from . import bare
from .base import Table, in_turn, ratios, spread

MODELS = ("ae", "vae")
OURS, BARE, LIGHTNING = "ours", "bare loop", "Lightning"
Way = Callable[["Case", torch.device, int], float]
"""A case, a device and epochs → seconds a step."""


@dataclass(frozen=True)
class Size:
    """What is trained, and for how long."""

    dataset: dict[str, Any] = field(
        default_factory=lambda: {
            "name": "mnist",
            "parameters": {"train": 10_000, "val": 1_000, "test": 1_000},
        }
    )
    networks: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "MLP, 784-400-16": {"name": "mlp", "parameters": {"hidden": (400,)}},
            "ConvNet, 8-8-16 channels": {"name": "conv", "parameters": {"width": 8}},
        }
    )
    epochs: int = 6
    batch_size: int = 100


@dataclass(frozen=True)
class Case:
    """A model on a dataset."""

    model: str
    backbone: dict[str, Any]
    dataset: Dataset
    batch_size: int
    lr: float = 1e-3

    def build(self, device: torch.device) -> Autoencoder:
        """The model, untrained, on ``device``."""
        data = DataSpec(self.dataset.shape, size=len(self.dataset.split("train")))
        model = model_from(self.model, {}, data, Backbone.make(**self.backbone))
        return model.to(device).train()


def ours(case: Case, device: torch.device, epochs: int, capture: bool = True) -> float:
    """:func:`train`, with all that it does."""
    budget = Budget(epochs=epochs, batch_size=case.batch_size, lr=case.lr)
    model = case.build(device)
    trained = train(model, case.dataset, budget, ("step",), device, capture=capture)
    return trained.seconds / trained.steps


def by_hand(case: Case, device: torch.device, epochs: int, graph: bool = False) -> float:
    """The bare loop with the model's own loss."""
    model = case.build(device)
    start = time.perf_counter()
    images = case.dataset.split("train").images().to(device)
    val = case.dataset.split("val").images().to(device)
    bare.fit(
        lambda x: model.losses(Batch(x))["loss"],
        list(model.parameters()),
        images,
        val,
        epochs,
        case.batch_size,
        case.lr,
        graph,
    )
    return (time.perf_counter() - start) / (len(images) // case.batch_size * epochs)


def by_lightning(case: Case, device: torch.device, epochs: int) -> float:
    """``Trainer.fit`` on the same batches, without what it writes and prints by default."""
    model = case.build(device)
    model.lr, model.make_optimizer = case.lr, partial(torch.optim.Adam, fused=True)
    start = time.perf_counter()
    loader = Loader(case.dataset.split("train"), case.batch_size, 0, device)
    val = Loader(case.dataset.split("val"), bare.AT_ONCE, None, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=epochs,
            callbacks=[Best()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(LightningAutoencoder(model), loader, val)
    return (time.perf_counter() - start) / (len(loader) * epochs)


class Best(Callback):
    """Keeps the weights of the epoch of the least validation loss."""

    def __init__(self) -> None:
        self.best, self.state = math.inf, {}  # type: ignore[var-annotated]

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        found = float(trainer.callback_metrics["val/loss"])
        if found < self.best:
            self.best = found
            self.state = {name: held.clone() for name, held in module.state_dict().items()}


def ways_of(device: torch.device) -> dict[str, Way]:
    """What is compared on ``device``: on CUDA, steps captured in a graph and taken one by one."""
    if device.type == "cpu":
        return {OURS: ours, BARE: by_hand, LIGHTNING: by_lightning}
    return {
        OURS: ours,
        BARE: partial(by_hand, graph=True),
        f"{OURS}, eager": partial(ours, capture=False),
        f"{BARE}, eager": by_hand,
        LIGHTNING: by_lightning,
    }


def rows(device: torch.device, pairs: int, size: Size) -> list[tuple[str, ...]]:
    """A row for every model on every network."""
    dataset, found = Dataset.make(**size.dataset), []
    for title, backbone in size.networks.items():
        for name in MODELS:
            case, ways = Case(name, backbone, dataset, size.batch_size), ways_of(device)
            for way in ways.values():  # each way's first use of its libraries is not counted
                way(case, device, 1)
            work = {at: partial(way, case, device, size.epochs) for at, way in ways.items()}
            seconds = in_turn(work, pairs)
            times = [spread([1000 * s for s in held], "ms") for held in seconds.values()]
            faster = [ratios(seconds[way], seconds[OURS]) for way in (BARE, LIGHTNING)]
            found.append((f"{name}, {title}", *times, *faster))
    return found


def table(device: torch.device, pairs: int, size: Size) -> Table:
    """The times of a step on ``device``."""
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else "one thread of the CPU"
    ways = (*ways_of(device), f"{BARE} / {OURS}", f"{LIGHTNING} / {OURS}")
    notes = [
        f"{size.dataset['name']}, {size.dataset['parameters']}; batches of {size.batch_size}, "
        f"{size.epochs} epochs: the seconds of the training over its steps. All ways validate "
        "once an epoch and keep the best weights; ours and Lightning average every term.",
        f"The bare loop and pytorch-lightning {version('pytorch-lightning')}'s Trainer minimise "
        "the same model's loss by the same fused Adam, on batches that are indexed from uint8 "
        "tensors; the Trainer shows and writes nothing.",
        f"One process, {pairs} trainings of each way in turn: the median and the range.",
    ]
    if device.type == "cuda":
        notes.append("Ours and the bare loop replay a captured step, but where it says eager.")
    return Table(
        f"A training step on {on}", ("model", *ways), tuple(rows(device, pairs, size)), tuple(notes)
    )


def measure(pairs: int, size: Size | None = None) -> tuple[Table, ...]:
    """The times of a step on the CPU, and on a GPU where there is one.

    Raises:
        InputError: the dataset cannot be had.
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    with arithmetic(1):
        return tuple(table(torch.device(device), pairs, size or Size()) for device in devices)
