"""What is missing, broken or foreign is counted against the plan, and is never a PASS."""

import pytest
from verdict_cases import ACCURACY, BAD, GOOD, one, run
from verdict_samples import Plan, changed, counts, documents, items, noise, pairs, plan, sample

from harness.contract.errors import BadInput
from harness.contract.pairs import noise_keys
from harness.contract.samples import Sample


def test_everything_that_cannot_be_used_is_counted_against_the_plan() -> None:
    samples = changed(GOOD, lambda s: s.item == "0" and s.role == "candidate", error="timeout: no answer", score=None)
    samples = changed(samples, lambda s: s.item == "1" and s.role == "reference", prompt_sha256="other")
    samples = [s for s in samples if s.item != "2" or s.role != "candidate"]  # one answer of the two
    planned = items(400) | {("cot", "gsm8k", "never asked", 0): None}
    check = ACCURACY | {"max_loss": 0.03}  # four gaps, two of which may be a loss, keep no margin of one point
    result = one(samples, check, planned=planned, max_unusable=0.02)
    assert (result.missing, result.errored, result.unequal, result.foreign) == (2, 1, 1, 0)
    assert (result.n, result.planned, result.b, result.verdict) == (397, 401, 0, "PASS")
    assert one(samples, check, planned=planned, max_unusable=4 / 402).verdict == "INCONCLUSIVE"
    assert one(samples, check, planned=planned, max_unusable=4 / 401).verdict == "PASS"
    assert "with 4 pairs that cannot be used at their worst" in one(samples, planned=planned, max_unusable=0.02).reason


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


def test_what_the_noise_role_did_not_answer_is_missing_from_a_check_above_the_noise_floor() -> None:
    """An answer that nobody has is no reason to leave out the very items on which the candidate is bad."""
    good, bad = [(0.001, 0.001, 100.0)] * 12, [(5.0, 5.0, 100.0)] * 84
    samples, floor = documents([*good, *bad]), documents([(0.0, 0.0, 100.0)] * 96)
    answers = [s.model_copy(update={"role": "noise"}) for s in floor if s.role == "candidate"]
    over = {"metric": "kl_mean", "on": "divergence", "max_over_noise": 0.01}
    asked = {"noise_floor": {"by": "seed", "items": 96}}
    failing = run([*samples, *answers], over, planned=plan(samples), **asked).checks[0]
    assert (failing.verdict, failing.n) == ("FAIL", 96)
    errors = changed(answers, lambda s: int(s.item) >= 12, error="timeout: no answer", metrics={})
    for there, counted in ((errors, "errored"), (errors[:12], "missing")):
        result = run([*samples, *there], over, planned=plan(samples), **asked).checks[0]
        assert (result.verdict, result.n, getattr(result, counted)) == ("INCONCLUSIVE", 12, 84)
    fewer = {"noise_floor": {"by": "seed", "items": 10}}  # what it was not to be asked is not missing
    drawn = noise_keys(plan(samples), "sealed", 10)
    there = [s for s in answers if s.key.pair in drawn]
    result = run([*samples, *there], over, planned=plan(samples), **fewer).checks[0]
    assert (result.n, result.missing, result.errored, result.planned) == (10, 0, 0, 96)


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
