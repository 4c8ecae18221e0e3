"""Deciding one check: from pairs to an estimate with bounds, from bounds and margin to PASS, FAIL or INCONCLUSIVE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.contract.metrics import METRICS, Difference, Margin, Unit
from harness.contract.pairs import Pairing
from harness.contract.policy import Check
from harness.judging.estimates import (
    Estimate,
    measure,
    sequence_interval,
    share,
)
from harness.judging.power import sequential_power
from harness.judging.sequential import items_without_loss, run_test
from harness.judging.statistics import (
    MIN_DOCUMENTS,
    items_to_decide,
    p_value,
    power_at_equality,
    proportion_p_value,
    standard_error,
)
from harness.judging.usable_pairs import until_decided, usable_enough, with_values

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class NoiseResult(BaseModel):
    """The same statistic of the reference against itself."""

    model_config = ConfigDict(frozen=True)

    estimate: float
    lower: float | None = None
    upper: float | None = None
    n: int
    b: int | None = None
    c: int | None = None
    discordant: int | None = None


class CheckResult(BaseModel):
    """One check, decided. Differences are losses: positive means that the candidate is worse."""

    model_config = ConfigDict(frozen=True)

    name: str
    metric: str
    on: str
    verdict: Outcome
    reason: str
    margin: float
    margin_kind: Margin
    unit: Unit
    confidence: float
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    reference_value: float | None = None
    candidate_value: float | None = None
    n: int = 0
    """Items (for ratios: documents); repeats of an item are one."""
    b: int | None = None
    """Items that only the reference gets right (or: that are worse with the candidate)."""
    c: int | None = None
    """Items that only the candidate gets right."""
    discordant: int | None = None
    method: str = ""
    power: float | None = None
    """Chance of a PASS for a candidate as good as its reference, with this number of items (of a sequential check: all
    that are planned) and this spread. None where no value means "as good", or where nothing is uncertain."""
    items_needed: int | None = None
    """When INCONCLUSIVE: about how many items would decide (with 80 % chance), if the rates stay as they are."""
    p_fail: float | None = None
    """When FAIL: p value of "the margin is kept"."""
    after_holm: bool | None = None
    """When FAIL: whether it stands when all checks of the run are tested together (Holm)."""
    missing: int = 0
    errored: int = 0
    unequal: int = 0
    foreign: int = 0
    """Samples that were not planned in this run; they are not used."""
    planned: int = 0
    """Items that were to be asked; a sequential check may have needed fewer."""
    stop: Literal["sequential"] | None = None
    noise: NoiseResult | None = None
    """The noise floor, where it was measured."""


@dataclass(frozen=True)
class Context:
    """What a check is decided with, beside its pairs."""

    confidence: float
    max_unusable: float
    seal: str
    """Orders the items of sequential tests."""
    noise: Pairing


def decide(check: Check, on: str, pairing: Pairing, context: Context) -> CheckResult:
    """Decide one check on the pairs of its target."""
    planned = _items(pairing)
    pairing = with_values(check, pairing, context.noise)
    if check.stop:
        pairing = until_decided(check, pairing, context.confidence, context.max_unusable, context.seal)
    result = _blank(check, on, pairing, context.confidence).model_copy(update={"planned": planned})
    if not pairing.pairs:
        return result.model_copy(update={"reason": "zero usable pairs"})
    measured = measure(check, pairing, context.confidence, context.seal, context.noise)
    result = _judged(check, result, measured)
    result = _guarded(check, result, measured)
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
    )


def _judged(check: Check, result: CheckResult, measured: Estimate) -> CheckResult:
    """PASS when the bound on the margin's side keeps it, FAIL when the other one does not, else INCONCLUSIVE."""
    interval, margin, unit = measured.interval, check.margin, result.unit
    keeps, breaks = interval.upper <= margin, interval.lower > margin
    if check.stop:  # the bounds say the same, but for the last digit
        keeps, breaks = measured.decided == "PASS", measured.decided == "FAIL"
    bounds = ("upper", interval.upper), ("lower", interval.lower)
    if check.margin_kind == "min":
        keeps, breaks = interval.lower >= margin, interval.upper < margin
        bounds = bounds[::-1]
    error = standard_error(interval, result.confidence)
    update: dict[str, object] = {
        "estimate": interval.estimate,
        "lower": _finite(interval.lower),
        "upper": _finite(interval.upper),
        "n": measured.n,
        "b": measured.b,
        "c": measured.c,
        "discordant": None if measured.b is None or measured.c is None else measured.b + measured.c,
        "method": measured.method,
        "reference_value": measured.reference,
        "candidate_value": measured.candidate,
    }
    power = _power(check, measured, error, result)
    update["power"] = None if power is None else round(power, 4)
    side = "below" if check.margin_kind == "min" else "above"
    if keeps:
        update["verdict"] = "PASS"
        update["reason"] = f"{bounds[0][0]} bound {show(unit, bounds[0][1])} keeps the margin of {show(unit, margin)}"
    elif breaks:
        update["verdict"] = "FAIL"
        update["reason"] = (
            f"{bounds[1][0]} bound {show(unit, bounds[1][1])} is {side} the margin of {show(unit, margin)}"
        )
        update["p_fail"] = measured.p_fail(margin)
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


def _power(check: Check, measured: Estimate, error: float, result: CheckResult) -> float | None:
    """Chance of a PASS for a candidate as good as its reference; of a sequential check within all planned items."""
    metric = METRICS[check.metric]
    if check.stop:
        return sequential_power(measured.losses, check.margin, result.planned, result.confidence)
    equal = 0.0 if isinstance(metric, Difference) or check.margin_kind == "max_over_noise" else metric.equal
    if equal is None or not math.isfinite(error):
        return None
    distance = equal - check.margin if check.margin_kind == "min" else check.margin - equal
    return power_at_equality(error, distance, result.confidence)


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
        at = partial(sequence_interval if check.stop else share, measured.alone)
        above = at(result.confidence)
        broken, kept = above.lower > check.ceiling, above.upper <= check.ceiling
        if check.stop:  # the bounds say the same, but for the last digit
            said = run_test(measured.alone, check.ceiling, result.confidence).outcome
            broken, kept = said == "FAIL", said == "PASS"
        if broken:
            reason = f"{above.estimate:.1%} of the candidate's answers, above the ceiling of {check.ceiling:.1%}"
            p_fail = p_value(at, check.ceiling)
            if not check.stop and all(value in (0.0, 1.0) for value in measured.alone):
                p_fail = proportion_p_value(round(sum(measured.alone)), measured.n, check.ceiling)
            p_fail = p_fail if result.p_fail is None else min(1.0, 2 * min(p_fail, result.p_fail))  # two ways to fail
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


def _noise(check: Check, context: Context) -> NoiseResult | None:
    """The check's statistic on the pairs of reference and noise role."""
    plain = check.model_copy(update={"stop": None, "max_over_noise": None, "max": check.margin})
    pairing = with_values(plain, context.noise, context.noise)
    if not pairing.pairs:
        return None
    found = measure(plain, pairing, context.confidence, context.seal, Pairing())
    return NoiseResult(
        estimate=found.interval.estimate,
        lower=_finite(found.interval.lower),
        upper=_finite(found.interval.upper),
        n=found.n,
        b=found.b,
        c=found.c,
        discordant=None if found.b is None or found.c is None else found.b + found.c,
    )


def show(unit: Unit, value: float) -> str:
    """A value with its unit, as reasons print it."""
    if not math.isfinite(value):
        return "unbounded"
    scale, digits, word = {"points": (100, 1, " points"), "nats": (1, 4, " nats"), "share": (100, 1, " %")}.get(
        unit, (1, 3, "")
    )
    return f"{round(scale * value, digits) + 0.0:.{digits}f}{word}"  # + 0.0: there is no -0.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def undecided(check: Check, confidence: float, reason: str) -> CheckResult:
    """The result of a check that has nothing to be decided on."""
    blank = _blank(check, check.on, Pairing(), confidence)
    return blank.model_copy(update={"reason": reason})


def named_by_holm(results: Sequence[CheckResult], rejected: Sequence[bool]) -> list[CheckResult]:
    """Results with `after_holm` set where they fail."""
    return [
        result.model_copy(update={"after_holm": kept}) if result.verdict == "FAIL" else result
        for result, kept in zip(results, rejected, strict=True)
    ]
