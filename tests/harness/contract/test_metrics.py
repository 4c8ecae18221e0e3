"""What each metric reads from samples, and what it refuses to read."""

from typing import Any

import pytest
from verdict_samples import sample

from harness.contract.metrics import METRICS, Difference, Ratio
from harness.contract.pairs import Pair

DIFFERENCES = sorted(name for name, metric in METRICS.items() if isinstance(metric, Difference))
RATES = {
    "unterminated_rate": "unterminated",
    "looped_rate": "looped",
    "wrong_language_rate": "wrong_language",
    "uncommitted_rate": "uncommitted",
    "wrong_reasoning_language_rate": "wrong_reasoning_language",
    "garbled_rate": "garbled",
    "unsubmitted_rate": "unsubmitted",
    "format_error_rate": "format_error_rate",
}


def value(metric: str, **fields: Any) -> float | None:
    found = METRICS[metric]
    assert isinstance(found, Difference)
    return found.value(sample(1, "candidate", **fields))


def part(metric: str, reference: dict[str, Any], candidate: dict[str, Any]) -> tuple[float, float, float] | None:
    """The part of a pair whose samples have these metrics (or, under "tokens", this number of answer tokens)."""
    found = METRICS[metric]
    assert isinstance(found, Ratio)
    both = []
    for role, given in (("reference", reference), ("candidate", candidate)):
        metrics = {name: v for name, v in given.items() if name != "tokens"}
        both.append(sample(1, role, metrics=metrics, completion_tokens=given.get("tokens")))
    return found.part(Pair(*both))


@pytest.mark.parametrize("metric", ["accuracy", "resolved"])
def test_accuracy_is_the_score(metric: str) -> None:
    assert [value(metric, score=score) for score in (0.0, 0.25, 1.0, None)] == [0.0, 0.25, 1.0, None]


def test_truncated_is_an_answer_cut_by_its_budget() -> None:
    found = [value("truncated_rate", finish_reason=r) for r in ("length", "stop", "tool_calls", "repetition", None)]
    assert found == [1.0, 0.0, 0.0, 0.0, None]  # not known is neither


@pytest.mark.parametrize(("metric", "name"), sorted(RATES.items()))
def test_a_stored_rate_is_read_where_it_is_a_share(metric: str, name: str) -> None:
    assert [value(metric, metrics={name: v}) for v in (0.0, 1.0, 0.5)] == [0.0, 1.0, 0.5]
    for stored in ({}, {name: 1.5}, {name: -0.1}, {"other": 1.0}):
        assert value(metric, metrics=stored) is None


def test_every_difference_knows_which_direction_is_worse() -> None:
    for metric in DIFFERENCES:
        found = METRICS[metric]
        assert isinstance(found, Difference) and found.margins[0] == found.margin
        better_if_higher = metric in ("accuracy", "resolved", "end_of_thinking")
        assert (found.margin, found.guard) == (
            ("max_loss", "floor") if better_if_higher else ("max_increase", "ceiling")
        )
    assert sorted(DIFFERENCES) == sorted(["accuracy", "resolved", "end_of_thinking", "truncated_rate", *RATES])


def test_kl_is_bounded_by_two_sums_over_positions() -> None:
    sums = {"kl_lower_sum": 1.0, "kl_upper_sum": 3.0, "positions": 50.0}
    assert part("kl_mean", {}, sums) == (1.0, 3.0, 50.0)
    for lacking in sums:
        assert part("kl_mean", sums, {k: v for k, v in sums.items() if k != lacking}) is None
    assert part("kl_mean", sums, sums | {"positions": 0.0}) is None


def test_flips_are_counted_exactly() -> None:
    assert part("flip_rate", {}, {"flips": 4.0, "positions": 50.0}) == (4.0, 4.0, 50.0)
    assert part("flip_rate", {}, {"positions": 50.0}) is None


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("length_ratio", "tokens"),
        ("steps_ratio", "steps"),
        ("bytes_ratio", "bytes"),
        ("speed_ratio", "tokens_per_second"),
    ],
)
def test_ratios_are_of_the_candidate_to_the_reference(metric: str, name: str) -> None:
    assert part(metric, {name: 200}, {name: 50}) == (50, 50, 200)
    assert part(metric, {name: 200}, {name: 0}) == (0, 0, 200)
    for reference, candidate in (({name: 0}, {name: 50}), ({}, {name: 50}), ({name: 200}, {})):
        assert part(metric, reference, candidate) is None
    if name != "tokens":
        assert part(metric, {name: -1.0}, {name: 50.0}) is part(metric, {name: 50.0}, {name: -1.0}) is None


def test_acceptance_is_the_loss_of_the_accepted_share() -> None:
    # 80 of 100 drafted tokens accepted against 45 of 90: a loss of 0.3, weighted by the 90 that the fewer are.
    def found(reference: tuple[float, float], candidate: tuple[float, float]) -> tuple[float, float, float] | None:
        both = [{"draft_tokens": drafted, "accepted_tokens": accepted} for accepted, drafted in (reference, candidate)]
        return part("acceptance", *both)

    assert found((80, 100), (45, 90)) == pytest.approx((27.0, 27.0, 90.0))
    assert found((45, 90), (80, 100)) == pytest.approx((-27.0, -27.0, 90.0))
    assert found((0, 100), (100, 100)) == pytest.approx((-100.0, -100.0, 100.0))
    for impossible in ((101, 100), (-1, 100), (0, 0)):
        assert found(impossible, (45, 90)) is found((45, 90), impossible) is None
    assert part("acceptance", {"draft_tokens": 9.0}, {"draft_tokens": 9.0, "accepted_tokens": 1.0}) is None


def test_accepted_length_is_of_the_candidates_drafts_alone() -> None:
    # 40 drafts of 3 tokens each, 60 of the 120 accepted: a step gives 1 + 60 / 40 tokens.
    found = {"drafts": 40.0, "draft_tokens": 120.0, "accepted_tokens": 60.0}
    assert part("accepted_length", {}, found) == (100.0, 100.0, 40.0)
    assert part("accepted_length", {}, found | {"accepted_tokens": 0.0}) == (40.0, 40.0, 40.0)
    for impossible in ({"drafts": 0.0}, {"accepted_tokens": -1.0}, {"accepted_tokens": 121.0}):
        assert part("accepted_length", found, found | impossible) is None
    assert part("accepted_length", found, {"drafts": 0.0, "draft_tokens": 0.0}) is None  # nothing is drafted
