"""The page of reproductions: what others published beside what our own runs gave.

It is ``results/reproductions.md``. The figures are those that the shipped grids state; a grid's run
is read from the folder of its name.
"""

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..plugins import InputError
from .grid import Figure, Parameters, figures, label, plain, read_grid, shipped, specs
from .leaderboard import Score, bare
from .report.markdown import escape
from .report.tables import figures as digits
from .report.tables import precision
from .statistics import interval

HEADER = """# Reproductions

Every figure that a shipped grid states, beside what a run of that grid gave: mean ± half-width of
the 95 % t-interval over seeds. The command runs the whole protocol; with `--out results/paper/…`
its tables lie where this page reads them. A run that departs from the grid, such as one of fewer
epochs, says how; a figure that it misses then says little of the model. Where a protocol itself
departs from the published one, its paragraph below says so. `make docs` writes this page.
"""
FOOTER = """GECO's only sourced figures are of a student's replication (Taming-VAEs 2e44f7a) whose
protocol is not stated well enough to be run; no grid has them.
"""
COLUMNS = ["model", "dataset", "metric", "published", "obtained", "run", "source", "command"]


@dataclass(frozen=True)
class Run:
    """The cells of a run that share all but the seed.

    Attributes:
        score: of their values; its mean is NaN where they have none.
        departures: in what they are not what the grid says, in words.
    """

    score: Score
    departures: tuple[str, ...]


@dataclass(frozen=True)
class Reproduction:
    """A published figure and what became of it here.

    Attributes:
        grid: the grid that states it.
        about: the grid's description.
        takes: what the grid says of how long it takes.
        figure: the figure.
        dataset: the label of the grid's dataset that it is of.
        runs: what was obtained; empty where the grid has not been run.
    """

    grid: str
    about: str
    takes: str
    figure: Figure
    dataset: str
    runs: tuple[Run, ...]


def reproductions(root: Path, grids: Mapping[str, Any] | None = None) -> list[Reproduction]:
    """Every figure of ``grids``, with the runs of it below ``root``, by model and dataset.

    Args:
        root: the folder of published results; what ``paper/vae`` gave lies in its ``paper/vae``.
        grids: what :func:`read_grid` takes, by name; the shipped ones by default.

    Raises:
        InputError: a figure is of no cell of its grid, or a run lacks its specifications.
    """
    found = []
    for name, source in (shipped() if grids is None else grids).items():
        settings = read_grid(source)[1]
        stated = figures(settings)
        if not stated:
            continue
        wanted = specs(settings, "cpu")
        held = cells_of(root / name)
        for figure in stated:
            planned = [spec for spec in wanted if figure.is_of(spec)]
            if not planned:
                raise InputError(f"{name}: published: no cell of the grid is {subject(figure)}")
            runs = runs_of(figure, planned, held)
            dataset = label(planned[0]["dataset"])
            about = " ".join(settings["description"].split())
            found.append(Reproduction(name, about, settings["takes"], figure, dataset, runs))
    return sorted(
        found, key=lambda r: natural(f"{subject(r.figure)} {r.dataset} {r.figure.metric}")
    )


def natural(text: str) -> list[Any]:
    """A key that sorts the numbers within ``text`` by their size."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)]


def subject(figure: Figure) -> str:
    """The model of a figure, with the hyper-parameters that tell which."""
    return label({"name": figure.model, "parameters": figure.hyperparameters})


def cells_of(folder: Path) -> list[tuple[Parameters, list[dict[str, str]]]]:
    """The specification and the rows of every cell that a folder of tables has.

    Raises:
        InputError: there are rows without specifications.
    """
    if not (folder / "rows.csv").is_file():
        return []
    try:
        held = json.loads((folder / "specs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'specs.json'} cannot be read: {error}") from None
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows[row["cell"]].append(row)
    return [(spec, rows[cell]) for cell, spec in sorted(held.items()) if cell in rows]


def runs_of(
    figure: Figure,
    planned: list[Parameters],
    held: Iterable[tuple[Parameters, list[dict[str, str]]]],
) -> tuple[Run, ...]:
    """What cells gave for a figure, by their settings, those nearest to the grid first."""
    wanted = [settings_of(spec, figure) for spec in planned]
    groups: dict[tuple[str, ...], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for spec, rows in held:
        if figure.is_of(spec):
            values = groups[departures(settings_of(spec, figure), wanted)][spec["seed"]]
            for row in rows:
                name = row["metric"] if "[" in figure.metric else bare(row["metric"])
                if (name, row["sampler"]) == (figure.metric, figure.sampler):
                    values += [] if row["value"] == "n/a" else [float(row["value"])]
    runs = []
    seeds = {spec["seed"] for spec in planned}
    for differing, by_seed in sorted(groups.items(), key=lambda group: (len(group[0]), group[0])):
        means = [fmean(values) for _, values in sorted(by_seed.items()) if values]
        score = Score(*interval(means), len(means), len(by_seed) - len(means))
        if len(means) < len(seeds):
            differing = (*differing, f"{len(means)} of {len(seeds)} seeds")
        runs.append(Run(score, differing))
    return tuple(runs)


def settings_of(spec: Parameters, figure: Figure) -> Parameters:
    """All in a specification that a figure's value depends on but the seed, flat."""
    from ..datasets import Dataset
    from ..models import Backbone
    from .metrics import Metric
    from .train import Budget

    found = Dataset.choose(spec["dataset"]["name"]).complete(spec["dataset"]["parameters"])
    found |= {f"training.{k}": v for k, v in vars(Budget.of(spec["training"])).items()}
    del found["training.threads"]
    found |= spec["model"]["hyperparameters"]
    if spec["backbone"]:
        backbone = Backbone.choose(spec["backbone"]["name"])
        found["backbone"] = label(
            {"name": backbone.name, "parameters": backbone.complete(spec["backbone"]["parameters"])}
        )
    for choice in spec["evaluation"]["metrics"]:
        metric = Metric.choose(choice["name"])
        if bare(figure.metric) in {quantity.name for quantity in metric.quantities}:
            estimator = metric.complete(choice["parameters"])
            found |= {f"{metric.name}.{k}": v for k, v in estimator.items()}
    return json.loads(json.dumps(found))


def departures(found: Parameters, planned: list[Parameters]) -> tuple[str, ...]:
    """In what settings differ from the nearest of those planned, in words."""
    differing: list[dict[str, tuple[Any, Any]]] = [
        {
            key: (found.get(key), other.get(key))
            for key in sorted(found.keys() | other.keys())
            if found.get(key) != other.get(key)
        }
        for other in planned
    ]
    words = []
    for key, (here, there) in min(differing, key=len).items():
        if key == "training.epochs":
            words.append(f"{here} of {there} epochs ({100 * here / there:.2g} %)")
        else:
            words.append(f"{key}={plain(here)} (grid: {plain(there)})")
    return tuple(words)


def page(found: list[Reproduction]) -> str:
    """The Markdown page: a table of all figures, and a paragraph on every protocol."""
    lines = [
        HEADER,
        f"| {' | '.join(COLUMNS)} |",
        "| --- | --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    for reproduction in found:
        figure = reproduction.figure
        metric = f"{figure.metric}, {figure.sampler}" if figure.sampler else figure.metric
        source = f"{figure.source}; {figure.note}" if figure.note else figure.source
        command = f"`aebench run {reproduction.grid}`"
        for obtained, run in told(reproduction):
            cells = [subject(figure), reproduction.dataset, metric, published(figure), obtained]
            cells = [escape(cell) for cell in [*cells, run, source]]
            lines.append(f"| {' | '.join([*cells, command])} |")
    lines += ["", "## Protocols", ""]
    protocols = {reproduction.grid: reproduction.about for reproduction in found}
    lines += [f"- `{name}`: {escape(protocols[name])}" for name in sorted(protocols)]
    return "\n".join([*lines, "", FOOTER])


def told(reproduction: Reproduction) -> list[tuple[str, str]]:
    """What was obtained and by what run, for every run, or that there is none."""
    if not reproduction.runs:
        takes = f" ({reproduction.takes})" if reproduction.takes else ""
        return [("–", f"not run yet{takes}")]
    places = decimals(reproduction.figure.value)
    return [
        (shown(run.score, places), "; ".join(run.departures) or "whole")
        for run in reproduction.runs
    ]


def published(figure: Figure) -> str:
    """What a figure says, value and spread with as many decimals."""
    places = max(decimals(figure.value), decimals(figure.spread or 0))
    spread = "" if figure.spread is None else f" ± {figure.spread:.{places}f}"
    return f"{figure.value:.{places}f}{spread}"


def decimals(value: float) -> int:
    """The decimals of a number as it was written down."""
    return len(f"{value:.10f}".rstrip("0").partition(".")[2])


def shown(score: Score, places: int) -> str:
    """A score with at least so many decimals, and its number of seeds."""
    if math.isnan(score.mean):
        return "n/a"
    mean, half = digits(score, max(places, precision(score)))
    seeds = "1 seed" if score.n == 1 else f"{score.n} seeds"
    return f"{mean} ± {half} ({seeds})" if half else f"{mean} ({seeds})"
