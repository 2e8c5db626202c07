"""Statistics: known answers, other libraries, brute force, and rows whose truth is known."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from aebench.benchmark.statistics import (
    LEAST_BOOTSTRAP,
    MOST_SEEDS,
    Better,
    bootstrap,
    cliques,
    critical_difference,
    friedman,
    holm,
    interval,
    rank_interval,
    ranks,
    seeds_needed,
    welch,
    wilcoxon,
    win_rate,
)
from scipy import integrate, stats

# Demšar (JMLR 7, 2006), table 6: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 datasets.
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],  # printed alike, ranked 2 and 3
        [0.957, 0.978, 0.946, 0.970],
    ]
)
DEMSAR = np.array([ranks(row, "higher") for row in AUC])


def share_covered(
    ends: Callable[[list[float]], tuple[float, float]],
    draw: Callable[[np.random.Generator, int], np.ndarray],
    n: int,
    truth: float,
) -> float:
    """The share of 1,000 simulations in which the interval of n values holds their true mean."""
    generator = np.random.default_rng(0)
    found = [ends(draw(generator, n).tolist()) for _ in range(1000)]
    return float(np.mean([low <= truth <= high for low, high in found]))


def student(values: list[float]) -> tuple[float, float]:
    mean, half = interval(values)
    return mean - half, mean + half


def test_interval_by_hand() -> None:
    # s = 1 and t = 4.302653 with 2 degrees of freedom.
    assert interval([1, 2, 3]) == pytest.approx((2, 4.302653 / math.sqrt(3)))
    values = [0.1, 0.7, 0.3, 0.4]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert student(values) == pytest.approx((low, high))


def test_interval_of_few_values() -> None:
    assert np.isnan(interval([])).tolist() == [True, True]
    assert interval([3.0]) == pytest.approx((3, math.nan), nan_ok=True)
    assert interval([3.0, 3.0]) == (3, 0)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_interval_covers(n: int) -> None:
    covered = share_covered(student, lambda g, n: g.normal(5, 2, n), n, 5)
    assert covered == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("n", [LEAST_BOOTSTRAP, 8, 20])
def test_bootstrap_covers(n: int) -> None:
    covered = share_covered(bootstrap, lambda g, n: g.normal(5, 2, n), n, 5)
    assert covered == pytest.approx(0.95, abs=0.02)


def test_bootstrap_covers_skewed_noise_where_student_does_not() -> None:
    def draw(generator: np.random.Generator, n: int) -> np.ndarray:
        return generator.exponential(size=n)

    assert share_covered(student, draw, 8, 1) < 0.92
    assert share_covered(bootstrap, draw, 8, 1) == pytest.approx(0.95, abs=0.02)


def test_bootstrap_by_all_resamples() -> None:
    """The ends are the 2.5 % quantiles of all 5^5 resamples' t, but for the drawing of some."""
    values = np.array([0.31, 0.05, 0.92, 0.44, 0.87])
    low, high = bootstrap(values.tolist())
    error = values.std(ddof=1) / math.sqrt(5)
    drawn = np.array(list(itertools.product(values, repeat=5)))
    with np.errstate(divide="ignore"):
        t = (drawn.mean(1) - values.mean()) / (drawn.std(1, ddof=1) / math.sqrt(5))
    for end, tail in ((values.mean() - low) / error, t), ((high - values.mean()) / error, -t):
        assert np.mean(tail > end + 1e-9) < 0.025 + 0.006
        assert np.mean(tail > end - 1e-9) > 0.025 - 0.006


def test_bootstrap_depends_on_the_values_alone() -> None:
    values = np.random.default_rng(0).exponential(size=9)
    low, high = bootstrap(values.tolist())
    assert bootstrap(values[::-1].tolist()) == (low, high)
    assert bootstrap((3 + 1e6 * values).tolist()) == pytest.approx((3 + 1e6 * low, 3 + 1e6 * high))
    assert bootstrap((1e-9 * values).tolist()) == pytest.approx((1e-9 * low, 1e-9 * high))


@pytest.mark.filterwarnings("error")
def test_bootstrap_where_there_is_none() -> None:
    few = [float(v) for v in range(LEAST_BOOTSTRAP - 1)]
    mostly_tied = [0.91] * (LEAST_BOOTSTRAP - 1) + [0.93]
    for values in ([], few, mostly_tied, [*few, math.nan]):
        assert np.isnan(bootstrap(values)).all()
    assert bootstrap([0.1] * LEAST_BOOTSTRAP) == (0.1, 0.1)


def test_ranks_by_hand() -> None:
    assert ranks([0.2, 0.9, 0.2, 0.5], "lower").tolist() == [1.5, 4, 1.5, 3]
    assert ranks([0.2, 0.9, 0.2, 0.5], "higher").tolist() == [3.5, 1, 3.5, 2]
    assert ranks([3, math.nan, 1], "lower") == pytest.approx([2, math.nan, 1], nan_ok=True)


def test_friedman_of_demsar() -> None:
    """The paper's chi² is without the correction for ties: three pairs, and four that all tie."""
    assert DEMSAR.mean(0) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    found = friedman(DEMSAR)
    correction = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * (4**3 - 4))
    chi2 = found.chi2 * correction
    assert chi2 == pytest.approx(9.28, abs=5e-3)
    assert 13 * chi2 / (14 * 3 - chi2) == pytest.approx(3.69, abs=5e-3)
    assert found.f == pytest.approx(13 * found.chi2 / (14 * 3 - found.chi2))
    assert 0.001 < found.p_f < found.p < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_friedman_by_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n, k = int(generator.integers(2, 12)), int(generator.integers(3, 9))
    values = generator.integers(0, 6, size=(n, k)) + np.arange(k)  # with ties
    found = friedman(np.array([ranks(row, "lower") for row in values]))
    expected = stats.friedmanchisquare(*values.T)
    assert (found.chi2, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.p_f == pytest.approx(stats.f.sf(found.f, k - 1, (k - 1) * (n - 1)))


def test_friedman_of_three_by_hand() -> None:
    """Rank sums 4, 5 and 9 of three datasets: chi² = 12 / 36 · 122 - 36, F = 2 · 14/3 / (4/3)."""
    found = friedman(np.array([[1, 2, 3], [1, 2, 3], [2, 1, 3]]))
    assert (found.chi2, found.f) == pytest.approx((14 / 3, 7))
    assert found.p == pytest.approx(math.exp(-14 / 6))


def test_friedman_at_its_ends() -> None:
    agreed = friedman(np.array([[1, 2, 3, 4]] * 5))
    assert (agreed.chi2, agreed.f, agreed.p_f) == (15, math.inf, 0)
    opposed = friedman(np.array([[1, 2, 3], [3, 2, 1]]))
    assert (opposed.chi2, opposed.p, opposed.f, opposed.p_f) == (0, 1, 0, 1)
    for none in ([[2, 2, 2], [2, 2, 2]], [[1, 2, 3]], [[1, 2], [1, 2], [2, 1]]):
        found = friedman(np.array(none))
        assert np.isnan([found.chi2, found.p, found.f, found.p_f]).all()


def test_critical_difference_of_demsar() -> None:
    """Table 5 to its rounding, and the example of section 3.2.2."""
    table = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    found = [critical_difference(k, 1) / math.sqrt(k * (k + 1) / 6) for k in range(2, 11)]
    assert found == pytest.approx(table, abs=1e-3)
    ten = [critical_difference(k, 1, 0.1) / math.sqrt(k * (k + 1) / 6) for k in (2, 5, 10)]
    assert ten == pytest.approx([1.645, 2.459, 2.920], abs=1e-3)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)


@pytest.mark.parametrize("models", [3, 50, 200, 1000])
def test_critical_difference_by_quadrature(models: int) -> None:
    """The range of k normal values, whose density is an integral over the least of them."""
    q = math.sqrt(2) * critical_difference(models, 1) / math.sqrt(models * (models + 1) / 6)

    def density(z: float) -> float:
        within = stats.norm.cdf(z + q) - stats.norm.cdf(z)
        return float(models * stats.norm.pdf(z) * within ** (models - 1))

    chance, _ = integrate.quad(density, -10, 5, limit=200, points=[-5, -4, -3, -2, -1])
    assert chance == pytest.approx(0.95, abs=1e-6)


def test_critical_difference_where_there_is_none() -> None:
    assert math.isnan(critical_difference(1, 5))
    assert math.isnan(critical_difference(5, 0))


def test_critical_difference_by_posthocs() -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    generator = np.random.default_rng(0)
    n, k = 12, 7
    values = generator.normal(size=(n, k)) + np.linspace(0, 2, k)
    means = np.array([ranks(row, "lower") for row in values]).mean(0)
    p = posthocs.posthoc_nemenyi_friedman(values).to_numpy()
    apart = abs(means[:, None] - means) > critical_difference(k, n)
    assert (apart == (p < 0.05)).all()
    assert 0 < apart.sum() < k * (k - 1)


def test_cliques_by_hand() -> None:
    assert cliques([1.0, 1.5, 2.0, 4.0, 4.2, 7.0], 1) == ((0, 2), (3, 4))
    assert cliques([1.0, 2.0, 3.0, 4.0], 1.5) == ((0, 1), (1, 2), (2, 3))
    assert cliques([1.0, 2.0], 0.5) == cliques([1.0, 1.0], math.nan) == cliques([], 1) == ()
    by_rank = np.sort(DEMSAR.mean(0)).tolist()
    assert cliques(by_rank, critical_difference(4, 14)) == ((0, 3),)


def test_cliques_by_brute_force() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        means = np.sort(generator.uniform(1, 8, size=generator.integers(1, 9))).tolist()
        cd = float(generator.uniform(0, 4))
        size = range(len(means))
        within = [(i, j) for i in size for j in size if i < j and means[j] - means[i] <= cd]
        largest = [
            (i, j)
            for i, j in within
            if not any(a <= i and j <= b and (a, b) != (i, j) for a, b in within)
        ]
        assert cliques(means, cd) == tuple(largest)


@pytest.mark.parametrize(("a", "b"), [(2, 2), (3, 5), (10, 4), (20, 20)])
def test_welch_by_scipy(a: int, b: int) -> None:
    generator = np.random.default_rng(a)
    first, second = generator.normal(1, 1, a), generator.normal(0, 5, b)
    found = welch(first.tolist(), second.tolist())
    expected = stats.ttest_ind(first, second, equal_var=False)
    ends = expected.confidence_interval()
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.p == pytest.approx(expected.pvalue)


def test_welch_against_a_constant() -> None:
    """One that does not vary is a point: the interval is that of the other's mean."""
    noisy = [0.3, 0.5, 0.1, 0.2]
    found = welch(noisy, [0.4, 0.4])
    mean, half = interval(noisy)
    assert (found.low, found.high) == pytest.approx((mean - half - 0.4, mean + half - 0.4))
    assert found.p == pytest.approx(stats.ttest_1samp(noisy, 0.4).pvalue)


def test_welch_at_its_ends() -> None:
    for a, b in (([], [1.0, 2.0]), ([1.0, 2.0], [])):
        assert math.isnan(welch(a, b).mean)
    one = welch([3.0], [1.0, 2.0])
    assert one.mean == 1.5
    assert np.isnan([one.low, one.high, one.p]).all()
    alike, apart = welch([0.1] * 3, [0.1] * 2), welch([0.1] * 3, [0.2] * 3)
    assert (alike.mean, alike.low, alike.high, alike.p) == (0, 0, 0, 1)
    assert (apart.mean, apart.low, apart.high, apart.p) == (-0.1, -0.1, -0.1, 2 / 2**6)
    diverged = welch([1e200, 3e200], [1e-200, 3e-200])
    assert diverged.p == pytest.approx(stats.ttest_1samp([1, 3], 0).pvalue)


@pytest.mark.parametrize(("a", "b"), [(2, 2), (3, 3), (2, 5), (4, 3)])
def test_welch_bounds_chance_where_neither_varies(a: int, b: int) -> None:
    """Of two equal models whose score is 1 with probability q, otherwise 0, whatever q is."""
    q = np.linspace(0, 1, 10_001)
    chance = q**a * (1 - q) ** b + (1 - q) ** a * q**b
    p = welch([1.0] * a, [0.0] * b).p
    assert chance.max() <= p + 1e-12
    assert p < 2 * chance.max()
    if a == b:
        assert p == pytest.approx(chance.max())


@pytest.mark.parametrize("n", [3, 5, 10])
def test_welch_covers(n: int) -> None:
    generator = np.random.default_rng(0)
    found = [
        welch(generator.normal(1, 1, n).tolist(), generator.normal(0, 2, n).tolist())
        for _ in range(1000)
    ]
    covered = float(np.mean([d.low <= 1 <= d.high for d in found]))
    assert covered == pytest.approx(0.95, abs=0.02)


def test_wilcoxon_of_demsar() -> None:
    """Sums of ranks 93 and 12, the zeros' 1.5 each shared out: the paper rejects at 5 %."""
    differences = np.round(AUC[:, 1] - AUC[:, 0], 3)
    of_size = stats.rankdata(abs(differences))
    assert of_size[differences > 0].sum() + 1.5 == 93
    assert of_size[differences < 0].sum() + 1.5 == 12
    assert wilcoxon(differences.tolist()) == pytest.approx(signs_as_extreme(differences), rel=1e-12)
    assert wilcoxon(differences.tolist()) < 0.05


def signs_as_extreme(differences: np.ndarray) -> float:
    """The share of all signs whose sum of ranks is as far from its mean as the one seen."""
    size = stats.rankdata(abs(differences))[differences != 0]
    signs = np.array(list(itertools.product([-1, 1], repeat=len(size))))
    seen = (size * np.sign(differences[differences != 0])).sum()
    return float(np.mean(abs(signs @ size) >= abs(seen)))


@pytest.mark.parametrize("seed", range(8))
def test_wilcoxon_by_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    differences = generator.integers(-3, 6, size=generator.integers(1, 11)).astype(float)
    differences[0] = 2
    assert wilcoxon(differences.tolist()) == pytest.approx(signs_as_extreme(differences))


def test_wilcoxon_by_scipy() -> None:
    for n in (1, 5, 14, 40):
        differences = np.random.default_rng(n).normal(0.5, 1, n)
        expected = stats.wilcoxon(differences, method="exact").pvalue
        assert wilcoxon(differences.tolist()) == pytest.approx(expected)


def test_wilcoxon_by_hand() -> None:
    assert wilcoxon([1.0, 2.0, 3.0, 4.0]) == 2 / 16
    assert wilcoxon([1.0]) == wilcoxon([1.0, 2.0, -3.0]) == 1
    for none in ([], [0.0, 0.0], [1.0, math.nan]):
        assert math.isnan(wilcoxon(none))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    found = holm([math.nan, 0.02, 0.01, math.nan])
    assert found == pytest.approx([math.nan, 0.02, 0.02, math.nan], nan_ok=True)
    assert holm([]).tolist() == []
    assert np.isnan(holm([math.nan])).all()


def test_holm_by_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).uniform(size=30) ** 4
    assert holm(p.tolist()) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_holm_keeps_the_error_of_the_family() -> None:
    """Of five equal models, any pair is told apart in at most 5 % of 1,000 simulations."""
    generator = np.random.default_rng(0)
    errors = plain = 0
    for _ in range(1000):
        models = generator.normal(size=(5, 5)).tolist()
        p = [welch(a, b).p for a, b in itertools.combinations(models, 2)]
        errors += bool((holm(p) < 0.05).any())
        plain += min(p) < 0.05
    assert errors / 1000 < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)
    assert plain / 1000 > 0.15


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_win_rate_by_loops(better: Better) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 4, 5).tolist(), generator.integers(0, 4, 7).tolist()
    wins = 0.0
    for one, other in itertools.product(a, b):
        wins += 0.5 if one == other else (one > other) == (better == "higher")
    assert win_rate(a, b, better) == pytest.approx(wins / 35)
    assert win_rate(b, a, better) == pytest.approx(1 - wins / 35)
    assert win_rate(a, a, better) == 0.5
    assert math.isnan(win_rate([], b, better))


@pytest.mark.parametrize(("effect", "n"), [(0.2, 394), (0.5, 64), (0.8, 26), (1, 17)])
def test_seeds_needed_of_cohen(effect: float, n: int) -> None:
    """Statistical Power Analysis (1988), table 2.4.1; one less of .2 and 1 there, by rounding."""
    assert seeds_needed(effect, 1, 1) == n
    for scale in (-3, 1e200, 1e-200):
        assert seeds_needed(scale * effect, abs(scale), abs(scale)) == n


def test_seeds_needed_by_statsmodels() -> None:
    power = pytest.importorskip("statsmodels.stats.power").TTestIndPower()
    for effect in (0.05, 0.3, 0.71, 1.5, 2.5):
        for least in (0.5, 0.9):
            found = seeds_needed(effect, 1, 1, least, 0.01)
            n = power.solve_power(effect, alpha=0.01, power=least)
            assert found == math.ceil(n)


@pytest.mark.parametrize(
    ("difference", "sd_a", "sd_b"), [(0.5, 1, 1), (0.9, 1, 1), (0.6, 1, 0.2), (0.7, 1e-3, 1)]
)
def test_seeds_needed_give_the_power(difference: float, sd_a: float, sd_b: float) -> None:
    """As many give it, one less does not."""
    generator = np.random.default_rng(0)
    seen = []
    enough = int(seeds_needed(difference, sd_a, sd_b))
    for n in (enough - 1, enough):
        a = generator.normal(difference, sd_a, size=(20_000, n))
        b = generator.normal(0, sd_b, size=(20_000, n))
        p = stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue
        seen.append(np.mean(p < 0.05))
    assert seen[0] < 0.8 + 0.01
    assert 0.8 - 0.01 < seen[1] < 0.8 + 0.03


def test_seeds_needed_at_its_ends() -> None:
    assert seeds_needed(0, 1, 1) == seeds_needed(0, 0, 0) == math.inf
    for alpha in (0.2, 0.05, 0.01, 1e-4):
        n = int(seeds_needed(1, 0, 0, alpha=alpha))
        assert welch([0.0] * n, [1.0] * n).p <= alpha
        assert n == 2 or welch([0.0] * (n - 1), [1.0] * (n - 1)).p > alpha
    assert seeds_needed(math.inf, 1, 1) == 2
    for effect in (17.8, 1e3, 1e9, 1e300):  # where scipy's noncentral t is NaN
        assert seeds_needed(effect, 1, 1) == 2
        assert seeds_needed(1e-100 * effect, 1e-100, 1e-100) == 2
    assert math.isnan(seeds_needed(1, math.nan, 1))
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert seeds_needed(1.01 * z * math.sqrt(2 / MOST_SEEDS), 1, 1) < MOST_SEEDS
    assert seeds_needed(0.99 * z * math.sqrt(2 / MOST_SEEDS), 1, 1) == math.inf


@pytest.mark.parametrize(("models", "datasets"), [(8, 2), (8, 5), (14, 3), (20, 10)])
def test_intervals_of_mean_ranks_hold_what_they_say(models: int, datasets: int) -> None:
    """Models with effects of their own, in datasets with effects on each; the mean over models."""
    rng = np.random.default_rng(0)
    effects = np.linspace(0, 2, models)

    def ranked(n: int) -> np.ndarray:
        return stats.rankdata(effects + rng.normal(0, 0.7, (n, models)), axis=1)

    truth = ranked(20_000).mean(0)
    held = []
    for _ in range(1000):
        ranks = ranked(datasets)
        held.append(abs(ranks.mean(0) - truth) <= rank_interval(ranks))
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_the_interval_of_mean_ranks_is_that_of_their_mean_variance() -> None:
    ranks = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    # Variances 1/2, 1/2 and 0 over two datasets, two degrees of freedom.
    expected = stats.t.ppf(0.975, 2) * math.sqrt((1 / 3) / 2)
    assert rank_interval(ranks) == pytest.approx(expected)
    assert math.isnan(rank_interval(ranks[:1]))
    assert math.isnan(rank_interval(ranks[:, :1]))
