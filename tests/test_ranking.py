"""The ranking over datasets: who is in it, its ranks, tests and pairs."""

import math

import numpy as np
import pandas as pd
import pytest
from aebench.benchmark.leaderboard import Leaderboard, leaderboard
from aebench.plugins import InputError
from scipy import stats
from test_leaderboard import row


def board(values: dict[tuple[str, str], list[float]], **given: object) -> Leaderboard:
    """The leaderboard of values by dataset and model, one a seed."""
    return leaderboard(
        pd.DataFrame(
            row(value, dataset=dataset, model=model, seed=seed, **given)
            for (dataset, model), held in values.items()
            for seed, value in enumerate(held)
        )
    )


def test_ranks_of_each_dataset_and_their_mean() -> None:
    made = board(
        {
            ("a", "x"): [1.0], ("a", "y"): [2.0], ("a", "z"): [2.0],
            ("b", "x"): [5.0], ("b", "y"): [4.0], ("b", "z"): [6.0],
            ("c", "x"): [1.0], ("c", "y"): [3.0], ("c", "z"): [2.0],
        }
    ).ranking  # fmt: skip
    ranks = {place.label: place.ranks for place in made.places}
    assert made.datasets == ("a", "b", "c")
    assert ranks == {"x": (1, 2, 1), "y": (2.5, 1, 3), "z": (2.5, 3, 2)}
    assert [place.label for place in made.places] == ["x", "y", "z"]
    first = made.places[0]
    assert first.mean == pytest.approx(4 / 3)
    ranks_of = [[1, 2.5, 2.5], [2, 1, 3], [1, 3, 2]]
    spread = np.var(ranks_of, axis=0, ddof=1).mean() / 3
    assert first.half == pytest.approx(stats.t.ppf(0.975, 4) * math.sqrt(spread))
    expected = stats.friedmanchisquare(*(place.ranks for place in made.places))
    assert made.friedman is not None
    assert made.friedman.chi2 == pytest.approx(expected.statistic)
    assert made.metrics == ("mse",)
    assert made.better == "lower"


def test_a_difference_beyond_the_critical_one_parts_the_groups() -> None:
    # Ten datasets, the same order in each: ranks 1 to 4, CD = 2.569 sqrt(4 · 5 / 60) = 1.483.
    values = {(f"d{n}", m): [float(i)] for n in range(10) for i, m in enumerate("wxyz")}
    made = board(values).ranking
    assert made.critical_difference == pytest.approx(2.569 * math.sqrt(20 / 60), abs=1e-3)
    assert made.cliques == ((0, 1), (1, 2), (2, 3))


def test_families_make_one_rank_a_dataset() -> None:
    rows = []
    for dataset in "ab":
        for model, mse, fid in (("x", 1.0, 3.0), ("y", 2.0, 2.0), ("z", 3.0, 4.0)):
            about = {"dataset": dataset, "model": model}
            rows.append(row(mse, **about))
            rows.append(row(fid, "fid", family="generation", sampler="prior", **about))
    made = leaderboard(pd.DataFrame(rows)).ranking
    # Mean ranks 1.5, 1.5 and 3 are the ranks 1.5, 1.5 and 3 of the dataset.
    assert [place.ranks for place in made.places] == [(1.5, 1.5), (1.5, 1.5), (3, 3)]
    assert made.metrics == ("mse", "fid")
    assert made.better == ""


def test_only_datasets_that_all_ranked_lines_share() -> None:
    full = {(d, m): [float(n)] for d in "abc" for n, m in enumerate("wxyz")}
    # One model of one dataset takes none away; a dataset of one model neither.
    made = board(full | {("a", "late"): [0.0], ("d", "w"): [0.0]}).ranking
    assert made.datasets == ("a", "b", "c")
    assert [place.label for place in made.places] == list("wxyz")
    assert made.places[0].ranks == (1, 1, 1)  # among the ranked lines, without the late one
    assert made.left_out == (
        ("late mlp", "no rank in b, c"),
        ("d", "1 of 4 lines have a rank"),
    )


def test_one_dataset_ranks_without_statistics() -> None:
    made = board({("a", m): [float(n)] for n, m in enumerate("xyz")}).ranking
    assert [place.mean for place in made.places] == [1, 2, 3]
    assert math.isnan(made.places[0].half)
    assert made.friedman is None
    assert math.isnan(made.critical_difference)
    assert made.cliques == ()


def test_no_rows_no_places() -> None:
    made = board({("a", "x"): [1.0]}, better="").ranking
    assert made.places == ()
    assert made.datasets == ()


def test_pairs_of_one_metric_in_one_dataset_are_of_seeds() -> None:
    x, y = [1.0, 2.0, 3.5, 2.2], [2.1, 4.0, 5.0, 6.5]
    (found,) = board({("a", "x"): x, ("a", "y"): y}).ranking.pairs().to_dict("records")
    assert found["win_rate"] == np.mean([[i < j for j in y] for i in x])
    assert found["p"] == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue)
    assert found["difference"] == pytest.approx(np.mean(x) - np.mean(y))
    assert 2 <= found["seeds_needed"] < 20


def test_pairs_over_datasets_are_wilcoxons_and_corrected() -> None:
    rng = np.random.default_rng(0)
    means = {m: rng.normal(n, 1, 8) for n, m in enumerate("xyz")}
    values = {(f"d{n}", m): [means[m][n]] for n in range(8) for m in "xyz"}
    made = board(values).ranking
    pairs = made.pairs()
    for pair in pairs.itertuples():
        a, b = (means[made.places[n].label] for n in (pair.a, pair.b))
        assert pair.p == pytest.approx(stats.wilcoxon(a, b).pvalue)
        assert pair.win_rate == np.mean(a < b)
    worst = pairs.loc[pairs["p"].idxmin()]
    assert worst["p_holm"] == pytest.approx(min(1, 3 * worst["p"]))
    assert len(made.pairs(best=2)) == 1


def test_datasets_are_chosen_by_label_or_name() -> None:
    made = board({(d, "x"): [1.0] for d in ("mnist(size=32)", "mnist(size=28)", "digits")})
    assert [b.dataset for b in made.of("mnist").boards] == ["mnist(size=28)", "mnist(size=32)"]
    assert [b.dataset for b in made.of("digits", "mnist(size=32)").boards] == [
        "digits",
        "mnist(size=32)",
    ]
    with pytest.raises(InputError, match=r"no dataset 'digit'.*digits"):
        made.of("digit")


def test_samplers_share_a_line_where_the_metric_scores_none() -> None:
    rows = [row(0.1 * n, model=m) for n, m in enumerate("xy")]
    for n, sampler in enumerate(("gmm", "prior")):
        rows += [
            row(n + k, "fid", family="generation", sampler=sampler, model=m)
            for k, m in enumerate("xy")
        ]
    made = leaderboard(pd.DataFrame(rows))
    assert [(x.label, x.sampler, x.rank) for x in made.only("mse").boards[0].lines] == [
        ("x", "", 1),
        ("y", "", 2),
    ]
    assert len(made.only("fid").boards[0].lines) == 4
    assert len(made.only("mse", "fid").boards[0].lines) == 4


def test_scores_keep_their_seeds() -> None:
    (line,) = board({("a", "x"): [1.0, 2.0, 4.0]}).boards[0].lines
    score = line.scores["mse"]
    assert dict(score.values) == {0: 1, 1: 2, 2: 4}
    assert score.sd == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert all(math.isnan(end) for end in score.bootstrap)  # too few for one


def test_csv_has_bootstrap_intervals_where_seeds_suffice() -> None:
    few = board({("a", "x"): [1.0, 2.0, 4.0]}).lines
    assert not {"mse_low", "mse_high"} & set(few.columns)
    values = np.random.default_rng(0).normal(5, 1, 30).tolist()
    many = board({("a", "x"): values, ("a", "y"): [1.0]}).lines
    x, y = many[many["model"] == "x"].iloc[0], many[many["model"] == "y"].iloc[0]
    assert x["mse_low"] < x["mse"] < x["mse_high"]
    assert x["mse_sd"] == pytest.approx(np.std(values, ddof=1))
    assert math.isnan(y["mse_low"])
    assert math.isnan(y["mse_sd"])
