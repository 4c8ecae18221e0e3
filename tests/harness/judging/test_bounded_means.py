"""The mean of values in a known range: exact error rates by enumeration, published bounds, and what order cannot do."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.judging.betting import STAKES, documents_to_decide
from harness.judging.bounded_means import (
    bounded_mean_interval,
    bounded_mean_p_value,
    chance_to_keep_mean,
)
from harness.judging.resampling import mean_interval

VALUES = st.lists(st.sampled_from([0.0, 0.01, 0.5, 1.0]) | st.floats(0, 1), min_size=1, max_size=40)


def missed(n: int, p: float, at: float = 1.0) -> tuple[float, float]:
    """Exact chances that (upper, lower) bound miss the mean of n values that are `at` with chance p, else 0."""
    counts = np.arange(n + 1)
    weights = stats.binom.pmf(counts, n, p)
    found = [bounded_mean_interval([at] * k + [0.0] * (n - k), 0, 1) for k in counts.tolist()]
    upper, lower = (np.array([getattr(i, side) for i in found]) for side in ("upper", "lower"))
    return float(weights[upper < p * at - 1e-9].sum()), float(weights[lower > p * at + 1e-9].sum())


@pytest.mark.parametrize("n", [1, 8, 32, 100])
@pytest.mark.parametrize("p", [0.005, 0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("at", [0.05, 1.0])
def test_values_of_two_kinds_keep_the_level_by_enumeration(n: int, p: float, at: float) -> None:
    upper, lower = missed(n, p, at)
    assert upper <= 0.05 and lower <= 0.05


def test_the_level_holds_for_values_of_different_distributions() -> None:
    # Eight documents of one kind have mean 0.9, eight of another 0.1: no two kinds need be alike.
    kinds, misses = (0.9, 0.1), 0.0
    for hits in product(range(9), repeat=2):
        chance = math.prod(stats.binom.pmf(k, 8, p) for k, p in zip(hits, kinds, strict=True))
        misses += chance * (bounded_mean_interval([1.0] * sum(hits) + [0.0] * (16 - sum(hits)), 0, 1).upper < 0.5)
    assert misses <= 0.05


def test_the_expected_fortune_at_the_mean_is_one_at_most_by_enumeration() -> None:
    # p values are 1 / fortune: their chance of being at most alpha is alpha at most, for every alpha at once.
    n, p = 60, 0.07
    weights = stats.binom.pmf(np.arange(n + 1), n, p)
    for least in (True, False):
        ps = [bounded_mean_p_value([1.0] * k + [0.0] * (n - k), 0, 1, p, least=least) for k in range(n + 1)]
        for alpha in (0.3, 0.1, 0.05, 0.01, 0.001):
            assert weights[np.array(ps) <= alpha].sum() <= alpha


def test_a_mean_of_zeros_has_the_bound_that_the_boldest_bet_gives_by_hand() -> None:
    # Each zero multiplies the boldest fortune by 1 / (1 - m); nothing else does nearly as much at n = 400.
    found = bounded_mean_interval([0.0] * 400, 0, 1)
    assert found.lower == 0 and found.upper <= 1 - (STAKES[-1] / 20) ** (1 / 400)
    assert found.upper > 1 - 0.05 ** (1 / 400)  # no bound can be below that of Clopper and Pearson


@given(VALUES)
@settings(max_examples=60)
def test_bounds_hold_what_an_interval_must(values: list[float]) -> None:
    found = bounded_mean_interval(values, 0, 1)
    assert 0 <= found.lower <= found.estimate + 1e-9 and found.estimate <= found.upper + 1e-9 and found.upper <= 1
    assert bounded_mean_interval(values[::-1], 0, 1) == found  # the order says nothing
    mirror = bounded_mean_interval([1 - v for v in values], 0, 1)
    assert (1 - mirror.upper, 1 - mirror.lower) == pytest.approx((found.lower, found.upper), abs=1e-7)
    wide = bounded_mean_interval([7 * v - 3 for v in values], -3, 4)
    assert [(v + 3) / 7 for v in wide] == pytest.approx(list(found), abs=1e-7)
    surer = bounded_mean_interval(values, 0, 1, 0.99)
    assert surer.lower <= found.lower + 1e-9 and surer.upper >= found.upper - 1e-9


@given(VALUES, st.floats(0.01, 0.99))
@settings(max_examples=60)
def test_the_p_value_is_that_of_the_test_that_the_bounds_invert(values: list[float], margin: float) -> None:
    found = bounded_mean_interval(values, 0, 1)
    if abs(found.upper - margin) > 1e-6:
        assert (found.upper < margin) == (bounded_mean_p_value(values, 0, 1, margin, least=True) < 0.05)
    if abs(found.lower - margin) > 1e-6:
        assert (found.lower > margin) == (bounded_mean_p_value(values, 0, 1, margin) < 0.05)


def test_margins_at_and_beyond_the_ends() -> None:
    assert bounded_mean_p_value([0.5] * 30, 0, 1, 1.0) == 1 and bounded_mean_p_value([0.5] * 30, 0, 1, 1.5) == 1
    assert bounded_mean_p_value([0.5] * 30, 0, 1, 0.0, least=True) == 1
    assert bounded_mean_p_value([0.5] * 30, 0, 1, 0.0) < 1e-9 and bounded_mean_p_value([0.0] * 30, 0, 1, 0.0) == 1


def test_about_as_narrow_as_gaffkes_bound_which_is_not_proven() -> None:
    for seed, (mean, sd) in enumerate([(0.02, 0.02), (0.03, 0.03), (0.06, 0.04), (0.1, 0.1)]):
        a = mean * (mean * (1 - mean) / sd**2 - 1)
        values = np.random.default_rng(seed).beta(a, a * (1 - mean) / mean, 256)
        ours, gaffke = bounded_mean_interval(values, 0, 1), mean_interval(2 * values - 1)
        width = (gaffke.upper + 1) / 2 - ours.estimate
        assert width <= ours.upper - ours.estimate < 1.5 * width


def test_what_mean_two_hundredths_needs() -> None:
    # Mean 0.02, sd 0.02, margin 0.04: 256 documents decide it, 160 do not.
    rng = np.random.default_rng(7)
    a = 0.02 * (0.02 * 0.98 / 0.0004 - 1)
    drawn = rng.beta(a, a * 0.98 / 0.02, (200, 256))
    passed = {
        n: np.mean([bounded_mean_p_value(row[:n], 0, 1, 0.04, least=True) < 0.05 for row in drawn]) for n in (160, 256)
    }
    assert passed[160] < 0.5 and passed[256] > 0.95

    def documents(margin: float, high: float = 1.0, *, least: bool = False) -> int | None:
        return documents_to_decide(lambda n: chance_to_keep_mean(drawn.ravel(), 0, high, margin, n, least=least))

    needed = documents(0.04)
    assert needed is not None and 180 <= needed <= 230
    chances = [chance_to_keep_mean(drawn.ravel(), 0, 1, 0.04, n) for n in (needed - 1, needed)]
    assert chances[0] < 0.8 <= chances[1]
    doubled = documents(0.04, 2.0)  # what was not seen may be twice as bad
    assert doubled is not None and doubled > 1.8 * needed
    above = documents(0.01, least=True)
    assert above is not None and above < 40
    assert documents_to_decide(lambda n: chance_to_keep_mean([0.3, 0.3], 0, 1, 0.3, n)) is None
    assert chance_to_keep_mean([0.3], 0, 1, 0.0, 9) == 0.0  # nothing lies below


@pytest.mark.parametrize("values", [[], [0.5, 1.2], [-0.1], [math.nan]])
def test_values_outside_the_range_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"values must be one or more numbers in \[0, 1\]"):
        bounded_mean_interval(values, 0, 1)
