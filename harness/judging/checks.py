"""Deciding one check: from pairs to an estimate with bounds, from bounds and margin to PASS, FAIL or INCONCLUSIVE."""

from __future__ import annotations

import math
from dataclasses import replace

from harness.contract.check import Check
from harness.contract.metrics import METRICS, Difference
from harness.contract.pairs import Pairing
from harness.judging.clusters import shared_clusters
from harness.judging.estimates import Context, Estimate, measure
from harness.judging.guards import beside_its_tasks, guarded
from harness.judging.margins import blank, judged, measured_with_gaps
from harness.judging.power import sequential_power
from harness.judging.results import CheckResult, NoiseResult, finite
from harness.judging.statistics import power_at_equality, standard_error
from harness.judging.usable_pairs import until_decided, usable_enough, with_values


def decide(check: Check, on: str, pairing: Pairing, context: Context) -> CheckResult:
    """Decide one check on the pairs of its target."""
    planned = _items(pairing)
    pairing, decided = with_values(check, pairing, context.noise), None
    shared = shared_clusters(pairing.pairs) if check.stop else 0
    if check.stop and not shared:
        pairing, decided = until_decided(check, pairing, context)
    result = blank(check, on, pairing, context.confidence).model_copy(update={"planned": planned})
    if not pairing.pairs:
        return result.model_copy(update={"reason": _without_pairs(check, pairing)})
    if shared:
        return result.model_copy(update={"n": len({key[:3] for key in pairing.pairs}), "reason": _dependent(shared)})
    measured = measured_with_gaps(check, pairing, context)
    result = judged(check, result, measured, decided)
    result = result.model_copy(update={"power": _power(check, measured.usable, result)})
    result = guarded(check, result, measured)
    result = beside_its_tasks(check, on, result, pairing, context)
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


def _without_pairs(check: Check, pairing: Pairing) -> str:
    metric = METRICS[check.metric]
    without = metric.without if isinstance(metric, Difference) and not pairing.unusable else ""
    return without or "zero usable pairs"


def _dependent(shared: int) -> str:
    return (
        f"its items share {shared:,} passages, and a test that may stop after any item takes them as independent: "
        "leave out stop: sequential, and the passages are drawn with their items"
    )


def _items(pairing: Pairing) -> int:
    return len({key[:3] for key in (*pairing.pairs, *pairing.unusable)})


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
    without = blank(check, check.on, Pairing(), confidence)
    return without.model_copy(update={"reason": reason})
