"""Paired differences: a check is decided by the bounds of its items, right or wrong, graded or repeated."""

import pytest
from check_cases import ACCURACY, KL, WORSE, answered
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_samples import changed, counts, decided, documents, pairs, spread

from harness.contract.metrics import METRICS
from harness.judging.paired_rates import paired_interval
from harness.judging.resampling import mean_interval


@pytest.mark.parametrize("metric", sorted(WORSE))
@pytest.mark.parametrize(
    ("worse", "better", "verdict"), [(0, 0, "PASS"), (3, 9, "PASS"), (60, 2, "FAIL"), (8, 5, "INCONCLUSIVE")]
)
def test_a_difference_is_judged_by_its_exact_interval(metric: str, worse: int, better: int, verdict: str) -> None:
    kind = "max_loss" if metric in ("accuracy", "resolved", "end_of_thinking") else "max_increase"
    check = {"metric": metric, "on": "cot/gsm8k", kind: 0.02}
    result = decided(check, answered(metric, fine=400 - worse - better, worse=worse, better=better))
    interval = paired_interval(worse, better, 400)
    assert (result.estimate, result.lower, result.upper) == interval
    assert result.verdict == verdict
    assert (verdict == "PASS") == (interval.upper <= 0.02) and (verdict == "FAIL") == (interval.lower > 0.02)
    assert (result.n, result.b, result.c, result.discordant) == (400, worse, better, worse + better)
    good = METRICS[metric].unit == "points" and kind == "max_loss"
    values = (400 - better) / 400, (400 - worse) / 400
    expected = values if good else tuple(1 - v for v in values)
    assert (result.reference_value, result.candidate_value) == pytest.approx(expected)
    assert (result.metric, result.margin, result.margin_kind, result.unit) == (metric, 0.02, kind, "points")
    assert result.method == "exact paired interval" and "2.0 points" in result.reason


# -- bounds and margins --------------------------------------------------------------------------------------


def test_the_bounds_decide_at_the_very_margin() -> None:
    samples = pairs(counts(both=480, lost=12, won=8))
    _, lower, upper = paired_interval(12, 8, 500)
    assert decided(ACCURACY | {"max_loss": upper}, samples).verdict == "PASS"
    assert decided(ACCURACY | {"max_loss": upper - 1e-6}, samples).verdict == "INCONCLUSIVE"
    bad = pairs(counts(both=440, lost=52, won=8))
    lower = paired_interval(52, 8, 500).lower
    assert decided(ACCURACY | {"max_loss": lower + 1e-6}, bad).verdict == "INCONCLUSIVE"
    assert decided(ACCURACY | {"max_loss": lower - 1e-6}, bad).verdict == "FAIL"


def test_a_check_has_its_own_confidence_before_that_of_the_policy() -> None:
    samples = pairs(counts(both=200))
    assert [decided(ACCURACY, samples, confidence=c).verdict for c in (0.95, 0.999)] == ["PASS", "INCONCLUSIVE"]
    strict = decided(ACCURACY | {"confidence": 0.999}, samples)
    assert (strict.verdict, strict.confidence) == ("INCONCLUSIVE", 0.999)
    assert strict.upper == paired_interval(0, 0, 200, 0.999).upper
    kl = decided(KL | {"confidence": 0.99}, documents(spread(0.02, 0.02)))
    plain = decided(KL, documents(spread(0.02, 0.02)))
    assert kl.upper is not None and plain.upper is not None and kl.upper > plain.upper


def test_graded_scores_are_judged_by_gaffkes_bound() -> None:
    scores = [(0.8, 0.8), (0.6, 0.5), (0.4, 0.5)] * 100
    result = decided(ACCURACY | {"max_loss": 0.05}, pairs(scores))
    interval = mean_interval([r - c for r, c in scores])
    assert (result.estimate, result.lower, result.upper) == pytest.approx(interval)
    assert (result.n, result.b, result.c, result.verdict) == (300, 100, 100, "PASS")
    assert "Gaffke" in result.method
    worse = decided(ACCURACY | {"max_loss": 0.05}, pairs([(0.8, 0.4), (0.6, 0.2)] * 100))
    assert worse.verdict == "FAIL" and worse.estimate == pytest.approx(0.4)
    same = decided(ACCURACY | {"max_loss": 0.005}, pairs([(0.5, 0.5)] * 10))
    assert same.verdict == "INCONCLUSIVE" and same.upper is not None and same.upper > 0.2


def test_one_graded_score_among_right_and_wrong_ones_changes_the_method() -> None:
    assert decided(ACCURACY, pairs(counts(both=99, lost=1))).method == "exact paired interval"
    assert "Gaffke" in decided(ACCURACY, pairs([*counts(both=98, lost=1), (0.5, 0.5)])).method


# -- repeats -------------------------------------------------------------------------------------------------


def test_repeats_of_an_item_are_one_item() -> None:
    # 50 items asked four times are not 200: the candidate loses one repeat of ten items and wins two of another.
    samples = []
    for repeat in range(4):
        scores = [(1.0, 0.0 if i < 10 and repeat == 0 else 1.0) for i in range(49)] + [(0.0, float(repeat < 2))]
        samples += pairs(scores, repeat=repeat)
    result = decided(ACCURACY | {"max_loss": 0.1}, samples)
    interval = mean_interval([0.25] * 10 + [0.0] * 39 + [-0.5])
    assert (result.estimate, result.lower, result.upper) == pytest.approx(interval)
    assert (result.n, result.planned, result.b, result.c) == (50, 50, 10, 1)
    assert "Gaffke" in result.method and result.estimate == pytest.approx(2 / 50)
    once = decided(ACCURACY | {"max_loss": 0.1}, [s for s in samples if s.repeat == 1])
    assert (once.n, once.method) == (50, "exact paired interval")


def test_four_repeats_of_ten_items_are_no_surer_than_ten_items() -> None:
    samples = [s for repeat in range(4) for s in pairs(counts(both=10), repeat=repeat)]
    result = decided(ACCURACY | {"max_loss": 0.2}, samples)
    assert result.verdict == "INCONCLUSIVE" and result.n == 10
    assert result.upper == pytest.approx(1 - 0.05 ** (1 / 10), abs=0.01)


def test_an_item_is_the_mean_of_the_repeats_that_can_be_used() -> None:
    samples = [s for repeat in range(4) for s in pairs(counts(both=30), repeat=repeat)]
    spoilt = changed(samples, lambda s: s.item == "0" and s.repeat == 0 and s.role == "candidate", error="server: 500")
    lost = changed(spoilt, lambda s: s.item == "0" and s.repeat == 1 and s.role == "candidate", score=0.0)
    result = decided(ACCURACY | {"max_loss": 0.3}, lost, max_unusable=0.1)
    assert (result.n, result.b, result.errored) == (30, 1, 1)
    assert result.estimate == pytest.approx(1 / 3 / 30)


def test_repeats_in_which_one_role_has_no_answer_are_left_out_for_both() -> None:
    samples = [s for repeat in range(2) for s in pairs([(1.0, 1.0)] * 20, repeat=repeat)]
    # The reference is wrong in repeat 1 of item 0, where the candidate errs: that is no win of the candidate's.
    samples = changed(samples, lambda s: (s.item, s.repeat, s.role) == ("0", 1, "reference"), score=0.0)
    samples = changed(samples, lambda s: (s.item, s.repeat, s.role) == ("0", 1, "candidate"), error="x", score=None)
    result = decided(ACCURACY, samples, max_unusable=0.5)
    assert (result.estimate, result.b, result.c) == (0.0, 0, 0)


# -- a worse answer is no better ----------------------------------------------------------------------------


BINARY = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60)
ORDER = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2}


@given(BINARY, st.integers(0, 59), st.sampled_from([0.01, 0.05, 0.2]))
@settings(max_examples=25)
def test_one_more_wrong_answer_never_improves_a_verdict(
    scores: list[tuple[float, float]], which: int, margin: float
) -> None:
    check = ACCURACY | {"max_loss": margin}
    which %= len(scores)
    worse = [*scores[:which], (scores[which][0], 0.0), *scores[which + 1 :]]
    before, after = decided(check, pairs(scores)), decided(check, pairs(worse))
    bounds = (after.lower, after.upper, before.lower, before.upper)
    if min(abs(bound - margin) for bound in bounds if bound is not None) > 1e-3:  # see test_statistics_paired.py
        assert ORDER[after.verdict] >= ORDER[before.verdict]


GRADED = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=25)


@given(GRADED, st.integers(0, 24), st.floats(0, 1), st.sampled_from([0.01, 0.1]))
@settings(max_examples=25)
def test_a_lower_graded_score_never_turns_a_failure_into_a_pass(
    scores: list[tuple[float, float]], which: int, factor: float, margin: float
) -> None:
    check = ACCURACY | {"max_loss": margin}
    which %= len(scores)
    reference, candidate = scores[which]
    worse = [*scores[:which], (reference, candidate * factor), *scores[which + 1 :]]
    before, after = decided(check, pairs(scores)).verdict, decided(check, pairs(worse)).verdict
    assert not (before == "FAIL" and after == "PASS")
