"""A whole small grid: by Pythae, by us, and by a bare loop on every core."""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
import yaml

from ...plugins import InputError
from ..cell import build, dataset_of
from ..engines.local import cores
from ..grid import read_grid, specs
from ..store import Store, read_json
from .base import Table, alternate, ratios, spread

PYTHAE = "0.1.2"
HERE = Path(__file__).parent
MODELS: dict[str, float | None] = {"ae": None, "vae": 1.0, "beta_vae": 4.0}
"""β of each model; an autoencoder has none."""
OURS, LIMIT, THEIRS = "ours", "limit", "Pythae"
OURS_16, LIMIT_16 = "ours, bf16", "limit, bf16"
Losses = dict[str, float]
"""The validation loss of the best epoch by cell."""
Seconds = Mapping[str, list[float]]


@dataclass(frozen=True)
class Network:
    """A row: a backbone as a grid names it, and the epochs that take about a minute."""

    title: str
    backbone: dict[str, Any]
    epochs: int


@dataclass(frozen=True)
class Size:
    """How large the grid is: the models × ``seeds`` for each network."""

    dataset: dict[str, Any] = field(
        default_factory=lambda: {"mnist": {"train": 10_000, "val": 1_000, "test": 1_000}}
    )
    networks: tuple[Network, ...] = (
        Network("MLP, 784-400-16", {"mlp": {"hidden": [400]}}, 30),
        Network("ConvNet, 8-8-16 channels", {"conv": {"width": 8}}, 10),
    )
    seeds: int = 3
    batch_size: int = 100
    lr: float = 1e-3
    latent_dim: int = 16


@dataclass(frozen=True)
class Work:
    """The grid of one network in a folder, where every way finds it and leaves its losses."""

    folder: Path
    images: int

    @classmethod
    def make(cls, folder: Path, size: Size, network: Network) -> "Work":
        """Write the grid for ``aebench run``, and for the others its images and networks.

        Their networks are ours with the weights that ours start from.
        """
        settings = {
            "datasets": size.dataset,
            "models": {
                name: {} if beta in (None, 1.0) else {"beta": beta} for name, beta in MODELS.items()
            },
            "hyperparameters": {"latent_dim": size.latent_dim, "likelihood": "gaussian"},
            "backbones": network.backbone,
            "training": {
                "epochs": network.epochs,
                "batch_size": size.batch_size,
                "lr": size.lr,
            },
            "seeds": size.seeds,
            "samplers": ["prior"],
            "metrics": ["mse"],
        }
        (folder / "grid.yaml").write_text(yaml.safe_dump(settings))
        cells = []
        wanted = specs(read_grid(settings)[1], "cpu")
        for spec in wanted:
            name, model = spec["model"]["name"], build(spec)
            torch.save((model.encoder, model.decoder), folder / file_of(spec))
            cell = {"model": name, "beta": MODELS[name], "seed": spec["seed"]}
            cells.append(cell | {"networks": file_of(spec)})
        dataset = dataset_of(wanted[0])
        held = {split: dataset.split(split).images().clone() for split in ("train", "val")}
        torch.save(held, folder / "images.pt")
        work = {"epochs": network.epochs, "cells": cells}
        work |= {name: vars(size)[name] for name in ("batch_size", "lr", "latent_dim")}
        (folder / "work.json").write_text(json.dumps(work))
        steps = len(held["train"]) // size.batch_size * network.epochs
        return cls(folder, len(cells) * steps * size.batch_size)

    def by_pythae(self, python: Path) -> Losses:
        """One after another in one process, on as many threads as torch takes by default."""
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {key: value for key, value in os.environ.items() if key not in threads}
        together([[python, "-P", HERE / "with_pythae.py", self.folder]], environment)
        return self.left_by("pythae")

    def by_us(self, precision: str) -> Losses:
        """``aebench run``: all of it, as a user starts it, into an empty store."""
        with tempfile.TemporaryDirectory(dir=self.folder) as out:
            command = [Path(sys.executable).with_name("aebench"), "run", self.folder / "grid.yaml"]
            together([[*command, "--device", "cpu", "--precision", precision, "--out", out]])
            return losses_of(Path(out))

    def by_hand(self, precision: str) -> Losses:
        """A bare loop on every core, side by side, each with its share of the cells."""
        command = [sys.executable, "-P", HERE / "bare.py", self.folder]
        together([[*command, i, cores(), precision] for i in range(cores())])
        return self.left_by("bare")

    def left_by(self, way: str) -> Losses:
        """The losses that the processes of a way wrote."""
        found: Losses = {}
        for file in self.folder.glob(f"{way}*.json"):
            found |= json.loads(file.read_text())
            file.unlink()
        return found


def together(commands: list[list[Any]], environment: Mapping[str, str] | None = None) -> None:
    """Run commands side by side until all have ended.

    Raises:
        RuntimeError: one failed.
    """
    with tempfile.TemporaryFile("w+") as errors:
        started: list[subprocess.Popen[bytes]] = []
        try:
            for command in commands:
                words = [str(word) for word in command]
                quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": errors}
                started.append(subprocess.Popen(words, env=environment, **quiet))
            codes = [process.wait() for process in started]
        finally:
            for process in started:
                process.kill()
        if any(codes):
            errors.seek(0)
            raise RuntimeError(f"{commands[0]} failed: {errors.read()[-2000:]}")


def losses_of(store: Path) -> Losses:
    """The least validation loss of every cell of ours, without the Gaussian's constant."""
    found = {}
    for cell, folder in Store(store).finished():
        least = min(epoch["val/loss"] for epoch in read_json(folder / "history.json"))
        constant = 0.5 * math.prod(dataset_of(cell.spec).shape) * math.log(2 * math.pi)
        found[file_of(cell.spec)] = least - constant
    return found


def file_of(spec: Mapping[str, Any]) -> str:
    """The file of a cell's networks, by which its losses are called."""
    return f"{spec['model']['name']}-{spec['seed']}.pt"


def pythae_python(folder: Path) -> Path | None:
    """A Python that has Pythae and our torch; None where it cannot be had.

    The one that the environment variable ``PYTHAE_PYTHON`` names, or else that of an environment
    made in ``folder``: Pythae by pip without what it depends on, which comes from ours.

    Raises:
        InputError: the variable names one that has no such Pythae.
    """
    if named := os.environ.get("PYTHAE_PYTHON"):
        if not has_pythae(Path(named)):
            raise InputError(f"PYTHAE_PYTHON={named} has no Pythae {PYTHAE}")
        return Path(named)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    ours = str(distribution("torch").locate_file(""))
    (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    install = [str(python), "-m", "pip", "install", "--no-deps", f"pythae=={PYTHAE}", "imageio"]
    subprocess.run(install, capture_output=True, check=False)
    return python if has_pythae(python) else None


def has_pythae(python: Path) -> bool:
    """Whether ``python`` runs and can import Pythae's version ``PYTHAE``."""
    code = "import pythae.pipelines; from importlib.metadata import version as of"
    try:
        command = [str(python), "-c", f"{code}; print(of('pythae'))"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return run.stdout.strip() == PYTHAE


def measure(pairs: int, size: Size | None = None) -> tuple[Table, ...]:
    """The seconds of every way in float32 and in bfloat16, and the losses of all.

    Raises:
        InputError: the dataset cannot be had, or ``PYTHAE_PYTHON`` has no Pythae.
    """
    size = size or Size()
    times, mixed, losses = [], [], []
    with tempfile.TemporaryDirectory() as place:
        python = pythae_python(Path(place) / "pythae")
        for i, network in enumerate(size.networks):
            folder = Path(place) / str(i)
            folder.mkdir()
            work = Work.make(folder, size, network)
            found: dict[str, Losses] = {}
            seconds = alternate(recorded(ways_of(work, python), found), pairs)
            times.append(row(network.title, work.images, seconds))
            mixed.append(mixed_row(network.title, seconds))
            losses += [loss_row(network.title, model, found) for model in MODELS]
    columns = ("network", THEIRS, OURS, LIMIT, "ours, images/s", "limit / ours", "Pythae / ours")
    mixed_columns = ("network", OURS_16, LIMIT_16, "limit / ours", "ours, gain", "limit, gain")
    return (
        Table(title(size), columns, tuple(times), notes(size, pairs, python)),
        Table("The same in bfloat16", mixed_columns, tuple(mixed), MIXED_NOTES),
        Table(
            "Their validation losses",
            ("network", "model", THEIRS, OURS, LIMIT, OURS_16, LIMIT_16),
            tuple(losses),
            LOSS_NOTES,
        ),
    )


def ways_of(work: Work, python: Path | None) -> dict[str, Callable[[], Losses]]:
    """Every way to run the grid, in the order of a round."""
    ways: dict[str, Callable[[], Losses]] = {}
    if python is not None:
        ways[THEIRS] = partial(work.by_pythae, python)
    return ways | {
        OURS: partial(work.by_us, "32"),
        LIMIT: partial(work.by_hand, "32"),
        OURS_16: partial(work.by_us, "bf16-mixed"),
        LIMIT_16: partial(work.by_hand, "bf16-mixed"),
    }


def recorded(
    ways: Mapping[str, Callable[[], Losses]], found: dict[str, Losses]
) -> dict[str, Callable[[], object]]:
    """``ways``, each of which also leaves its losses in ``found``."""

    def act(way: str) -> None:
        found[way] = ways[way]()

    return {way: partial(act, way) for way in ways}


def row(title: str, images: int, seconds: Seconds) -> tuple[str, ...]:
    """The times in float32 of one network."""
    theirs, ours, limit = seconds.get(THEIRS), seconds[OURS], seconds[LIMIT]
    return (
        title,
        spread(theirs) if theirs else "",
        spread(ours),
        spread(limit),
        f"{images / statistics.median(ours):,.0f}",
        ratios(limit, ours),
        ratios(theirs, ours) if theirs else "",
    )


def mixed_row(title: str, seconds: Seconds) -> tuple[str, ...]:
    """The times in bfloat16 of one network, and how many times as fast as in float32."""
    ours, limit = seconds[OURS_16], seconds[LIMIT_16]
    gains = ratios(seconds[OURS], ours), ratios(seconds[LIMIT], limit)
    return title, spread(ours), spread(limit), ratios(limit, ours), *gains


def loss_row(title: str, model: str, found: Mapping[str, Losses]) -> tuple[str, ...]:
    """The losses of a model by every way, over its seeds."""

    def over_seeds(losses: Losses) -> str:
        values = [loss for file, loss in losses.items() if file.rpartition("-")[0] == model]
        deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.2f}{deviation}" if values else ""

    ways = (THEIRS, OURS, LIMIT, OURS_16, LIMIT_16)
    return title, model, *(over_seeds(found.get(way, {})) for way in ways)


def title(size: Size) -> str:
    """What was run, in one line."""
    (dataset,) = size.dataset
    return f"A grid of {len(MODELS)} models × {size.seeds} seeds on {dataset}"


def notes(size: Size, pairs: int, python: Path | None) -> tuple[str, ...]:
    """How it was measured."""
    (held,) = size.dataset.values()
    epochs = ", ".join(f"{network.title}: {network.epochs}" for network in size.networks)
    theirs = (
        f"Pythae {PYTHAE}'s `TrainingPipeline` one after another in one process, its defaults, "
        f"torch {torch.__version__} on as many threads as cores"
        if python
        else f"Pythae {PYTHAE} could not be had, by pip or by PYTHAE_PYTHON, and is left out"
    )
    return (
        f"{', '.join(MODELS)}; {held['train']:,} training and {held['val']:,} validation images, "
        f"{size.latent_dim} latent dimensions, batches of {size.batch_size}, Adam at {size.lr:g}. "
        f"Epochs: {epochs}. The same networks, with the same initial weights.",
        f"{theirs}.",
        "Ours: `aebench run` into an empty folder, as many workers as cores, from its start to its "
        "end: imports, planning, `mse`, pictures and tables; the sampler is the prior, which needs "
        "no fit.",
        f"The limit: {cores()} processes side by side, a core and a share of the cells each: a "
        "bare loop over uint8 tensors on one thread, fused Adam, denormals as zero, the weights of "
        "the best epoch kept; it imports torch alone, scores nothing and writes no weights.",
        f"Whole processes, {cores()} cores, {pairs} rounds of all ways in turn: the median and the "
        "range. Ratios are of seconds, round by round.",
    )


MIXED_NOTES = (
    "Ours with `--precision bf16-mixed`, the limit with torch's autocast; in the rounds of the "
    "table above. The gain is over the same way in float32.",
)
LOSS_NOTES = (
    "Half the squared error an image, and β times the KL in nats; of the best epoch, over the "
    "validation images. Mean ± standard deviation over the seeds; of the last round.",
    "Pythae's autoencoder minimises twice that; it is halved here.",
)
