"""Deciding one check: from pairs to an estimate with bounds, from bounds and margin to PASS, FAIL or INCONCLUSIVE."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

from harness.contract.metrics import METRICS, Difference, Unit
from harness.contract.pairs import Pairing
from harness.contract.policy import Check
from harness.judging.estimates import Context, Estimate, measure, sequence_interval, share, share_p_value
from harness.judging.gaps import filled
from harness.judging.power import sequential_power
from harness.judging.results import CheckResult, NoiseResult, TaskResult, finite, show
from harness.judging.sequential import items_without_loss, sequence_keeps, sequence_p_value
from harness.judging.statistics import (
    MIN_DOCUMENTS,
    Interval,
    holm,
    items_to_decide,
    power_at_equality,
    standard_error,
)
from harness.judging.usable_pairs import until_decided, usable_enough, with_values

MOST_ITEMS = 100_000
"""More items are not named as what would decide: no benchmark has them."""


class Measured(NamedTuple):
    """A check's statistic on the pairs that can be used, and with all others at their worst and at their best."""

    usable: Estimate
    worst: Estimate | None
    """PASS must hold here; None where a pair that cannot be used may be bad beyond all bounds."""
    best: Estimate | None
    """FAIL must hold here; likewise."""
    gaps: int


def decide(check: Check, on: str, pairing: Pairing, context: Context) -> CheckResult:
    """Decide one check on the pairs of its target."""
    planned = _items(pairing)
    pairing, decided = with_values(check, pairing, context.noise), None
    if check.stop:
        pairing, decided = until_decided(check, pairing, context)
    result = _blank(check, on, pairing, context.confidence).model_copy(update={"planned": planned})
    if not pairing.pairs:
        return result.model_copy(update={"reason": _without_pairs(check, pairing)})
    measured = _measured(check, pairing, context)
    result = _judged(check, result, measured, decided)
    result = result.model_copy(update={"power": _power(check, measured.usable, result)})
    result = _guarded(check, result, measured)
    result = _beside_its_tasks(check, on, result, pairing, context)
    result = result.model_copy(update={"noise": _noise(check, context)})
    most = context.policy.max_unusable
    if not usable_enough(pairing, most):
        reason = (
            f"{len(pairing.unusable)} of {pairing.total} pairs cannot be used ({result.missing} missing, "
            f"{result.errored} errored or without a value, "
            f"{result.unequal} unequal); allowed {most:.1%}"
        )
        update = {"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": None, "p_fail": None}
        return result.model_copy(update=update)
    return result


def _measured(check: Check, pairing: Pairing, context: Context) -> Measured:
    usable = measure(check, Pairing(pairing.pairs), context)
    if not pairing.unusable:
        return Measured(usable, usable, usable, 0)

    def extreme(worst: bool) -> Estimate | None:
        full, noise = filled(check, pairing, context.noise, context.policy, worst=worst)
        return None if full.unusable else measure(check, full, replace(context, noise=noise))

    return Measured(usable, extreme(True), extreme(False), len(pairing.unusable))


def _without_pairs(check: Check, pairing: Pairing) -> str:
    metric = METRICS[check.metric]
    without = metric.without if isinstance(metric, Difference) and not pairing.unusable else ""
    return without or "zero usable pairs"


def _items(pairing: Pairing) -> int:
    return len({key[:3] for key in (*pairing.pairs, *pairing.unusable)})


def _blank(check: Check, on: str, pairing: Pairing, confidence: float) -> CheckResult:
    unit = "share" if check.margin_kind == "max_relative_loss" else METRICS[check.metric].unit
    words = {"max_loss": ("loss of ", "at most"), "max_increase": ("increase of ", "at most"), "max": ("", "at most")}
    words |= {"max_relative_loss": ("relative loss of ", "at most"), "min": ("", "at least")}
    words |= {"max_over_noise": ("", "above the noise floor by at most")}
    before, limit = words[check.margin_kind]
    return CheckResult(
        name=f"{before}{check.metric} on {on} {limit} {show(unit, check.margin)}",
        metric=check.metric,
        on=on,
        verdict="INCONCLUSIVE",
        reason="",
        margin=check.margin,
        margin_kind=check.margin_kind,
        unit=unit,
        confidence=confidence,
        missing=pairing.count("missing"),
        errored=pairing.count("errored"),
        unequal=pairing.count("unequal"),
        foreign=pairing.foreign,
        stop=check.stop,
        advisory=check.advisory,
    )


def _judged(
    check: Check, result: CheckResult, measured: Measured, decided: Literal["PASS", "FAIL"] | None = None
) -> CheckResult:
    """PASS when the bound on the margin's side keeps it, FAIL when the other one does not, else INCONCLUSIVE.

    Gaps count against whom they help: PASS takes the bound with every gap at its worst, FAIL that with each at its
    best. `decided` is what a sequential check said, whose gaps were read so from the first item.
    """
    usable, worst, best, gaps = measured
    interval, margin, unit, least = usable.interval, check.margin, result.unit, check.margin_kind == "min"
    error = standard_error(interval, result.confidence)
    update: dict[str, object] = {
        "estimate": interval.estimate,
        "lower": finite(interval.lower),
        "upper": finite(interval.upper),
        "n": usable.n,
        "b": usable.b,
        "c": usable.c,
        "discordant": None if usable.b is None or usable.c is None else usable.b + usable.c,
        "method": usable.method,
        "approximate": usable.approximate,
        "reference_value": usable.reference,
        "candidate_value": usable.candidate,
    }
    low, high = (worst, best) if least else (best, worst)
    if gaps:
        update["lower_with_gaps"] = None if low is None else finite(low.interval.lower)
        update["upper_with_gaps"] = None if high is None else finite(high.interval.upper)
    keeps = _keeps(worst, margin, least=least)
    if check.stop:  # the bounds say the same, but for the last digit
        keeps = worst is not None and sequence_keeps(worst.losses, margin, result.confidence) and decided != "FAIL"
    ways = 1 if check.ceiling is None else 2  # to fail
    p_fail = 1.0 if best is None else min(1.0, ways * best.p_fail(margin))
    if keeps and worst:
        bound = _bound(interval, worst, lower=least, unit=unit, gaps=gaps)
        update |= {"verdict": "PASS", "reason": f"{bound} keeps the margin of {show(unit, margin)}"}
    elif p_fail <= alpha_of(result) and best:
        side = "below" if least else "above"
        bound = _bound(interval, best, lower=not least, unit=unit, gaps=gaps)
        reason = f"{bound} is {side} the margin of {show(unit, margin)}"
        update |= {"verdict": "FAIL", "p_fail": p_fail, "reason": reason}
    else:
        needed = items_to_decide(usable.n, error, abs(margin - interval.estimate), result.confidence)
        if not math.isfinite(error):
            needed = MIN_DOCUMENTS
        elif usable.needed:
            needed = usable.needed(margin)
        elif usable.b == usable.c == 0:
            needed = _without_a_case(check, margin, result.confidence, usable.stretch)
        if gaps and check.stop is None and _keeps(usable, margin, least=least):
            needed, reason = None, _by_gaps(interval, worst, result, gaps, lower=least)
        else:
            reason = _undecided(usable, result, needed)
        update |= {"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": _sensible(needed)}
    return result.model_copy(update=update)


def _keeps(measured: Estimate | None, margin: float, *, least: bool) -> bool:
    if measured is None:
        return False
    return measured.interval.lower >= margin if least else measured.interval.upper <= margin


def _bound(interval: Interval, extreme: Estimate, *, lower: bool, unit: Unit, gaps: int) -> str:
    """A bound in words, with what gaps make of it."""
    at = 1 if lower else 2
    said = f"{'lower' if lower else 'upper'} bound {show(unit, interval[at])}"
    return f"{said} ({show(unit, extreme.interval[at])} with {_gaps(gaps)})" if gaps else said


def _gaps(count: int) -> str:
    return "a pair that cannot be used" if count == 1 else f"{count:,} pairs that cannot be used"


def _by_gaps(interval: Interval, worst: Estimate | None, result: CheckResult, gaps: int, *, lower: bool) -> str:
    """What is said where a check passes but for its gaps."""
    at, unit = 1 if lower else 2, result.unit
    said = f"{'lower' if lower else 'upper'} bound {show(unit, interval[at])} keeps the margin"
    bad = "beyond all bounds" if worst is None else show(unit, worst.interval[at])
    return f"{said} of {show(unit, result.margin)}, but with {_gaps(gaps)} at their worst it is {bad}"


def alpha_of(result: CheckResult) -> float:
    """Level at which a check fails by itself."""
    return 1 - result.confidence + 1e-12  # 1 - 0.95 is a little less than 0.05


def _power(check: Check, measured: Estimate, result: CheckResult) -> float | None:
    """Chance of a PASS for a candidate as good as its reference; of a sequential check within all planned items."""
    metric, error = METRICS[check.metric], standard_error(measured.interval, result.confidence)
    if measured.power:
        return round(measured.power(check.margin), 4)
    if check.stop:
        return round(sequential_power(measured.losses, check.margin, result.planned, result.confidence), 4)
    equal = 0.0 if isinstance(metric, Difference) or check.margin_kind == "max_over_noise" else metric.equal
    if equal is None or not math.isfinite(error):
        return None
    distance = equal - check.margin if check.margin_kind == "min" else check.margin - equal
    return round(power_at_equality(error, distance, result.confidence), 4)


def _without_a_case(check: Check, limit: float, confidence: float, stretch: float = 1.0) -> int | None:
    """Items that keep a limit when none of them is a case: the bound shrinks as 1 / n then, not as its root."""
    if not limit > 0 or not math.isfinite(stretch):
        return None
    if check.stop:
        return items_without_loss(limit, confidence)
    return math.ceil(stretch * math.log(1 - confidence) / math.log1p(-limit))


def _sensible(needed: int | None) -> int | None:
    """None where nobody would ask so many items."""
    return needed if needed is None or needed <= MOST_ITEMS else None


def _more(needed: int | None) -> str:
    if needed is None:
        return "more items may not decide it"
    if needed > MOST_ITEMS:
        return f"more than {MOST_ITEMS:,} items would be needed: the estimate is too near to the margin"
    return f"about {needed:,} items would decide"


def _undecided(measured: Estimate, result: CheckResult, needed: int | None) -> str:
    interval, unit = measured.interval, result.unit
    if not math.isfinite(interval.upper):
        return f"{measured.n} documents are too few for an interval, {MIN_DOCUMENTS} are the least"
    more = _more(needed)
    return (
        f"{show(unit, interval.lower)} to {show(unit, interval.upper)} "
        f"straddles the margin of {show(unit, result.margin)}; {more}"
    )


def _guarded(check: Check, result: CheckResult, measured: Measured) -> CheckResult:
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
                needed = _without_a_case(check, check.ceiling, result.confidence)
            more, needed = _more(needed), _sensible(needed)
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


def _beside_its_tasks(check: Check, on: str, result: CheckResult, pairing: Pairing, context: Context) -> CheckResult:
    """The tasks of a pooled check by themselves, and what a guarded one says of them."""
    names = sorted({key[1] for key in pairing.pairs})
    if "/" in on or len(names) < 2:
        return result
    one_task = check.model_copy(update={"mean": "items", "ceiling": None, "floor": None})
    tasks = []
    for name in names:
        part = pairing.part(lambda key, name=name: key[1] == name)  # type: ignore[misc]
        measured = _measured(one_task, part, context)
        found = _judged(one_task, _blank(one_task, f"{on}/{name}", part, context.confidence), measured)
        fields = {key: value for key, value in found.model_dump().items() if key in TaskResult.model_fields}
        p_fail = measured.best.p_fail(check.margin) if measured.best else 1.0
        said = {"task": name, "p_fail": p_fail, "after_holm": False}
        tasks.append(TaskResult(**fields | said))
    stands = holm([task.p_fail for task in tasks], 1 - context.confidence)
    tasks = [task.model_copy(update={"after_holm": kept}) for task, kept in zip(tasks, stands, strict=True)]
    result = result.model_copy(update={"tasks": tasks})
    broken = [task.task for task in tasks if task.after_holm]
    if check.guard_tasks and broken and result.verdict == "PASS":
        damage = f"{', '.join(broken)} breaks it also after Holm's correction for {len(tasks)} tasks"
        reason = f"{result.reason}, but {damage}"
        return result.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": None})
    return result


def _noise(check: Check, context: Context) -> NoiseResult | None:
    """The check's statistic on the pairs of reference and noise role."""
    plain = check.model_copy(update={"stop": None, "max_over_noise": None, "max": check.margin})
    pairing = with_values(plain, context.noise, context.noise)
    if not pairing.pairs:
        return None
    found = measure(plain, pairing, replace(context, noise=Pairing()))
    return NoiseResult(
        estimate=found.interval.estimate,
        lower=finite(found.interval.lower),
        upper=finite(found.interval.upper),
        n=found.n,
        b=found.b,
        c=found.c,
        discordant=None if found.b is None or found.c is None else found.b + found.c,
    )


def undecided(check: Check, confidence: float, reason: str) -> CheckResult:
    """The result of a check that has nothing to be decided on."""
    blank = _blank(check, check.on, Pairing(), confidence)
    return blank.model_copy(update={"reason": reason})
