"""What a result is worth: its standard error, items needed, power and p value agree with independent oracles."""

import math
from collections.abc import Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force_p, chances, nuisances, tables
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.judging.paired_rates import paired_interval, paired_p_value
from harness.judging.resampling import mean_interval, mean_p_value, ratio_interval, ratio_p_value
from harness.judging.statistics import (
    Interval,
    holm,
    items_to_decide,
    power_at_equality,
    proportion_p_value,
    standard_error,
)


def normal_interval(estimate: float, error: float, confidence: float) -> Interval:
    half = error * float(stats.norm.ppf(confidence))
    return Interval(estimate, estimate - half, estimate + half)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_the_standard_error_is_that_of_the_wider_half(confidence: float) -> None:
    assert standard_error(normal_interval(0.1, 0.02, confidence), confidence) == pytest.approx(0.02)
    lopsided = Interval(0.0, -0.01, 0.02), Interval(0.0, -0.02, 0.01)
    assert [standard_error(i, 0.95) for i in lopsided] == pytest.approx([0.02 / 1.6448536] * 2)
    assert standard_error(Interval(0.0, -math.inf, math.inf), 0.95) == math.inf


@pytest.mark.parametrize(("margin", "needed"), [(0.01, 6183), (0.02, 1546), (0.03, 687), (0.05, 248)])
def test_items_for_eighty_percent_power_at_ten_percent_discordance(margin: float, needed: int) -> None:
    assert items_to_decide(1, math.sqrt(0.1), margin) == needed
    assert items_to_decide(100, math.sqrt(0.1 / 100), margin) == needed  # the same spread, seen on 100 items
    assert power_at_equality(math.sqrt(0.1 / needed), margin) >= 0.8
    assert power_at_equality(math.sqrt(0.1 / (needed - 1)), margin) < 0.8


def test_power_is_the_share_of_equal_candidates_whose_upper_bound_keeps_the_margin() -> None:
    estimates = np.random.default_rng(0).normal(0, 0.01, size=100_000)
    passing = np.mean(estimates + 0.01 * stats.norm.ppf(0.95) <= 0.02)
    assert power_at_equality(0.01, 0.02) == pytest.approx(passing, abs=0.006)
    assert power_at_equality(0.01, 0.0) == pytest.approx(0.05)
    assert power_at_equality(0.01, 0.02, 0.99) < power_at_equality(0.01, 0.02) < power_at_equality(0.005, 0.02)
    assert (power_at_equality(0.0, 0.01), power_at_equality(0.0, 0.0)) == (1.0, 0.0)


def test_no_number_of_items_decides_an_estimate_on_the_margin_or_one_without_an_error() -> None:
    assert items_to_decide(100, 0.1, 0.0) is None
    assert items_to_decide(5, math.inf, 0.1) is None
    assert items_to_decide(100, 0.1, 0.2) == math.ceil(100 * (0.5 * (1.6448536 + 0.8416212)) ** 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_p_value_of_a_mean_or_ratio_is_the_level_at_which_its_bound_meets_the_margin(
    seed: int, level: float
) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.uniform(-1, 1, 60), rng.uniform(10, 90, 60)
    assert mean_p_value(values, mean_interval(values, level).lower) == pytest.approx(1 - level, abs=2e-4)
    for signed, high in ((True, 1.0), (False, math.inf)):
        sums = values * weights if signed else np.abs(values) * weights
        kinds: dict[str, Any] = {"signed": signed, "high": high}
        bounds = ratio_interval(sums, weights, level, **kinds)
        assert ratio_p_value(sums, weights, bounds.lower, **kinds) == pytest.approx(1 - level, abs=2e-4)
        at_least = ratio_p_value(sums, weights, bounds.upper, least=True, **kinds)
        assert at_least == pytest.approx(1 - level, abs=2e-4)


def test_the_p_value_of_a_mean_of_two_kinds_is_the_binomial_tail() -> None:
    # Values of -1 and 1 only: Gaffke's bound is Clopper and Pearson's.
    for wins in (3, 9, 12):
        values = [1.0] * wins + [-1.0] * (30 - wins)
        true = float(stats.binom.sf(wins - 1, 30, 0.2))
        assert mean_p_value(values, 2 * 0.2 - 1) == pytest.approx(true, abs=4 * (true * (1 - true) / 20_000) ** 0.5)


def test_too_few_documents_reject_nothing() -> None:
    assert ratio_p_value([1.0] * 7, [1.0] * 7, 0.1) == 1.0


@pytest.mark.parametrize(("hits", "n", "ceiling"), [(0, 10, 0.1), (3, 10, 0.1), (10, 10, 0.9), (30, 1000, 0.02)])
def test_the_p_value_of_a_proportion_is_the_binomial_tail(hits: int, n: int, ceiling: float) -> None:
    tail = sum(math.comb(n, k) * ceiling**k * (1 - ceiling) ** (n - k) for k in range(hits, n + 1))
    assert proportion_p_value(hits, n, ceiling) == pytest.approx(tail, abs=1e-9)


@pytest.mark.parametrize(("b", "c"), [(4, 0), (6, 1), (9, 0), (12, 0)])
def test_the_p_value_of_a_pair_count_is_that_of_brute_force(b: int, c: int) -> None:
    n = 12
    mirrored = np.flatnonzero((tables(n)[0] == c) & (tables(n)[1] == b))[0]
    true = brute_force_p(n, 0.0)[mirrored]
    assert paired_p_value(b, c, n, 0.0) == pytest.approx(true, abs=2e-5 + 0.01 * true)


@pytest.mark.parametrize(("n", "margin"), [(6, 0.1), (15, 0.0), (15, 0.2), (30, 0.05)])
def test_the_p_value_of_a_pair_count_keeps_every_level_by_enumeration(n: int, margin: float) -> None:
    b, c = tables(n)
    p = np.array([paired_p_value(int(x), int(y), n, margin) for x, y in zip(b, c, strict=True)])
    at_margin = chances(n, margin, nuisances(margin, 201))
    for level in (0.05, 0.05 / 2, 0.05 / 13, 0.05 / 57, 0.05 / 500):
        missed = at_margin[:, p <= level].sum(axis=1).max()
        assert missed <= level, level
        assert n < 30 or missed > 0.6 * level  # and it gives little away


@pytest.mark.parametrize(("b", "c", "n"), [(12, 1, 60), (30, 10, 200)])
def test_the_p_value_of_a_pair_count_is_below_the_level_exactly_where_its_bound_is_above_the_margin(
    b: int, c: int, n: int
) -> None:
    for level in (0.9, 0.95, 0.99):
        bound = paired_interval(b, c, n, level).lower
        assert paired_p_value(b, c, n, bound - 1e-5, level) <= 1 - level < paired_p_value(b, c, n, bound + 1e-5, level)
    assert paired_p_value(b, c, n, 0.0) < paired_p_value(b, c, n, 0.05) < paired_p_value(b, c, n, 0.1) <= 1
    assert paired_p_value(0, 0, n, 0.0) == 1.0


def test_small_levels_are_reached_where_the_loss_is_twice_the_margin() -> None:
    # None is won: with that known for sure the test would be the binomial one.
    for b in (21, 24, 30):
        least = float(stats.binom.sf(b - 1, 200, 0.05))
        assert least < paired_p_value(b, 0, 200, 0.05) < 3 * least + 2e-5
    assert paired_p_value(40, 0, 200, 0.05) < 0.05 / 1000


def test_what_keeps_the_margin_never_speaks_against_it() -> None:
    for b, c, n in ((9, 9, 4018), (1, 1, 100), (0, 5, 1000), (20, 0, 1000)):
        assert paired_p_value(b, c, n, 0.02) == 1.0


@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.0125, 0.02, 0.025, 0.05, 0.3, 1.0]), max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    # By definition: rejected is what every set of hypotheses that holds it rejects by Bonferroni.
    indices = range(len(p_values))
    sets: list[Sequence[int]] = list(chain.from_iterable(combinations(indices, k) for k in range(1, len(p_values) + 1)))
    bonferroni = {s: min(p_values[i] for i in s) <= 0.05 / len(s) for s in map(tuple, sets)}
    assert holm(p_values, 0.05) == [all(hit for s, hit in bonferroni.items() if i in s) for i in indices]


def test_holm_gives_the_textbook_result() -> None:
    # Of 0.01, 0.04, 0.03 and 0.005 the first and the fourth are rejected; 0.03 > 0.05 / 2 ends it.
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]
    assert holm([], 0.05) == []
