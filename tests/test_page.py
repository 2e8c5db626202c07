"""The report page: its numbers, its escapes, and what it does in a real browser."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from aebench.benchmark.leaderboard import leaderboard
from aebench.benchmark.report import page as pages
from aebench.benchmark.report import tables, thumbnails
from aebench.benchmark.report.charts import charts, labelled, pareto
from aebench.benchmark.report.formula import MATHML, link, mathml
from aebench.benchmark.report.page import json_in_html, page, rounded, thin
from aebench.benchmark.results import Results, read
from aebench.benchmark.rows import COLUMNS, DETAILS
from aebench.benchmark.speed import synthetic

CHROMIUM = shutil.which("chromium")
HOSTILE = [
    "<script>alert(1)</script>",
    "a/../../b",
    "\"quoted\" and 'quoted'",
    "two\nlines\r\nand\u2028three",
    "n" * 300,
    r"100% of $x_1 & #2 {braces} \input{/etc/passwd} ~ ^",
    "😀 emoji é",
    '"><img src=x onerror=alert(2)>',
    "{{7*7}} {% raw %}",
    "datum['x']",
    "&lt;b&gt; & <!-- <script> </script>",
    "half a pair \ud83d",
    "__proto__",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Six models on two datasets, three seeds: a real store, with histories and pictures."""
    folder = tmp_path_factory.mktemp("stores") / "synthetic"
    synthetic.store(folder, models=6, datasets=2, seeds=3, metrics=8, epochs=20)
    return read(folder)


@pytest.fixture(scope="module")
def written(store: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "index.html"
    page([store], out)
    return out


def results(rows: pd.DataFrame, name: str = "grid") -> Results:
    """Rows alone, as of a published folder."""
    return Results(Path(name), rows, {}, {})


def row(value: float, metric: str = "mse", **given: Any) -> dict[str, Any]:
    made = dict.fromkeys([*COLUMNS, *DETAILS], "")
    made |= {"dataset": "digits", "model": "vae", "hyperparameters": "{}", "backbone": "mlp"}
    made |= {"seed": 0, "own": False, "metric": metric, "value": value, "better": "lower"}
    made |= {"family": "reconstruction", "ranked": True, **given}
    made["cell"] = f"{made['dataset']}-{made['model']}-{made['seed']}"
    return made


def cost(value: float, **given: Any) -> dict[str, Any]:
    return row(value, "train_seconds", family="cost", ranked=False, better="", unit="s", **given)


def some(models: list[str], datasets: int = 2, seeds: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    held = []
    for d in range(datasets):
        for n, model in enumerate(models):
            for seed in range(seeds):
                who = {"dataset": f"data{d}", "model": model, "seed": seed}
                held += [row(1 + n + rng.normal(0, 0.1), **who), cost(10.0 / (1 + n), **who)]
    return pd.DataFrame(held)


def text_of(groups: list[Results], out: Path) -> str:
    page(groups, out)
    return out.read_text(encoding="utf-8")


def data_of(text: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


# Parts.


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_front_is_what_no_other_point_beats(better: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 12))
        costs = rng.integers(0, 6, n).astype(float)
        qualities = rng.integers(0, 6, n).astype(float)
        costs[rng.random(n) < 0.1] = math.nan
        sign = -1 if better == "higher" else 1

        def beats(a: int, b: int, x: np.ndarray = costs, y: np.ndarray = sign * qualities) -> bool:
            return x[a] <= x[b] and y[a] <= y[b] and bool(x[a] < x[b] or y[a] < y[b])

        expected = [
            math.isfinite(costs[b]) and not any(beats(a, b) for a in range(n)) for b in range(n)
        ]
        assert pareto(costs.tolist(), qualities.tolist(), better) == expected
    assert pareto([1.0], [1.0], "") == [False]


def test_names_on_the_front_do_not_overlap() -> None:
    names, front = ["first", "second", "third"], [True, True, True]
    assert labelled(names, [1.0, 1.01, 100.0], [0.0, 0.01, 1.0], front) == [True, False, True]
    assert labelled(names, [1.0, 10.0, 100.0], [0.0, 0.5, 1.0], front) == [True, True, True]
    assert labelled(names, [1.0, math.nan, 100.0], [0.0, 0.5, 1.0], [False, True, True]) == [
        False,
        False,
        True,
    ]


def test_thinned_epochs_keep_both_ends() -> None:
    assert thin([1, 2, 3], 3) == [1, 2, 3]
    kept = thin(list(range(1, 101)), 12)
    assert len(kept) == 12 and kept[0] == 1 and kept[-1] == 100
    assert max(np.diff(kept)) - min(np.diff(kept)) <= 1


def test_numbers_are_rounded_to_significant_digits() -> None:
    assert [rounded(x) for x in (0.00012345678, 1234567.0, 3.0, math.nan, math.inf)] == [
        0.000123457,
        1234570,
        3,
        None,
        None,
    ]


@pytest.mark.parametrize("text", [*HOSTILE[:11], "</SCRIPT>", "\u2029", "<!--<script>"])
def test_json_cannot_leave_its_element(text: str) -> None:
    made = json_in_html({"name": text})
    assert json.loads(made) == {"name": text}
    assert "</" not in made and "<!" not in made and "\u2028" not in made and "\u2029" not in made


def test_scripts_cannot_leave_their_element() -> None:
    for script in pages.bundles():
        assert "</script" not in script.lower() and "<!--" not in script


def test_objectives_are_maths_and_nothing_else() -> None:
    found = mathml(r"-\mathbb E_{q(z|x)} \log p(x|z) + \mathrm{KL}(q \Vert \mathcal N(0, I))")
    assert found.startswith("<math") and "𝔼" in found and "𝒩" in found
    assert re.search(r"<mi>log</mi><mspace[^>]*/><mi>p</mi>", found)
    for hostile in (
        r"\text{<img src=x onerror=alert(1)>}",
        r"\text{<b>bold</b>}",
        r"\href{javascript:alert(1)}{x}",
        r"\style{background:url(http://example.org)}{x}",
        r"\frac{",
        "<script>alert(1)</script>",
    ):
        made = mathml(hostile)
        tags = {tag.lower() for tag in re.findall(r"<\s*([a-zA-Z]+)", made)}
        assert tags <= MATHML | {"code"}
        assert not re.search(r"<[^>]*\s(href|style|class|on\w+)=", made)
    assert mathml("") == ""


@pytest.mark.parametrize(
    "reference, address",
    [
        ("Kingma and Welling 2014, arXiv:1312.6114", "https://arxiv.org/abs/1312.6114"),
        ("Old 2001, arXiv:cs/0101001", "https://arxiv.org/abs/cs/0101001"),
        ("Some 2020, doi:10.1000/xyz-1.2.", "https://doi.org/10.1000/xyz-1.2"),
        ('Bad, 10.1000/"><script>', ""),
        ("javascript:alert(1)", ""),
    ],
)
def test_references_with_a_number_are_links(reference: str, address: str) -> None:
    assert link(reference) == address


def test_every_chart_compiles_and_loads_nothing() -> None:
    assert set(charts()) == {"ranks", "seeds", "cost", "curves"}
    assert '"url"' not in json.dumps(charts())


# The file.


def test_the_same_rows_give_the_same_bytes(store: Results, tmp_path: Path) -> None:
    shuffled = replace(store, rows=store.rows.sample(frac=1, random_state=0))
    made = []
    for name, given in (("one", store), ("two", shuffled)):
        (tmp_path / name).mkdir()
        page([given], tmp_path / name / "page.html")
        made.append((tmp_path / name / "page.html").read_bytes())
    assert made[0] == made[1]


def test_table_and_charts_have_the_leaderboards_numbers(store: Results, written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    metrics = {about["name"]: id for id, about in data_of(text, "page")["metrics"].items()}
    board = leaderboard(store.rows).boards[0]
    names = [column["name"] for column in data_of(text, "table-0-data")["columns"]]
    cells = [record["c"] for record in data_of(text, "table-0-data")["data"]]
    view = data_of(text, "view-0")
    for column in tables.columns(board):
        at = names.index(metrics[column.measure.name])
        for cell, line, entry in zip(cells, board.lines, column.entries):
            assert cell[at][1] == entry.mean
            expected = line.mean(column.measure.name)
            assert cell[at][0] == (None if math.isnan(expected) else pytest.approx(expected))
        if column.measure.family == "cost":
            continue
        shown = {c[at][1] + (f" ± {c[at][2]}" if c[at][2:3] > [""] else "") for c in cells}
        (only,) = leaderboard(store.rows).of(board.dataset).only(column.measure.name).boards
        held = [line for line in only.lines if line.scores[column.measure.name].n]
        records = view["scores"][metrics[column.measure.name]]
        assert len(records) == len(held)
        for record, line in zip(records, held):
            score = line.scores[column.measure.name]
            assert record["text"].partition(" (n=")[0] in shown
            assert record["mean"] == pytest.approx(score.mean, rel=1e-5)
            assert [v for v in record["values"] if v is not None] == pytest.approx(
                list(score.values.values()), rel=1e-5
            )


def test_learning_curves_are_means_in_the_band_of_the_seeds(store: Results, written: Path) -> None:
    view = data_of(written.read_text(encoding="utf-8"), "view-1")
    rows = store.rows[(store.rows["dataset"] == "data01") & (store.rows["model"] == "model002")]
    cells = rows.loc[rows["family"] != "status", "cell"].unique()
    values = np.array([[e["val/kl"] for e in store.history(cell)] for cell in cells])
    (curve,) = (
        record
        for record in view["curves"][str(view["names"].index("model002"))]["kl"]
        if record["split"] == "validation"
    )
    assert curve["epoch"] == list(range(1, 21))
    assert curve["mean"] == pytest.approx(values.mean(0), rel=1e-4)
    assert curve["low"] == pytest.approx(values.min(0), rel=1e-4)
    assert curve["high"] == pytest.approx(values.max(0), rel=1e-4)


def test_a_published_folder_says_what_it_lacks(store: Results, tmp_path: Path) -> None:
    text = text_of([results(store.rows)], tmp_path / "page.html")
    assert "no learning curves" in text and "no pictures" in text


def test_failures_and_seeds_are_counted(tmp_path: Path) -> None:
    rows = some(["ae", "vae"])
    failure = row(math.nan, "failed", model="ae", dataset="data0", seed=9, family="status")
    failure |= {"note": "the loss became nan", "better": "", "ranked": False}
    text = text_of([results(pd.concat([rows, pd.DataFrame([failure])]))], tmp_path / "page.html")
    assert "<b>12</b> <span>cells finished</span>" in text and "<b>1</b> <span>failed" in text
    assert "the loss became nan" in text
    cells = {r["c"][1]: r["c"][-1] for r in data_of(text, "table-0-data")["data"]}
    assert next(cell for name, cell in cells.items() if ">ae<" in name)[4] == "(1 failed)"


@pytest.mark.parametrize(
    "models, datasets, seeds", [(["ae"], 1, 1), (["ae"], 3, 2), (["ae", "vae"], 1, 2), ([], 0, 0)]
)
def test_little_is_enough_for_a_page(
    models: list[str], datasets: int, seeds: int, tmp_path: Path
) -> None:
    rows = some(models, datasets, seeds)
    rows = rows if len(rows) else pd.DataFrame(columns=[*COLUMNS, *DETAILS])
    text = text_of([results(rows)], tmp_path / "page.html")
    assert ("<p>No results yet.</p>" in text) == (not models)


def test_pictures_too_large_for_the_page_stand_beside_it(
    store: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "my page.html"
    monkeypatch.setattr(thumbnails, "INLINE_BYTES", 0)
    beside = text_of([store], out)
    sources = set(re.findall(r'<figure><img src="([^"]+)"', beside))
    assert sources and all(s.startswith("my%20page-pictures/") for s in sources)
    files = {path.name for path in (tmp_path / "my page-pictures").iterdir()}
    assert files == {source.partition("/")[2] for source in sources}
    monkeypatch.undo()
    within = text_of([store], out)
    assert all(
        s.startswith("data:image/webp") for s in re.findall(r'<figure><img src="([^"]+)"', within)
    )
    assert not list((tmp_path / "my page-pictures").iterdir())


def test_groups_are_told_apart_and_never_ranked_together(tmp_path: Path) -> None:
    first, second = some(["ae", "vae"]), some(["pca", "vae", "aae"], datasets=1)
    text = text_of([results(first, "one"), results(second, "two")], tmp_path / "page.html")
    assert re.findall(r'<optgroup label="(\w+)">', text) == ["one", "two"]
    assert {r["name"] for r in data_of(text, "ranking-0")["records"]} == {"ae", "vae"}
    assert data_of(text, "ranking-1")["records"] == []
    assert len(data_of(text, "table-2-data")["data"]) == 3
    assert "<optgroup" not in text_of([results(first)], tmp_path / "page.html")


def test_the_diagram_is_cut_where_it_would_be_too_long(tmp_path: Path) -> None:
    names = [f"m{n:02}" for n in range(pages.MOST_PLACES + 14)]
    text = text_of([results(some(names, datasets=4))], tmp_path / "page.html")
    ranking = data_of(text, "ranking-0")
    assert len(ranking["records"]) == pages.MOST_PLACES
    assert f"the best {pages.MOST_PLACES} are drawn" in text
    drawn = {record["name"] for record in ranking["records"]}
    assert ranking["cliques"] and {bar["name"] for bar in ranking["cliques"]} <= drawn


def test_contrast_is_enough_in_light_and_dark() -> None:
    css = pages.source("page.css")
    pairs = dict(re.findall(r"--(\w+): light-dark\((#\w+, #\w+)\)", css))
    for scheme in (0, 1):
        colours = {name: luminance(pair.split(", ")[scheme]) for name, pair in pairs.items()}
        for front in ("ink", "quiet", "accent"):
            for back in ("paper", "raised", "wash"):
                low, high = sorted((colours[front], colours[back]))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back, scheme)


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


# The browser.

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("there is no chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens a file; at the end nothing was said on the console and nothing left the file."""
    said: list[str] = []
    contexts = []

    def open_page(path: Path, width: int = 1280, **given: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **given)
        contexts.append(context)
        tab = context.new_page()
        own = (path.as_uri(), path.with_name(f"{path.stem}-pictures").as_uri(), "data:")
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: (said.append("a dialog opened"), dialog.dismiss()))
        tab.on("request", lambda r: None if r.url.startswith(own) else said.append(r.url))
        tab.goto(path.as_uri())
        if tab.locator("#controls").count():
            tab.wait_for_selector("#seeds.empty, #seeds svg", state="attached")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def names_in(tab: Any, table: str = "table-0") -> list[str]:
    return tab.locator(f"#{table} tbody th").all_inner_texts()


def drawn(tab: Any, chart: str) -> list[str]:
    return tab.locator(f"#{chart} svg text").all_text_contents()


def by_height(tab: Any, chart: str) -> list[str]:
    """The texts of a chart from its top to its bottom."""
    found = tab.locator(f"#{chart} svg text").evaluate_all(
        "x => x.map(e => [e.getBoundingClientRect().top, e.textContent])"
    )
    return [text for _, text in sorted(found)]


def described(tab: Any, chart: str) -> str:
    return tab.locator(f"#{chart} .chart").get_attribute("aria-label")


def head(tab: Any, name: str, table: str = "table-0") -> Any:
    return tab.locator(f"#{table} thead th[data-dt-column]:has-text('{name}')").last


def until(tab: Any, condition: str) -> None:
    tab.wait_for_function(condition)


def test_the_page_opens_silently_with_all_its_charts(written: Path, opened: Open) -> None:
    tab = opened(written)
    for chart in ("ranks", "cost", "seeds", "curves"):
        tab.wait_for_selector(f"#{chart} svg")
        assert described(tab, chart)
    levels = [
        int(tag[1]) for tag in tab.locator("h1, h2, h3").evaluate_all("x => x.map(e => e.tagName)")
    ]
    assert levels[0] == 1 and max(np.diff(levels)) <= 1
    labels = tab.locator("select, input").evaluate_all("x => x.map(e => e.labels.length)")
    assert labels and all(labels)


def test_a_click_sorts_by_the_mean_with_missing_values_last(
    store: Results, written: Path, opened: Open
) -> None:
    tab, board = opened(written), leaderboard(store.rows).boards[0]
    for metric, better in (("psnr", "higher"), ("nll", "lower")):
        assert {m.name: m.better for m in board.measures}[metric] == better
        for reverse in (better == "higher", better != "higher"):
            head(tab, metric).click()
            order = "descending" if reverse else "ascending"
            tab.wait_for_selector(f"#table-0 th[aria-sort={order}]:has-text('{metric}')")
            shown = names_in(tab)
            means = {line.label: line.mean(metric) for line in board.lines}
            held = [means[name] for name in shown if not math.isnan(means[name])]
            assert held == sorted(held, reverse=reverse)
            missing = [math.isnan(means[name]) for name in shown]
            assert missing == sorted(missing)
    assert any(math.isnan(line.mean("nll")) for line in board.lines)


def test_the_filter_leaves_matching_models_everywhere(written: Path, opened: Open) -> None:
    tab = opened(written)
    before = names_in(tab)
    tab.get_by_label("Filter models by name").fill("model003")
    until(tab, "document.querySelectorAll('#table-0 tbody th').length < 3")
    assert set(names_in(tab)) == {"model003"} < set(before)
    until(tab, "!document.querySelector('#seeds svg').textContent.includes('model001')")
    assert any("model003" in text for text in drawn(tab, "seeds"))
    visible = tab.locator(".card:visible h3").all_text_contents()
    assert visible == ["model003"]
    tab.get_by_label("Filter models by name").fill("no such model")
    until(tab, "document.querySelector('#seeds').classList.contains('empty')")
    assert "No model of this name" in tab.locator("#table-0 tbody").inner_text()
    tab.get_by_label("Filter models by name").fill("")
    until(tab, "!document.querySelector('#seeds').classList.contains('empty')")
    assert names_in(tab) == before


def test_the_dataset_switch_changes_rows_charts_pictures_and_notes(
    written: Path, opened: Open
) -> None:
    tab = opened(written)
    before = tab.locator("#table-0 tbody").inner_text(), described(tab, "seeds")
    values = tab.locator("#seeds svg path").evaluate_all(
        "x => x.map(e => e.getAttribute('transform'))"
    )
    assert tab.locator(".strip:visible img").first.get_attribute("alt").endswith("data00")
    tab.locator("[name=dataset]").select_option(label="data01")
    until(tab, "document.querySelector('#seeds .chart').ariaLabel.includes('data01')")
    assert tab.locator("#table-0").is_hidden() and tab.locator("#table-1").is_visible()
    assert tab.locator("#table-1 tbody").inner_text() != before[0]
    tab.wait_for_timeout(100)
    after = tab.locator("#seeds svg path").evaluate_all(
        "x => x.map(e => e.getAttribute('transform'))"
    )
    assert after != values and described(tab, "seeds") != before[1]
    assert tab.locator(".strip:visible img").first.get_attribute("alt").endswith("data01")
    assert "data01" in tab.locator("main h3:visible").all_inner_texts()


def test_the_metric_switch_sorts_the_table_and_redraws_the_charts(
    store: Results, written: Path, opened: Open
) -> None:
    tab = opened(written)
    metrics = tab.locator("[name=metric] option").all_text_contents()
    for metric in [*metrics, "mse", "fid[classifier]"]:
        tab.locator("[name=metric]").select_option(label=metric)
        until(tab, f"document.querySelector('#seeds svg').textContent.includes('{metric}')")
        (board,) = leaderboard(store.rows).of("data00").only(metric).boards
        lines = [line for line in board.lines if line.scores[metric].n]
        sampled = board.measures[0].sampled
        expected = [f"{x.label} · {x.sampler}" if sampled else x.label for x in lines]
        assert [text for text in by_height(tab, "seeds") if text.startswith("model")] == expected
        labels = list(dict.fromkeys(line.label for line in lines))
        assert list(dict.fromkeys(names_in(tab)))[: len(labels)] == labels
    spent = {
        (line.label, line.sampler): line.mean("train_seconds")
        for line in leaderboard(store.rows).boards[0].lines
    }
    front = {
        f"{a.label} · {a.sampler}"
        for a in lines
        if not any(
            (x := spent[b.label, b.sampler]) <= (y := spent[a.label, a.sampler])
            and b.mean("fid[classifier]") <= a.mean("fid[classifier]")
            and (x < y or b.mean("fid[classifier]") < a.mean("fid[classifier]"))
            for b in lines
        )
    }
    assert set(described(tab, "cost").partition("front: ")[2].split("; ")) == front
    assert "lower left" in tab.locator("#corner").inner_text()


def test_cost_model_and_term_can_be_chosen(written: Path, opened: Open) -> None:
    tab = opened(written)
    tab.locator("[name=cost]").select_option(label="parameters")
    until(tab, "document.querySelector('#cost svg').textContent.includes('parameters, log')")
    tab.locator("[name=model]").select_option(label="model002")
    tab.locator("[name=term]").select_option(label="kl")
    until(tab, "document.querySelector('#curves svg').textContent.includes('kl of model002')")
    assert described(tab, "curves") == "kl of model002 on data00, by epoch"


def test_columns_can_be_chosen(written: Path, opened: Open) -> None:
    tab = opened(written)
    assert head(tab, "psnr").is_visible()
    tab.get_by_text("Choose columns").click()
    tab.get_by_label("psnr", exact=True).uncheck()
    assert not tab.locator("#table-0 thead").get_by_text("psnr", exact=True).count()
    tab.get_by_label("psnr", exact=True).check()
    assert head(tab, "psnr").is_visible()
    tab.get_by_label("likelihood", exact=True).uncheck()
    shown = tab.locator("#table-0 thead").inner_text()
    assert "nll" not in shown and "elbo" not in shown and "mse" in shown


def test_all_controls_are_reached_and_used_by_keyboard(written: Path, opened: Open) -> None:
    tab = opened(written)
    reached = []
    for _ in range(16):
        tab.keyboard.press("Tab")
        reached.append(
            tab.evaluate(
                "(e => e.name || e.className.split(' ')[0] || e.tagName)(document.activeElement)"
            )
        )
        outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    assert reached[:4] == ["skip", "dataset", "metric", "filter"] and "SUMMARY" in reached
    assert "dt-column-order" in reached
    for metric in ("psnr", "mig"):
        button = head(tab, metric).locator("[role=button]")
        assert button.get_attribute("aria-label").startswith(f"{metric} ↑ higher is better")
    head(tab, "psnr").locator("[role=button]").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#table-0 th[aria-sort=descending]:has-text('psnr')")


def test_a_tooltip_says_what_the_table_says(written: Path, opened: Open) -> None:
    tab = opened(written)
    tab.locator("#seeds svg").scroll_into_view_if_needed()
    tab.locator("#seeds svg .mark-symbol.role-mark path").last.hover(force=True)
    tab.wait_for_selector("#vg-tooltip-element.visible")
    said = tab.locator("#vg-tooltip-element").inner_text()
    figures = re.search(r"\d\S* ± \S+", said)
    assert figures
    shown = tab.locator("#table-0 tbody").inner_text().replace("\n", " ")
    assert figures[0].replace(" ", "") in re.sub(r"\s", "", shown)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window(written: Path, opened: Open, width: int, scheme: str) -> None:
    tab = opened(written, width=width, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    ink = tab.evaluate("getComputedStyle(document.querySelector('#seeds svg text')).fill")
    assert (ink == "rgb(27, 30, 35)") == (scheme == "light")
    assert (
        tab.locator("#table-0 tbody th").first.evaluate("e => getComputedStyle(e).position")
        == "sticky"
    )


def test_hostile_names_are_text_everywhere(opened: Open, tmp_path: Path) -> None:
    rows = some(HOSTILE)
    extra = [
        row(
            float(n),
            HOSTILE[0] + "[" + HOSTILE[7] + "]",
            model=m,
            dataset=HOSTILE[7],
            family=HOSTILE[7],
            unit=HOSTILE[0],
            estimator=HOSTILE[0],
            note="",
            sampler=HOSTILE[7],
        )
        for n, m in enumerate(HOSTILE)
    ]
    for record in extra:
        record["hyperparameters"] = json.dumps({HOSTILE[0]: HOSTILE[7]})
    extra.append(row(math.nan, model=HOSTILE[0], dataset=HOSTILE[7], seed=5, note=HOSTILE[7]))
    out = tmp_path / "page.html"
    page([results(pd.concat([rows, pd.DataFrame(extra)]), HOSTILE[7])], out)
    tab = opened(out)
    for number in range(3):
        tab.locator("[name=dataset]").select_option(str(number))
        until(tab, f"!document.querySelector('#table-{number}').closest('[data-view]').hidden")
        tab.wait_for_selector("#seeds:not(.empty) svg, #seeds.empty", state="attached")
        tab.wait_for_timeout(150)
        shown = [name.strip() for name in names_in(tab, f"table-{number}")]
        for name in HOSTILE[:1] + HOSTILE[2:3] + HOSTILE[4:10]:
            assert any(name[:290] in text for text in shown), name
        for name in HOSTILE[:3] + HOSTILE[7:10]:
            assert any(name in text for text in drawn(tab, "seeds")), name
        assert HOSTILE[7] in tab.locator(".card:visible h3").all_text_contents()
    for text in (HOSTILE[0], HOSTILE[7], HOSTILE[9]):
        tab.get_by_label("Filter models by name").fill(text)
        tab.wait_for_timeout(50)
    tab.get_by_label("Filter models by name").fill("")
    tab.wait_for_timeout(150)
    for mark in tab.locator("#cost svg .mark-symbol.role-mark path").all()[:6]:
        mark.hover(force=True)
        tab.wait_for_timeout(30)
    assert tab.locator("#vg-tooltip-element").inner_text()
    assert tab.locator("img").count() == 0
    assert tab.locator("script").count() == tab.locator("script[type]").count()
    assert "49" not in tab.title() and not list(tmp_path.glob("**/b"))


def test_pages_of_little_open(opened: Open, tmp_path: Path) -> None:
    for n, rows in enumerate(
        [some(["ae"], 1, 1), some(["ae", "vae"], 1, 2), pd.DataFrame(columns=[*COLUMNS, *DETAILS])]
    ):
        out = tmp_path / f"{n}.html"
        page([results(rows)], out)
        tab = opened(out)
        assert tab.locator("#leaderboard").is_visible()
        if len(rows):
            assert "need two" in tab.locator("#over").inner_text()
            assert tab.locator("#ranks svg").count() == 0
            assert "no learning curves" in tab.locator("main").inner_text()


def test_pictures_beside_the_page_are_shown(
    store: Results, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "INLINE_BYTES", 0)
    page([store], tmp_path / "my page.html")
    tab = opened(tmp_path / "my page.html")
    image = tab.locator(".strip:visible img").first
    image.scroll_into_view_if_needed()
    until(tab, "document.querySelector('.strip:not([hidden]) img').naturalWidth > 0")


class InMemory(Results):
    """Results whose cells have histories, words and pictures, but no files."""

    shown: dict[str, Path] = {}

    def history(self, cell: str) -> list[dict[str, float]]:
        terms = [f"{split}/{term}" for split in ("train", "val") for term in synthetic.TERMS]
        return [
            {"epoch": n, **{term: 100 / n + len(cell) / 7 for term in terms}} for n in range(1, 51)
        ]

    def about(self, cell: str) -> dict[str, Any]:
        return {"about": {"description": "Synthetic.", "objective": r"-\log p(x \mid z)"}}

    def pictures(self, cell: str) -> dict[str, Path]:
        return self.shown


@pytest.mark.slow
def test_a_page_of_twenty_thousand_cells_is_small_and_opens(
    store: Results, opened: Open, tmp_path: Path
) -> None:
    rows = synthetic.rows(models=200, datasets=10, seeds=10, metrics=11)
    held = InMemory(tmp_path / "large", rows, {}, {})
    held.shown.update(store.pictures(next(iter(store.cells))))
    out = tmp_path / "large.html"
    page([held], out)
    assert out.stat().st_size < 20e6
    tab = opened(out)
    tab.wait_for_selector("#seeds svg")
