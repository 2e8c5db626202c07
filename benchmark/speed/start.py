"""How long the command line takes to answer, and a run until its first cell computes."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .base import Table, alternate, ratios, spread

TORCH = "python -c 'import torch'"
RUN = """
import os, sys
from aebench.benchmark import run

def on_event(event):
    if event.kind == "progress":
        os._exit(0)

run("smoke", models=["vae"], device="cpu", out=sys.argv[1], workers=int(sys.argv[2]),
    on_event=on_event)
"""
"""Ends at the first progress of a cell: after an epoch of 200 digits, a few milliseconds long."""


def started(command: list[str]) -> None:
    """Run a command to its end."""
    subprocess.run(command, capture_output=True, check=True)


def until_first_cell(workers: int) -> None:
    """Run a grid until its first cell computes."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started([sys.executable, "-c", RUN, f"{folder}/store", str(workers)])


def measure(pairs: int) -> Table:
    """The milliseconds of each process from its start to its end."""
    aebench = str(Path(sys.executable).with_name("aebench"))
    work: dict[str, Callable[[], None]] = {
        "python -c pass": partial(started, [sys.executable, "-c", "pass"]),
        TORCH: partial(started, [sys.executable, "-c", "import torch"]),
        "aebench --help": partial(started, [aebench, "--help"]),
        "aebench list models": partial(started, [aebench, "list", "models"]),
        "a run until its first cell computes": partial(until_first_cell, 1),
        "the same with two workers": partial(until_first_cell, 2),
    }
    alternate(work, 1)  # reads every file once
    seconds = alternate(work, pairs)
    rows = [
        (f"`{name}`" if name.startswith(("python", "aebench")) else name, spread(times, "ms"), over)
        for name, times, over in (
            (name, [1000 * s for s in held], ratios(held, seconds[TORCH]))
            for name, held in seconds.items()
        )
    ]
    return Table(
        "Starting",
        ("process", "time", "over importing torch"),
        tuple(rows),
        (
            "Whole processes, their files in the system's cache. The grid is `smoke`, the model "
            "`vae`; with one worker the run is one process.",
            f"{pairs} of each in turn after one that is not counted: the median and the range.",
        ),
    )
