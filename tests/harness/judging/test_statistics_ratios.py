"""Bounds of ratios over documents: the document is the unit, and few or equal ones are no proof."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judging.resampling import MIN_DOCUMENTS, ratio_interval

SKEWED = np.random.default_rng(3).gamma(0.7, 0.02, size=30)
"""A mean per document, as KL has: most small, some large."""


def test_fewer_than_eight_documents_have_infinite_bounds() -> None:
    assert MIN_DOCUMENTS == 8
    for n in (1, 7):
        estimate, *bounds = ratio_interval([3.0] * n, [10.0] * n)
        assert estimate == pytest.approx(0.3) and bounds == [-math.inf, math.inf]
    assert all(map(math.isfinite, ratio_interval([3.0] * 8, [10.0] * 8)))


def test_documents_that_are_all_alike_do_not_collapse_the_bounds() -> None:
    # One more document, twice as bad: at 8 documents it has a share of up to 1 - 0.05^(1/8) of the weight.
    share = 1 - 0.05 ** (1 / 8)
    interval = ratio_interval([3.0] * 8, [10.0] * 8)
    assert interval == pytest.approx((0.3, 0.3 * (1 - share), 0.3 * (1 + share)), rel=0.01)


def test_nothing_seen_in_any_document_is_no_proof_of_nothing() -> None:
    # One flip in a document of mean length is what zero counts leave room for.
    interval = ratio_interval([0.0] * 20, [50.0, 150.0] * 10)
    share = 1 - 0.05 ** (1 / 20)
    assert (interval.estimate, interval.lower) == (0.0, 0.0)
    assert interval.upper == pytest.approx(share / 100, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 16, 64, 400])
def test_ratio_bounds_are_wider_than_those_of_a_plain_bootstrap_and_near_them_for_many_documents(n: int) -> None:
    rng = np.random.default_rng(n)
    weights = rng.integers(20, 200, size=n).astype(float)
    sums = weights * rng.gamma(2.0, 0.01, size=n)
    interval = ratio_interval(sums, weights)
    picks = rng.integers(0, n, size=(10_000, n))
    ratios = sums[picks].sum(axis=1) / weights[picks].sum(axis=1)
    below, above = np.quantile(ratios, [0.05, 0.95]) - sums.sum() / weights.sum()
    assert interval.estimate == pytest.approx(sums.sum() / weights.sum())
    assert interval.upper - interval.estimate > above and interval.lower - interval.estimate < below * 0.98
    if n == 400:  # the one document more still adds its share of the weight, 1 / 401, of twice the worst
        assert interval.upper - interval.estimate < above + 1.5 * 2 * (sums / weights).max() / 401
        assert interval.lower - interval.estimate == pytest.approx(below, rel=0.1)


@pytest.mark.slow
def test_skewed_documents_are_bounded_too_low_in_five_percent_of_the_cases_at_most() -> None:
    rng, runs = np.random.default_rng(11), 160
    missed = [ratio_interval(rng.exponential(0.02, 16) * 100, np.full(16, 100.0)).upper < 0.02 for _ in range(runs)]
    assert np.mean(missed) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_ratio_bounds_treat_the_document_as_the_unit() -> None:
    # The same positions in a tenth of the documents must not look ten times as certain.
    few = ratio_interval(SKEWED * 1000, np.full(30, 1000.0))
    many = ratio_interval(np.repeat(SKEWED, 10) * 100, np.full(300, 100.0))
    assert few.estimate == pytest.approx(many.estimate)
    assert few.upper - few.lower > 2 * (many.upper - many.lower)


@pytest.mark.parametrize("factor", [0.5, 8.0])
def test_ratio_bounds_do_not_depend_on_units(factor: float) -> None:
    weights = np.linspace(500, 1500, 30)
    plain = ratio_interval(SKEWED * weights, weights)  # 1 / mean weight is far below the worst document here
    assert ratio_interval(SKEWED * weights * factor, weights) == pytest.approx([v * factor for v in plain], rel=1e-9)
    assert ratio_interval(SKEWED * weights, weights * factor) == pytest.approx([v / factor for v in plain], rel=1e-9)
    assert ratio_interval(SKEWED * weights * factor, weights * factor) == pytest.approx(plain, rel=1e-9)


@given(st.permutations(range(30)))
@settings(max_examples=10)
def test_the_order_of_documents_does_not_matter_at_all(order: list[int]) -> None:
    weights = np.linspace(50, 150, 30) / 7
    assert ratio_interval((SKEWED * weights)[order], weights[order]) == ratio_interval(SKEWED * weights, weights)


def test_signed_sums_are_bounded_alike_on_both_sides() -> None:
    weights = np.full(30, 100.0)
    sums = (SKEWED - 0.005) * weights
    one, other = ratio_interval(sums, weights, signed=True), ratio_interval(-sums, weights, signed=True)
    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower), rel=1e-12)
    # Sums that cannot be negative leave zero as the least that an unseen document can add.
    unsigned = ratio_interval(SKEWED * weights, weights)
    signed = ratio_interval(SKEWED * weights, weights, signed=True)
    assert signed.upper == unsigned.upper and unsigned.lower > 0 and signed.lower < unsigned.lower


def test_no_unseen_document_is_worse_than_possible() -> None:
    flips, positions = [99.0, 97.0] * 10, [100.0] * 20
    open_end, share = ratio_interval(flips, positions), ratio_interval(flips, positions, high=1.0)
    assert share.upper < 1 < open_end.upper
    assert ratio_interval([100.0] * 20, positions, high=1.0).upper == pytest.approx(1.0, abs=1e-12)
    assert share.lower == open_end.lower


@pytest.mark.parametrize(
    ("sums", "weights"), [([], []), ([1.0], [0.0]), ([1.0], [-2.0]), ([math.nan], [1.0]), ([1.0, 2.0], [1.0])]
)
def test_documents_without_positions_or_finite_sums_are_refused(sums: list[float], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="for each document"):
        ratio_interval(sums, weights)
