"""What keeps a check from passing on weak figures: floors, ceilings, and pairs that cannot be used."""

from typing import Any

import pytest
from check_cases import ACCURACY, KL, TRUNCATED, answered, truncated
from verdict_samples import changed, counts, decided, documents, items, pairs, sample, spread

from harness.contract.samples import ROLES, Sample
from harness.judging.statistics import proportion_interval

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


@pytest.mark.slow
def test_a_ceiling_holds_whatever_the_reference_does() -> None:
    check = TRUNCATED | {"ceiling": 0.02}
    for count in (0, 10, 17, 23, 27, 60):
        bounds = proportion_interval(count, 1000)
        expected = "FAIL" if bounds.lower > 0.02 else "INCONCLUSIVE" if bounds.upper > 0.02 else "PASS"
        result = decided(check, truncated(count, 1000))
        assert result.verdict == expected and (expected == "PASS" or "ceiling" in result.reason)
        assert (result.items_needed is None) == (expected != "INCONCLUSIVE")
    few = decided(check, truncated(0, 20))
    assert (few.verdict, few.items_needed) == ("INCONCLUSIVE", 149) and "about 149 items" in few.reason
    assert decided(check, truncated(0, 149)).verdict == "PASS" != decided(check, truncated(0, 148)).verdict
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


def test_a_bound_above_the_margin_that_does_not_fail_beside_a_ceiling_says_why() -> None:
    samples = answered("truncated_rate", fine=289, worse=11, better=0)
    alone, result = decided(TRUNCATED, samples), decided(TRUNCATED | {"ceiling": 0.9}, samples)
    assert (alone.verdict, result.verdict) == ("FAIL", "INCONCLUSIVE")  # p lies between 0.025 and 0.05
    assert (
        alone.lower == result.lower and "is above the margin of 2.0 points, but its p value, doubled" in result.reason
    )


def test_a_failure_by_its_ceiling_asks_for_no_more_items() -> None:
    result = decided(TRUNCATED | {"ceiling": 0.02, "max_increase": 0.001}, truncated(60, 1000))
    assert (result.verdict, result.items_needed) == ("FAIL", None)


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


# -- one unit ------------------------------------------------------------------------------------------------


def of_two_tasks(reference: tuple[float, float], candidate: tuple[float, float]) -> list[Sample]:
    """40 items of gsm8k asked once, and 10 of aime24 asked eight times: values by task, equal over items."""
    found = []
    for role, values in zip(ROLES, (reference, candidate), strict=True):
        for task, value, n, repeats in (("gsm8k", values[0], 40, 1), ("aime24", values[1], 10, 8)):
            for item in range(n):
                right = float(item < round(value * n))
                found += [sample(item, role, right, on=f"cot/{task}", repeat=repeat) for repeat in range(repeats)]
    return found


@pytest.mark.parametrize(
    ("over", "reference", "candidate"), [("items", 0.8 * 0.3 + 0.2 * 0.5, 0.8 * 0.2 + 0.2 * 0.6), ("tasks", 0.4, 0.4)]
)
def test_means_of_both_roles_have_the_unit_of_the_estimate(over: str, reference: float, candidate: float) -> None:
    result = decided(ACCURACY | {"on": "cot", "mean": over}, of_two_tasks((0.3, 0.5), (0.2, 0.6)))
    assert result.reference_value == pytest.approx(reference) and result.candidate_value == pytest.approx(candidate)
    assert result.estimate == pytest.approx(reference - candidate)


def test_a_floor_is_on_items_and_not_on_answers() -> None:
    # A third of the answers is right, and a tenth of the items: 80 of 120 answers are to ten items.
    samples = of_two_tasks((0.0, 0.5), (0.0, 0.5))
    result = decided(ACCURACY | {"on": "cot", "max_loss": 0.5, "floor": 0.2}, samples)
    assert result.verdict == "INCONCLUSIVE" and "the reference scores 10.0%, below the floor" in result.reason
    assert decided(ACCURACY | {"on": "cot", "max_loss": 0.5, "floor": 0.1}, samples).verdict == "PASS"
