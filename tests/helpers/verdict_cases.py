"""A policy's checks, good and bad samples and how to judge them, for the tests of the verdict."""

from collections.abc import Sequence
from typing import Any

from verdict_samples import Plan, counts, pairs, plan, policy

from harness.contract.samples import Sample
from harness.judging.results import CheckResult
from harness.judging.verdict import Verdict, judge

ACCURACY = {"metric": "accuracy", "on": "cot/*", "max_loss": 0.01}
KL = {"metric": "kl_mean", "on": "divergence", "max": 0.05}
GOOD = pairs(counts(both=400))
BAD = pairs(counts(both=300, lost=100))


def run(samples: Sequence[Sample], *checks: dict[str, Any], planned: Plan | None = None, **fields: Any) -> Verdict:
    """Judged by these checks; without a plan the reference's samples are taken to be all that was planned."""
    planned = plan(samples) if planned is None else planned
    return judge(policy(*(checks or (ACCURACY,)), **fields), samples, planned, "sealed")


def one(samples: Sequence[Sample], *checks: dict[str, Any], **more: Any) -> CheckResult:
    """The only check of a verdict, which is then the whole verdict."""
    verdict = run(samples, *checks, **more)
    (result,) = verdict.checks
    assert verdict.verdict == result.verdict
    return result
