"""A model against its baselines: on what it is better, by how much, how certainly, at what cost."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..plugins import InputError, suggestion
from . import statistics
from .leaderboard import NOTHING, Leaderboard, Line, Measure, Score, in_order, leaderboard, plain
from .report.sheets import Sheet, clean, counted, crop

if TYPE_CHECKING:
    import pandas as pd

    from .leaderboard import Board

Outcome = Literal["better", "worse", "undecided", "one seed", "n/a"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

ALPHA = 0.05
LEAST_DATASETS = 6
"""With fewer, no result of the signed-rank test is significant: the least p is 2 / 2⁵ = 0.06."""
COSTS = {
    "train_seconds": "training time",
    "evaluate_seconds": "evaluation time",
    "parameters": "parameters",
    "peak_memory": "peak memory",
}
LOGARITHMIC = ("dB", "nats")
"""Units in which a ratio says nothing."""


# Who is compared.


@dataclass(frozen=True)
class Contender:
    """A model with its hyper-parameters on a backbone.

    Attributes:
        name: what tells it apart from the others, ``beta_vae(beta=4)``.
        lines: its lines by dataset and sampler.
    """

    name: str
    lines: Mapping[str, Mapping[str, Line]]

    def score(self, dataset: str, measure: Measure, other: "Contender") -> tuple[Score, str]:
        """Its score against ``other``, and the sampler, empty where none is scored."""
        if dataset not in self.lines:
            return NOTHING, ""
        line = self.line(dataset, other)
        return line.scores.get(measure.name, NOTHING), line.sampler if measure.sampled else ""

    def line(self, dataset: str, other: "Contender") -> Line:
        """The line of its paper's sampler, else of one that the other has too, else the first.

        Never the best one: that would be a choice by the test split.
        """
        lines, others = self.lines[dataset], other.lines.get(dataset, {})
        papers = [line.sampler for line in (*lines.values(), *others.values()) if line.own]
        for sampler in [*papers, *sorted(others), *sorted(lines)]:
            if sampler in lines:
                return lines[sampler]
        raise AssertionError("a contender has a line on each of its datasets")


@dataclass(frozen=True)
class Pair:
    """The model and one baseline by one metric on one dataset.

    Attributes:
        dataset: the dataset.
        measure: the metric.
        baseline: the baseline's name.
        new: the model's score.
        old: the baseline's score.
        samplers: of the model and of the baseline; empty where the metric scores none.
        difference: the model's mean less the baseline's, with its interval and Welch's p.
        p_holm: p corrected for the number of baselines, by this metric on this dataset.
        win_rate: the probability that a seed of the model beats one of the baseline.
        relative: the difference over the baseline's mean; NaN where a ratio says nothing.
        seeds_needed: the seeds a model that would show an undecided difference of this size.
        outcome: what is shown: ``undecided`` means that no difference is.
        best: whether the baseline has the best mean of all.
    """

    dataset: str
    measure: Measure
    baseline: str
    new: Score
    old: Score
    samplers: tuple[str, str]
    difference: statistics.Difference
    p_holm: float
    win_rate: float
    relative: float
    seeds_needed: float
    outcome: Outcome
    best: bool

    @property
    def ahead(self) -> bool:
        """Whether the model's mean is the better one."""
        higher = self.measure.better == "higher"
        return self.difference.mean > 0 if higher else self.difference.mean < 0


@dataclass(frozen=True)
class Overall:
    """The model and one baseline by one metric over the ``LEAST_DATASETS`` or more that both have.

    Attributes:
        measure: the metric.
        baseline: the baseline's name.
        differences: of the means, a dataset each.
        p: of Wilcoxon's signed-rank test.
        p_holm: p corrected for the number of baselines, by this metric.
        outcome: what is shown.
    """

    measure: Measure
    baseline: str
    differences: tuple[float, ...]
    p: float
    p_holm: float
    outcome: Outcome

    @property
    def win_rate(self) -> float:
        """The share of datasets on which the model's mean is better, ties as half."""
        sign = 1 if self.measure.better == "higher" else -1
        return fmean([(sign * d > 0) + (d == 0) / 2 for d in self.differences])


@dataclass(frozen=True)
class Cost:
    """What the model costs, over what a baseline does, on one dataset."""

    dataset: str
    measure: Measure
    baseline: str
    new: Score
    old: Score

    @property
    def ratio(self) -> float:
        """NaN where the baseline costs nothing, or either is not known."""
        known = self.new.mean > 0 and self.old.mean > 0
        return self.new.mean / self.old.mean if known else math.nan


@dataclass(frozen=True)
class Comparison:
    """A model against baselines.

    Attributes:
        model: its name.
        baselines: their names.
        datasets: those on which it is compared.
        pairs: every baseline by every metric on every dataset.
        overall: every baseline by every metric over the datasets, where they are enough.
        costs: every baseline by every cost on every dataset.
        failed: the number of the model's cells that failed there.
        notes: what a reader must know beside, a sentence each.
        device: where costs were measured; empty where it is not known.
        devices_differ: whether the model and a baseline ran on different devices.
    """

    model: str
    baselines: tuple[str, ...]
    datasets: tuple[str, ...]
    pairs: tuple[Pair, ...]
    overall: tuple[Overall, ...]
    costs: tuple[Cost, ...]
    failed: int = 0
    notes: tuple[str, ...] = ()
    device: str = ""
    devices_differ: bool = False

    @property
    def against_best(self) -> tuple[Pair, ...]:
        """The pairs with the baseline that has the best mean, by every metric on every dataset."""
        return tuple(pair for pair in self.pairs if pair.best)

    @property
    def frame(self) -> "pd.DataFrame":
        """Every number, nothing rounded, a row a comparison.

        A difference is the model's mean less the baseline's; ``low`` and ``high`` are the ends of
        its 95 % interval. ``test`` is ``welch`` over seeds within a dataset, or ``wilcoxon`` over
        datasets: there ``dataset`` is empty, ``difference`` the median of the datasets', and
        ``datasets`` their number. Rows of the family ``cost`` have a ``ratio`` and no test.
        """
        import pandas as pd

        records: list[dict[str, Any]] = []
        for pair in self.pairs:
            records.append(
                {
                    **about(pair),
                    "sampler": pair.samplers[0],
                    "baseline_sampler": pair.samplers[1],
                    **scores(pair),
                    "difference": pair.difference.mean,
                    "low": pair.difference.low,
                    "high": pair.difference.high,
                    "relative": pair.relative,
                    "win_rate": pair.win_rate,
                    "test": "" if math.isnan(pair.difference.p) else "welch",
                    "p": pair.difference.p,
                    "p_holm": pair.p_holm,
                    "seeds_needed": pair.seeds_needed,
                    "outcome": pair.outcome,
                    "best": pair.best,
                }
            )
        for over in self.overall:
            records.append(
                {
                    **about(over),
                    "datasets": len(over.differences),
                    "difference": median(over.differences),
                    "win_rate": over.win_rate,
                    "test": "wilcoxon",
                    "p": over.p,
                    "p_holm": over.p_holm,
                    "outcome": over.outcome,
                }
            )
        for cost in self.costs:
            records.append({**about(cost), **scores(cost), "ratio": cost.ratio})
        frame = pd.DataFrame(records, columns=FRAME)
        whole = ["seeds", "baseline_seeds", "datasets"]
        words = ["sampler", "baseline_sampler", "test", "outcome"]
        return frame.astype(dict.fromkeys(whole, "Int64")).fillna(dict.fromkeys(words, ""))

    @property
    def verdict(self) -> str:
        """A few sentences, a line each."""
        from .report import verdict

        return "\n".join(verdict.sentences(self))

    def sheets(self) -> tuple[Sheet, ...]:
        """The verdict and its tables."""
        from .report import verdict

        return verdict.sheets(self)

    def draw(self, format: str, width: int = 100, bold: bool = False) -> str:
        """The verdict and its tables as text, md, latex, html or svg; every number as csv.

        Args:
            format: which.
            width: columns of the terminal.
            bold: whether marks are ANSI escapes.
        """
        from .report import verdict

        if format == "csv":
            return self.frame.to_csv(index=False, lineterminator="\n")
        return verdict.drawn(self, format, width, bold)


FRAME = [
    *("dataset", "family", "metric", "better", "unit", "baseline", "sampler", "baseline_sampler"),
    *("seeds", "baseline_seeds", "datasets", "mean", "baseline_mean", "sd", "baseline_sd"),
    *("difference", "low", "high", "relative", "ratio", "win_rate", "test", "p", "p_holm"),
    *("seeds_needed", "outcome", "best"),
]


def about(row: Pair | Overall | Cost) -> dict[str, Any]:
    measure = row.measure
    return {
        "dataset": "" if isinstance(row, Overall) else row.dataset,
        "family": measure.family,
        "metric": measure.name,
        "better": measure.better,
        "unit": measure.unit,
        "baseline": row.baseline,
    }


def scores(row: Pair | Cost) -> dict[str, Any]:
    return {
        "seeds": row.new.n,
        "baseline_seeds": row.old.n,
        "mean": row.new.mean,
        "baseline_mean": row.old.mean,
        "sd": row.new.sd,
        "baseline_sd": row.old.sd,
    }


# Comparing.


def compare(
    results: "pd.DataFrame | Leaderboard",
    model: str,
    baselines: Sequence[str] | None = None,
    *,
    metrics: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    devices: Mapping[str, str] | None = None,
) -> Comparison:
    r"""``model`` against ``baselines``, by Welch's test over seeds and Wilcoxon's over datasets.

    Within a dataset the seeds of two models are independent samples; p-values are corrected by
    Holm's method over the baselines, by each metric on each dataset.

    A model is named by its name or its label, ``beta_vae(beta=4)``, where it needs be followed by
    its backbone, its sampler or both: ``vae/mlp/gmm``. Metrics that score a sampler compare each
    model with its paper's sampler; where that is not known, with one that both have.

    Args:
        results: rows as ``Store.rows`` gives them, or their leaderboard.
        model: the name of the model.
        baselines: names of what it is compared with; all other models where it is None.
        metrics: as of :meth:`Leaderboard.only`; the ranked ones where it is None.
        datasets: as of :meth:`Leaderboard.of`; all where it is None.
        devices: the device of each cell, by the cell's name.

    Raises:
        InputError: an unknown or ambiguous name, no baseline, the model as its own baseline, or a
            metric that has no direction.
    """
    found = results if isinstance(results, Leaderboard) else leaderboard(results)
    if datasets is not None:
        found = found.of(*datasets)
    measures = chosen_measures(found, metrics)
    everyone = contenders(found)
    new = chosen_model(everyone, model)
    old = chosen_baselines(everyone, new, baselines)
    boards = [board for board in found.boards if board.dataset in new.lines]
    pairs = [
        pair
        for board in boards
        for measure in board.measures
        if measure.name in measures
        for pair in compared(board, measure, new, old)
    ]
    if not pairs:
        raise InputError(f"{model!r} shares no dataset and metric with a baseline")
    by_metric: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_metric[pair.measure.name].append(pair)
    in_turn = [m.name for m in in_order(measures.values()) if m.name in by_metric]
    costs = [
        Cost(board.dataset, measure, base.name, new.score(board.dataset, measure, base)[0], score)
        for board in boards
        for measure in board.measures
        if measure.name in COSTS
        for base in old
        for score in [base.score(board.dataset, measure, new)[0]]
        if score.n
    ]
    where = {} if isinstance(results, Leaderboard) else devices_of(results, devices or {})
    here, there = ran_on(where, new), {d for base in old for d in ran_on(where, base)}
    return Comparison(
        new.name,
        tuple(base.name for base in old),
        tuple(board.dataset for board in boards),
        tuple(pairs),
        tuple(over for name in in_turn for over in over_datasets(by_metric[name])),
        tuple(sorted(costs, key=lambda c: list(COSTS).index(c.measure.name))),
        len(list(failed(new, boards))),
        tuple(remarks(found, new, old, pairs)),
        ", ".join(sorted(here | there)),
        bool(there) and here != there,
    )


def chosen_measures(found: Leaderboard, metrics: Sequence[str] | None) -> dict[str, Measure]:
    """The metrics that are compared, by name.

    Raises:
        InputError: an unknown metric, or none of them has a direction.
    """
    if metrics is None:
        held = [m for m in found.measures if m.ranked] or list(found.measures)
    else:
        held = [m for board in found.only(*metrics).boards for m in board.measures]
    chosen = {m.name: m for m in held if m.better and m.family != "cost"}
    if not chosen:
        valid = sorted(m.name for m in found.measures if m.better and m.family != "cost")
        asked = ", ".join(map(repr, metrics or ["these results"]))
        raise InputError(f"nothing in {asked} is better or worse; valid: {', '.join(valid)}")
    return chosen


def contenders(found: Leaderboard) -> list[Contender]:
    """All models, each on its backbones; one on several in a dataset is as many contenders."""
    lines: dict[tuple[str, str], dict[str, dict[str, Line]]] = defaultdict(dict)
    backbones: dict[tuple[str, str], set[str]] = defaultdict(set)
    for board in found.boards:
        for line in sorted(board.lines, key=lambda line: line.order[2:]):
            backbones[line.label, board.dataset].add(line.backbone)
            by_sampler = lines[line.label, line.backbone].setdefault(board.dataset, {})
            by_sampler.setdefault(line.sampler, line)
    several = {label for (label, _), names in backbones.items() if len(names) > 1}
    named: dict[str, dict[str, dict[str, Line]]] = defaultdict(dict)
    for (label, backbone), by_dataset in sorted(lines.items()):
        named[f"{label}/{backbone}" if label in several else label] |= by_dataset
    return [Contender(name, by_dataset) for name, by_dataset in named.items()]


def called(contender: Contender, name: str) -> Contender | None:
    """What of ``contender`` answers to ``name``, called so; None where nothing does."""
    kept: dict[str, dict[str, Line]] = {}
    whole = False
    for dataset, lines in contender.lines.items():
        for sampler, line in lines.items():
            stems = {line.label, line.model}
            backbones = {line.backbone, line.backbone.partition("(")[0]}
            stems |= {f"{stem}/{backbone}" for stem in stems for backbone in backbones}
            if name in stems or name in {f"{stem}/{sampler}" for stem in stems}:
                kept.setdefault(dataset, {})[sampler] = line
                whole = whole or name in stems
    if not kept:
        return None
    return Contender(contender.name if whole else name, kept)


def named(everyone: Sequence[Contender], name: str) -> list[Contender]:
    """Those called ``name``: by their label where that is one, else by their model's name.

    Raises:
        InputError: nobody is.
    """
    exact = [contender for contender in everyone if contender.name == name]
    found = exact or [c for c in (called(contender, name) for contender in everyone) if c]
    if not found:
        valid = suggestion(name, [contender.name for contender in everyone])
        raise InputError(f"no model {name!r} in these results{valid}")
    return found


def chosen_model(everyone: Sequence[Contender], name: str) -> Contender:
    """The one model called ``name``.

    Raises:
        InputError: nobody is called so, or several are.
    """
    found = named(everyone, name)
    if len(found) > 1:
        names = ", ".join(sorted(contender.name for contender in found))
        raise InputError(f"{name!r} is several models; name one of them: {names}")
    return found[0]


def chosen_baselines(
    everyone: Sequence[Contender], new: Contender, names: Sequence[str] | None
) -> list[Contender]:
    """The baselines, by name; all other models where there are no names.

    Raises:
        InputError: an unknown name, none, or the new model itself.
    """
    labels = {line.label for line in lines_of(new)}
    if names is None:
        others = [c for c in everyone if not labels & {line.label for line in lines_of(c)}]
        if not others:
            raise InputError(f"these results have no model beside {new.name!r} to compare it with")
        return like_for_like(others, new)
    if not names:
        raise InputError("name one baseline or more")
    mine = {(line.label, line.backbone) for line in lines_of(new)}
    found: dict[str, Contender] = {}
    for name in names:
        matching = like_for_like(named(everyone, name), new)
        if any((line.label, line.backbone) in mine for c in matching for line in lines_of(c)):
            raise InputError(f"{name!r} is the model itself; name another one as its baseline")
        found |= {contender.name: contender for contender in matching}
    return [found[name] for name in sorted(found)]


def like_for_like(contenders: Sequence[Contender], new: Contender) -> list[Contender]:
    """Of a model on several backbones that on the new model's, if it is among them."""
    backbones = {line.backbone for line in lines_of(new)}
    groups: dict[str, list[Contender]] = defaultdict(list)
    for contender in contenders:
        groups[lines_of(contender)[0].label].append(contender)
    chosen: list[Contender] = []
    for group in groups.values():
        alike = [c for c in group if {line.backbone for line in lines_of(c)} <= backbones]
        chosen += alike or group
    return sorted(chosen, key=lambda contender: contender.name)


def lines_of(contender: Contender) -> list[Line]:
    return [line for held in contender.lines.values() for line in held.values()]


def compared(
    board: "Board", measure: Measure, new: Contender, old: Sequence[Contender]
) -> list[Pair]:
    """The model against every baseline by one metric on one dataset."""
    rows = []
    for base in old:
        if board.dataset in base.lines:
            mine, sampler = new.score(board.dataset, measure, base)
            theirs, other = base.score(board.dataset, measure, new)
            if mine.n or theirs.n:
                rows.append((base.name, mine, theirs, (sampler, other)))
    differences = [tested(mine, theirs) for _, mine, theirs, _ in rows]
    corrected = statistics.holm([difference.p for difference in differences])
    tests = sum(not math.isnan(difference.p) for difference in differences)
    better: statistics.Better = "higher" if measure.better == "higher" else "lower"
    sign = 1 if better == "higher" else -1
    held = [theirs.mean * sign for _, _, theirs, _ in rows if theirs.n]
    best = next((r[0] for r in rows if r[2].n and r[2].mean * sign == max(held)), None)
    as_ratio = proportional(board, measure)
    pairs = []
    for (name, mine, theirs, samplers), difference, p_holm in zip(rows, differences, corrected):
        outcome = outcome_of(mine, theirs, difference.mean * sign, float(p_holm))
        undecided = outcome == "undecided"
        pairs.append(
            Pair(
                board.dataset,
                measure,
                name,
                mine,
                theirs,
                samplers,
                difference,
                float(p_holm),
                statistics.win_rate(values(mine), values(theirs), better),
                difference.mean / theirs.mean if as_ratio and theirs.mean else math.nan,
                needed(difference.mean, mine, theirs, tests) if undecided else math.nan,
                outcome,
                name == best,
            )
        )
    return pairs


def values(score: Score) -> list[float]:
    return list(score.values.values())


def tested(a: Score, b: Score) -> statistics.Difference:
    """Welch's test; means that differ by rounding alone are the same."""
    found = statistics.welch(values(a), values(b))
    return found if math.isnan(found.p) or not same(a, b) else replace(found, p=1.0)


def same(a: Score, b: Score) -> bool:
    return math.isclose(a.mean, b.mean, rel_tol=1e-9)


def needed(difference: float, a: Score, b: Score, tests: int) -> float:
    """The seeds a model that show this difference with power 80 % among so many tests."""
    if same(a, b):
        return math.inf
    return statistics.seeds_needed(difference, a.sd, b.sd, alpha=ALPHA / tests)


def outcome_of(mine: Score, theirs: Score, gain: float, p: float) -> Outcome:
    if not (mine.n and theirs.n):
        return "n/a"
    if math.isnan(p):
        return "one seed"
    if p > ALPHA:
        return "undecided"
    return "better" if gain > 0 else "worse"


def proportional(board: "Board", measure: Measure) -> bool:
    """Whether a ratio of two values says something: they start at zero, and are no logarithm."""
    if measure.unit in LOGARITHMIC:
        return False
    found = [line.scores[measure.name] for line in board.lines if measure.name in line.scores]
    return all(value >= 0 for score in found for value in score.values.values())


def over_datasets(pairs: Sequence[Pair]) -> list[Overall]:
    """The model against every baseline by one metric, over the datasets if they are enough."""
    differences: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        if pair.new.n and pair.old.n:
            differences[pair.baseline].append(pair.difference.mean)
    enough = {name: held for name, held in differences.items() if len(held) >= LEAST_DATASETS}
    p = [statistics.wilcoxon(held) if any(held) else 1.0 for held in enough.values()]
    sign = 1 if pairs[0].measure.better == "higher" else -1
    overall = []
    for (name, held), alone, corrected in zip(enough.items(), p, statistics.holm(p)):
        outcome: Outcome = "undecided"
        if corrected <= ALPHA:
            outcome = "better" if median(held) * sign > 0 else "worse"
        overall.append(
            Overall(pairs[0].measure, name, tuple(held), alone, float(corrected), outcome)
        )
    return overall


def devices_of(rows: "pd.DataFrame", devices: Mapping[str, str]) -> dict[tuple[str, ...], set[str]]:
    """The devices of every dataset, model, hyper-parameters and backbone."""
    keys = ["dataset", "model", "hyperparameters", "backbone", "cell"]
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for *identity, cell in rows[keys].drop_duplicates().itertuples(index=False):
        if cell in devices:
            found[tuple(identity)].add(devices[cell])
    return found


def ran_on(where: Mapping[tuple[str, ...], set[str]], contender: Contender) -> set[str]:
    return {
        device
        for dataset, held in contender.lines.items()
        for line in held.values()
        for device in where.get(
            (dataset, line.model, line.hyperparameters, line.backbone), set[str]()
        )
    }


# What a reader must know beside the numbers.


def remarks(
    found: Leaderboard, new: Contender, old: Sequence[Contender], pairs: Sequence[Pair]
) -> list[str]:
    """What a reader must know beside the numbers, a sentence each."""
    notes = []
    absent = [board.dataset for board in found.boards if board.dataset not in new.lines]
    if absent:
        notes.append(f"{new.name} has no results on {', '.join(absent)}")
    boards = [board for board in found.boards if board.dataset in new.lines]
    for board in boards:
        lacking = [base.name for base in old if board.dataset not in base.lines]
        if lacking:
            notes.append(f"without results on {board.dataset}: {some(lacking)}")
    for contender in (new, *old):
        failures = list(failed(contender, boards))
        if failures:
            cells = counted(len(failures), "cell")
            notes.append(f"{cells} of {contender.name} failed: {some(failures, 3)}")
    notes += lacking_values(new, boards, [pair for pair in pairs if not pair.new.n])
    if len(old) == 1:
        notes += lacking_values(old[0], boards, [pair for pair in pairs if not pair.old.n])
    notes += by_samplers(new, pairs)
    notes += unlike(new, old, boards)
    return notes


def failed(contender: Contender, boards: Iterable["Board"]) -> Iterable[str]:
    """Its cells that failed, each with its error."""
    for board in boards:
        lines = contender.lines.get(board.dataset, {}).values()
        starts = {f"{line.label}, {line.backbone}, seed " for line in lines}
        for cell, error in board.failures:
            if cell.startswith(tuple(starts)):
                yield f"{cell} on {board.dataset} ({crop(clean(error), 200)})"


def lacking_values(
    contender: Contender, boards: Iterable["Board"], missing: Sequence[Pair]
) -> Iterable[str]:
    """What a contender has no value of where another has one, and why."""
    reasons: dict[str, dict[str, None]] = defaultdict(dict)
    for board in boards:
        labels = {line.label for line in contender.lines.get(board.dataset, {}).values()}
        why = {a.metric: a.reason for a in board.absences if a.label in labels}
        for metric in [pair.measure.name for pair in missing if pair.dataset == board.dataset]:
            reason = why.get(metric, "its cells failed")
            if reason.startswith("scored as "):  # a likelihood of another observation model, say
                reason = "scored under another qualifier"
            reasons[reason][metric] = None
    for reason, metrics in reasons.items():
        yield f"{contender.name} has no value of {some(list(metrics))}: {reason}"


def by_samplers(new: Contender, pairs: Sequence[Pair]) -> Iterable[str]:
    """Which samplers stand behind the metrics that score one."""
    scored = [pair for pair in pairs if pair.new.n and pair.old.n and pair.measure.sampled]
    if not scored:
        return
    theirs: dict[str, set[str]] = defaultdict(set)
    for pair in scored:
        if pair.samplers[1]:
            theirs[pair.samplers[1]].add(pair.baseline)
    mine = ", ".join(sorted({pair.samplers[0] for pair in scored}))
    others = "; ".join(
        f"{some(sorted(names))} with {name}" for name, names in sorted(theirs.items())
    )
    papers = any(line.own for line in lines_of(new))
    rule = "that of its paper" if papers else "one that both have"
    metrics = ", ".join(dict.fromkeys(pair.measure.name for pair in scored))
    yield (
        f"each model draws with one sampler, {rule}, never with the best of several on the test "
        f"split ({metrics}): {new.name} with {mine}; {others}"
    )


def unlike(new: Contender, old: Sequence[Contender], boards: Iterable["Board"]) -> Iterable[str]:
    """Baselines on other networks, or with another training budget."""
    networks: dict[str, set[str]] = defaultdict(set)
    budgets: dict[str, set[str]] = defaultdict(set)
    for board in boards:
        (mine, *_) = new.lines[board.dataset].values()
        for base in old:
            for line in base.lines.get(board.dataset, {}).values():
                if "none" not in (mine.backbone, line.backbone) and line.backbone != mine.backbone:
                    networks[f"{line.backbone}, not {mine.backbone}"].add(base.name)
                for change in budget_changes(mine, line):
                    budgets[change].add(base.name)
    for change, names in sorted(networks.items()):
        yield f"on other networks ({change}): {some(sorted(names))}"
    for change, names in sorted(budgets.items()):
        yield f"trained otherwise ({change}): {some(sorted(names))}"


def budget_changes(mine: Line, theirs: Line) -> Iterable[str]:
    """Settings of the training that both lines have, with other values."""
    ours, others = (json.loads(line.hyperparameters or "{}") for line in (mine, theirs))
    for key in sorted(ours.keys() & others.keys()):
        if key.startswith("training.") and ours[key] != others[key]:
            setting = key.removeprefix("training.")
            yield f"{setting} {plain(others[key])}, not {plain(ours[key])}"


def some(names: Sequence[str], most: int = 5) -> str:
    """Names in a row; of many the first and how many more."""
    if len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
