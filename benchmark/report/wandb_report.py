"""A Report on Weights & Biases: its content, and what is kept of it without a server.

What is built here is checked by wandb-workspaces' own models. How a server draws it (panels, the
grouping of their lines, the tables within) only a server can show.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...plugins import InputError
from ...seeds import digest
from ..leaderboard import Leaderboard
from ..store import read_json
from . import markdown, rankings, tables
from .sheets import Sheet, counted, draw
from .tracking import WandbLog, first_line, part_of, slugs

if TYPE_CHECKING:
    from ..results import Results

CURVES = 6
"""Plots a dataset: the losses, then the terms that most models have."""
LINES = 100
"""Lines in a plot; where it is not told, Weights & Biases draws ten."""
WIDE = 24
"""The columns of a grid of panels."""
STATISTICS = """\
Every figure is a mean over seeds ± the half-width of its 95 % interval, t(n − 1, 0.975) · s / √n, \
with s the standard deviation of n seeds. aebench computes it from the numbers of the cells; \
Weights & Biases averages runs, but its API gives no deviation of a group.

- One seed gives no interval.
- A value that a model cannot have is n/a: it is counted, and never averaged as a number.
- Ranks are over the metrics, and the datasets, that all ranked models share.
- An interval is of one model, not of the difference between two.
"""
OF_CURVES = """\
A line is the mean over seeds, its band one standard deviation, both by Weights & Biases: a band \
is no interval of the mean. Losses of models with other objectives do not compare: read the shape \
of a curve, not its height. What is fitted in closed form has no curve.
"""


@dataclass(frozen=True)
class Made:
    """What became of a Report.

    Attributes:
        file: its content, as a server gets it.
        address: where it is on the server; empty if it is on none.
        problem: why it is on none, where a server was asked.
    """

    file: Path
    address: str = ""
    problem: str = ""


def require() -> Any:
    """The module ``wandb_workspaces.reports.v2``.

    Raises:
        InputError: it is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as workspaces
    except ImportError:
        raise InputError(
            "wandb-workspaces is not installed: pip install 'aebench[wandb]'"
        ) from None
    return workspaces


def write(results: "Results", board: Leaderboard, names: Sequence[str], log: WandbLog) -> Made:
    """Build the Report, keep its content beside the runs, and save it on the server if online.

    ``wandb/report.json`` has what is sent to a server, ``wandb/report.md`` the same to be read. A
    Report that the folder has on the server already is brought up to date.

    Args:
        results: what it is of.
        board: their leaderboard.
        names: the names of its tables that were logged.
        log: where they were.
    """
    folder = log.folder / "wandb"
    file = folder / "report.json"
    report = build(results, board, names, log)
    before = held(file)
    # Offline it may not be known whose the project is: the one before, then.
    if before.get("projectName") == log.project and log.entity in ("", before.get("entityName")):
        report.id, report.entity = before["id"], before["entityName"]
    made = save(report, file) if log.mode == "online" else Made(file)
    text = json.dumps(sent(report), indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    (folder / "report.md").write_text(readable(report), encoding="utf-8")
    return made


def held(file: Path) -> dict[str, Any]:
    """What was kept of a Report; empty where nothing was, or it cannot be read."""
    try:
        found = read_json(file)
    except InputError:
        return {}
    known = isinstance(found, dict) and {"id", "entityName", "projectName"} <= found.keys()
    return found if known else {}


def save(report: Any, file: Path) -> Made:
    """Save a Report on the server: as the one of its id, or a fresh one if that is gone."""
    problem = ""
    for known in dict.fromkeys((report.id, "")):
        report.id = known
        try:
            report.save()
            return Made(file, report.url)
        except Exception as error:  # whatever a server answers must not end in a traceback
            problem = problem or first_line(error)
    return Made(file, problem=problem)


def sent(report: Any) -> dict[str, Any]:
    """What a server gets of a Report."""
    return {
        "id": report.id,
        "entityName": report.entity,
        "projectName": report.project,
        "displayName": report.title,
        "description": report.description,
        "type": "runs",
        "spec": json.loads(
            report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
        ),
    }


def build(results: "Results", board: Leaderboard, names: Sequence[str], log: WandbLog) -> Any:
    """The Report on a leaderboard: ranking, tables, learning curves and pictures."""
    wr = require()
    blocks: list[Any] = [
        wr.P(about(results, board, log)),
        wr.TableOfContents(),
        wr.H1("How to read the numbers"),
        wr.MarkdownBlock(STATISTICS),
    ]
    of_datasets = slugs(board)
    if "ranking" in names:
        blocks.append(wr.H1("Over datasets"))
        for sheet in rankings.sheets(board.ranking):
            blocks += [wr.H2(sheet.title), wr.MarkdownBlock(text_of(sheet))]
        blocks.append(panels_of(log, "ranking", "pairs"))
    for one in board.headline().boards:
        blocks += [wr.H1(one.dataset), wr.MarkdownBlock(text_of(tables.sheet(one)))]
        slug = of_datasets[one.dataset]
        blocks.append(panels_of(log, *(name for name in names if slug in name.split("/")[1:2])))
        of_dataset = results.rows.loc[results.rows["dataset"] == one.dataset, "cell"].unique()
        cells = [name for name in of_dataset if name in results.cells]
        part = f'Config("part") == "{part_of(log.grid, one.dataset)}"'
        blocks += [*curves(results, cells, part), *pictures(results, cells, part)]
    if not results.cells:
        blocks += [
            wr.H1("Curves and pictures"),
            wr.P("These results are published as numbers alone: there are no curves or pictures."),
        ]
    report = wr.Report(
        project=log.project,
        entity=log.entity,  # without one the constructor would ask a server for it
        title=f"aebench: {log.grid}"[:128],
        description="Autoencoders ranked over seeds and datasets",
        blocks=blocks,
        width="fluid",
    )
    name_parts(report)
    return report


def about(results: "Results", board: Leaderboard, log: WandbLog) -> str:
    models = len({(line.label, line.backbone) for one in board.boards for line in one.lines})
    datasets = counted(len(board.boards), "dataset")
    return (
        f"The grid {log.grid}: {counted(models, 'model')} on {datasets}, "
        f"{counted(results.rows['cell'].nunique(), 'training')} in all."
    )


def panels_of(log: WandbLog, *names: str) -> Any:
    """Tables of the leaderboard's run, below each other."""
    wr = require()
    return wr.PanelGrid(
        runsets=[wr.Runset(name="Leaderboard", filters=f'Config("part") == "{log.key}"')],
        panels=[
            wr.WeavePanelSummaryTable(table_name=name, layout=wr.Layout(y=12 * i, w=WIDE, h=12))
            for i, name in enumerate(names)
        ],
    )


def curves(results: "Results", cells: list[str], part: str) -> Iterator[Any]:
    """The learning curves of a dataset's cells: a plot a term, a line a model.

    Args:
        results: what the cells are of.
        cells: their names.
        part: the filter that picks their runs.
    """
    wr = require()
    having: dict[str, int] = defaultdict(int)
    for name in cells:
        for term in {term for record in results.history(name) for term in record} - {"epoch"}:
            having[term] += 1
    if not having:
        return
    losses = [term for term in ("train/loss", "val/loss") if term in having]
    others = sorted(having.keys() - set(losses), key=lambda term: (-having[term], term))
    yield wr.H2("Learning curves")
    yield wr.MarkdownBlock(OF_CURVES)
    yield wr.PanelGrid(
        runsets=[wr.Runset(name="By model", filters=part, groupby=["config.line"])],
        panels=[
            wr.LinePlot(
                title=term,
                x="epoch",
                y=[term],
                title_x="epoch",
                groupby=wr.Config("line"),
                groupby_aggfunc="mean",
                groupby_rangefunc="stddev",
                max_runs_to_show=LINES,
                layout=wr.Layout(x=i % 2 * WIDE // 2, y=i // 2 * 10, w=WIDE // 2, h=10),
            )
            for i, term in enumerate([*losses, *others][:CURVES])
        ],
    )


def pictures(results: "Results", cells: list[str], part: str) -> Iterator[Any]:
    """What the models of one seed drew: a panel a kind of picture, side by side.

    Args:
        results: what the cells are of.
        cells: their names.
        part: the filter that picks their runs.
    """
    wr = require()
    if not any(results.pictures(name) for name in cells):
        return
    seed = min(results.specs[name]["seed"] for name in cells if results.pictures(name))
    drawn = [name for name in cells if results.specs[name]["seed"] == seed]
    kinds = sorted({kind for name in drawn for kind in results.pictures(name)})
    yield wr.H2("Pictures")
    yield wr.P(f"Of seed {seed}; a run's name begins with its dataset and its model.")
    yield wr.PanelGrid(
        runsets=[
            wr.Runset(
                name=f"Seed {seed}",
                filters=f'{part} and Config("seed") == {seed}',
                order=[wr.OrderBy("Name", ascending=True)],
            )
        ],
        panels=[
            wr.MediaBrowser(
                title=kind,
                media_keys=[f"pictures/{kind}"],
                num_columns=4,
                layout=wr.Layout(y=14 * i, w=WIDE, h=14),
            )
            for i, kind in enumerate(kinds)
        ],
    )


def text_of(sheet: Sheet) -> str:
    """A table and its notes as Markdown, without its title."""
    return draw([sheet], "md").split("\n\n", 2)[2]


def name_parts(report: Any) -> None:
    """Name run sets and panels by where they stand: their names are random otherwise."""
    wr = require()
    grids = [block for block in report.blocks if isinstance(block, wr.PanelGrid)]
    for i, grid in enumerate(grids):
        for j, part in enumerate([*grid.runsets, *grid.panels]):
            part._id = digest(report.title, i, j)[:12]


def readable(report: Any) -> str:
    """A Report as Markdown, panels by their names."""
    wr = require()
    parts = [f"# {markdown.escape(report.title)}"]
    for block in report.blocks:
        if isinstance(block, (wr.H1, wr.H2)):
            level = "##" if isinstance(block, wr.H1) else "###"
            parts.append(f"{level} {markdown.escape(block.text)}")
        elif isinstance(block, wr.P):
            parts.append(markdown.escape(block.text))
        elif isinstance(block, wr.MarkdownBlock):
            parts.append(block.text.strip())
        elif isinstance(block, wr.PanelGrid):
            names = [panel_name(panel) for panel in block.panels]
            parts.append(f"*On Weights & Biases: {markdown.escape('; '.join(names))}.*")
    return "\n\n".join(parts) + "\n"


def panel_name(panel: Any) -> str:
    wr = require()
    if isinstance(panel, wr.WeavePanelSummaryTable):
        return f"the table {panel.table_name}"
    return f"{'curves of' if isinstance(panel, wr.LinePlot) else 'pictures of'} {panel.title}"
