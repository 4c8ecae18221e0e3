"""Sequential checks: they stop at the first item that decides, in the order of the seal."""

from random import Random
from typing import Any

import pytest
from check_cases import ACCURACY, TRUNCATED, answered
from verdict_samples import changed, counts, decided, pairs, plan

from harness.contract.check import Check
from harness.contract.pairs import sealed_order
from harness.contract.samples import Sample
from harness.judging.estimates import ItemValues, StopRule
from harness.judging.sequential import items_without_loss


def test_a_sequential_check_uses_no_more_items_than_it_needs() -> None:
    check = ACCURACY | {"max_loss": 0.03, "stop": "sequential"}
    result = decided(check, pairs(counts(both=1000)))
    assert (result.verdict, result.n, result.planned, result.stop) == ("PASS", 161, 1000, "sequential")
    assert result.upper is not None and result.upper <= 0.03 and "betting" in result.method and result.power == 1.0
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


@pytest.mark.slow
def test_only_the_items_used_count_as_unusable() -> None:
    check = ACCURACY | {"max_loss": 0.03, "stop": "sequential"}
    samples = pairs(counts(both=1000))
    used = used_items(check, samples)
    two = sorted(used)[:2]
    spoilt = changed(samples, lambda s: s.item in two and s.role == "candidate", score=None, error="timeout")
    # Two losses that may be cost more items: as many as if they were there.
    lost = changed(samples, lambda s: s.item in two and s.role == "candidate", score=0.0)
    needed = decided(check, lost).n
    result = decided(check, spoilt)
    assert (result.errored, result.n, result.verdict) == (2, needed - 2, "PASS") and result.n > 161
    few = [s for s in spoilt if s.item in {key[2] for key in sealed_order(plan(samples), "sealed")[:180]}]
    result = decided(check, few)
    assert (result.errored, result.n, result.verdict) == (2, 178, "INCONCLUSIVE")
    assert "2 of 180 pairs cannot be used" in result.reason


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


# -- a ceiling is looked at after every item too -------------------------------------------------------------


def test_a_sequential_check_with_a_ceiling_goes_on_until_both_are_settled() -> None:
    limits: dict[str, Any] = {"metric": "truncated_rate", "on": "cot/*", "max_increase": 0.1, "stop": "sequential"}
    samples = answered("truncated_rate", fine=600, worse=0, better=0)
    alone = decided(limits, samples)
    both = decided(limits | {"ceiling": 0.02}, samples)
    assert alone.verdict == both.verdict == "PASS"
    # Without one cut answer the tests of 0.1 and of 0.02 pass after as many items as their margins take.
    assert alone.n == items_without_loss(0.1, 0.95) < both.n == items_without_loss(0.02, 0.95)


def test_a_ceiling_that_no_item_settles_is_no_pass_and_a_broken_one_fails_early() -> None:
    limits: dict[str, Any] = {"metric": "truncated_rate", "on": "cot/*", "max_increase": 0.1, "stop": "sequential"}
    few = decided(limits | {"ceiling": 0.02}, answered("truncated_rate", fine=120, worse=0, better=0))
    assert few.verdict == "INCONCLUSIVE" and "ceiling" in few.reason and few.n == 120
    damaged = answered("truncated_rate", fine=200, worse=200, better=0)
    bad = decided(limits | {"max_increase": 0.9, "ceiling": 0.02}, damaged)
    assert bad.verdict == "FAIL" and "ceiling" in bad.reason and bad.n < 60 and bad.p_fail is not None


@pytest.mark.long
def test_looking_at_a_ceiling_after_every_item_keeps_its_level() -> None:
    """Streams at exactly the ceiling: passing is an error, and optional stopping must not make it more likely."""
    check = Check(metric="truncated_rate", on="cot", max_increase=0.5, ceiling=0.1, stop="sequential")
    rng, wrong, streams = Random(7), 0, 150
    for _ in range(streams):
        rule = StopRule(check, 0.95)
        for _ in range(300):
            value = float(rng.random() < 0.1)
            if rule.update(ItemValues(0.0, value)):
                break
        wrong += rule.outcome == "PASS"
    assert wrong <= streams * 0.05 + 3 * (streams * 0.05 * 0.95) ** 0.5


def test_items_that_share_a_passage_are_no_sequence() -> None:
    """Taken one by one, forty passages of ten questions each at the margin pass in one of seven cases."""
    check, samples = ACCURACY | {"max_loss": 0.05}, pairs(counts(both=400))
    shared = [sample.model_copy(update={"cluster": str(int(sample.item) // 4)}) for sample in samples]
    result = decided(check | {"stop": "sequential"}, shared)
    assert (result.verdict, result.n) == ("INCONCLUSIVE", 400)
    assert result.reason.startswith("its items share 100 passages") and "leave out stop: sequential" in result.reason
    assert decided(check, shared).verdict == "PASS"
