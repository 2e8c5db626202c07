"""The page's charts, written in Altair and compiled to Vega; the page gives each its records.

Colours are CSS variables of the page, so that one specification serves light and dark.
"""

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

ACCENT, QUIET = "var(--accent)", "var(--quiet)"
PLAIN = "format(datum.value, '.6~g')"
TICK = "datum.label == '' ? '' : format(datum.value, datum.value < 1 ? '~g' : '~s')"
ENDS = {"low": "datum.mean - datum.half", "high": "datum.mean + datum.half"}
NARROW = "windowSize()[0] < 600"
CONFIG = {
    "aria": False,  # the page describes each chart as a whole: hundreds of marks read out do not
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelPadding": 6,
        "labelOverlap": True,
    },
    "axisY": {"ticks": False, "domain": False},
    "legend": {
        "labelColor": "currentColor",
        "labelFontSize": 12,
        "title": None,
        "orient": "top",
        "symbolStrokeWidth": 2,
    },
    "text": {"color": "currentColor", "fontSize": 12},
    "title": {
        "color": "currentColor",
        "fontSize": 12,
        "fontWeight": "normal",
        "anchor": "start",
        "offset": 10,
    },
}


@cache
def charts() -> dict[str, dict[str, Any]]:
    """Every chart by name. Their records are named data, ``records`` unless said otherwise.

    ``ranks``
        name, mean, text, ranks (a dataset each) and each (the same in words); ``cliques`` has
        group, name and x.
    ``seeds``
        name, text, mean, half, seeds and values; the parameter ``heading`` names the metric.
    ``cost``
        name, text, mean, half, and lists with an entry a cost: costs, spents (in words), rights
        (whether it lies in the right half), and on the front fronts and labels (whether its name is
        drawn); the parameter ``chosen`` is which cost, ``heading`` and ``unit`` name the axes,
        ``better`` is the metric's direction.
    ``curves``
        split, and epoch, mean, low and high as lists.
    """
    import altair as alt
    import vl_convert

    # Of its records alone: nothing that a record says is taken for a transformer or a file.
    records = alt.NamedData(name="records")
    made = {
        "ranks": ranks(alt.Chart(records), alt.Chart(alt.NamedData(name="cliques"))),
        "seeds": seeds(alt.Chart(records)),
        "cost": cost(alt.Chart(records)),
        "curves": curves(alt.Chart(records)),
    }
    found = {}
    for name, chart in made.items():
        spec = chart.to_dict() | {"config": CONFIG}
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
        found[name] = vl_convert.vegalite_to_vega(spec)
    # Vega-Lite has no axis title that follows a parameter; Vega does.
    for axis in found["cost"]["axes"]:
        if "title" in axis:
            axis["title"] = {"signal": "unit"}
    return found


def names_axis() -> "alt.Y":
    """A row a name, in the order of the records, long names cropped."""
    import altair as alt

    axis = alt.Axis(title=None, labelLimit=alt.expr(f"{NARROW} ? 110 : 240"), grid=True)
    # By a number: Vega remembers the order of names that it drew before.
    order = alt.EncodingSortField(field="order", op="min")
    return alt.Y("name:N", sort=order, axis=axis, scale=alt.Scale(paddingInner=0.2))


def ranks(base: "alt.Chart", cliques: "alt.Chart") -> "alt.LayerChart | alt.FacetChart":
    """Mean ranks with what they are means of, and a bar beside each clique (Demšar 2006)."""
    import altair as alt

    y = names_axis()
    axis = alt.Axis(title="mean rank over datasets (1 is best)", orient="top", tickMinStep=1)
    scale = alt.Scale(zero=False, nice=False, padding=8)
    tooltip = [
        alt.Tooltip("name:N", title="model"),
        alt.Tooltip("text:N", title="mean rank"),
        alt.Tooltip("each:N", title="in each dataset"),
    ]
    dots = base.mark_point(filled=True, opacity=1, size=90, color=ACCENT).encode(
        x=alt.X("mean:Q", scale=scale, axis=axis), y=y, tooltip=tooltip
    )
    each = (
        base.transform_flatten(["ranks"])
        .mark_tick(color=QUIET, thickness=1.5, height=10, opacity=0.8)
        .encode(x=alt.X("ranks:Q", scale=scale, axis=axis), y=y)
    )
    bars = cliques.mark_line(strokeWidth=4, strokeCap="round", color="currentColor").encode(
        x=alt.X("x:Q", scale=scale, axis=axis), y=y, detail="group:N"
    )
    return alt.layer(each, dots, bars).properties(width="container", height=alt.Step(22))


def seeds(base: "alt.Chart") -> "alt.LayerChart | alt.FacetChart":
    """Every seed a circle; a diamond on a bar is the mean with its 95 % t-interval."""
    import altair as alt

    y = names_axis()
    scale = alt.Scale(zero=False, nice=True)
    axis = alt.Axis(title=None, orient="top", labelExpr=PLAIN, tickCount=5)

    def x(field: str) -> "alt.X":
        return alt.X(f"{field}:Q", scale=scale, axis=axis)

    tooltip = [
        alt.Tooltip("name:N", title="model"),
        alt.Tooltip("text:N", title="mean ± 95 % interval"),
    ]
    one = [*tooltip, alt.Tooltip("seeds:N", title="seed"), alt.Tooltip("values:Q", format=".6~g")]
    points = (
        base.transform_flatten(["seeds", "values"])
        .transform_filter("isValid(datum.values)")
        .mark_point(size=36, color=QUIET, strokeWidth=1.5, opacity=1)
        .encode(x=x("values"), y=y, tooltip=one)
    )
    bars = (
        base.transform_calculate(**ENDS)
        .transform_filter("isValid(datum.half)")
        .mark_rule(strokeWidth=2, color=ACCENT)
        .encode(x=x("low"), x2="high:Q", y=y, tooltip=tooltip)
    )
    means = base.mark_point(filled=True, opacity=1, shape="diamond", size=90, color=ACCENT).encode(
        x=x("mean"), y=y, tooltip=tooltip
    )
    chart = alt.layer(bars, points, means).properties(width="container", height=alt.Step(22))
    return chart.add_params(alt.param(name="heading", value="")).properties(
        title=alt.TitleParams(text=alt.expr("heading"))
    )


def cost(base: "alt.Chart") -> "alt.LayerChart | alt.FacetChart":
    """A metric against a cost, with the lines that no other beats in both."""
    import altair as alt

    base = (
        base.transform_calculate(
            **ENDS,
            x="datum.costs[chosen]",
            spent="datum.spents[chosen]",
            front="isValid(datum.fronts) && datum.fronts[chosen]",
            right="datum.rights[chosen]",
            label="isValid(datum.fronts) && datum.labels[chosen]",
        )
        .transform_filter("isValid(datum.x) && datum.x > 0")
        .transform_calculate(side="datum.front ? 'on the front' : 'beaten by another'")
    )
    x = alt.X(
        "x:Q",
        scale=alt.Scale(type="log", nice=False, padding=24),
        axis=alt.Axis(title="cost", labelExpr=TICK, tickCount=6, grid=False),
    )
    scale, axis = alt.Scale(zero=False, padding=24), alt.Axis(title=None, labelExpr=PLAIN)
    y = alt.Y("mean:Q", scale=scale, axis=axis)
    tooltip = [
        alt.Tooltip("name:N", title="model"),
        alt.Tooltip("text:N", title="mean ± 95 % interval"),
        alt.Tooltip("spent:N", title="cost"),
        alt.Tooltip("side:N", title="Pareto front"),
    ]
    front = base.transform_filter("datum.front")
    intervals = (
        base.transform_filter("isValid(datum.half)")
        .mark_rule(color=QUIET, opacity=0.5)
        .encode(x=x, y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q")
    )
    steps = front.mark_line(
        interpolate="step-after", strokeWidth=1.5, strokeDash=[5, 3], color=ACCENT
    ).encode(x=x, y=y, order="x:Q")
    beaten = (
        base.transform_filter("!datum.front")
        .mark_point(size=56, color=QUIET, strokeWidth=1.5, opacity=1)
        .encode(x=x, y=y, tooltip=tooltip)
    )
    best = front.mark_point(filled=True, opacity=1, shape="diamond", size=110, color=ACCENT).encode(
        x=x, y=y, tooltip=tooltip
    )
    # On the side that the front leaves empty.
    labels = base.transform_filter("datum.label").mark_text(
        align=alt.expr("datum.right ? 'right' : 'left'"),
        dx=alt.expr("datum.right ? -4 : 4"),
        dy=alt.expr("better == 'lower' ? 15 : -15"),
        limit=alt.expr(f"{NARROW} ? 110 : 220"),
    )
    labels = labels.encode(x=x, y=y, text="name:N")
    chart = alt.layer(intervals, steps, beaten, best, labels)
    for name, value in (("heading", ""), ("unit", ""), ("better", ""), ("chosen", 0)):
        chart = chart.add_params(alt.param(name=name, value=value))
    title = alt.TitleParams(text=alt.expr("heading"))
    return chart.properties(width="container", height=380, title=title)


def curves(base: "alt.Chart") -> "alt.LayerChart | alt.FacetChart":
    """A training's term by epoch: the mean over seeds in the band of their extremes."""
    import altair as alt

    base = base.transform_flatten(["epoch", "mean", "low", "high"])
    splits = ["train", "validation"]
    colors = alt.Scale(domain=splits, range=[QUIET, ACCENT])
    color = alt.Color(
        "split:N", scale=colors, legend=alt.Legend(symbolType="stroke", symbolOpacity=1)
    )
    dash = alt.StrokeDash("split:N", scale=alt.Scale(domain=splits, range=[[5, 3], [1, 0]]))
    x = alt.X(
        "epoch:Q",
        axis=alt.Axis(title="epoch", tickMinStep=1, grid=False),
        scale=alt.Scale(nice=False),
    )
    axis, scale = alt.Axis(title=None, labelExpr=PLAIN), alt.Scale(zero=False)
    band = base.mark_area(opacity=0.18).encode(
        x=x, y=alt.Y("low:Q", axis=axis, scale=scale), y2="high:Q", color=color
    )
    tooltip = [
        alt.Tooltip("split:N"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("mean:Q", format=".5~g"),
        alt.Tooltip("low:Q", title="least", format=".5~g"),
        alt.Tooltip("high:Q", title="most", format=".5~g"),
    ]
    line = base.mark_line(strokeWidth=2).encode(
        x=x, y=alt.Y("mean:Q", axis=axis, scale=scale), color=color, strokeDash=dash
    )
    # Wide marks that are not seen make a thin line easy to point at.
    near = base.mark_point(size=200, opacity=0, filled=True).encode(
        x=x, y=alt.Y("mean:Q", axis=axis, scale=scale), tooltip=tooltip
    )
    chart = alt.layer(band, line, near).add_params(alt.param(name="heading", value=""))
    title = alt.TitleParams(text=alt.expr("heading"))
    return chart.properties(width="container", height=300, title=title)


def pareto(costs: list[float], qualities: list[float], better: str) -> list[bool]:
    """Which points no other beats: at most the cost and at least the quality, one of them strictly.

    Args:
        costs: lower is better; a point of a cost that is not finite is not on the front.
        qualities: as many.
        better: ``higher`` or ``lower``; the front is empty where it is neither.
    """
    import numpy as np

    if better not in ("higher", "lower"):
        return [False] * len(costs)
    x = np.asarray(costs, dtype=float)
    y = np.asarray(qualities, dtype=float) * (-1 if better == "higher" else 1)
    front = np.zeros(len(x), dtype=bool)
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    least = np.inf
    order = finite[np.lexsort((y[finite], x[finite]))]
    for k, n in enumerate(order):
        ties = k > 0 and x[n] == x[order[k - 1]] and y[n] == y[order[k - 1]]
        front[n] = front[order[k - 1]] if ties else y[n] < least
        least = min(least, y[n])
    return front.tolist()


def labelled(
    names: list[str], costs: list[float], qualities: list[float], front: list[bool]
) -> list[bool]:
    """Which points of the front have room for their names in a chart a phone wide.

    Args:
        names: of all points, best first: the best are named where names would overlap.
        costs: what lies on the logarithmic axis.
        qualities: what lies on the other.
        front: which points are on the front.
    """
    width, height, letter, line = 300, 300, 7, 14  # pixels
    found = [False] * len(names)
    points = [n for n in range(len(names)) if costs[n] > 0]
    if not points:
        return found
    logs = {n: math.log(costs[n]) for n in points}
    left, across = min(logs.values()), max(logs.values()) - min(logs.values())
    low, up = min(qualities), max(qualities) - min(qualities)
    taken: list[tuple[float, float, float]] = []
    for n in (n for n in points if front[n]):
        x = width * (logs[n] - left) / (across or 1)
        y = height * (qualities[n] - low) / (up or 1)
        wide = letter * min(len(names[n]), 16)
        start = x - wide if x > width / 2 else x
        if all(start > b or start + wide < a or abs(y - v) > line for a, b, v in taken):
            taken.append((start, start + wide, y))
            found[n] = True
    return found
