r"""Tables as a LaTeX document, to be compiled as it is or pasted from.

pdflatex and booktabs suffice. The text block is that of NeurIPS and ICLR, 5.5 by 9 inches: what
fits here fits there.
"""

import re
from collections.abc import Sequence
from itertools import groupby

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

ROOM = 5.5 * 72.27
"""Points that a line of text is wide."""
EM = 8.5
"""Points of an em at the size of the tables."""
BOLD = 1.15
"""How much wider bold figures are."""
GAP = 8.0
"""Points between two columns."""
TALLEST = 50
"""Lines of a table on one page."""
NAME, HEAD, LEAST = 120.0, 90.0, 40.0
"""Points of a name, of the head of a column, and of a name where room is scarce; longer ones are
folded."""
FLOATS = 10
"""Tables after which a page is begun: LaTeX gives up where some fifty wait for their place."""

SIGNS = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "²": r"$^2$",
    "·": r"$\cdot$",
    "†": r"$\dagger$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "σ": r"$\sigma$",
    "χ": r"$\chi$",
    "∞": r"$\infty$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "’": "'",
    "\xa0": "~",
    PAD: r"\phantom{0}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
ACCENTED = set("áàâäãåçéèêëíìîïñóòôöõøúùûüæßÁÀÂÄÃÅÇÉÈÊËÍÌÎÏÑÓÒÔÖÕØÚÙÛÜÆ")
BREADTHS = {
    **dict.fromkeys("ijltfrsI.,:;'`|!()[]- ", 0.4),
    **dict.fromkeys(f"0123456789{PAD}aceszg$/*?{{}}", 0.51),
    **dict.fromkeys("w&+=<>@±−×≤≥→", 0.8),
    **dict.fromkeys("mMW%#—", 1.05),
    "…": 1.4,
}
"""Ems of a sign, about those of Computer Modern."""

DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[textwidth=5.5in,textheight=9in]{geometry}
\usepackage{booktabs}
\begin{document}
% From here on to be pasted into a paper that has \usepackage{booktabs}.

BODY

% Up to here.
\end{document}
"""


def document(sheets: Sequence[Sheet]) -> str:
    body = "\n\n\\clearpage\n\n".join(drawn(sheet) for sheet in sheets) or NOTHING
    return DOCUMENT.replace("BODY", body)


def drawn(sheet: Sheet) -> str:
    """A sheet's tables, cut to the width and height of a page, and its notes beneath."""
    sheet = shortened(sheet)
    heads = [[known(part) for part in stacked(column)] for column in sheet.columns]
    cells = [[known(cell.text) for cell in row] for row in sheet.rows]
    widths = []
    for n, column in enumerate(sheet.columns):
        head = max(map(breadth, heads[n]), default=0.0)
        cell = max((breadth(row[n]) for row in cells), default=0.0)
        cell *= BOLD if any(row[n].mark == "best" for row in sheet.rows) else 1.0
        widths.append(max(min(head, HEAD), min(cell, NAME) if column.align == "left" else cell))
    widths = narrow(sheet, widths, ROOM, GAP, LEAST)

    def folded(text: str, n: int) -> list[str]:
        return fold(crop(text), widths[n], breadth)

    heads = [[line for part in head for line in folded(part, n)] for n, head in enumerate(heads)]
    rows = [[folded(text, n) for n, text in enumerate(row)] for row in cells]
    parts = [
        (part, page)
        for part in cut(sheet, widths, ROOM, GAP)
        for page in pages([max(map(len, row)) for row in rows])
        if rows
    ]
    title = broken(crop(known(sheet.title), 2 * LONGEST))
    made = [] if rows else [f"\\paragraph{{{title}}}"]
    for number, (part, page) in enumerate(parts, 1):
        of_all = f", part {number} of {len(parts)}" if len(parts) > 1 else ""
        made.append(table(sheet, title + of_all, part, heads, [(n, rows[n]) for n in page]))
        if number % FLOATS == 0 or number == len(parts) > 1:  # notes stand beneath all tables
            made.append(r"\clearpage")
    notes = [*sheet.legend("best in bold", "second underlined"), *sheet.notes]
    return "\n\n".join([*made, listed(notes)] if notes else made)


def shortened(sheet: Sheet) -> Sheet:
    """``sheet`` without columns that say one thing of all rows: a note says that as well."""

    def shared(n: int) -> bool:
        column, texts = sheet.columns[n], {row[n].text for row in sheet.rows}
        return n not in sheet.names[:1] and not (column.better or column.unit) and len(texts) == 1

    same = [n for n in range(len(sheet.columns)) if shared(n)] if len(sheet.rows) > 1 else []
    if not same:
        return sheet
    kept = [n for n in range(len(sheet.columns)) if n not in same]
    what = ", ".join(f"{sheet.columns[n].name} {sheet.rows[0][n].text}" for n in same)
    return Sheet(
        sheet.title,
        tuple(sheet.columns[n] for n in kept),
        tuple(tuple(row[n] for n in kept) for row in sheet.rows),
        (f"the same on every line: {what}", *sheet.notes),
    )


def pages(heights: Sequence[int]) -> list[list[int]]:
    """Rows of so many lines each, by the page that they stand on."""
    made: list[list[int]] = [[]]
    for n, height in enumerate(heights):
        if made[-1] and sum(heights[k] for k in made[-1]) + height > TALLEST:
            made.append([])
        made[-1].append(n)
    return made


def table(
    sheet: Sheet,
    title: str,
    part: list[int],
    heads: list[list[str]],
    rows: list[tuple[int, list[list[str]]]],
) -> str:
    """One table.

    Args:
        sheet: what it is a part of.
        title: its caption in LaTeX.
        part: its columns.
        heads: the lines of every head.
        rows: the number of every row and the lines of all its cells.
    """
    sides = ["r" if sheet.columns[n].align == "right" else "l" for n in part]
    names, rules, at = [], [], 1
    for group, members in groupby(part, key=lambda n: sheet.columns[n].group):
        count = len(list(members))
        if group:
            names.append(
                f"\\multicolumn{{{count}}}{{c}}{{{escape(crop(known(group), LONGEST // 2))}}}"
            )
            rules.append(f"\\cmidrule(lr){{{at}-{at + count - 1}}}")
        else:
            names += [""] * count
        at += count
    body = [row_of(names), " ".join(rules)] if rules else []
    tall = max(len(heads[n]) for n in part)
    for k in range(tall):
        lines = [[""] * (tall - len(heads[n])) + heads[n] for n in part]
        body.append(row_of([escape(line[k]) for line in lines]))
    body.append(r"\midrule")
    for number, cells in rows:
        for k in range(max(len(cells[n]) for n in part)):
            shown = [
                figure(sheet.rows[number][n], cells[n][k], side) if k < len(cells[n]) else ""
                for n, side in zip(part, sides)
            ]
            body.append(row_of(shown))
    return "\n".join(
        [
            r"\begin{table}[!htbp]",
            r"\centering",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{4pt}",
            f"\\caption{{{title}}}",
            f"\\begin{{tabular}}{{@{{}}{''.join(sides)}@{{}}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def row_of(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def figure(cell: Cell, line: str, side: str) -> str:
    """A line of a cell with its mark; hyphens before digits are minus signs in figures."""
    if side == "r":
        line = re.sub(r"(?<![\w.-])-(?=[\d.])", "−", line)
    before, body, after = (escape(part) for part in marked(Cell(line)))
    mark = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}[cell.mark]
    return before + mark % body + after


def listed(notes: Sequence[str]) -> str:
    items = "\n".join(f"\\item {broken(known(note))}." for note in notes)
    return (
        "{\\footnotesize\\raggedright\n\\begin{itemize}\\itemsep0pt\\parskip0pt\\parsep0pt\n"
        f"{items}\n\\end{{itemize}}}}"
    )


def known(text: str) -> str:
    """``text`` in signs that pdflatex's fonts have, others by their number: ``[U+1F600]``."""

    def one(sign: str) -> str:
        has = sign in SIGNS or sign in ACCENTED or sign.isascii()
        return sign if has else f"[U+{ord(sign):04X}]"

    return "".join(one(sign) for sign in clean(text))


def escape(text: str) -> str:
    """``text`` as LaTeX that shows it."""
    shown = "".join(SIGNS.get(sign, sign) for sign in known(text))
    shown = re.sub(r"(?<=[-`',?!])(?=[-`',])", "{}", shown)  # or they would join, as -- does
    # At the start it would be an argument of the \\ or \item before it.
    return re.sub(r"^\[", "{[}", shown)


def broken(text: str) -> str:
    """``text`` as LaTeX that shows it and may break within long words."""
    words = [fold(word, 18) if len(word) > 24 else [word] for word in text.split(" ")]
    return " ".join(r"\allowbreak{}".join(map(escape, pieces)) for pieces in words)


def breadth(text: str) -> float:
    """About as many points as ``text`` is wide in a table, rather more than fewer."""
    return EM * sum(BREADTHS.get(sign, 0.8 if sign.isupper() else 0.56) for sign in text)
