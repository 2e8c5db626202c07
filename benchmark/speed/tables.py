"""From a store of 20,000 rows to tables, a verdict and the page."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from ..compare import compare
from ..leaderboard import leaderboard
from ..report.page import page
from ..results import Results, read
from . import synthetic
from .base import Table, alternate, spread

SIZE = (20, 5, 5, 30)
"""Models, datasets, seeds and metrics."""


def measure(pairs: int) -> Table:
    """The seconds of every step over a store that nothing was trained for."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        synthetic.store(path / "store", *SIZE)
        held = read(path / "store")
        times = alternate(steps(path, held), pairs)
        megabytes = (path / "report.html").stat().st_size / 1e6
    rows = [(name, spread(seconds)) for name, seconds in times.items()]
    models, datasets, seeds, _ = SIZE
    notes = (
        f"{len(held.rows):,} rows of {len(held.specs):,} cells: {models} models on {datasets} "
        f"datasets, {seeds} seeds, histories of 100 epochs, pictures; nothing was trained.",
        f"{pairs} runs of each in turn, one process. The page has {megabytes:.1f} MB.",
    )
    return Table("20,000 rows: tables and the page", ("step", "time"), tuple(rows), notes)


def steps(path: Path, held: Results) -> dict[str, Callable[[], object]]:
    board = leaderboard(held.rows).headline()
    return {
        "read the store": lambda: read(path / "store"),
        "means, intervals and ranks": lambda: leaderboard(held.rows).headline(),
        "text": lambda: board.draw("text", 120),
        "LaTeX": lambda: board.draw("latex"),
        "CSV, with bootstrap intervals": lambda: leaderboard(held.rows).draw("csv"),
        "ranking over datasets": lambda: leaderboard(held.rows).headline().ranking.draw("text"),
        "verdict on a model": lambda: compare(board, "model000").draw("text"),
        "page": lambda: page([held], path / "report.html"),
    }
