"""The sequential test: fortunes are plain products, the error rate holds at every look, bounds are the outcome."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.judging.sequential import BETS, SequentialTest, run_test

LOSSES = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.0, 0.25, 1.0]), min_size=1, max_size=120)
MARGINS = st.sampled_from([-0.3, 0.0, 0.01, 0.1, 0.6])
SURE = 1 - 1e-15
"""A confidence at which nothing is decided soon: the test then keeps all losses."""


def outcome_of_products(losses: Sequence[float], margin: float, confidence: float) -> tuple[str | None, int]:
    """Outcome and number of losses used, by a plain product for each bet of each gambler."""
    below, above = [1.0] * len(BETS), [1.0] * len(BETS)
    for used, loss in enumerate(losses, start=1):
        for i, bet in enumerate(BETS):
            below[i] *= 1 + bet * (margin - loss) / (1 - margin)
            above[i] *= 1 + bet * (loss - margin) / (1 + margin)
        if sum(below) / len(BETS) >= 1 / (1 - confidence):
            return "PASS", used
        if sum(above) / len(BETS) >= 1 / (1 - confidence):
            return "FAIL", used
    return None, len(losses)


@given(LOSSES, MARGINS, st.sampled_from([0.8, 0.95]))
@settings(max_examples=60)
def test_the_fortune_is_the_mean_of_plain_products(losses: list[float], margin: float, confidence: float) -> None:
    test = SequentialTest(margin, confidence)
    outcomes = [test.update(loss) for loss in losses]
    expected, used = outcome_of_products(losses, margin, confidence)
    assert (test.outcome, len(test.losses)) == (expected, used)
    assert outcomes == [None] * (used - 1) + [expected] * (len(losses) - used + 1)


def test_every_bet_is_a_fair_game_at_the_margin_and_none_can_be_lost_below_zero() -> None:
    assert np.all(BETS > 0) and BETS.max() == 1.0 and len(set(BETS)) == len(BETS)


@given(LOSSES, MARGINS, st.sampled_from([0.8, 0.95]))
@settings(max_examples=60)
def test_the_outcome_is_bounds_against_margin_when_the_test_stops(
    losses: list[float], margin: float, confidence: float
) -> None:
    test = run_test(losses, margin, confidence)
    interval = test.interval()
    assert (test.outcome == "PASS") == (interval.upper <= margin + (1e-6 if test.outcome == "PASS" else 0))
    assert (test.outcome == "FAIL") == (interval.lower > margin - (1e-6 if test.outcome == "FAIL" else 0))
    assert interval.estimate == pytest.approx(sum(test.losses) / len(test.losses))


@given(LOSSES, MARGINS)
@settings(max_examples=40)
def test_a_margin_passes_exactly_when_the_confidence_sequence_comes_below_it(
    losses: list[float], margin: float
) -> None:
    whole = run_test(losses, 0.0, SURE)
    assert whole.losses == losses
    interval, outcome = whole.interval(0.95), run_test(losses, margin).outcome
    if min(abs(interval.upper - margin), abs(interval.lower - margin)) > 1e-6:
        expected = {("PASS", True, False), ("FAIL", False, True), (None, False, False)}
        assert (outcome, interval.upper <= margin, interval.lower > margin) in expected


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=80))
@settings(max_examples=30)
def test_bounds_only_tighten_with_more_items(losses: list[float]) -> None:
    test = SequentialTest(0.0, SURE)
    before = (-1.0, 1.0)
    for loss in losses:
        test.update(loss)
        interval = test.interval(0.95)
        assert interval.lower >= before[0] - 1e-9 and interval.upper <= before[1] + 1e-9
        assert interval.lower >= -1 and interval.upper <= 1
        before = interval.lower, interval.upper


def test_the_confidence_sequence_closes_in_on_the_mean() -> None:
    losses = np.random.default_rng(1).choice([0.0, 0.5, -0.5], size=3000, p=[0.8, 0.15, 0.05])
    widths = []
    for n in (100, 3000):
        interval = run_test(losses[:n], 0.0, SURE).interval(0.95)
        assert interval.lower < 0.05 < interval.upper
        widths.append(interval.upper - interval.lower)
    assert widths[0] > 3 * widths[1] and widths[1] < 0.05


def test_more_confidence_is_a_wider_sequence() -> None:
    test = run_test([0.0, 1.0, 0.0, -1.0, 0.5] * 20, 0.0, SURE)
    narrow, wide = test.interval(0.9), test.interval(0.99)
    assert wide.lower < narrow.lower < narrow.upper < wide.upper


@given(LOSSES, MARGINS)
@settings(max_examples=40)
def test_losses_and_wins_are_treated_alike(losses: list[float], margin: float) -> None:
    mirrored = {"PASS": "FAIL", "FAIL": "PASS", None: None}
    one, other = run_test(losses, margin), run_test([-loss for loss in losses], -margin)
    assert other.outcome == mirrored[one.outcome] and len(one.losses) == len(other.losses)
    (_, lower, upper), (_, low, high) = one.interval(), other.interval()
    assert (lower, upper) == pytest.approx((-high, -low), abs=1e-8)


# -- the error rate, exactly ---------------------------------------------------------------------------------


def chance_of_ever(outcome: str, shares: tuple[float, float, float], margin: float, items: int) -> float:
    """Exact chance that the test ever says `outcome` when losses of 1, -1 and 0 have these shares.

    The fortune depends on the counts of each loss alone, so that the chance of every (losses, wins) that is still
    undecided can be carried from item to item.
    """
    sign, bound = (1, margin) if outcome == "PASS" else (-1, -margin)
    with np.errstate(divide="ignore"):
        growth = np.log1p(BETS[:, None] * (bound - sign * np.array([1.0, -1.0, 0.0])) / (1 - bound))
    lost, won = np.meshgrid(np.arange(items + 1), np.arange(items + 1), indexing="ij")
    open_: NDArray[np.float64] = np.zeros((items + 1, items + 1))
    open_[0, 0], stopped = 1.0, 0.0
    for seen in range(1, items + 1):
        following = shares[2] * open_
        following[1:] += shares[0] * open_[:-1]
        following[:, 1:] += shares[1] * open_[:, :-1]
        wealth = sum(times(g[0], lost) * times(g[1], won) * times(g[2], seen - lost - won) for g in growth) / len(BETS)
        decided = (lost + won <= seen) & (wealth >= 20)
        stopped += float(following[decided].sum())
        open_ = np.where(decided, 0.0, following)
    return stopped


def times(log_factor: float, count: NDArray[np.int_]) -> NDArray[np.float64]:
    """factor ** count, where a factor of zero has the logarithm -inf."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.where(count <= 0, np.where(count == 0, 1.0, 0.0), np.exp(log_factor * count)))


@pytest.mark.parametrize(
    ("shares", "margin"),
    [
        ((0.03, 0.0, 0.97), 0.03),
        ((0.06, 0.05, 0.89), 0.01),
        pytest.param((0.1, 0.1, 0.8), 0.0, marks=pytest.mark.long),
        pytest.param((0.3, 0.2, 0.5), 0.1, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("outcome", ["PASS", "FAIL"])
def test_looking_after_every_item_is_wrong_in_five_percent_at_most(
    shares: tuple[float, float, float], margin: float, outcome: str
) -> None:
    assert shares[0] - shares[1] == pytest.approx(margin)  # the mean lies at the margin: neither outcome is right
    assert chance_of_ever(outcome, shares, margin, 120) <= 0.05


@pytest.mark.slow
def test_the_exact_error_rate_is_that_of_the_test_itself() -> None:
    # A fixed level looked at after every item would be exceeded far more often; the exact chances above would show it.
    rng, shares, runs = np.random.default_rng(5), (0.3, 0.2, 0.5), 120
    paths = rng.choice([1.0, -1.0, 0.0], size=(runs, 40), p=shares)
    for outcome, margin in (("PASS", 0.4), ("FAIL", -0.2)):
        exact = chance_of_ever(outcome, shares, margin, 40)
        assert 0.2 < exact < 0.8
        found = np.mean([run_test(path, margin).outcome == outcome for path in paths])
        assert found == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / runs))


# -- when it stops -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("margin", "items"), [(0.01, 487), (0.03, 161), (0.1, 47)])
def test_without_any_loss_a_margin_passes_after_a_known_number_of_items(margin: float, items: int) -> None:
    fortunes = (sum((1 + bet * margin / (1 - margin)) ** n for bet in BETS) / len(BETS) for n in range(10_000))
    assert next(n for n, fortune in enumerate(fortunes) if fortune >= 20) == items
    test = run_test([0.0] * 1000, margin)
    assert (test.outcome, len(test.losses)) == ("PASS", items)
    assert run_test([0.0] * (items - 1), margin).outcome is None


def test_losing_everything_fails_within_a_few_items() -> None:
    test = run_test([1.0] * 100, 0.03)
    assert test.outcome == "FAIL" and len(test.losses) < 12
    assert run_test([-1.0] * 100, 0.03).outcome == "PASS"


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_after_the_decision_nothing_changes(value: float) -> None:
    test = run_test([value] * 500, 0.05)
    decision, interval, used = test.outcome, test.interval(), list(test.losses)
    assert decision is not None
    for loss in [1.0] * 200 + [-1.0] * 200:
        assert test.update(loss) == decision
    assert (test.outcome, test.interval(), test.losses) == (decision, interval, used)


def test_a_stream_is_read_no_further_than_the_decision() -> None:
    stream = iter([1.0] * 100)
    test = run_test(stream, 0.03)
    assert len(list(stream)) == 100 - len(test.losses)


@pytest.mark.parametrize("margin", [-1.0, 1.0, 1.5, -2.0, math.nan, math.inf])
def test_a_margin_that_no_mean_can_miss_or_meet_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="must lie between -1 and 1"):
        SequentialTest(margin)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 1.01, -1.01])
def test_what_is_no_loss_is_refused_before_and_after_the_decision(loss: float) -> None:
    test = SequentialTest(0.03)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"\[-1, 1\]"):
            test.update(loss)
        while test.update(0.0) is None:
            pass
    assert set(test.losses) == {0.0}


def test_there_are_no_bounds_before_the_first_item() -> None:
    with pytest.raises(ValueError, match="no losses yet"):
        SequentialTest(0.0).interval()
    first = run_test([0.25], 0.0).interval()
    assert first.estimate == 0.25 and -1 <= first.lower < 0.25 < first.upper <= 1
