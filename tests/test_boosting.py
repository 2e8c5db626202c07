"""Gradient boosting: it is scikit-learn's, and what it does at the edges."""

import math
import warnings

import numpy as np
import pytest
import torch
from aebench.benchmark.metrics.boosting import Boosted, boost
from aebench.benchmark.speed.dci import known_codes, scores
from sklearn.ensemble import GradientBoostingClassifier


def theirs(codes, factors, test_codes, test_factors, **options) -> Boosted:
    """scikit-learn's answer."""
    importances, train, test = [], [], []
    for k in range(factors.shape[1]):
        fitted = GradientBoostingClassifier(**options, random_state=k).fit(codes, factors[:, k])
        importances.append(fitted.feature_importances_)
        train.append(fitted.score(codes, factors[:, k]))
        test.append(fitted.score(test_codes, test_factors[:, k]))
    return Boosted(np.stack(importances, 1), np.array(train), np.array(test))


def halves(codes: np.ndarray, factors: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
    return codes[:n], factors[:n], codes[n:], factors[n:]


def problem(kind: str, n: int = 1_200, sizes: tuple[int, ...] = (2, 3, 7)) -> tuple:
    """Codes and factors of ``n`` points, and of half as many others."""
    random = np.random.default_rng(0)
    factors = random.integers(0, sizes, (n + n // 2, len(sizes)))
    noise = random.standard_normal((len(factors), 4))
    plain = factors / (np.array(sizes) - 1)
    mixing = 2 * random.standard_normal((len(sizes), 4))
    codes = {
        "mixed": plain @ mixing + 0.3 * noise,
        "noise": noise,
        "tied beside noise": np.hstack([factors[:, 1:] // 2, noise]),
    }
    return halves(codes[kind], factors, n)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_first_rounds_are_sklearns_to_rounding(rounds: int, depth: int) -> None:
    # Two and three values, drawn so that no node has two splits that are equally good.
    random = np.random.default_rng(2)
    codes = random.standard_normal((2_000, 4))
    hidden = codes @ random.standard_normal((4, 2)) + 0.5 * random.standard_normal((2_000, 2))
    factors = np.stack([np.digitize(hidden[:, 0], [0]), np.digitize(hidden[:, 1], [-1, 1])], 1)
    data = halves(codes, factors, 1_500)
    ours = boost(*data, rounds=rounds, depth=depth, learning_rate=0.5)
    expected = theirs(*data, n_estimators=rounds, max_depth=depth, learning_rate=0.5)
    np.testing.assert_allclose(ours.importances, expected.importances, atol=1e-9)
    np.testing.assert_array_equal(ours.train, expected.train)
    np.testing.assert_array_equal(ours.test, expected.test)


@pytest.mark.parametrize("kind", ["mixed", "noise", "tied beside noise"])
def test_all_rounds_are_close_to_sklearns(kind: str) -> None:
    data = problem(kind, 600)
    ours, expected = boost(*data), theirs(*data)
    np.testing.assert_allclose(ours.importances, expected.importances, atol=0.02)
    np.testing.assert_allclose(ours.importances.sum(0), 1)
    np.testing.assert_allclose(ours.train, expected.train, atol=0.02)
    np.testing.assert_allclose(ours.test, expected.test, atol=0.04)


def test_values_in_any_order_of_any_integers() -> None:
    codes, factors, test_codes, test_factors = problem("mixed", 200)
    plain = boost(codes, factors, test_codes, test_factors, rounds=5)
    names = np.array([-7, 40, 3, 10**12, 0, 5, 9])
    ascending = np.sort(names)
    gaps = boost(codes, ascending[factors], test_codes, ascending[test_factors], rounds=5)
    np.testing.assert_array_equal(gaps.importances, plain.importances)
    np.testing.assert_array_equal(gaps.test, plain.test)
    shuffled = boost(codes, names[factors], test_codes, names[test_factors], rounds=5)
    np.testing.assert_allclose(shuffled.importances, plain.importances, atol=0.02)


def test_a_code_that_is_the_factor_has_all_importance() -> None:
    factors = np.random.default_rng(0).integers(0, (2, 5), (300, 2))
    codes = np.hstack([factors, np.random.default_rng(1).standard_normal((300, 2))])
    found = boost(*halves(codes, factors, 200), rounds=20)
    np.testing.assert_allclose(found.importances, np.eye(4, 2), atol=1e-9)
    np.testing.assert_array_equal([found.train, found.test], 1)


def test_equal_codes_share_importance_by_chance() -> None:
    factors = np.random.default_rng(0).integers(0, 4, (400, 1))
    twice = halves(np.hstack([factors, -factors]), factors, 300)
    found = boost(*twice).importances[:, 0]
    assert 0.3 < found[0] < 0.7
    assert found.sum() == pytest.approx(1)
    assert boost(*twice, seed=1).importances[0, 0] != found[0]


def test_a_constant_code_has_no_importance() -> None:
    codes, *others = problem("mixed", 200)
    codes, test_codes = codes.copy(), others[1].copy()
    codes[:, 2] = test_codes[:, 2] = 1.5
    found = boost(codes, others[0], test_codes, others[2], rounds=5)
    assert (found.importances[2] == 0).all()
    assert (found.importances[[0, 1, 3]].sum(0) > 0.999).all()


def test_without_a_code_that_varies_the_commonest_value_is_predicted() -> None:
    factors = np.array([[0, 1]] * 3 + [[1, 2]] * 5 + [[1, 4]] * 2)
    found = boost(np.ones((10, 2)), factors, np.ones((10, 2)), factors)
    assert (found.importances == 0).all()
    np.testing.assert_allclose(found.train, [0.7, 0.5])
    np.testing.assert_allclose(found.test, [0.7, 0.5])


def test_values_that_float32_barely_parts_are_one() -> None:
    factors = np.array([[0], [1]] * 5)
    close, apart = boost(factors * 5e-8, factors, *[factors] * 2), boost(*[factors] * 4)
    assert close.importances[0, 0] == 0 and close.train[0] == 0.5
    assert apart.importances[0, 0] == 1 and apart.train[0] == 1


@pytest.mark.parametrize("low", [4, np.nextafter(np.float32(4), np.float32(5)), -4])
def test_neighbouring_float32_are_parted(low: float) -> None:
    # Halfway is no float32, and must not be rounded to the upper.
    codes = np.array([[low], [np.nextafter(np.float32(low), np.float32(np.inf))]] * 4)
    factors = np.array([[0], [1]] * 4)
    assert boost(codes, factors, codes, factors).test[0] == 1


def test_one_value_in_training_is_kept() -> None:
    codes, test_codes = np.arange(6.0)[:, None], np.arange(4.0)[:, None]
    found = boost(codes, np.full((6, 1), 8), test_codes, np.array([[8], [8], [8], [2]]))
    assert found.importances[0, 0] == 0 and found.train[0] == 1 and found.test[0] == 0.75


def test_unseen_values_are_wrong() -> None:
    factors = np.array([[0], [1], [2]] * 10)
    found = boost(factors, factors, np.array([[0], [1], [2], [3]]), np.array([[0], [1], [2], [3]]))
    assert found.train[0] == 1 and found.test[0] == 0.75


def test_no_test_points() -> None:
    codes, factors, *_ = problem("mixed", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = boost(codes, factors, codes[:0], factors[:0], rounds=3)
    assert (found.train > 0.3).all() and all(math.isnan(t) for t in found.test)
    assert found.test.shape == (3,)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_points(n: int) -> None:
    codes, factors = np.arange(n)[:, None] * 1.0, np.arange(n)[:, None]
    found = boost(codes, factors, codes, factors)
    assert found.train[0] == found.test[0] == 1
    assert found.importances[0, 0] == (n > 1)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_answer_depends_on_the_seed_alone(threads: int) -> None:
    factors = np.random.default_rng(0).integers(0, 3, (6_000, 1))
    codes = np.hstack([factors, factors, np.random.default_rng(1).standard_normal((6_000, 6))])
    data = halves(codes, factors, 5_000)
    first = boost(*data, rounds=4)
    kept = torch.get_num_threads()
    np.random.seed(threads)  # noqa: NPY002
    torch.manual_seed(threads)
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            again = boost(*data, rounds=4)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(kept)
    np.testing.assert_array_equal(first.importances, again.importances)
    assert (boost(*data, rounds=4, seed=1).importances != first.importances).any()


def test_the_random_states_and_the_arguments_are_left_alone() -> None:
    data = problem("tied beside noise", 100)
    kept = [a.copy() for a in data]
    numpys = np.random.get_state()[1].copy()  # noqa: NPY002
    torchs = torch.get_rng_state()
    boost(*data, rounds=3)
    np.testing.assert_array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torchs)
    for a, b in zip(data, kept):
        np.testing.assert_array_equal(a, b)


def test_scores_of_known_importances() -> None:
    one = np.ones(2)
    assert scores(Boosted(np.eye(2), one, one)) == pytest.approx((1, 1, 1))
    assert scores(Boosted(np.full((2, 2), 0.5), one, one / 2)) == pytest.approx((0, 0, 0.5))
    twice = np.vstack([np.eye(2), np.eye(2)]) / 2
    assert scores(Boosted(twice, one, one)) == pytest.approx((1, 0.5, 1))


# scikit-learn's own answers for these codes.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("identity", (1.0, 1.0, 1.0)),
        ("twice", (1.0, 0.705, 1.0)),
        ("noise", (0.002, 0.002, 0.118)),
        ("two beside noise", (0.537, 0.432, 0.447)),
        ("rotation", (0.241, 0.281, 0.505)),
    ],
)
def test_known_answers(kind: str, expected: tuple[float, ...]) -> None:
    assert scores(boost(*known_codes(kind, 10_000))) == pytest.approx(expected, abs=0.02)
