"""Required tasks and relative losses, in the policies of runs and of comparisons alike."""

from typing import Any

import pytest
from verdict_cases import ACCURACY, GOOD, run
from verdict_samples import counts, pairs, plan, policy

from harness.contract.errors import BadInput
from harness.contract.policy import parse_policy
from harness.contract.samples import Sample
from harness.contract.weakened import weakened
from harness.judging.results import CheckResult
from harness.judging.run_level import blocking_statements

RELATIVE = {"metric": "accuracy", "on": "cot/*", "max_relative_loss": 0.05}
TASK = f"{GOOD[0].suite}/{GOOD[0].task}"


@pytest.mark.parametrize(
    ("required", "says"),
    [
        ([TASK], None),
        (["cot/*"], None),
        (["cot"], None),
        (["cot/aime"], "required cot/aime: nothing was answered by both sides"),
        (["ruler"], "required ruler: nothing was answered by both sides"),
        ([TASK, "swebench/*"], "required swebench/*: nothing was answered by both sides"),
    ],
)
def test_without_a_required_task_nothing_passes(required: list[str], says: str | None) -> None:
    verdict = run(GOOD, required=required)
    assert (verdict.verdict, verdict.reason) == (
        ("PASS", "all 1 checks hold") if says is None else ("INCONCLUSIVE", says)
    )


def test_a_required_task_that_was_planned_and_never_answered_is_missing() -> None:
    planned = plan(GOOD) | {("cot", "aime", str(i), 0): None for i in range(3)}
    verdict = run(GOOD, {**ACCURACY, "on": TASK}, planned=planned, required=["cot/aime"])
    assert verdict.verdict == "INCONCLUSIVE" and "required cot/aime: nothing was answered" in verdict.reason


def test_a_required_task_needs_a_check_that_blocks() -> None:
    advisory = {**ACCURACY, "advisory": True}
    kl = {"metric": "accuracy", "on": "cot/other", "max_loss": 0.01}
    verdict = run(GOOD, advisory, kl, required=[TASK])
    assert f"required {TASK}: no check that blocks speaks of {TASK}" in verdict.reason


def only(samples: list[Sample], check: dict[str, Any]) -> CheckResult:
    (result,) = run(samples, check).checks
    return result


@pytest.mark.parametrize(
    ("both", "lost", "won", "neither", "verdict"),
    [
        (380, 20, 0, 3600, "INCONCLUSIVE"),
        (3960, 40, 0, 0, "PASS"),
        (360, 40, 0, 3600, "FAIL"),
        (360, 40, 40, 3600, "PASS"),
    ],
)
def test_a_relative_loss_is_a_share_of_what_the_reference_scores(
    both: int, lost: int, won: int, neither: int, verdict: str
) -> None:
    samples = pairs(counts(both=both, lost=lost, won=won, neither=neither))
    result = only(samples, {**RELATIVE, "max_relative_loss": 0.1 if won else 0.05})
    assert result.estimate == pytest.approx((lost - won) / (both + lost))
    assert (result.verdict, result.unit, result.margin_kind) == (verdict, "share", "max_relative_loss")
    assert result.name.startswith("relative loss of accuracy on ") and result.name.endswith(" %")


def test_both_margins_of_a_check_are_statements_of_their_own() -> None:
    samples = pairs(counts(both=360, lost=40, neither=3600))
    verdict = run(samples, {**ACCURACY, "max_loss": 0.02, "max_relative_loss": 0.05})
    assert [(c.margin_kind, c.verdict) for c in verdict.checks] == [("max_loss", "PASS"), ("max_relative_loss", "FAIL")]
    assert verdict.verdict == "FAIL"
    assert blocking_statements(policy({**ACCURACY, "max_relative_loss": 0.05}), [TASK]) == 2


def test_a_reference_that_scores_nothing_has_no_relative_loss() -> None:
    result = only(pairs(counts(neither=400)), RELATIVE)
    assert result.verdict == "INCONCLUSIVE" and "cannot show damage" in result.reason


def test_items_of_a_cluster_are_drawn_together() -> None:
    samples = pairs(counts(both=380, lost=20))
    alone = only(samples, {**ACCURACY, "max_loss": 0.08})
    order = {item: place for place, item in enumerate(sorted({s.item for s in samples}))}
    lost = {s.item for s in samples if s.role == "candidate" and s.score == 0}
    cluster = {item: f"lost{place % 2}" if item in lost else f"p{place % 38}" for item, place in order.items()}
    together = only(
        [s.model_copy(update={"cluster": cluster[s.item]}) for s in samples], {**ACCURACY, "max_loss": 0.08}
    )
    assert (alone.verdict, together.verdict, together.n) == ("PASS", "INCONCLUSIVE", 400)
    assert together.estimate == alone.estimate and "40 groups of items that share a passage" in together.method
    own = [s.model_copy(update={"cluster": s.item}) for s in samples]
    assert only(own, {**ACCURACY, "max_loss": 0.08}) == alone


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ({"required": ["cot/a"]}, {}, "cot/a: no longer required"),
        ({}, {"required": ["cot/a"]}, None),
    ],
)
def test_what_is_no_longer_required_is_weaker(before: dict[str, Any], after: dict[str, Any], line: str | None) -> None:
    assert weakened(policy(ACCURACY, **before), policy(ACCURACY, **after)) == ([line] if line else [])


def test_a_relative_margin_that_is_dropped_or_wider_is_weaker() -> None:
    both = {**ACCURACY, "max_relative_loss": 0.05}
    lost = ["accuracy on cot/*: no longer checked with max_relative_loss"]
    assert weakened(policy(both), policy(ACCURACY)) == lost
    assert weakened(policy(both), policy(ACCURACY, RELATIVE)) == []
    wider = {**both, "max_relative_loss": 0.1}
    assert weakened(policy(both), policy(wider)) == ["accuracy on cot/*: max_relative_loss 0.05 -> 0.1"]


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("{metric: accuracy, on: cot/*, max_relative_loss: 5}", "500 points, which lets everything pass"),
        ("{metric: accuracy, on: cot/*, max_relative_loss: 0.05, stop: sequential}", "leave out stop: sequential"),
        (
            "{metric: looped_rate, on: cot/*, max_increase: 0.01, max_relative_loss: 0.05}",
            "is judged with max_increase, found",
        ),
        ("{metric: kl_mean, on: divergence, max_relative_loss: 0.05}", "is judged with"),
    ],
)
def test_a_relative_margin_that_does_not_fit_is_refused(check: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_policy(f"name: x\nsuites: {{cot: {{}}}}\nchecks:\n  - {check}\n")
