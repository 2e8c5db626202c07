"""From a fitted model to rows: every metric of a grid, n/a where the model lacks what it needs."""

import math

from .metrics import Fitted, Metric, NotApplicable
from .rows import Row


def evaluate(fitted: Fitted, metrics: list[Metric]) -> list[Row]:
    """The rows of ``metrics`` over a fitted model, in their order; a sampler's beside each other.

    Args:
        fitted: the model, its dataset, and the samplers to score.
        metrics: what to compute.
    """
    rows = []
    for metric in metrics:
        for sampler in list(fitted.samplers) if metric.per_sampler else [""]:
            values: dict[str, float] = {}
            lacks = metric.lacks(fitted)
            estimator, note = "", lacks
            if not lacks:
                try:
                    values = metric.compute(fitted, sampler)
                    estimator = metric.estimator(fitted)
                except NotApplicable as reason:
                    note = str(reason)
            # What a model lacks altogether it lacks under every qualifier.
            qualifier = "" if lacks else metric.qualifier(fitted)
            for quantity in metric.quantities:
                rows.append(
                    Row(
                        metric=quantity.name + (f"[{qualifier}]" if qualifier else ""),
                        value=float(values.get(quantity.name, math.nan)),
                        unit=quantity.unit,
                        family=metric.family,
                        better=quantity.better,
                        sampler=sampler,
                        estimator=estimator,
                        note=note,
                    )
                )
    return rows
