"""The leaderboard: statistics against closed forms, and tables whose structure survives."""

import csv
import io
import json
import math
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from aebench.benchmark.families import FAMILIES
from aebench.benchmark.leaderboard import Leaderboard, leaderboard
from aebench.benchmark.statistics import interval
from aebench.plugins import InputError
from rich.cells import cell_len
from scipy import stats

HOSTILE = [
    "pipe|in|name",
    "two\nlines\r\nand\u2028three",
    "<script>alert(1)</script>",
    r"100% of $x_1 & #2 {braces} \input{/etc/passwd} ~ ^",
    "a" * 300,
    "😀 emoji é",
    "\x1b[31mred\x1b[0m",
    "![picture](http://example.org)",
]


def row(value: float, metric: str = "mse", **given: object) -> dict[str, object]:
    """One row as the store gives it, with defaults."""
    made = {
        "dataset": "digits",
        "model": "vae",
        "hyperparameters": "{}",
        "backbone": "mlp",
        "seed": 0,
        "sampler": "",
        "metric": metric,
        "value": value,
        "unit": "",
        "family": "reconstruction",
        "better": "lower",
        "estimator": "",
        "note": "" if math.isfinite(value) else "it lacks something",
        **given,
    }
    made.setdefault("ranked", bool(made["better"]) and made["family"] != "cost")
    made.setdefault("cell", json.dumps([made[k] for k in ("dataset", "model", "backbone", "seed")]))
    made["cell"] += str(made["hyperparameters"])
    return made


def board(*rows: dict[str, object]) -> Leaderboard:
    return leaderboard(pd.DataFrame(rows))


def failure(**given: object) -> dict[str, object]:
    about = {"family": "status", "better": "", "note": "TrainingFailed: loss became nan", **given}
    return row(math.nan, "failed", **about)


def large() -> pd.DataFrame:
    """Two datasets, five models, three seeds, every family, some n/a, one failure."""
    rng = np.random.default_rng(0)
    models = [
        ("ae", {}),
        ("cvae", {}),
        ("pca", {}),
        ("b_vae", {"beta": 4.0}),
        ("b_vae", {"beta": 10.0}),
    ]
    metrics = [
        ("mse", "reconstruction", "lower", ""),
        ("psnr", "reconstruction", "higher", "dB"),
        ("ssim", "reconstruction", "higher", ""),
        ("nll[bernoulli]", "likelihood", "lower", "nats"),
        ("fid[classifier]", "generation", "lower", ""),
        ("kid[classifier]", "generation", "lower", ""),
        ("mig", "disentanglement", "higher", ""),
        ("interpolation_fid[classifier]", "interpolation", "lower", ""),
        ("nmi", "clustering", "higher", ""),
        ("logistic", "classification", "higher", ""),
        ("parameters", "cost", "", ""),
        ("train_seconds", "cost", "", "s"),
        ("peak_memory", "cost", "", "MiB"),
    ]
    rows = []
    for dataset in ("digits", "sprites(size=32,train=6000)"):
        for model, given in models:
            text = json.dumps({"latent_dim": 16, **given}, separators=(",", ":"))
            for seed in range(3):
                cell = {"dataset": dataset, "model": model, "hyperparameters": text, "seed": seed}
                if (dataset, model, seed) == ("digits", "cvae", 1):
                    rows.append(failure(**cell))
                    continue
                for metric, family, better, unit in metrics:
                    for sampler in ("gmm", "prior") if family == "generation" else ("",):
                        value = 1000.0 if metric == "parameters" else float(rng.uniform(0.1, 90))
                        if sampler == "prior" and model in ("ae", "pca"):
                            value = math.nan
                        about = {"family": family, "better": better, "unit": unit, **cell}
                        estimator = "1,000 samples" if sampler else ""
                        rows.append(
                            row(value, metric, sampler=sampler, estimator=estimator, **about)
                        )
    return pd.DataFrame(rows)


def test_a_model_with_other_metrics_unranks_no_other() -> None:
    places = ((1.0, "a"), (2.0, "b"), (3.0, "c"))
    rows = [row(value, name, model=model) for value, model in places for name in ("mse", "sse")]
    rows += [row(value, "knn", model=model) for value, model in ((1.0, "b"), (2.0, "c"))]
    rows += [row(0.1, "mse[1 quadrant]", model="shown"), row(1.0, "knn", model="shown")]
    (found,) = board(*rows).boards
    ranks = {line.label: line.rank for line in found.lines}
    assert found.ranked_by == ("mse", "sse")
    assert [ranks[name] for name in "abc"] == [1, 2, 3]
    assert math.isnan(ranks["shown"])
    assert "not ranked, as the others have other metrics: shown" in found.remarks
    # Two that share nothing are both without a rank.
    (found,) = board(row(1.0, "mse[1]", model="a"), row(1.0, "mse[2]", model="b")).boards
    assert all(math.isnan(line.rank) for line in found.lines)
    assert found.ranked_by == ()


@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_is_students(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    mean, half = interval(values.tolist())
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_interval_of_two_is_the_closed_form() -> None:
    # t with one degree of freedom is Cauchy: its 97.5 % quantile is tan(0.475 π).
    mean, half = interval([1.0, 2.0])
    assert mean == 1.5
    assert half == pytest.approx(math.tan(0.475 * math.pi) * 0.5)


def test_tables_do_not_import_torch() -> None:
    code = (
        "import sys, pandas as pd; from aebench.benchmark.leaderboard import leaderboard as l;"
        "l(pd.DataFrame(columns='dataset model hyperparameters backbone seed sampler metric value "
        "unit cell family better estimator note'.split())).draw('text', 80);"
        "sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_rows() -> None:
    empty = leaderboard(large().iloc[:0])
    assert "No results yet" in empty.draw("text", 80)
    assert "No results yet" in empty.draw("md")
    assert "No results yet" in empty.draw("latex")
    assert empty.draw("csv").startswith("dataset,rank,")


def test_ranks_average_ties_within_families_then_over_them() -> None:
    values = {  # two metrics of one family, one of another
        "a": (1.0, 10.0, 5.0),
        "b": (1.0, 20.0, 6.0),
        "c": (3.0, 30.0, 7.0),
    }
    rows = []
    for model, (mse, psnr, fid) in values.items():
        rows.append(row(mse, "mse", model=model))
        rows.append(row(psnr, "psnr", model=model, better="higher"))
        rows.append(row(fid, "fid", model=model, family="generation", sampler="prior"))
    made = board(*rows).boards[0]
    ranks = {line.model: line.rank for line in made.lines}
    # mse ranks 1.5 1.5 3, psnr 3 2 1, fid 1 2 3.
    assert ranks == {"a": (2.25 + 1) / 2, "b": (1.75 + 2) / 2, "c": (2 + 3) / 2}
    assert [line.model for line in made.lines] == ["a", "b", "c"]
    assert made.ranked_by == ("mse", "psnr", "fid")


def test_rank_uses_what_every_line_has_and_never_costs() -> None:
    rows = [
        row(2.0, "mse", model="a"),
        row(1.0, "mse", model="b"),
        row(1.0, "nll", model="a", family="likelihood"),
        row(math.nan, "nll", model="b", family="likelihood", note="no log_weights"),
        row(1.0, "train_seconds", model="a", family="cost", better=""),
        row(9.0, "train_seconds", model="b", family="cost", better=""),
    ]
    made = board(*rows)
    assert [(line.model, line.rank) for line in made.boards[0].lines] == [("b", 1), ("a", 2)]
    assert made.boards[0].ranked_by == ("mse",)
    assert "- rank: by mse" in made.draw("md")
    assert r"n/a: no log\_weights" in made.draw("latex")
    assert re.search(r"n/a: no log_weights \(nll, for b\)", made.draw("text", 80))


def test_no_common_metric_gives_no_rank() -> None:
    rows = [row(1.0, "nll[a]", model="z"), row(2.0, "nll[b]", model="y")]
    made = board(*rows)
    assert [line.model for line in made.boards[0].lines] == ["y", "z"]
    assert all(math.isnan(line.rank) for line in made.boards[0].lines)
    assert "no rank: no metric" in made.draw("text", 80)
    assert "n/a: scored as nll[b] (nll[a], for y)" in made.draw("text", 80)


def test_one_seed_has_no_interval_and_says_so() -> None:
    made = board(row(0.0123))
    assert made.boards[0].lines[0].scores["mse"].n == 1
    assert math.isnan(made.boards[0].lines[0].scores["mse"].half)
    for shown in (made.draw("text", 80), made.draw("md"), made.draw("latex")):
        assert "one seed: no interval" in shown
        assert "0.0123" in shown
        assert "±" not in shown


def test_seeds_without_a_value_are_counted() -> None:
    rows = [row(1.0, seed=0), row(2.0, seed=1), row(math.nan, seed=2)]
    made = board(*rows)
    score = made.boards[0].lines[0].scores["mse"]
    assert (score.mean, score.n, score.missing) == (1.5, 2, 1)
    assert "(n=2)" in made.draw("text", 80)
    assert "(n=2)" in made.draw("md")


def test_several_cells_of_a_seed_count_once_and_are_named() -> None:
    rows = [row(1.0, cell="short"), row(3.0, cell="long"), row(5.0, seed=1)]
    made = board(*rows)
    assert made.boards[0].lines[0].scores["mse"].n == 2
    assert made.boards[0].lines[0].scores["mse"].mean == 3.5
    assert "mix cells" in made.draw("md")


def test_failed_cells_are_shown() -> None:
    rows = [row(1.0, seed=0), failure(seed=1), row(1.0, model="ae"), failure(model="gone")]
    made = board(*rows)
    lines = {line.model: line for line in made.boards[0].lines}
    assert (lines["vae"].seeds, lines["vae"].failed) == (1, 1)
    assert (lines["gone"].seeds, lines["gone"].failed) == (0, 1)
    assert math.isnan(lines["gone"].rank)
    assert lines["ae"].rank == 1.5  # a model without any value does not keep others from a rank
    for shown in (made.draw("text", 80), made.draw("md"), made.draw("latex")):
        assert "failed: vae, mlp, seed 1: TrainingFailed: loss became nan" in shown
        assert re.search(r"gone.*failed", shown)


def test_samplers_have_lines_and_share_the_rest() -> None:
    rows = [
        row(0.1, "mse", model="ae"),
        row(math.nan, "fid", model="ae", family="generation", sampler="prior"),
        row(5.0, "fid", model="ae", family="generation", sampler="gmm"),
        row(0.2, "mse"),
        row(4.0, "fid", family="generation", sampler="prior"),
        row(6.0, "fid", family="generation", sampler="gmm"),
        row(0.3, "mse", model="none_serves"),
        row(math.nan, "fid", model="none_serves", family="generation", sampler="gmm"),
    ]
    made = board(*rows)
    found = {(x.model, x.sampler): (x.mean("mse"), x.mean("fid")) for x in made.boards[0].lines}
    assert found.pop(("none_serves", ""))[0] == 0.3
    assert found == {
        ("ae", "gmm"): (0.1, 5.0),
        ("vae", "prior"): (0.2, 4.0),
        ("vae", "gmm"): (0.2, 6.0),
    }
    assert "none" in set(made.lines["sampler"])


def test_label_shows_what_varies_within_the_dataset() -> None:
    rows = [
        row(1.0, model="b", hyperparameters='{"beta":4.0,"latent_dim":16}'),
        row(1.0, model="b", hyperparameters='{"beta":10.0,"latent_dim":16}'),
        row(1.0, model="c", hyperparameters='{"beta":3.0,"latent_dim":16}'),
        row(1.0, model="b", dataset="other", hyperparameters='{"beta":4.0,"latent_dim":16}'),
    ]
    digits, other = board(*rows).boards
    assert {line.label for line in digits.lines} == {"b(beta=4)", "b(beta=10)", "c"}
    assert [line.label for line in other.lines] == ["b"]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0121, 0.0125, 0.0123], "0.0123 ± 0.0005"),
        ([12.1, 12.5, 12.3], "12.3 ± 0.5"),
        ([0.98762, 0.98764, 0.98760], "0.9876 ± 0.0000"),
        ([0.9876, 0.9878, 0.9877], "0.9877 ± 0.0002"),
        ([1234.0, 1300.0, 1265.0], "1266 ± 82"),
        ([3.1e-6, 3.2e-6, 3.3e-6], "3.20e-06 ± 0.25e-06"),
        ([0.0, 0.0, 0.0], "0.000 ± 0.000"),
        ([-0.0001, -0.02, 0.02], "**0.0000 ± 0.0497**"),
        ([-91.2, -90.2, -92.2], "-91.2 ± 2.5"),
    ],
)
def test_figures(values: list[float], shown: str) -> None:
    made = board(*(row(value, seed=seed) for seed, value in enumerate(values)))
    assert shown in made.draw("md")


def test_counts_have_no_decimals() -> None:
    about = {"family": "cost", "better": ""}
    made = board(*(row(1234567.0, "parameters", seed=s, **about) for s in range(3)))
    assert "| 1234567 |" in made.draw("md")


def test_bold_is_the_best_and_all_that_tie_to_the_shown_digits() -> None:
    values = {"a": 0.91234, "b": 0.91239, "c": 0.9, "d": 0.2}
    made = board(*(row(v, "acc", model=m, better="higher") for m, v in values.items()))
    assert re.findall(r"\| ([a-d]) \|.*\*\*([\d.]+)\*\*", made.draw("md")) == [
        ("b", "0.912"),
        ("a", "0.912"),
    ]
    assert re.findall(r"& ([a-d]) &.*textbf\{([\d.]+)\}", made.draw("latex")) == [
        ("b", "0.912"),
        ("a", "0.912"),
    ]
    assert made.draw("text", 80).count("0.912*") == 2
    bold = made.draw("text", 80, bold=True)
    assert bold.count("\x1b[1m0.912\x1b[0m") == 2
    assert "*" not in bold


def test_arrows_units_and_order_of_columns() -> None:
    made = leaderboard(large())
    page = made.draw("md").partition("## sprites")[0]
    families = re.findall(r"^### (.*)$", page, flags=re.MULTILINE)
    assert families == [f for f in (*FAMILIES, "cost") if f in {m.family for m in made.measures}]
    headers = re.findall(r"^\| (rank .*) \|$", page, flags=re.MULTILINE)
    who = ["rank", "model", "backbone", "sampler"]
    tables = [header.split(" | ") for header in headers]
    assert [cells[:4] for cells in tables] == [who] * len(families)
    assert [cell for cells in tables for cell in cells[4:]] == [
        *("mse ↓", "psnr (dB) ↑", "ssim ↑", "nll[bernoulli] (nats) ↓", "fid[classifier] ↓"),
        *("kid[classifier] ↓", "mig ↑", "interpolation_fid[classifier] ↓", "nmi ↑", "logistic ↑"),
        *("parameters", "train_seconds (s)", "seeds", "failed"),
    ]
    assert "$\\uparrow$ dB" in made.draw("latex")
    assert "1,000 samples" in made.draw("md")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_text_fits(width: int) -> None:
    shown = leaderboard(large()).draw("text", width)
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    for metric in ("mse", "psnr", "interpolation_fid", "train_seconds", "failed"):
        assert metric in shown
    assert "…" not in shown


def test_csv_is_whole() -> None:
    made = leaderboard(large())
    records = list(csv.DictReader(io.StringIO(made.draw("csv"))))
    assert len(records) == sum(len(b.lines) for b in made.boards)
    line = made.boards[0].lines[0]
    first = records[0]
    assert float(first["mse"]) == line.scores["mse"].mean
    assert float(first["mse_ci95"]) == line.scores["mse"].half
    assert (first["mse_n"], first["failed"]) == (str(line.scores["mse"].n), str(line.failed))
    assert "peak_memory" in first


def test_order_of_rows_does_not_matter() -> None:
    rows, rng = large(), np.random.default_rng(1)
    made = leaderboard(rows)
    for _ in range(3):
        other = leaderboard(rows.iloc[rng.permutation(len(rows))])
        assert other.draw("csv") == made.draw("csv")
        assert other.draw("md") == made.draw("md")
        assert other.draw("latex") == made.draw("latex")
        assert other.draw("text", 80) == made.draw("text", 80)


def hostile() -> Leaderboard:
    rows = []
    for name in HOSTILE:
        text = json.dumps({"x": name})
        rows += [
            row(1.0, f"mse[{name}]", model=name, dataset=name, unit=name, estimator=name),
            row(2.0, model=name, dataset=name, hyperparameters=text, sampler=name, backbone=name),
            row(math.nan, "psnr", model=name, dataset=name, note=name, hyperparameters=text),
            failure(model=name, dataset=name, note=name, seed=1),
        ]
    return board(*rows)


def test_markdown_survives_hostile_names() -> None:
    shown = hostile().draw("md")
    assert "<script" not in shown
    assert "](http" not in shown
    assert "\x1b" not in shown
    widths = []
    for line in shown.split("\n"):
        if line.startswith("|"):
            assert line.endswith(" |")
            widths.append(len(re.findall(r"(?<!\\)\|", line)) - 1)
        else:
            assert line == "" or line.startswith(("# ", "## ", "- "))
    assert len(widths) == 5 * len(HOSTILE)
    assert set(widths) <= {6, 7, 8}


def test_text_survives_hostile_names() -> None:
    shown = hostile().draw("text", 100)
    assert "\x1b" not in shown
    assert not {"\r", "\u2028"} & set(shown)
    assert max(cell_len(line) for line in shown.split("\n")) <= 100


def test_csv_survives_hostile_names() -> None:
    records = list(csv.DictReader(io.StringIO(hostile().draw("csv"), newline="")))
    assert {record["model"] for record in records} == set(HOSTILE)
    assert all(None not in record for record in records)


def test_latex_escapes() -> None:
    shown = hostile().draw("latex")
    assert r"100\% of \$x\_1 \& \#2" in shown
    assert r"\textless{}script\textgreater{}alert" in shown
    assert "{[}U+1F600] emoji é" in shown
    for line in shown.split("\n"):
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) <= 9
    assert not re.search(r"(?<!\\)\\input(?!enc)", shown)


@pytest.mark.parametrize("name", ["fid[classifier]", "fid"])
def test_only_one_metric_best_first(name: str) -> None:
    whole = leaderboard(large())
    made = whole.only(name)
    for before, after in zip(whole.boards, made.boards):
        assert len(after.lines) == len(before.lines)
        means = [line.mean("fid[classifier]") for line in after.lines]
        assert means == sorted(means)
        assert [line.rank for line in after.lines] == list(range(1, len(means) + 1))
    assert "mse" not in made.draw("csv")
    assert "rank: by fid[classifier]" in made.draw("text", 80)


def test_only_higher_and_costs_and_missing() -> None:
    made = leaderboard(large()).only("psnr").boards[0]
    means = [line.mean("psnr") for line in made.lines]
    assert means == sorted(means, reverse=True)
    assert "peak_memory" in leaderboard(large()).only("peak_memory").draw("text", 80)
    rows = [row(math.nan, model="a"), row(2.0, model="b"), row(1.0, model="c")]
    assert [line.model for line in board(*rows).only("mse").boards[0].lines] == ["c", "b", "a"]


def test_only_an_unknown_metric_names_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"'fad'.*valid: .*fid\[classifier\].*mse"):
        leaderboard(large()).only("fad")


def test_what_a_model_lacks_altogether_it_lacks_under_every_qualifier() -> None:
    """An unqualified n/a row fills the qualified columns and has none of its own."""
    found = board(
        row(90.0, "nll[bernoulli]", model="vae", better="lower", family="likelihood"),
        row(math.nan, "nll", model="ae", better="lower", family="likelihood", note="has none"),
    )
    assert [measure.name for measure in found.measures] == ["nll[bernoulli]"]
    assert "has none" in found.draw("md")
    assert "scored as" not in found.draw("md")


def test_a_metric_with_and_without_a_qualifier_has_two_columns() -> None:
    found = board(
        row(0.1, "smoothness", model="vae", better="lower"),
        row(0.2, "smoothness[label]", model="cvae", better="lower"),
    )
    assert [measure.name for measure in found.measures] == ["smoothness", "smoothness[label]"]
    means = {
        line.model: [line.mean(m.name) for m in found.measures] for line in found.boards[0].lines
    }
    assert means["vae"][0] == 0.1
    assert math.isnan(means["vae"][1])
    assert means["cvae"][1] == 0.2
    assert math.isnan(means["cvae"][0])


def test_the_headline_shows_what_is_ranked_and_names_the_rest() -> None:
    rows = [
        row(0.1, "mse"),
        row(6.4, "sse", ranked=False),
        row(math.nan, "lpips", ranked=False),
        row(0.5, "probe[shape]", family="classification", better="higher", ranked=False),
        row(0.7, "probe[x]", family="classification", better="higher", ranked=False),
        row(3.0, "train_seconds", family="cost", better=""),
    ]
    whole, shown = board(*rows), board(*rows).headline()
    assert [m.name for m in shown.measures] == ["mse", "train_seconds"]
    assert shown.boards[0].ranked_by == whole.boards[0].ranked_by == ("mse",)
    assert [line.rank for line in shown.boards[0].lines] == [1]
    text = " ".join(shown.draw("text", 80).split())
    assert "reported beside these, by name or in the CSV: sse, probe" in text
    assert "6.4" not in text
    assert "6.40" in whole.only("sse").draw("text", 80)
    assert [m.name for m in whole.only("classification").measures] == ["probe[shape]", "probe[x]"]
    assert board(*rows[1:2]).headline().measures == board(*rows[1:2]).measures


def with_samplers() -> list[dict[str, object]]:
    """Two models under two samplers, of which one is that of the paper."""
    return [
        row(value, "fid", model=model, family="generation", sampler=sampler, own=own, seed=seed)
        for model, sampler, own, value in (
            ("vae", "prior", True, 4.0),
            ("vae", "gmm", False, 3.0),
            ("ae", "gmm", True, 5.0),
        )
        for seed in range(2)
    ]


def test_the_papers_own_sampler_is_marked() -> None:
    made = board(*with_samplers())
    own = {(line.model, line.sampler): line.own for line in made.boards[0].lines}
    assert own == {("vae", "prior"): True, ("vae", "gmm"): False, ("ae", "gmm"): True}
    legend = "the sampler that the model's paper uses"
    markdown, text, latex = made.draw("md"), made.draw("text", 80), made.draw("latex")
    assert re.findall(r"\| (vae|ae) \| mlp \| ([^|]+?) \|", markdown) == [
        ("vae", "gmm"),
        ("vae", "prior †"),
        ("ae", "gmm †"),
    ]
    assert f"- † {legend}" in markdown
    assert re.search(r"vae +mlp +prior † ", text)
    assert re.search(r"vae +mlp +gmm  ", text)
    assert f"- † {legend}" in text
    assert r"& prior $\dagger$ &" in latex
    assert "& gmm &" in latex
    assert rf"\item $\dagger$ {legend}" in latex
    records = list(csv.DictReader(io.StringIO(made.draw("csv"))))
    assert [(r["model"], r["sampler"], r["own"]) for r in records] == [
        ("vae", "gmm", "False"),
        ("vae", "prior", "True"),
        ("ae", "gmm", "True"),
    ]


def test_rows_of_older_stores_mark_no_sampler() -> None:
    rows = [{key: value for key, value in r.items() if key != "own"} for r in with_samplers()]
    made = board(*rows)
    assert not made.lines["own"].any()
    for shown in (made.draw("md"), made.draw("text", 80), made.draw("latex")):
        assert "†" not in shown
        assert "dagger" not in shown
