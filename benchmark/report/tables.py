"""A leaderboard as Markdown, LaTeX and text: numbers, escapes and notes."""

import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

    from ..leaderboard import Absence, Board, Line, Measure, Score

SHOWN_COSTS = ("train_seconds", "parameters")
ARROWS = {"higher": "↑", "lower": "↓", "": ""}
NOTHING = "No results yet."
OWN = "†"
"""What marks the sampler that a model's paper uses."""
LATEX_COLUMNS = 4
"""Metrics side by side in a LaTeX table: what a page of text is wide enough for."""
MARKDOWN_COLUMNS = 8
"""Metrics side by side in a Markdown table; more are cut into a table a family."""
LONGEST = 48
"""Characters of a name in the terminal; longer ones lose their middle."""


UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that end a line, steer a terminal, turn the text's direction or are half a pair."""


# Numbers.


@dataclass(frozen=True)
class Entry:
    """What a table says of one metric on one line.

    Attributes:
        mean: the mean in figures, or why there is none: ``n/a`` or ``failed``.
        half: the half-width of its interval in figures; empty where there is none.
        seeds: the number of seeds in the mean where it is not the line's; empty otherwise.
        best: whether it is the best of its column, or ties with it in the figures shown.
    """

    mean: str
    half: str = ""
    seeds: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
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


def columns(board: "Board") -> list[Column]:
    """What a table of ``board`` shows: every metric with a value, of costs only the main ones."""
    held = {name for line in board.lines for name, score in line.scores.items() if score.n}
    filled = [measure for measure in board.measures if measure.name in held]
    main = [m for m in filled if m.family != "cost" or m.name in SHOWN_COSTS]
    return [column(measure, board.lines) for measure in main or filled]


def column(measure: "Measure", lines: Iterable["Line"]) -> Column:
    scores = [line.scores.get(measure.name) for line in lines]
    held = [score for score in scores if score is not None and score.n]
    pick = max if measure.better == "higher" else min
    best = pick(held, key=lambda s: s.mean) if measure.better else None
    count = all(s.mean.is_integer() and not s.half > 0 for s in held) and not measure.better
    # Everything aligned on the best line's decimals, but for numbers far larger than it.
    plain = [score for score in held if not scientific(score)]
    places = precision(pick(plain, key=lambda s: s.mean)) if plain and best else None

    def entry(line: "Line", score: "Score | None") -> Entry:
        if score is None or not score.n:
            return Entry("n/a" if line.seeds else "failed")
        if count:
            return Entry(f"{score.mean:.0f}")
        own = precision(score)
        if places is not None:
            own = min(places, decimals(score, 4))
        mean, half = figures(score, own)
        ties = best is not None and figures(score, own)[0] == figures(best, own)[0]
        return Entry(mean, half, str(score.n) if score.n < line.seeds else "", ties)

    return Column(measure, tuple(entry(line, score) for line, score in zip(lines, scores)))


def identity(board: "Board") -> tuple[list[str], list[list[str]]]:
    """The header and, a line each, the cells that say which line it is."""
    header = ["rank", "model", "backbone", "sampler", "seeds", "failed"]
    places = 0 if all(math.isnan(n) or n.is_integer() for n in (b.rank for b in board.lines)) else 2
    rows = []
    for line in board.lines:
        rank = "–" if math.isnan(line.rank) else f"{line.rank:.{places}f}"
        sampler = f"{line.sampler} {OWN}" if line.own else line.sampler or "–"
        cells = [rank, line.label, line.backbone, sampler]
        rows.append([*cells, str(line.seeds), str(line.failed)])
    return header, rows


# Words.


def notes(board: "Board", bold: str) -> list[str]:
    """What a reader of ``board`` must know, a sentence each.

    Args:
        board: the board.
        bold: how the best means are marked, in words.
    """
    shown = [c.measure for c in columns(board)]
    scores = [line.scores[m.name] for line in board.lines for m in shown if m.name in line.scores]
    counts = {score.n for score in scores if score.n}
    found = []
    if counts and max(counts) > 1:
        found.append(f"mean ± half-width of the 95 % t-interval over seeds; {bold}")
        if 1 in counts:
            found.append("a value without ± is of one seed: no interval")
    elif counts:
        found.append(f"one seed: no interval; {bold}")
    found.append(ranking(board))
    if any(line.own for line in board.lines):
        found.append(f"{OWN} the sampler that the model's paper uses, or the nearest to it here")
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


def clean(text: str) -> str:
    """``text`` in one line, without characters that steer a terminal or cannot be written."""
    return " ".join(UNFIT.sub(" ", text).split())


def crop(text: str, length: int = LONGEST) -> str:
    """``text`` in at most ``length`` characters; what is left out is its middle."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


# Markdown.


def markdown(boards: Iterable["Board"]) -> str:
    parts = ["# Leaderboard"]
    for board in boards:
        parts.append(f"## {escape_markdown(board.dataset)}")
        shown = columns(board)
        if len(shown) <= MARKDOWN_COLUMNS:
            parts.append(markdown_table(board, shown))
        else:
            for family, members in groupby(shown, key=lambda c: c.measure.family):
                parts += [f"### {escape_markdown(family)}", markdown_table(board, list(members))]
        first, *others = notes(board, "best in **bold**, with all that tie to the digits shown")
        parts.append("\n".join([f"- {first}", *(f"- {escape_markdown(note)}" for note in others)]))
    return "\n\n".join(parts if len(parts) > 1 else [*parts, NOTHING]) + "\n"


def markdown_table(board: "Board", shown: list[Column]) -> str:
    header, rows = identity(board)
    cells = [[escape_markdown(cell) for cell in row] for row in rows]
    rule = ["---:", "---", "---", "---", "---:", "---:"]
    for c in shown:
        unit = f" ({c.measure.unit})" if c.measure.unit else ""
        arrow = f" {ARROWS[c.measure.better]}".rstrip()
        header.append(escape_markdown(c.measure.name + unit) + arrow)
        rule.append("---:")
        for row, entry in zip(cells, c.entries):
            row.append(f"**{joined(entry)}**" if entry.best else joined(entry))
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *cells])


def joined(entry: Entry, plus_minus: str = " ± ") -> str:
    half = plus_minus + entry.half if entry.half else ""
    return entry.mean + half + (f" (n={entry.seeds})" if entry.seeds else "")


def escape_markdown(text: str) -> str:
    text = re.sub(r"[\\`*|~]", r"\\\g<0>", clean(text)).replace("](", "]\\(")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# LaTeX.

LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # or it would be read as an argument of what stands before
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "²": r"$^2$",
    "·": r"$\cdot$",
    "†": r"$\dagger$",
    "β": r"$\beta$",
    "σ": r"$\sigma$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "’": "'",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
ACCENTED = set("áàâäãåçéèêëíìîïñóòôöõøúùûüæßÁÀÂÄÃÅÇÉÈÊËÍÌÎÏÑÓÒÔÖÕØÚÙÛÜÆ")


def latex(boards: Iterable["Board"]) -> str:
    parts = ["% Needs \\usepackage{booktabs}."]
    for board in boards:
        shown = columns(board)
        for family, members in groupby(shown, key=lambda c: c.measure.family):
            held = list(members)
            for start in range(0, len(held), LATEX_COLUMNS):
                parts.append(latex_table(board, family, held[start : start + LATEX_COLUMNS]))
        under = notes(board, "best in bold, with all that tie to the digits shown")
        items = "\n".join(f"  \\item {escape_latex(note)}." for note in under)
        parts.append(f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}")
    return "\n\n".join(parts if len(parts) > 1 else [*parts, NOTHING]) + "\n"


def latex_table(board: "Board", family: str, shown: list[Column]) -> str:
    header, rows = identity(board)
    header = [escape_latex(cell) for cell in header]
    cells = [[escape_latex(cell) for cell in row] for row in rows]
    for c in shown:
        unit = f" ({c.measure.unit})" if c.measure.unit else ""
        header.append(escape_latex(f"{c.measure.name}{unit} {ARROWS[c.measure.better]}".rstrip()))
        for row, entry in zip(cells, c.entries):
            text = joined(entry, r" $\pm$ ")
            row.append(f"\\textbf{{{text}}}" if entry.best else text)
    body = [" & ".join(row) + r" \\" for row in [header, *cells]]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            r"\footnotesize",
            f"\\caption{{{escape_latex(board.dataset)}: {escape_latex(family)}}}",
            f"\\begin{{tabular}}{{rlllrr{'r' * len(shown)}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def escape_latex(text: str) -> str:
    """``text`` for pdflatex; characters that its fonts lack by their number, ``[U+1F600]``."""

    def one(sign: str) -> str:
        if sign in LATEX:
            return LATEX[sign]
        return sign if sign.isascii() or sign in ACCENTED else f"{{[}}U+{ord(sign):04X}]"

    return "".join(one(sign) for sign in clean(text))


# Text.


@dataclass(frozen=True)
class Strip:
    """One column of a text table: the lines of its header, and a cell a line of the board."""

    header: str
    cells: tuple[str, ...]
    best: tuple[bool, ...]
    right: bool = True

    @property
    def width(self) -> int:
        """In columns of a terminal, where an emoji takes two."""
        from rich.cells import cell_len

        return max(cell_len(part) for part in (*self.header.split("\n"), *self.cells))


GAP = 2
"""Spaces between two columns of a text table."""


def text(boards: Iterable["Board"], width: int, bold: bool) -> str:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    out = io.StringIO()
    width = max(width, 20)
    console = Console(
        file=out,
        width=100_000,  # tables have the width they need: a cropped number would mislead
        force_terminal=bold,
        color_system="standard" if bold else None,
        no_color=True,
        highlight=False,
        legacy_windows=False,
    )
    mark = "best in bold" if bold else "* best"
    for board in boards:
        console.print(Text(clean(board.dataset), style="bold"), width=width)
        console.print()
        for block in blocks(board, width, bold):
            console.print(drawn(block))
            console.print()
        for note in notes(board, f"{mark}, with all that tie to the digits shown"):
            console.print(Padding(Text(f"- {note}"), (0, 0, 0, 2)), width=width)
        console.print()
    lines = out.getvalue().rstrip().split("\n") if out.getvalue() else [NOTHING]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def drawn(block: list[Strip]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for strip in block:
        side: Literal["left", "right"] = "right" if strip.right else "left"
        table.add_column(Text(strip.header), justify=side, vertical="bottom", no_wrap=True)
    for n in range(len(block[0].cells)):
        table.add_row(*(Text(s.cells[n], style="bold" if s.best[n] else "") for s in block))
    return table


def blocks(board: "Board", width: int, bold: bool) -> list[list[Strip]]:
    """The columns of ``board`` in tables of ``width``: a family is torn only if it must be.

    Every table begins with the names of the lines; seeds and failures stand in the last.
    """
    header, rows = identity(board)
    who = [
        Strip(name, tuple(crop(clean(cell)) for cell in cells), (False,) * len(rows), right)
        for name, cells, right in zip(header, zip(*rows), [True, False, False, False, True, True])
    ]
    told_apart = len({(row[1], row[3]) for row in rows}) == len(rows)
    names = [who[1], who[3]] if told_apart else who[1:4]
    families = [
        [strip_of(column, bold) for column in members]
        for _, members in groupby(columns(board), key=lambda c: c.measure.family)
    ]

    def fits(block: list[Strip]) -> bool:
        return sum(strip.width + GAP for strip in block) - GAP <= width

    made, block, bare = [], who[:4], True
    for family in [*families, who[4:]]:
        together = fits([*block, *family]) or (not bare and fits([*names, *family]))
        for part in [family] if together else [[strip] for strip in family]:
            if not bare and not fits([*block, *part]):
                made.append(block)
                block = list(names)
            block, bare = [*block, *part], False
    return [*made, block]


def strip_of(column: Column, bold: bool) -> Strip:
    """A metric's column, with means and half-widths aligned."""
    entries, measure = column.entries, column.measure
    means = max(len(entry.mean) for entry in entries)
    halves = max(len(entry.half) for entry in entries)
    seeds = max(len(entry.seeds) for entry in entries)
    cells = []
    for entry in entries:
        cell = entry.mean.rjust(means)
        if halves:
            cell += f" ± {entry.half.rjust(halves)}" if entry.half else " " * (halves + 3)
        if seeds:
            cell += f" (n={entry.seeds.rjust(seeds)})" if entry.seeds else " " * (seeds + 5)
        cells.append(cell + ("" if bold else "*" if entry.best else " "))
    name, bracket, qualifier = clean(measure.name).partition("[")
    about = f"{ARROWS[measure.better]} {clean(measure.unit)}".strip()
    header = "\n".join(crop(part, 24) for part in (name, bracket + qualifier, about) if part)
    return Strip(header, tuple(cells), tuple(bold and entry.best for entry in entries))


def picture(text: str, width: int) -> str:
    """Text with ANSI escapes as the SVG of a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text))
    return console.export_svg(title="aebench", unique_id="aebench")
