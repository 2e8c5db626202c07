"""Tables for a terminal, and the picture of one."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .sheets import (
    LONGEST,
    NOTHING,
    PAD,
    Cell,
    Sheet,
    clean,
    crop,
    cut,
    fold,
    marked,
    narrow,
    stacked,
)

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

GAP = 2
"""Spaces between two columns."""
NARROWEST = 20
"""Columns of the narrowest terminal that tables are fitted to."""
LEAST = 8
"""Columns that a name keeps, folded into several lines where it is longer."""
STYLES = {"best": "bold", "second": "underline", "": ""}
MARKS = {"best": "*", "second": "+", "": " "}


@dataclass(frozen=True)
class Strip:
    """A column as it is drawn.

    Attributes:
        head: the lines of its header.
        cells: one a row.
        right: whether its cells keep to the right.
        width: in columns of a terminal, where an emoji takes two; longer cells are folded.
    """

    head: list[str]
    cells: list["Text"]
    right: bool
    width: int


def document(sheets: Sequence[Sheet], width: int, bold: bool) -> str:
    from rich.console import Console
    from rich.text import Text

    out = io.StringIO()
    width = max(width, NARROWEST)
    console = Console(
        file=out,
        width=100_000,  # tables have the width they need: a cropped number would mislead
        force_terminal=bold,
        color_system="standard" if bold else None,
        no_color=True,
        highlight=False,
        legacy_windows=False,
    )
    marks = ("best in bold", "second underlined") if bold else ("* best", "+ second")
    for sheet in sheets:
        console.print(Text(clean(sheet.title), style="bold"), width=width)
        console.print()
        if sheet.rows:
            strips = fitted(sheet, width, bold)
            for part in cut(sheet, [strip.width for strip in strips], width, GAP):
                console.print(drawn([strips[n] for n in part]))
                console.print()
        console.print(listed([*sheet.legend(*marks), *sheet.notes]), width=width)
        console.print()
    lines = out.getvalue().rstrip().split("\n") if sheets else [NOTHING]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def drawn(strips: list[Strip]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    tall = max(len(strip.head) for strip in strips)
    for strip in strips:
        lines = [""] * (tall - len(strip.head)) + strip.head
        head = Text("\n".join(lines), justify="right" if strip.right else "left")
        table.add_column(head, overflow="fold", width=strip.width)
    for cells in zip(*(strip.cells for strip in strips)):
        table.add_row(*cells)
    return table


def listed(notes: list[str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid()
    table.add_column(width=4)
    table.add_column(overflow="fold")
    for note in notes:
        table.add_row(Text("  -"), Text(clean(note)))
    return table


def fitted(sheet: Sheet, width: int, bold: bool) -> list[Strip]:
    """Every column; names are narrowed until they and any one other column fit ``width``."""
    from rich.cells import cell_len

    strips = []
    for n, column in enumerate(sheet.columns):
        head = [line for part in stacked(column) for line in fold(crop(part), LONGEST // 2)]
        column_cells = [row[n] for row in sheet.rows]
        signs = not bold and any(cell.mark for cell in column_cells)
        cells = [written(cell, signs, bold) for cell in column_cells]
        widest = max([cell_len(part) for part in (*head, *(cell.plain for cell in cells))])
        if column.align == "right":
            for cell in cells:
                cell.pad_left(widest - cell.cell_len)
        strips.append(Strip(head, cells, column.align == "right", widest))
    widths = narrow(sheet, [strip.width for strip in strips], width, GAP, LEAST)
    return [replace(strip, width=int(room)) for strip, room in zip(strips, widths)]


def written(cell: Cell, signs: bool, bold: bool) -> "Text":
    """A cell with its mark, as a style or as a sign after it."""
    from rich.text import Text

    before, body, after = (part.replace(PAD, " ") for part in marked(cell))
    body = crop(body)
    if signs:
        return Text(before + body + after + MARKS[cell.mark])
    return Text.assemble(before, (body, STYLES[cell.mark] if bold else ""), after)


def picture(text: str, width: int) -> str:
    """Text with ANSI escapes as the SVG of a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text))
    return console.export_svg(title="aebench", unique_id="aebench")
