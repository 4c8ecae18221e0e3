"""The verdict: what passes, what fails, and above all what is not enough to say either."""

import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.policy import Check, Policy
from harness.samples import ROLES, Sample
from harness.verdict import EXIT_CODES, CheckResult, Verdict, judge

ACCURACY = {"metric": "accuracy", "on": "cot/*", "max_loss": 0.01}
Z2 = 1.6448536269514722**2  # squared quantile of the normal distribution at 0.95


def policy(*checks: dict[str, Any], **fields: Any) -> Policy:
    return Policy(name="test", suites={"cot": {}}, checks=[Check(**check) for check in checks], **fields)


def sample(item: int | str, role: str, score: float | None = None, *, on: str = "cot/gsm8k", **fields: Any) -> Sample:
    suite, task = on.split("/")
    all_fields = {"prompt_sha256": f"p{item}", "finish_reason": "stop", "score": score} | fields
    return Sample(suite=suite, task=task, item=str(item), role=role, **all_fields)  # type: ignore[arg-type]


def pairs(scores: Iterable[tuple[float, float]], on: str = "cot/gsm8k") -> list[Sample]:
    """Samples of items with these (reference, candidate) scores."""
    return [
        sample(i, role, score, on=on) for i, both in enumerate(scores) for role, score in zip(ROLES, both, strict=True)
    ]


def counts(*, both: int = 0, lost: int = 0, won: int = 0, neither: int = 0) -> list[tuple[float, float]]:
    return [(1.0, 1.0)] * both + [(1.0, 0.0)] * lost + [(0.0, 1.0)] * won + [(0.0, 0.0)] * neither


def documents(rows: Sequence[tuple[float, float, float]], flips: Sequence[float] | None = None) -> list[Sample]:
    """Divergence samples with (kl_lower_sum, kl_upper_sum, positions)."""
    made = []
    for i, (low, high, positions) in enumerate(rows):
        metrics = {"kl_lower_sum": low, "kl_upper_sum": high, "positions": positions}
        metrics["flips"] = 0.0 if flips is None else flips[i]
        made.append(sample(i, "reference", on="divergence/chat-en", metrics={"positions": positions}))
        made.append(sample(i, "candidate", on="divergence/chat-en", finish_reason=None, metrics=metrics))
    return made


def run(
    samples: list[Sample], *checks: dict[str, Any], planned: dict[str, int] | None = None, **fields: Any
) -> Verdict:
    return judge(policy(*(checks or (ACCURACY,)), **fields), samples, planned or {}, "sealed")


def one(samples: list[Sample], *checks: dict[str, Any], **more: Any) -> CheckResult:
    """The only check of a verdict, which is then the whole verdict."""
    verdict = run(samples, *checks, **more)
    (result,) = verdict.checks
    assert verdict.verdict == result.verdict
    return result


# -- three ways ----------------------------------------------------------------------------------------------


def test_equal_answers_pass_from_the_very_item_on_where_the_bound_keeps_the_margin() -> None:
    # Without discordant pairs the upper bound is z² / (n + z²).
    enough = math.ceil(Z2 / 0.01 - Z2)
    result = one(pairs(counts(both=enough)))
    assert result.verdict == "PASS" and result.upper == pytest.approx(Z2 / (enough + Z2))
    assert one(pairs(counts(both=enough - 1))).verdict == "INCONCLUSIVE"


def test_a_lower_bound_above_the_margin_fails_and_at_it_does_not() -> None:
    samples = pairs(counts(both=80, lost=20))
    lower = one(samples).lower
    assert lower is not None and 0.1 < lower < 0.2
    assert one(samples, ACCURACY | {"max_loss": lower - 1e-6}).verdict == "FAIL"
    assert one(samples, ACCURACY | {"max_loss": lower + 1e-6}).verdict == "INCONCLUSIVE"


def test_the_upper_bound_decides_what_passes() -> None:
    samples = pairs(counts(both=480, lost=12, won=8))
    upper = one(samples).upper
    assert upper is not None and 0.02 < upper < 0.05
    assert one(samples, ACCURACY | {"max_loss": upper + 1e-6}).verdict == "PASS"
    assert one(samples, ACCURACY | {"max_loss": upper - 1e-6}).verdict == "INCONCLUSIVE"


def test_the_numbers_of_a_check_are_those_of_the_samples() -> None:
    result = one(pairs(counts(both=50, lost=7, won=3, neither=40)))
    assert (result.n, result.b, result.c, result.discordant) == (100, 7, 3, 10)
    assert (result.reference_value, result.candidate_value) == pytest.approx((0.57, 0.53))
    assert result.estimate == pytest.approx(0.04)
    assert "Tango" in result.method and result.margin_kind == "max_loss" and result.confidence == 0.95


def test_a_candidate_that_answers_all_that_the_reference_cannot_passes() -> None:
    assert one(pairs(counts(both=100, won=100))).verdict == "PASS"


def test_a_candidate_that_answers_nothing_fails() -> None:
    assert one(pairs(counts(lost=20))).verdict == "FAIL"


def test_ten_items_without_a_flip_are_not_half_a_point() -> None:
    result = one(pairs(counts(both=10)), ACCURACY | {"max_loss": 0.005})
    assert result.verdict == "INCONCLUSIVE" and result.upper is not None and result.upper > 0.2


def test_graded_scores_without_a_difference_are_not_half_a_point_either() -> None:
    result = one(pairs([(0.5, 0.5)] * 10), ACCURACY | {"max_loss": 0.005})
    assert result.verdict == "INCONCLUSIVE" and "betting" in result.method


def test_graded_scores_pass_and_fail() -> None:
    same, worse = [(0.8, 0.8), (0.6, 0.6)] * 200, [(0.8, 0.4), (0.6, 0.2)] * 200
    check = ACCURACY | {"max_loss": 0.05}
    assert one(pairs(same), check).verdict == "PASS"
    result = one(pairs(worse), check)
    assert result.verdict == "FAIL" and result.estimate == pytest.approx(0.4)


def test_truncation_is_an_increase() -> None:
    check = {"metric": "truncated_rate", "on": "cot/*", "max_increase": 0.02}
    fine = [s for i in range(300) for s in (sample(i, "reference"), sample(i, "candidate"))]
    assert one(fine, check).verdict == "PASS"
    cut = [s.model_copy(update={"finish_reason": "length"}) if s.role == "candidate" else s for s in fine]
    result = one(cut, check)
    assert result.verdict == "FAIL" and (result.reference_value, result.candidate_value) == (0.0, 1.0)
    helped = [s.model_copy(update={"finish_reason": "length"}) if s.role == "reference" else s for s in fine]
    assert one(helped, check).verdict == "PASS"


# -- what cannot be judged -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 1000, 20_000])
def test_two_roles_that_answer_nothing_right_never_pass_a_floor(n: int) -> None:
    result = one(pairs(counts(neither=n)), ACCURACY | {"floor": 0.1})
    assert result.verdict == "INCONCLUSIVE"
    if n >= 1000:
        assert "floor" in result.reason and result.items_needed is None  # more items of this kind would not help


def test_the_floor_does_not_hide_damage() -> None:
    samples = pairs(counts(both=2, lost=48, neither=450))
    assert one(samples, ACCURACY | {"floor": 0.5}).verdict == "FAIL"


def test_twelve_answers_of_five_hundred_are_inconclusive() -> None:
    for scores in (counts(both=12), counts(lost=12)):
        result = one(pairs(scores), ACCURACY | {"max_loss": 0.5}, planned={"cot/gsm8k": 500})
        assert result.verdict == "INCONCLUSIVE" and result.missing == 488
        assert "488 of 500 pairs cannot be used" in result.reason


def test_nothing_at_all_is_inconclusive() -> None:
    assert one([]).verdict == "INCONCLUSIVE"
    result = one([], planned={"cot/gsm8k": 5})
    assert (result.verdict, result.reason, result.missing) == ("INCONCLUSIVE", "zero usable pairs", 5)
    half = [s for s in pairs(counts(both=500)) if s.role == "reference"]
    assert one(half).verdict == "INCONCLUSIVE"


def test_a_check_on_what_never_ran_is_inconclusive() -> None:
    verdict = run(pairs(counts(both=1000)), ACCURACY, ACCURACY | {"on": "ruler"}, ACCURACY | {"on": "cot/aime"})
    assert [check.verdict for check in verdict.checks] == ["PASS", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert verdict.verdict == "INCONCLUSIVE" and "nothing ran" in verdict.reason


def test_a_planned_task_without_one_answer_is_not_forgotten() -> None:
    verdict = run(pairs(counts(both=1000)), planned={"cot/gsm8k": 1000, "cot/math500": 500})
    assert {check.on: check.verdict for check in verdict.checks} == {
        "cot/gsm8k": "PASS",
        "cot/math500": "INCONCLUSIVE",
    }


@pytest.mark.parametrize("scores", [counts(both=2000), counts(lost=2000), counts(won=2000)])
@pytest.mark.parametrize(
    "spoil", [{"error": "timeout: no answer", "score": None}, {"prompt_sha256": "other"}, {"score": None}]
)
def test_above_one_percent_of_errors_nothing_is_decided(
    scores: list[tuple[float, float]], spoil: dict[str, Any]
) -> None:
    samples = pairs(scores)

    def spoilt(count: int) -> list[Sample]:
        return [s.model_copy(update=spoil) if int(s.item) < count and s.role == "candidate" else s for s in samples]

    assert one(spoilt(20)).verdict in ("PASS", "FAIL")
    result = one(spoilt(21))
    assert result.verdict == "INCONCLUSIVE" and "21 of 2000 pairs cannot be used" in result.reason
    assert result.errored + result.unequal == 21


def test_errors_are_counted_and_never_scored_as_wrong() -> None:
    samples = pairs(counts(both=1000))
    samples[1] = samples[1].model_copy(update={"score": None, "error": "server: 500"})
    result = one(samples)
    assert (result.verdict, result.n, result.b, result.errored) == ("PASS", 999, 0, 1)


def test_how_many_items_would_decide_is_about_right() -> None:
    few = one(pairs(counts(both=90, lost=4, won=4, neither=2)), ACCURACY | {"max_loss": 0.02})
    assert few.verdict == "INCONCLUSIVE" and few.items_needed is not None and few.items_needed > 100
    factor = math.ceil(few.items_needed / 100)
    enough = counts(both=90 * factor, lost=4 * factor, won=4 * factor, neither=2 * factor)
    assert one(pairs(enough), ACCURACY | {"max_loss": 0.02}).verdict == "PASS"
    half = counts(both=45 * factor, lost=2 * factor, won=2 * factor, neither=factor)
    assert one(pairs(half), ACCURACY | {"max_loss": 0.02}).verdict == "INCONCLUSIVE"


def test_an_estimate_on_the_margin_is_never_decided_by_more_items() -> None:
    result = one(pairs(counts(both=99, lost=1)))
    assert result.verdict == "INCONCLUSIVE" and result.items_needed is None


# -- which tasks ---------------------------------------------------------------------------------------------


def test_a_suite_is_pooled_and_a_pattern_is_one_check_for_each_task() -> None:
    samples = pairs(counts(both=500), "cot/gsm8k") + pairs(counts(both=400, lost=100), "cot/math500")
    samples += pairs(counts(lost=500), "ruler/vt@2048")
    pooled = one(samples, ACCURACY | {"on": "cot"})
    assert (pooled.on, pooled.n, pooled.b, pooled.verdict) == ("cot", 1000, 100, "FAIL")
    each = run(samples, ACCURACY)
    assert {check.on: check.verdict for check in each.checks} == {"cot/gsm8k": "PASS", "cot/math500": "FAIL"}
    assert each.verdict == "FAIL"
    assert one(samples, ACCURACY | {"on": "cot/gsm8k"}).verdict == "PASS"


def test_pooling_adds_up_what_is_missing() -> None:
    samples = pairs(counts(both=500), "cot/gsm8k") + pairs(counts(both=500), "cot/math500")
    planned = {"cot/gsm8k": 506, "cot/math500": 505}
    assert one(samples, ACCURACY | {"on": "cot"}, planned=planned).missing == 11
    assert run(samples, planned=planned).verdict == "INCONCLUSIVE"  # 6 of 506 are more than 1 %


def test_the_bounds_of_pooled_graded_tasks_hold_their_estimate() -> None:
    # Betting reads differences one after the other; tasks in a row would be a trend.
    samples = pairs([(0.5, 0.5)] * 300, "ruler/niah") + pairs([(0.9, 0.5)] * 100, "ruler/cwe")
    result = one(samples, ACCURACY | {"on": "ruler", "max_loss": 0.09})
    assert result.estimate == pytest.approx(0.1)
    assert result.lower is not None and result.upper is not None
    assert result.lower < 0.1 < result.upper
    assert result.verdict != "PASS"


@given(st.integers(0, 2**32))
@settings(max_examples=10)
def test_the_order_in_which_answers_came_decides_nothing(seed: int) -> None:
    rng = random.Random(7)
    samples = pairs([(rng.random(), rng.random()) for _ in range(40)], "ruler/vt")
    samples += documents([(rng.random(), 1 + rng.random(), 50.0) for _ in range(12)])
    checks = (
        {"metric": "accuracy", "on": "ruler", "max_loss": 0.1},
        {"metric": "kl_mean", "on": "divergence", "max": 1},
    )
    shuffled = random.Random(seed).sample(samples, len(samples))
    assert run(shuffled, *checks) == run(samples, *checks)


# -- ceiling -------------------------------------------------------------------------------------------------


def test_a_ceiling_holds_whatever_the_reference_does() -> None:
    check = {"metric": "truncated_rate", "on": "cot/*", "max_increase": 0.05, "ceiling": 0.02}

    def both_truncated(count: int, of: int) -> list[Sample]:
        return [sample(i, role, finish_reason="length" if i < count else "stop") for i in range(of) for role in ROLES]

    assert one(both_truncated(0, 1000), check).verdict == "PASS"
    assert one(both_truncated(60, 1000), check).verdict == "FAIL"
    assert "ceiling" in one(both_truncated(60, 1000), check).reason
    for count in (17, 23):  # just below and just above it: neither is proven
        doubtful = one(both_truncated(count, 1000), check)
        assert doubtful.verdict == "INCONCLUSIVE" and "ceiling" in doubtful.reason
    assert one(both_truncated(60, 1000), check | {"ceiling": None}).verdict == "PASS"


# -- divergence ----------------------------------------------------------------------------------------------

KL = {"metric": "kl_mean", "on": "divergence", "max": 0.05}


def spread(low: float, high: float, n: int = 40) -> list[tuple[float, float, float]]:
    """Documents of 100 positions with a KL between these bounds, not all equal."""
    return [(100 * low * (0.9 + 0.01 * (i % 21)), 100 * high * (0.9 + 0.01 * (i % 21)), 100.0) for i in range(n)]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.02, "PASS"),
        (0.01, 0.50, "INCONCLUSIVE"),  # passes only if the assumption on the tail does not matter
        (0.20, 0.50, "FAIL"),  # fails by what is proven
    ],
)
def test_kl_passes_by_its_upper_and_fails_by_its_lower_sums(low: float, high: float, verdict: str) -> None:
    result = one(documents(spread(low, high)), KL)
    assert result.verdict == verdict
    assert result.lower == pytest.approx(low, rel=0.05) and result.upper == pytest.approx(high, rel=0.05)
    assert result.n == 40


def test_kl_is_a_mean_over_positions() -> None:
    rows = [(1.0, 1.0, 10.0), (0.0, 0.0, 990.0), (1.0, 1.0, 1000.0)] * 10
    assert one(documents(rows), KL).estimate == pytest.approx(2 / 2000)


def test_flips_are_judged_by_their_rate() -> None:
    rows, check = spread(0.01, 0.01), {"metric": "flip_rate", "on": "divergence", "max": 0.1}
    assert one(documents(rows, [2.0 + i % 3 for i in range(40)]), check).verdict == "PASS"
    assert one(documents(rows, [20.0 + i % 3 for i in range(40)]), check).verdict == "FAIL"


def test_one_document_decides_nothing() -> None:
    result = one(documents([(0.001, 0.001, 100.0)]), KL)
    assert result.verdict == "INCONCLUSIVE"
    assert (result.lower, result.upper, result.items_needed) == (None, None, None)
    assert "Infinity" not in result.model_dump_json() and "NaN" not in result.model_dump_json()


def test_a_document_without_the_metric_is_an_error() -> None:
    samples = documents(spread(0.001, 0.001, 100))
    bare = [s.model_copy(update={"metrics": {}}) if int(s.item) < 2 else s for s in samples]
    result = one(bare, KL)
    assert (result.verdict, result.errored, result.n) == ("INCONCLUSIVE", 2, 98)
    assert one(pairs(counts(both=9), "divergence/chat-en"), KL).verdict == "INCONCLUSIVE"


# -- the whole -----------------------------------------------------------------------------------------------


def test_one_failure_fails_the_run_and_all_must_hold_to_pass() -> None:
    good, bad, few = (
        pairs(counts(both=1000), "cot/good"),
        pairs(counts(lost=1000), "cot/bad"),
        pairs(counts(both=5), "cot/few"),
    )
    assert run(good).verdict == "PASS"
    assert run(good + few).verdict == "INCONCLUSIVE"
    assert run(few + bad + good).verdict == "FAIL"
    assert "cot/bad" in run(few + bad + good).reason and "cot/few" not in run(few + bad + good).reason


def test_only_a_pass_exits_with_zero() -> None:
    assert EXIT_CODES == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}


def test_a_check_may_ask_for_its_own_confidence() -> None:
    samples = pairs(counts(both=300))
    assert one(samples).verdict == "PASS"
    strict = one(samples, ACCURACY | {"confidence": 0.999})
    assert strict.verdict == "INCONCLUSIVE" and strict.confidence == 0.999
    assert one(samples, confidence=0.999).verdict == "INCONCLUSIVE"


def test_a_verdict_by_another_policy_is_after_the_fact() -> None:
    asked = policy(ACCURACY)
    assert not judge(asked, [], {}, "a").after_the_fact
    assert not judge(asked, [], {}, "a", "a").after_the_fact
    assert judge(asked, [], {}, "b", "a").after_the_fact


def test_a_verdict_survives_being_stored() -> None:
    verdict = run(pairs(counts(both=50, lost=3)), ACCURACY, KL)
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_a_key_that_is_there_twice_is_refused() -> None:
    samples = pairs(counts(both=3))
    with pytest.raises(BadInput, match="there twice"):
        run([*samples, samples[0]])


BINARY = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=80)
ORDER = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2}


@given(BINARY, st.integers(0, 79), st.sampled_from([0.0, 0.01, 0.05, 0.2]))
def test_one_more_wrong_answer_never_improves_a_verdict(
    scores: list[tuple[float, float]], which: int, margin: float
) -> None:
    check = ACCURACY | {"max_loss": margin}
    which %= len(scores)
    worse = [*scores[:which], (scores[which][0], 0.0), *scores[which + 1 :]]
    before, after = one(pairs(scores), check).verdict, one(pairs(worse), check).verdict
    assert ORDER[after] >= ORDER[before]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40),
    st.integers(0, 39),
    st.floats(0, 1),
    st.sampled_from([0.01, 0.1]),
)
def test_a_lower_graded_score_never_turns_a_failure_into_a_pass(
    scores: list[tuple[float, float]], which: int, factor: float, margin: float
) -> None:
    check = ACCURACY | {"max_loss": margin}
    which %= len(scores)
    reference, candidate = scores[which]
    worse = [*scores[:which], (reference, candidate * factor), *scores[which + 1 :]]
    before, after = one(pairs(scores), check).verdict, one(pairs(worse), check).verdict
    assert not (before == "FAIL" and after == "PASS")
