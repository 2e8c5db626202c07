"""Everything published, from committed rows: ``python -m aebench.benchmark.publish results``.

What each folder's tables, picture and lines in ``README.md`` are is said by ``published.yaml``;
``index.html`` has all of them on one page, ``reproductions.md`` the figures of papers beside ours.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from . import reproductions
from .leaderboard import leaderboard
from .report.page import page
from .results import Results, read

HEADER = """# Published results

[index.html](index.html) is the page of all of them: download it and open it in a browser.
[reproductions.md](reproductions.md) puts the figures that papers published beside what the grids
`paper/…` gave here.

Each folder holds the tables of one grid as a run wrote them: `rows.csv` (a line for every number),
`specs.json` (the specification of every cell in it), `details.json` (how each number was estimated,
or why there is none), `leaderboard.csv` (every metric), `leaderboard.md` (the ranked ones, a table
a family), and `leaderboard.svg`, a picture of some columns. The command remakes them; checkpoints
and pictures of every cell then lie beside them, not committed. `make docs` makes this page and all
tables again from the committed rows alone.

| folder | what it shows | remade by | takes |
| --- | --- | --- | --- |
"""
FOOTER = """
All were made with torch 2.13.0 on two x86-64 cores, one thread a cell. On such a machine the same
cell gives the same numbers to the last bit; other processors and versions differ in the last
digits, which training can enlarge to about the spread over seeds.
"""


@dataclass(frozen=True)
class Published:
    """A published folder.

    Attributes:
        name: its path below the root; a grid's name.
        shows: what it shows, in a line.
        command: what remakes it.
        takes: how long that takes.
        metrics: the metrics of its table and its picture.
        results: its results.
    """

    name: str
    shows: str
    command: str
    takes: str
    metrics: list[str]
    results: Results

    def tables(self) -> str:
        """Its tables in ``README.md``."""
        board = leaderboard(self.results.rows).only(*self.metrics)
        _, _, drawn = board.draw("md").partition("\n")
        return f"## {self.name}\n{drawn}".replace("\n##", "\n###")


def published(root: Path) -> list[Published]:
    """The published folders below ``root``.

    Raises:
        InputError: one of them cannot be read.
    """
    listed = yaml.safe_load((root / "published.yaml").read_text(encoding="utf-8"))
    return [Published(name, **about, results=read(root / name)) for name, about in listed.items()]


def publish(root: Path) -> None:
    """Write every table and page below ``root`` from its rows."""
    found = published(root)
    lines = []
    for one in found:
        folder, board = root / one.name, leaderboard(one.results.rows)
        write(folder / "leaderboard.csv", board.draw("csv"))
        write(folder / "leaderboard.md", board.headline().draw("md"))
        write(folder / "leaderboard.svg", board.only(*one.metrics).draw("svg", 132))
        link = f"[{one.name}]({one.name}/leaderboard.md)"
        lines.append(f"| {link} | {one.shows} | `{one.command}` | {one.takes} |\n")
    tables = "\n".join(one.tables() for one in found)
    write(root / "README.md", f"{HEADER}{''.join(lines)}{FOOTER}\n{tables}")
    page([one.results for one in found], root / "index.html", "make docs")
    write(root / "reproductions.md", reproductions.page(reproductions.reproductions(root)))


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
