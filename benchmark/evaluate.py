"""From a fitted model to rows: every metric of a grid, n/a where the model lacks what it needs."""

import math
from typing import NamedTuple

from .metrics import AcrossSeeds, Fitted, Metric, NotApplicable, Values
from .metrics.base import Kept
from .rows import Row

NOT_FINITE = "the value is not a finite number"


class Evaluation(NamedTuple):
    """What a cell's metrics gave: rows, and by metric what is compared across seeds."""

    rows: list[Row]
    kept: dict[str, Kept]


def evaluate(fitted: Fitted, metrics: list[Metric]) -> Evaluation:
    """The rows of ``metrics`` over a fitted model, in their order; a sampler's beside each other.

    A metric across seeds has rows here only if it does not apply; else its arrays are kept.

    Args:
        fitted: the model, its dataset, and the samplers to score.
        metrics: what to compute.
    """
    rows: list[Row] = []
    kept: dict[str, Kept] = {}
    for metric in metrics:
        for sampler in list(fitted.samplers) if metric.per_sampler else [""]:
            values: Values = {}
            note, estimator, qualifier = metric.lacks(fitted), "", ""
            if not note:
                try:
                    if isinstance(metric, AcrossSeeds):
                        kept[metric.name] = metric.keep(fitted)
                        continue
                    values = metric.compute(fitted, sampler)
                    estimator = metric.estimator(fitted)
                except NotApplicable as reason:
                    note = str(reason)
                # What a model lacks altogether it lacks under every qualifier.
                qualifier = metric.qualifier(fitted)
            rows += rows_of(metric, values, qualifier, sampler, estimator, note)
    return Evaluation(rows, kept)


def rows_of(
    metric: Metric,
    values: Values,
    qualifier: str = "",
    sampler: str = "",
    estimator: str = "",
    note: str = "",
) -> list[Row]:
    """A row for every quantity of a metric and for every part of it, n/a where it has no value.

    Args:
        metric: what was computed.
        values: what it gave.
        qualifier: what follows the quantities' names in brackets.
        sampler: the sampler that was scored.
        estimator: how it was estimated.
        note: why values that are missing are.
    """
    rows = []
    for quantity in metric.quantities:
        parts = [name for name in values if name.startswith(quantity.name + "[")]
        for name in [quantity.name, *parts]:
            value = values.get(name, math.nan)
            missing = str(value) if isinstance(value, NotApplicable) else note or NOT_FINITE
            number = math.nan if isinstance(value, NotApplicable) else float(value)
            held = [name.removeprefix(quantity.name).strip("[]"), qualifier]
            inside = "|".join(word for word in held if word)
            rows.append(
                Row(
                    metric=quantity.name + (f"[{inside}]" if inside else ""),
                    value=number,
                    unit=quantity.unit,
                    family=metric.family,
                    better=quantity.better,
                    ranked=quantity.ranked and name == quantity.name,
                    sampler=sampler,
                    estimator=estimator,
                    note="" if math.isfinite(number) else missing,
                )
            )
    return rows
