"""What is no longer asked would not have changed the verdict, in whatever order the answers arrive."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_samples import Plan, changed, counts, items, noise, pairs, plan, policy, sample

from harness.contract.pairs import sealed_order
from harness.contract.policy import Policy
from harness.contract.samples import PairKey, Sample
from harness.judging.early_stop import EarlyStop
from harness.judging.sequential import SequentialTest, run_test
from harness.judging.verdict import judge

EACH = {"metric": "accuracy", "on": "cot/*", "max_loss": 0.2, "stop": "sequential"}
POOLED = EACH | {"on": "cot", "max_loss": 0.15}
CUT = {"metric": "truncated_rate", "on": "cot/*", "max_increase": 0.25, "stop": "sequential"}
WHOLE = {"metric": "accuracy", "on": "cot/math500", "max_loss": 0.5}


def answers(rng: random.Random, n: int, repeats: int) -> tuple[list[Sample], Plan]:
    """Samples of two tasks with flips, cut answers, errors, unequal prompts and missing ones, and their plan."""
    made: list[Sample] = []
    planned: Plan = {}
    for on in ("cot/gsm8k", "cot/math500"):
        loss = rng.choice([0.0, 0.05, 0.6])
        planned |= items(n, on, repeats)
        for repeat in range(repeats):
            scores = [(1.0, float(rng.random() >= loss)) for _ in range(n)]
            made += pairs(scores, on, repeat=repeat)
    for index, found in enumerate(made):
        chance = rng.random()
        if chance < 0.01:
            made[index] = found.model_copy(update={"error": "timeout: no answer", "score": None})
        elif chance < 0.02:
            made[index] = found.model_copy(update={"prompt_sha256": "other"})
        elif chance < 0.03:
            made[index] = found.model_copy(update={"score": None})
        elif chance < 0.06:
            made[index] = found.model_copy(update={"finish_reason": rng.choice(["length", None])})
    missing = rng.choice([0, 0, 0, 1, 3])
    for _ in range(missing):
        made.pop(rng.randrange(len(made)))
    return made, planned


def arrivals(rng: random.Random, samples: list[Sample], seal: str, planned: Plan) -> list[Sample]:
    """Both roles interleaved; mostly in the sealed order, as a driver asks, but some answers take long."""
    place = {key: i for i, key in enumerate(sealed_order(planned, seal))}
    late = rng.choice([0, 5, 1000])
    return sorted(samples, key=lambda s: place[s.key.pair] + rng.random() * late)


@pytest.mark.parametrize("checks", [(EACH,), (POOLED,), (EACH, POOLED), (EACH, CUT), (POOLED, WHOLE)])
@pytest.mark.parametrize("repeats", [1, 2])
def test_nothing_that_is_not_asked_would_have_changed_the_verdict(
    checks: tuple[dict[str, Any], ...], repeats: int
) -> None:
    asked_by, spared = policy(*checks, max_unusable=0.1), 0
    for seed in range(4):
        rng, seal = random.Random(seed), str(seed)
        samples, planned = answers(rng, 90, repeats)
        stop, recorded = EarlyStop(asked_by, planned, seal), list[Sample]()
        for found in arrivals(rng, samples, seal, planned):
            if not stop.needless(found.key.pair):  # as the driver does; a stop in between leaves half a pair
                recorded.append(found)
                stop.record(found)
        sparing, whole = judge(asked_by, recorded, planned, seal), judge(asked_by, samples, planned, seal)
        assert (sparing.verdict, sparing.checks) == (whole.verdict, whole.checks)
        spared += len(samples) - len(recorded)
    assert spared > 0


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=15)
def test_what_it_has_decided_is_what_the_verdict_will_say(seed: int) -> None:
    rng, seal = random.Random(seed), str(seed)
    samples, planned = answers(rng, 40, 1)
    asked_by = policy(EACH, POOLED, max_unusable=0.5)
    stop = EarlyStop(asked_by, planned, seal)
    for found in arrivals(rng, samples, seal, planned):
        stop.record(found)
    results = judge(asked_by, samples, planned, seal).checks
    expected = {f"accuracy on {r.on}: {r.verdict} after {r.n} of {r.planned} items" for r in results}
    assert set(stop.decided()) <= expected
    if len(samples) == 2 * len(planned):  # an answer that never comes is waited for
        # A check that fails by itself at its end has not stopped for it: that takes 5 % over the number of checks.
        stopped = [r for r in results if r.verdict == "PASS" or (r.p_fail or 1.0) <= 0.05 / len(results)]
        said = {f"accuracy on {r.on}: {r.verdict} after {r.n} of {r.planned} items" for r in stopped}
        assert set(stop.decided()) == said


def fed(asked_by: Policy, planned: Plan, samples: list[Sample]) -> EarlyStop:
    stop = EarlyStop(asked_by, planned, "seal")
    for found in samples:
        stop.record(found)
    return stop


GOOD = pairs(counts(both=60))
LOST = pairs(counts(lost=60))


def in_order(samples: list[Sample]) -> list[Sample]:
    place = {key: i for i, key in enumerate(sealed_order(plan(samples), "seal"))}
    return sorted(samples, key=lambda s: (place[s.key.pair], s.role))


@pytest.mark.parametrize("samples", [GOOD, LOST])
def test_it_stops_with_the_very_item_that_decides(samples: list[Sample]) -> None:
    test, needed = SequentialTest(0.2), 0
    for found in samples[::2]:
        needed += 1
        assert found.score is not None and samples[1].score is not None
        if test.update(found.score - samples[1].score):
            break
    assert 1 < needed < 60
    stop, last = EarlyStop(policy(EACH), plan(samples), "seal"), ("cot", "gsm8k", "59", 0)
    for count, found in enumerate(in_order(samples), start=1):
        stop.record(found)
        assert stop.needless(last) == (count >= 2 * needed)


@pytest.mark.parametrize("role", ["reference", "candidate"])
def test_an_item_that_takes_long_is_never_overtaken(role: str) -> None:
    first = sealed_order(plan(GOOD), "seal")[0]
    late = [s for s in GOOD if s.key.pair == first and s.role == role]
    stop = fed(policy(EACH), plan(GOOD), [s for s in GOOD if s not in late])
    assert not any(stop.needless(key) for key in plan(GOOD)) and stop.decided() == []
    stop.record(late[0])
    assert all(stop.needless(key) for key in plan(GOOD))


def test_an_item_is_whole_with_all_its_repeats() -> None:
    samples = [s for repeat in range(3) for s in pairs(counts(both=60), repeat=repeat)]
    first = sealed_order(plan(samples), "seal")[0]
    late = next(s for s in samples if s.key.pair == (*first[:3], 2) and s.role == "candidate")
    stop = fed(policy(EACH), plan(samples), [s for s in samples if s is not late])
    assert not stop.needless(first)
    stop.record(late)
    assert stop.needless(first)
    assert stop.decided() == ["accuracy on cot/gsm8k: PASS after 22 of 60 items"]


def test_an_item_that_cannot_be_used_is_passed_over() -> None:
    first = sealed_order(plan(GOOD), "seal")[0]
    broken = changed(GOOD, lambda s: s.key.pair == first and s.role == "reference", error="timeout", score=None)
    assert fed(policy(EACH), plan(GOOD), broken).decided() == []  # 1 of 60 is more than 1 % of all: it is needed whole
    lax = policy(EACH, max_unusable=0.05)
    # The candidate is right there, so that nothing can be lost: it counts like another item without a loss.
    assert fed(lax, plan(GOOD), broken).decided() == ["accuracy on cot/gsm8k: PASS after 21 of 60 items"]
    lost = changed(GOOD, lambda s: s.key.pair == first and s.role == "candidate", error="timeout", score=None)
    (said,) = fed(lax, plan(GOOD), lost).decided()
    assert "PASS" in said and int(said.split(" after ")[1].split()[0]) > 22  # and here all may be
    assert fed(policy(EACH), plan(GOOD), GOOD).decided() == ["accuracy on cot/gsm8k: PASS after 22 of 60 items"]
    everything = changed(GOOD, lambda s: True, prompt_sha256="not what was planned")
    assert fed(policy(EACH), items(60), everything).decided() == []


@pytest.mark.parametrize("other", [WHOLE | {"on": "cot/gsm8k"}, WHOLE | {"on": "cot"}, CUT | {"on": "*", "stop": None}])
def test_a_task_of_which_another_check_speaks_is_needed_to_its_end(other: dict[str, Any]) -> None:
    stop = fed(policy(EACH, other | ({"on": "cot/*"} if other["on"] == "*" else {})), plan(GOOD), GOOD)
    assert stop.decided() and not any(stop.needless(key) for key in plan(GOOD))


def test_a_task_of_which_no_check_speaks_is_asked_to_its_end() -> None:
    stop = fed(policy(EACH | {"on": "cot/math500"}), plan(GOOD), GOOD)
    assert not stop.needless(next(iter(plan(GOOD))))
    assert not fed(policy(WHOLE | {"on": "ruler"}), plan(GOOD), GOOD).needless(next(iter(plan(GOOD))))


def test_each_task_stops_by_itself_and_pooled_ones_together() -> None:
    planned: Plan = items(60) | items(60, "cot/math500")
    one, other = next(iter(items(1))), next(iter(items(1, "cot/math500")))
    stop = fed(policy(EACH), planned, GOOD)
    assert (stop.needless(one), stop.needless(other)) == (True, False)
    assert not fed(policy(POOLED), planned, GOOD).needless(one)  # items of the other task come in between
    for checks in ((EACH, POOLED), (POOLED, EACH)):
        both = fed(policy(*checks), planned, GOOD)
        assert not both.needless(one) and not both.needless(other)
    everything = GOOD + pairs(counts(both=60), "cot/math500")
    assert fed(policy(EACH, POOLED), planned, everything).needless(one)


def test_a_task_with_two_sequential_checks_waits_for_both() -> None:
    tight = CUT | {"max_increase": 0.01}
    stop = fed(policy(EACH, tight), plan(GOOD), GOOD)
    assert stop.decided() == ["accuracy on cot/gsm8k: PASS after 22 of 60 items"]
    assert not stop.needless(next(iter(plan(GOOD))))


@pytest.mark.parametrize(
    "strange",
    [
        *noise([0.0] * 60),
        sample("0", "candidate", 0.0, repeat=7),
        sample("unknown", "reference", 0.0),
        sample("0", "candidate", 0.0, on="ruler/vt"),
    ],
)
def test_noise_and_foreign_samples_decide_nothing(strange: Sample) -> None:
    reference: PairKey = next(iter(plan(GOOD)))
    half = [s for s in GOOD if s.role == "reference"]
    stop = fed(policy(EACH), plan(GOOD), [*half, strange])
    assert stop.decided() == [] and not stop.needless(reference)
    assert fed(policy(EACH), plan(GOOD), [strange, *GOOD]).decided() == fed(policy(EACH), plan(GOOD), GOOD).decided()


def test_an_answer_of_the_noise_role_does_not_stand_for_the_candidates() -> None:
    reference = [s for s in GOOD if s.role == "reference"]
    stop = fed(policy(EACH), plan(GOOD), [*reference, *noise([1.0] * 60)])
    assert stop.decided() == []
    for found in LOST:
        if found.role == "candidate":
            stop.record(found)
    assert stop.decided() == fed(policy(EACH), plan(LOST), LOST).decided() != []


def test_what_comes_after_the_decision_changes_nothing() -> None:
    stop = fed(policy(EACH), plan(GOOD), in_order(GOOD)[:44])
    decided = stop.decided()
    for found in in_order(GOOD)[44:]:
        stop.record(found.model_copy(update={"score": 0.0 if found.role == "candidate" else 1.0}))
    assert stop.decided() == decided == ["accuracy on cot/gsm8k: PASS after 22 of 60 items"]


def test_a_check_is_decided_at_its_own_confidence() -> None:
    strict = fed(policy(EACH | {"confidence": 0.999}), plan(GOOD), GOOD).decided()
    by_policy = fed(policy(EACH, confidence=0.999), plan(GOOD), GOOD).decided()
    needed = len(run_test([0.0] * 60, 0.2, 0.999).losses)
    assert 22 < needed < 60
    assert strict == by_policy == [f"accuracy on cot/gsm8k: PASS after {needed} of 60 items"]
