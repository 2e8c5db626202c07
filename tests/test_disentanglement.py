"""Metrics of disentanglement: known answers and invariants."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from aebench.benchmark.metrics import Fitted, Metric, NotApplicable, disentanglement
from aebench.benchmark.metrics.disentanglement import (
    DCI,
    IRS,
    MIG,
    SAP,
    UDR,
    BetaVAEScore,
    Explicitness,
    FactorVAEScore,
    Unsupervised,
    beta_vae_score,
    dci,
    dci_of,
    dcimig,
    explicitness,
    factor_vae_score,
    information,
    irs,
    mig,
    mig_sup,
    modularity,
    sap,
    udr,
    unsupervised,
)
from aebench.plugins import InputError
from standins import OURS, Echo, Pixels, Rendered, fitted_echo, noise_images, normed_vae, spec

# The answers of disentanglement_lib's own code for these six representations.

SIZES = (3, 6, 40, 32, 32)


def standardised(factors: np.ndarray) -> np.ndarray:
    sizes = np.array(SIZES)
    return (factors - (sizes - 1) / 2) / np.sqrt((sizes**2 - 1) / 12)


def representations(seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.standard_normal((5, 5)))[0]

    def beside(scale: float) -> Any:
        return lambda f: np.hstack([standardised(f), scale * random.standard_normal((len(f), 5))])

    return {
        "identity": standardised,
        "tiny": beside(0.02),
        "prior": beside(1.0),
        "rotation": lambda f: standardised(f) @ rotation,
        "noise": lambda f: random.standard_normal((len(f), 10)),
        "dup": lambda f: np.hstack([standardised(f)] * 2),
    }


def points(kind: str, n: int = 10_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes of a representation and their factors."""
    factors = np.random.default_rng(seed).integers(0, SIZES, (n, 5))
    return representations(seed)[kind](factors), factors


def explicitness_at_test(codes: np.ndarray, factors: np.ndarray) -> float:
    return explicitness(codes, factors, train=10_000)["explicitness"]


def total_correlation(codes: np.ndarray, factors: np.ndarray) -> float:
    return unsupervised(codes)["gaussian_tc"]


def code_mi(codes: np.ndarray, factors: np.ndarray) -> float:
    return unsupervised(codes)["code_mi"]


def sap_of_study(codes: np.ndarray, factors: np.ndarray) -> float:
    return sap(codes, factors, train=10_000)


KNOWN: dict[Any, dict[str, float]] = {
    mig: {"identity": 0.896, "tiny": 0.895, "prior": 0.896, "noise": 0, "dup": 0},
    mig_sup: {"identity": 0.896, "prior": 0.448, "dup": 0.896},
    dcimig: {"identity": 0.863, "prior": 0.863, "noise": 0.001, "dup": 0.863},
    modularity: {"identity": 1, "tiny": 0.831, "prior": 0.836, "noise": 0.665, "dup": 1},
    irs: {"identity": 0.986, "tiny": 0.955, "prior": 0.541, "noise": 0.357, "dup": 0.986},
    total_correlation: {
        "identity": 0.001,
        "tiny": 0.003,
        "prior": 0.003,
        "rotation": 0.001,
        "noise": 0.002,
        "dup": math.inf,
    },
    code_mi: {"identity": 0.007, "tiny": 0.012, "prior": 0.012, "noise": 0.015, "dup": 0.268},
    sap_of_study: {"identity": 0.244, "prior": 0.244, "noise": 0.001, "dup": 0},
    explicitness_at_test: {"identity": 0.987, "rotation": 0.987, "noise": 0.502},
}
DRAWN = {modularity: 0.035, irs: 0.035}
"""Scores of noise that differ from draw to draw: by .011 and .013 of standard deviation."""


@pytest.mark.parametrize(
    ("score", "kind", "expected"),
    [(score, kind, value) for score, known in KNOWN.items() for kind, value in known.items()],
)
def test_known_answers(score: Any, kind: str, expected: float) -> None:
    fits = score in (sap_of_study, explicitness_at_test)
    noisy = DRAWN.get(score, 0.01) if kind in ("prior", "noise", "tiny") else 0.01
    tolerance = 0.02 if score is sap_of_study else noisy
    found = score(*points(kind, 15_000 if fits else 10_000))
    assert found == pytest.approx(expected, abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("identity", (1, 1, 1, 1)),
        ("noise", (0.001, 0.001, 0.117, 0.53)),
        ("dup", (1, 0.701, 1, 1)),
    ],
)
def test_dci_known_answers(kind: str, expected: tuple[float, ...]) -> None:
    found = dci(*points(kind, 15_000), train=10_000)
    assert tuple(found.values()) == pytest.approx(expected, abs=0.02)


def test_a_rotation_is_far_from_both_ends() -> None:
    """The original program's rotation is one draw; these are others."""
    bounds = {
        mig: (0.02, 0.4),
        mig_sup: (0.05, 0.4),
        dcimig: (0.01, 0.3),
        modularity: (0.65, 0.99),
        irs: (0.35, 0.65),
        code_mi: (0.02, 0.2),
        sap: (0.005, 0.2),
    }
    for score, (low, high) in bounds.items():
        seeds = range(1 if score is sap else 5)
        found = [score(*points("rotation", seed=seed)) for seed in seeds]
        assert low < min(found) <= max(found) < high, score.__name__


@pytest.mark.parametrize(
    ("score", "bins", "kind", "expected"),
    [
        (mig, 10, "identity", 0.787),
        (mig, 40, "identity", 0.988),
        (mig, 100, "identity", 0.988),
        (mig_sup, 10, "identity", 0.786),
        (mig_sup, 10, "prior", 0.393),
        (mig_sup, 40, "prior", 0.495),
        (mig_sup, 100, "dup", 0.989),
        (dcimig, 10, "dup", 0.720),
        (dcimig, 40, "identity", 0.985),
    ],
)
def test_bins_matter(score: Any, bins: int, kind: str, expected: float) -> None:
    assert score(*points(kind), bins) == pytest.approx(expected, abs=0.01)


def test_mig_is_the_definition() -> None:
    from sklearn.metrics import mutual_info_score

    random = np.random.default_rng(3)
    factors = random.integers(0, (3, 5), (400, 2))
    codes = factors @ random.standard_normal((2, 4)) + 0.5 * random.standard_normal((400, 4))
    binned = [np.digitize(c, np.histogram(c, 7)[1][:-1]) for c in codes.T]
    gaps = []
    for values in factors.T:
        information = sorted(mutual_info_score(values, b) for b in binned)
        gaps.append((information[-1] - information[-2]) / mutual_info_score(values, values))
    assert mig(codes, factors, 7) == pytest.approx(np.mean(gaps), rel=1e-9)


def test_gaps_of_information_are_their_definitions() -> None:
    """Two binary factors; one code is the first, another the second but for a quarter of points."""
    from sklearn.metrics import mutual_info_score

    random = np.random.default_rng(0)
    factors = random.integers(0, 2, (400, 2))
    partly = np.where(np.arange(400) % 4 == 0, random.integers(0, 2, 400), factors[:, 1])
    codes = np.stack([factors[:, 0], partly, 3 * factors[:, 0]], 1) * 1.0
    shared = np.array([[mutual_info_score(c, v) for v in factors.T] for c in codes.T])
    entropies = np.array([mutual_info_score(v, v) for v in factors.T])
    np.testing.assert_allclose(information(codes, factors, 20)[0], shared, atol=1e-12)
    np.testing.assert_allclose(information(codes, factors, 20)[1], entropies)
    part = shared / entropies
    sup = np.abs(part[:, 0] - part[:, 1]).mean()
    assert mig_sup(codes, factors) == pytest.approx(sup)
    gaps = (shared[0, 0] - shared[0, 1]) + (shared[1, 1] - shared[1, 0])
    assert dcimig(codes, factors) == pytest.approx(gaps / entropies.sum())
    ratios = (shared.min(1) / shared.max(1)) ** 2
    assert modularity(codes, factors) == pytest.approx(1 - ratios.mean())


def test_dci_of_importances() -> None:
    assert dci_of(np.eye(4)) == pytest.approx((1, 1))
    assert dci_of(np.ones((3, 4)) / 3) == pytest.approx((0, 0), abs=1e-9)
    assert dci_of(np.vstack([np.eye(4)] * 2) / 2) == pytest.approx((1, 1 - math.log(2, 8)))
    # A code for two factors: of both no more than 1 - log_3 2, and its weight is two thirds.
    both = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert dci_of(both) == pytest.approx((2 / 3 * (1 - math.log(2, 3)) + 1 / 3, 1))
    assert dci_of(np.zeros((3, 4))) == (0, 0)
    assert dci_of(np.ones((1, 4))) == pytest.approx((0, 1))
    assert dci_of(np.ones((3, 1)) / 3) == pytest.approx((1, 0))


def test_dci_of_codes_that_are_factors() -> None:
    random = np.random.default_rng(0)
    factors = random.integers(0, (2, 3, 4), (450, 3))
    found = dci(factors * 1.0, factors)
    assert tuple(found.values()) == pytest.approx((1, 1, 1, 1), abs=1e-3)
    mixed = factors @ random.standard_normal((3, 3))
    assert dci(mixed, factors)["disentanglement"] < 0.6
    assert dci(mixed, factors, train=300) == dci(mixed, factors)
    assert dci(mixed, factors, train=200) != dci(mixed, factors)


def test_explicitness_is_the_mean_area_under_the_curve() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    factors = random.integers(0, (3, 5), (600, 2))
    codes = factors @ random.standard_normal((2, 3)) + random.standard_normal((600, 3))
    scaler = StandardScaler().fit(codes[:400])
    z = scaler.transform(codes)
    areas = {"explicitness": [], "explicitness_train": []}
    for values in factors.T:
        judge = LogisticRegression().fit(z[:400], values[:400])
        for name, some in (("explicitness", slice(400, 600)), ("explicitness_train", slice(400))):
            hot = np.eye(values.max() + 1)[values[some]]
            areas[name].append(roc_auc_score(hot, judge.predict_proba(z[some])))
    expected = {name: np.mean(both) for name, both in areas.items()}
    assert explicitness(codes * 50 - 7, factors) == pytest.approx(expected, abs=1e-4)


def test_sap_is_the_gap_of_the_best_two_lone_classifiers() -> None:
    from sklearn.svm import LinearSVC

    random = np.random.default_rng(0)
    factors = random.integers(0, (2, 4), (300, 2))
    codes = factors @ random.standard_normal((2, 3)) + 0.3 * random.standard_normal((300, 3))
    gaps = []
    for values in factors.T:
        scores = []
        for code in codes.T[:, :, None]:
            judge = LinearSVC(C=0.01, class_weight="balanced").fit(code[:200], values[:200])
            scores.append(judge.score(code[200:], values[200:]))
        gaps.append(np.diff(np.sort(scores)[-2:])[0])
    assert sap(codes, factors) == pytest.approx(np.mean(gaps), abs=0.011)  # one or two points
    assert sap(codes[:, [0, 0]], factors) == 0


def test_irs_by_hand() -> None:
    """One code is a factor, which nothing else moves; another moves by half with the other."""
    factors = np.array([[a, b] for a in (0, 1) for b in (0, 1)] * 5)
    codes = factors * 2.0 - 1
    assert irs(codes, factors) == 1
    mixed = np.stack([codes[:, 0] + codes[:, 1] / 2, 10 * codes[:, 1]], 1)
    assert irs(mixed, factors) == pytest.approx((1.5 * (1 - 0.5 / 1.5) + 10) / 11.5)
    still = np.hstack([mixed, np.full((20, 3), 7.7)])
    assert irs(still, factors) == pytest.approx(irs(mixed, factors))
    # One far point in a hundred is what the quantile leaves out, but for a share of it.
    values = np.repeat([[0], [1]], 101, 0)
    outlier = np.zeros((202, 1))
    outlier[0] = 1
    middle = 1 - 1 / 202
    assert irs(outlier, values, quantile=1) == pytest.approx(1 - (100 / 101) / 2 / middle)
    assert irs(outlier, values, quantile=0.99) == pytest.approx(1 - (1 / 101) / 2 / middle)


def test_unsupervised_of_gaussians() -> None:
    """Samples whose covariance is exact, of which both distances have a closed form."""
    random = np.random.default_rng(0)
    z = random.standard_normal((500, 2))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T
    for rho in (0.0, 0.6, -0.9):
        codes = 3 * z @ np.linalg.cholesky([[1, rho], [rho, 1]]).T
        found = unsupervised(codes)
        assert found["gaussian_tc"] == pytest.approx(-math.log(1 - rho**2) / 2, abs=1e-9)
        distance = 4 - 2 * (math.sqrt(1 + rho) + math.sqrt(1 - rho))
        assert found["wasserstein_correlation"] == pytest.approx(9 * distance, abs=1e-6)
        share = found["wasserstein_correlation_normalised"]
        assert share == pytest.approx(distance / 2, abs=1e-6)
    still = unsupervised(np.hstack([codes, np.full((500, 1), 0.1)]))
    assert still["gaussian_tc"] == pytest.approx(found["gaussian_tc"])
    assert still["code_mi"] == pytest.approx(found["code_mi"] / 3)  # one pair of three
    summed = np.hstack([codes, codes.sum(1, keepdims=True)]).astype(np.float32)
    assert unsupervised(summed)["gaussian_tc"] == math.inf
    none = dict.fromkeys(found, 0.0)
    assert unsupervised(codes[:, :1]) == pytest.approx(none, abs=1e-9)
    assert unsupervised(np.ones((9, 3))) == none
    assert all(map(math.isnan, unsupervised(codes[:1]).values()))
    codes[4, 1] = math.inf
    assert all(map(math.isnan, unsupervised(codes).values()))


def crossed() -> np.ndarray:
    """256 points of four codes that have no correlation, nor have their ranks."""
    return np.exp(np.stack(np.unravel_index(np.arange(256), (4,) * 4), 1))


def test_udr_of_equal_codes_is_one() -> None:
    codes = crossed()
    random = np.random.default_rng(0)
    turned = [codes[:, random.permutation(4)] * random.choice([-1, 1], 4) for _ in range(3)]
    assert udr([codes, *turned]) == pytest.approx([1] * 4)
    # Ranks do not see a monotone change, the lasso does; its penalty takes .1 of a weight of 1.
    assert udr([codes, np.log(codes)]) == pytest.approx([1, 1])
    assert udr([codes, *turned], kind="lasso") == pytest.approx([0.9] * 4)
    assert max(udr([codes, np.log(codes)], kind="lasso")) < 0.85


def test_udr_of_unrelated_codes_is_low_and_of_a_rotation_between() -> None:
    random = np.random.default_rng(0)
    codes = [random.standard_normal((1_000, 5)) for _ in range(3)]
    assert max(udr(codes)) < 0.05
    assert udr(codes, kind="lasso") == [0, 0, 0]
    rotation = np.linalg.qr(random.standard_normal((5, 5)))[0]
    assert 0.1 < udr([codes[0], codes[0] @ rotation])[0] < 0.6


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("spearman", [0.231072, 0.234905, 0.223495, 0.216873, 0.232822, 0.231072]),
        ("lasso", [0.257627, 0.233828, 0.240666, 0.226583, 0.294596, 0.283107]),
    ],
)
def test_udr_known_answers(kind: Any, expected: list[float]) -> None:
    """Of the original program's formulas for six models, one or two codes of which are masked."""
    random = np.random.default_rng(0)
    factors = random.standard_normal((1_000, 5))
    codes, kls = [], []
    for model in range(6):
        mixing = np.eye(5)[random.permutation(5)] + 0.4 * random.standard_normal((5, 5))
        mixed = factors @ mixing + 0.3 * random.standard_normal((1_000, 5))
        codes.append(np.hstack([mixed, random.standard_normal((1_000, 2))]))
        kls.append(np.array([2, 1, 0.5, 0.3, 0.2, 0.02 if model % 2 else 0.005, 0.001]))
    assert udr(codes, kls, kind) == pytest.approx(expected, abs=1e-5)


def test_udr_is_the_median_over_the_other_models() -> None:
    random = np.random.default_rng(1)
    codes = crossed()
    others = [codes, codes[:, ::-1], random.standard_normal((256, 4))]
    first, second, noise = udr(others)
    low = udr([codes, others[2]])[0]
    assert first == pytest.approx((1 + low) / 2)
    assert second == pytest.approx((1 + udr([codes[:, ::-1], others[2]])[0]) / 2)
    assert noise < 0.2
    # The lasso of pairs is not symmetric: a model's codes are predicted by those of the others.
    half = codes[:, :2] + codes[:, 2:]
    assert len(set(udr([codes, half], kind="lasso"))) == 2


@pytest.mark.parametrize("kind", ["spearman", "lasso"])
def test_udr_leaves_out_codes_that_do_not_count(kind: Any) -> None:
    random = np.random.default_rng(2)
    codes, other = crossed()[:, :3], crossed()[:, [1, 0, 2]]
    expected = udr([codes, other], kind=kind)
    idle = [np.hstack([z, random.standard_normal((256, 2))]) for z in (codes, other)]
    kls = [np.array([3, 2, 1, 0.01, 0])] * 2
    assert udr(idle, kls, kind=kind) == pytest.approx(expected)
    assert udr(idle, kind=kind)[0] < expected[0] - 0.1
    still = np.hstack([codes, np.full((256, 2), 5.5)])
    assert udr([still, other], kind=kind) == pytest.approx(expected)  # of other dimensions, too
    assert udr([codes, np.ones((256, 3))], kind=kind) == [0, 0]
    assert udr([codes, other], [np.zeros(3), np.ones(3)], kind=kind) == [0, 0]
    first, second, wrong = udr([codes, other, codes * math.nan], kind=kind)
    assert [first, second] == pytest.approx(expected)
    assert math.isnan(wrong)
    assert math.isnan(udr([codes], kind=kind)[0])


def test_udr_across_seeds() -> None:
    model, dataset = normed_vae()
    metric = UDR(points=20)
    kept = metric.keep(Fitted(model, dataset, Pixels(dataset), batch_size=7))
    assert kept["codes"].shape == (20, 3) and kept["kl"].shape == (3,)
    assert kept["codes"].dtype == kept["kl"].dtype == np.float32
    with torch.no_grad():
        x = torch.cat([x for x, _ in Fitted(model, dataset, Pixels(dataset)).batches("test", 20)])
        expected = model.kl(x).mean(0)
    np.testing.assert_allclose(kept["kl"], expected, rtol=1e-5)
    other = {"codes": np.random.default_rng(0).standard_normal((20, 3)), "kl": np.ones(3)}
    values = metric.compare([kept, other, kept])
    scores = udr([kept["codes"], other["codes"], kept["codes"]])
    assert [value["udr"] for value in values] == scores
    assert metric.compare([kept, dict(other, kl=np.zeros(3))]) == [{"udr": 0}] * 2
    assert "2 other seeds" in metric.compared(3)
    # Without a KL all codes count.
    kept = metric.keep(Fitted(Echo(spec(dataset)), dataset, Pixels(dataset)))
    assert (kept["kl"] == math.inf).all()


WITH_FACTORS: dict[str, Any] = {
    "mig": mig,
    "mig_sup": mig_sup,
    "dcimig": dcimig,
    "modularity": modularity,
    "sap": sap,
    "irs": irs,
    "dci": lambda *a: dci(*a)["disentanglement"],
    "completeness": lambda *a: dci(*a)["completeness"],
    "informativeness": lambda *a: dci(*a)["informativeness"],
    "explicitness": lambda *a: explicitness(*a)["explicitness"],
    "explicitness_train": lambda *a: explicitness(*a)["explicitness_train"],
}
SHARE = np.mean([1 / 2, 1 / 4])
"""About what a constant tells of factors of two and four values."""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", WITH_FACTORS)
def test_degenerate_codes_and_factors(name: str) -> None:
    score = WITH_FACTORS[name]
    factors = np.random.default_rng(0).integers(0, (2, 4), (200, 2))
    codes = factors * 1.0
    constant = {"informativeness": SHARE, "explicitness": 0.5, "explicitness_train": 0.5}
    for still in (np.ones((200, 3)), np.full((200, 2), 1 + 1e-7, np.float32)):
        assert score(still, factors) == pytest.approx(constant.get(name, 0), abs=0.1)
    best = score(codes, factors)
    assert best >= (0.4 if name == "sap" else 0.85)
    # A factor of one value is left out.
    fixed = np.hstack([np.full((200, 1), 4), factors])
    assert score(codes, fixed) == pytest.approx(best)
    assert math.isnan(score(codes, np.zeros((200, 1), dtype=int)))
    # One code, one factor.
    assert score(codes[:, :1], factors[:, :1]) >= 0.45
    assert 0 <= score(codes[:, :1], factors) <= 1
    assert score(codes[:, [1, 1]], factors) <= (
        0.02 if name in ("mig", "sap", "completeness") else 1
    )
    # Fewer points than bins; as few as there can be; none.
    assert 0 <= score(codes[:15], factors[:15]) <= 1
    for n in range(3):
        few = score(codes[:n], factors[:n])
        assert math.isnan(few) or 0 <= few <= 1
    assert math.isnan(score(codes[:0], factors[:0]))
    for wrong in (math.nan, math.inf):
        codes[3, 1] = wrong
        assert math.isnan(score(codes, factors))


def test_the_order_scale_and_sign_of_codes_do_not_matter() -> None:
    random = np.random.default_rng(0)
    factors = random.integers(0, (3, 5), (600, 2))
    codes = factors @ random.standard_normal((2, 3)) + 0.3 * random.standard_normal((600, 3))
    changed = codes[:, [2, 0, 1]] * [-1.0, 1.0, -1.0] + [3, 0, -5]
    for name, score in WITH_FACTORS.items():
        shifts = {"sap": 0.05, "dci": 0.03, "completeness": 0.03, "informativeness": 0.03}
        tolerance = shifts.get(name, 1e-3)
        tolerance = 0.02 if name in ("mig", "mig_sup", "dcimig", "modularity") else tolerance
        assert score(changed, factors) == pytest.approx(score(codes, factors), abs=tolerance), name


@pytest.mark.parametrize(
    ("kind", "expected", "tolerance"),
    [("identity", 1.0, 0), ("tiny", 1.0, 0), ("prior", 1.0, 0), ("noise", 0.2, 0.025)],
)
def test_beta_vae_known_answers(kind: str, expected: float, tolerance: float) -> None:
    few = {"train": 4_000, "evaluations": 4_000}
    score = beta_vae_score(representations()[kind], SIZES, **few)
    assert score == pytest.approx(expected, abs=tolerance + 0.001)


def test_beta_vae_of_a_rotation_is_below_one() -> None:
    score = beta_vae_score(representations()["rotation"], SIZES, train=4_000, evaluations=2_000)
    assert 0.7 < score < 0.995


def test_beta_vae_of_degenerate_codes_and_factors() -> None:
    few = {"train": 500, "evaluations": 1_000, "batch": 8}
    sizes = (4, 1, 3)
    assert beta_vae_score(lambda f: f * 1.0, sizes, **few) > 0.95
    constant = beta_vae_score(lambda f: np.ones((len(f), 3)), sizes, **few)
    assert constant == pytest.approx(0.5, abs=0.05)  # of the two factors that vary
    assert beta_vae_score(lambda f: f * 1.0, (4, 1), **few) == 1
    assert beta_vae_score(lambda f: f[:, :1] * 1.0, sizes, **few) > 0.95
    assert math.isnan(beta_vae_score(lambda f: f * 1.0, (1, 1), **few))
    assert math.isnan(beta_vae_score(lambda f: f * math.nan, sizes, **few))
    assert beta_vae_score(standardised, SIZES, 1, **few) == beta_vae_score(
        standardised, SIZES, 1, **few
    )


@pytest.mark.parametrize(
    ("kind", "expected", "tolerance"),
    [("identity", 1.0, 0), ("prior", 1.0, 0), ("noise", 0.2, 0.025), ("dup", 1.0, 0)],
)
def test_factor_vae_known_answers(kind: str, expected: float, tolerance: float) -> None:
    represent = representations()[kind]
    score = factor_vae_score(represent, SIZES, train=4000, evaluations=4000)
    assert score == pytest.approx(expected, abs=tolerance + 1e-9)


def test_factor_vae_of_a_rotation_is_below_one() -> None:
    represent = representations()["rotation"]
    assert 0.5 < factor_vae_score(represent, SIZES, train=2000, evaluations=2000) < 0.99


def test_factor_vae_prunes_codes_that_hardly_vary() -> None:
    def represent(factors: np.ndarray) -> np.ndarray:
        return standardised(factors) * [0.04, 1, 1, 1, 1]

    few = {"train": 1000, "evaluations": 1000}
    assert factor_vae_score(represent, SIZES, prune=0, **few) == 1
    assert factor_vae_score(represent, SIZES, **few) < 0.9
    assert factor_vae_score(lambda f: standardised(f) * 0.04, SIZES, **few) == 0
    assert factor_vae_score(lambda f: np.ones((len(f), 3)), SIZES, **few) == 0
    assert math.isnan(factor_vae_score(lambda f: standardised(f) * math.nan, SIZES, **few))
    assert math.isnan(factor_vae_score(lambda f: f * 1.0, (1, 1), **few))


def test_factor_vae_holds_the_variances_of_the_whole_set() -> None:
    """A code's scale must not matter: local variances are divided by global ones."""
    random = np.random.default_rng(0)

    def represent(factors: np.ndarray) -> np.ndarray:
        noise = 0.1 * random.standard_normal(factors.shape)
        return (standardised(factors) + noise) * [100, 1, 0.1, 10, 1]

    assert factor_vae_score(represent, SIZES, train=1000, evaluations=1000) == 1


def test_disentanglement_of_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Rendered((3, 4, 5))
    fitted = Fitted(Echo(spec(dataset)), dataset, Pixels(dataset), batch_size=16)
    metric = FactorVAEScore(train=200, evaluations=200, prune=0.01)
    assert metric.compute(fitted)["factor_vae"] == 1
    assert BetaVAEScore(train=300, evaluations=100).compute(fitted)["beta_vae"] > 0.9
    assert MIG(points=500).compute(fitted)["mig"] == pytest.approx(1, abs=0.02)
    # Encoding each batch gives what looking its codes up gives.
    roughly = (
        FactorVAEScore(train=30, evaluations=100, batch=2, prune=0.01),
        BetaVAEScore(train=30, evaluations=100, batch=2),
    )
    looked_up = [metric.compute(fitted) for metric in roughly]
    monkeypatch.setattr(disentanglement, "TABLE", 0)
    assert [metric.compute(fitted) for metric in roughly] == looked_up
    assert max(value for values in looked_up for value in values.values()) < 1


class Counting(Rendered):
    """Notes how many images were drawn."""

    drawn = 0

    def render(self, factors: torch.Tensor) -> torch.Tensor:
        self.drawn += len(factors)
        return super().render(factors)


def test_scores_of_points_share_them() -> None:
    dataset = Counting((3, 4, 5))
    fitted = Fitted(Echo(spec(dataset)), dataset, Pixels(dataset))
    dataset.drawn = 0
    codes, factors = MIG().points(fitted, 1_700)
    assert codes.shape == (1_700, 3) and factors.shape == (1_700, 3)
    assert dataset.drawn == 2_000
    np.testing.assert_allclose(codes, factors * 20 / 255, rtol=1e-6)
    assert 0.28 < (factors[:, 0] == 0).mean() < 0.38  # drawn, not in order
    more, more_factors = SAP().points(fitted, 2_500)
    assert dataset.drawn == 3_000
    assert (more[:1_700] == codes).all() and (more_factors[:1_700] == factors).all()
    assert len(np.unique(more_factors[:1_000] != more_factors[1_000:2_000])) == 2
    other = Fitted(Echo(spec(dataset)), dataset, Pixels(dataset), seed=1)
    assert (MIG().points(other, 1_700)[1] != factors).any()
    # So do those that choose factors themselves.
    dataset.drawn = 0
    few = {"train": 10, "evaluations": 10}
    FactorVAEScore(**few).compute(fitted)
    BetaVAEScore(**few).compute(fitted)
    assert dataset.drawn == 60 + 2  # and one image each for the number of codes


def test_how_points_were_had() -> None:
    dataset = Rendered((3, 4, 5))
    every = Fitted(Echo(spec(dataset)), dataset, Pixels(dataset))
    assert "500 images drawn from all combinations" in MIG(points=500).estimator(every)
    assert "200 fitted to and 70 scored" in SAP(train=200, test=70).estimator(every)
    factors = torch.stack([torch.arange(30) % 3, torch.arange(30) % 5], 1)
    some = fitted_echo(noise_images(30, 1, 2, 2), factors=factors)
    assert "30 images of the test split" in MIG().estimator(some)
    assert "12 images of the test split" in IRS(points=12).estimator(some)
    assert "20 fitted to and 10 scored" in DCI().estimator(some)
    assert "15 fitted to and 5 scored" in Explicitness(train=15, test=5).estimator(some)
    codes, given, train = Explicitness(train=15, test=5).parts(some)
    assert (len(codes), len(given), train) == (20, 20, 15)
    assert (given == some.factors("test", 20).numpy()).all()


def test_disentanglement_without_every_combination() -> None:
    factors = torch.stack([torch.arange(30) % 3, torch.arange(30) % 5], 1)
    fitted = fitted_echo(noise_images(30, 1, 2, 2), factors=factors)
    for metric in (FactorVAEScore(), BetaVAEScore()):
        assert "every combination" in metric.lacks(fitted)
    assert MIG().lacks(fitted) == ""
    assert 0 <= MIG().compute(fitted)["mig"] <= 1
    with pytest.raises(NotApplicable, match="every combination"):
        fitted.represent(factors)


def test_disentanglement_that_does_not_apply() -> None:
    fixed = fitted_echo(noise_images(30, 1, 2, 2), factors=torch.ones(30, 2, dtype=torch.int64))
    for metric in (MIG(), IRS(), SAP(), DCI(), Explicitness()):
        for value in metric.compute(fixed).values():
            assert "no factor varies" in str(value)
    twice = noise_images(60, 1, 1, 3).repeat(1, 1, 2, 1)
    found = Unsupervised().compute(fitted_echo(twice))
    assert "infinite" in str(found["gaussian_tc"])
    assert found["wasserstein_correlation"] > 0
    wide = fitted_echo(noise_images(9, 1, 8, 17), factors=torch.arange(9)[:, None])
    for metric in (SAP(), DCI()):
        with pytest.raises(NotApplicable, match="136 codes are more than"):
            metric.compute(wide)
    assert 0 <= MIG().compute(wide)["mig"] <= 1


def test_which_scores_of_disentanglement_are_ranked() -> None:
    ranked = {
        quantity.name
        for metric in OURS.values()
        for quantity in metric.quantities
        if metric.family == "disentanglement" and quantity.ranked
    }
    assert ranked == {"beta_vae", "factor_vae", "mig", "dci_disentanglement", "sap"}


def test_bad_parameters_of_disentanglement_are_refused() -> None:
    for make, wrong in (
        (lambda: IRS(quantile=1.5), "quantile must be 0 to 1"),
        (lambda: DCI(train=0), "train must be 1"),
        (lambda: BetaVAEScore(batch=0), "batch must be 1"),
        (lambda: UDR(points=1), "points must be 2"),
    ):
        with pytest.raises(InputError, match=wrong):
            make()
    with pytest.raises(InputError, match="relation"):
        Metric.make("udr", {"relation": "pearson"})
