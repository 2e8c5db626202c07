"""From a store of 20,000 rows to tables, a verdict and the page."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from ..compare import compare
from ..leaderboard import Leaderboard, leaderboard
from ..report.page import page
from ..results import Results, read
from . import synthetic
from .base import Table, alternate, spread

SIZES = ((20, 5, 5, 30), (200, 10, 10, 30))
"""Models, datasets, seeds and metrics of each store."""


def measure(pairs: int) -> Table:
    """The seconds of every step over stores that nothing was trained for."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            path = Path(folder) / "x".join(map(str, size))
            synthetic.store(path, *size)
            held = read(path)
            board = leaderboard(held.rows).headline()
            work = steps(path, held, board)
            times = alternate(work, pairs if size == SIZES[0] else 1)
            count = f"{len(held.rows):,} rows of {len(held.specs):,} cells"
            megabytes = (path / "report.html").stat().st_size / 1e6
            rows += [(count, name, spread(seconds)) for name, seconds in times.items()]
            rows.append((count, "the page's size", f"{megabytes:.1f} MB"))
    notes = ("Models × datasets × seeds, histories of 100 epochs, pictures; nothing was trained.",)
    return Table("Tables and the page", ("results", "step", "time"), tuple(rows), notes)


def steps(path: Path, held: Results, board: Leaderboard) -> dict[str, Callable[[], object]]:
    return {
        "read": lambda: read(path),
        "rank": lambda: leaderboard(held.rows).headline(),
        "text table": lambda: board.draw("text", 120),
        "ranking over datasets": lambda: (
            leaderboard(held.rows).headline().ranking.draw("text", 120)
        ),
        "CSV": lambda: board.draw("csv"),
        "verdict": lambda: compare(board, "model000").draw("text"),
        "page": lambda: page([held], path / "report.html"),
    }
