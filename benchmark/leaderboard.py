"""The leaderboard: a store's rows as one line a model, with means, intervals and ranks."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from ..plugins import InputError, suggestion
from . import statistics
from .families import place
from .report import rankings, tables
from .report.sheets import draw

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["dataset", "model", "hyperparameters", "backbone", "seed", "sampler", "metric", "cell"]
Record = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """One metric of one line over seeds.

    Attributes:
        mean: the mean of the seeds' values; NaN where there is none.
        half: the half-width of its 95 % t-interval; NaN of fewer than two seeds.
        n: the number of seeds that have a value.
        missing: the number of finished seeds that have none (n/a).
        values: each seed's value.
    """

    mean: float
    half: float
    n: int
    missing: int
    values: Mapping[int, float] = field(default_factory=dict)

    @property
    def sd(self) -> float:
        """The standard deviation over seeds, n - 1 in its denominator; NaN of fewer than two."""
        return statistics.deviation([*self.values.values()]) if self.n > 1 else math.nan

    @property
    def bootstrap(self) -> tuple[float, float]:
        """Both ends of the 95 % bootstrap interval; NaN of too few seeds."""
        return statistics.bootstrap(list(self.values.values()))


NOTHING = Score(math.nan, math.nan, 0, 0)


@dataclass(frozen=True)
class Measure:
    """What is known of a metric beside its values.

    Attributes:
        name: its name in rows, such as ``fid[classifier]``.
        family: its family.
        better: ``higher``, ``lower``, or empty where neither is.
        unit: its unit; empty for a bare number.
        ranked: whether it counts in the rank and stands in every table.
        sampled: whether it scores a sampler.
    """

    name: str
    family: str
    better: statistics.Better | Literal[""]
    unit: str
    ranked: bool
    sampled: bool = False


@dataclass(frozen=True)
class Line:
    """One line: a model with its hyper-parameters, on a backbone, under a sampler.

    Attributes:
        label: the model with the hyper-parameters that vary in its dataset, ``beta_vae(beta=4)``.
        model: its name.
        hyperparameters: all of them, as compact JSON.
        backbone: the networks.
        sampler: the sampler; empty where none can serve the model, or none was scored.
        own: whether it is the sampler that the model's paper uses.
        seeds: the number of seeds that finished.
        failed: the number of cells that failed.
        scores: every metric's score by the metric's name.
        rank: its place by :func:`mean_ranks`; NaN where there is none.
    """

    label: str
    model: str
    hyperparameters: str
    backbone: str
    sampler: str
    seeds: int
    failed: int
    scores: Mapping[str, Score]
    own: bool = False
    rank: float = math.nan

    def mean(self, metric: str) -> float:
        """The mean of ``metric``, NaN where the line has none."""
        return self.scores[metric].mean if metric in self.scores else math.nan

    @property
    def order(self) -> tuple[Any, ...]:
        """What lines are sorted by: rank, then name."""
        unranked = math.isnan(self.rank)
        name = (self.label, self.backbone, self.sampler, self.hyperparameters)
        return (unranked, 0.0 if unranked else self.rank, *name)


@dataclass(frozen=True, order=True)
class Absence:
    """A value that a line lacks: why, of which metric, and on which line."""

    reason: str
    metric: str
    label: str
    sampler: str


@dataclass(frozen=True)
class Board:
    """The leaderboard of one dataset.

    Attributes:
        dataset: its label.
        lines: best first.
        measures: its metrics in the order of the columns.
        ranked_by: the names of the metrics that the rank is computed on.
        absences: why values are missing, each once, sorted.
        estimators: how each metric was estimated, each way once, by the metric's name.
        failures: which cell failed and its error, sorted.
        remarks: what else a reader must know.
    """

    dataset: str
    lines: tuple[Line, ...]
    measures: tuple[Measure, ...]
    ranked_by: tuple[str, ...] = ()
    absences: tuple[Absence, ...] = ()
    estimators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failures: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """A line's place over several datasets.

    Attributes:
        label: the model with the hyper-parameters that vary.
        backbone: the networks.
        sampler: the sampler; empty where there is none.
        own: whether it is the sampler that the model's paper uses.
        ranks: its rank in each of the ranking's datasets, among the lines of the ranking.
        mean: their mean.
        half: the half-width of its 95 % interval over datasets; NaN of one.
        scores: its score in each dataset, where the ranking is by one metric.
    """

    label: str
    backbone: str
    sampler: str
    own: bool
    ranks: tuple[float, ...]
    mean: float
    half: float
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """Lines ranked over the datasets that all of them have.

    In each dataset lines are ranked by a metric, or by their mean rank within and then over the
    families of several; ties share the average. Which lines and datasets: the pair of sets with
    the most values, so that neither a model of one dataset nor a dataset of few models takes the
    others' ranks away.

    Attributes:
        metrics: the names of what is ranked by.
        better: the direction of the only metric; empty where there are several.
        datasets: those that all places have, in alphabetical order.
        places: best first.
        left_out: each line and dataset that has no part in it, and why.
        friedman: whether any two lines differ; None of fewer than two datasets or three lines.
        critical_difference: the least difference of two mean ranks that shows that they differ, by
            Nemenyi's test; NaN where there is none.
        cliques: the first and the last place of each group that does not differ by it.
    """

    metrics: tuple[str, ...]
    better: statistics.Better | Literal[""]
    datasets: tuple[str, ...]
    places: tuple[Place, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    friedman: statistics.Friedman | None = None
    critical_difference: float = math.nan
    cliques: tuple[tuple[int, int], ...] = ()

    def pairs(self, best: int | None = None) -> "pd.DataFrame":
        """How often each line is better than each below it, and whether that is chance.

        Columns: ``a`` and ``b``, places from 0; ``win_rate``, the probability that a is better than
        b in a dataset, seed against seed where one metric ranks; ``difference``, of the means of
        one metric in one dataset, otherwise of the mean ranks; ``p``, by Wilcoxon's signed-rank
        test over datasets, of one dataset by Welch's test over seeds; ``p_holm``, corrected for the
        number of pairs; ``seeds_needed``, the seeds a line that Welch's test would need for a
        difference of this size (one metric in one dataset).

        Args:
            best: the pairs of so many of the best places alone.
        """
        import pandas as pd

        records = []
        for (i, a), (j, b) in combinations(enumerate(self.places[:best]), 2):
            records.append({"a": i, "b": j, **self.compared(a, b)})
        columns = ["a", "b", "win_rate", "difference", "p", "seeds_needed"]
        frame = pd.DataFrame(records, columns=columns)
        frame.insert(5, "p_holm", statistics.holm(frame["p"].to_numpy(dtype=float)))
        return frame

    def draw(self, format: str, width: int = 100, bold: bool = False) -> str:
        """The places and the best of them in pairs, as :meth:`Leaderboard.draw`."""
        if format == "csv":
            return rankings.to_csv(self)
        sheets = rankings.sheets(self)
        return draw(sheets, format, heading="Ranking", width=width, bold=bold)

    def compared(self, a: Place, b: Place) -> dict[str, float]:
        ranks = [x - y for x, y in zip(a.ranks, b.ranks)]
        wins = [float(rank < 0) + 0.5 * (rank == 0) for rank in ranks]
        difference, differences, p, needed = fmean(ranks), ranks, math.nan, math.nan
        if self.better:
            scores = list(zip(a.scores, b.scores))
            seeds = [([*x.values.values()], [*y.values.values()]) for x, y in scores]
            wins = [statistics.win_rate(x, y, self.better) for x, y in seeds]
            differences = [x.mean - y.mean for x, y in scores]
            if len(seeds) == 1:
                found = statistics.welch(*seeds[0])
                difference, p = found.mean, found.p
                needed = statistics.seeds_needed(difference, a.scores[0].sd, b.scores[0].sd)
        if len(ranks) > 1:
            p = statistics.wilcoxon(differences)
        return {"win_rate": fmean(wins), "difference": difference, "p": p, "seeds_needed": needed}


@dataclass(frozen=True)
class Leaderboard:
    """The leaderboards of a store, a board a dataset, in alphabetical order."""

    boards: tuple[Board, ...]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The metrics of all boards, in the order of the columns."""
        return in_order({m.name: m for board in self.boards for m in board.measures}.values())

    @property
    def lines(self) -> "pd.DataFrame":
        """All lines, wide: what identifies one, and of every metric several columns.

        ``<metric>`` is the mean, ``<metric>_ci95`` the half-width of its 95 % t-interval,
        ``<metric>_sd`` the standard deviation, ``<metric>_n`` the number of seeds in it,
        ``<metric>_na`` the number of finished seeds without a value; ``<metric>_low`` and
        ``<metric>_high`` are the ends of its 95 % bootstrap interval, where any line has as many
        seeds as that needs. Numbers are whole: nothing is rounded.
        """
        import pandas as pd

        names = [measure.name for measure in self.measures]
        many = {
            name
            for board in self.boards
            for line in board.lines
            for name, score in line.scores.items()
            if score.n >= statistics.LEAST_BOOTSTRAP
        }
        records = []
        for board in self.boards:
            for line in board.lines:
                record: list[Any] = [board.dataset, line.rank, line.label, line.model]
                record += [line.hyperparameters, line.backbone, line.sampler or "none"]
                record += [line.own, line.seeds, line.failed]
                for name in names:
                    score = line.scores.get(name, NOTHING)
                    record += [score.mean, score.half, score.sd, score.n, score.missing]
                    record += score.bootstrap if name in many else ()
                records.append(record)
        columns = ["dataset", "rank", "label", "model", "hyperparameters", "backbone", "sampler"]
        columns += ["own", "seeds", "failed"]
        for name in names:
            columns += [name, *(f"{name}_{part}" for part in ("ci95", "sd", "n", "na"))]
            columns += [f"{name}_low", f"{name}_high"] if name in many else []
        return pd.DataFrame(records, columns=columns)

    @cached_property
    def ranking(self) -> Ranking:
        """The lines over all datasets."""
        return ranking(self.boards)

    def of(self, *datasets: str) -> "Leaderboard":
        """The boards of these datasets alone.

        Args:
            datasets: their labels, ``mnist(train=1000)``, or ``mnist`` for all of that name where
                none is called just that.

        Raises:
            InputError: there is no such dataset.
        """
        names = [board.dataset for board in self.boards]
        chosen: set[str] = set()
        for dataset in datasets:
            found = [name for name in names if name == dataset]
            found = found or [name for name in names if name.partition("(")[0] == dataset]
            if not found:
                raise InputError(
                    f"no dataset {dataset!r} in these results{suggestion(dataset, names)}"
                )
            chosen.update(found)
        return Leaderboard(tuple(board for board in self.boards if board.dataset in chosen))

    def headline(self) -> "Leaderboard":
        """The same lines and ranks with the ranked metrics and the costs alone."""
        return Leaderboard(tuple(headline(board) for board in self.boards))

    def only(self, *metrics: str) -> "Leaderboard":
        """The same lines with these metrics alone, best first and ranked by the first.

        Args:
            metrics: their full names, ``fid[classifier]``, or ``fid`` for all of that name where
                none is called just that, or a family.

        Raises:
            InputError: the store has no such metric.
        """
        names = [measure.name for measure in self.measures]
        families = {measure.name: measure.family for measure in self.measures}
        chosen: list[str] = []
        for metric in metrics:
            found = [name for name in names if metric == name]
            found = found or [name for name in names if metric == bare(name)]
            found = found or [name for name in names if families[name] == metric]
            if not found:
                valid = suggestion(metric, [*names, *dict.fromkeys(families.values())])
                raise InputError(f"no metric {metric!r} in these results{valid}")
            chosen += [name for name in found if name not in chosen]
        boards = []
        for board in self.boards:
            held = {measure.name: measure for measure in board.measures}
            kept = tuple(held[name] for name in chosen if name in held)
            if kept:
                boards.append(only(board, kept))
        return Leaderboard(tuple(boards))

    def draw(self, format: str, width: int = 100, bold: bool = False) -> str:
        """The tables of all boards as text, md, latex, html or svg; :attr:`lines` as csv.

        Args:
            format: which. LaTeX is a document; its tables need ``\\usepackage{booktabs}``.
            width: columns of the terminal (text, svg): wider tables are cut into blocks.
            bold: whether marks are ANSI escapes (text), or ``*`` the best and ``+`` the second.
        """
        if format == "csv":
            return self.lines.to_csv(index=False, lineterminator="\n")
        sheets = [tables.sheet(board) for board in self.boards]
        return draw(sheets, format, width=width, bold=bold)


def leaderboard(rows: "pd.DataFrame") -> Leaderboard:
    """The leaderboard over rows; the order of the rows does not matter.

    A model's metrics that concern no sampler stand on the line of each of its samplers. A sampler
    without a single value has no line, unless the model would have none.

    Args:
        rows: what ``Store.rows`` gives.
    """
    grouped: dict[str, list[Any]] = defaultdict(list)
    for record in rows.sort_values([*KEYS, "value", "note"], kind="stable").to_dict("records"):
        grouped[record["dataset"]].append(record)
    return Leaderboard(tuple(board_of(name, grouped[name]) for name in sorted(grouped)))


def board_of(dataset: str, records: list[Record]) -> Board:
    records = spread(records)
    scored = [r for r in records if r["family"] != "status"]
    failed = [r for r in records if r["family"] == "status"]
    sampled = {r["metric"] for r in scored if r["sampler"]}
    measures = in_order(
        {
            r["metric"]: Measure(
                r["metric"],
                r["family"],
                r["better"],
                r["unit"],
                r["ranked"],
                sampled=r["metric"] in sampled,
            )
            for r in scored
        }.values()
    )
    models: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        models[record["model"], record["hyperparameters"], record["backbone"]].append(record)
    labels = labels_of({(model, text) for model, text, _ in models})
    lines: list[Line] = []
    for (model, text, backbone), own in models.items():
        lines += lines_of(Line(labels[model, text], model, text, backbone, "", 0, 0, {}), own)
    scored_lines = [n for n, line in enumerate(lines) if any(s.n for s in line.scores.values())]
    competing, ranked_by = comparable(lines, scored_lines, measures)
    apart = sorted({lines[n].label for n in scored_lines if n not in competing})
    ranks = mean_ranks([lines[n] for n in competing], ranked_by)
    for n, rank in zip(competing, ranks):
        lines[n] = replace(lines[n], rank=rank)

    def absence(record: Record) -> Absence:
        label = labels[record["model"], record["hyperparameters"]]
        reason = record["note"] or "the value is not a finite number"
        return Absence(reason, record["metric"], label, record["sampler"])

    absences = {absence(r) for r in scored if not math.isfinite(r["value"])}
    absences |= set(never_scored(lines, measures))
    estimators: dict[str, set[str]] = defaultdict(set)
    for record in scored:
        if record["estimator"]:
            estimators[record["metric"]].add(record["estimator"])
    failures = {
        (
            f"{labels[r['model'], r['hyperparameters']]}, {r['backbone']}, seed {r['seed']}",
            r["note"],
        )
        for r in failed
    }
    return Board(
        dataset,
        tuple(sorted(lines, key=lambda line: line.order)),
        measures,
        tuple(m.name for m in ranked_by),
        tuple(sorted(absences)),
        {m.name: tuple(sorted(estimators[m.name])) for m in measures if estimators[m.name]},
        tuple(sorted(failures)),
        tuple(mixed(scored, labels) + unranked(apart)),
    )


def spread(records: list[Record]) -> list[Record]:
    """What a model lacks under any qualifier, as a row of each that others were scored under."""
    scored = {record["metric"] for record in records if math.isfinite(record["value"])}
    qualified: dict[str, set[str]] = defaultdict(set)
    for metric in scored:
        if bare(metric) not in scored:
            qualified[bare(metric)].add(metric)
    return [
        {**record, "metric": metric}
        for record in records
        for metric in sorted(qualified.get(record["metric"], {record["metric"]}))
    ]


def lines_of(blank: Line, records: list[Record]) -> list[Line]:
    """The lines of one model on one backbone, one a sampler, from its rows."""
    scored = [r for r in records if r["family"] != "status"]
    seeds = {r["seed"] for r in scored}
    failed = {r["cell"] for r in records if r["family"] == "status"}
    alive = sorted({r["sampler"] for r in scored if r["sampler"] and math.isfinite(r["value"])})
    papers = {r["sampler"] for r in scored if r.get("own", False)}
    lines = []
    for sampler in alive or [""]:
        values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for record in scored:
            if not alive or record["sampler"] in ("", sampler):
                held = values[record["metric"]][record["seed"]]
                if math.isfinite(record["value"]):
                    held.append(record["value"])
        scores = {metric: score(by_seed) for metric, by_seed in values.items()}
        line = replace(blank, sampler=sampler, own=sampler in papers, scores=scores)
        lines.append(replace(line, seeds=len(seeds), failed=len(failed)))
    return lines


def score(values: Mapping[int, list[float]]) -> Score:
    """The score of the finite values of every seed; several values of one seed are averaged."""
    means = {seed: fmean(held) for seed, held in sorted(values.items()) if held}
    mean, half = statistics.interval(list(means.values()))
    return Score(mean, half, len(means), len(values) - len(means), means)


def mean_ranks(lines: list[Line], measures: Iterable[Measure]) -> list[float]:
    r"""The mean rank of every line.

    .. math:: \frac{1}{|F|} \sum_{f \in F} \frac{1}{|f|} \sum_{m \in f} r_m

    with F the families of ``measures`` and r_m the line's rank by the mean of metric m: 1 is best,
    ties share the average of their ranks. NaN where there are no metrics.
    """
    families: dict[str, list[Any]] = defaultdict(list)
    for measure in measures:
        means = [line.mean(measure.name) for line in lines]
        families[measure.family].append(statistics.ranks(means, measure.better or "higher"))
    if not families:
        return [math.nan] * len(lines)
    of_family = [sum(ranks) / len(ranks) for ranks in families.values()]
    return (sum(of_family) / len(of_family)).tolist()


def headline(board: Board) -> Board:
    kept = tuple(m for m in board.measures if m.ranked or m.family == "cost")
    others = {
        bare(m.name): None
        for m in board.measures
        if m not in kept and any(valued(line, m.name) for line in board.lines)
    }
    if not others or all(m.family == "cost" for m in kept):
        return board
    remark = f"reported beside these, by name or in the CSV: {', '.join(others)}"
    return replace(narrowed(board, kept), remarks=(*board.remarks, remark))


def narrowed(board: Board, kept: tuple[Measure, ...]) -> Board:
    """``board`` with the metrics ``kept``, its lines and their ranks as they are."""
    names = {measure.name for measure in kept}
    return replace(
        board,
        lines=tuple(
            replace(line, scores={k: s for k, s in line.scores.items() if k in names})
            for line in board.lines
        ),
        measures=kept,
        absences=tuple(a for a in board.absences if a.metric in names),
        estimators={k: v for k, v in board.estimators.items() if k in names},
    )


def only(board: Board, kept: tuple[Measure, ...]) -> Board:
    """``board`` with the metrics ``kept``, sorted and ranked by the first.

    Where none of them scores a sampler, the samplers of a model share a line.
    """
    first, board = kept[0], narrowed(board, kept)
    sign, lines = -1 if first.better == "higher" else 1, board.lines
    if not any(measure.sampled for measure in kept):
        models = {(line.label, line.hyperparameters, line.backbone): line for line in lines}
        lines = tuple(replace(line, sampler="", own=False) for line in models.values())
    having = [line for line in lines if valued(line, first.name)]
    ranks = mean_ranks(having, [first] if first.better else [])
    found = [replace(line, rank=rank) for line, rank in zip(having, ranks)]
    found.sort(key=lambda line: (sign * line.mean(first.name), line.order))
    lacking = [replace(line, rank=math.nan) for line in lines if not valued(line, first.name)]
    return replace(
        board,
        lines=(*found, *sorted(lacking, key=lambda line: line.order)),
        ranked_by=(first.name,) if first.better else (),
    )


def ranking(boards: Iterable[Board]) -> Ranking:
    """The ranking over boards: by the metrics that each is ranked by."""
    held: dict[tuple[str, str, str, int], dict[str, Line]] = defaultdict(dict)
    measures: dict[str, list[Measure]] = {}
    for board in boards:
        measures[board.dataset] = [m for m in board.measures if m.name in board.ranked_by]
        seen: Counter[tuple[str, str, str]] = Counter()
        for line in board.lines:
            if not math.isnan(line.rank):
                name = (line.label, line.backbone, line.sampler)
                held[*name, seen[name]][board.dataset] = line
                seen[name] += 1
    datasets = shared(frozenset(lines) for lines in held.values())
    names = sorted(name for name, lines in held.items() if datasets <= lines.keys())
    chosen = {m.name: m for dataset in sorted(datasets) for m in measures[dataset]}
    better = next(iter(chosen.values())).better if len(chosen) == 1 else ""
    of_dataset = []
    for dataset in sorted(datasets):
        means = mean_ranks([held[name][dataset] for name in names], measures[dataset])
        equal = [round(mean, 9) for mean in means]  # sums of equal parts
        of_dataset.append(statistics.ranks(equal, "lower").tolist())
    half = statistics.rank_interval(of_dataset) if datasets else math.nan
    places = []
    for name, *ranks in zip(names, *of_dataset):
        lines = [held[name][dataset] for dataset in sorted(datasets)]
        scores = [line.scores[metric] for line in lines for metric in chosen] if better else []
        own = any(line.own for line in lines)
        label, backbone, sampler, _ = name
        mean = fmean(ranks)
        places.append(Place(label, backbone, sampler, own, tuple(ranks), mean, half, tuple(scores)))
    places.sort(key=lambda place: place.mean)
    left_out = [
        (
            " ".join(filter(None, name[:3])),
            f"no rank in {', '.join(sorted(datasets - held[name].keys()))}",
        )
        for name in sorted(held)
        if name not in names
    ]
    left_out += [
        (
            dataset,
            f"{sum(dataset in held[name] for name in names)} of {len(names)} lines have a rank",
        )
        for dataset in sorted(measures.keys() - datasets)
    ]
    found = Ranking(
        tuple(m.name for m in in_order(chosen.values())),
        better,
        tuple(sorted(datasets)),
        tuple(places),
        tuple(left_out),
    )
    if len(datasets) < 2 or len(places) < 2:
        return found
    critical = statistics.critical_difference(len(places), len(datasets))
    return replace(
        found,
        friedman=statistics.friedman(of_dataset) if len(places) > 2 else None,
        critical_difference=critical,
        cliques=statistics.cliques([place.mean for place in places], critical),
    )


def shared(has: Iterable[frozenset[str]]) -> frozenset[str]:
    """The datasets of those that lines have that give the most values: datasets times lines."""
    counts = Counter(has)

    def values(datasets: frozenset[str]) -> tuple[int, int, list[str]]:
        lines = sum(n for held, n in counts.items() if datasets <= held)
        return (lines * len(datasets), len(datasets), sorted(datasets))

    return max(counts, key=values, default=frozenset())


def valued(line: Line, metric: str) -> bool:
    """Whether the line has a value of ``metric``."""
    return not math.isnan(line.mean(metric))


def comparable(
    lines: list[Line], competing: list[int], measures: Iterable[Measure]
) -> tuple[list[int], list[Measure]]:
    """Which of the lines at ``competing`` are ranked, and by what: metrics that all of them have.

    Where none is left, the line that shares the fewest with the others is left out, until one is:
    a model of another kind, such as one that is shown a part of the image, unranks no other.
    """
    ranked = [measure for measure in measures if measure.ranked]
    has = {n: {m.name for m in ranked if valued(lines[n], m.name)} for n in competing}
    while len(has) > 1 and not set.intersection(*has.values()):
        shared = {n: sum(len(has[n] & has[k]) for k in has if k != n) for n in has}
        if not max(shared.values()):  # no two of them compare
            return list(competing), []
        del has[min(has, key=lambda n: (shared[n], *lines[n].order))]
    common = set.intersection(*has.values()) if has else set()
    return list(has), [measure for measure in ranked if measure.name in common]


def unranked(labels: list[str]) -> list[str]:
    """A remark on models that share too little with the others to be ranked among them."""
    if not labels:
        return []
    return [f"not ranked, as the others have other metrics: {', '.join(labels)}"]


def never_scored(lines: list[Line], measures: Iterable[Measure]) -> Iterable[Absence]:
    """The metrics that lines have no rows of, such as a likelihood of another qualifier."""
    for line in lines:
        for measure in measures if line.scores else ():
            if measure.name not in line.scores:
                name = bare(measure.name)
                other = sorted(metric for metric in line.scores if bare(metric) == name)
                reason = f"scored as {', '.join(other)}" if other else "not scored"
                yield Absence(reason, measure.name, line.label, "")


def mixed(records: list[Record], labels: Mapping[tuple[str, str], str]) -> list[str]:
    """A warning for every model that has several cells of one seed."""
    cells: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for r in records:
        label = labels[r["model"], r["hyperparameters"]]
        cells[label, r["backbone"], r["seed"]].add(r["cell"])
    several = {(label, backbone) for (label, backbone, _), held in cells.items() if len(held) > 1}
    if not several:
        return []
    found = [f"{label} on {backbone}" for label, backbone in sorted(several)]
    return [
        "these results mix cells that differ in other settings, such as the training budget; "
        f"a seed's value is the average of its cells: {', '.join(found)}"
    ]


def labels_of(models: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The label of every (model, hyper-parameters as JSON): its name and what varies."""
    given: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for model, text in models:
        given[model][text] = json.loads(text or "{}")
    labels = {}
    for model, variants in given.items():
        keys = sorted({key for values in variants.values() for key in values})
        varying = [key for key in keys if len({plain(v.get(key)) for v in variants.values()}) > 1]
        for text, values in variants.items():
            shown = ",".join(f"{key}={plain(values[key])}" for key in varying if key in values)
            labels[model, text] = f"{model}({shown})" if shown else model
    return labels


def plain(value: Any) -> str:
    """A hyper-parameter as text: 4.0 as 4, text without its quotes."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def bare(metric: str) -> str:
    """A metric's name without its qualifier: ``fid[classifier]`` → ``fid``."""
    return metric.partition("[")[0]


def in_order(measures: Iterable[Measure]) -> tuple[Measure, ...]:
    """Measures by family, in the order of ``FAMILIES``, then by name; cost last."""

    def key(measure: Measure) -> tuple[bool, int, str, str]:
        return (measure.family == "cost", *place(measure.family), measure.name)

    return tuple(sorted(measures, key=key))
