"""A ranking's tables: places over datasets, the tests in words, and the best lines in pairs."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from string import ascii_letters
from typing import TYPE_CHECKING

from .sheets import Cell, Column, Sheet
from .tables import OF_OWN, Entry, aligned, sampler_of

if TYPE_CHECKING:
    from ..leaderboard import Place, Ranking

COMPARED = 6
"""The best lines that are compared in pairs."""
ALPHA = 0.05


def sheets(ranking: "Ranking") -> list[Sheet]:
    """The places, and the pairs of the best of them."""
    places = places_sheet(ranking)
    return [places, pairs_sheet(ranking, places)] if len(ranking.places) > 1 else [places]


def to_csv(ranking: "Ranking") -> str:
    """The places as CSV: nothing is rounded, and names are whole, even ``=1+1`` or ``@x``."""
    import pandas as pd

    columns = ["place", "label", "backbone", "sampler", "own", "mean_rank", "mean_rank_ci95"]
    records = [
        [number, p.label, p.backbone, p.sampler or "none", p.own, p.mean, p.half, group, *p.ranks]
        for number, p, group in zip(numbers(ranking.places), ranking.places, groups(ranking))
    ]
    frame = pd.DataFrame(
        records, columns=[*columns, "group", *(f"rank[{name}]" for name in ranking.datasets)]
    )
    return frame.to_csv(index=False, lineterminator="\n")


# Places.


def places_sheet(ranking: "Ranking") -> Sheet:
    places = ranking.places
    columns = [
        Column("place"),
        *(Column(name, "left") for name in ("model", "backbone", "sampler")),
    ]
    cells = [
        [Cell(str(number)) for number in numbers(places)],
        *([Cell(text) for text in texts] for texts in zip(*map(who, places))),
    ]
    if len(ranking.datasets) > 1:
        columns.append(Column("mean rank", better="lower", group="over datasets"))
        halves = ["" if math.isnan(place.half) else f"{place.half:.2f}" for place in places]
        cells.append(ranks([place.mean for place in places], halves))
    if len(set(groups(ranking))) > 1:
        columns.append(Column("group", "left", group="over datasets"))
        cells.append([Cell(short(text)) for text in groups(ranking)])
    for n, dataset in enumerate(ranking.datasets):
        columns.append(Column(dataset, better="lower", group="rank in each dataset"))
        cells.append(ranks([place.ranks[n] for place in places]))
    return Sheet("Ranking", tuple(columns), tuple(zip(*cells)), tuple(notes(ranking)))


def numbers(places: Sequence["Place"]) -> list[int]:
    """The place of each by its mean rank; equals share the first."""
    means = [round(place.mean, 9) for place in places]  # sums of equal parts
    return [1 + sum(other < mean for other in means) for mean in means]


def who(place: "Place") -> tuple[str, str, str]:
    return place.label, place.backbone, sampler_of(place)


def ranks(values: Sequence[float], halves: Sequence[str] = ()) -> list[Cell]:
    """A column of ranks, or of mean ranks with their half-widths, the lowest marked best."""
    decimals = 2 if halves else 0 if all(value.is_integer() for value in values) else 1
    shown = [f"{value:.{decimals}f}" for value in values]
    first, second = [*sorted({float(text) for text in shown}), math.nan, math.nan][:2]
    return aligned(
        [
            Entry(text, half, "", float(text) == first, float(text) == second)
            for text, half in zip(shown, halves or [""] * len(shown))
        ]
    )


def differ(ranking: "Ranking") -> bool:
    """Whether Friedman's test finds a difference, so that Nemenyi's may say between which."""
    return ranking.friedman is not None and ranking.friedman.p_f < ALPHA


def groups(ranking: "Ranking") -> list[str]:
    """The letters of every place; empty where no difference is found."""
    count = len(ranking.places)
    return letters(count, ranking.cliques) if differ(ranking) else [""] * count


def short(text: str) -> str:
    """Neighbouring letters as the first and the last of them."""
    return f"{text[0]}–{text[-1]}" if len(text) > 3 and text.isalpha() else text


def letters(count: int, cliques: Iterable[tuple[int, int]]) -> list[str]:
    """The compact letter display: lines that share a letter are not told apart.

    A letter for every clique, and one for every line of none (Piepho, Journal of Computational and
    Graphical Statistics 13, 2004).

    Args:
        count: the number of lines.
        cliques: the first and the last line of every group that is not told apart.
    """
    covered = {n for first, last in cliques for n in range(first, last + 1)}
    held = sorted([*cliques, *((n, n) for n in range(count) if n not in covered)])
    signs = [*ascii_letters, *(f"({n + 1})" for n in range(len(ascii_letters), len(held)))]
    return [
        "".join(sign for sign, (first, last) in zip(signs, held) if first <= n <= last)
        for n in range(count)
    ]


# Words.


def notes(ranking: "Ranking") -> list[str]:
    """Over what lines are ranked, whether they differ, and who is left out."""
    datasets, metrics, found = ranking.datasets, ranking.metrics, []
    if not ranking.places:
        found.append("no ranking: no line has a rank in any dataset")
    elif len(datasets) == 1:
        found.append(
            f"one dataset, {datasets[0]}: its ranks alone; ranks over datasets, their intervals "
            "and tests need two"
        )
    else:
        found.append(f"mean rank over {len(datasets)} datasets: {', '.join(datasets)}")
        found.append(
            "± half-width of the 95 % interval over datasets, from the variance of all lines' ranks"
        )
    if ranking.places:
        way = "" if len(metrics) == 1 else "mean rank within each family, then over families: "
        found.append(f"rank in a dataset: by {way}{', '.join(metrics)}; 1 is best, ties share")
    found += tests(ranking)
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, reason in ranking.left_out:
        reasons[reason].append(name)
    found += [f"left out: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    if any(place.own for place in ranking.places):
        found.append(OF_OWN)
    return found


def tests(ranking: "Ranking") -> list[str]:
    """Friedman's test in words, and Nemenyi's where that finds a difference."""
    test, lines, datasets = ranking.friedman, len(ranking.places), len(ranking.datasets)
    if test is None:
        few = len(ranking.datasets) > 1
        return ["no Friedman test: it needs three lines"] if few else []
    freedom = f"{lines - 1} and {(lines - 1) * (datasets - 1)}"
    said = (
        f"Friedman's test: χ² = {test.chi2:.2f} ({lines - 1} degrees of freedom), "
        f"{probability(test.p)}; as Iman and Davenport's F = {test.f:.2f} ({freedom}), "
        f"{probability(test.p_f)}"
    )
    if not differ(ranking):
        return [f"{said}: no evidence that any two lines differ, so no groups"]
    least = f"its critical difference of mean ranks is {ranking.critical_difference:.2f}"
    if len(set(groups(ranking))) == 1:
        least = f"Nemenyi's test (5 %) tells no two lines apart: {least}"
    else:
        least = (
            "group: lines that share a letter (a–d: a, b, c and d) are not told apart by "
            f"Nemenyi's test (5 %); {least}"
        )
    return [f"{said}: the lines differ", least]


def probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# Pairs.


def pairs_sheet(ranking: "Ranking", places: Sheet) -> Sheet:
    """The best places in pairs.

    Args:
        ranking: the ranking.
        places: its sheet, whose words name the lines.
    """
    frame = ranking.pairs(COMPARED)
    best = Sheet("", places.columns, places.rows[:COMPARED])
    names = [", ".join(row[n].text for n in best.names) for row in best.rows]
    one = len(ranking.datasets) == 1
    about = {
        "win_rate": ("win rate", ".2f"),
        "difference": ("difference", ".3g" if one and ranking.better else ".2f"),
        "p": ("p", ".3f"),
        "p_holm": ("p (Holm)", ".3f"),
        "seeds_needed": ("seeds needed", ".0f"),
    }
    held = {key: value for key, value in about.items() if frame[key].notna().any()}
    columns = [Column("line", "left"), Column("against", "left")]
    columns += [Column(name, group="pairs") for name, _ in held.values()]
    cells = [[Cell(names[n]) for n in frame[key]] for key in ("a", "b")]
    for key, (_, form) in held.items():
        cells.append([Cell(number(x, key, form)) for x in frame[key].tolist()])
    count = min(len(ranking.places), COMPARED)
    title = f"The {count} best in pairs"
    return Sheet(title, tuple(columns), tuple(zip(*cells)), tuple(pair_notes(ranking, held)))


def number(value: float, key: str, form: str) -> str:
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    return "<0.001" if key.startswith("p") and value < 0.001 else format(value, form)


def pair_notes(ranking: "Ranking", held: Iterable[str]) -> list[str]:
    """What the columns ``held`` of the pairs mean."""
    count = len(ranking.datasets)
    of_seeds = bool(ranking.better)
    found = []
    if of_seeds:
        found.append(
            f"win rate: how probable it is that a seed of the line has a better "
            f"{ranking.metrics[0]} than one of the other, ties counting half"
            + (", averaged over datasets" if count > 1 else "")
        )
    else:
        found.append(
            "win rate: the share of datasets where the line ranks above the other, ties counting "
            "half"
        )
    found.append(
        f"difference: of the means of {ranking.metrics[0]}"
        if of_seeds and count == 1
        else "difference: of mean ranks, negative where the line ranks above the other"
    )
    if "p" not in held:
        why = "one seed of each line" if of_seeds else "one dataset and several metrics"
        found.append(f"no test: {why}")
    elif count > 1:
        found.append(
            f"p: Wilcoxon's signed-rank test over {count} datasets"
            + (f"; with so few it cannot fall below {2.0 ** (1 - count):.2g}" if count < 6 else "")
        )
    else:
        found.append("p: Welch's test over seeds")
    if "p_holm" in held:
        found.append("p (Holm): corrected for the number of pairs in this table")
    if "seeds_needed" in held:
        found.append(
            "seeds needed: of each line, for Welch's test to find a difference of this size in "
            "four cases of five (5 %)"
        )
    return found
