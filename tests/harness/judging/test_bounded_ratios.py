"""Ratios whose parts have a known range: the level of their bounds, and that bounds and p values are one test."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judging.betting import documents_to_decide
from harness.judging.bounded_ratios import (
    Range,
    bounded_ratio,
    bounded_ratio_p_value,
    chance_to_keep_ratio,
)

LENGTHS = Range(100.0)
SHARES = Range(100.0, high=1.0)
OVER_NOISE = Range(100.0, low=-1.0, high=1.0)


def test_the_level_holds_over_all_outcomes() -> None:
    # Six documents, each one of three: the chance of a p value below 10 % where the ratio is exactly the margin.
    documents, chances = [(1.0, 50.0), (10.0, 50.0), (100.0, 50.0)], [0.6, 0.3, 0.1]
    true = sum(c * p for (c, _), p in zip(documents, chances, strict=True)) / 50.0
    wrong = {"above": 0.0, "below": 0.0}
    for outcome in product(range(3), repeat=6):
        chance = math.prod(chances[i] for i in outcome)
        counts, weights = [documents[i][0] for i in outcome], [documents[i][1] for i in outcome]
        wrong["above"] += chance * (bounded_ratio_p_value(counts, weights, LENGTHS, true) <= 0.1)
        wrong["below"] += chance * (bounded_ratio_p_value(counts, weights, LENGTHS, true, least=True) <= 0.1)
    assert max(wrong.values()) <= 0.1


@pytest.mark.parametrize("of", [LENGTHS, SHARES, OVER_NOISE])
def test_the_level_holds_for_rare_long_answers(of: Range) -> None:
    # The case in which a bootstrap fails: one document in fifty holds nearly all of it.
    rng, passed, runs = np.random.default_rng(4), 0, 400
    for _ in range(runs):
        weights = rng.uniform(10, 100, 60)
        rare = rng.random(60) < 0.02
        counts = weights * np.where(rare, 1.0, 0.01)
        true = 0.02 * 1.0 + 0.98 * 0.01
        passed += bounded_ratio_p_value(counts.tolist(), weights.tolist(), of, true, least=True) <= 0.05
    assert passed <= 0.05 * runs


documents = st.lists(st.tuples(st.floats(0, 1), st.floats(1, 100)), min_size=1, max_size=30)


@given(documents, st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=25)
def test_bounds_enclose_the_ratio_and_meet_their_p_values(rows: list[tuple[float, float]], level: float) -> None:
    weights = [w for _, w in rows]
    for of in (LENGTHS, SHARES, OVER_NOISE):
        counts = [(2 * s - 1 if of.low else s) * w for s, w in rows]
        estimate, lower, upper = bounded_ratio(counts, counts, weights, of, level)
        assert of.low <= lower <= estimate + 1e-9 and estimate - 1e-9 <= upper <= of.high
        if lower > of.low + 1e-6:
            assert bounded_ratio_p_value(counts, weights, of, lower) == pytest.approx(1 - level, rel=1e-3)
        if upper < min(of.high, 1e6) - 1e-6:
            below = bounded_ratio_p_value(counts, weights, of, upper, least=True)
            assert below == pytest.approx(1 - level, rel=1e-3)


@pytest.mark.parametrize("of", [LENGTHS, SHARES])
def test_order_changes_no_digit(of: Range) -> None:
    rng = np.random.default_rng(0)
    weights = rng.uniform(1, 100, 40)
    counts, mixed = weights * rng.random(40), rng.permutation(40)
    shuffled = bounded_ratio(counts[mixed].tolist(), counts[mixed].tolist(), weights[mixed].tolist(), of)
    assert bounded_ratio(counts.tolist(), counts.tolist(), weights.tolist(), of) == shuffled


def test_the_ends_of_the_range_are_safe() -> None:
    assert bounded_ratio([0.0], [0.0], [5.0], SHARES).lower == 0.0
    assert bounded_ratio([5.0], [5.0], [5.0], SHARES).upper == 1.0
    assert bounded_ratio_p_value([3.0], [5.0], SHARES, 0.0) == 1.0  # nothing can be won on "above 0"


@pytest.mark.parametrize(("count", "weight"), [(101.0, 50.0), (1.0, 0.0), (1.0, 101.0), (-1.0, 5.0)])
def test_documents_outside_their_range_are_refused(count: float, weight: float) -> None:
    with pytest.raises(ValueError, match="inside its range"):
        bounded_ratio([count], [count], [weight], LENGTHS)


def test_power_is_the_share_of_samples_that_pass() -> None:
    rng = np.random.default_rng(2)
    weights = rng.uniform(20, 80, 2000)
    counts = np.clip(weights * rng.uniform(0.7, 1.3, 2000), 0, 100)
    for n in (100, 150, 200):
        said = chance_to_keep_ratio(counts.tolist(), weights.tolist(), LENGTHS, 1.12, n)
        p_values = []
        for drawn in rng.integers(0, 2000, (200, n)):
            c, w = counts[drawn].tolist(), weights[drawn].tolist()
            p_values.append(bounded_ratio_p_value(c, w, LENGTHS, 1.12, least=True))
        assert said == pytest.approx(np.mean(np.array(p_values) <= 0.05), abs=0.12)
    needed = documents_to_decide(lambda n: chance_to_keep_ratio(counts.tolist(), weights.tolist(), LENGTHS, 1.12, n))
    assert needed is not None and 80 < needed < 220
    assert documents_to_decide(lambda n: 0.1) is None
