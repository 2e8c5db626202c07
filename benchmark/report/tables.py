"""A leaderboard's tables: numbers, marks and notes, for every format to draw."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from .sheets import PAD, Cell, Column, Sheet, clean, crop

if TYPE_CHECKING:
    from ..leaderboard import Absence, Board, Line, Measure, Place, Score

SHOWN_COSTS = ("train_seconds", "parameters")
OWN = "†"
"""What marks the sampler that a model's paper uses."""
OF_OWN = f"{OWN} the sampler that the model's paper uses, or the nearest to it here"


# Numbers.


@dataclass(frozen=True)
class Entry:
    """What a table says of one metric on one line.

    Attributes:
        mean: the mean in figures, or why there is none: ``n/a`` or ``failed``.
        half: the half-width of its interval in figures; empty where there is none.
        seeds: the number of seeds in the mean where it is not the line's; empty otherwise.
        best: whether it is the best of its column, or ties with it in the figures shown.
        second: whether it is the best of those that are not, or ties with it likewise.
    """

    mean: str
    half: str = ""
    seeds: str = ""
    best: bool = False
    second: bool = False


@dataclass(frozen=True)
class Scored:
    """A metric with its entries, a line each."""

    measure: "Measure"
    entries: tuple[Entry, ...]


def size(score: "Score") -> float:
    """The larger of the mean's magnitude and the half-width."""
    return abs(score.mean) if math.isnan(score.half) else max(abs(score.mean), score.half)


def decimals(score: "Score", digits: int) -> int:
    """The decimals that show ``digits`` significant digits of the larger of mean and half-width."""
    largest = size(score)
    return max(0, digits - 1 - math.floor(math.log10(largest))) if largest else digits


def precision(score: "Score") -> int:
    """The decimals that one score needs: three digits, four where the half-width would vanish."""
    least = decimals(score, 3)
    vanishes = score.half > 0 and float(f"{score.half:.{least}f}") == 0
    return decimals(score, 4) if vanishes else least


def scientific(score: "Score") -> bool:
    """Whether decimals would hide the number behind zeros."""
    return size(score) > 0 and not 1e-4 <= size(score) < 1e9


def figures(score: "Score", places: int) -> tuple[str, str]:
    """Mean and half-width with as many decimals; of tiny ones with the same power of ten."""
    scale, suffix = 1.0, ""
    if scientific(score):
        power = math.floor(math.log10(size(score)))
        scale, suffix, places = 10.0**power, f"e{power:+03d}", 2
    mean = f"{score.mean / scale:.{places}f}"
    if float(mean) == 0:
        mean = mean.removeprefix("-")
    half = "" if math.isnan(score.half) else f"{score.half / scale:.{places}f}{suffix}"
    return mean + suffix, half


def columns(board: "Board") -> list[Scored]:
    """What a table of ``board`` shows: every metric with a value, of costs only the main ones."""
    held = {name for line in board.lines for name, score in line.scores.items() if score.n}
    filled = [measure for measure in board.measures if measure.name in held]
    main = [m for m in filled if m.family != "cost" or m.name in SHOWN_COSTS]
    return [column(measure, board.lines) for measure in main or filled]


def column(measure: "Measure", lines: Sequence["Line"]) -> Scored:
    scores = [line.scores.get(measure.name) for line in lines]
    held = [score for score in scores if score is not None and score.n]
    pick = max if measure.better == "higher" else min
    best = pick(held, key=lambda s: s.mean) if measure.better else None
    count = all(s.mean.is_integer() and not s.half > 0 for s in held) and not measure.better
    # Everything aligned on the best line's decimals, but for numbers far larger than it.
    plain = [score for score in held if not scientific(score)]
    places = precision(pick(plain, key=lambda s: s.mean)) if plain and best else None

    def own(score: "Score") -> int:
        return precision(score) if places is None else min(places, decimals(score, 4))

    def tie(score: "Score", other: "Score | None") -> bool:
        if other is None:
            return False
        return figures(score, own(score))[0] == figures(other, own(score))[0]

    others = [score for score in held if not tie(score, best)]
    second = pick(others, key=lambda s: s.mean) if best and others else None

    def entry(line: "Line", score: "Score | None") -> Entry:
        if score is None or not score.n:
            return Entry("n/a" if line.seeds else "failed")
        seeds = str(score.n) if score.n < line.seeds else ""
        if count:
            return Entry(f"{score.mean:.0f}", seeds=seeds)
        leads = tie(score, best)
        follows = not leads and tie(score, second)
        return Entry(*figures(score, own(score)), seeds, leads, follows)

    return Scored(measure, tuple(entry(line, score) for line, score in zip(lines, scores)))


def identity(board: "Board") -> tuple[list[str], list[list[str]]]:
    """The header and, a line each, the cells that say which line it is."""
    header = ["rank", "model", "backbone", "sampler", "seeds", "failed"]
    places = 0 if all(math.isnan(n) or n.is_integer() for n in (b.rank for b in board.lines)) else 2
    rows = []
    for line in board.lines:
        rank = "–" if math.isnan(line.rank) else f"{line.rank:.{places}f}"
        cells = [rank, line.label, line.backbone, sampler_of(line)]
        rows.append([*cells, str(line.seeds), str(line.failed)])
    return header, rows


def sampler_of(line: "Line | Place") -> str:
    """The sampler of a line, marked where it is that of the model's paper."""
    return f"{line.sampler} {OWN}" if line.own else line.sampler or "–"


# Tables.


def sheet(board: "Board") -> Sheet:
    """The table of one dataset: names, metrics by family, and how many seeds they are of."""
    header, identities = identity(board)
    names = [Column(n, "right" if n == "rank" else "left") for n in header[:4]]
    # What the figures took stands beside the costs, at the end.
    counts = [Column(n, group="cost") for n in header[4:]]
    shown = columns(board)
    heads = [
        Column(m.name, "right", m.unit, m.better, m.family) for m in (c.measure for c in shown)
    ]
    cells = list(zip(*(aligned(c.entries) for c in shown))) or [()] * len(identities)
    rows = [
        (*map(Cell, who[:4]), *held, *map(Cell, who[4:])) for who, held in zip(identities, cells)
    ]
    return Sheet(board.dataset, (*names, *heads, *counts), tuple(rows), tuple(notes(board)))


def aligned(entries: Sequence[Entry]) -> list[Cell]:
    """A column's cells, with figure spaces that put means, half-widths and seeds in line."""
    means, halves, seeds = (
        max((len(part) for part in parts), default=0)
        for parts in zip(*((e.mean, e.half, e.seeds) for e in entries))
    )
    cells = []
    for entry in entries:
        text = entry.mean.rjust(means, PAD)
        if halves:
            text += f" ± {entry.half.rjust(halves, PAD)}" if entry.half else PAD * (halves + 3)
        if seeds:
            text += f" (n={entry.seeds.rjust(seeds, PAD)})" if entry.seeds else PAD * (seeds + 5)
        cells.append(Cell(text, "best" if entry.best else "second" if entry.second else ""))
    return cells


# Words.


def notes(board: "Board") -> list[str]:
    """What a reader of ``board`` must know, a sentence each."""
    shown = [c.measure for c in columns(board)]
    scores = [line.scores[m.name] for line in board.lines for m in shown if m.name in line.scores]
    counts = {score.n for score in scores if score.n}
    found = []
    if counts and max(counts) > 1:
        found.append("mean ± half-width of the 95 % t-interval over seeds")
        if 1 in counts:
            found.append("a value without ± is of one seed: no interval")
    elif counts:
        found.append("one seed: no interval")
    found.append(ranking(board))
    if any(line.own for line in board.lines):
        found.append(OF_OWN)
    found += [*board.remarks, *absent(board)]
    ways: dict[str, list[str]] = defaultdict(list)
    for measure in shown:
        for estimator in board.estimators.get(measure.name, ()):
            ways[estimator].append(measure.name)
    found += [f"{', '.join(names)}: {estimator}" for estimator, names in ways.items()]
    found += [f"failed: {cell}: {crop(clean(error), 300)}" for cell, error in board.failures]
    return [clean(note) for note in found]


def ranking(board: "Board") -> str:
    """Which metrics the rank uses."""
    if not board.ranked_by:
        return "no rank: no metric with a direction has a value on every line"
    if len(board.ranked_by) == 1:
        return f"rank: by {board.ranked_by[0]}"
    ranked = [m for m in board.measures if m.name in board.ranked_by]
    parts = [
        f"{', '.join(m.name for m in members)} ({family})"
        for family, members in groupby(ranked, key=lambda m: m.family)
    ]
    return f"rank: mean rank within each family, then over families: {'; '.join(parts)}"


def absent(board: "Board") -> list[str]:
    """Why values are missing, a sentence a reason."""
    families: dict[str, set[str]] = defaultdict(set)
    for measure in board.measures:
        families[measure.family].add(measure.name)
    everyone = {line.label for line in board.lines}
    found = []
    for reason, group in groupby(board.absences, key=lambda a: a.reason):
        absences = list(group)
        missing = {a.metric for a in absences}
        what = []
        for family, members in families.items():
            part = [m.name for m in board.measures if m.name in members & missing]
            what += [f"all of {family}"] if len(part) == len(members) > 1 else part
        found.append(f"n/a: {reason} ({', '.join(what)}{whose(absences, everyone)})")
    return found


def whose(absences: list["Absence"], everyone: set[str]) -> str:
    samplers = sorted({a.sampler for a in absences})
    with_sampler = f" with {', '.join(samplers)}" if all(samplers) else ""
    labels = sorted({a.label for a in absences})
    return with_sampler + ("" if set(labels) == everyone else f", for {', '.join(labels)}")
