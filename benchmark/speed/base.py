"""A table of times, and how times are taken on a noisy machine."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """A table of measurements.

    Attributes:
        title: what was measured, in one line.
        columns: the columns' names.
        rows: the cells as text.
        notes: how it was measured, a line each.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table under a heading."""
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        lines += ["| " + " | ".join("---" for _ in self.columns) + " |"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, "", *(f"{note}  " for note in self.notes), ""])


def in_turn(work: Mapping[str, Callable[[], T]], pairs: int) -> dict[str, list[T]]:
    """What each piece of work gives, ``pairs`` times one after another in turn.

    In turn, so that what else the machine does falls on all alike.
    """
    found: dict[str, list[T]] = {name: [] for name in work}
    for _ in range(pairs):
        for name, act in work.items():
            found[name].append(act())
    return found


def alternate(work: Mapping[str, Callable[[], object]], pairs: int) -> dict[str, list[float]]:
    """The seconds of each piece of work, ``pairs`` times one after another in turn."""

    def timed(act: Callable[[], object]) -> float:
        start = time.perf_counter()
        act()
        return time.perf_counter() - start

    return in_turn({name: partial(timed, act) for name, act in work.items()}, pairs)


def brief(value: float) -> str:
    """Three digits, and no exponent of what is large: ``1.20``, ``149``, ``1,270``."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def spread(values: list[float], unit: str = "s") -> str:
    """The median and the range: ``1.25 s (1.19 to 1.40)``."""
    middle, low, high = map(brief, (statistics.median(values), min(values), max(values)))
    if len(values) == 1:
        return f"{middle} {unit}".strip()
    return f"{f'{middle} {unit}'.strip()} ({low} to {high})"


def ratios(slow: list[float], fast: list[float]) -> str:
    """How many times as fast, pair by pair: the median and the range."""
    return spread([a / b for a, b in zip(slow, fast)], "×")
