"""A table of words and figures, and what its drawings share: text, Markdown, LaTeX, HTML, SVG."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

FORMATS = ("text", "md", "latex", "html", "svg")
ARROWS = {"higher": "↑", "lower": "↓", "": ""}
NOTHING = "No results yet."
LONGEST = 48
"""Characters of a name in the terminal and on paper; longer ones lose their middle."""
PAD = "\u2007"
"""The figure space, as wide as a digit: it aligns the numbers of a column."""
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that end a line, steer a terminal, turn the text's direction or are half a pair."""


@dataclass(frozen=True)
class Column:
    """The head of a column.

    Attributes:
        name: what it holds, a qualifier in brackets after it.
        align: the side that its cells keep to.
        unit: the unit of its figures.
        better: ``higher``, ``lower``, or empty where neither is.
        group: columns of one group stand beside each other, and together where a table is cut.
            Columns without one say which row it is: they come first, and every part repeats them.
    """

    name: str
    align: Literal["left", "right"] = "right"
    unit: str = ""
    better: str = ""
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """What stands in one place. ``best`` is drawn bold, ``second`` underlined."""

    text: str
    mark: Literal["", "best", "second"] = ""


@dataclass(frozen=True)
class Sheet:
    """A table with its title and what its reader must know, a sentence each.

    Any of its words may hold any characters: every format shows them as text.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def keys(self) -> list[int]:
        """The columns that say which row it is."""
        return [n for n, column in enumerate(self.columns) if not column.group]

    @cached_property
    def names(self) -> list[int]:
        """The fewest words of :attr:`keys` that tell all rows apart; all where none do."""
        kept = words = [n for n in self.keys if self.columns[n].align == "left"]
        shown = [[crop(clean(cell.text)) for cell in row] for row in self.rows]

        def told_apart(chosen: list[int]) -> bool:
            return len({tuple(row[n] for n in chosen) for row in shown}) == len(shown)

        if not told_apart(words):
            return self.keys
        for n in reversed(words[1:]):
            fewer = [k for k in kept if k != n]
            kept = fewer if told_apart(fewer) else kept
        return kept

    def groups(self) -> list[tuple[str, list[int]]]:
        """The names of the groups, each with its columns."""
        numbers = [n for n in range(len(self.columns)) if self.columns[n].group]
        found = groupby(numbers, key=lambda n: self.columns[n].group)
        return [(name, list(members)) for name, members in found]

    def legend(self, best: str, second: str) -> list[str]:
        """What its marks mean; nothing where there are none.

        Args:
            best: how the best are marked, such as "best in bold".
            second: how the second best are marked.
        """
        marks = {cell.mark for row in self.rows for cell in row}
        parts = [best] if "best" in marks else []
        parts += [second] if "second" in marks else []
        return [f"{', '.join(parts)}, with all that tie to the digits shown"] if parts else []


def draw(
    sheets: Sequence[Sheet],
    format: str,
    *,
    heading: str = "Leaderboard",
    width: int = 100,
    bold: bool = False,
) -> str:
    """``sheets`` as one document.

    Args:
        sheets: what is drawn, in this order.
        format: one of :data:`FORMATS`.
        heading: the document's title (md and html).
        width: columns of the terminal (text and svg). Wider tables are cut into parts.
        bold: whether marks are ANSI escapes (text); otherwise ``*`` and ``+``.
    """
    from . import html, latex, markdown, text

    if format == "text":
        return text.document(sheets, width, bold)
    if format == "svg":
        return text.picture(text.document(sheets, width, bold=True), width)
    if format == "md":
        return markdown.document(sheets, heading)
    if format == "latex":
        return latex.document(sheets)
    if format == "html":
        return html.document(sheets, heading)
    raise ValueError(f"no format {format!r}; valid: {', '.join(FORMATS)}")


def cut(sheet: Sheet, widths: Sequence[float], room: float, gap: float) -> list[list[int]]:
    """The columns of every part of a table that is too wide: a group is torn only if it must be.

    Args:
        sheet: the table.
        widths: the width of each column.
        room: what a part may take, in the same unit.
        gap: between two columns.
    """

    def fits(part: list[int]) -> bool:
        return sum(widths[n] + gap for n in part) - gap <= room

    made, part = [], sheet.keys
    for _, members in sheet.groups():
        # The first part has more names than the others: what room they leave is used.
        first = part == sheet.keys
        together = fits([*part, *members]) or (not first and fits([*sheet.names, *members]))
        for piece in [members] if together else [[n] for n in members]:
            if part != sheet.names and not fits([*part, *piece]):
                made.append(part)
                part = sheet.names
            part = [*part, *piece]
    return [*made, part]


def counted(n: int, noun: str) -> str:
    """A number of things: ``1 cell``, ``2 cells``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def clean(text: str) -> str:
    """``text`` in one line, without characters that steer a terminal or cannot be written."""
    return re.sub(" +", " ", UNFIT.sub(" ", text)).strip(" ")


def crop(text: str, length: int = LONGEST) -> str:
    """``text`` in at most ``length`` characters; what is left out is its middle."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def fold(text: str, width: float, measure: Callable[[str], float] = len) -> list[str]:
    """``text`` in lines of at most ``width``, broken after signs where it has some."""
    lines = []
    while measure(text) > width:
        length = max(1, sum(measure(text[: n + 1]) <= width for n in range(len(text))))
        ends = (max(text.rfind(sign, 0, length) for sign in signs) for signs in (" ,;", "=([_/-"))
        at = next((end + 1 for end in ends if end >= length // 3), length)
        if at == len(text):
            break
        lines.append(text[:at].rstrip(" "))
        text = text[at:]
    return [*lines, text]


def narrow(sheet: Sheet, widths: list[float], room: float, gap: float, least: float) -> list[float]:
    """``widths`` with less for names, until they and the widest other column fit into ``room``.

    Args:
        sheet: the table.
        widths: the width of each column.
        room: what a part of the table may take, in the same unit.
        gap: between two columns.
        least: what a name keeps.
    """
    widths = list(widths)
    others = max((widths[n] + gap for _, group in sheet.groups() for n in group), default=0)
    for chosen, free in ((sheet.keys, room), (sheet.names, room - others)):
        words = [n for n in chosen if sheet.columns[n].align == "left"]
        while words and sum(widths[n] + gap for n in chosen) - gap > free:
            widest = max(words, key=lambda n: widths[n])
            if widths[widest] <= least:
                break
            widths[widest] = max(least, widths[widest] - 1)
    return widths


def stacked(column: Column) -> list[str]:
    """The head of a column in lines: name, qualifier, and direction with the unit."""
    name, bracket, qualifier = clean(column.name).partition("[")
    about = f"{ARROWS[column.better]} {clean(column.unit)}".strip()
    return [part for part in (name, bracket + qualifier, about) if part]


def marked(cell: Cell) -> tuple[str, str, str]:
    """A cell's figure spaces before, what a mark is drawn on, and those after."""
    text = clean(cell.text)
    body = text.strip(PAD)
    start = len(text) - len(text.lstrip(PAD))
    return text[:start], body, text[start + len(body) :]
