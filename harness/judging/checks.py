"""Deciding one check: from pairs to an estimate with bounds, from bounds and margin to PASS, FAIL or INCONCLUSIVE."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.contract.metrics import METRICS, Difference
from harness.contract.pairs import Pairing
from harness.contract.policy import Check
from harness.judging.estimates import Estimate, measure, sequence_interval, share, share_p_value
from harness.judging.power import sequential_power
from harness.judging.results import CheckResult, NoiseResult, TaskResult, finite, show
from harness.judging.sequential import items_without_loss, run_test, sequence_p_value
from harness.judging.statistics import (
    MIN_DOCUMENTS,
    holm,
    items_to_decide,
    power_at_equality,
    standard_error,
)
from harness.judging.usable_pairs import until_decided, usable_enough, with_values


@dataclass(frozen=True)
class Context:
    """What a check is decided with, beside its pairs."""

    confidence: float
    max_unusable: float
    seal: str
    """Orders the items of sequential tests."""
    noise: Pairing
    fail_level: float = 0.05
    """Chance of a wrong FAIL at which a sequential check stops: so small that it stands among all checks of the run."""


def decide(check: Check, on: str, pairing: Pairing, context: Context) -> CheckResult:
    """Decide one check on the pairs of its target."""
    planned = _items(pairing)
    pairing = with_values(check, pairing, context.noise)
    if check.stop:
        pairing = until_decided(
            check, pairing, context.confidence, context.fail_level, context.max_unusable, context.seal
        )
    result = _blank(check, on, pairing, context.confidence).model_copy(update={"planned": planned})
    if not pairing.pairs:
        return result.model_copy(update={"reason": "zero usable pairs"})
    measured = measure(check, pairing, context.confidence, context.seal, context.noise)
    result = _judged(check, result, measured)
    result = result.model_copy(update={"power": _power(check, measured, result)})
    result = _guarded(check, result, measured)
    result = _beside_its_tasks(check, on, result, pairing, context)
    result = result.model_copy(update={"noise": _noise(check, context)})
    if not usable_enough(pairing, context.max_unusable):
        reason = (
            f"{len(pairing.unusable)} of {pairing.total} pairs cannot be used ({result.missing} missing, "
            f"{result.errored} errored or without a value, "
            f"{result.unequal} unequal); allowed {context.max_unusable:.1%}"
        )
        update = {"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": None, "p_fail": None}
        return result.model_copy(update=update)
    return result


def _items(pairing: Pairing) -> int:
    return len({key[:3] for key in (*pairing.pairs, *pairing.unusable)})


def _blank(check: Check, on: str, pairing: Pairing, confidence: float) -> CheckResult:
    unit = METRICS[check.metric].unit
    words = {"max_loss": ("loss of ", "at most"), "max_increase": ("increase of ", "at most"), "max": ("", "at most")}
    words |= {"min": ("", "at least"), "max_over_noise": ("", "above the noise floor by at most")}
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


def _judged(check: Check, result: CheckResult, measured: Estimate) -> CheckResult:
    """PASS when the bound on the margin's side keeps it, FAIL when the other one does not, else INCONCLUSIVE."""
    interval, margin, unit = measured.interval, check.margin, result.unit
    keeps = interval.lower >= margin if check.margin_kind == "min" else interval.upper <= margin
    if check.stop:  # the bounds say the same, but for the last digit
        keeps = measured.decided == "PASS"
    p_fail = measured.p_fail(margin) if check.ceiling is None else min(1.0, 2 * measured.p_fail(margin))
    bounds = ("upper", interval.upper), ("lower", interval.lower)
    if check.margin_kind == "min":
        bounds = bounds[::-1]
    error = standard_error(interval, result.confidence)
    update: dict[str, object] = {
        "estimate": interval.estimate,
        "lower": finite(interval.lower),
        "upper": finite(interval.upper),
        "n": measured.n,
        "b": measured.b,
        "c": measured.c,
        "discordant": None if measured.b is None or measured.c is None else measured.b + measured.c,
        "method": measured.method,
        "reference_value": measured.reference,
        "candidate_value": measured.candidate,
    }
    side = "below" if check.margin_kind == "min" else "above"
    if keeps:
        update["verdict"] = "PASS"
        update["reason"] = f"{bounds[0][0]} bound {show(unit, bounds[0][1])} keeps the margin of {show(unit, margin)}"
    elif p_fail <= alpha_of(result):
        update["verdict"] = "FAIL"
        update["reason"] = (
            f"{bounds[1][0]} bound {show(unit, bounds[1][1])} is {side} the margin of {show(unit, margin)}"
        )
        update["p_fail"] = p_fail
    else:
        update["verdict"] = "INCONCLUSIVE"
        needed = items_to_decide(measured.n, error, abs(margin - interval.estimate), result.confidence)
        if not math.isfinite(error):
            needed = MIN_DOCUMENTS
        elif measured.b == measured.c == 0:
            needed = _without_a_case(check, margin, result.confidence)
        update["items_needed"] = needed
        update["reason"] = _undecided(measured, result, needed)
    return result.model_copy(update=update)


def alpha_of(result: CheckResult) -> float:
    """Level at which a check fails by itself."""
    return 1 - result.confidence + 1e-12  # 1 - 0.95 is a little less than 0.05


def _power(check: Check, measured: Estimate, result: CheckResult) -> float | None:
    """Chance of a PASS for a candidate as good as its reference; of a sequential check within all planned items."""
    metric, error = METRICS[check.metric], standard_error(measured.interval, result.confidence)
    if check.stop:
        return round(sequential_power(measured.losses, check.margin, result.planned, result.confidence), 4)
    equal = 0.0 if isinstance(metric, Difference) or check.margin_kind == "max_over_noise" else metric.equal
    if equal is None or not math.isfinite(error):
        return None
    distance = equal - check.margin if check.margin_kind == "min" else check.margin - equal
    return round(power_at_equality(error, distance, result.confidence), 4)


def _without_a_case(check: Check, limit: float, confidence: float) -> int | None:
    """Items that keep a limit when none of them is a case: the bound shrinks as 1 / n then, not as its root."""
    if not limit > 0:
        return None
    if check.stop:
        return items_without_loss(limit, confidence)
    return math.ceil(math.log(1 - confidence) / math.log1p(-limit))


def _undecided(measured: Estimate, result: CheckResult, needed: int | None) -> str:
    interval, unit = measured.interval, result.unit
    if not math.isfinite(interval.upper):
        return f"{measured.n} documents are too few for an interval, {MIN_DOCUMENTS} are the least"
    more = f"about {needed:,} items would decide" if needed else "more items may not decide it"
    return (
        f"{show(unit, interval.lower)} to {show(unit, interval.upper)} "
        f"straddles the margin of {show(unit, result.margin)}; {more}"
    )


def _guarded(check: Check, result: CheckResult, measured: Estimate) -> CheckResult:
    """Floor and ceiling: a reference that cannot show damage, a candidate that is bad whatever the reference is."""
    if check.ceiling is not None and measured.alone is not None:
        interval_of, p_of = (sequence_interval, sequence_p_value) if check.stop else (share, share_p_value)
        above = interval_of(measured.alone, result.confidence)
        kept = above.upper <= check.ceiling
        if check.stop:  # the bounds say the same, but for the last digit
            kept = run_test(measured.alone, check.ceiling, result.confidence).outcome == "PASS"
        p_fail = min(1.0, 2 * p_of(measured.alone, check.ceiling))  # the margin is the other way to fail
        if not kept and p_fail <= alpha_of(result):
            reason = f"{above.estimate:.1%} of the candidate's answers, above the ceiling of {check.ceiling:.1%}"
            p_fail = p_fail if result.p_fail is None else min(p_fail, result.p_fail)
            update = {"verdict": "FAIL", "reason": reason, "p_fail": p_fail, "items_needed": None}
            return result.model_copy(update=update)
        if not kept and result.verdict == "PASS":
            error = standard_error(above, result.confidence)
            needed = items_to_decide(measured.n, error, abs(check.ceiling - above.estimate), result.confidence)
            if not any(measured.alone):
                needed = _without_a_case(check, check.ceiling, result.confidence)
            more = f"about {needed:,} items would decide" if needed else "more items may not decide it"
            reason = f"the candidate may lie above the ceiling of {check.ceiling:.1%} (bound {above.upper:.1%}); {more}"
            return result.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": needed})
    metric, reference, floor = METRICS[check.metric], measured.reference or 0.0, check.floor or 0.0
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
        part = Pairing({key: pair for key, pair in pairing.pairs.items() if key[1] == name})
        measured = measure(one_task, part, context.confidence, context.seal, context.noise)
        found = _judged(one_task, _blank(one_task, f"{on}/{name}", part, context.confidence), measured)
        fields = {key: value for key, value in found.model_dump().items() if key in TaskResult.model_fields}
        said = {"task": name, "p_fail": measured.p_fail(check.margin), "after_holm": False}
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
    found = measure(plain, pairing, context.confidence, context.seal, Pairing())
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
