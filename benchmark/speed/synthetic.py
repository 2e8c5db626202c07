"""Cells that nothing was trained for: what tests and times of large stores are made of."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...seeds import derive_seed, digest
from ..grid import Cell
from ..rows import Row
from ..store import Store, frame

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = (
    ("mse", "reconstruction", "lower", "", 0.02),
    ("psnr", "reconstruction", "higher", "dB", 20.0),
    ("ssim", "reconstruction", "higher", "", 0.8),
    ("nll", "likelihood", "lower", "nats", 95.0),
    ("elbo", "likelihood", "higher", "nats", -100.0),
    ("fid[classifier]", "generation", "lower", "", 30.0),
    ("precision[classifier]", "generation", "higher", "", 0.6),
    ("mig", "disentanglement", "higher", "", 0.2),
    ("acc", "clustering", "higher", "", 0.5),
    ("linear_acc", "classification", "higher", "", 0.9),
    ("active_units", "likelihood", "", "", 8.0),
)
"""Metrics: name, family, direction, unit, and a plausible value."""
SAMPLERS = ("prior", "gmm")
TERMS = ("loss", "reconstruction", "kl")


def cells(
    models: int, datasets: int, seeds: int, metrics: int, seed: int = 0
) -> Iterator[tuple[Cell, list[Row]]]:
    """Every cell with its rows; what a cell has depends on ``seed`` and its own names alone.

    Models differ by an effect of their own and one on each dataset, seeds by noise. Generation is
    scored for two samplers, every fifth model has no likelihood, one value in a hundred is not
    finite, and one cell in fifty failed.

    Args:
        models: how many models.
        datasets: how many datasets.
        seeds: how many seeds.
        metrics: how many metrics; beyond ``QUANTITIES`` they are numbered.
        seed: of all random numbers.
    """
    quality = {m: of(seed, "model", m).normal() for m in range(models)}
    for d in range(datasets):
        for m in range(models):
            affinity = of(seed, "model", m, "dataset", d).normal(0, 0.4)
            for s in range(seeds):
                random = of(seed, "cell", m, d, s)
                cell = cell_of(m, d, s, metrics)
                if random.random() < 0.02:
                    error = "the loss is not a finite number in epoch 3"
                    yield cell, [Row("failed", math.nan, family="status", note=error)]
                    continue
                yield cell, rows_of(m, quality[m] + affinity, metrics, random)


def of(*names: object) -> np.random.Generator:
    return np.random.default_rng(derive_seed("synthetic", *names))


def cell_of(model: int, dataset: int, seed: int, metrics: int) -> Cell:
    spec = {
        "dataset": {"name": f"data{dataset:02}", "parameters": {}},
        "model": {
            "name": f"model{model:03}",
            "hyperparameters": {"latent_dim": 10, "weight": 1 + model % 7 / 2},
        },
        "backbone": {"name": "mlp", "parameters": {"hidden": [256, 128]}},
        "training": {"epochs": 100, "batch_size": 64, "lr": 0.001, "threads": 1},
        "evaluation": {
            "extractor": "classifier",
            "samplers": [{"name": sampler, "parameters": {}} for sampler in SAMPLERS],
            "metrics": [{"name": name, "parameters": {}} for name, *_ in quantities(metrics)],
        },
        "seed": seed,
        "device": "cpu",
    }
    return Cell(spec, digest(spec))


def quantities(metrics: int) -> list[tuple[str, str, str, str, float]]:
    found = []
    for n in range(metrics):
        again, (name, *_) = n // len(QUANTITIES), QUANTITIES[n % len(QUANTITIES)]
        bare, bracket, qualifier = name.partition("[")
        named = f"{bare}_{again + 1}{bracket}{qualifier}" if again else name
        found.append((named, *QUANTITIES[n % len(QUANTITIES)][1:]))
    return found


def rows_of(model: int, quality: float, metrics: int, random: np.random.Generator) -> list[Row]:
    rows = []
    for name, family, better, unit, usual in quantities(metrics):
        for sampler in SAMPLERS if family == "generation" else [""]:
            effect = 0.15 * quality + random.normal(0, 0.05)
            value = usual * math.exp(-effect if (better == "lower") == (usual > 0) else effect)
            note = ""
            if family == "likelihood" and model % 5 == 4:
                note = "the model has no log_weights"
            elif random.random() < 0.01:
                note = "the value is not a finite number"
            rows.append(
                Row(
                    name,
                    math.nan if note else value,
                    unit,
                    family,
                    better,
                    ranked=bool(better),
                    sampler=sampler,
                    own=sampler == SAMPLERS[0],
                    estimator="" if note else f"{family} over 1000 images of the test split",
                    note=note,
                )
            )
    seconds, slowness = random.gamma(20.0, 0.1), 1 + model % 10
    costs = (
        ("train_seconds", 10 * slowness * seconds, "s"),
        ("evaluate_seconds", 5 * seconds, "s"),
        ("peak_memory", 500.0 + 10 * slowness, "MiB"),
        ("parameters", 1e5 * slowness, ""),
        ("steps", 2000.0, ""),
    )
    return rows + [Row(name, value, unit, family="cost") for name, value, unit in costs]


def rows(models: int, datasets: int, seeds: int, metrics: int, seed: int = 0) -> "pd.DataFrame":
    """The rows of :func:`cells`, as ``Store.rows`` gives them. The arguments are the same."""
    return frame(
        (cell, map(vars, held)) for cell, held in cells(models, datasets, seeds, metrics, seed)
    )


def store(
    path: str | Path,
    models: int,
    datasets: int,
    seeds: int,
    metrics: int,
    seed: int = 0,
    epochs: int = 100,
    titles: tuple[str, ...] = ("reconstructions", "samples-prior"),
) -> Store:
    """A store of :func:`cells`: histories and pictures are there, weights are not.

    Args:
        path: its folder.
        models: how many models.
        datasets: how many datasets.
        seeds: how many seeds.
        metrics: how many metrics.
        seed: of all random numbers.
        epochs: how long a history is, of three terms in training and validation each.
        titles: the pictures of a cell, 300 × 60 pixels each.
    """
    from ..train import Trained

    made = Store(path, create=True)
    for cell, held in cells(models, datasets, seeds, metrics, seed):
        if held[0].family == "status":
            made.fail(cell, held[0].note)
            continue
        random = of(seed, "history", cell.key)
        curve = np.exp(-np.arange(1, epochs + 1) / 20)[:, None] + random.normal(
            0, 0.01, (epochs, 6)
        )
        terms = [f"{part}/{term}" for part in ("train", "val") for term in TERMS]
        history = [
            {"epoch": n, **dict(zip(terms, some))}
            for n, some in enumerate((100 * curve).tolist(), start=1)
        ]
        trained = Trained(history, best_epoch=epochs, steps=2000, seconds=10.0, peak_memory=500.0)
        blocks = random.integers(0, 256, (len(titles), 5, 25, 3), dtype=np.uint8)
        pictures = {t: b.repeat(12, 0).repeat(12, 1) for t, b in zip(titles, blocks)}
        provenance = {
            "versions": {},
            "device": "cpu",
            "training_key": cell.key,
            "selection": "loss",
            "about": {
                "description": f"Synthetic {cell.model}.",
                "objective": r"-\log p(x \mid z)",
                "reference": "Nobody 2020, arXiv:2001.00001",
            },
        }
        made.write(cell, held, {}, trained, {}, pictures, provenance)
    return made
