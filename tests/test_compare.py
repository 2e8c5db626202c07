"""A model against baselines: claims on simulated rows whose truth is known, and honest words."""

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from aebench.benchmark import statistics
from aebench.benchmark.compare import Comparison, Pair, compare, over_datasets
from aebench.benchmark.leaderboard import leaderboard
from aebench.benchmark.report import verdict
from aebench.plugins import InputError
from scipy import stats
from test_leaderboard import HOSTILE as ALSO_HOSTILE

HOSTILE = [*ALSO_HOSTILE, "a/../../b", "😀 emoji é '\""]
Rows = list[dict[str, object]]


def row(value: float, **given: object) -> dict[str, object]:
    """One row as the store gives it, with defaults."""
    made: dict[str, object] = {
        "dataset": "digits",
        "model": "vae",
        "hyperparameters": "{}",
        "backbone": "mlp",
        "seed": 0,
        "sampler": "",
        "own": False,
        "metric": "psnr",
        "value": value,
        "unit": "",
        "family": "reconstruction",
        "better": "higher",
        "ranked": True,
        "estimator": "",
        "note": "" if math.isfinite(value) else "it lacks something",
        **given,
    }
    keys = ("dataset", "model", "backbone", "seed", "hyperparameters")
    made.setdefault("cell", json.dumps([made[key] for key in keys]))
    return made


def seeds(model: str, values: Iterable[float], **given: object) -> Rows:
    """A model's values, a seed each."""
    return [row(value, model=model, seed=n, **given) for n, value in enumerate(values)]


def failure(**given: object) -> dict[str, object]:
    about = {"family": "status", "better": "", "ranked": False, "note": "TrainingFailed: nan"}
    return row(math.nan, metric="failed", **{**about, **given})


def cost(model: str, value: float, name: str = "train_seconds", **given: object) -> Rows:
    about = {"metric": name, "family": "cost", "better": "", "ranked": False, "unit": "s"}
    return seeds(model, [value, value], **{**about, **given})


def made(*rows: Rows, model: str = "new", **given: object) -> Comparison:
    return compare(pd.DataFrame([r for part in rows for r in part]), model, **given)  # type: ignore


def only_pair(*rows: Rows, **given: object) -> Pair:
    (pair,) = made(*rows, **given).pairs
    return pair


def simulated(
    models: Mapping[str, tuple[float, float, int]], metrics: int, seed: int = 0
) -> pd.DataFrame:
    """Normal noise: the mean, deviation and seeds of every model, by as many metrics."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for model, (mean, deviation, n) in models.items():
        for metric in range(metrics):
            rows += seeds(model, rng.normal(mean, deviation, n), metric=f"m{metric}")
    return pd.DataFrame(rows)


def outcomes(found: Comparison) -> dict[str, set[str]]:
    """What is claimed by each metric."""
    claims: dict[str, set[str]] = {}
    for pair in found.pairs:
        claims.setdefault(pair.measure.name, set()).add(pair.outcome)
    return claims


# Claims.


@pytest.mark.parametrize(
    "models",
    [
        {"new": (0, 1, 3), "a": (0, 1, 3)},
        {"new": (0, 1, 2), "a": (0, 1, 2)},
        {"new": (0, 1, 5), "a": (0, 10, 5)},
        {"new": (0, 1, 3), "a": (0, 1, 3), "b": (0, 1, 3), "c": (0, 3, 3), "d": (0, 1, 3)},
    ],
    ids=["three seeds", "two seeds", "unequal variances", "four baselines"],
)
def test_without_a_difference_one_in_twenty_is_claimed_at_most(models) -> None:
    number = 1000
    claims = outcomes(compare(simulated(models, number), "new")).values()
    false = sum(bool(claimed & {"better", "worse"}) for claimed in claims)
    assert false / number <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / number)


def test_intervals_hold_the_true_difference_and_gains_are_found() -> None:
    models = {"new": (3.0, 1.0, 5), "a": (0.0, 2.0, 5)}
    pairs = compare(simulated(models, 1000), "new").pairs
    held = [pair.difference.low <= 3 <= pair.difference.high for pair in pairs]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)
    assert np.mean([pair.outcome == "better" for pair in pairs]) > 0.5
    assert not any(pair.outcome == "worse" for pair in pairs)


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_scores_of_two_values_that_repeat_by_chance_are_not_claimed(n: int) -> None:
    """All pairs of outcomes of n seeds, by their probability: a saturated accuracy, say."""
    values = [[float(1 & (k >> i)) for i in range(n)] for k in range(2**n)]
    counts: dict[tuple[float, float], int] = {}
    for a in values:
        for b in values:
            key = (sum(a), sum(b))
            counts[key] = counts.get(key, 0) + 1
    rows: Rows = []
    for metric, (a, b) in enumerate(counts):
        for model, ones in (("new", a), ("a", b)):
            held = [1.0] * int(ones) + [0.0] * int(n - ones)
            rows += seeds(model, held, metric=f"m{metric}")
    claims = outcomes(made(rows))
    false = sum(
        count
        for metric, count in enumerate(counts.values())
        if claims[f"m{metric}"] & {"better", "worse"}
    )
    assert false / 4**n <= 0.05


@pytest.mark.parametrize(("better", "outcome"), [("higher", "better"), ("lower", "worse")])
def test_direction(better: str, outcome: str) -> None:
    about = {"better": better}
    pair = only_pair(seeds("new", [5.0, 5.1, 5.2], **about), seeds("a", [1.0, 1.1, 1.2], **about))
    assert pair.outcome == outcome
    assert pair.difference.mean == pytest.approx(4)
    assert pair.win_rate == (1 if outcome == "better" else 0)
    assert pair.relative == pytest.approx(4 / 1.1)


def test_p_values_are_welchs_corrected_by_holm() -> None:
    rng = np.random.default_rng(3)
    values = {name: rng.normal(n, 1 + n, 4 + n) for n, name in enumerate(["new", "a", "b", "c"])}
    found = made(*(seeds(model, held) for model, held in values.items()))
    p = {m: stats.ttest_ind(values["new"], values[m], equal_var=False).pvalue for m in "abc"}
    ordered = sorted(p, key=lambda m: p[m])
    expected, largest = {}, 0.0
    for step, name in enumerate(ordered):
        largest = max(largest, min(1.0, (3 - step) * p[name]))
        expected[name] = largest
    for pair in found.pairs:
        assert pair.difference.p == pytest.approx(p[pair.baseline])
        assert pair.p_holm == pytest.approx(expected[pair.baseline])
        if pair.outcome == "undecided":
            assert pair.seeds_needed == statistics.seeds_needed(
                pair.difference.mean, pair.new.sd, pair.old.sd, alpha=0.05 / 3
            )


def test_the_seeds_needed_suffice() -> None:
    """Trained anew with as many seeds, four of five comparisons of this size are decided."""
    pair = only_pair(seeds("new", [1.0, 2.0, 3.0]), seeds("a", [0.0, 1.0, 2.0]))
    assert pair.outcome == "undecided"
    n = int(pair.seeds_needed)
    assert n == 17  # Cohen, 1988: 17 a group for d = 1 and power 80 %
    found = compare(simulated({"new": (1, 1, n), "a": (0, 1, n)}, 1000), "new")
    assert np.mean([p.outcome == "better" for p in found.pairs]) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(("n", "outcome"), [(2, "undecided"), (3, "better")])
def test_deterministic_models(n: int, outcome: str) -> None:
    pair = only_pair(seeds("new", [2.0] * n), seeds("a", [1.0] * n))
    assert pair.outcome == outcome
    assert pair.p_holm == 2 * 0.25**n
    assert (pair.difference.low, pair.difference.high) == (1, 1)
    assert math.isnan(pair.seeds_needed) if n == 3 else pair.seeds_needed == 3


def test_models_that_are_the_same_are_never_told_apart() -> None:
    found = made(seeds("new", [0.3] * 9), seeds("a", [0.1 + 0.2] * 9))
    assert found.pairs[0].outcome == "undecided"
    assert found.pairs[0].seeds_needed == math.inf
    assert "seeds a model" not in found.verdict.partition("\n")[2]
    assert "does not show that they are equal" in found.verdict


def test_one_seed_shows_no_certainty() -> None:
    found = made(seeds("new", [9.0]), seeds("a", [1.0]), seeds("b", [2.0]))
    assert {pair.outcome for pair in found.pairs} == {"one seed"}
    assert all(math.isnan(pair.p_holm) for pair in found.pairs)
    assert found.verdict.startswith(
        "new against the best of 2 baselines: not decided. One seed shows no certainty."
    )
    assert "ahead on 1 of 1 comparison " in found.verdict
    assert "p =" not in found.draw("text")


def test_one_seed_of_a_baseline_is_said() -> None:
    found = made(seeds("new", [9.0, 9.1]), seeds("a", [1.0]))
    assert found.pairs[0].outcome == "one seed"
    found = made(
        seeds("new", [9.0, 9.1]),
        *(seeds("a", held, metric=m) for m, held in (("psnr", [1.0]), ("ssim", [1.0, 1.1]))),
        seeds("new", [9.0, 9.1], metric="ssim"),
    )
    assert "without a test on 1 (one seed)" in found.verdict


# The best baseline.


def test_the_best_baseline_by_direction_and_ties_by_name() -> None:
    for better, best in (("higher", "b"), ("lower", "a")):
        values = {"new": [3.0, 3.1], "c": [2.0, 2.1], "b": [2.0, 2.1], "a": [1.0, 1.1]}
        found = made(*(seeds(model, held, better=better) for model, held in values.items()))
        assert [pair.baseline for pair in found.against_best] == [best]


def test_what_has_no_value_is_never_averaged_nor_best() -> None:
    found = made(
        seeds("new", [3.0, math.nan, 5.0]),
        seeds("a", [math.nan, math.nan]),
        seeds("b", [1.0, 1.1, 1.2]),
    )
    pairs = {pair.baseline: pair for pair in found.pairs}
    assert pairs["a"].outcome == "n/a"
    assert (pairs["b"].new.mean, pairs["b"].new.n) == (4, 2)
    assert [pair.baseline for pair in found.against_best] == ["b"]
    assert "2, 3" in found.draw("text")


# Datasets.


def over(datasets: int, **given: object) -> Comparison:
    rows = []
    for n in range(datasets):
        rows += seeds("new", [n + 1.0, n + 1.5], dataset=f"d{n}")
        rows += seeds("a", [n + 0.5, n + 0.9], dataset=f"d{n}")
    return made(rows, **given)


def test_over_six_datasets_there_is_a_test() -> None:
    found = over(6)
    assert not any(pair.outcome == "better" for pair in found.pairs)  # none alone
    assert [(o.p, o.outcome, o.win_rate) for o in found.overall] == [(2 / 2**6, "better", 1)]
    assert "better by 1, worse by 0, undecided by 0 of 1 metrics" in found.verdict
    assert "over datasets" in found.draw("text")


def test_few_datasets_decide_nothing_beyond_themselves() -> None:
    found = over(5)
    assert not found.overall
    assert "5 datasets decide nothing beyond themselves" in found.verdict
    assert "beyond themselves" not in over(1).verdict


def test_the_test_over_datasets_is_corrected_for_baselines() -> None:
    rows: Rows = []
    for n in range(6):
        for model, value in (("new", 2.0), ("a", 1.0), ("b", 1.5)):
            rows += seeds(model, [n + value], dataset=f"d{n}")
    found = made(rows)
    assert [o.p for o in found.overall] == [2 / 2**6] * 2
    assert [o.p_holm for o in found.overall] == [4 / 2**6] * 2
    assert {o.outcome for o in found.overall} == {"undecided"}


def test_over_datasets_lower_is_better_and_ties_are_half() -> None:
    rows: Rows = []
    for n in range(8):
        rows += seeds("new", [1.0], dataset=f"d{n}", better="lower")
        rows += seeds("a", [1.0 if n == 0 else 0.5], dataset=f"d{n}", better="lower")
    (found,) = over_datasets(made(rows).pairs)
    assert (found.outcome, found.win_rate) == ("worse", 0.5 / 8)


def test_datasets_without_the_model_or_a_baseline_are_named() -> None:
    rows = [seeds(m, [1.0, 2.0], dataset=d) for m, d in (("new", "x"), ("a", "x"), ("a", "z"))]
    rows.append(seeds("b", [1.0, 2.0], dataset="z"))
    found = made(*rows, seeds("new", [1.0, 2.0], dataset="y"), seeds("b", [2.0, 3.0], dataset="y"))
    assert found.datasets == ("x", "y")
    assert "new has no results on z" in found.notes
    assert "without results on x: b" in found.notes
    assert "without results on y: a" in found.notes
    found = made(*rows, datasets=["x"], baselines=["a"])
    assert found.datasets == ("x",)
    with pytest.raises(InputError, match=r"'new' in these results.*valid: a, b"):
        made(*rows, datasets=["z"])
    with pytest.raises(InputError, match="shares no dataset and metric"):
        made(*rows, baselines=["b"])


def test_failures_are_named_and_counted() -> None:
    found = made(
        seeds("new", [1.0, 2.0]),
        [failure(model="new", seed=2), failure(model="a", seed=2)],
        seeds("a", [1.0, 2.0]),
    )
    notes = " ".join(found.notes)
    assert "1 cell of new failed" in notes
    assert "new, mlp, seed 2 on digits (TrainingFailed: nan)" in notes
    assert "1 cell of a failed" in notes
    assert "1 cell of it failed; the numbers are of the others." in found.verdict
    found = made([failure(model="new")], seeds("a", [1.0, 2.0]))
    assert "nothing to compare" in found.verdict
    assert "new has no value of psnr: its cells failed" in found.notes


# Names.


def sampled(model: str, sampler: str, value: float, own: bool = False) -> Rows:
    about = {"metric": "fid", "better": "lower", "family": "generation"}
    return seeds(model, [value, value + 0.1], sampler=sampler, own=own, **about)


def test_each_model_draws_with_its_papers_sampler_not_with_the_best() -> None:
    rows = [sampled("new", "prior", 4, own=True), sampled("new", "gmm", 1)]
    rows += [sampled("a", "gmm", 3, own=True), sampled("a", "prior", 2)]
    pair = only_pair(*rows)
    assert pair.samplers == ("prior", "gmm")
    assert pair.difference.mean == pytest.approx(1)
    notes = " ".join(made(*rows).notes)
    assert "that of its paper, never with the best of several" in notes
    assert "new with prior; a with gmm" in notes
    assert only_pair(*rows, model="new/gmm").samplers == ("gmm", "gmm")
    found = made(*rows, model="new/mlp/gmm", baselines=["a/prior"])
    assert (found.model, found.baselines) == ("new/mlp/gmm", ("a/prior",))
    assert found.pairs[0].samplers == ("gmm", "prior")
    assert found.pairs[0].difference.mean == pytest.approx(-1)


def test_without_papers_samplers_one_that_both_have() -> None:
    rows = [sampled("new", "prior", 4), sampled("new", "gmm", 1), sampled("a", "prior", 2)]
    assert only_pair(*rows).samplers == ("prior", "prior")
    assert "one that both have" in " ".join(made(*rows).notes)
    rows[2] = sampled("a", "flow", 2, own=True)
    assert only_pair(*rows).samplers == ("gmm", "flow")


def test_labels_and_backbones() -> None:
    variants = [
        seeds("b", [beta, beta + 0.1], hyperparameters=json.dumps({"beta": beta}))
        for beta in (1.0, 4.0)
    ]
    found = made(*variants, model="b(beta=4)")
    assert (found.model, found.baselines) == ("b(beta=4)", ("b(beta=1)",))
    with pytest.raises(InputError, match=r"'b' is several models.*b\(beta=1\), b\(beta=4\)"):
        made(*variants, model="b")
    # A label that is also the name of a model with other labels elsewhere is that line's.
    elsewhere = seeds("b", [1.0, 2.0], dataset="z") + seeds("a", [1.0, 2.0], dataset="z")
    assert made(*variants, elsewhere, model="b").datasets == ("z",)
    backbones = [
        seeds(model, [1.0, 1.1], backbone=backbone)
        for model in ("new", "a")
        for backbone in ("mlp(hidden=[8])", "conv")
    ]
    with pytest.raises(InputError, match=r"name one of them: new/conv, new/mlp\(hidden=\[8\]\)"):
        made(*backbones)
    found = made(*backbones, model="new/mlp")
    assert found.model == "new/mlp(hidden=[8])"
    assert found.baselines == ("a/mlp(hidden=[8])",)
    assert made(*backbones, model="new/mlp", baselines=["new/conv"]).baselines == ("new/conv",)
    both = ["a/conv", "a/mlp"]
    assert len(made(*backbones, model="new/mlp", baselines=both).baselines) == 2
    # The same model on one backbone here and on another there is one.
    split = [
        seeds(model, [1.0, 1.1], dataset=dataset, backbone=backbone)
        for model in ("new", "a")
        for dataset, backbone in (("x", "mlp"), ("y", "conv"))
    ]
    assert made(*split).datasets == ("x", "y")
    assert made(*split).baselines == ("a",)


def test_bad_names() -> None:
    rows = [seeds("new", [1.0, 2.0]), seeds("vae", [1.0, 2.0])]
    with pytest.raises(InputError, match=r"no model 'vea'.*did you mean 'vae'.*valid: new, vae"):
        made(*rows, model="vea")
    with pytest.raises(InputError, match=r"no model 'aee'"):
        made(*rows, baselines=["aee"])
    with pytest.raises(InputError, match="'new' is the model itself"):
        made(*rows, baselines=["vae", "new"])
    with pytest.raises(InputError, match="name one baseline"):
        made(*rows, baselines=[])
    with pytest.raises(InputError, match="no model beside 'new'"):
        made(rows[0])
    with pytest.raises(InputError, match="no dataset 'x'"):
        made(*rows, datasets=["x"])


def test_metrics_are_the_ranked_ones_or_those_named() -> None:
    metrics: Sequence[dict[str, object]] = (
        {"metric": "psnr"},
        {"metric": "sse", "ranked": False, "better": "lower"},
        {"metric": "kl", "ranked": False, "better": "", "family": "likelihood"},
        {"metric": "nll[x]", "ranked": False, "better": "lower", "family": "likelihood"},
    )
    rows = [seeds(m, [1.0, 2.0], **about) for m in ("new", "a") for about in metrics]
    rows += [cost("new", 2), cost("a", 1)]

    def names(metrics: list[str] | None) -> list[str]:
        return [pair.measure.name for pair in made(*rows, metrics=metrics).pairs]

    assert names(None) == ["psnr"]
    assert names(["sse", "nll"]) == ["sse", "nll[x]"]
    assert names(["likelihood"]) == ["nll[x]"]
    assert made(*rows, metrics=["sse"]).costs
    for bad in (["kl"], ["cost"]):
        with pytest.raises(InputError, match=r"better or worse; valid: nll\[x\], psnr, sse"):
            names(bad)
    with pytest.raises(InputError, match=r"no metric 'psn'"):
        names(["psn"])


# Cost and units.


def test_costs_are_ratios_on_a_named_device() -> None:
    rows = [r for m in ("new", "a", "b") for r in seeds(m, [1.0, 2.0])]
    rows += [*cost("new", 6), *cost("a", 3), *cost("b", 1)]
    rows += [*cost("new", 10, "parameters", unit=""), *cost("a", 0, "parameters", unit="")]
    frame = pd.DataFrame(rows)
    devices = dict.fromkeys(frame["cell"], "cpu")
    found = compare(frame, "new", devices=devices)
    assert "training time ×4.00 (×2.00 to ×6.00); on cpu." in found.verdict
    assert "parameters" not in found.verdict  # nothing over no parameters
    devices |= dict.fromkeys(frame.loc[frame["model"] == "b", "cell"], "cuda")
    found = compare(frame, "new", devices=devices)
    assert "different devices (cpu, cuda): times and memory do not compare" in found.verdict
    alone = compare(frame, "new", ["a"], devices=devices)
    assert "Cost over that of the baseline: training time ×2.00; on cpu." in alone.verdict
    assert "; on" not in compare(frame, "new").verdict


def test_costs_are_geometric_means_over_datasets() -> None:
    rows: Rows = []
    for dataset, ratio in (("x", 8.0), ("y", 0.5)):
        for model, value in (("new", ratio), ("a", 1.0)):
            rows += seeds(model, [1.0, 2.0], dataset=dataset)
            rows += cost(model, value, dataset=dataset)
    assert "training time ×2.00." in made(rows).verdict


@pytest.mark.parametrize(
    ("unit", "old", "shown"),
    [
        ("", 2.0, 0.5),
        ("dB", 2.0, math.nan),
        ("nats", 2.0, math.nan),
        ("", -2.0, math.nan),
        ("", 0.0, math.nan),
    ],
)
def test_relative_only_where_a_ratio_says_something(unit, old, shown) -> None:
    pair = only_pair(seeds("new", [3.0, 3.0], unit=unit), seeds("a", [old, old], unit=unit))
    assert pair.relative == pytest.approx(shown, nan_ok=True)


def test_other_networks_and_budgets_are_said() -> None:
    def settings(epochs: int) -> str:
        return json.dumps({"training.epochs": epochs, "latent_dim": epochs})

    found = made(
        seeds("new", [1.0, 2.0], hyperparameters=settings(5)),
        seeds("a", [1.0, 2.0], hyperparameters=settings(50), backbone="conv"),
        seeds("b", [1.0, 2.0], hyperparameters=settings(5), backbone="none"),
    )
    assert "on other networks (conv, not mlp): a" in found.notes
    assert "trained otherwise (epochs 50, not 5): a" in found.notes
    assert sum("networks" in note for note in found.notes) == 1  # b has none
    assert not any("latent" in note for note in found.notes)


# Words and tables.


def several() -> pd.DataFrame:
    """Three models, two datasets, some n/a, a failure, costs."""
    rng = np.random.default_rng(0)
    rows: Rows = []
    for dataset in ("digits", "sprites(size=32)"):
        for n, model in enumerate(("new", "a", "b")):
            at = {"dataset": dataset}
            rows += seeds(model, rng.normal(20 + n, 0.2, 3), unit="dB", **at)
            rows += seeds(model, rng.normal(0.5, 0.1, 3), metric="acc", family="clustering", **at)
            about = {"metric": "nll", "family": "likelihood", "better": "lower", "unit": "nats"}
            rows += seeds(model, [math.nan] * 3 if n == 1 else rng.normal(-9, 1, 3), **about, **at)
            rows += cost(model, 3.0 + n, **at)
    return pd.DataFrame([*rows, failure(model="b", seed=7)])


def test_the_verdict() -> None:
    found = compare(several(), "a", ["new"])
    assert found.verdict.splitlines() == [
        "a against new: better on 2, worse on 0, undecided on 2 of 4 comparisons "
        "(2 metrics on 2 datasets, 3 seeds a model).",
        "Better in reconstruction (2).",
        "Clearest win: psnr on digits, 20.88 against 20.04 dB (+0.83 [0.57, 1.10]; p = 0.002).",
        "2 datasets decide nothing beyond themselves: a test over datasets needs 6 that both have.",
        "Cost over that of the baseline: training time ×1.33.",
        "About 9 seeds a model would decide half of the 2 undecided, if the differences are as "
        "large as observed (power 80 %).",
    ]


def test_the_strongest_baselines_come_first_and_ties_are_no_wins() -> None:
    values = {"new": 5.0, "weak": 1.0, "strong": 9.0, "alike": 5.0}
    found = made(*(seeds(model, [v, v + 0.1, v + 0.2]) for model, v in values.items()))
    assert list(verdict.tally(found)) == ["strong", "alike", "weak"]
    assert (
        "more wins than losses against 1 of 3, more losses against 1 (strong)."
    ) in found.verdict
    sheet = found.sheets()[1]
    assert [row[0].text for row in sheet.rows] == ["strong", "alike", "weak"]
    assert [[cell.text for cell in row[1:4]] for row in sheet.rows] == [
        ["0", "1", "0"],
        ["0", "0", "1"],
        ["1", "0", "0"],
    ]


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.1234, "+12 %"), (-0.0123, "-1.2 %"), (8.99, "+899 %"), (24.0, "×25"), (math.nan, "")],
)
def test_relative_in_words(share: float, shown: str) -> None:
    assert verdict.percent(share) == shown


@pytest.mark.parametrize(
    ("needs", "sentence"),
    [
        ([], None),
        ([math.inf, math.inf], None),
        ([12.0], "About 12 seeds a model would be needed to show a difference of the size"),
        ([5.0, 9.0, 40.0], "About 5 seeds a model would decide one of the 3 undecided, 9 half"),
        ([5.0, 2e3, 2e3], "decide one of the 3 undecided, over 1000 half of them"),
    ],
)
def test_the_seeds_needed_in_words(needs: list[float], sentence: str | None) -> None:
    pair = only_pair(seeds("new", [1.0, 2.0]), seeds("a", [1.0, 2.5]))
    said = " ".join(verdict.needs_sentence([replace(pair, seeds_needed=n) for n in needs]))
    assert sentence in said if sentence else not said


def test_every_number_is_in_the_frame() -> None:
    found = compare(several(), "new")
    frame = found.frame
    assert len(frame) == len(found.pairs) + len(found.overall) + len(found.costs)
    tests = frame[(frame["dataset"] != "") & (frame["family"] != "cost")]
    assert set(tests["outcome"]) <= {"better", "worse", "undecided", "n/a"}
    first = tests[(tests["metric"] == "psnr") & (tests["baseline"] == "a")].iloc[0]
    pair = next(p for p in found.pairs if p.measure.name == "psnr" and p.baseline == "a")
    assert first["difference"] == pair.difference.mean
    assert (first["low"], first["high"]) == (pair.difference.low, pair.difference.high)
    assert (first["p"], first["p_holm"]) == (pair.difference.p, pair.p_holm)
    assert (first["seeds"], first["baseline_seeds"], first["test"]) == (3, 3, "welch")
    read = pd.read_csv(io.StringIO(found.draw("csv")))
    assert list(read.columns) == list(frame.columns)
    assert read["p_holm"].to_numpy() == pytest.approx(frame["p_holm"].to_numpy(), nan_ok=True)


@pytest.mark.parametrize("format", ["text", "md", "latex", "html", "csv"])
def test_order_of_rows_does_not_matter(format: str) -> None:
    rows = several()
    expected = compare(rows, "new").draw(format)
    for seed in range(3):
        shuffled = rows.sample(frac=1, random_state=seed)
        assert compare(shuffled, "new").draw(format) == expected
    assert compare(leaderboard(rows), "new").draw(format) == expected


def test_text_fits_and_begins_with_the_verdict() -> None:
    for width in (60, 80, 120):
        shown = compare(several(), "new").draw("text", width=width)
        assert max(map(len, shown.splitlines())) <= width
        words = " ".join(shown.split())
        assert words.startswith("new against the best of 2 baselines: better on 0, worse on")
        assert words.count("Clearest loss") == 1
        assert "undecided: no difference is shown" in words
        assert "1 cell of b failed" in words


@pytest.mark.parametrize("baselines", [None, ["x"]])
def test_hostile_names_are_text(baselines) -> None:
    rows: Rows = []
    for name in [*HOSTILE, "x"]:
        for model in (name, "other"):
            for metric in ("psnr", f"m[{name}]"):
                about = {"dataset": name, "backbone": name, "unit": name, "sampler": name}
                rows += seeds(model, [1.0, 2.0], metric=metric, **about)
            rows += [failure(model=model, dataset=name, backbone=name, note=name, seed=9)]
    frame = pd.DataFrame(rows)
    for model in [*HOSTILE, "other"]:
        found = compare(frame, model, ["other"] if model != "other" else baselines)
        assert not {"\x1b", "\r", "\u2028"} & set(found.verdict)
        assert len(found.verdict.splitlines()) <= 8
        for format in ("text", "md", "latex", "html"):
            shown = found.draw(format)
            assert not {"\x1b", "\r", "\u2028"} & set(shown)
            if format in ("md", "html"):
                assert "<script>alert" not in shown
            if format == "latex":
                assert r"\input{/etc" not in shown
