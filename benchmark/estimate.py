"""What a cell will take, learnt from the cells of a store: a hint for their order, no more."""

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ..seeds import digest
from .grid import Cell, sharing
from .store import Store, read_json

if TYPE_CHECKING:
    from .results import Results

FILE = "costs.json"
"""Of every group of kin, the mean seconds of an epoch of training and of the evaluation."""

Costs = dict[str, tuple[float, float]]


def longest_first(cells: list[Cell], store: Store) -> list[Cell]:
    """``cells`` by the seconds that their nearest kin in the store took, the longest first.

    Those without kin come first of all, by images × epochs.
    """
    costs = read(store)
    held: dict[tuple[int, ...], tuple[float, float]] = {}

    def expected(cell: Cell) -> tuple[float, float]:
        shared = sharing(cell.spec)
        if shared not in held:
            seconds = estimate(cell.spec, costs)
            held[shared] = (math.inf, work(cell.spec)) if seconds is None else (seconds, 0.0)
        return held[shared]

    return sorted(cells, key=expected, reverse=True)


def estimate(spec: dict[str, Any], costs: Costs) -> float | None:
    """The seconds that a cell's training and evaluation will take; None where it has no kin."""
    for group in kin(spec):
        if group in costs:
            epoch, evaluation = costs[group]
            return epochs(spec) * epoch + evaluation
    return None


def kin(spec: dict[str, Any]) -> list[str]:
    """The groups of cells that take alike, from the nearest to the farthest."""
    model, backbone = spec["model"], spec["backbone"]
    groups: list[tuple[Any, ...]] = [
        (model, backbone, spec["training"]),
        (model, backbone),
        (model["name"], backbone),
        (model["name"],),
        ("of this backbone", backbone),
    ]
    return [digest(spec["device"], spec["dataset"], *group) for group in groups]


def epochs(spec: dict[str, Any]) -> float:
    return spec["training"].get("epochs", 1)  # what has a closed form has no budget


def work(spec: dict[str, Any]) -> float:
    """The values of the training images × epochs."""
    from .cell import data_of

    data = data_of(spec)
    return float(data.size * math.prod(data.shape) * epochs(spec))


def learnt(results: "Results") -> Costs:
    """What the finished cells of a store took."""
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
    rows = results.rows
    for cell, seconds in rows[rows["family"] == "cost"].groupby("cell"):
        of = dict(zip(seconds["metric"], seconds["value"]))
        spec = results.specs.get(str(cell))
        training, evaluation = of.get("train_seconds"), of.get("evaluate_seconds")
        if spec is None or training is None or evaluation is None:
            continue
        for group in kin(spec):
            taken[group].append((training / epochs(spec), evaluation))
    return {
        group: (sum(a for a, _ in held) / len(held), sum(b for _, b in held) / len(held))
        for group, held in taken.items()
    }


def read(store: Store) -> Costs:
    """What a store's file says, as far as it can be read."""
    try:
        held = read_json(store.path / FILE).items()
        return {group: (float(epoch), float(evaluation)) for group, (epoch, evaluation) in held}
    except (ArithmeticError, AttributeError, TypeError, ValueError):  # InputError too
        return {}
