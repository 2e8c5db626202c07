"""Rows: the numbers of cells, in memory and as a file."""

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "dataset",
    "model",
    "hyperparameters",
    "backbone",
    "seed",
    "sampler",
    "own",
    "metric",
    "value",
    "unit",
    "cell",
]
"""The columns of ``rows.csv``."""
DETAILS = ["family", "better", "ranked", "estimator", "note"]
"""What rows carry beside them in memory."""


@dataclass(frozen=True)
class Row:
    """One number of one cell.

    Attributes:
        metric: its name, with what it must share to be compared in brackets: ``fid[classifier]``.
        value: NaN where the metric does not apply, or the cell failed.
        unit: its unit; empty for a bare number.
        family: the family of metrics, ``cost`` or ``status``.
        better: ``higher``, ``lower``, or empty where neither is.
        ranked: whether it counts in the rank and stands in every table.
        sampler: the sampler that it scores; empty where it scores the model itself.
        own: whether that is the sampler which the model's paper uses.
        estimator: how it was estimated, in words.
        note: why the value is missing.
    """

    metric: str
    value: float
    unit: str = ""
    family: str = ""
    better: str = ""
    ranked: bool = False
    sampler: str = ""
    own: bool = False
    estimator: str = ""
    note: str = ""


def rows_csv(rows: "pd.DataFrame") -> str:
    """``rows.csv``: the columns ``COLUMNS``, values to the last bit.

    What does not apply is ``n/a``; the row of a failed cell has its error as the unit.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows.to_dict("records"):
        if row["family"] == "status":
            row["unit"] = row["note"]
        row["value"] = "n/a" if math.isnan(row["value"]) else repr(float(row["value"]))
        writer.writerow([row[column] for column in COLUMNS])
    return out.getvalue()
