"""Tables in every format: marks, alignment and words, and names that are hostile to a format."""

import csv
import io
import json
import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aebench.benchmark.leaderboard import Leaderboard, leaderboard
from aebench.benchmark.report import latex, rankings, tables
from aebench.benchmark.report.sheets import (
    FORMATS,
    PAD,
    Cell,
    Column,
    Sheet,
    clean,
    crop,
    cut,
    draw,
    fold,
)
from aebench.benchmark.statistics import cliques
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.text import Text
from test_leaderboard import failure, large, row

HOSTILE = [
    "pipe|in|name",
    "two\nlines\r\nand\u2028three",
    "<script>alert(1)</script>",
    "a/../../b",
    "\"double\" and 'single'",
    r"100% of $x_1 & #2 {braces} \input{/etc/passwd} ~ ^",
    "a" * 300,
    "WM@" * 100,
    "😀 emoji é",
    "漢字" * 20,
    "left \u202eright\u202c",
    "\x1b[31mred\x1b[0m",
    "![picture](http://example.org)",
    "`code` **bold** _it_ __init__ ~~gone~~",
    "=cmd|'/c calc'!A1",
    "--x --- ``y'' ?`!`",
    "[bracket] \\\\ & \\end{tabular}",
    "# 1. list",
    "$a$ $$b$$",
    "&amp; &lt;b&gt;",
]
SAFE = {clean(name) for name in HOSTILE}

needs_pdflatex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed"
)


def board(*rows: dict[str, object]) -> Leaderboard:
    return leaderboard(pd.DataFrame(rows))


def hostile() -> Leaderboard:
    """Hostile models, backbones, samplers, datasets, qualifiers, units, notes and errors."""
    rows = []
    for dataset in HOSTILE[2:8]:
        for n, name in enumerate(HOSTILE):
            text = json.dumps({"x": name})
            about = {"dataset": dataset, "hyperparameters": text, "model": name}
            for seed in range(2):
                rows.append(row(n + 1 + seed / 7, "mse", backbone=name, seed=seed, **about))
                at = {"sampler": name, "backbone": name, "seed": seed, "unit": name}
                rows.append(row(n + 2.0, f"fid[{dataset}]", estimator=name, **at, **about))
            rows.append(row(math.nan, "psnr", backbone=name, note=name, **about))
            rows.append(failure(note=name, backbone=name, seed=3, **about))
    return board(*rows)


def drawn(made: Leaderboard, format: str, **given: object) -> str:
    return draw([tables.sheet(b) for b in made.boards], format, **given)


def ranked(made: Leaderboard, format: str, **given: object) -> str:
    return draw(rankings.sheets(made.ranking), format, **given)


def of_values(values: dict[str, float], better: str = "higher") -> Leaderboard:
    return board(*(row(v, "acc", model=m, better=better) for m, v in values.items()))


def over(values: dict[str, list[float]], seeds: int = 1) -> Leaderboard:
    """Models with a value a dataset, d0 on, the same for every seed but for a little."""
    return board(
        *(
            row(value + seed / 100, dataset=f"d{n}", model=model, seed=seed)
            for model, held in values.items()
            for n, value in enumerate(held)
            for seed in range(seeds)
        )
    )


# Marks.


@pytest.mark.parametrize(
    ("values", "better", "best", "second"),
    [
        ({"a": 3.0, "b": 2.0, "c": 1.0}, "higher", "a", "b"),
        ({"a": 3.0, "b": 2.0, "c": 1.0}, "lower", "c", "b"),
        ({"a": 0.91234, "b": 0.91239, "c": 0.9, "d": 0.90001, "e": 0.1}, "higher", "ab", "cd"),
        ({"a": 1.0, "b": 1.0}, "higher", "ab", ""),
        ({"a": 1.0}, "higher", "a", ""),
        ({"a": 1.0, "b": math.nan, "c": 2.0}, "higher", "c", "a"),
        ({"a": 1.0, "b": 2.0}, "", "", ""),
    ],
)
def test_best_and_second(values: dict[str, float], better: str, best: str, second: str) -> None:
    made = of_values(values, better)
    (column,) = tables.columns(made.boards[0])
    entries = {line.label: e for line, e in zip(made.boards[0].lines, column.entries)}
    assert "".join(sorted(name for name, e in entries.items() if e.best)) == best
    assert "".join(sorted(name for name, e in entries.items() if e.second)) == second
    for format, line, marks in (
        ("md", r"^\| \S+ \| (\w) \|.*%s \|", (r"\*\*[\d.]+\*\*", r"<ins>[\d.]+</ins>")),
        ("text", r"^ *\S+  (\w) +mlp .*[\d.]+%s ", (r"\*", r"\+")),
        ("latex", r"^(?:\S+ & )?(\w) & %s \\\\", (r"\\textbf{[\d.]+}", r"\\underline{[\d.]+}")),
    ):
        if format == "latex" and len(values) == 1:
            continue  # nothing is shared by all lines of one
        shown = drawn(made, format)
        for mark, names in zip(marks, (best, second)):
            found = re.findall(line % mark, shown, flags=re.MULTILINE)
            assert "".join(sorted(found)) == names
        assert ("second" in shown) == bool(second)


def test_marks_on_a_terminal_are_styles_of_the_figures_alone() -> None:
    shown = drawn(of_values({"a": 10.5, "b": 2.5, "c": 1.5}), "text", bold=True)
    assert "\x1b[1m10.5\x1b[0m" in shown
    assert "\x1b[4m2.5\x1b[0m" in shown
    assert "*" not in shown
    assert "+" not in shown
    assert "best in bold, second underlined" in shown


def test_counts_of_fewer_seeds_say_so() -> None:
    about = {"family": "cost", "better": ""}
    made = board(*(row(v, "parameters", seed=s, **about) for s, v in enumerate([7.0, math.nan])))
    assert "| 7 (n=1) |" in drawn(made, "md")


def test_one_seed_says_so_and_missing_values_are_shown_in_every_format() -> None:
    made = board(
        row(1.0), row(math.nan, "nll", note="no likelihood"), row(2.0, "nll", model="b"),
        row(3.0, model="b"), failure(model="b", seed=1),
    )  # fmt: skip
    for format in ("text", "md", "latex", "html"):
        shown = " ".join(drawn(made, format).split())
        assert "one seed: no interval" in shown
        assert "n/a: no likelihood (nll, for vae)" in shown
        assert "failed: b, mlp, seed 1: TrainingFailed: loss became nan" in shown
        assert "±" not in shown


# Text.


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_text_fits(width: int) -> None:
    for shown in (
        *(drawn(made, "text", width=width) for made in (leaderboard(large()), hostile())),
        *(ranked(made, "text", width=width) for made in (leaderboard(large()), hostile())),
    ):
        assert max(cell_len(line) for line in shown.splitlines()) <= max(width, 60)


def test_text_is_not_cropped_where_it_fits_a_narrow_terminal() -> None:
    assert "…" not in drawn(leaderboard(large()), "text", width=60)


@pytest.mark.parametrize("bold", [False, True])
def test_wide_signs_keep_columns_aligned(bold: bool) -> None:
    names = ["plain", "😀 emoji", "漢字漢字", "é"]
    made = board(
        *(
            row(value * (n + 1), model=name, seed=seed)
            for n, name in enumerate(names)
            for seed, value in enumerate((0.5, 7.1))
        )
    )
    lines = Text.from_ansi(drawn(made, "text", bold=bold)).plain.split("\n")
    at = [cell_len(line.partition(" ± ")[0]) for line in lines if " ± " in line and "mlp" in line]
    assert len(at) == len(names)
    assert len(set(at)) == 1


def test_wide_signs_on_the_right_end_together() -> None:
    rows = ((Cell("a"), Cell("漢字")), (Cell("b"), Cell("1.5")))
    shown = draw([Sheet("s", (Column("n", "left"), Column("x", group="g")), rows)], "text")
    assert {cell_len(line) for line in shown.split("\n") if line[:2] in ("a ", "b ")} == {7}
    assert "漢字" in shown


def test_names_are_cropped_beyond_reason() -> None:
    shown = drawn(board(row(1.0, model="a" * 300)), "text")
    assert shown.count("a" * 23) == 2
    assert "a" * 25 not in shown


def test_the_picture_of_a_terminal_escapes_names() -> None:
    shown = drawn(hostile(), "svg")
    assert "<script" not in shown
    assert "\x1b" not in shown


# LaTeX.


def compiled(source: str, folder: Path) -> str:
    """The log of pdflatex, which may run no program."""
    (folder / "table.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    done = subprocess.run(
        [*command, "table.tex"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "table.log").read_text(encoding="latin-1")


MADE = {
    "large": lambda: drawn(leaderboard(large()), "latex"),
    "hostile": lambda: drawn(hostile(), "latex"),
    "ranking": lambda: ranked(leaderboard(large()), "latex"),
    "hostile ranking": lambda: ranked(hostile(), "latex"),
    "long names": lambda: draw([long_names()], "latex"),
    "nothing": lambda: draw([], "latex"),
    "many": lambda: draw([many(), many()], "latex"),
    "no rows": lambda: draw([Sheet("50 % of $x", (Column("a"),), (), ("why_not",))], "latex"),
}


def many() -> Sheet:
    """More lines than a page has and more tables than LaTeX holds back."""
    columns = [Column("name", "left"), *(Column(f"m{n}", group=f"g{n // 3}") for n in range(200))]
    cells = [[Cell(f"{n}345.6789 ± 0.1234", "best")] * 200 for n in range(120)]
    rows = [(Cell(f"line {n}"), *held) for n, held in enumerate(cells)]
    return Sheet("many", tuple(columns), tuple(rows), ("a note",))


def long_names() -> Sheet:
    columns = [*(Column(f"name {n}", "left") for n in range(5)), Column("x", group="g")]
    rows = [
        (*(Cell(sign * (200 + n)) for sign in "mWdm0"), Cell("1234.5 ± 67.8")) for n in range(40)
    ]
    return Sheet("m" * 300, tuple(columns), tuple(rows), ("W" * 300,))


@needs_pdflatex
@pytest.mark.parametrize("name", MADE)
def test_latex_compiles_as_it_is_and_fits_the_page(name: str, tmp_path: Path) -> None:
    log = compiled(MADE[name](), tmp_path)
    assert "Overfull" not in log
    assert "Float too large" not in log
    assert "Output written" in log
    assert "/etc/passwd" not in re.sub(r"\s", "", log)


@needs_pdflatex
def test_latex_estimates_breadths_from_above(tmp_path: Path) -> None:
    signs = [sign for sign in map(chr, range(33, 127)) if sign != "{"] + ["é", "Ü", "±", "…"]
    figures = ["12345.6789 ± 0.1234 (n=2)", "−1.20e-06"]
    asked = [(latex.escape(sign * 9), latex.breadth(sign * 9)) for sign in signs]
    asked += [(latex.escape(text), latex.breadth(text)) for text in figures]
    bold = [(latex.escape(text), latex.BOLD * latex.breadth(text)) for text in figures]
    asked += [(f"\\textbf{{{text}}}", breadth) for text, breadth in bold]
    boxes = "".join(f"\\sbox0{{{text}}}\\typeout{{=\\the\\wd0}}\n" for text, _ in asked)
    source = "\\documentclass{article}\\usepackage[utf8]{inputenc}\\begin{document}\\footnotesize\n"
    log = compiled(f"{source}{boxes}x\\end{{document}}", tmp_path)
    found = re.findall(r"^=([\d.]+)pt", log, flags=re.MULTILINE)
    wider = [t for (t, breadth), width in zip(asked, found, strict=True) if float(width) > breadth]
    assert wider == []


@needs_pdflatex
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")
def test_latex_shows_names_as_text(tmp_path: Path) -> None:
    names = [name for name in SAFE if name.isascii() and len(name) < 60]
    rows = tuple((Cell(name), Cell("-1.5")) for name in names)
    columns = (Column("name", "left"), Column("x", group="g"))
    compiled(draw([Sheet("names", columns, rows, tuple(names))], "latex"), tmp_path)
    subprocess.run(["pdftotext", "-layout", "table.pdf"], cwd=tmp_path, check=True)
    shown = (tmp_path / "table.txt").read_text(encoding="utf-8")
    for found, meant in {"’": "'", "‘": "`", "”": '"', "ﬁ": "fi", "ﬀ": "ff", "˜": "~", "ˆ": "^",
                         "−": "-"}.items():  # fmt: skip
        shown = shown.replace(found, meant)
    for name in names:  # an underscore is drawn, not written
        assert re.sub(r"[\s_]", "", name) in re.sub(r"\s", "", shown)


def test_latex_marks_what_to_paste_and_needs_one_package() -> None:
    before, pasted = drawn(leaderboard(large()), "latex").split("\\usepackage{booktabs}.\n")
    pasted = pasted.partition("% Up to here.")[0]
    assert before.startswith("\\documentclass{article}")
    assert "usepackage" not in pasted
    assert "\\begin{tabular}" in pasted
    assert set(re.findall(r"\\begin\{(\w+)\}", pasted)) == {"table", "tabular", "itemize"}


def test_latex_notes_stand_beneath_all_tables() -> None:
    assert "\\end{table}\n\n\\clearpage\n\n{\\footnotesize" in draw([many()], "latex")


def test_latex_says_what_all_lines_share_once() -> None:
    shown = drawn(board(row(1.0, model="a"), row(2.0, model="b")), "latex")
    assert (
        "the same on every line: backbone mlp, sampler \\textendash{}, seeds 1, failed 0" in shown
    )
    assert not re.search(r"mlp.*\\\\$", shown, flags=re.MULTILINE)


# Markdown.


def cells_of(markdown: str) -> list[list[str]]:
    """The text of every table's body as a reader of Markdown shows it."""
    rows: list[list[str]] = []
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    body = False
    for token in parser.parse(markdown):
        if token.type in ("tbody_open", "tbody_close"):
            body = token.type == "tbody_open"
        elif body and token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            kinds = {child.type for child in token.children or []}
            assert kinds <= {"text", "html_inline", "strong_open", "strong_close", "text_special"}
            tags = {child.content for child in token.children or [] if child.type == "html_inline"}
            assert tags <= {"<ins>", "</ins>", "<span>", "</span>"}
            if body:
                held = (c.content for c in token.children or [] if c.type.startswith("text"))
                rows[-1].append("".join(held))
        else:
            assert token.type != "html_block"
    return rows


def test_markdown_shows_names_as_text() -> None:
    made = hostile()
    rows = cells_of(drawn(made, "md"))
    assert {len(cells) for cells in rows} == {len(tables.sheet(made.boards[0]).columns)}
    assert {cells[2] for cells in rows} == SAFE
    assert len(rows) == sum(len(b.lines) for b in made.boards)
    assert {cells[2] for cells in cells_of(ranked(made, "md"))} >= SAFE


def test_notes_of_markdown_begin_no_list_of_their_own() -> None:
    notes = ("1. one", "- two", "# three", "=== four", "> five", "-1.5 six", "```", "    seven")
    tokens = MarkdownIt("commonmark").parse(draw([Sheet("s", (), (), notes)], "md"))
    assert [t.type for t in tokens].count("list_item_open") == len(notes)
    assert {t.type for t in tokens if t.level > 0} == {
        "list_item_open", "list_item_close", "paragraph_open", "paragraph_close", "inline",
    }  # fmt: skip
    shown = ["".join(c.content for c in t.children or []) for t in tokens if t.type == "inline"]
    assert shown[2:] == [clean(note) for note in notes]


# HTML.


class Reader(HTMLParser):
    """What a browser makes of a document: its tags, and the text of body cells and notes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.notes: list[str] = []
        self.captions: list[str] = []
        self.scopes: list[str | None] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("meta", "br"):
            return
        self.open.append(tag)
        assert {name for name, _ in attrs} <= {
            "lang", "class", "scope", "role", "aria-label", "tabindex", "colspan",
        }  # fmt: skip
        if tag == "th":
            self.scopes.append(dict(attrs).get("scope"))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "li":
            self.notes.append("")
        if tag == "caption":
            self.captions.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if "li" in self.open:
            self.notes[-1] += data
        if "caption" in self.open:
            self.captions[-1] += data


@pytest.mark.parametrize("draw_as", [drawn, ranked])
def test_html_shows_names_as_text(draw_as) -> None:
    read = Reader(draw_as(hostile(), "html"))
    assert read.open == []
    assert {cells[2] for cells in read.rows if len(cells) > 3} >= SAFE
    assert read.tags <= {
        "html", "head", "meta", "title", "style", "body", "h1", "section", "div", "table",
        "caption", "thead", "tbody", "tr", "th", "td", "ul", "li", "b", "u", "br",
    }  # fmt: skip
    assert None not in read.scopes


def test_html_has_what_the_sheet_has() -> None:
    made = leaderboard(large())
    read = Reader(drawn(made, "html"))
    sheets = [tables.sheet(b) for b in made.boards]
    assert read.captions == [sheet.title for sheet in sheets]
    shown = [cells for cells in read.rows if len(cells) == len(sheets[0].columns)]
    expected = [[cell.text for cell in cells] for sheet in sheets for cells in sheet.rows]
    assert [cells for cells in shown if cells[0] != "rank"] == expected
    assert all(note in read.notes for sheet in sheets for note in sheet.notes)


# All formats.


def test_the_order_of_the_rows_changes_no_byte() -> None:
    rows = large().to_dict("records")
    made = leaderboard(pd.DataFrame(rows))
    random.Random(0).shuffle(rows)
    again = leaderboard(pd.DataFrame(rows))
    for format in FORMATS:
        assert drawn(made, format) == drawn(again, format)
        assert ranked(made, format) == ranked(again, format)
    assert made.draw("csv") == again.draw("csv")
    assert rankings.to_csv(made.ranking) == rankings.to_csv(again.ranking)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_drawn_as_such(format: str) -> None:
    empty = leaderboard(large().iloc[:0])
    assert "No results yet" in re.sub("&#160;", " ", draw([], format))
    assert "no line has a rank" in re.sub("&#160;", " ", ranked(empty, format))


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match=r"'pdf'.*text, md, latex, html, svg"):
        draw([], "pdf")


@pytest.mark.parametrize("width", [1, 5, 12, 40])
def test_folding_loses_nothing(width: int) -> None:
    for name in SAFE:
        lines = fold(name, width)
        assert "".join(lines).replace(" ", "") == name.replace(" ", "")
        assert all(len(line) <= width for line in lines)


def test_folding_prefers_what_separates() -> None:
    text = "sprites(size=32,test=1000,train=6000)"
    assert fold(text, 24) == ["sprites(size=32,", "test=1000,train=6000)"]
    assert fold("reconstruction_fid", 16) == ["reconstruction_", "fid"]


def test_folding_leaves_no_scraps() -> None:
    assert fold("a-bcdefghijkl", 12) == ["a-bcdefghijk", "l"]


def test_cropping_keeps_both_ends() -> None:
    assert crop("abcdefghij", 5) == "ab…ij"
    assert crop("abcde", 5) == "abcde"


def test_a_wide_table_is_cut_between_groups() -> None:
    columns = [Column("place"), Column("name", "left"), Column("more", "left")]
    columns += [Column(name, group=name[0]) for name in ("a1", "a2", "b1", "b2", "b3")]
    rows = tuple((Cell("1"), Cell(name), *[Cell("1")] * 6) for name in "xy")
    made = Sheet("s", tuple(columns), rows)
    # The first part has all names, the others the fewest; a group is torn where it must be.
    assert cut(made, [3] * 8, 18, 0) == [[0, 1, 2, 3, 4], [1, 5, 6, 7]]
    assert cut(made, [3] * 8, 14, 0) == [[0, 1, 2, 3], [1, 4], [1, 5, 6, 7]]
    assert cut(made, [3] * 8, 9, 0) == [[0, 1, 2], [1, 3, 4], [1, 5, 6], [1, 7]]
    assert cut(made, [3] * 8, 99, 0) == [list(range(8))]
    assert cut(made, [3] * 8, 1, 0) == [[0, 1, 2], *([1, n] for n in range(3, 8))]
    named = Sheet("s", tuple(columns[1:2] + columns[3:]), tuple(row[:1] + row[3:] for row in rows))
    assert cut(named, [3] * 6, 1, 0) == [[0, n] for n in range(1, 6)]


def test_numbers_are_aligned_by_figure_spaces() -> None:
    cells = tables.aligned(
        [tables.Entry("10.5", "0.5"), tables.Entry("2.5", "11.5", "2"), tables.Entry("n/a")]
    )
    assert [cell.text.replace(PAD, "·") for cell in cells] == [
        "10.5 ± ·0.5······",
        "·2.5 ± 11.5 (n=2)",
        "·n/a·············",
    ]


# Rankings.


def brute(count: int, groups: list[tuple[int, int]]) -> set[tuple[int, int]]:
    held = combinations(range(count), 2)
    return {(i, j) for i, j in held if any(a <= i and j <= b for a, b in groups)}


@pytest.mark.parametrize("seed", range(20))
def test_lines_share_a_letter_where_they_are_not_told_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    means = np.sort(rng.uniform(1, 10, 12)).tolist()
    cd = float(rng.uniform(0.1, 6))
    shown = rankings.letters(12, cliques(means, cd))
    assert all(shown)
    for i, j in combinations(range(12), 2):
        assert bool(set(shown[i]) & set(shown[j])) == (means[j] - means[i] <= cd)
    assert shown[0][0] == "a"


def test_letters_go_on_after_the_alphabets() -> None:
    shown = rankings.letters(60, [])
    assert len(set(shown)) == 60
    assert (shown[0], shown[26], shown[52]) == ("a", "A", "(53)")
    assert [rankings.short(t) for t in ("abc", "abcd", "(53)")] == ["abc", "a–d", "(53)"]


def test_a_ranking_in_words() -> None:
    # Ten datasets of one order: chi² = 12N/(k(k+1)) sum (R - (k+1)/2)² = 6 · 5 = 30, CD = 1.483.
    values = {m: [float(i)] * 10 for i, m in enumerate("wxyz")}
    shown = " ".join(ranked(over(values), "text").split())
    assert re.search(r"1 w mlp – 1\.00 ± 0\.00\* a 1\* 1\*", shown)
    assert re.search(r"2 x mlp – 2\.00 ± 0\.00\+ ab ", shown)
    assert re.search(r"4 z mlp – 4\.00 ± 0\.00 c ", shown)
    assert "mean rank over 10 datasets: d0, d1," in shown
    assert "χ² = 30.00 (3 degrees of freedom), p < 0.001" in shown
    assert "(3 and 27), p < 0.001: the lines differ" in shown
    assert "its critical difference of mean ranks is 1.48" in shown
    assert "The 4 best in pairs" in shown
    assert re.search(r"w x 1\.00 -1\.00 0\.002 0\.012", shown)  # 2^-9, times six pairs


def test_no_difference_gives_no_groups() -> None:
    values = {"x": [1.0, 2.0, 3.0], "y": [2.0, 3.0, 1.0], "z": [3.0, 1.0, 2.0]}
    shown = " ".join(ranked(over(values), "text").split())
    assert "χ² = 0.00" in shown
    assert "no evidence that any two lines differ, so no groups" in shown
    assert "group:" not in shown
    assert (
        "p: Wilcoxon's signed-rank test over 3 datasets; with so few it cannot fall below 0.25"
        in shown
    )


def test_one_dataset_is_ranked_alone() -> None:
    shown = " ".join(ranked(over({"x": [1.0], "y": [2.0]}, seeds=3), "text").split())
    assert "one dataset, d0: its ranks alone" in shown
    assert "mean rank" not in shown.partition("one dataset")[0]
    assert "p: Welch's test over seeds" in shown
    assert "seeds needed" in shown
    alone = " ".join(ranked(over({"x": [1.0], "y": [2.0]}), "text").split())
    assert "no test: one seed of each line" in alone


def test_two_lines_have_no_test() -> None:
    shown = " ".join(ranked(over({"x": [1.0, 1.0], "y": [2.0, 2.0]}), "text").split())
    assert "no Friedman test: it needs three lines" in shown


def test_who_is_left_out_is_named_with_the_reason() -> None:
    made = over({"x": [1.0, 1.0, 1.0], "y": [2.0, 2.0, 2.0], "z": [3.0], "u": [4.0]})
    shown = " ".join(ranked(made, "md").split())
    assert "left out: u mlp, z mlp: no rank in d1, d2" in shown


def test_equal_mean_ranks_share_a_place() -> None:
    made = over({"x": [1.0, 2.0, 1.0], "y": [2.0, 1.0, 1.0], "z": [3.0, 3.0, 3.0]})
    cells = cells_of(ranked(made, "md"))
    assert [(c[0], c[1]) for c in cells[:3]] == [("1", "x"), ("1", "y"), ("3", "z")]


def test_the_ranking_as_csv_is_whole() -> None:
    made = over({"=1+1": [1.0, 1.0, 2.0], "y": [2.0, 2.0, 1.0], "z": [3.0, 3.0, 3.0]})
    records = list(csv.DictReader(io.StringIO(rankings.to_csv(made.ranking))))
    first = made.ranking.places[0]
    assert records[0]["label"] == "=1+1"
    assert float(records[0]["mean_rank"]) == first.mean
    assert float(records[0]["mean_rank_ci95"]) == first.half
    assert [float(records[0][f"rank[d{n}]"]) for n in range(3)] == list(first.ranks)
    assert [record["place"] for record in records] == ["1", "2", "3"]
