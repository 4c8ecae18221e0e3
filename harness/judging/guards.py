"""What else a check asks for: a floor of the reference, a ceiling of the candidate, no broken task in a pool."""

from __future__ import annotations

import math

from harness.contract.check import Check
from harness.contract.metrics import METRICS, Difference
from harness.contract.pairs import Pairing
from harness.judging.estimates import Context, sequence_interval, share, share_p_value
from harness.judging.margins import (
    Measured,
    alpha_of,
    blank,
    items_without_a_case,
    judged,
    measured_with_gaps,
    more_items,
    sensible,
)
from harness.judging.results import CheckResult, TaskResult
from harness.judging.sequential import sequence_keeps, sequence_p_value
from harness.judging.statistics import holm, items_to_decide, standard_error


def guarded(check: Check, result: CheckResult, measured: Measured) -> CheckResult:
    """Floor and ceiling: a reference that cannot show damage, a candidate that is bad whatever the reference is."""
    usable, worst, best, _ = measured
    if check.ceiling is not None and usable.alone and worst and worst.alone and best and best.alone:
        interval_of, p_of = (sequence_interval, sequence_p_value) if check.stop else (share, share_p_value)
        above = interval_of(worst.alone, result.confidence)
        kept = above.upper <= check.ceiling
        if check.stop:  # the bounds say the same, but for the last digit
            kept = sequence_keeps(worst.alone, check.ceiling, result.confidence)
        p_fail = min(1.0, 2 * p_of(best.alone, check.ceiling))  # the margin is the other way to fail
        if not kept and p_fail <= alpha_of(result):
            seen = math.fsum(usable.alone) / len(usable.alone)
            reason = f"{seen:.1%} of the candidate's answers, above the ceiling of {check.ceiling:.1%}"
            p_fail = p_fail if result.p_fail is None else min(p_fail, result.p_fail)
            update = {"verdict": "FAIL", "reason": reason, "p_fail": p_fail, "items_needed": None}
            return result.model_copy(update=update)
        if not kept and result.verdict == "PASS":
            error = standard_error(above, result.confidence)
            needed = items_to_decide(usable.n, error, abs(check.ceiling - above.estimate), result.confidence)
            if not any(worst.alone):
                needed = items_without_a_case(check, check.ceiling, result.confidence)
            more, needed = more_items(needed), sensible(needed)
            reason = f"the candidate may lie above the ceiling of {check.ceiling:.1%} (bound {above.upper:.1%}); {more}"
            return result.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": needed})
    lowest = min((found.reference or 0.0 for found in (usable, worst, best) if found), default=0.0)
    metric, reference, floor = METRICS[check.metric], lowest, check.floor or 0.0
    has_floor = isinstance(metric, Difference) and metric.guard == "floor"
    if has_floor and (reference < floor or reference == 0) and result.verdict != "FAIL":
        below = f", below the floor of {floor:.1%}" if floor else ""
        reason = f"the reference scores {reference:.1%}{below}: cannot show damage"
        return result.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": None})
    return result


def beside_its_tasks(check: Check, on: str, result: CheckResult, pairing: Pairing, context: Context) -> CheckResult:
    """The tasks of a pooled check by themselves, and what a guarded one says of them."""
    names = sorted({key[1] for key in pairing.pairs})
    if "/" in on or len(names) < 2:
        return result
    one_task = check.model_copy(update={"mean": "items", "ceiling": None, "floor": None})
    tasks = []
    for name in names:
        part = pairing.part(lambda key, name=name: key[1] == name)  # type: ignore[misc]
        measured = measured_with_gaps(one_task, part, context)
        found = judged(one_task, blank(one_task, f"{on}/{name}", part, context.confidence), measured)
        fields = {key: value for key, value in found.model_dump().items() if key in TaskResult.model_fields}
        p_fail = measured.best.p_fail(check.margin) if measured.best else 1.0
        said = {"task": name, "p_fail": p_fail, "after_holm": False}
        tasks.append(TaskResult(**fields | said))
    stands = holm([task.p_fail for task in tasks], 1 - context.confidence)
    tasks = [task.model_copy(update={"after_holm": kept}) for task, kept in zip(tasks, stands, strict=True)]
    result = result.model_copy(update={"tasks": tasks})
    broken = [task.task for task in tasks if task.after_holm]
    if check.guard_tasks and broken and result.verdict == "PASS":
        more = f"by more than chance among {len(tasks):,} tasks explains (Holm's correction)"
        reason = f"{result.reason}, but by itself {' and '.join(broken)} breaks it, {more}"
        return result.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": None})
    return result
