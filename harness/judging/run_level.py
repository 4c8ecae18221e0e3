"""The run's verdict from those of its checks, with error rates of the run's own.

FAIL takes a check that still fails when all blocking checks are tested together (Holm), so that a run whose checks all
hold fails with a chance of 1 - confidence at most, however many they are. PASS takes every blocking check; that needs
no correction, since a run with one broken check passes no more often than that check does (Berger, Technometrics 24
(1982) 295-300: intersection-union tests).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from harness.contract.check import Check
from harness.contract.policy import Policy
from harness.judging.results import CheckResult, Outcome
from harness.judging.statistics import holm


def targets_of(check: Check, tasks: Iterable[str]) -> dict[str, list[str]]:
    """The statements a check makes ("suite" pooled, or each matching "suite/task") and the tasks each speaks of."""
    if "/" in check.on:
        return {task: [task] for task in tasks if fnmatch.fnmatchcase(task, check.on)}
    pooled = [task for task in tasks if task.split("/", 1)[0] == check.on]
    return {check.on: pooled} if pooled else {}


def blocking_statements(policy: Policy, tasks: Iterable[str]) -> int:
    """How many statements ("suite/task" names of all tasks of the run) may fail the run; never less than 1."""
    listed = list(tasks)
    blocking = [statement for check in policy.checks if not check.advisory for statement in check.statements]
    return max(1, sum(max(1, len(targets_of(check, listed))) for check in blocking))


def lacking(policy: Policy, asked: Iterable[str]) -> list[str]:
    """One line for each required task that is not among those with pairs ("suite/task"), or that no check blocks on."""
    tasks, found = list(asked), []
    for name in policy.required:
        there = [task for task in tasks if fnmatch.fnmatchcase(task if "/" in name else task.split("/", 1)[0], name)]
        if not there:
            found.append(f"required {name}: nothing was answered by both sides")
            continue
        judged = {
            t for check in policy.checks if not check.advisory for of in targets_of(check, tasks).values() for t in of
        }
        if unjudged := [task for task in there if task not in judged]:
            found.append(f"required {name}: no check that blocks speaks of {', '.join(unjudged[:3])}")
    return found


def with_holm(results: Sequence[CheckResult], alpha: float) -> list[CheckResult]:
    """Results with `after_holm` set where a blocking check fails: Holm at `alpha` over all blocking checks."""
    p_values = [1.0 if r.p_fail is None else r.p_fail for r in results if not r.advisory]
    stands = iter(holm(p_values, alpha))
    named = []
    for result in results:
        after = None if result.advisory else next(stands)
        named.append(result.model_copy(update={"after_holm": after}) if result.verdict == "FAIL" else result)
    return named


def run_outcome(results: Sequence[CheckResult], doubts: Sequence[str] = ()) -> tuple[Outcome, str]:
    """The run's verdict and why. `results` come from `with_holm`; with `doubts` nothing passes."""
    blocking = [r for r in results if not r.advisory]
    failed = [r for r in blocking if r.verdict == "FAIL" and r.after_holm]
    alone = [r for r in blocking if r.verdict == "FAIL" and not r.after_holm]
    undecided = [r for r in blocking if r.verdict == "INCONCLUSIVE"]
    reasons = [*doubts, *(f"{r.name}: {r.reason}" for r in failed)]
    reasons += [f"{r.name}: {r.reason}; {fails_alone(r, len(blocking))}" for r in alone]
    if failed:
        return "FAIL", "; ".join(reasons)
    reasons += [f"{r.name}: {r.reason}" for r in undecided]
    if reasons:
        return "INCONCLUSIVE", "; ".join(reasons)
    loose = [f"{r.metric} on {r.on}" for r in blocking if r.approximate]
    beside = f" (by approximate bounds, which no error rate covers: {', '.join(loose)})" if loose else ""
    return "PASS", f"all {len(blocking)} checks hold{beside}"


def fails_alone(result: CheckResult, blocking: int) -> str:
    """What is said of a check that fails by itself and not after the correction."""
    p = "no p value" if result.p_fail is None else f"p {result.p_fail:.2g}"
    checks = f"{blocking:,} check{'' if blocking == 1 else 's'}"
    return f"fails by itself, which may be chance among {checks} ({p}; Holm's correction): INCONCLUSIVE"
