"""Bounds of a proportion and of a mean of graded losses agree with scipy's, and keep their level."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.judging.resampling import mean_interval
from harness.judging.statistics import proportion_interval

# -- a single proportion -------------------------------------------------------------------------------------


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_proportion_interval_is_where_the_binomial_tail_is_five_percent(
    hits_of: tuple[int, int], confidence: float
) -> None:
    hits, n = hits_of
    interval = proportion_interval(hits, n, confidence)
    assert interval.estimate == hits / n
    if hits == 0:
        assert interval.lower == 0
    else:
        assert stats.binom.sf(hits - 1, n, interval.lower) == pytest.approx(1 - confidence, abs=1e-6)
    if hits == n:
        assert interval.upper == 1
    else:
        assert stats.binom.cdf(hits, n, interval.upper) == pytest.approx(1 - confidence, abs=1e-6)


def test_a_proportion_that_was_never_hit_has_the_bound_of_the_rule_of_three() -> None:
    assert proportion_interval(0, 100).upper == pytest.approx(1 - 0.05 ** (1 / 100))


# -- the mean of graded losses -------------------------------------------------------------------------------

GRADED = st.lists(
    st.sampled_from([-1.0, -0.5, 0.0, 0.1, 0.2, 0.3, 0.7, 1.0]) | st.floats(-1, 1), min_size=1, max_size=30
)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 20), (1, 20), (7, 20), (20, 20), (12, 400)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_for_values_of_two_kinds_the_mean_has_clopper_and_pearsons_bounds(hits: int, n: int, confidence: float) -> None:
    exact = proportion_interval(hits, n, confidence)
    close = 0.03 * (exact.upper - exact.lower)  # 20,000 draws
    ends = mean_interval([1.0] * hits + [-1.0] * (n - hits), confidence)
    assert ends == pytest.approx([2 * v - 1 for v in exact], abs=2 * close)
    losses = mean_interval([1.0] * hits + [0.0] * (n - hits), confidence)  # lower: -1 was possible, too
    assert losses.upper == pytest.approx(exact.upper, abs=close) and losses.lower <= exact.lower + close
    wins = mean_interval([-1.0] * hits + [0.0] * (n - hits), confidence)
    assert wins == (-losses.estimate, -losses.upper, -losses.lower)


@given(GRADED, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_graded_losses_does_not_matter_at_all(values: list[float], random: Random) -> None:
    shuffled = random.sample(values, len(values))
    assert mean_interval(shuffled) == mean_interval(values)


@given(GRADED)
@settings(max_examples=50)
def test_bounds_of_graded_losses_stay_in_range_and_hold_their_estimate(values: list[float]) -> None:
    interval = mean_interval(values)
    assert -1 <= interval.lower <= interval.estimate <= interval.upper <= 1
    assert interval.estimate == pytest.approx(np.mean(values), abs=1e-12)
    mirrored = mean_interval([-v for v in values])
    assert interval == (-mirrored.estimate, -mirrored.upper, -mirrored.lower)
    # Never surer than if the same items had all been alike (every one at the mean), less what was drawn by chance.
    assert interval.upper >= interval.estimate + (1 - interval.estimate) * (1 - 0.05 ** (1 / len(values))) - 0.02


def test_graded_bounds_are_the_same_every_time_and_move_little_with_the_seed() -> None:
    values = np.random.default_rng(5).uniform(-1, 1, size=40)
    one = mean_interval(values)
    assert mean_interval(values) == one == mean_interval(list(values))
    other = mean_interval(values, seed=1)
    assert one != other and other == pytest.approx(one, abs=0.03 * (one.upper - one.lower))


@pytest.mark.parametrize("n", [1, 10, 100, 2000])
@pytest.mark.parametrize("value", [0.0, 0.25, -1.0])
def test_graded_bounds_do_not_collapse_when_all_losses_are_alike(n: int, value: float) -> None:
    interval = mean_interval(np.full(n, value))
    share = 1 - 0.05 ** (1 / n)  # an unseen share of items may be as bad as it gets
    assert interval.upper == pytest.approx(value + (1 - value) * share, rel=0.03, abs=0.03 * share)
    assert interval.lower == pytest.approx(value - (value + 1) * share, rel=0.03, abs=0.03 * share)


def test_with_many_mixed_losses_the_bounds_are_near_those_of_students_t() -> None:
    values = np.random.default_rng(2).choice(np.linspace(-1, 1, 17), size=2000)
    interval = mean_interval(values)
    half = stats.t.ppf(0.95, 1999) * np.std(values, ddof=1) / math.sqrt(2000)
    assert interval.upper - interval.estimate == pytest.approx(half, rel=0.06)
    assert interval.estimate - interval.lower == pytest.approx(half, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "shares"),
    [([0.0, 0.2, -0.2, 0.6], [0.6, 0.2, 0.1, 0.1]), ([0.0, 1.0], [0.98, 0.02]), ([-1, 1], [0.5, 0.5])],
)
def test_graded_bounds_miss_the_true_mean_as_seldom_as_promised(kinds: list[float], shares: list[float]) -> None:
    rng, runs, n = np.random.default_rng(7), 150, 40
    found = [mean_interval(rng.choice(kinds, size=n, p=shares), 0.9) for _ in range(runs)]
    mean, allowed = float(np.dot(kinds, shares)), 0.1 + 3 * math.sqrt(0.1 * 0.9 / runs)
    assert np.mean([interval.upper < mean for interval in found]) <= allowed
    assert np.mean([interval.lower > mean for interval in found]) <= allowed


@pytest.mark.parametrize("values", [[], [0.0, 1.5], [-1.01], [math.nan], [math.inf]])
def test_what_is_no_loss_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        mean_interval(values)
