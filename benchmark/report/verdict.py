"""A comparison in words and tables."""

import math
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import geometric_mean, median
from typing import TYPE_CHECKING

from ..compare import ALPHA, COSTS, LEAST_DATASETS, OUTCOMES, Outcome, some
from ..families import place
from .rankings import probability
from .sheets import ARROWS, Cell, Column, Sheet, clean, counted, crop, draw

if TYPE_CHECKING:
    from ..compare import Comparison, Pair

MANY_SEEDS = 1000
"""Of more seeds than these a table says only that they are more."""


def drawn(found: "Comparison", format: str, width: int, bold: bool) -> str:
    """The verdict and its tables; in a terminal the words come first."""
    if format != "text":
        return draw(sheets(found), format, heading=title(found), width=width, bold=bold)
    first, *others = sheets(found)
    words = "\n".join(wrapped(sentence, width) for sentence in first.notes)
    tables = draw([replace(first, notes=()), *others], format, width=width, bold=bold)
    return f"{words}\n\n{tables}"


# Words.


def title(found: "Comparison") -> str:
    return f"{name_of(found.model)} against {opponents(found)}"


def name_of(name: str) -> str:
    return crop(clean(name))


def opponents(found: "Comparison") -> str:
    if len(found.baselines) == 1:
        return name_of(found.baselines[0])
    return f"{len(found.baselines)} baselines"


def best_title(found: "Comparison") -> str:
    best = "" if len(found.baselines) == 1 else "the best of "
    return f"{name_of(found.model)} against {best}{opponents(found)}"


def sentences(found: "Comparison") -> Iterable[str]:
    """The verdict: what is shown, the clearest win and loss, the cost, what would decide."""
    alone = len(found.baselines) == 1
    pairs = found.against_best
    counts = Counter(pair.outcome for pair in pairs if pair.new.n and pair.old.n)
    compared = counts.total()
    whom = best_title(found)
    if not compared:
        yield f"{title(found)}: nothing to compare, no metric has values of both."
        return
    over = f"{counted(compared, 'comparison')} ({scope(found, pairs)})"
    if counts["one seed"] == compared:
        ahead = sum(pair.ahead for pair in pairs if pair.outcome == "one seed")
        yield f"{whom}: not decided. One seed shows no certainty."
        yield f"Its mean is ahead on {ahead} of {over}; that may be chance."
        yield "Two seeds a model are the least that a test needs, and show only large differences."
        yield from failed_sentence(found)
        yield from cost_sentence(found)
        return
    parts = [f"better on {counts['better']}", f"worse on {counts['worse']}"]
    parts.append(f"undecided on {counts['undecided']}")
    if counts["one seed"]:
        parts.append(f"without a test on {counts['one seed']} (one seed)")
    yield f"{whom}: {', '.join(parts)} of {over}."
    yield from failed_sentence(found)
    yield from family_sentence(pairs)
    if not alone:
        yield from each_sentence(found)
    for words, outcome in (("Clearest win", "better"), ("Clearest loss", "worse")):
        shown = [pair for pair in pairs if pair.outcome == outcome]
        if shown:
            pair = min(shown, key=lambda p: (p.p_holm, -abs(effect(p)), p.measure.name, p.dataset))
            yield f"{words}: {described(pair, named=not alone)}."
    if not counts["better"] and not counts["worse"]:
        yield "No difference is shown; that does not show that they are equal."
    yield from over_sentence(found)
    yield from cost_sentence(found)
    yield from needs_sentence([pair for pair in pairs if pair.outcome == "undecided"])


def scope(found: "Comparison", pairs: Sequence["Pair"]) -> str:
    held = [pair for pair in pairs if pair.new.n and pair.old.n]
    metrics = counted(len({pair.measure.name for pair in held}), "metric")
    datasets = sorted({pair.dataset for pair in held})
    where = name_of(datasets[0]) if len(datasets) == 1 else f"{len(datasets)} datasets"
    seeds = sorted({score.n for pair in held for score in (pair.new, pair.old)})
    many = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else counted(seeds[0], "seed")
    return f"{metrics} on {where}, {many} a model"


def effect(pair: "Pair") -> float:
    """The difference in standard deviations of a seed; infinite where neither varies."""
    spread = math.hypot(pair.new.sd, pair.old.sd) / math.sqrt(2)
    return (
        pair.difference.mean / spread if spread else math.copysign(math.inf, pair.difference.mean)
    )


def described(pair: "Pair", named: bool) -> str:
    """One comparison in figures: ``psnr on digits, 20.7 against 19.0 dB, +1.7 [1.2, 2.2]``."""
    new, old, difference, interval = figures(pair)
    unit = f" {clean(pair.measure.unit)}" if pair.measure.unit else ""
    who = f" of {name_of(pair.baseline)}" if named else ""
    ratio = f", {percent(pair.relative)}" if not math.isnan(pair.relative) else ""
    where = f"{name_of(pair.measure.name)} on {name_of(pair.dataset)}"
    p = probability(pair.p_holm)
    return f"{where}, {new} against {old}{unit}{who} ({difference} {interval}{ratio}; {p})"


def p_of(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def failed_sentence(found: "Comparison") -> Iterable[str]:
    if found.failed:
        yield f"{counted(found.failed, 'cell')} of it failed; the numbers are of the others."


def family_sentence(pairs: Sequence["Pair"]) -> Iterable[str]:
    """On what it is better and worse."""
    parts = []
    for outcome in OUTCOMES[:2]:
        held = Counter(pair.measure.family for pair in pairs if pair.outcome == outcome)
        families = [f"{name_of(family)} ({held[family]})" for family in sorted(held, key=place)]
        parts += [f"{outcome} in {', '.join(families)}"] if families else []
    if parts:
        yield f"{parts[0][0].upper()}{'; '.join(parts)[1:]}."


def each_sentence(found: "Comparison") -> Iterable[str]:
    """Against which baselines the wins outnumber the losses."""
    tallies = tally(found)
    ahead = [name for name, counts in tallies.items() if counts["better"] > counts["worse"]]
    behind = [name for name, counts in tallies.items() if counts["better"] < counts["worse"]]
    losing = f" ({some([name_of(name) for name in behind], 3)})" if behind else ""
    yield (
        f"Baseline by baseline: more wins than losses against {len(ahead)} of {len(tallies)}, more "
        f"losses against {len(behind)}{losing}."
    )


def tally(found: "Comparison") -> dict[str, Counter[Outcome]]:
    """How often each outcome comes out against each baseline, the strongest baseline first."""
    tallies: dict[str, Counter[Outcome]] = {name: Counter() for name in found.baselines}
    for pair in found.pairs:
        tallies[pair.baseline][pair.outcome] += 1

    def strength(name: str) -> tuple[int, int, str]:
        counts = tallies[name]
        return (counts["better"] - counts["worse"], -counts["worse"], name)

    return {name: tallies[name] for name in sorted(tallies, key=strength)}


def over_sentence(found: "Comparison") -> Iterable[str]:
    """What holds over datasets."""
    if found.overall:
        counts = Counter(over.outcome for over in found.overall)
        of = "metrics" if len(found.baselines) == 1 else "pairs of a metric and a baseline"
        yield (
            f"Over datasets (Wilcoxon): better by {counts['better']}, worse by {counts['worse']}, "
            f"undecided by {counts['undecided']} of {len(found.overall)} {of}."
        )
    elif len(found.datasets) > 1:
        yield (
            f"{len(found.datasets)} datasets decide nothing beyond themselves: "
            f"a test over datasets needs {LEAST_DATASETS} that both have."
        )


def cost_sentence(found: "Comparison") -> Iterable[str]:
    """Ratios of costs: over datasets their geometric mean, over baselines the median."""
    parts = []
    for cost, word in COSTS.items():
        ratios = sorted(ratio for ratio in cost_ratios(found, cost).values())
        if ratios:
            span = f" ({times(ratios[0])} to {times(ratios[-1])})" if len(ratios) > 1 else ""
            parts.append(f"{word} {times(median(ratios))}{span}")
    if not parts:
        return
    what = "that of the baseline" if len(found.baselines) == 1 else "the baselines' median"
    device = clean(found.device)
    where = f"; on {device}" if device else ""
    if found.devices_differ:
        where = f"; measured on different devices ({device}): times and memory do not compare"
    yield f"Cost over {what}: {', '.join(parts)}{where}."


def cost_ratios(found: "Comparison", cost: str) -> dict[str, float]:
    """Each baseline's ratio of one cost: the geometric mean over datasets."""
    held: dict[str, list[float]] = defaultdict(list)
    for entry in found.costs:
        if entry.measure.name == cost and not math.isnan(entry.ratio):
            held[entry.baseline].append(entry.ratio)
    return {name: geometric_mean(ratios) for name, ratios in held.items()}


def needs_sentence(undecided: Sequence["Pair"]) -> Iterable[str]:
    """How many seeds would decide what is not decided."""
    needs = sorted(pair.seeds_needed for pair in undecided)
    if not needs or needs[0] > MANY_SEEDS:
        return
    size = "if the differences are as large as observed (power 80 %)"
    if len(needs) == 1:
        yield (
            f"About {needs[0]:.0f} seeds a model would be needed to show a difference of the size "
            "that is undecided (power 80 %)."
        )
        return
    least, half = (seeds_of(needs[n]) for n in (0, (len(needs) - 1) // 2))
    first = "" if least == half else f"one of the {len(needs)} undecided, {half} "
    which = "half of them" if first else f"half of the {len(needs)} undecided"
    yield f"About {least} seeds a model would decide {first}{which}, {size}."


# Figures.


def figures(pair: "Pair") -> tuple[str, str, str, str]:
    """Both means, the difference and its interval, to two digits of the half-width."""
    difference = pair.difference
    half = (difference.high - difference.low) / 2
    largest = max(abs(pair.new.mean), abs(pair.old.mean))
    scale = half if half > 0 else largest / 100 or 1.0
    tiny = not 1e-4 <= max(scale, largest) < 1e7
    places = min(max(0, 1 - math.floor(math.log10(scale))), 6)

    def shown(value: float, sign: str = "") -> str:
        if tiny:
            return f"{value:{sign}.2e}"
        text = f"{value:{sign}.{places}f}"
        return text if float(text) else text.lstrip("+-")

    interval = "" if math.isnan(half) else f"[{shown(difference.low)}, {shown(difference.high)}]"
    return shown(pair.new.mean), shown(pair.old.mean), shown(difference.mean, "+"), interval


def seeds_of(needed: float) -> str:
    if math.isnan(needed):
        return ""
    return f"over {MANY_SEEDS}" if needed > MANY_SEEDS else f"{needed:.0f}"


def share(rate: float) -> str:
    return "" if math.isnan(rate) else f"{rate * 100:.0f} %"


def percent(share: float) -> str:
    """A change over the baseline; of ten times and more the factor."""
    if math.isnan(share):
        return ""
    if share >= 9:
        return f"×{1 + share:.3g}"
    return f"{share * 100:+.{0 if abs(share) >= 0.0995 else 1}f} %"


def times(ratio: float) -> str:
    places = 2 if 0.1 <= ratio < 10 else 0
    return f"×{ratio:.{places}f}" if places or ratio >= 1000 else f"×{ratio:.3g}"


def wrapped(text: str, width: int) -> str:
    """``text`` in lines of a terminal, all but the first set in."""
    return textwrap.fill(text, max(width, 20), subsequent_indent="  ", break_on_hyphens=False)


# Tables.


def sheets(found: "Comparison") -> tuple[Sheet, ...]:
    made = [verdict_sheet(found)]
    if len(found.baselines) > 1:
        made.append(baselines_sheet(found))
    made += [dataset_sheet(found, dataset) for dataset in found.datasets]
    if len(found.baselines) == 1:
        made += [over_sheet(found)] if found.overall else []
        made += [costs_sheet(found)] if found.costs else []
    made[-1] = replace(made[-1], notes=(*made[-1].notes, *legend(found), *found.notes))
    return tuple(made)


def verdict_sheet(found: "Comparison") -> Sheet:
    """The verdict over a table of outcomes by family."""
    pairs = [pair for pair in found.against_best if pair.new.n]
    rows = []
    for family, members in groupby(
        sorted(pairs, key=lambda p: place(p.measure.family)), key=lambda p: p.measure.family
    ):
        counts = Counter(pair.outcome for pair in members)
        rows.append((Cell(family), *count_cells(counts, pairs)))
    columns = (Column("family", "left"), *count_columns(pairs))
    return Sheet(f"{best_title(found)}, by family", columns, tuple(rows), tuple(sentences(found)))


def count_columns(pairs: Sequence["Pair"]) -> list[Column]:
    return [Column(outcome, group="outcome") for outcome in OUTCOMES if seen(outcome, pairs)]


def count_cells(counts: Mapping[Outcome, int], pairs: Sequence["Pair"]) -> list[Cell]:
    return [Cell(str(counts[outcome])) for outcome in OUTCOMES if seen(outcome, pairs)]


def seen(outcome: Outcome, pairs: Sequence["Pair"]) -> bool:
    """Whether a column of ``outcome`` is drawn: the last two only where there are any."""
    return outcome in OUTCOMES[:3] or any(pair.outcome == outcome for pair in pairs)


def baselines_sheet(found: "Comparison") -> Sheet:
    """How often each outcome comes out against each baseline, and the cost over its."""
    costs = [cost for cost in COSTS if cost_ratios(found, cost)]
    ratios = {cost: cost_ratios(found, cost) for cost in costs}
    columns = [Column("baseline", "left"), *count_columns(found.pairs)]
    if found.overall:
        columns += [Column(f"{word} over datasets", group="over datasets") for word in OUTCOMES[:3]]
    columns += [Column(COSTS[cost], group="cost over its") for cost in costs]
    rows = []
    for name, counts in tally(found).items():
        row = [Cell(name), *count_cells(counts, found.pairs)]
        if found.overall:
            held = Counter(over.outcome for over in found.overall if over.baseline == name)
            row += [Cell(str(held[outcome])) for outcome in OUTCOMES[:3]]
        row += [Cell(times(ratios[c][name]) if name in ratios[c] else "–") for c in costs]
        rows.append(tuple(row))
    notes = ("the baselines against which it does worst come first",)
    return Sheet(
        f"{name_of(found.model)} against each baseline", tuple(columns), tuple(rows), notes
    )


def dataset_sheet(found: "Comparison", dataset: str) -> Sheet:
    """Every metric on one dataset, against the baseline with the best mean."""
    alone = len(found.baselines) == 1
    pairs = [pair for pair in found.against_best if pair.dataset == dataset and pair.new.n]
    seeds = {(pair.new.n, pair.old.n) for pair in pairs}
    unequal = len({n for both in seeds for n in both}) > 1
    columns = [Column("metric", "left"), Column("outcome", "left", group="means")]
    columns += [Column(found.model, group="means")]
    columns += [Column(found.baselines[0] if alone else "best baseline", group="means")]
    columns += [] if alone else [Column("which", "left", group="means")]
    columns += [Column("seeds", group="means")] if unequal else []
    columns += [
        Column(name, group="difference")
        for name in ("difference", "95 % interval", "relative", "wins", "p", "needed")
    ]
    rows = []
    for pair in pairs:
        new, old, difference, interval = figures(pair)
        unit = f" ({pair.measure.unit})" if pair.measure.unit else ""
        cells = [f"{pair.measure.name}{unit} {ARROWS[pair.measure.better]}", pair.outcome, new, old]
        cells += [] if alone else [pair.baseline]
        cells += [f"{pair.new.n}, {pair.old.n}"] if unequal else []
        cells += [difference, interval, percent(pair.relative), share(pair.win_rate)]
        cells += ["" if math.isnan(pair.p_holm) else p_of(pair.p_holm), seeds_of(pair.seeds_needed)]
        rows.append(tuple(Cell(text) for text in cells))
    return Sheet(dataset, tuple(columns), tuple(rows))


def over_sheet(found: "Comparison") -> Sheet:
    """Every metric over the datasets, against the only baseline."""
    names = ("outcome", "datasets", "wins", "p")
    columns = (Column("metric", "left"), *(Column(name, group="test") for name in names))
    rows = []
    for over in found.overall:
        cells = [f"{over.measure.name} {ARROWS[over.measure.better]}", over.outcome]
        cells += [str(len(over.differences)), share(over.win_rate), p_of(over.p_holm)]
        rows.append(tuple(Cell(text) for text in cells))
    notes = ("p by Wilcoxon's signed-rank test over datasets; wins: on how many of them",)
    return Sheet("over datasets", columns, tuple(rows), notes)


def costs_sheet(found: "Comparison") -> Sheet:
    """What the model and its only baseline cost, a row a cost and dataset."""
    columns = (
        *(Column("cost", "left"), Column("dataset", "left")),
        *(Column(name, group="means") for name in (found.model, found.baselines[0])),
        Column("ratio", group="ratio"),
    )
    rows = [
        (
            Cell(
                COSTS[cost.measure.name] + (f" ({cost.measure.unit})" if cost.measure.unit else "")
            ),
            Cell(cost.dataset),
            *(
                Cell(f"{s.mean:.4g}" if s.mean < 1e4 else f"{s.mean:.0f}")
                for s in (cost.new, cost.old)
            ),
            Cell("–" if math.isnan(cost.ratio) else times(cost.ratio)),
        )
        for cost in found.costs
    ]
    return Sheet("cost", columns, tuple(rows))


def legend(found: "Comparison") -> Iterable[str]:
    """How to read the tables."""
    many = len(found.baselines) > 1
    tests = {(p.dataset, p.measure.name) for p in found.pairs if not math.isnan(p.p_holm)}
    if many:
        yield (
            f"best baseline: the one of the {len(found.baselines)} with the best mean on the same "
            "test split, which favours it"
        )
    if not tests:
        return
    corrected = f", corrected by Holm's method for {len(found.baselines)} baselines" if many else ""
    yield (
        f"difference: the mean of {name_of(found.model)} less the baseline's; p by Welch's test "
        f"over seeds{corrected}; better or worse: p ≤ {ALPHA}"
    )
    if many:
        yield "95 % interval: of this difference alone, not corrected"
    yield "undecided: no difference is shown, which does not show that there is none"
    yield (
        "certainty is over seeds: of training anew on the same data, not of other data or "
        "hyper-parameters"
    )
    yield "wins: how often a seed is better than one of the baseline's, ties half"
    if any(pair.seeds_needed > 0 for pair in found.pairs):
        yield (
            f"needed: seeds a model that would show a difference of this size with power 80 %"
            f"{' among as many baselines' if many else ''}; the size itself is uncertain"
        )
    chance = ALPHA * len(tests)
    number = f"about {chance:.0f}" if chance >= 1 else "less than one"
    yield (
        "metrics and datasets are not corrected for: without any difference one in twenty would "
        f"show one by chance, {number} of {len(tests)} here; "
        "related metrics, such as mse and psnr, confirm each other little"
    )
