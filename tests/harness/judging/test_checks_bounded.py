"""Bounded divergences: every document counts alike, what is impossible is an error, and nothing passes by absence."""

import pytest
from verdict_samples import changed, decided, measured, noise, plan, sample

from harness.contract.metrics import METRICS, BoundedMean
from harness.contract.samples import ROLES, Sample
from harness.judging.bounded_means import bounded_mean_interval

TV = {"metric": "tv_mean", "on": "divergence", "max": 0.1}


def tv(rows: list[tuple[float, float, float]], role: str = "candidate") -> list[Sample]:
    """Documents with (lower, upper, positions); those of the noise role come alone."""
    made: list[tuple[dict[str, float], dict[str, float]]] = [
        ({}, {"tv_lower_sum": a * n, "tv_upper_sum": b * n, "positions": n}) for a, b, n in rows
    ]
    both = measured(made, roles=("reference", role))  # type: ignore[arg-type]
    return both if role == "candidate" else [s for s in both if s.role == role]


def test_long_documents_count_no_more_than_short_ones() -> None:
    rows = [(0.02, 0.03, 10.0), (0.2, 0.3, 5000.0)] * 30
    found = decided(TV, tv(rows))
    upper, lower = (bounded_mean_interval([row[end] for row in rows], 0, 1) for end in (1, 0))
    assert (found.estimate, found.upper, found.lower) == pytest.approx((upper.estimate, upper.upper, lower.lower))
    assert found.estimate == pytest.approx(0.165) and found.method == "betting bound over documents"


def test_a_bound_is_there_with_a_single_document() -> None:
    found = decided(TV, tv([(0.0, 0.0, 100.0)]))
    assert (found.verdict, found.lower) == ("INCONCLUSIVE", 0.0) and found.upper is not None and found.upper > 0.9
    assert found.items_needed is not None and 30 < found.items_needed < 50  # none of them worse: ln(40) / -ln(0.9)
    assert found.power == 0


def test_power_is_that_of_a_candidate_without_any_difference() -> None:
    assert decided(TV, tv([(0.05, 0.06, 100.0)] * 34)).power == 0
    assert decided(TV, tv([(0.05, 0.06, 100.0)] * 45)).power == 1


@pytest.mark.parametrize("row", [(0.5, 0.4, 10.0), (-0.1, 0.1, 10.0), (0.1, 1.1, 10.0), (0.1, 0.1, 0.0)])
def test_what_cannot_be_is_an_error(row: tuple[float, float, float]) -> None:
    rows = [(0.01, 0.02, 100.0)] * 99
    found = decided(TV, tv([*rows, row]), max_unusable=0.001)
    assert (found.n, found.errored, found.verdict) == (99, 1, "INCONCLUSIVE")


def test_the_cap_is_where_gaps_are_looked_up() -> None:
    caps = {name: metric.high for name, metric in METRICS.items() if isinstance(metric, BoundedMean)}
    assert caps == pytest.approx({"tv_mean": 1.0, "js_mean": 0.6931472, "kl_capped_mean": 1.0})


@pytest.mark.parametrize(("extra", "verdict"), [(0.0, "PASS"), (0.09, "INCONCLUSIVE"), (0.3, "FAIL")])
def test_above_the_noise_floor_by_the_same_bound_on_differences(extra: float, verdict: str) -> None:
    floor = [(0.02, 0.02, 100.0 + i % 7) for i in range(150)]
    rows = [(a + extra, b + extra, n) for a, b, n in floor]
    check = {"metric": "tv_mean", "on": "divergence", "max_over_noise": 0.1}
    found = decided(check, tv(rows) + tv(floor, "noise"))
    assert found.verdict == verdict and found.estimate == pytest.approx(extra)
    bounds = bounded_mean_interval([extra] * 150, -1, 1)
    assert (found.lower, found.upper) == pytest.approx((bounds.lower, bounds.upper), abs=1e-6)
    assert decided(check, tv(rows)).verdict == "INCONCLUSIVE"  # no noise floor


# -- the end of thinking -----------------------------------------------------------------------------------------

END = {"metric": "end_of_thinking", "on": "divergence", "max_loss": 0.05}


def ends(rows: list[tuple[float, float] | None]) -> list[Sample]:
    """Documents with the closing tag's probability by (reference, candidate); None: the thinking was not closed."""
    made = []
    for i, row in enumerate(rows):
        for role, value in zip(ROLES, row or (None, None), strict=True):
            known = {"thinking_closed": 0.0} if value is None else {"thinking_closed": 1.0, "end_of_thinking": value}
            made.append(sample(i, role, on="divergence/chat-en", finish_reason=None, metrics=known))
    return made


def test_documents_that_closed_no_thinking_are_not_spoken_of() -> None:
    closed: list[tuple[float, float] | None] = [(0.9, 0.89)] * 150
    some, all_of_them = decided(END, ends(closed + [None] * 100)), decided(END, ends(closed))
    assert (some.verdict, some.n, some.errored, some.missing) == ("PASS", 150, 0, 0)
    assert some.model_copy(update={"planned": 150}) == all_of_them
    assert some.estimate == pytest.approx(0.01)
    assert (some.reference_value, some.candidate_value) == pytest.approx((0.9, 0.89))


def test_a_candidate_that_would_think_on_fails() -> None:
    assert decided(END, ends([(0.9, 0.5)] * 60)).verdict == "FAIL"


def test_a_model_that_does_not_think_is_never_passed() -> None:
    found = decided(END, ends([None] * 300))
    assert (found.verdict, found.n) == ("INCONCLUSIVE", 0)
    assert found.reason == "not applicable: the reference closed no thinking in any answer"


def test_what_an_older_run_did_not_measure_is_missing_and_not_left_out() -> None:
    old = [s.model_copy(update={"metrics": {}}) for s in ends([(0.9, 0.9)] * 40)]
    found = decided(END, old)
    assert (found.verdict, found.errored, found.reason) == ("INCONCLUSIVE", 40, "zero usable pairs")
    one_side = [s if s.role == "reference" else s.model_copy(update={"metrics": {}}) for s in ends([(0.9, 0.9)] * 40)]
    assert decided(END, one_side).errored == 40


def test_the_noise_floor_of_it_too() -> None:
    again = [
        s.model_copy(update={"metrics": {"thinking_closed": 1.0, "end_of_thinking": 0.88}})
        for s in noise([0.0] * 20, on="divergence/chat-en")
    ]
    found = decided(END, ends([(0.9, 0.89)] * 150) + again)
    assert found.noise is not None and found.noise.estimate == pytest.approx(0.02)


# -- gaps --------------------------------------------------------------------------------------------------------


def test_a_missing_document_is_as_bad_as_the_cap_before_a_pass_and_as_good_as_none_before_a_fail() -> None:
    rows = [(0.02, 0.02, 100.0)] * 199
    samples = tv(rows)
    whole = plan(tv([*rows, rows[0]]))
    found = decided(TV, samples, whole)
    worst = bounded_mean_interval([0.02] * 199 + [1.0], 0, 1).upper
    assert (found.missing, found.verdict) == (1, "PASS") and found.upper_with_gaps == pytest.approx(worst)
    assert decided(TV | {"max": 0.5 * (worst + (found.upper or 0.0))}, samples, whole).verdict == "INCONCLUSIVE"


def test_a_document_that_closed_no_thinking_is_no_gap_when_the_candidate_failed_on_it() -> None:
    samples = ends([(0.9, 0.89)] * 150 + [None] * 50)
    broken = changed(samples, lambda s: s.role == "candidate" and int(s.item) >= 150, error="timeout")
    found = decided(END, broken)
    assert (found.verdict, found.n, found.errored) == ("PASS", 150, 0)
    lost = changed(samples, lambda s: s.role == "candidate" and int(s.item) < 10, error="timeout")
    assert decided(END, lost).errored == 10
