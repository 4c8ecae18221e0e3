"""One check: every metric passes, fails and stays undecided where its figures say so."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import (
    changed,
    counts,
    decided,
    documents,
    items,
    measured,
    noise,
    pairs,
    plan,
    policy,
    sample,
    spread,
)
from scipy import stats

from harness.checks import CheckResult, show, undecided
from harness.metrics import METRICS, Difference
from harness.samples import ROLES, Sample, sealed_order
from harness.statistics import (
    items_to_decide,
    mean_interval,
    p_value,
    paired_interval,
    paired_p_value,
    power_at_equality,
    proportion_interval,
    ratio_interval,
    standard_error,
)

ACCURACY = {"metric": "accuracy", "on": "cot/gsm8k", "max_loss": 0.02}
TRUNCATED = {"metric": "truncated_rate", "on": "cot/gsm8k", "max_increase": 0.02}
KL = {"metric": "kl_mean", "on": "divergence", "max": 0.05}
WORSE: dict[str, Callable[[bool], dict[str, Any]]] = {
    "accuracy": lambda bad: {"score": 0.0 if bad else 1.0},
    "resolved": lambda bad: {"score": 0.0 if bad else 1.0},
    "truncated_rate": lambda bad: {"finish_reason": "length" if bad else "stop"},
    "unterminated_rate": lambda bad: {"metrics": {"unterminated": float(bad)}},
    "looped_rate": lambda bad: {"metrics": {"looped": float(bad)}},
    "wrong_language_rate": lambda bad: {"metrics": {"wrong_language": float(bad)}},
}
"""How a sample is good or bad by each metric of a difference."""


def answered(metric: str, *, fine: int, worse: int, better: int) -> list[Sample]:
    """Items that both roles do well, that only the reference does well, that only the candidate does well."""
    found, bad = [], [(False, False)] * fine + [(False, True)] * worse + [(True, False)] * better
    for i, both in enumerate(bad):
        found += [sample(i, role, **WORSE[metric](is_bad)) for role, is_bad in zip(ROLES, both, strict=True)]
    return found


def ratios(name: str, values: list[tuple[float, float]]) -> list[Sample]:
    """Pairs with these (reference, candidate) values of a metric, or of their number of tokens."""
    if name == "tokens":
        both = [(role, v) for row in values for role, v in zip(ROLES, row, strict=True)]
        return [sample(i // 2, role, completion_tokens=int(v)) for i, (role, v) in enumerate(both)]
    return measured([({name: reference}, {name: candidate}) for reference, candidate in values], "cot/gsm8k")


def drafts(rows: list[tuple[float, float, float, float]]) -> list[Sample]:
    """Stretches with (accepted, drafted) of the reference and of the candidate."""
    made = []
    for accepted, drafted, accepted_too, drafted_too in rows:
        reference = {"accepted_tokens": accepted, "draft_tokens": drafted}
        made.append((reference, {"accepted_tokens": accepted_too, "draft_tokens": drafted_too}))
    return measured(made, "speculative/chat")


# -- every metric, three ways --------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", sorted(WORSE))
@pytest.mark.parametrize(
    ("worse", "better", "verdict"), [(0, 0, "PASS"), (3, 9, "PASS"), (60, 2, "FAIL"), (8, 5, "INCONCLUSIVE")]
)
def test_a_difference_is_judged_by_its_exact_interval(metric: str, worse: int, better: int, verdict: str) -> None:
    kind = "max_loss" if metric in ("accuracy", "resolved") else "max_increase"
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


KL_ROWS = {"PASS": spread(0.01, 0.02), "FAIL": spread(0.2, 0.5), "INCONCLUSIVE": spread(0.01, 0.5)}
FLIPS = {"PASS": 2.0, "FAIL": 20.0, "INCONCLUSIVE": 9.0}
RATIOS: dict[str, dict[str, list[Sample]]] = {
    # Passes by its upper sums only, fails by its lower ones only: the truth lies between them.
    "kl_mean max": {v: documents(rows) for v, rows in KL_ROWS.items()},
    "flip_rate max": {v: documents(spread(0.01, 0.01), [f + i % 3 for i in range(40)]) for v, f in FLIPS.items()},
    "length_ratio max": {
        "PASS": ratios("tokens", [(100, 98 + i % 5) for i in range(40)]),
        "FAIL": ratios("tokens", [(100, 148 + i % 5) for i in range(40)]),
        "INCONCLUSIVE": ratios("tokens", [(100, 80 + 50 * (i % 2)) for i in range(40)]),
    },
    "length_ratio min": {
        "PASS": ratios("tokens", [(100, 98 + i % 5) for i in range(40)]),
        "FAIL": ratios("tokens", [(100, 20 + i % 5) for i in range(40)]),
        "INCONCLUSIVE": ratios("tokens", [(100, 70 + 30 * (i % 2)) for i in range(40)]),
    },
    "speed_ratio min": {
        "PASS": ratios("tokens_per_second", [(50.0, 75.0 + i % 5) for i in range(40)]),
        "FAIL": ratios("tokens_per_second", [(50.0, 20.0 + i % 5) for i in range(40)]),
        "INCONCLUSIVE": ratios("tokens_per_second", [(50.0, 30.0 + 20 * (i % 2)) for i in range(40)]),
    },
    "acceptance max_loss": {
        "PASS": drafts([(80, 100, 79 + i % 3, 100) for i in range(40)]),
        "FAIL": drafts([(80, 100, 39 + i % 3, 100) for i in range(40)]),
        "INCONCLUSIVE": drafts([(80, 100, 60 + 20 * (i % 2), 100) for i in range(40)]),
    },
    "bytes_ratio max": {
        "PASS": ratios("bytes", [(1000.0, 1100.0)]),
        "FAIL": ratios("bytes", [(1000.0, 1101.0)]),
        "INCONCLUSIVE": ratios("bytes", [(0.0, 300.0)]),
    },
}
MARGINS = {
    "kl_mean max": 0.05,
    "flip_rate max": 0.1,
    "length_ratio max": 1.1,
    "length_ratio min": 0.8,
    "speed_ratio min": 0.8,
    "acceptance max_loss": 0.1,
    "bytes_ratio max": 1.1,
}


@pytest.mark.parametrize("name", sorted(RATIOS))
@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_a_ratio_is_judged_by_its_bounds(name: str, verdict: str) -> None:
    metric, kind = name.split()
    samples, margin = RATIOS[name][verdict], MARGINS[name]
    result = decided({"metric": metric, "on": "x", kind: margin}, samples)
    assert (result.verdict, result.margin_kind, result.unit) == (verdict, kind, METRICS[metric].unit)
    assert (result.b, result.c, result.discordant, result.power) == (None, None, None, None)
    if metric == "bytes_ratio":
        return
    assert result.n == 40 and result.estimate is not None and result.method == "Bayesian bootstrap by document"
    assert result.lower is not None and result.upper is not None
    keeps, breaks = result.upper <= margin, result.lower > margin
    if kind == "min":
        keeps, breaks = result.lower >= margin, result.upper < margin
    assert (keeps, breaks) == (verdict == "PASS", verdict == "FAIL")
    assert result.lower <= result.estimate <= result.upper


def test_every_metric_and_margin_is_tested_three_ways() -> None:
    pairs_of = {f"{name} {kind}" for name, m in METRICS.items() for kind in m.margins if not isinstance(m, Difference)}
    over_noise = {"kl_mean max_over_noise", "flip_rate max_over_noise"}  # further down
    assert set(RATIOS) | over_noise == pairs_of
    assert set(WORSE) == {name for name, m in METRICS.items() if isinstance(m, Difference)}
    assert all(set(three) == {"PASS", "FAIL", "INCONCLUSIVE"} for three in RATIOS.values())


def test_kl_is_a_mean_over_positions_with_the_upper_sums_as_its_estimate() -> None:
    rows = [(1.0, 2.0, 10.0), (0.0, 0.0, 990.0), (1.0, 2.0, 1000.0)] * 10
    result = decided(KL, documents(rows))
    low, high, positions = zip(*rows, strict=True)
    assert result.estimate == pytest.approx(40 / 20_000)
    assert result.upper == ratio_interval(high, positions).upper
    assert result.lower == ratio_interval(low, positions).lower


def test_a_ratio_of_lengths_is_of_all_tokens_and_not_a_mean_of_ratios() -> None:
    result = decided(
        {"metric": "length_ratio", "on": "x", "max": 2.0}, ratios("tokens", [(1000, 1000), (10, 100)] * 10)
    )
    assert result.estimate == pytest.approx(1100 / 1010)


def test_acceptance_is_weighted_by_the_fewer_drafts() -> None:
    result = decided(
        {"metric": "acceptance", "on": "x", "max_loss": 0.1}, drafts([(80, 100, 45, 90), (50, 100, 50, 100)] * 10)
    )
    assert result.estimate == pytest.approx(27 / 190)
    better = decided({"metric": "acceptance", "on": "x", "max_loss": 0.1}, drafts([(40, 100, 80, 100)] * 20))
    assert better.verdict == "PASS" and better.estimate == pytest.approx(-0.4)
    assert better.lower is not None and better.lower < -0.4  # a gain has a lower bound, too


def test_the_size_of_a_file_is_known_exactly() -> None:
    check = {"metric": "bytes_ratio", "on": "footprint", "max": 0.3}
    result = decided(check, ratios("bytes", [(1000.0, 250.0), (3000.0, 950.0)]))
    assert (result.estimate, result.lower, result.upper) == (0.3, 0.3, 0.3)
    assert (result.verdict, result.method, result.n) == ("PASS", "exact", 2)
    assert decided(check, ratios("bytes", [(1000.0, 250.0), (3000.0, 951.0)])).verdict == "FAIL"


def test_a_smallest_value_is_missed_from_below() -> None:
    check = {"metric": "speed_ratio", "on": "x", "min": 0.8}
    slow = decided(check, RATIOS["speed_ratio min"]["FAIL"])
    assert "below the margin of 0.800" in slow.reason and slow.reason.startswith("upper bound")
    fast = decided(check, RATIOS["speed_ratio min"]["PASS"])
    assert fast.reason.startswith("lower bound") and "at least 0.800" in fast.name
    # The bound that decides is the lower one: 40 times faster on average says nothing of a slowest document.
    lower = decided(check | {"min": 0.5}, RATIOS["speed_ratio min"]["INCONCLUSIVE"]).lower
    assert lower is not None
    at = decided(check | {"min": lower}, RATIOS["speed_ratio min"]["INCONCLUSIVE"])
    above = decided(check | {"min": lower + 1e-6}, RATIOS["speed_ratio min"]["INCONCLUSIVE"])
    assert (at.verdict, above.verdict) == ("PASS", "INCONCLUSIVE")


@pytest.mark.parametrize("n", [1, 7])
def test_a_few_documents_decide_nothing_and_leave_no_infinity_behind(n: int) -> None:
    result = decided(KL, documents([(0.001, 0.001, 100.0)] * n))
    assert (result.verdict, result.n) == ("INCONCLUSIVE", n) and "too few" in result.reason
    assert (result.lower, result.upper, result.items_needed) == (None, None, None)
    assert "Infinity" not in result.model_dump_json() and "NaN" not in result.model_dump_json()


# -- bounds and margins --------------------------------------------------------------------------------------


def test_the_bounds_decide_at_the_very_margin() -> None:
    samples = pairs(counts(both=480, lost=12, won=8))
    _, lower, upper = paired_interval(12, 8, 500)
    assert decided(ACCURACY | {"max_loss": upper}, samples).verdict == "PASS"
    assert decided(ACCURACY | {"max_loss": upper - 1e-6}, samples).verdict == "INCONCLUSIVE"
    bad = pairs(counts(both=440, lost=52, won=8))
    lower = paired_interval(52, 8, 500).lower
    assert decided(ACCURACY | {"max_loss": lower}, bad).verdict == "INCONCLUSIVE"
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


# -- floor and ceiling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 1000])
def test_two_roles_that_get_nothing_right_never_pass_a_floor(n: int) -> None:
    result = decided(ACCURACY | {"floor": 0.1}, pairs(counts(neither=n)))
    assert result.verdict == "INCONCLUSIVE"
    if n >= 1000:
        assert "floor" in result.reason and result.items_needed is None  # more items of this kind would not help


def test_two_roles_that_get_nothing_right_never_pass_without_a_floor_either() -> None:
    # No item can show damage: a reference that is never right has nothing to lose.
    assert decided(ACCURACY, pairs(counts(neither=1000))).verdict == "INCONCLUSIVE"


def test_the_floor_is_the_least_value_of_the_reference_that_can_show_damage() -> None:
    samples = pairs(counts(both=300, neither=700))
    assert decided(ACCURACY | {"floor": 0.3}, samples).verdict == "PASS"
    assert decided(ACCURACY | {"floor": 0.301}, samples).verdict == "INCONCLUSIVE"
    damaged = pairs(counts(both=2, lost=48, neither=450))
    assert decided(ACCURACY | {"floor": 0.5}, damaged).verdict == "FAIL"  # it does not hide damage


def truncated(count: int, of: int) -> list[Sample]:
    """Items whose first ones are cut in both roles."""
    return [sample(i, role, finish_reason="length" if i < count else "stop") for i in range(of) for role in ROLES]


def test_a_ceiling_holds_whatever_the_reference_does() -> None:
    check = TRUNCATED | {"ceiling": 0.02}
    for count in (0, 10, 17, 23, 27, 60):
        bounds = proportion_interval(count, 1000)
        expected = "FAIL" if bounds.lower > 0.02 else "INCONCLUSIVE" if bounds.upper > 0.02 else "PASS"
        result = decided(check, truncated(count, 1000))
        assert result.verdict == expected and (expected == "PASS" or "ceiling" in result.reason)
    assert decided(check, truncated(0, 1000)).verdict == "PASS"
    assert decided(check, truncated(60, 1000)).verdict == "FAIL"
    assert decided(TRUNCATED, truncated(60, 1000)).verdict == "PASS"


def test_a_ceiling_does_not_forgive_an_increase() -> None:
    result = decided(TRUNCATED | {"ceiling": 0.9}, answered("truncated_rate", fine=300, worse=60, better=0))
    assert result.verdict == "FAIL" and "upper" not in result.reason


def test_a_ceiling_is_on_answers_and_not_on_items_with_one_bad_answer() -> None:
    # Two answers in a hundred are cut, each in another item; four repeats make that eight items in a hundred.
    samples = []
    for repeat in range(4):
        samples += [
            sample(i, role, repeat=repeat, finish_reason="length" if repeat == 0 and i < 40 else "stop")
            for i in range(500)
            for role in ROLES
        ]
    result = decided(TRUNCATED | {"ceiling": 0.05}, samples)
    assert result.candidate_value == pytest.approx(0.02)
    assert result.verdict == "PASS"


def test_a_failure_by_its_ceiling_asks_for_no_more_items() -> None:
    result = decided(TRUNCATED | {"ceiling": 0.02, "max_increase": 0.001}, truncated(60, 1000))
    assert (result.verdict, result.items_needed) == ("FAIL", None)


# -- what the result is worth --------------------------------------------------------------------------------


def test_without_a_flip_the_items_needed_are_those_of_an_exact_bound() -> None:
    for margin in (0.03, 0.01):
        result = decided(ACCURACY | {"max_loss": margin}, pairs(counts(both=20)))
        needed = result.items_needed
        assert needed == math.ceil(math.log(0.05) / math.log(1 - margin))
        assert decided(ACCURACY | {"max_loss": margin}, pairs(counts(both=needed + 1))).verdict == "PASS"
        fewer = decided(ACCURACY | {"max_loss": margin}, pairs(counts(both=needed - 2)))
        assert fewer.verdict == "INCONCLUSIVE" and f"about {needed:,} items would decide" in fewer.reason


def test_a_sequential_check_says_how_many_items_it_needs_itself() -> None:
    check = ACCURACY | {"max_loss": 0.03, "stop": "sequential"}
    result = decided(check, pairs(counts(both=20)))
    assert result.verdict == "INCONCLUSIVE" and result.items_needed is not None
    # 161 items without a flip are what the betting test takes, 99 an exact bound that is looked at once.
    assert decided(check, pairs(counts(both=math.ceil(1.1 * result.items_needed)))).verdict == "PASS"


def test_how_many_items_would_decide_is_about_right() -> None:
    few = decided(ACCURACY, pairs(counts(both=90, lost=4, won=4, neither=2)))
    assert few.verdict == "INCONCLUSIVE" and few.items_needed is not None and few.items_needed > 100
    interval = paired_interval(4, 4, 100)
    assert few.items_needed == items_to_decide(100, standard_error(interval, 0.95), 0.02)
    factor = math.ceil(few.items_needed / 100)
    enough = counts(both=90 * factor, lost=4 * factor, won=4 * factor, neither=2 * factor)
    assert decided(ACCURACY, pairs(enough)).verdict == "PASS"
    quarter = factor // 4
    fewer = counts(both=90 * quarter, lost=4 * quarter, won=4 * quarter, neither=2 * quarter)
    assert decided(ACCURACY, pairs(fewer)).verdict == "INCONCLUSIVE"


def test_an_estimate_on_the_margin_is_never_decided_by_more_items() -> None:
    result = decided(ACCURACY, pairs(counts(both=98, lost=2)))
    assert (result.verdict, result.items_needed) == ("INCONCLUSIVE", None)
    assert "more items may not decide it" in result.reason


@pytest.mark.parametrize("scores", [counts(both=90, lost=6, won=4), counts(lost=50), [(0.5, 0.25)] * 30])
def test_the_power_of_a_check_is_shown(scores: list[tuple[float, float]]) -> None:
    result = decided(ACCURACY, pairs(scores))
    assert result.power is not None and result.lower is not None and result.upper is not None
    half = max(result.upper - sum(r - c for r, c in scores) / len(scores), 0.0)
    half = max(half, sum(r - c for r, c in scores) / len(scores) - result.lower)
    assert result.power == pytest.approx(power_at_equality(half / 1.6448536, 0.02), abs=1e-3)


def test_the_p_value_of_a_failure_is_that_of_its_interval() -> None:
    result = decided(ACCURACY, pairs(counts(both=380, lost=18, won=2)))
    assert result.verdict == "FAIL"
    assert result.p_fail == paired_p_value(18, 2, 400, 0.02)
    assert result.p_fail is not None and 0 < result.p_fail < 0.05
    clear = decided(ACCURACY, pairs(counts(lost=200)))
    assert clear.p_fail is not None and clear.p_fail < 1e-3
    graded = decided(ACCURACY, pairs([(0.9, 0.8), (0.7, 0.5)] * 50))
    assert graded.p_fail == p_value(lambda level: mean_interval([0.1, 0.2] * 50, level), 0.02)
    slow = decided({"metric": "speed_ratio", "on": "x", "min": 0.8}, RATIOS["speed_ratio min"]["FAIL"])
    assert slow.p_fail is not None and slow.p_fail < 0.01
    cut = decided(TRUNCATED | {"ceiling": 0.02}, truncated(60, 1000))
    assert cut.p_fail == pytest.approx(stats.binom.sf(59, 1000, 0.02), abs=1e-12)
    for fine in (counts(both=400), counts(both=100, lost=1)):
        assert decided(ACCURACY, pairs(fine)).p_fail is None


def test_units_are_shown_as_people_write_them() -> None:
    assert show("points", 0.0123) == "1.2 points" and show("nats", 0.0123) == "0.0123 nats"
    assert show("share", 0.0123) == "1.2 %" and show("ratio", 0.3) == "0.300" and show("ratio", math.inf) == "unbounded"
    assert show("points", -1e-6) == "0.0 points" and show("points", -0.05) == "-5.0 points"


def test_names_say_what_must_hold() -> None:
    names = [
        decided(ACCURACY, []).name,
        decided(TRUNCATED, []).name,
        decided(KL, []).name,
        decided({"metric": "speed_ratio", "on": "speed", "min": 0.8}, []).name,
        decided({"metric": "flip_rate", "on": "divergence", "max_over_noise": 0.01}, []).name,
    ]
    assert names == [
        "loss of accuracy on cot/gsm8k at most 2.0 points",
        "increase of truncated_rate on cot/gsm8k at most 2.0 points",
        "kl_mean on divergence at most 0.0500 nats",
        "speed_ratio on speed at least 0.800",
        "flip_rate on divergence above the noise floor by at most 1.0 %",
    ]
    result = undecided(policy(ACCURACY).checks[0], 0.95, "nothing ran")
    assert (result.verdict, result.reason, result.n, result.planned) == ("INCONCLUSIVE", "nothing ran", 0, 0)


# -- what cannot be used -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [counts(both=2000), counts(lost=2000), counts(both=100, won=1900)])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"error": "timeout: no answer", "score": None}, "errored"),
        ({"prompt_sha256": "other"}, "unequal"),
        ({"score": None}, "errored"),
        (None, "missing"),
    ],
)
def test_above_one_percent_of_unusable_pairs_nothing_is_decided(
    scores: list[tuple[float, float]], spoil: dict[str, Any] | None, reason: str
) -> None:
    samples, planned = pairs(scores), items(2000)

    def spoilt(count: int) -> list[Sample]:
        def which(s: Sample) -> bool:
            return int(s.item) < count and s.role == "candidate"

        return [s for s in samples if not which(s)] if spoil is None else changed(samples, which, **spoil)

    assert decided(ACCURACY, spoilt(20), planned).verdict in ("PASS", "FAIL")
    result = decided(ACCURACY, spoilt(21), planned)
    assert result.verdict == "INCONCLUSIVE" and "21 of 2000 pairs cannot be used" in result.reason
    assert (getattr(result, reason), result.missing + result.errored + result.unequal) == (21, 21)
    assert (result.n, result.planned, result.items_needed) == (1979, 2000, None)


def test_a_result_that_is_not_used_names_no_failure() -> None:
    result = decided(ACCURACY, pairs(counts(lost=98)), items(100))
    assert result.verdict == "INCONCLUSIVE" and result.missing == 2
    assert result.p_fail is None


def test_errors_are_counted_and_never_scored_as_wrong() -> None:
    samples = pairs(counts(both=1000))
    samples[1] = samples[1].model_copy(update={"score": None, "error": "server: 500"})
    result = decided(ACCURACY, samples)
    assert (result.verdict, result.n, result.b, result.errored) == ("PASS", 999, 0, 1)
    scored = changed(samples, lambda s: s.error is not None, score=0.0)
    assert decided(ACCURACY, scored).b == 0  # an error is none, whatever score it carries


@pytest.mark.parametrize("check", [ACCURACY, KL, ACCURACY | {"stop": "sequential"}])
def test_no_pairs_decide_nothing(check: dict[str, Any]) -> None:
    result = decided(check, [], items(5))
    assert (result.verdict, result.reason) == ("INCONCLUSIVE", "zero usable pairs")
    assert (result.missing, result.planned, result.n, result.estimate) == (5, 5, 0, None)


def test_a_document_without_the_metric_is_an_error() -> None:
    samples = documents(spread(0.001, 0.001, 100))
    bare = changed(samples, lambda s: int(s.item) < 2, metrics={})
    result = decided(KL, bare)
    assert (result.verdict, result.errored, result.n) == ("INCONCLUSIVE", 2, 98)
    nothing = decided(KL, pairs(counts(both=9), "divergence/chat-en"))
    assert (nothing.verdict, nothing.errored, nothing.reason) == ("INCONCLUSIVE", 9, "zero usable pairs")


# -- the noise floor -----------------------------------------------------------------------------------------


def test_the_reference_against_itself_is_reported_beside_the_check() -> None:
    samples = pairs(counts(both=450, lost=20, won=10, neither=20))
    again = noise([0.0] * 4 + [1.0] * 26)
    result = decided(ACCURACY, samples + again)
    assert result.noise is not None and result.n == 500
    found, interval = result.noise, paired_interval(4, 0, 30)
    assert (found.n, found.b, found.c, found.discordant) == (30, 4, 0, 4)
    assert (found.estimate, found.lower, found.upper) == interval
    without = decided(ACCURACY, samples)
    assert without.noise is None and without == result.model_copy(update={"noise": None})


def test_the_noise_floor_of_a_sequential_check_is_that_of_all_its_noise() -> None:
    samples = pairs(counts(both=500)) + noise([1.0] * 30 + [0.0] * 2)
    result = decided(ACCURACY | {"stop": "sequential"}, samples)
    assert result.noise is not None and result.n < 500
    assert (result.noise.n, result.noise.b) == (32, 2)
    assert (result.noise.estimate, result.noise.lower, result.noise.upper) == paired_interval(2, 0, 32)


OVER_NOISE = {"metric": "kl_mean", "on": "divergence", "max_over_noise": 0.01}


def test_without_a_noise_floor_nothing_is_known_to_lie_above_it() -> None:
    for rows in (spread(0.001, 0.001), spread(0.5, 0.5)):
        result = decided(OVER_NOISE, documents(rows))
        assert (result.verdict, result.noise) == ("INCONCLUSIVE", None)


@pytest.mark.parametrize(
    ("kl", "floor", "verdict"),
    [(0.025, 0.024, "PASS"), (0.025, 0.0, "FAIL"), (0.0247, 0.015, "INCONCLUSIVE"), (0.01, 0.03, "PASS")],
)
def test_divergence_is_judged_above_the_noise_floor(kl: float, floor: float, verdict: str) -> None:
    rows, again = spread(kl, kl), spread(floor, floor)
    result = decided(OVER_NOISE, documents(rows) + documents(again, role="noise"))
    assert result.verdict == verdict
    differences = [a[0] - b[0] for a, b in zip(rows, again, strict=True)]
    interval = ratio_interval(differences, [100.0] * 40, signed=True)
    assert (result.estimate, result.lower, result.upper) == pytest.approx(interval)
    assert result.noise is not None and result.noise.n == 40
    assert result.noise.estimate == pytest.approx(sum(b[1] for b in again) / 4000)


def test_flips_are_judged_above_the_noise_floor() -> None:
    check = {"metric": "flip_rate", "on": "divergence", "max_over_noise": 0.03}
    rows, verdicts = spread(0.01, 0.01), []
    for extra in (0.0, 2.9, 9.0):
        again = documents(rows, [3.0 + i % 3 for i in range(40)], role="noise")
        verdicts.append(decided(check, documents(rows, [3.0 + extra + i % 3 for i in range(40)]) + again).verdict)
    assert verdicts == ["PASS", "INCONCLUSIVE", "FAIL"]


def test_what_is_uncertain_in_both_is_taken_from_either_side() -> None:
    # The candidate's KL is 0.02 to 0.03, the noise floor's 0.01 to 0.02: above it by 0 to 0.02, at other lengths too.
    rows = [(2.0, 3.0, 100.0)] * 20
    again = [(2.0, 4.0, 200.0)] * 20
    result = decided(OVER_NOISE, documents(rows) + documents(again, role="noise"))
    assert result.estimate == pytest.approx(0.02)
    assert result.lower == ratio_interval([0.0] * 20, [100.0] * 20, signed=True).lower
    assert result.upper == ratio_interval([2.0] * 20, [100.0] * 20, signed=True).upper


def test_only_documents_whose_noise_is_known_are_compared_with_it() -> None:
    rows, again = spread(0.025, 0.025), spread(0.024, 0.024)
    for sixteen in (documents(again[:16], role="noise"), documents(again, role="noise")[:16]):
        result = decided(OVER_NOISE, documents(rows) + sixteen)
        assert (result.n, result.verdict, result.planned) == (16, "PASS", 40)
    unknown = changed(documents(again, role="noise"), lambda s: int(s.item) >= 16, metrics={})
    result = decided(OVER_NOISE, documents(rows) + unknown)
    assert result.estimate is not None and result.estimate < 0.01  # what has no noise is not all "above the noise"
    assert result.verdict != "FAIL"


def test_unusable_pairs_are_a_share_of_all_that_were_planned_also_above_the_noise_floor() -> None:
    samples = documents(spread(0.025, 0.025, 500)) + documents(spread(0.024, 0.024, 32), role="noise")
    spoilt = changed(samples, lambda s: int(s.item) in (400, 401) and s.role == "candidate", error="server: 500")
    assert decided(OVER_NOISE, spoilt).verdict == "PASS"  # 2 of 500 are 0.4 %


# -- sequential checks ---------------------------------------------------------------------------------------


def test_a_sequential_check_uses_no_more_items_than_it_needs() -> None:
    check = ACCURACY | {"max_loss": 0.03, "stop": "sequential"}
    result = decided(check, pairs(counts(both=1000)))
    assert (result.verdict, result.n, result.planned, result.stop) == ("PASS", 161, 1000, "sequential")
    assert result.upper is not None and result.upper <= 0.03 and "betting" in result.method and result.power is None
    assert decided(check, pairs(counts(both=160))).verdict == "INCONCLUSIVE"
    failing = decided(check, pairs(counts(lost=1000)))
    assert failing.verdict == "FAIL" and failing.n < 12 and failing.lower is not None and failing.lower > 0.03


def test_a_sequential_check_of_another_metric_stops_as_well() -> None:
    check = TRUNCATED | {"max_increase": 0.05, "stop": "sequential"}
    assert decided(check, answered("truncated_rate", fine=0, worse=300, better=0)).verdict == "FAIL"
    graded = decided(ACCURACY | {"stop": "sequential"}, pairs([(0.9, 0.2)] * 200))
    assert graded.verdict == "FAIL" and graded.n < 30


def test_what_was_answered_after_the_decision_is_ignored() -> None:
    check = ACCURACY | {"max_loss": 0.03, "stop": "sequential"}
    samples = pairs(counts(both=1000))
    plain = decided(check, samples)
    used = used_items(check, samples)
    assert len(used) == plain.n == 161
    worse = changed(samples, lambda s: s.item not in used and s.role == "candidate", score=0.0)
    broken = changed(samples, lambda s: s.item not in used and s.role == "candidate", score=None, error="timeout")
    absent = [s for s in samples if s.item in used]
    for later in (worse, broken, absent):
        assert decided(check, later, plan(samples)) == plain


def test_only_the_items_used_count_as_unusable() -> None:
    check = ACCURACY | {"max_loss": 0.03, "stop": "sequential"}
    samples = pairs(counts(both=1000))
    used = used_items(check, samples)
    two = sorted(used)[:2]
    spoilt = changed(samples, lambda s: s.item in two and s.role == "candidate", score=None, error="timeout")
    result = decided(check, spoilt)  # 161 others are needed, so that 2 of 163 are more than 1 %
    assert (result.errored, result.n, result.verdict) == (2, 161, "INCONCLUSIVE")
    assert "2 of 163 pairs cannot be used" in result.reason
    assert decided(check, spoilt, max_unusable=0.02).verdict == "PASS"


def used_items(check: dict[str, Any], samples: list[Sample]) -> set[str]:
    """The items of a sequential check up to its decision."""
    n = decided(check, samples).n
    return {key[2] for key in sealed_order(plan(samples), "sealed")[:n]}


def test_the_seal_orders_the_items_of_a_sequential_check() -> None:
    check = ACCURACY | {"max_loss": 0.1, "stop": "sequential"}
    samples = pairs(counts(both=300, lost=10))
    found = {(r.n, r.verdict) for r in (decided(check, samples, seal=str(seal)) for seal in range(8))}
    assert len(found) > 1
    shuffled = sorted(samples, key=lambda s: (s.item[::-1], s.role))
    assert decided(check, shuffled, seal="3") == decided(check, samples, seal="3")


def test_repeats_are_one_item_of_a_sequential_check() -> None:
    check = ACCURACY | {"max_loss": 0.03, "stop": "sequential"}
    samples = [s for repeat in range(4) for s in pairs(counts(both=400), repeat=repeat)]
    result = decided(check, samples)
    assert (result.verdict, result.n, result.planned) == ("PASS", 161, 400)


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
    if min(abs(bound - margin) for bound in bounds if bound is not None) > 1e-3:  # see test_statistics.py
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


def test_a_result_survives_being_stored() -> None:
    for samples in (pairs(counts(both=50, lost=3)) + noise([1.0] * 9), documents(spread(0.1, 0.2, 9))):
        result = decided(KL if samples[0].suite == "divergence" else ACCURACY, samples)
        assert CheckResult.model_validate_json(result.model_dump_json()) == result
