"""The verdict: all checks must hold, nothing weak is a PASS, and what failed is named."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_cases import ACCURACY, BAD, GOOD, KL, one, run
from verdict_samples import changed, counts, documents, items, measured, noise, pairs, plan, spread

from harness.contract.check import Check
from harness.contract.samples import Sample
from harness.judging.paired_rates import paired_interval
from harness.judging.run_level import targets_of
from harness.judging.verdict import EXIT_CODES, SAME_MODEL, Verdict

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
    each = run(samples, ACCURACY | {"max_loss": 0.03}, planned=planned)
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


@pytest.mark.slow
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
    samples, strong, weak = list[Sample](), counts(both=300, lost=100), counts(both=391, lost=9)
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
    weak = pairs(counts(both=391, lost=9), "cot/b")
    verdict = run(half + weak, planned=items(100, "cot/a") | items(400, "cot/b"))
    first, second = verdict.checks
    assert (first.verdict, first.after_holm, second.verdict) == ("INCONCLUSIVE", None, "FAIL")
    assert second.p_fail is not None and 0.025 < second.p_fail < 0.05
    assert second.after_holm is False
