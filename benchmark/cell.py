"""One cell from its specification to the store: build, train, evaluate, draw, write."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..datasets import Dataset
from ..datasets.shared import adopt, fill
from ..models import Autoencoder, Backbone, DataSpec, Sampler, model_from
from ..plugins import InputError
from ..seeds import derive_seed, digest
from . import evaluate as evaluation
from . import train as training
from .engines.base import Slot
from .extractors import Extractor
from .grid import Cell, label, sharing
from .metrics import Fitted, Metric
from .metrics.base import Kept
from .objective import described
from .provenance import LIBRARIES, PeakMemory, code_digest, versions
from .report.pictures import pictures
from .rows import Row
from .store import Store

OnProgress = Callable[[str, int, int], None]
"""Called with the phase, such as ``training``, and how much of it is done of how much."""


shared: dict[str, Path | dict[str, Any]] = {}
"""The files by which datasets are shared between processes, or what one has loaded, by the choice
as :func:`choice_of` gives it; a worker fills it before its first cell."""


def choice_of(spec: dict[str, Any]) -> str:
    """The dataset of a specification, as JSON."""
    return json.dumps(spec["dataset"], sort_keys=True)


@lru_cache(maxsize=4)
def held_dataset(choice: str) -> Dataset:
    """The dataset of a choice; the last few stay in memory."""
    dataset = Dataset.make(**json.loads(choice))
    held = shared.get(choice)
    if isinstance(held, dict):
        fill(dataset, held)
    elif held and held.is_file():
        adopt(dataset, held)
    return dataset


@lru_cache(maxsize=4)
def held_extractor(name: str, dataset: str, device: str) -> Extractor:
    return Extractor.choose(name)(held_dataset(dataset), device)


def extractor_of(spec: dict[str, Any], name: str, device: torch.device | str) -> Extractor:
    """The extractor called ``name`` for the dataset of a specification."""
    return held_extractor(name, choice_of(spec), str(device))


def dataset_of(spec: dict[str, Any]) -> Dataset:
    return held_dataset(choice_of(spec))


def cells_of(specs: list[dict[str, Any]]) -> list[Cell]:
    """The cells of specifications, in their order."""
    cells: list[Cell] = []
    for _, alike in groupby(specs, sharing):
        first, *others = alike
        key = configuration_key(first)
        cells += [Cell(spec, digest(key, spec["seed"])) for spec in (first, *others)]
    return cells


def key_of(spec: dict[str, Any]) -> str:
    """The hash of everything that could change a cell's numbers.

    That is its specification, the content of its dataset, the code that it runs and the versions
    of the libraries that compute.
    """
    return digest(configuration_key(spec), spec["seed"])


def training_key_of(spec: dict[str, Any]) -> str:
    """The hash of everything that could change a cell's weights.

    Cells that differ in their evaluation alone share it, and one training.
    """
    return digest(training_configuration_key(spec), spec["seed"])


def configuration_key(spec: dict[str, Any]) -> str:
    """What :func:`key_of` hashes beside the seed."""
    chosen = spec["evaluation"]
    roots: list[type] = [
        Extractor.choose(chosen["extractor"]),
        *(Sampler.choose(sampler["name"]) for sampler in chosen["samplers"]),
        *(Metric.choose(metric["name"]) for metric in chosen["metrics"]),
    ]
    return digest(chosen, training_configuration_key(spec), code_digest(*roots, evaluation))


def training_configuration_key(spec: dict[str, Any]) -> str:
    """What :func:`training_key_of` hashes beside the seed."""
    parts = {name: held for name, held in spec.items() if name not in ("evaluation", "seed")}
    roots: list[type] = [
        Dataset.choose(spec["dataset"]["name"]),
        Autoencoder.choose(spec["model"]["name"]),
    ]
    if spec["backbone"]:
        roots.append(Backbone.choose(spec["backbone"]["name"]))
    if name := seen_by(spec):
        roots.append(Extractor.choose(name))
    computing = {library: versions()[library] for library in LIBRARIES}
    return digest(parts, dataset_of(spec).hash, code_digest(*roots, training), computing)


def seen_by(spec: dict[str, Any]) -> str:
    """The extractor by whose maps the model of a specification compares images, if it does."""
    model = spec["model"]
    perceives = Autoencoder.choose(model["name"]).perceives
    return model["hyperparameters"]["extractor"] if perceives else ""


def data_of(spec: dict[str, Any]) -> DataSpec:
    """What the model of a specification may know of its data."""
    dataset = dataset_of(spec)
    return DataSpec(dataset.shape, dataset.classes, len(dataset.split("train")))


def build(spec: dict[str, Any]) -> Autoencoder:
    """The untrained model of a specification, its weights drawn from the cell's own stream."""
    data = data_of(spec)
    backbone = Backbone.make(**spec["backbone"]) if spec["backbone"] else None
    torch.manual_seed(derive_seed(*training.names_of(spec), "weights"))
    return model_from(spec["model"]["name"], spec["model"]["hyperparameters"], data, backbone)


def refuse_unbuildable(specs: list[dict[str, Any]]) -> None:
    """Build the models, without memory, for what they refuse: before anything is trained.

    Of cells that differ in their seed alone one is built. What else goes wrong in a constructor is
    left to its cells, which fail.

    Raises:
        InputError: a model refuses its hyper-parameters, its backbone or its dataset.
    """
    for _, alike in groupby(specs, sharing):
        spec = next(alike)
        data_of(spec)  # read now: what is read within has no content
        if (name := seen_by(spec)) and (why := extractor_of(spec, name, "cpu").why_no_maps()):
            raise InputError(f"model {spec['model']['name']!r}: extractor {name!r}: {why}")
        try:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                build(spec)
        except InputError:
            raise
        except Exception:
            continue


def run_cell(cell: Cell, store: Store, slot: Slot, on_progress: OnProgress) -> None:
    """Train ``cell`` on the devices of ``slot``, score it on the first, write it to ``store``.

    What the store has trained already is not trained again: for a cell that was scored otherwise,
    or for this one before its scoring failed.

    Raises:
        Exception: whatever went wrong; nothing was written then.
    """
    with training.arithmetic(cell.spec["training"]["threads"]):
        scored(cell, store, slot, on_progress)


def train_here(
    spec: dict[str, Any],
    device: torch.device,
    on_epoch: training.OnEpoch,
    fabric: "training.Fabric | None" = None,
) -> tuple[Autoencoder, training.Trained]:
    """The trained model of a specification, and what its training leaves.

    Args:
        spec: the specification.
        device: where to train.
        on_epoch: told of progress.
        fabric: the processes that share the training.
    """
    model, dataset, memory = build(spec), dataset_of(spec), PeakMemory(device)
    if name := seen_by(spec):
        maps = extractor_of(spec, name, device).maps
        maps(dataset.split("val").images(slice(1)).to(device))  # made before the clock starts
        model.perceive(maps)
    budget, names = training.Budget.of(spec["training"]), training.names_of(spec)
    trained = training.train(model, dataset, budget, names, device, on_epoch, fabric=fabric)
    trained.peak_memory = memory.read()
    return model, trained


def scored(cell: Cell, store: Store, slot: Slot, on_progress: OnProgress) -> None:
    spec, device = cell.spec, torch.device(slot[0])
    memory = PeakMemory(device)
    dataset = dataset_of(spec)
    model = build(spec)
    training_key = training_key_of(spec)
    trained = store.trained(training_key, model)
    if trained is None:

        def on_epoch(done: int, total: int) -> None:
            on_progress("training", done, total)

        if spec["training"].get("devices", 1) > 1:
            from .distributed import train_on

            trained, state = train_on(spec, slot, on_epoch)
            model.load_state_dict(state)
        else:
            model, trained = train_here(spec, device, on_epoch)
        store.write_training(training_key, trained, on_host(model))
    model.to(device).eval()
    start = time.perf_counter()
    chosen = spec["evaluation"]
    samplers = {label(choice): Sampler.make(**choice) for choice in chosen["samplers"]}
    extractor = extractor_of(spec, chosen["extractor"], device)
    seed = derive_seed(*training.names_of(spec), "evaluate")
    fitted = Fitted(model, dataset, extractor, seed, samplers)
    rows: list[Row] = []
    kept: dict[str, Kept] = {}
    for i, choice in enumerate(chosen["metrics"]):
        on_progress(f"scoring {choice['name']}", i, len(chosen["metrics"]))
        found = evaluation.evaluate(fitted, [Metric.make(**choice)])
        rows += [replace(row, own=row.sampler == model.sampler) for row in found.rows]
        kept |= found.kept
    seconds = time.perf_counter() - start
    costs = {
        "train_seconds": (trained.seconds, "s"),
        "evaluate_seconds": (seconds, "s"),
        "peak_memory": (max(trained.peak_memory, memory.read()), "MiB"),
        "parameters": (float(sum(p.numel() for p in model.parameters())), ""),
        "steps": (float(trained.steps), ""),
    }
    rows += [Row(name, value, unit, family="cost") for name, (value, unit) in costs.items()]
    drawn = pictures(fitted)
    provenance = {
        "versions": versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dataset_hash": dataset.hash,
        "training_key": training_key,
        "best_epoch": trained.best_epoch,
        "selection": model.selection,
        "observation": model.observation.label,
        "about": described(type(model)),
    }
    store.write(cell, rows, kept, trained, on_host(model), drawn, provenance)


def on_host(model: Autoencoder) -> dict[str, Tensor]:
    """The weights of a model, in the host's memory."""
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}
