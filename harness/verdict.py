"""The verdict: a pure function of a policy and samples. It never talks to a server and reads no file."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.policy import Check, Policy
from harness.samples import Pairing, Sample, pair_samples, sha256_of
from harness.statistics import (
    MIN_DOCUMENTS,
    Interval,
    betting_interval,
    proportion_interval,
    ratio_interval,
    tango_interval,
)

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
EXIT_CODES: dict[Outcome, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}
SCHEMA_VERSION = 1


class CheckResult(BaseModel):
    """One check, decided. Differences are losses: positive means that the candidate is worse."""

    model_config = ConfigDict(frozen=True)

    name: str
    metric: str
    on: str
    verdict: Outcome
    reason: str
    margin: float
    margin_kind: Literal["max_loss", "max_increase", "max"]
    confidence: float
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    reference_value: float | None = None
    candidate_value: float | None = None
    n: int = 0
    b: int | None = None
    """Items that only the reference gets right (or: that are worse with the candidate)."""
    c: int | None = None
    """Items that only the candidate gets right."""
    discordant: int | None = None
    method: str = ""
    missing: int = 0
    errored: int = 0
    unequal: int = 0
    items_needed: int | None = None
    """When INCONCLUSIVE: about how many items would decide, if the rates stay as they are."""


class Verdict(BaseModel):
    """The decision on a run. Only PASS publishes."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    verdict: Outcome
    reason: str
    policy_name: str
    policy_sha256: str
    sealed_policy_sha256: str
    """Equal to policy_sha256, unless the run was judged again with another policy after the fact."""
    checks: list[CheckResult]

    @property
    def after_the_fact(self) -> bool:
        return self.policy_sha256 != self.sealed_policy_sha256


def _score(sample: Sample) -> float | None:
    return sample.score


def _truncated(sample: Sample) -> float | None:
    return None if sample.finish_reason is None else float(sample.finish_reason == "length")


SAMPLE_METRICS: dict[str, Callable[[Sample], float | None]] = {"accuracy": _score, "truncated_rate": _truncated}
"""Metrics that each role has by itself: sample -> value in [0, 1], or None where it has none."""

PAIR_METRICS: dict[str, tuple[str, str, str]] = {
    "kl_mean": ("kl_lower_sum", "kl_upper_sum", "positions"),
    "flip_rate": ("flips", "flips", "positions"),
}
"""Metrics of a pair, kept in the candidate's sample: the sum that FAIL is judged by, that for PASS, the weight."""


def judge(
    policy: Policy,
    samples: Iterable[Sample],
    planned: Mapping[str, int],
    policy_sha256: str,
    sealed_policy_sha256: str | None = None,
) -> Verdict:
    """Decide every check of a policy on samples.

    `planned` gives for each "suite/task" the number of pairs that were to be made, so that what never ran is
    counted as missing.

    Raises:
        BadInput: a sample key that is there twice.
    """
    by_task: dict[str, list[Sample]] = {task: [] for task in planned}
    for sample in samples:
        by_task.setdefault(f"{sample.suite}/{sample.task}", []).append(sample)
    pairings = {task: _pairing(group, planned.get(task, 0)) for task, group in by_task.items()}
    results: list[CheckResult] = []
    for check in policy.checks:
        groups = _targets(check, pairings)
        confidence = check.confidence or policy.confidence
        if not groups:
            results.append(_undecided(check, check.on, confidence, Pairing(), "no samples: nothing ran for this check"))
        for on, pairing in groups.items():
            results.append(_decide(check, on, pairing, confidence, policy.max_unusable))
    worst = [r for r in results if r.verdict == "FAIL"] or [r for r in results if r.verdict == "INCONCLUSIVE"]
    outcome: Outcome = worst[0].verdict if worst else "PASS"
    reason = "; ".join(f"{r.name}: {r.reason}" for r in worst) or f"all {len(results)} checks hold"
    return Verdict(
        verdict=outcome,
        reason=reason,
        policy_name=policy.name,
        policy_sha256=policy_sha256,
        sealed_policy_sha256=sealed_policy_sha256 or policy_sha256,
        checks=results,
    )


def _pairing(samples: list[Sample], planned: int) -> Pairing:
    pairing = pair_samples(samples)
    pairing.missing += max(0, planned - pairing.total)
    return pairing


def _targets(check: Check, pairings: Mapping[str, Pairing]) -> dict[str, Pairing]:
    """The groups of pairs that a check speaks of: its suite pooled, or each matching task by itself."""
    if "/" in check.on:
        return {task: p for task, p in pairings.items() if fnmatch.fnmatchcase(task, check.on)}
    parts = [p for task, p in pairings.items() if task.split("/", 1)[0] == check.on]
    if not parts:
        return {}
    pooled = Pairing()
    for part in parts:
        pooled.pairs += part.pairs
        pooled.missing += part.missing
        pooled.errored += part.errored
        pooled.unequal += part.unequal
    return {check.on: pooled}


def _decide(check: Check, on: str, pairing: Pairing, confidence: float, max_unusable: float) -> CheckResult:
    if not pairing.pairs:
        return _undecided(check, on, confidence, pairing, "zero usable pairs")
    # By hash of their names: neither the order of the answers (slow ones are often wrong) nor that of the tasks may
    # reach the bounds, which take the order to say nothing of the scores.
    pairing = replace(pairing, pairs=sorted(pairing.pairs, key=lambda pair: sha256_of(pair.reference.key.pair)))
    measured = _measure(check, on, pairing, confidence)
    unusable = measured.missing + measured.errored + measured.unequal
    if unusable > max_unusable * pairing.total:
        reason = (
            f"{unusable} of {pairing.total} pairs cannot be used ({measured.missing} missing, "
            f"{measured.errored} errored, {measured.unequal} unequal); allowed {max_unusable:.1%}"
        )
        return measured.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason})
    return measured


def _measure(check: Check, on: str, pairing: Pairing, confidence: float) -> CheckResult:
    if check.metric in PAIR_METRICS:
        return _measure_pair_metric(check, on, pairing, confidence)
    return _measure_difference(check, on, pairing, confidence)


def _measure_pair_metric(check: Check, on: str, pairing: Pairing, confidence: float) -> CheckResult:
    low_key, high_key, weight_key = PAIR_METRICS[check.metric]
    rows = [p.candidate.metrics for p in pairing.pairs if {low_key, high_key, weight_key} <= p.candidate.metrics.keys()]
    if len(rows) < len(pairing.pairs):
        pairing = _with_errors(pairing, len(pairing.pairs) - len(rows))
    if not rows:
        return _undecided(check, on, confidence, pairing, f"no sample has {check.metric}")
    weights = [row[weight_key] for row in rows]
    low = ratio_interval([row[low_key] for row in rows], weights, confidence)
    high = ratio_interval([row[high_key] for row in rows], weights, confidence)
    interval = Interval(high.estimate, low.lower, high.upper)
    return _three_way(check, on, interval, pairing, confidence, n=len(rows), method="bootstrap by document (BCa)")


def _measure_difference(check: Check, on: str, pairing: Pairing, confidence: float) -> CheckResult:
    value = SAMPLE_METRICS[check.metric]
    worse_if_lower = check.max_loss is not None
    rows: list[tuple[float, float]] = []
    for pair in pairing.pairs:
        reference, candidate = value(pair.reference), value(pair.candidate)
        if reference is not None and candidate is not None:
            rows.append((reference, candidate))
    if len(rows) < len(pairing.pairs):
        pairing = _with_errors(pairing, len(pairing.pairs) - len(rows))
    if not rows:
        return _undecided(check, on, confidence, pairing, f"no pair has {check.metric}")
    n = len(rows)
    sign = 1.0 if worse_if_lower else -1.0
    losses = [sign * (reference - candidate) for reference, candidate in rows]
    b, c = sum(loss > 0 for loss in losses), sum(loss < 0 for loss in losses)
    binary = all(v in (0.0, 1.0) for row in rows for v in row)
    interval = tango_interval(b, c, n, confidence) if binary else betting_interval(losses, confidence)
    result = _three_way(
        check,
        on,
        interval,
        pairing,
        confidence,
        n=n,
        b=b,
        c=c,
        method="Tango score interval" if binary else "betting interval",
        reference_value=sum(r for r, _ in rows) / n,
        candidate_value=sum(k for _, k in rows) / n,
    )
    return _guard(check, result, [candidate for _, candidate in rows], confidence)


def _guard(check: Check, result: CheckResult, candidate: list[float], confidence: float) -> CheckResult:
    """Floor and ceiling: a reference that cannot show damage, a candidate that is bad whatever the reference is."""
    if check.ceiling is not None:
        above = proportion_interval(sum(v > 0 for v in candidate), len(candidate), confidence)
        if above.lower > check.ceiling:
            reason = f"{above.estimate:.1%} of the candidate's items, above the ceiling of {check.ceiling:.1%}"
            return result.model_copy(update={"verdict": "FAIL", "reason": reason})
        if above.upper > check.ceiling and result.verdict == "PASS":
            reason = f"the candidate may lie above the ceiling of {check.ceiling:.1%} (bound {above.upper:.1%})"
            return result.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason})
    reference_value = result.reference_value or 0.0
    if check.floor is not None and reference_value < check.floor and result.verdict != "FAIL":
        reason = f"the reference scores {reference_value:.1%}, below the floor of {check.floor:.1%}: cannot show damage"
        return result.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason, "items_needed": None})
    return result


def _three_way(
    check: Check,
    on: str,
    interval: Interval,
    pairing: Pairing,
    confidence: float,
    *,
    n: int,
    method: str,
    b: int | None = None,
    c: int | None = None,
    reference_value: float | None = None,
    candidate_value: float | None = None,
) -> CheckResult:
    """PASS when the upper bound keeps the margin, FAIL when the lower one does not, else INCONCLUSIVE."""
    margin, needed = check.margin, None
    if interval.upper <= margin:
        outcome: Outcome = "PASS"
        reason = f"upper bound {_show(check, interval.upper)} keeps the margin of {_show(check, margin)}"
    elif interval.lower > margin:
        outcome = "FAIL"
        reason = f"lower bound {_show(check, interval.lower)} is above the margin of {_show(check, margin)}"
    else:
        outcome = "INCONCLUSIVE"
        needed = _items_needed(interval, margin, n)
        more = f"about {needed:,} items would decide" if needed else "more items may not decide it"
        reason = (
            f"{_show(check, interval.lower)} to {_show(check, interval.upper)} "
            f"straddles the margin of {_show(check, margin)}; {more}"
        )
        if _finite(interval.upper) is None:
            reason = f"{n} documents are too few for an interval, {MIN_DOCUMENTS} are the least"
    return _result(
        check,
        on,
        outcome,
        reason,
        confidence,
        pairing,
        estimate=interval.estimate,
        lower=_finite(interval.lower),
        upper=_finite(interval.upper),
        n=n,
        b=b,
        c=c,
        discordant=None if b is None or c is None else b + c,
        method=method,
        reference_value=reference_value,
        candidate_value=candidate_value,
        items_needed=needed,
    )


def _items_needed(interval: Interval, margin: float, n: int) -> int | None:
    """Items after which the bound nearer to the estimate would clear the margin: widths shrink as 1 / sqrt(n)."""
    distance = abs(margin - interval.estimate)
    width = interval.upper - interval.estimate if interval.estimate <= margin else interval.estimate - interval.lower
    if distance < 1e-9 or not width < float("inf"):
        return None
    return int(n * (width / distance) ** 2) + 1


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _show(check: Check, value: float) -> str:
    if check.metric == "kl_mean":
        return f"{value:.4f} nats"
    return f"{100 * value:.1f} points" if check.max is None else f"{100 * value:.1f} %"


def _with_errors(pairing: Pairing, extra: int) -> Pairing:
    """The counts of a pairing with `extra` more errors: pairs that have no value of this metric."""
    return Pairing([], pairing.missing, pairing.errored + extra, pairing.unequal)


def _undecided(check: Check, on: str, confidence: float, pairing: Pairing, reason: str) -> CheckResult:
    return _result(check, on, "INCONCLUSIVE", reason, confidence, pairing)


def _result(
    check: Check, on: str, outcome: Outcome, reason: str, confidence: float, pairing: Pairing, **more: object
) -> CheckResult:
    kind: Literal["max_loss", "max_increase", "max"] = (
        "max_loss" if check.max_loss is not None else "max_increase" if check.max_increase is not None else "max"
    )
    word = {"max_loss": "loss of", "max_increase": "increase of", "max": ""}[kind]
    return CheckResult(
        name=f"{word} {check.metric} on {on} at most {_show(check, check.margin)}".strip(),
        metric=check.metric,
        on=on,
        verdict=outcome,
        reason=reason,
        margin=check.margin,
        margin_kind=kind,
        confidence=confidence,
        missing=pairing.missing,
        errored=pairing.errored,
        unequal=pairing.unequal,
        **more,  # type: ignore[arg-type]
    )
