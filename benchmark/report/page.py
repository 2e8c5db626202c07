"""The report page: one HTML file to explore results with. It asks nothing of the network."""

import base64
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from .. import statistics
from ..leaderboard import Board, Leaderboard, Line, Place, Score, leaderboard, plain
from . import rankings, tables
from .charts import charts, labelled, pareto
from .formula import link, mathml, registered
from .sheets import ARROWS, clean
from .thumbnails import Pictures, in_view

if TYPE_CHECKING:
    from ..results import Results

COSTS = {
    "train_seconds": "training time (s)",
    "parameters": "parameters",
    "peak_memory": "peak memory (MiB)",
    "evaluate_seconds": "evaluation time (s)",
}
MOST_LINES = 50
"""Lines that a chart draws at once; the filter brings the others."""
MOST_PLACES = 30
"""Lines of the critical-difference diagram."""
MOST_NUMBERS = 400_000
"""Numbers of all learning curves: longer ones are thinned to it."""
FEWEST_EPOCHS = 12
WIDEST = 24
"""Characters of a half-width."""
PAGED = 100
"""Lines from which a table has pages."""


def page(groups: "Sequence[Results]", out: str | Path, command: str = "aebench report DIR") -> None:
    """Write the page of some results: the same results give the same bytes.

    Pictures stand within it while they are small, otherwise in ``<stem>-pictures`` beside it.

    Args:
        groups: the results of a grid each. Nothing is ranked across them.
        out: the file.
        command: what made it, for its reader.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    out = Path(out)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = Content(groups, out)
    scripts = [*bundles(), source("page.js")]
    text = environment.get_template("page.html.j2").render(
        **content.context,
        command=command,
        css=Markup(source("page.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=Markup(" ".join(f"'sha256-{digest(script)}'" for script in scripts)),
        least_bootstrap=statistics.LEAST_BOOTSTRAP,
        widths=range(1, WIDEST + 1),
    )
    # Half of a pair of surrogates cannot be written; within JSON this is its escape.
    out.write_bytes(text.encode("utf-8", "backslashreplace"))


class Content:
    """What the template shows.

    Args:
        groups: the results of a grid each.
        out: the file of the page.
    """

    def __init__(self, groups: "Sequence[Results]", out: Path) -> None:
        self.groups = [Group(results, n) for n, results in enumerate(groups)]
        boards = [board for group in self.groups for board in group.boards]
        measures = {m.name: m for group in self.groups for m in Leaderboard(group.boards).measures}
        self.ids = {name: f"m{n}" for n, name in enumerate(measures)}
        shown = {name for board in boards for name in default(board)}
        self.data: list[tuple[str, Markup]] = []
        self.pictures = Pictures(out)
        series = sum(group.series for group in self.groups)
        self.epochs = max(FEWEST_EPOCHS, MOST_NUMBERS // (3 * series)) if series else 0
        self.thinned = False
        self.views: list[dict[str, Any]] = []
        self.cards: list[dict[str, Any]] = []
        told = []
        for group in self.groups:
            first = len(self.views)
            for board in group.boards:
                self.view(group, board, shown)
            self.card_group(group, first)
            told.append(
                {
                    "name": group.results.name,
                    "views": self.views[first:],
                    "ranking": self.ranking(group),
                }
            )
        self.embed(
            "page",
            {
                "charts": charts(),
                "costs": [f"{label}, log scale" for label in COSTS.values()],
                "corners": {
                    "higher": "The better corner is the upper left: cheaper and higher.",
                    "lower": "The better corner is the lower left: cheaper and lower.",
                },
                "most": MOST_LINES,
                "metrics": {
                    self.ids[m.name]: {
                        "name": m.name,
                        "better": m.better,
                        "label": " ".join(
                            [m.name, *([f"({m.unit})"] if m.unit else []), direction(m.better)]
                        ).strip(),
                    }
                    for m in measures.values()
                },
                "embed": {
                    "ast": True,  # no code is made of text: the page forbids it
                    "actions": False,
                    "mode": "vega",
                    "logLevel": 1,  # it would warn of layers that no record is in, as of one seed
                    "renderer": "svg",
                    "tooltip": {"disableDefaultStyle": True},
                },
                "table": {
                    "autoWidth": False,
                    "deferRender": True,
                    "orderMulti": False,
                    "layout": {
                        "topStart": None,
                        "topEnd": None,
                        "bottomStart": "info",
                        "bottomEnd": None,
                    },
                    "language": {
                        "info": "_TOTAL_ lines",
                        "infoFiltered": "of _MAX_",
                        "infoEmpty": "0 lines",
                        "emptyTable": "No results yet.",
                        "zeroRecords": "No model of this name.",
                    },
                },
            },
        )
        families = [
            (
                family,
                [
                    {
                        "id": self.ids[m.name],
                        "name": m.name,
                        "shown": m.name in shown,
                        "views": tuple(v["number"] for v in self.views if m.name in v["measures"]),
                    }
                    for m in members
                ],
            )
            for family, members in groupby(
                (m for m in measures.values() if any(m.name in v["measures"] for v in self.views)),
                key=lambda m: m.family,
            )
        ]
        self.pictures.write(sum(len(text) for _, text in self.data))
        for card in self.cards:
            for part in card["parts"]:
                for picture in part["pictures"]:
                    picture["src"] = self.pictures.address(picture["content"])
        names = [group.results.name for group in self.groups]
        self.context = {
            "title": names[0] if len(names) == 1 else "Published leaderboards",
            "counts": self.counts(),
            "groups": told,
            "views": self.views,
            "families": families,
            "costs": list(COSTS.values()),
            "curves": any(group.series for group in self.groups),
            "thinned": f" Long curves are thinned to {self.epochs} epochs." if self.thinned else "",
            "cards": self.cards,
            "pictures": bool(self.pictures.contents),
            "data": self.data,
        }

    def embed(self, id: str, content: Any) -> None:
        self.data.append((id, Markup(json_in_html(content))))

    def counts(self) -> list[tuple[str, str]]:
        """What the results have, in numbers and words."""
        rows = [group.results.rows for group in self.groups]
        models = {
            name
            for group in self.groups
            for board in group.boards
            for name in group.names(board).values()
        }
        datasets = {name for frame in rows for name in frame["dataset"]}
        seeds = max((frame["seed"].nunique() for frame in rows), default=0)
        failed = sum(f.loc[f["family"] == "status", "cell"].nunique() for f in rows)
        finished = sum(f.loc[f["family"] != "status", "cell"].nunique() for f in rows)
        return [
            counted(len(models), "model"),
            counted(len(datasets), "dataset"),
            counted(seeds, "seed"),
            (f"{finished:,}", "cells finished" if finished != 1 else "cell finished"),
            (f"{failed:,}", "failed"),
        ]

    def view(self, group: "Group", board: Board, shown: set[str]) -> None:
        """The leaderboard of one dataset, its charts' records and its notes."""
        number = len(self.views)
        columns = tables.columns(board)
        names = group.names(board)
        of = {name: n for n, name in enumerate(dict.fromkeys(names.values()))}
        several = any(names[key_of(line)] != line.label for line in board.lines)
        samplers = any(line.sampler for line in board.lines)
        identity = [("rank", ""), ("model", "name")]
        identity += [("backbone", "word")] * several + [("sampler", "word")] * samplers
        _, told = tables.identity(board)
        records = []
        for k, (line, told_line) in enumerate(zip(board.lines, told)):
            name = names[key_of(line)]
            cells: list[Any] = [
                [finite(line.rank), told_line[0]],
                self.model_cell(group, name, line),
            ]
            cells += [str(escape(line.backbone))] * several
            cells += [str(escape(told_line[3]))] * samplers
            records.append({"of": of[name], "c": cells})
            failed = f"({line.failed} failed)" if line.failed else ""
            for column in columns:
                score = line.scores.get(column.measure.name)
                cells.append(cell(column.entries[k], score))
            cells.append([line.seeds, str(line.seeds), "", 0, failed])
        self.embed(
            f"table-{number}-data",
            {
                "data": records,
                "columns": [
                    *(described(n, word, kind) for n, (word, kind) in enumerate(identity)),
                    *(
                        scored(
                            n,
                            self.ids[c.measure.name],
                            c.measure.better,
                            c.measure.name in shown,
                            (entry.half for entry in c.entries),
                            f"{c.measure.name} {direction(c.measure.better)}".strip(),
                        )
                        for n, c in enumerate(columns, start=len(identity))
                    ),
                    scored(len(identity) + len(columns), "seeds", "higher"),
                ],
                "order": [[0, "asc"]],
                "titleRow": 1,  # below that of the families
                **paging(len(records)),
            },
        )
        quality = [c.measure for c in columns if c.measure.family != "cost"]
        metrics = quality or [c.measure for c in columns]
        keys = {key: of[name] for key, name in names.items()}
        curves = self.curves(group, board, keys)
        seeds = sorted({n for line in board.lines for s in line.scores.values() for n in s.values})
        self.embed(
            f"view-{number}",
            {
                "group": group.number,
                "dataset": board.dataset,
                "names": list(of),
                "seeds": seeds,
                "metrics": [self.ids[m.name] for m in sorted(metrics, key=lambda m: not m.ranked)],
                "scores": {
                    self.ids[m.name]: scores_of(board, m.name, keys, seeds) for m in metrics
                },
                "costs": costs_of(board, keys),
                "curves": curves,
            },
        )
        self.views.append(
            {
                "number": number,
                "dataset": board.dataset,
                "identity": identity,
                "measures": [c.measure.name for c in columns],
                "spans": [
                    (family, len(list(members)))
                    for family, members in groupby(columns, key=lambda c: c.measure.family)
                ],
                "columns": [head(c.measure) for c in columns],
                "notes": sorted_notes(board),
                "provenance": group.provenance(board),
            }
        )

    def model_cell(self, group: "Group", name: str, line: Line | Place) -> str:
        """A link to the model's card; its sampler stands beside it where the window is narrow."""
        anchor = f'<a href="#{group.card(name)}" title="{escape(name)}">{escape(line.label)}</a>'
        return f'{anchor} <span class="also">{escape(line.sampler)}</span>'

    def ranking(self, group: "Group") -> dict[str, Any]:
        """The ranking over a group's datasets: its diagram, its table and its words."""
        ranking = group.leaderboard.ranking
        names = told_apart(ranking.places)
        places = len(ranking.datasets) > 1 and ranking.places
        drawn = min(len(ranking.places), MOST_PLACES) if places else 0
        if math.isnan(ranking.critical_difference):
            drawn = 0
        means = [place.mean for place in ranking.places[:drawn]]
        most = max((max(place.ranks) for place in ranking.places[:drawn]), default=1.0)
        least = min((min(place.ranks) for place in ranking.places[:drawn]), default=1.0)
        cliques = [
            {
                "group": n,
                "name": names[place],
                "order": place,
                "x": most + (most - least) * 0.035 * (n + 1),
            }
            for n, (first, last) in enumerate(ranking.cliques if rankings.differ(ranking) else ())
            for place in (first, min(last, drawn - 1))
            if first < drawn - 1
        ]
        self.embed(
            f"ranking-{group.number}",
            {
                "records": [
                    {
                        "name": names[n],
                        "order": n,
                        "mean": rounded(means[n]),
                        "text": f"{place.mean:.2f}",
                        "ranks": [rounded(rank) for rank in place.ranks],
                        "each": ", ".join(
                            f"{dataset} {rank:g}"
                            for dataset, rank in zip(ranking.datasets, place.ranks)
                        ),
                    }
                    for n, place in enumerate(ranking.places[:drawn])
                ],
                "cliques": cliques,
            },
        )
        if places:
            records = []
            for place in ranking.places:
                half = "" if math.isnan(place.half) else f"{place.half:.2f}"
                records.append(
                    {
                        "c": [
                            [place.mean, f"{place.mean:.2f}", half],
                            self.model_cell(group, group.name_of(place), place),
                            str(escape(rankings.who(place)[2])),
                            *([rank, f"{rank:.1f}"] for rank in place.ranks),
                        ]
                    }
                )
            self.embed(
                f"places-{group.number}-data",
                {
                    "data": records,
                    "columns": [
                        scored(0, "mean rank"),
                        described(1, "model", "name"),
                        described(2, "sampler", "word"),
                        *(
                            scored(3 + n, f"d{n}", spoken=name)
                            for n, name in enumerate(ranking.datasets)
                        ),
                    ],
                    "order": [[0, "asc"]],
                    **paging(len(records)),
                },
            )
        cropped = (
            [f"the best {drawn} are drawn, the table has all"]
            if 0 < drawn < len(ranking.places)
            else []
        )
        words = "; ".join(f"{names[n]} {mean:.2f}" for n, mean in enumerate(means[:5]))
        return {
            "sentences": rankings.notes(ranking) + cropped,
            "words": f"Mean ranks over {len(ranking.datasets)} datasets. Best first: {words}",
            "places": bool(places),
            "datasets": [split_name(name) for name in ranking.datasets],
        }

    def curves(self, group: "Group", board: Board, keys: dict[Any, int]) -> dict[str, Any]:
        """The learning curves of a dataset: model, term, and a record a split."""
        found: dict[str, Any] = {}
        for key, cells in group.cells(board):
            histories = [history for cell in cells if (history := group.results.history(cell))]
            terms = dict.fromkeys(
                name.partition("/")[2]
                for history in histories
                for name in history[0]
                if name.startswith(("train/", "val/"))
            )
            made = {
                term: records
                for term in sorted(terms, key=lambda term: term != "loss")
                if (records := self.curve(histories, term))
            }
            if made:
                found[str(keys[key])] = made
        return found

    def curve(self, histories: list[list[dict[str, Any]]], term: str) -> list[dict[str, Any]]:
        records = []
        for split, words in (("train", "train"), ("val", "validation")):
            values: dict[int, list[float]] = defaultdict(list)
            for history in histories:
                for epoch in history:
                    value = epoch.get(f"{split}/{term}")
                    if value is not None and math.isfinite(value):
                        values[int(epoch["epoch"])].append(value)
            if not values:
                continue
            epochs = sorted(values)
            kept = thin(epochs, self.epochs)
            self.thinned |= len(kept) < len(epochs)
            records.append(
                {
                    "split": words,
                    "epoch": kept,
                    "mean": [rounded(sum(values[e]) / len(values[e]), 5) for e in kept],
                    "low": [rounded(min(values[e]), 5) for e in kept],
                    "high": [rounded(max(values[e]), 5) for e in kept],
                }
            )
        return records

    def card_group(self, group: "Group", first: int) -> None:
        """A card for every model of a group, with what differs by dataset."""
        for name, members in group.models().items():
            held = group.about(members)
            settings: dict[tuple[str, str], list[int]] = defaultdict(list)
            parts = []
            for n, board in enumerate(group.boards):
                for key in members.get(board.dataset, ()):
                    if first + n not in settings[key[1:]]:
                        settings[key[1:]].append(first + n)
                    cells = group.by_board[board.dataset].get(key, [])
                    drawn = group.results.pictures(cells[0]) if cells else {}
                    if drawn:
                        parts.append(
                            {
                                "view": first + n,
                                "dataset": board.dataset,
                                "pictures": [
                                    self.pictures.add(title, drawn[title])
                                    for title in sorted(drawn, key=in_view)
                                ],
                            }
                        )
            reference = held.get("reference", "")
            self.cards.append(
                {
                    "id": group.card(name),
                    "group": group.number,
                    "name": name,
                    "description": clean(held.get("description", "")),
                    "objective": mathml(held.get("objective", "")),
                    "reference": reference,
                    "link": link(reference),
                    "settings": [
                        {"views": views, "given": plain_settings(*held)}
                        for held, views in settings.items()
                    ],
                    "parts": parts,
                }
            )


Key = tuple[str, str, str]
"""What tells the models of a dataset apart: model, hyper-parameters and backbone."""


def key_of(line: Line) -> Key:
    return line.model, line.hyperparameters, line.backbone


class Group:
    """One grid's results with their leaderboard."""

    def __init__(self, results: "Results", number: int) -> None:
        self.results, self.number = results, number
        self.leaderboard = leaderboard(results.rows)
        self.boards = self.leaderboard.boards
        rows = results.rows
        done = rows[rows["family"] != "status"].drop_duplicates(["dataset", "cell"])
        self.by_board: dict[str, dict[Key, list[str]]] = defaultdict(lambda: defaultdict(list))
        fields = ("dataset", "model", "hyperparameters", "backbone", "seed", "cell")
        for dataset, *key, _, cell in sorted(zip(*(done[field] for field in fields))):
            self.by_board[dataset][key[0], key[1], key[2]].append(cell)
        self._names = {board.dataset: named(board) for board in self.boards}
        self._cards: dict[str, str] = {}

    def names(self, board: Board) -> dict[Key, str]:
        """How each model of a board is called."""
        return self._names[board.dataset]

    def name_of(self, place: Place) -> str:
        """How a place's model is called on the cards."""
        full = f"{place.label} on {place.backbone}"
        return full if any(full in held.values() for held in self._names.values()) else place.label

    def card(self, name: str) -> str:
        """The anchor of a model's card."""
        return self._cards.setdefault(name, f"model-{self.number}-{len(self._cards)}")

    def models(self) -> dict[str, dict[str, list[Key]]]:
        """Every name with what it stands for in each dataset."""
        found: dict[str, dict[str, list[Key]]] = defaultdict(lambda: defaultdict(list))
        for board in self.boards:
            for key, name in self.names(board).items():
                found[name][board.dataset].append(key)
        return dict(sorted(found.items()))

    def cells(self, board: Board) -> Iterable[tuple[Key, list[str]]]:
        """The finished cells of every model of a board, by seed."""
        return self.by_board[board.dataset].items()

    @cached_property
    def series(self) -> int:
        """How many learning curves there are: a model on a dataset, a term and a split each."""
        found = 0
        for board in self.boards:
            for _, cells in self.cells(board):
                history = self.results.history(cells[0])
                found += len(history[0]) - 1 if history else 0
        return found

    def about(self, members: dict[str, list[Key]]) -> dict[str, str]:
        """What a model says of itself: kept with its cell, or read off the class of its name."""
        for dataset, keys in members.items():
            for key in keys:
                for cell in self.by_board[dataset].get(key, [])[:1]:
                    if held := self.results.about(cell).get("about"):
                        return held
        return registered(next(iter(members.values()))[0][0])

    def provenance(self, board: Board) -> list[str]:
        """Versions and devices of a dataset's cells, each once; from the first seed of each."""
        found: dict[str, None] = {}
        for _, cells in self.cells(board):
            held = self.results.about(cells[0]).get("provenance", {})
            versions = ", ".join(f"{k} {v}" for k, v in held.get("versions", {}).items())
            line = "; ".join(
                filter(None, [versions, f"device: {held['device']}" if "device" in held else ""])
            )
            if line:
                found[clean(line)] = None
        return sorted(found)


# Words and figures.


def named(board: Board) -> dict[Key, str]:
    """The name of every model of a board: its label, with the backbone where it has several."""
    backbones: dict[str, set[str]] = defaultdict(set)
    for line in board.lines:
        backbones[line.label].add(line.backbone)
    return {
        key_of(line): f"{line.label} on {line.backbone}"
        if len(backbones[line.label]) > 1
        else line.label
        for line in board.lines
    }


def told_apart(lines: Sequence[Place] | Sequence[Line]) -> list[str]:
    """A name a line: the label, with the sampler and the backbone where they tell lines apart."""
    samplers: dict[tuple[str, str], set[str]] = defaultdict(set)
    backbones: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        samplers[line.label, line.backbone].add(line.sampler)
        backbones[line.label].add(line.backbone)
    found = []
    for line in lines:
        name = line.label
        name += f" on {line.backbone}" if len(backbones[line.label]) > 1 else ""
        name += f" · {line.sampler}" if len(samplers[line.label, line.backbone]) > 1 else ""
        name = clean(name) or "(no name)"
        found.append(name if name != "__proto__" else f"{name} ")  # no key of Vega's objects
    # Names that are equal once cleaned would share a row of a chart.
    seen: dict[str, int] = defaultdict(int)
    for n, name in enumerate(found):
        seen[name] += 1
        found[n] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return found


def counted(number: int, word: str) -> tuple[str, str]:
    return f"{number:,}", word if number == 1 else f"{word}s"


def direction(better: str) -> str:
    return {"higher": "↑ higher is better", "lower": "↓ lower is better"}.get(better, "")


def split_name(name: str) -> tuple[str, str]:
    """A dataset's name and, in brackets, its parameters."""
    first, bracket, rest = clean(name).partition("(")
    return first, bracket + rest.replace(",", ", ")  # where a line may break


def head(measure: Any) -> dict[str, str]:
    """A column's head: name, qualifier, and direction with the unit."""
    name, bracket, qualifier = clean(measure.name).partition("[")
    about = f"{ARROWS[measure.better]} {clean(measure.unit)}".strip()
    return {"name": name, "of": bracket + qualifier, "about": about}


def default(board: Board) -> set[str]:
    """The columns that are shown at first: what is ranked and most lines have, and the costs."""
    found = set()
    for column in tables.columns(board):
        held = sum(
            line.scores[column.measure.name].n > 0
            for line in board.lines
            if column.measure.name in line.scores
        )
        if column.measure.family == "cost" or (
            column.measure.ranked and 2 * held >= len(board.lines)
        ):
            found.add(column.measure.name)
    return found


def cell(entry: tables.Entry, score: Score | None) -> list[Any]:
    """A number of the table for ``number`` of page.js: what to sort by, figures and tooltip."""
    if score is None or not score.n:
        return [None, entry.mean]
    mark = 1 if entry.best else 2 if entry.second else 0
    fewer = f"(n={entry.seeds})" if entry.seeds else ""
    found = [rounded(score.mean, 12), entry.mean, entry.half, mark, fewer, score.n]
    if score.n > 1:
        found.append(f"{score.sd:.3g}")
    low, high = bootstrapped(tuple(score.values.values()))
    return found if math.isnan(low) else [*found, f"{low:.4g}", f"{high:.4g}"]


@cache
def bootstrapped(values: tuple[float, ...]) -> tuple[float, float]:
    return statistics.bootstrap(values)


def scored(
    n: int,
    name: str,
    better: str = "lower",
    visible: bool = True,
    halves: Iterable[str] = (),
    spoken: str = "",
) -> dict[str, Any]:
    """A column of numbers, for DataTables: the first click brings the best up.

    Args:
        n: its place in a record.
        name: what scripts call it.
        better: which values are best.
        visible: whether it is shown at first.
        halves: its half-widths, for which there is room.
        spoken: what screen readers call it.
    """
    width = max(map(len, halves), default=0)
    return {
        "data": f"c.{n}",
        "name": name,
        "type": "score",
        "className": f"w{min(width + 2, WIDEST)}" if width else "",
        "visible": visible,
        "ariaTitle": spoken or name,
        "searchable": False,
        "orderSequence": ["desc", "asc"] if better == "higher" else ["asc", "desc"],
    }


def described(n: int, word: str, kind: str) -> dict[str, Any]:
    """A column that says which line it is, for DataTables."""
    if not kind:
        return scored(n, word)
    made: dict[str, Any] = {"data": f"c.{n}", "className": kind, "type": "html", "name": word}
    return {**made, "cellType": "th"} if kind == "name" else made


def paging(lines: int) -> dict[str, Any]:
    if lines <= PAGED:
        return {"paging": False}
    layout = {"topStart": None, "topEnd": None, "bottomStart": "info", "bottomEnd": "paging"}
    return {"paging": True, "pageLength": 50, "layout": layout}


def joined(entry: tables.Entry) -> str:
    """A number with its interval, and its seeds where they are fewer than the line's."""
    half = f" ± {entry.half}" if entry.half else ""
    return entry.mean + half + (f" (n={entry.seeds})" if entry.seeds else "")


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def rounded(value: float, digits: int = 6) -> float | None:
    """``value`` to so many significant digits; None where it is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def thin(epochs: list[int], most: int) -> list[int]:
    """At most ``most`` of the epochs, evenly spaced, with the first and the last."""
    if len(epochs) <= most:
        return epochs
    step = (len(epochs) - 1) / (most - 1)
    return [epochs[round(n * step)] for n in range(most)]


def scores_of(
    board: Board, metric: str, keys: dict[Key, int], seeds: list[int]
) -> list[dict[str, Any]]:
    """A record a line that has the metric, best first: its seeds, and which costs it is worth."""
    (of_metric,) = Leaderboard((board,)).only(metric).boards
    lines = [line for line in of_metric.lines if not math.isnan(line.mean(metric))]
    column = tables.column(of_metric.measures[0], lines)
    spent = {key_of(line): line for line in board.lines}
    qualities = [line.mean(metric) for line in lines]
    records = []
    called = told_apart(lines)
    spends = [[positive(spent[key_of(line)].mean(cost)) for line in lines] for cost in COSTS]
    fronts = [pareto(costs, qualities, column.measure.better) for costs in spends]
    labels = [labelled(called, costs, qualities, front) for costs, front in zip(spends, fronts)]
    for n, (line, name) in enumerate(zip(lines, called)):
        score = line.scores[metric]
        records.append(
            {
                "of": keys[key_of(line)],
                "name": name,
                "text": joined(column.entries[n]),
                "mean": rounded(score.mean),
                "half": rounded(score.half),
                "values": [rounded(score.values.get(seed, math.nan)) for seed in seeds],
            }
        )
        if any(front[n] for front in fronts):
            records[-1]["fronts"] = [int(front[n]) for front in fronts]
            records[-1]["labels"] = [int(label[n]) for label in labels]
    return records


def positive(value: float) -> float:
    """``value`` where a logarithmic axis has a place for it, NaN where not."""
    return value if value > 0 else math.nan


def costs_of(board: Board, keys: dict[Key, int]) -> dict[int, dict[str, list[Any]]]:
    """The costs of every model as numbers and as the tables say them."""
    measures = {m.name: m for m in board.measures}
    columns = [
        tables.column(measures[cost], board.lines) if cost in measures else None for cost in COSTS
    ]
    found: dict[int, dict[str, list[Any]]] = {}
    held = [
        sorted(positive(line.mean(cost)) for line in board.lines if line.mean(cost) > 0)
        for cost in COSTS
    ]
    for n, line in enumerate(board.lines):
        values = [rounded(line.mean(cost)) for cost in COSTS]
        found[keys[key_of(line)]] = {
            "costs": values,
            "spents": ["" if c is None else joined(c.entries[n]) for c in columns],
            "rights": [
                bool(value and some and value > math.sqrt(some[0] * some[-1]))
                for value, some in zip(values, held)
            ],
        }
    return found


def sorted_notes(board: Board) -> list[tuple[str, list[str]]]:
    """What a reader of a board must know, by what it is about; the first part has no title."""
    metrics = {measure.name for measure in board.measures}
    parts: dict[str, list[str]] = {"": [], "Failed cells": [], "Missing values": []}
    parts["How metrics were estimated"] = []
    for note in tables.notes(board):
        if note.startswith("n/a: "):
            part = "Missing values"
        elif note.startswith("failed: "):
            part = "Failed cells"
        else:
            named = note.partition(": ")[0].partition(", ")[0] in metrics
            part = "How metrics were estimated" if named else ""
        parts[part].append(note)
    return [(title, notes) for title, notes in parts.items() if notes]


def plain_settings(hyperparameters: str, backbone: str) -> list[tuple[str, str]]:
    """Hyper-parameters, backbone and training budget, a name and a value each."""
    held = {"backbone": backbone, **json.loads(hyperparameters or "{}")}
    return [(name, plain(value)) for name, value in held.items()]


# Parts.


def json_in_html(content: Any) -> str:
    """``content`` as JSON that cannot end the script element that holds it."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text = text.replace("</", "<\\/").replace("<!", "\\u003c!")
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def bundles() -> tuple[str, str]:
    """Vega and DataTables as scripts: the parts that vl-convert and itables bring along."""
    import itables
    import vl_convert

    bundle = (Path(itables.__file__).parent / "html/dt_bundle.js").read_text(encoding="utf-8")
    exports = re.search(r"export\{[^}]*?(\w+) as default[^}]*\};?", bundle)
    if exports is None:
        raise RuntimeError("this version of itables exports no DataTable")
    given = f"globalThis.DataTable={exports[1]};"
    tabled = bundle[: exports.start()] + given + bundle[exports.end() :]
    return in_script(vl_convert.javascript_bundle("globalThis.vegaEmbed = vegaEmbed;")), in_script(
        tabled
    )


def in_script(code: str) -> str:
    """``code`` such that nothing in its strings and patterns ends its element."""
    code = re.sub(r"</(?=script)", r"<\\/", code, flags=re.IGNORECASE)
    return code.replace("<!--", "<\\!--")


def digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
