"""Sequential checks: they stop at the first item that decides, in the order of the seal."""

from typing import Any

from check_cases import ACCURACY, TRUNCATED, answered
from made import changed, counts, decided, pairs, plan

from harness.samples import Sample, sealed_order


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
