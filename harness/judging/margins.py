"""An estimate against its margin: PASS, FAIL or INCONCLUSIVE, and the words for it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

from harness.contract.check import Check
from harness.contract.metrics import METRICS, Unit
from harness.contract.pairs import Pairing
from harness.judging.estimates import Context, Estimate, measure
from harness.judging.gaps import filled
from harness.judging.resampling import MIN_DOCUMENTS
from harness.judging.results import CheckResult, finite, show
from harness.judging.sequential import items_without_loss, sequence_keeps
from harness.judging.statistics import Interval, items_to_decide, standard_error

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


def measured_with_gaps(check: Check, pairing: Pairing, context: Context) -> Measured:
    usable = measure(check, Pairing(pairing.pairs), context)
    if not pairing.unusable:
        return Measured(usable, usable, usable, 0)

    def extreme(worst: bool) -> Estimate | None:
        full, noise = filled(check, pairing, context.noise, context.policy, worst=worst)
        return None if full.unusable else measure(check, full, replace(context, noise=noise))

    return Measured(usable, extreme(True), extreme(False), len(pairing.unusable))


def blank(check: Check, on: str, pairing: Pairing, confidence: float) -> CheckResult:
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


def judged(
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
            needed = items_without_a_case(check, margin, result.confidence, usable.stretch)
        if gaps and check.stop is None and _keeps(usable, margin, least=least):
            needed, reason = None, _by_gaps(interval, worst, result, gaps, lower=least)
        elif _breaks(usable, margin, least=least):
            needed, reason = None, _not_quite(interval, best, result, gaps, p_fail, lower=not least)
        else:
            reason = _undecided(usable, result, needed)
        update |= {"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": sensible(needed)}
    return result.model_copy(update=update)


def _keeps(measured: Estimate | None, margin: float, *, least: bool) -> bool:
    if measured is None:
        return False
    return measured.interval.lower >= margin if least else measured.interval.upper <= margin


def _breaks(measured: Estimate | None, margin: float, *, least: bool) -> bool:
    if measured is None:
        return False
    return measured.interval.upper < margin if least else measured.interval.lower > margin


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


def _not_quite(
    interval: Interval, best: Estimate | None, result: CheckResult, gaps: int, p_fail: float, *, lower: bool
) -> str:
    """What is said where a bound lies beyond the margin and the check does not fail: gaps, or the ceiling beside it."""
    at, unit = 1 if lower else 2, result.unit
    side = "above" if lower else "below"
    said = f"{'lower' if lower else 'upper'} bound {show(unit, interval[at])} is {side} the margin"
    said = f"{said} of {show(unit, result.margin)}, but"
    if gaps and not _breaks(best, result.margin, least=not lower):
        good = "within all bounds" if best is None else show(unit, best.interval[at])
        return f"{said} with {_gaps(gaps)} at their best it is {good}"
    return f"{said} its p value, doubled since a ceiling is a second way to fail, is {p_fail:.2g}"


def alpha_of(result: CheckResult) -> float:
    """Level at which a check fails by itself."""
    return 1 - result.confidence + 1e-12  # 1 - 0.95 is a little less than 0.05


def items_without_a_case(check: Check, limit: float, confidence: float, stretch: float = 1.0) -> int | None:
    """Items that keep a limit when none of them is a case: the bound shrinks as 1 / n then, not as its root."""
    if not limit > 0 or not math.isfinite(stretch):
        return None
    if check.stop:
        return items_without_loss(limit, confidence)
    return math.ceil(stretch * math.log(1 - confidence) / math.log1p(-limit))


def sensible(needed: int | None) -> int | None:
    """None where nobody would ask so many items."""
    return needed if needed is None or needed <= MOST_ITEMS else None


def more_items(needed: int | None, what: str = "items") -> str:
    if needed is None:
        return f"more {what} may not decide it"
    if needed > MOST_ITEMS:
        return f"more than {MOST_ITEMS:,} {what} would be needed: the estimate is too near to the margin"
    return f"about {needed:,} {what} would decide"


def _undecided(measured: Estimate, result: CheckResult, needed: int | None) -> str:
    interval, unit = measured.interval, result.unit
    if not math.isfinite(interval.upper):
        return f"{measured.n} documents are too few for an interval, {MIN_DOCUMENTS} are the least"
    # What `speed` counts are pairs of measurements.
    more = more_items(needed, "measurements" if result.on.partition("/")[0] == "speed" else "items")
    return (
        f"{show(unit, interval.lower)} to {show(unit, interval.upper)} "
        f"straddles the margin of {show(unit, result.margin)}; {more}"
    )
