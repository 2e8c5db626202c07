"""Tables as GitHub's Markdown."""

import re
from collections.abc import Sequence

from .sheets import ARROWS, NOTHING, PAD, Cell, Column, Sheet, clean

WIDEST = 8
"""Columns beside the names of the rows; more are cut into a table a group."""


def document(sheets: Sequence[Sheet], heading: str) -> str:
    parts = [f"# {escape(heading)}"]
    for sheet in sheets:
        parts.append(f"## {escape(sheet.title)}")
        groups = sheet.groups()
        columns = [n for _, members in groups for n in members]
        if not sheet.rows:
            pass
        elif len(columns) <= WIDEST:
            parts.append(table(sheet, [*sheet.keys, *columns]))
        else:
            for name, members in groups:
                parts += [f"### {escape(name)}", table(sheet, [*sheet.keys, *members])]
        # GitHub draws <ins> underlined, and drops <u>.
        notes = sheet.legend("best in **bold**", "second <ins>underlined</ins>")
        notes += [item(note) for note in sheet.notes]
        parts.append("\n".join(f"- {note}" for note in notes))
    shown = [part for part in parts if part]
    return "\n\n".join(shown if sheets else [*shown, NOTHING]) + "\n"


def table(sheet: Sheet, part: list[int]) -> str:
    rule = ["---:" if sheet.columns[n].align == "right" else "---" for n in part]
    rows = [[drawn(row[n]) for n in part] for row in sheet.rows]
    header = [head(sheet.columns[n]) for n in part]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def head(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return f"{escape(column.name + unit)} {ARROWS[column.better]}".rstrip()


def drawn(cell: Cell) -> str:
    text = escape(cell.text.replace(PAD, ""))
    return {"best": f"**{text}**", "second": f"<ins>{text}</ins>", "": text}[cell.mark]


def item(note: str) -> str:
    """A note that begins no list, heading or quotation of its own."""
    return re.sub(r"^(\d*)([-+#=.)])", r"\1\\\2", escape(note))


def escape(text: str) -> str:
    """``text`` as Markdown that shows it: no emphasis, code, link, picture, maths or HTML."""
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"[\\`*|~]|(?<![^\W_])_|_(?![^\W_])|#$", r"\\\g<0>", text).replace("](", "]\\(")
    return text.replace("$", "<span>$</span>")
