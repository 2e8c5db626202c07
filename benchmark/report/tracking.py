"""Weights & Biases: every cell a run, the leaderboard, and a Report. Nothing else imports wandb."""

import math
import netrc
import os
import re
import shlex
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...plugins import InputError
from ...seeds import digest
from ..grid import Cell
from ..leaderboard import Board, Leaderboard, Place, labels_of, leaderboard
from ..store import hyperparameters, read_json

if TYPE_CHECKING:
    import pandas as pd

    from ..results import Results
    from .wandb_report import Made

PROJECT = "aebench"
CLOUD = ("api.wandb.ai", "api.forge.coreweave.com")
"""The names of the one public server; a key under either serves for both."""
MODES = {"online": "online", "run": "online", "shared": "online"}
MODES |= {"offline": "offline", "dryrun": "offline", "disabled": "disabled"}
"""What ``WANDB_MODE`` may be, and what it means here."""
LONGEST = 60
"""Characters of a group's, a job type's or a tag's name; Weights & Biases takes no more than 64."""
PATIENCE = 60
"""Seconds that a server may take to answer before everything is logged offline."""
MOST_ROWS = 10_000
"""Rows of a table that Weights & Biases takes; of more it drops the last."""
BEST = 50
"""The places whose pairs are logged; of 50 there are 1,225."""

OnProgress = Callable[[int, int], None]
"""Called with how much is done of how much."""


@dataclass(frozen=True)
class Logged:
    """What was logged of results.

    Attributes:
        project: where, as ``entity/project`` once a server has said whose it is.
        mode: ``online``, ``offline`` or ``disabled``, as it was at the end.
        cells: the number of cells.
        report: the Report's address, or the file that holds its content until a server has it.
        sync_command: sends what was logged offline; empty where there is nothing to send.
        notes: what a person should know, a line each.
    """

    project: str
    mode: str
    cells: int
    report: str
    sync_command: str
    notes: tuple[str, ...]


class WandbLog:
    """Logs cells and the leaderboard to a project, silently.

    Online where the user is logged in, otherwise offline into ``<folder>/wandb``, to be sent by
    :attr:`sync_command`; offline from then on, too, if the server does not answer.
    ``WANDB_MODE`` overrules both. A run has its cell's key for id: a cell that is logged again
    continues its run online, and replaces it in the folder offline, so that it does not stand there
    twice. How a server merges a run that is sent to it a second time, only a server can show; it
    refuses the id of a run that was deleted there.

    Runs are grouped by the grid; the job type is the dataset; the configuration has ``grid``,
    ``dataset``, ``model``, ``label``, ``backbone`` and ``seed``, by each of which the interface can
    group, ``line`` for what a curve is of (the label, with the backbone where it has several), and
    the whole specification as ``spec``.

    Args:
        grid: the grid's name, under which runs are grouped.
        folder: the store's folder.
        cells: all that are going to be logged, from which labels say what varies.
        project: the project, or ``entity/project``.

    Raises:
        InputError: wandb is not installed, or refuses the project's name or ``WANDB_MODE``.
    """

    def __init__(
        self, grid: str, folder: str | Path, cells: Iterable[Cell] = (), project: str = PROJECT
    ) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("wandb is not installed: pip install 'aebench[wandb]'") from None
        self.wandb, self.grid, self.folder = wandb, grid, Path(folder)
        chosen = os.environ.get("WANDB_MODE")
        if chosen and chosen not in MODES:
            raise InputError(f"WANDB_MODE is {chosen!r}; valid: {', '.join(MODES)}")
        try:
            wandb.setup(wandb.Settings(silent=True))
        except (wandb.Error, ValueError) as error:  # of another variable
            raise InputError(f"Weights & Biases: {' '.join(str(error).split())}") from None
        self.entity, self.project = self.parts(project)
        self.mode = MODES[chosen] if chosen else "online" if self.logged_in() else "offline"
        if self.mode == "offline":  # the whole client, which sends telemetry otherwise
            wandb.setup(wandb.Settings(mode="offline"))
        self.problem = ""  # why it went offline, in a line, where a server could not be used
        self.models: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.backbones: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for cell in cells:
            self.meet(cell)

    def parts(self, project: str) -> tuple[str, str]:
        """The entity, empty where it is the user's own, and the name of a project.

        Raises:
            InputError: Weights & Biases would refuse it.
        """
        entity, slash, name = project.rpartition("/")
        if not name or (slash and not entity) or not project.isprintable() or "/" in entity:
            raise InputError(
                f"no project of Weights & Biases can be called {project!r}; "
                "valid: PROJECT or ENTITY/PROJECT"
            )
        for part in filter(None, (entity, name)):
            try:
                self.wandb.Settings(project=part)
            except (self.wandb.Error, ValueError) as error:
                raise InputError(first_line(error)) from None
        return entity, name

    def logged_in(self) -> bool:
        """Whether there is a key for the server; nothing is asked of the network."""
        settings = self.wandb.setup().settings
        if settings.api_key:
            return True
        try:
            held = netrc.netrc(os.environ.get("NETRC"))
        except (OSError, netrc.NetrcParseError):
            return False
        own = urlsplit(settings.base_url).netloc
        return any(held.authenticators(host) for host in (CLOUD if own in CLOUD else (own,)))

    @property
    def path(self) -> str:
        """The project as ``entity/project``, or its name where whose it is is not known."""
        return f"{self.entity}/{self.project}" if self.entity else self.project

    @property
    def sync_command(self) -> str:
        """The command that sends what was logged offline; empty where there is nothing to send."""
        if self.mode != "offline":
            return ""
        return f"wandb sync {shlex.quote(str(self.folder / 'wandb'))}/offline-run-*"

    @property
    def key(self) -> str:
        """The id of the leaderboard's run.

        Another folder's leaderboard is another run, though its grid has the same name.
        """
        return f"leaderboard-{digest(self.grid, str(self.folder.resolve()))[:16]}"

    def meet(self, cell: Cell) -> None:
        model, text = cell.model, hyperparameters(cell.spec)
        self.models[cell.dataset].add((model, text))
        self.backbones[cell.dataset, model, text].add(cell.backbone)

    def names(self, cell: Cell) -> tuple[str, str]:
        """A cell's label, and what its curves are of: the label, with the backbone if it varies."""
        self.meet(cell)
        model = (cell.model, hyperparameters(cell.spec))
        label = labels_of(self.models[cell.dataset])[model]
        several = len(self.backbones[cell.dataset, *model]) > 1
        return label, f"{label} · {cell.backbone}" if several else label

    def cell(
        self, folder: Path, cell: Cell, rows: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        """Log a finished cell: specification, history, scores and pictures.

        Args:
            folder: where it lies in the store.
            cell: the cell.
            rows: its numbers; by default those in its folder, which lack what compares seeds.
        """
        label, line = self.names(cell)
        config = {
            "grid": self.grid,
            "dataset": cell.dataset,
            "model": cell.model,
            "label": label,
            "line": line,
            "backbone": cell.backbone,
            "seed": cell.seed,
            "part": part_of(self.grid, cell.dataset),
            "spec": cell.spec,
        }
        numbers = summary_of(read_json(folder / "metrics.json") if rows is None else rows)
        history = read_json(folder / "history.json")
        pictures = sorted((folder / "pictures").glob("*.png"))

        def fill(run: Any) -> None:
            for record in history:
                terms = {k: v for k, v in record.items() if v is not None}
                run.log(terms, step=int(record["epoch"]))
            run.summary.update(numbers)
            if pictures:
                # In the last epoch's step: a run that is continued drops it as a step it has.
                step = int(history[-1]["epoch"]) if history else 0
                drawn = {f"pictures/{p.stem}": self.wandb.Image(str(p)) for p in pictures}
                run.log(drawn, step=step)

        tags = list(dict.fromkeys([short(cell.spec["dataset"]["name"]), short(cell.model)]))
        self.log(cell.key, folder.name, cell.dataset, config, tags, fill)

    def leaderboard(self, board: Leaderboard) -> list[str]:
        """Log a leaderboard as a run of its own; returns the names of its tables.

        ``leaderboard/<dataset>`` has a line a row, with the ranked metrics and the costs as in
        ``Leaderboard.lines``; ``scores/<dataset>`` a row a line and metric, with all metrics. Of
        several datasets there are ``ranking``, the mean ranks, and ``pairs``, its best lines
        compared two by two.
        """
        tables = tables_of(board)

        def fill(run: Any) -> None:
            for name, frame in tables.items():
                run.log({name: self.table(frame)})

        config = {"grid": self.grid, "part": self.key}
        self.log(self.key, f"leaderboard of {self.grid}", "leaderboard", config, [], fill)
        return list(tables)

    def table(self, frame: "pd.DataFrame") -> Any:
        data = [[plain(value) for value in record] for record in frame.itertuples(index=False)]
        return self.wandb.Table(columns=list(frame.columns), data=data)

    def log(
        self,
        key: str,
        name: str,
        kind: str,
        config: Mapping[str, Any],
        tags: list[str],
        fill: Callable[[Any], None],
    ) -> None:
        """Log a run that ``fill`` fills; offline if the server does not answer."""
        if self.mode == "disabled":
            return
        settings = self.wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,  # this machine need not be the one that trained
            x_save_requirements=False,
            init_timeout=PATIENCE,
            finish_timeout=PATIENCE,
            finish_timeout_raises=True,
        )
        given: dict[str, Any] = {
            "project": self.project,
            "entity": self.entity or None,
            "group": short(self.grid),
            "name": name,
            "job_type": short(kind),
            "tags": tags,
            "id": key,
            "config": config,
            "dir": str(self.folder),
            "reinit": "create_new",
            "settings": settings,
        }
        for before in self.folder.glob(f"wandb/offline-run-*-{key}"):
            shutil.rmtree(before)
        if self.mode == "online":
            try:
                self.entity = self.filled(fill, **given, mode="online", resume="allow")
                return
            except Exception as error:
                # A training must not end because of a server, whatever that answers.
                self.mode, self.problem = "offline", first_line(error)
                with suppress(Exception):
                    self.wandb.teardown()  # or the run's id would still be in use
        self.filled(fill, **given, mode="offline")

    def filled(self, fill: Callable[[Any], None], **given: Any) -> str:
        """Start a run, fill it and finish it; returns whose it is."""
        run = self.wandb.init(**given)
        try:
            fill(run)
        except BaseException:
            with suppress(Exception):
                run.finish(exit_code=1)
            raise
        run.finish()
        return run.entity


def log_results(
    results: "Results", project: str, on_progress: OnProgress = lambda done, total: None
) -> Logged:
    """Log results that are there already: cells, leaderboard and a Report.

    Of a published folder, which has no cells, the leaderboard and the Report alone. The Report's
    content is always kept, in ``<folder>/wandb/report.json`` as a server gets it and in
    ``report.md`` for people; only a server can make a Report of it. One that it made is brought up
    to date when the folder is logged again.

    Args:
        results: a store's or a published folder's.
        project: the project, or ``entity/project``.
        on_progress: told of progress.

    Raises:
        InputError: wandb or wandb-workspaces is not installed, the project's name or ``WANDB_MODE``
            is refused, or the folder cannot be written.
    """
    from . import wandb_report

    wandb_report.require()
    cells = {name: cell_of(results, name) for name in results.cells}
    log = WandbLog(results.name, results.path, cells.values(), project)
    board, rows = leaderboard(results.rows), dict(iter(results.rows.groupby("cell")))
    total = len(cells) + 2
    on_progress(0, total)
    try:
        (log.folder / "wandb").mkdir(exist_ok=True)
        for done, (name, cell) in enumerate(cells.items(), 1):
            records: list[Any] = rows[name].to_dict("records") if name in rows else []
            log.cell(results.cells[name], cell, records)
            on_progress(done, total)
        names = log.leaderboard(board)
        on_progress(total - 1, total)
        made = wandb_report.write(results, board, names, log)
    except OSError as error:
        raise InputError(f"{log.folder / 'wandb'} cannot be written: {error.strerror}") from None
    on_progress(total, total)
    where = made.address or str(made.file)
    notes = notes_of(log, len(cells), made)
    return Logged(log.path, log.mode, len(cells), where, log.sync_command, notes)


def notes_of(log: WandbLog, cells: int, made: "Made") -> tuple[str, ...]:
    """What a person should know of what was logged, a line each."""
    what = f"{cells} cells and the leaderboard" if cells else "the leaderboard"
    notes = []
    if log.problem:
        notes.append(f"offline, as the server could not be used: {log.problem}")
    if log.mode == "disabled":
        notes.append("WANDB_MODE is disabled: nothing was logged")
    elif log.mode == "offline":
        notes.append(f"{what} logged offline; to send them: wandb login && {log.sync_command}")
    else:
        notes.append(f"{what} logged to {log.path}")
    if not cells:
        notes.append("published results are numbers alone: no learning curves, no pictures")
    if made.address:
        notes.append(f"the Report: {made.address}")
        return tuple(notes)
    if made.problem:
        notes.append(f"the server made no Report: {made.problem}")
    again = f"aebench report {shlex.quote(str(log.folder))} --wandb {shlex.quote(log.path)}"
    notes.append(f"the Report's content is in {made.file} and {made.file.with_suffix('.md').name}")
    notes.append(f"only a server can make the Report itself: wandb login && {again}")
    return tuple(notes)


def cell_of(results: "Results", name: str) -> Cell:
    return Cell(results.specs[name], results.about(name)["key"])


def title_of(place: Place) -> str:
    """A line of a ranking in words."""
    return " ".join(filter(None, (place.label, place.backbone, place.sampler)))


def tables_of(board: Leaderboard) -> dict[str, "pd.DataFrame"]:
    """The tables of a leaderboard by their names in Weights & Biases."""
    import pandas as pd

    found = {}
    names = slugs(board)
    lines = board.headline().lines
    kept = [name for name in lines.columns if not name.endswith(("_sd", "_low", "_high"))]
    for dataset, of_dataset in lines[kept].groupby("dataset", sort=True):
        found[f"leaderboard/{names[str(dataset)]}"] = of_dataset.dropna(axis="columns", how="all")
    for one in board.boards:
        scores = scores_of(one)
        for start in range(0, len(scores), MOST_ROWS):
            part = f"/{start // MOST_ROWS + 1}" if start else ""
            name = f"scores/{names[one.dataset]}{part}"
            found[name] = scores.iloc[start : start + MOST_ROWS]
    ranking = board.ranking
    if len(ranking.datasets) > 1 and len(ranking.places) > 1:
        found["ranking"] = pd.DataFrame(
            [
                {
                    "label": place.label,
                    "backbone": place.backbone,
                    "sampler": place.sampler or "none",
                    "own": place.own,
                    "mean_rank": place.mean,
                    "mean_rank_ci95": place.half,
                    **{f"rank on {d}": rank for d, rank in zip(ranking.datasets, place.ranks)},
                }
                for place in ranking.places
            ]
        )
        pairs = ranking.pairs(BEST)
        titles = [title_of(place) for place in ranking.places]
        for side in ("a", "b"):
            pairs[side] = [titles[place] for place in pairs[side]]
        found["pairs"] = pairs.dropna(axis="columns", how="all")
    return found


def scores_of(board: Board) -> "pd.DataFrame":
    """Every score of a board, a row a line and metric."""
    import pandas as pd

    records = [
        {
            "rank": line.rank,
            "label": line.label,
            "model": line.model,
            "hyperparameters": line.hyperparameters,
            "backbone": line.backbone,
            "sampler": line.sampler or "none",
            "own": line.own,
            "metric": measure.name,
            "family": measure.family,
            "better": measure.better,
            "unit": measure.unit,
            "mean": line.scores[measure.name].mean,
            "ci95": line.scores[measure.name].half,
            "sd": line.scores[measure.name].sd,
            "n": line.scores[measure.name].n,
            "na": line.scores[measure.name].missing,
        }
        for line in board.lines
        for measure in board.measures
        if measure.name in line.scores
    ]
    return pd.DataFrame(records)


def slugs(board: Leaderboard) -> dict[str, str]:
    """A name for each dataset that is safe in a key of Weights & Biases and in a file's name."""
    plain = {b.dataset: re.sub(r"[^A-Za-z0-9_]+", "-", b.dataset).strip("-") for b in board.boards}
    return {
        dataset: name
        if 0 < len(name) <= LONGEST and list(plain.values()).count(name) == 1
        # What was cut, or is not the only one of its name, is told apart by its hash.
        else f"{name[:LONGEST]}-{digest(dataset)[:8]}"
        for dataset, name in plain.items()
    }


def part_of(grid: str, dataset: str) -> str:
    """What a Report picks a dataset's runs by.

    Letters and digits alone: wandb-workspaces 0.4.13 doubles every ``=`` of a filter's text, and
    reads a quote as its end.
    """
    return digest(grid, dataset)[:16]


def summary_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The finite numbers of rows, by metric and sampler."""
    return {
        f"{row['metric']}/{row['sampler']}" if row["sampler"] else row["metric"]: row["value"]
        for row in rows
        if row["value"] is not None and math.isfinite(row["value"])
    }


def plain(value: Any) -> Any:
    """A table's cell: what does not apply is empty."""
    return None if isinstance(value, float) and math.isnan(value) else value


def short(name: str) -> str:
    """``name`` in as many characters as a group, a job type or a tag may have."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{digest(name)[:8]}"


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
