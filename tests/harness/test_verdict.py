"""The verdict: all checks must hold, what is not there is counted, and nothing weak is a PASS."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import (
    Plan,
    changed,
    counts,
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

from harness.checks import CheckResult
from harness.errors import BadInput
from harness.policy import Check, NoiseFloor, Policy, SealedPolicy, weakened
from harness.samples import Sample
from harness.statistics import paired_interval
from harness.verdict import EXIT_CODES, SAME_MODEL, Verdict, judge, targets_of

ACCURACY = {"metric": "accuracy", "on": "cot/*", "max_loss": 0.01}
KL = {"metric": "kl_mean", "on": "divergence", "max": 0.05}
GOOD = pairs(counts(both=400))
BAD = pairs(counts(both=300, lost=100))


def run(samples: Sequence[Sample], *checks: dict[str, Any], planned: Plan | None = None, **fields: Any) -> Verdict:
    """Judged by these checks; without a plan the reference's samples are taken to be all that was planned."""
    planned = plan(samples) if planned is None else planned
    return judge(policy(*(checks or (ACCURACY,)), **fields), samples, planned, "sealed")


def one(samples: Sequence[Sample], *checks: dict[str, Any], **more: Any) -> CheckResult:
    """The only check of a verdict, which is then the whole verdict."""
    verdict = run(samples, *checks, **more)
    (result,) = verdict.checks
    assert verdict.verdict == result.verdict
    return result


# -- the whole -----------------------------------------------------------------------------------------------


def test_one_failure_fails_the_run_and_all_must_hold_to_pass() -> None:
    good, bad, few = (
        pairs(counts(both=400), "cot/good"),
        pairs(counts(lost=400), "cot/bad"),
        pairs(counts(both=5), "cot/few"),
    )
    assert run(good).verdict == "PASS" and run(good).reason == "all 1 checks hold"
    assert run(good + few).verdict == "INCONCLUSIVE"
    verdict = run(few + bad + good)
    assert verdict.verdict == "FAIL" and [c.verdict for c in verdict.checks] == ["INCONCLUSIVE", "FAIL", "PASS"]
    assert "cot/bad" in verdict.reason and "cot/few" not in verdict.reason


def test_only_a_pass_exits_with_zero() -> None:
    assert EXIT_CODES == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}


def test_the_confidence_is_the_policys_unless_a_check_has_its_own() -> None:
    assert one(GOOD).confidence == 0.95 and one(GOOD).upper == paired_interval(0, 0, 400).upper
    assert one(GOOD, confidence=0.999).verdict == "INCONCLUSIVE"
    assert one(GOOD, ACCURACY | {"confidence": 0.9}, confidence=0.999).verdict == "PASS"


def test_a_near_tie_is_not_decided_within_two_points() -> None:
    # Two systems of SWE-bench Verified solve 372 and 371 of 500, each alone 29 and 28: nobody can tell them apart.
    samples = pairs(counts(both=343, lost=29, won=28, neither=100), "swebench/verified")
    check = {"metric": "resolved", "on": "swebench"}
    assert [one(samples, check | {"max_loss": m}).verdict for m in (0.01, 0.02, 0.03)] == [
        "INCONCLUSIVE",
        "INCONCLUSIVE",
        "PASS",
    ]


def test_a_verdict_survives_being_stored() -> None:
    samples = pairs(counts(both=50, lost=3)) + noise([1.0] * 9) + documents(spread(0.1, 0.2))
    verdict = run(samples, ACCURACY, KL)
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert verdict.schema_version == 2 and verdict.policy_name == "test"


# -- the four cases in which another gate said GO ------------------------------------------------------------


def test_ten_items_without_a_flip_are_not_half_a_point() -> None:
    result = one(pairs(counts(both=10)), ACCURACY | {"max_loss": 0.005})
    assert result.verdict == "INCONCLUSIVE" and result.upper is not None and result.upper > 0.25


@pytest.mark.parametrize("n", [10, 1000])
@pytest.mark.parametrize("floor", [0.1, None])
def test_two_models_that_score_all_zero_do_not_pass(n: int, floor: float | None) -> None:
    assert one(pairs(counts(neither=n)), ACCURACY | {"floor": floor}).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("scores", [counts(both=12), counts(lost=12)])
def test_twelve_answers_of_five_hundred_are_inconclusive(scores: list[tuple[float, float]]) -> None:
    result = one(pairs(scores), ACCURACY | {"max_loss": 0.5}, planned=items(500))
    assert (result.verdict, result.missing, result.n, result.planned) == ("INCONCLUSIVE", 488, 12, 500)
    assert "488 of 500 pairs cannot be used" in result.reason
    # The same when only the candidate's answers are lacking.
    answered = [s for s in pairs(counts(both=500)) if s.role == "reference" or int(s.item) < 12]
    assert one(answered, ACCURACY | {"max_loss": 0.5}).verdict == "INCONCLUSIVE"


def test_different_prompts_under_one_index_are_no_pair() -> None:
    samples = changed(GOOD, lambda s: s.role == "candidate", prompt_sha256="another question")
    result = one(samples)
    assert (result.verdict, result.unequal, result.n) == ("INCONCLUSIVE", 400, 0)
    # Nor when both roles were asked the same, which is not what was planned.
    result = one(changed(GOOD, lambda s: True, prompt_sha256="another question"), planned=items(400))
    assert (result.verdict, result.unequal, result.n) == ("INCONCLUSIVE", 400, 0)


# -- what is missing, broken or foreign ----------------------------------------------------------------------


def test_everything_that_cannot_be_used_is_counted_against_the_plan() -> None:
    samples = changed(GOOD, lambda s: s.item == "0" and s.role == "candidate", error="timeout: no answer", score=None)
    samples = changed(samples, lambda s: s.item == "1" and s.role == "reference", prompt_sha256="other")
    samples = [s for s in samples if s.item != "2" or s.role != "candidate"]  # one answer of the two
    planned = items(400) | {("cot", "gsm8k", "never asked", 0): None}
    result = one(samples, planned=planned, max_unusable=0.02)
    assert (result.missing, result.errored, result.unequal, result.foreign) == (2, 1, 1, 0)
    assert (result.n, result.planned, result.b, result.verdict) == (397, 401, 0, "PASS")
    assert one(samples, planned=planned, max_unusable=4 / 402).verdict == "INCONCLUSIVE"
    assert one(samples, planned=planned, max_unusable=4 / 401).verdict == "PASS"


@pytest.mark.parametrize("samples", [GOOD, BAD])
def test_above_the_limit_of_unusable_pairs_scores_do_not_matter(samples: list[Sample]) -> None:
    spoilt = changed(samples, lambda s: int(s.item) < 5 and s.role == "reference", error="server: 500", score=None)
    assert one(spoilt).verdict == "INCONCLUSIVE"
    assert one(spoilt, max_unusable=0.0125).verdict == one(samples).verdict
    spoilt = changed(samples, lambda s: s.item == "0" and s.role == "reference", error="server: 500", score=None)
    assert one(spoilt, max_unusable=0.0).verdict == "INCONCLUSIVE"


def test_a_plan_without_a_hash_asks_only_for_two_equal_prompts() -> None:
    unknown: Plan = dict.fromkeys(items(400))
    assert one(GOOD, planned=unknown).verdict == "PASS"
    other = changed(GOOD, lambda s: s.role == "candidate", prompt_sha256="other")
    assert one(other, planned=unknown).unequal == 400


@pytest.mark.parametrize(
    "foreign",
    [
        sample("1000", "candidate", 1.0),
        sample("1000", "reference", 1.0),
        sample("0", "candidate", 1.0, repeat=1),
        sample("0", "candidate", 1.0, on="cot/aime"),
        sample("0", "candidate", 1.0, on="ruler/vt"),
    ],
)
def test_a_foreign_sample_is_never_a_pass(foreign: Sample) -> None:
    verdict = run([*GOOD, foreign], planned=plan(GOOD))
    assert (verdict.verdict, verdict.foreign) == ("INCONCLUSIVE", 1)
    assert "1 samples are not of this run" in verdict.reason
    (result,) = verdict.checks
    assert (result.verdict, result.n) == ("PASS", 400)  # and it is not used
    assert result.foreign == (foreign.suite == "cot" and foreign.task == "gsm8k")
    failing = run([*BAD, foreign], planned=plan(GOOD))
    assert failing.verdict == "FAIL" and "not of this run" in failing.reason


def test_noise_of_another_run_is_no_part_of_the_noise_floor() -> None:
    other = [sample("1000", "reference", 1.0), sample("1000", "noise", 0.0)]
    verdict = run([*GOOD, *noise([1.0] * 30), *other], planned=plan(GOOD))
    found = verdict.checks[0].noise
    assert found is not None and (found.n, found.b) == (30, 0)
    assert verdict.verdict == "INCONCLUSIVE" and verdict.foreign >= 1


def test_without_a_plan_everything_is_foreign() -> None:
    verdict = run(GOOD, planned={})
    assert (verdict.verdict, verdict.foreign) == ("INCONCLUSIVE", 800)


def test_nothing_at_all_is_inconclusive() -> None:
    assert one([]).verdict == "INCONCLUSIVE" and "nothing ran" in one([]).reason
    result = one([], planned=items(5))
    assert (result.verdict, result.reason, result.missing) == ("INCONCLUSIVE", "zero usable pairs", 5)
    half = one([s for s in GOOD if s.role == "reference"])
    assert (half.verdict, half.missing) == ("INCONCLUSIVE", 400)


def test_a_check_on_what_was_not_planned_is_inconclusive() -> None:
    verdict = run(GOOD, ACCURACY, ACCURACY | {"on": "ruler"}, ACCURACY | {"on": "cot/aime"})
    assert [check.verdict for check in verdict.checks] == ["PASS", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert [check.on for check in verdict.checks] == ["cot/gsm8k", "ruler", "cot/aime"]
    assert verdict.verdict == "INCONCLUSIVE" and "nothing ran" in verdict.reason


def test_a_planned_task_without_one_answer_is_not_forgotten() -> None:
    verdict = run(GOOD, planned=items(400) | items(500, "cot/math500"))
    assert {check.on: check.verdict for check in verdict.checks} == {"cot/gsm8k": "PASS", "cot/math500": "INCONCLUSIVE"}
    pooled = one(GOOD, ACCURACY | {"on": "cot"}, planned=items(400) | items(500, "cot/math500"))
    assert (pooled.verdict, pooled.missing, pooled.planned) == ("INCONCLUSIVE", 500, 900)


@pytest.mark.parametrize("role", ["reference", "candidate", "noise"])
def test_a_key_that_is_there_twice_is_refused(role: str) -> None:
    samples = pairs(counts(both=3)) + noise([1.0] * 3)
    twice = next(s for s in samples if s.role == role)
    with pytest.raises(BadInput, match=f"cot/gsm8k/0/0/{role} is there twice"):
        run([*samples, twice.model_copy(update={"score": 0.0})])


# -- which tasks ---------------------------------------------------------------------------------------------


def test_a_suite_is_pooled_and_a_pattern_is_one_check_for_each_task() -> None:
    samples = pairs(counts(both=400), "cot/gsm8k") + pairs(counts(both=300, lost=100), "cot/math500")
    samples += pairs(counts(lost=400), "ruler/vt@2048")
    pooled = one([s for s in samples if s.suite == "cot"], ACCURACY | {"on": "cot"})
    assert (pooled.on, pooled.n, pooled.b, pooled.verdict) == ("cot", 800, 100, "FAIL")
    each = run(samples, ACCURACY)
    assert {check.on: check.verdict for check in each.checks} == {"cot/gsm8k": "PASS", "cot/math500": "FAIL"}
    assert each.verdict == "FAIL"
    assert one(samples, ACCURACY | {"on": "cot/gsm8k"}).verdict == "PASS"


def test_targets_are_named_as_policies_name_them() -> None:
    tasks = ["cot/gsm8k", "cot/math500", "ruler/vt@2048", "ruler/vt@4096", "cotton/x"]

    def targets(on: str) -> dict[str, list[str]]:
        return targets_of(Check(metric="accuracy", on=on, max_loss=0.1), tasks)

    assert targets("cot") == {"cot": ["cot/gsm8k", "cot/math500"]}
    assert targets("cot/*") == {"cot/gsm8k": ["cot/gsm8k"], "cot/math500": ["cot/math500"]}
    assert list(targets("*/vt@*")) == ["ruler/vt@2048", "ruler/vt@4096"]
    assert targets("cot/GSM8K") == targets("c") == targets("*") == {}


def test_pooling_adds_up_what_is_missing() -> None:
    samples = pairs(counts(both=500), "cot/gsm8k") + pairs(counts(both=500), "cot/math500")
    planned = items(506, "cot/gsm8k") | items(505, "cot/math500")
    assert one(samples, ACCURACY | {"on": "cot"}, planned=planned, max_unusable=0.011).missing == 11
    each = run(samples, planned=planned)
    assert [c.verdict for c in each.checks] == ["INCONCLUSIVE", "PASS"]  # 6 of 506 are more than 1 %, 5 of 505 are not


def test_items_of_two_tasks_with_one_name_are_two_items() -> None:
    samples = pairs([(0.5, 0.5)] * 30, "ruler/niah") + pairs([(0.9, 0.5)] * 10, "ruler/cwe")
    result = one(samples, ACCURACY | {"on": "ruler", "max_loss": 0.09})
    assert result.n == 40 and result.estimate == pytest.approx(0.1)
    assert result.lower is not None and result.upper is not None and result.lower < 0.1 < result.upper


# -- the same model twice ------------------------------------------------------------------------------------

SAME = documents([(0.0, 0.0, 100.0)] * 20)
LOOSE = ACCURACY | {"max_loss": 0.2}


def test_the_same_model_twice_is_never_a_pass() -> None:
    for checks in ((LOOSE,), (LOOSE, KL)):
        verdict = run(GOOD + SAME, *checks)
        assert (verdict.verdict, verdict.same_model) == ("INCONCLUSIVE", True)
        assert SAME_MODEL in verdict.reason
    failing = run(BAD + SAME, ACCURACY)
    assert failing.verdict == "FAIL" and failing.same_model and SAME_MODEL in failing.reason


@pytest.mark.parametrize("differs", [documents([(0.0, 1e-6, 100.0)]), documents([(0.0, 0.0, 100.0)], [1.0])])
def test_one_position_that_differs_makes_another_model(differs: list[Sample]) -> None:
    other = changed(differs, lambda s: True, item="20")
    verdict = run([*GOOD, *SAME, *other], LOOSE)
    assert (verdict.verdict, verdict.same_model) == ("PASS", False)


def test_without_a_trajectory_nothing_is_known_of_the_model() -> None:
    assert run(GOOD, LOOSE).verdict == "PASS"
    errored = changed(SAME, lambda s: s.role == "candidate", error="server: 500")
    assert not run(GOOD + errored, LOOSE).same_model


@pytest.mark.parametrize("again", [[1.0] * 32, [0.0] + [1.0] * 31, [0.0] * 8 + [1.0] * 24])
@pytest.mark.parametrize("samples", [GOOD, pairs(counts(both=380, lost=10, won=10))])
def test_a_divergence_of_exactly_zero_is_the_same_model_whatever_the_answers_do(
    samples: list[Sample], again: list[float]
) -> None:
    # Sampled answers differ from one server to the next: by chance more often here than on the few noise items.
    verdict = run(samples + SAME + noise(again), LOOSE)
    assert (verdict.verdict, verdict.same_model) == ("INCONCLUSIVE", True)


# -- order does not matter -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32))
@settings(max_examples=5)
def test_the_order_of_answers_and_of_tasks_decides_nothing(seed: int) -> None:
    rng = random.Random(7)
    samples = pairs([(rng.random(), rng.random()) for _ in range(20)], "ruler/vt")
    samples += pairs([(rng.random(), rng.random()) for _ in range(15)], "ruler/cwe")
    samples += pairs(counts(both=60, lost=9, won=2), "cot/gsm8k") + noise([1.0, 0.0, 1.0])
    samples += documents([(rng.random(), 1 + rng.random(), 50.0) for _ in range(12)])
    checks = (
        {"metric": "accuracy", "on": "ruler", "max_loss": 0.1},
        {"metric": "accuracy", "on": "cot/*", "max_loss": 0.1, "stop": "sequential"},
        {"metric": "kl_mean", "on": "divergence", "max": 3},
    )
    plain = run(samples, *checks)
    mixed = random.Random(seed)
    shuffled = mixed.sample(samples, len(samples))
    assert run(shuffled, *checks, planned=plan(samples)) == plain  # to the last digit
    assert run(shuffled, *checks).checks == plain.checks


# -- which check failed --------------------------------------------------------------------------------------


def test_holm_says_which_failures_stand_when_all_checks_are_tested_together() -> None:
    samples, strong, weak = list[Sample](), counts(both=300, lost=100), counts(both=390, lost=10)
    for task, scores in {"a": strong, "b": weak, "c": counts(both=400), "d": counts(both=400)}.items():
        samples += pairs(scores, f"cot/{task}")
    verdict = run(samples)
    by_task = {c.on[-1]: c for c in verdict.checks}
    assert [by_task[t].verdict for t in "abcd"] == ["FAIL", "FAIL", "PASS", "PASS"]
    assert by_task["a"].p_fail is not None and by_task["b"].p_fail is not None
    assert by_task["a"].p_fail < 0.05 / 4 and 0.05 / 3 < by_task["b"].p_fail < 0.05
    assert [by_task[t].after_holm for t in "abcd"] == [True, False, None, None]
    assert verdict.verdict == "FAIL"  # the correction names, it does not pardon
    alone = run([s for s in samples if s.task == "b"])
    assert alone.checks[0].after_holm is True


def test_a_failure_that_has_no_p_value_is_not_called_chance() -> None:
    slow = measured([({"tokens_per_second": 50.0}, {"tokens_per_second": 5.0})] * 40, "speed/decode")
    cut = changed(pairs([(None, None)] * 400), lambda s: True, finish_reason="length")
    ceiling = {"metric": "truncated_rate", "on": "cot/*", "max_increase": 0.1, "ceiling": 0.02}
    verdict = run(slow + cut, {"metric": "speed_ratio", "on": "speed", "min": 0.8}, ceiling)
    assert [c.verdict for c in verdict.checks] == ["FAIL", "FAIL"]
    assert all(c.after_holm is not False for c in verdict.checks)


def test_a_check_that_could_not_be_used_lends_holm_no_rejection() -> None:
    # One check fails clearly, but on too few of its items; the other has p = 0.03: above 0.05 / 2, below 0.05.
    half = pairs(counts(lost=98), "cot/a")
    weak = pairs(counts(both=390, lost=10), "cot/b")
    verdict = run(half + weak, planned=items(100, "cot/a") | items(400, "cot/b"))
    first, second = verdict.checks
    assert (first.verdict, first.after_holm, second.verdict) == ("INCONCLUSIVE", None, "FAIL")
    assert second.p_fail is not None and 0.025 < second.p_fail < 0.05
    assert second.after_holm is False


# -- judged after the fact -----------------------------------------------------------------------------------


def sealed(found: Policy, sha256: str = "sealed") -> SealedPolicy:
    return SealedPolicy(policy=found, text="", sha256=sha256)


def test_a_verdict_by_another_policy_is_after_the_fact() -> None:
    strict, loose = policy(ACCURACY), policy(ACCURACY | {"max_loss": 0.5})
    plain = judge(strict, GOOD, plan(GOOD), "a")
    assert (plain.after_the_fact, plain.policy_sha256, plain.sealed_policy_sha256) == (False, "a", "a")
    assert not judge(strict, GOOD, plan(GOOD), "a", sealed(strict, "a")).after_the_fact
    later = judge(loose, GOOD, plan(GOOD), "b", sealed(strict, "a"))
    assert later.after_the_fact and (later.policy_sha256, later.sealed_policy_sha256) == ("b", "a")
    assert later.weakened == ["accuracy on cot/*: max_loss 0.01 -> 0.5"]
    assert judge(strict, GOOD, plan(GOOD), "a", sealed(loose, "b")).weakened == []


def test_the_items_of_a_run_keep_their_sealed_order_after_the_fact() -> None:
    check = ACCURACY | {"max_loss": 0.1, "stop": "sequential"}
    samples = pairs(counts(both=300, lost=10))
    before = judge(policy(check), samples, plan(samples), "a")
    after = judge(policy(check), samples, plan(samples), "b", sealed(policy(check), "a"))
    assert after.checks == before.checks
    others = [judge(policy(check), samples, plan(samples), str(seal)).checks for seal in range(8)]
    assert any(found != before.checks for found in others)


FULL: dict[str, Any] = {"metric": "accuracy", "on": "cot", "max_loss": 0.02, "floor": 0.3, "confidence": 0.99}
CUT: dict[str, Any] = {"metric": "truncated_rate", "on": "cot", "max_increase": 0.02, "ceiling": 0.1}
SPEED: dict[str, Any] = {"metric": "speed_ratio", "on": "speed", "min": 0.9}
STOPPED: dict[str, Any] = {"metric": "resolved", "on": "swe", "max_loss": 0.03, "stop": "sequential"}
ALL = (FULL, CUT, SPEED, STOPPED, KL)


@pytest.mark.parametrize(
    ("index", "change", "line"),
    [
        (0, {"max_loss": 0.03}, "accuracy on cot: max_loss 0.02 -> 0.03"),
        (0, {"floor": 0.2}, "accuracy on cot: floor 0.3 -> 0.2"),
        (0, {"floor": None}, "accuracy on cot: floor 0.3 -> none"),
        (0, {"confidence": 0.98}, "accuracy on cot: confidence 0.99 -> 0.98"),
        (0, {"confidence": None}, "accuracy on cot: confidence 0.99 -> 0.95"),
        (0, {"on": "cot/*"}, "accuracy on cot: no longer checked with max_loss"),
        (1, {"max_increase": 0.021}, "truncated_rate on cot: max_increase 0.02 -> 0.021"),
        (1, {"ceiling": 0.2}, "truncated_rate on cot: ceiling 0.1 -> 0.2"),
        (1, {"ceiling": None}, "truncated_rate on cot: ceiling 0.1 -> none"),
        (1, {"confidence": 0.9}, "truncated_rate on cot: confidence 0.95 -> 0.9"),
        (2, {"min": 0.8}, "speed_ratio on speed: min 0.9 -> 0.8"),
        (3, {"stop": None}, "resolved on swe: stop sequential -> none"),
        (4, {"max": 0.06}, "kl_mean on divergence: max 0.05 -> 0.06"),
        (4, {"max": None, "max_over_noise": 0.05}, "kl_mean on divergence: no longer checked with max"),
    ],
)
def test_every_weaker_margin_is_named(index: int, change: dict[str, Any], line: str) -> None:
    changed_checks = [check | change if i == index else check for i, check in enumerate(ALL)]
    fields = {"noise_floor": NoiseFloor(items=8)}
    assert weakened(policy(*ALL, **fields), policy(*changed_checks, **fields)) == [line]


def test_weaker_limits_of_the_whole_policy_and_lost_checks_are_named() -> None:
    before = policy(*ALL)
    assert weakened(before, policy(*ALL, max_unusable=0.02)) == ["max_unusable 0.01 -> 0.02"]
    lines = [f"{c['metric']} on {c['on']}: confidence 0.95 -> 0.9" for c in ALL[1:]]
    assert weakened(before, policy(*ALL, confidence=0.9)) == lines
    assert weakened(before, policy(*ALL[1:])) == ["accuracy on cot: no longer checked with max_loss"]
    assert weakened(policy(CUT), policy(CUT | {"stop": "sequential"})) == [
        "truncated_rate on cot: stop none -> sequential"
    ]
    assert (
        len(weakened(before, policy(FULL | {"max_loss": 0.5, "floor": 0.0, "confidence": 0.6}, max_unusable=0.5))) == 8
    )


def test_a_stricter_policy_weakens_nothing() -> None:
    stricter = (
        FULL | {"max_loss": 0.01, "floor": 0.5, "confidence": 0.999},
        CUT | {"max_increase": 0.0, "ceiling": 0.05, "confidence": 0.96},
        SPEED | {"min": 1.0},
        STOPPED | {"max_loss": 0.02},
        KL | {"max": 0.01},
        ACCURACY,
    )
    assert weakened(policy(*ALL), policy(*stricter, max_unusable=0.0, confidence=0.96)) == []
    assert weakened(policy(*ALL), policy(*reversed(ALL))) == []


def test_a_policy_is_not_weaker_than_itself() -> None:
    # Two margins for one target: a tight one at low confidence, a wide one that must hold almost surely.
    twice = policy(ACCURACY, ACCURACY | {"max_loss": 0.05, "confidence": 0.999})
    assert weakened(twice, twice) == []
    dropped = weakened(twice, policy(ACCURACY))
    assert len(dropped) == 1
