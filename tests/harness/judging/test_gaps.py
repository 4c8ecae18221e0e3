"""Gaps are read against whom they help: a verdict holds for everything that the missing answers might have been."""

import random
from itertools import product
from typing import Any

import pytest
from check_cases import ACCURACY, WORSE, answered, parted, ratios
from verdict_samples import changed, counts, decided, documents, items, pairs, plan, sample, spread

from harness.contract.metrics import METRICS, Difference
from harness.contract.samples import Sample

LAX: dict[str, Any] = {"max_unusable": 0.5}


def outcomes(check: dict[str, Any], samples: list[Sample], holes: list[tuple[str, str]], values: list[Any]) -> set[str]:
    """The verdicts of every way to fill these holes, (item, role) each, with fields from `values`."""
    found: set[str] = set()
    for filling in product(values, repeat=len(holes)):
        there = [s for s in samples if (s.item, s.role) not in holes]
        there += [
            sample(item, role, on=f"{samples[0].suite}/{samples[0].task}", **fields)
            for (item, role), fields in zip(holes, filling, strict=True)
        ]
        found.add(decided(check, there, plan(samples), max_tokens=100).verdict)
    return found


def expected(every: set[str]) -> str:
    return every.pop() if len(every) == 1 else "INCONCLUSIVE"


def without(samples: list[Sample], holes: list[tuple[str, str]]) -> list[Sample]:
    return [s for s in samples if (s.item, s.role) not in holes]


def test_a_failure_that_gaps_prevent_is_not_said_to_straddle_the_margin() -> None:
    samples = answered("accuracy", fine=184, worse=16, better=0)
    left = without(samples, [(str(i), "candidate") for i in range(6)])  # which the reference got right
    check = {"metric": "accuracy", "on": "cot/gsm8k"}
    lower = decided(check | {"max_loss": 0.02}, left, plan(samples), **LAX).lower
    assert lower is not None
    result = decided(check | {"max_loss": round(lower - 5e-5, 5)}, left, plan(samples), **LAX)
    assert (result.verdict, result.items_needed) == ("INCONCLUSIVE", None)
    assert "is above the margin of " in result.reason
    assert "points, but with 6 pairs that cannot be used at their best it is " in result.reason


HOLES = [
    [("3", "candidate")],
    [("3", "reference")],
    [("3", "candidate"), ("3", "reference")],
    [("0", "candidate"), ("7", "reference")],
    [("0", "reference"), ("1", "candidate"), ("1", "reference")],
]


@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize("metric", ["accuracy", "looped_rate"])
def test_a_verdict_with_gaps_is_that_of_every_way_to_fill_them(metric: str, holes: list[tuple[str, str]]) -> None:
    kind = "max_loss" if metric == "accuracy" else "max_increase"
    values = [WORSE[metric](bad) for bad in (False, True)]
    verdicts = set()
    for worse, margin in ((0, 0.1), (1, 0.1), (12, 0.05), (16, 0.2), (20, 0.2)):
        check = {"metric": metric, "on": "cot/gsm8k", kind: margin}
        samples = answered(metric, fine=44 - worse, worse=worse, better=0)
        result = decided(check, without(samples, holes), plan(samples), **LAX)
        assert result.verdict == expected(outcomes(check, samples, holes, values))
        verdicts.add(result.verdict)
        assert result.lower_with_gaps is not None and result.upper_with_gaps is not None
        assert result.lower_with_gaps < result.upper_with_gaps
    assert len(verdicts) > 1


@pytest.mark.parametrize("kind", ["max", "min"])
@pytest.mark.parametrize("holes", HOLES[:4])
def test_a_length_that_is_not_known_may_be_one_token_or_the_whole_budget(
    kind: str, holes: list[tuple[str, str]]
) -> None:
    values = [{"completion_tokens": n} for n in (1, 40, 100)]
    verdicts = set()
    for tokens, margin in ((40, 2.0), (40, 0.5), (60, 1.45), (40, 1.02), (60, 1.2)):
        check = {"metric": "length_ratio", "on": "cot/gsm8k", kind: margin}
        samples = ratios("tokens", [(40, tokens)] * 60)
        result = decided(check, without(samples, holes), plan(samples), max_tokens=100, **LAX)
        assert result.verdict == expected(outcomes(check, samples, holes, values))
        verdicts.add(result.verdict)
    assert len(verdicts) > 1


def test_what_is_known_of_a_pair_keeps_its_value() -> None:
    samples = pairs(counts(both=200, neither=100))
    wrong_before = [("250", "candidate")]  # the reference is wrong there: nothing can be lost
    right_before = [("3", "candidate")]
    base = decided(ACCURACY, samples).upper
    assert base is not None
    nothing = decided(ACCURACY, without(samples, wrong_before), plan(samples))
    something = decided(ACCURACY, without(samples, right_before), plan(samples))
    assert nothing.upper_with_gaps == pytest.approx(base, abs=1e-6)
    assert something.upper_with_gaps is not None and something.upper_with_gaps > base + 0.002
    # A candidate's answer to another prompt than the planned one is known to nobody.
    other = changed(samples, lambda s: (s.item, s.role) == ("3", "candidate"), prompt_sha256="another")
    assert decided(ACCURACY, other, plan(samples)).upper_with_gaps == something.upper_with_gaps
    # Nor is either answer where the two were asked differently and no plan says what was right.
    blind = decided(ACCURACY, other, dict.fromkeys(plan(samples)))
    assert (blind.unequal, blind.upper_with_gaps) == (1, something.upper_with_gaps)


def test_deleted_wrong_answers_and_errors_instead_of_right_ones_never_make_a_pass() -> None:
    lost = pairs(counts(both=970, lost=30))
    check = ACCURACY | {"max_loss": 0.03}
    assert decided(check, lost).verdict == "INCONCLUSIVE"
    ten = {s.item for s in lost if s.role == "candidate" and s.score == 0.0}
    deleted = [s for s in lost if s.role == "reference" or s.item not in sorted(ten)[:10]]
    result = decided(check, deleted, items(1000))
    assert (result.verdict, result.missing) == ("INCONCLUSIVE", 10)
    assert result.upper is not None and result.upper <= 0.03  # without the gaps it would have passed
    assert "keeps the margin of 3.0 points, but with 10 pairs that cannot be used at their worst it is" in result.reason
    five = sorted(ten)[:5]
    resolved = changed(lost, lambda s: s.role == "reference" and s.item in five, score=None, error="grader: x")
    assert decided(check, resolved, items(1000)).verdict == "INCONCLUSIVE"


def test_a_failure_stands_whatever_the_gaps_hide() -> None:
    check = ACCURACY | {"max_loss": 0.02}
    bad = pairs(counts(both=383, lost=17))
    assert decided(check, bad).verdict == "FAIL"
    deleted = [s for s in bad if s.role == "candidate" or s.item not in ("0", "1", "2", "3")]
    result = decided(check, deleted, items(400))
    assert (result.verdict, result.missing) == ("INCONCLUSIVE", 4)  # these four might have been gains
    worse = pairs(counts(both=360, lost=40))
    again = decided(check, [s for s in worse if s.role == "candidate" or int(s.item) > 3], items(400))
    assert again.verdict == "FAIL" and "with 4 pairs that cannot be used" in again.reason


def test_a_ceiling_bears_the_gaps_too() -> None:
    check = {"metric": "truncated_rate", "on": "cot/gsm8k", "max_increase": 0.2, "ceiling": 0.02}
    samples = answered("truncated_rate", fine=250, worse=0, better=0)
    assert decided(check, samples).verdict == "PASS"
    some = [s for s in samples if s.role == "reference" or int(s.item) > 1]
    result = decided(check, some, plan(samples))
    assert result.verdict == "INCONCLUSIVE" and "ceiling" in result.reason


@pytest.mark.parametrize(
    ("check", "samples", "bound"),
    [
        ({"metric": "kl_mean", "on": "x", "max": 0.05}, documents(spread(0.001, 0.002, 200)), False),
        ({"metric": "speed_ratio", "on": "x", "min": 0.5}, ratios("tokens_per_second", [(50.0, 60.0)] * 200), False),
        ({"metric": "flip_rate", "on": "x", "max": 0.2}, documents(spread(0.1, 0.1, 200), [3.0] * 200), True),
        ({"metric": "parting_rate", "on": "x", "max": 0.2}, parted([100] * 200), True),
    ],
)
def test_a_metric_without_a_bound_does_not_pass_with_a_gap(
    check: dict[str, Any], samples: list[Sample], bound: bool
) -> None:
    assert decided(check, samples).verdict == "PASS"
    hole = [s for s in samples if s.role == "reference" or s.item != "7"]
    result = decided(check, hole, plan(samples))
    assert (result.verdict == "PASS") == bound and result.missing == 1
    side = result.lower_with_gaps if "min" in check else result.upper_with_gaps
    assert (side is not None) == bound
    if not bound:
        assert "beyond all bounds" in result.reason


def test_a_gap_above_the_noise_floor_may_lie_in_either_answer() -> None:
    check = {"metric": "flip_rate", "on": "divergence", "max_over_noise": 0.1}
    rows = spread(0.01, 0.01, 300)
    samples = documents(rows, [5.0] * 300) + documents(rows, [4.0] * 300, role="noise")
    whole = decided(check, samples)
    assert whole.verdict == "PASS" and whole.upper is not None
    hole = [s for s in samples if s.role != "noise" or s.item != "7"]  # asked by no plan: not compared, and no gap
    assert decided(check, hole).upper_with_gaps is None
    spoilt = changed(samples, lambda s: s.role == "noise" and s.item == "7", metrics={})
    result = decided(check, spoilt)
    assert result.errored == 1 and result.upper_with_gaps is not None and result.upper_with_gaps > whole.upper
    assert result.lower_with_gaps is not None and whole.lower is not None and result.lower_with_gaps < whole.lower


@pytest.mark.slow
def test_sequential_checks_read_gaps_as_they_go() -> None:
    """The verdict with gaps is never better than that with the worst filled in, nor worse than with the best."""
    check = ACCURACY | {"max_loss": 0.1, "stop": "sequential"}
    rank = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}
    for seed in range(12):
        rng = random.Random(seed)
        loss = rng.choice([0.0, 0.05, 0.3])
        samples = pairs([(1.0, float(rng.random() >= loss)) for _ in range(150)])
        holes = {str(i) for i in rng.sample(range(150), 3)}
        gone = changed(samples, lambda s, h=holes: s.item in h and s.role == "candidate", score=None, error="x: y")  # type: ignore[misc]
        found = decided(check, gone, **LAX)
        worst, best = (
            decided(check, changed(samples, lambda s, h=holes: s.item in h and s.role == "candidate", score=v))  # type: ignore[misc]
            for v in (0.0, 1.0)
        )
        assert rank[worst.verdict] <= rank[found.verdict] <= rank[best.verdict]
        if found.verdict == "PASS":
            assert worst.verdict == "PASS" and found.n + found.errored == worst.n


def test_every_difference_can_be_filled() -> None:
    for name, metric in METRICS.items():
        if isinstance(metric, Difference):
            for value in (0.0, 1.0):
                assert metric.value(sample(1, "candidate", **metric.value.fields(value))) == value, name


def test_an_item_without_an_answer_is_still_drawn_with_its_passage() -> None:
    check = ACCURACY | {"max_loss": 0.05}
    samples = [s.model_copy(update={"cluster": str(int(s.item) // 4)}) for s in pairs(counts(both=396, lost=4))]
    some = [s for s in samples if s.role == "candidate" or s.item not in ("397", "398", "399")]
    there, lacking = decided(check, samples), decided(check, some, plan(samples))
    assert lacking.missing == 3 and lacking.upper_with_gaps == pytest.approx(there.upper, abs=0.001)
    silent = [s.model_copy(update={"cluster": None}) if s.role == "reference" else s for s in samples]
    assert decided(check, silent) == there
