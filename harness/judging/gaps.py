"""Gaps read against the candidate, and for it: what pairs that cannot be used would be at their worst and best.

A pair that is missing, errored or unequal is filled with samples that have extreme values, so that every bound is
computed by the code that computes it without gaps. What is known of such a pair stays as it is.
"""

from __future__ import annotations

import math

from harness.contract.check import Check
from harness.contract.metrics import METRICS, Difference, Ratio
from harness.contract.pairs import Gap, Pair, Pairing
from harness.contract.policy import Policy
from harness.contract.samples import PairKey, Role, Sample


def filled(check: Check, pairing: Pairing, noise: Pairing, policy: Policy, *, worst: bool) -> tuple[Pairing, Pairing]:
    """The pairing, and that of the noise role, with every pair that cannot be used filled: with values as bad for the
    candidate as they can be, or as good.

    Pairs of a metric without a bound on that side stay unusable.
    """
    metric = METRICS[check.metric]
    full, beside = Pairing(dict(pairing.pairs), {}, pairing.foreign), Pairing(dict(noise.pairs))
    for key, reason in pairing.unusable.items():
        gap = pairing.gaps.get(key, Gap())
        if isinstance(metric, Difference):
            full.pairs[key] = _difference(metric, key, gap, worst)
            continue
        pair = _ratio(metric, key, gap, policy, high=worst == (check.margin_kind != "min"))
        if pair is None:
            full.unusable[key] = reason
            continue
        full.pairs[key] = pair
        floor = beside.pairs.get(key)
        if check.margin_kind == "max_over_noise" and (floor is None or metric.part(floor) is None):
            # The lower the noise floor, the more of the value is the candidate's.
            again = _ratio(metric, key, Gap(), policy, high=not worst)
            if again is None:
                full.unusable[key] = reason
                del full.pairs[key]
            else:
                beside.pairs[key] = again
    return full, beside


def _difference(metric: Difference, key: PairKey, gap: Gap, worst: bool) -> Pair:
    high_is_good = metric.margin == "max_loss"
    reference, candidate = gap
    if reference is None or metric.value(reference) is None:
        reference = _sample(key, "reference", metric.value.fields(float(worst == high_is_good)), gap)
    if candidate is None or metric.value(candidate) is None:
        candidate = _sample(key, "candidate", metric.value.fields(float(worst != high_is_good)), gap)
    return Pair(reference, candidate)


def _ratio(metric: Ratio, key: PairKey, gap: Gap, policy: Policy, *, high: bool) -> Pair | None:
    """The pair with the highest or lowest ratio; None where no value is that, or it is not known."""
    if metric.counts is not None:
        most = policy.most(key[0], metric.of)
        reference, candidate = gap
        if reference is None or not metric.counts(reference):
            reference = _sample(key, "reference", metric.counts.fields(1.0 if high else most), gap)
        if candidate is None or metric.counts(candidate) is None:
            candidate = _sample(key, "candidate", metric.counts.fields(most if high else 1.0), gap)
        return Pair(reference, candidate)
    if metric.sums is None:
        return None
    if gap.candidate is not None:
        known = Pair(gap.candidate, gap.candidate)  # such a part is the candidate's alone
        if metric.part(known) is not None:
            return known
    value = metric.high if high else 0.0
    if not math.isfinite(value):
        return None
    weight = float(policy.most(key[0]))
    low, upper, name = metric.sums
    sample = _sample(key, "candidate", {"metrics": {low: value * weight, upper: value * weight, name: weight}}, gap)
    return Pair(sample, sample)


def _sample(key: PairKey, role: Role, fields: dict[str, object], gap: Gap) -> Sample:
    """A sample that stands in a gap; what its item is drawn with stays as it is."""
    suite, task, item, repeat = key
    cluster = next((known.cluster for known in gap if known and known.cluster), None)
    names = {"suite": suite, "task": task, "item": item, "repeat": repeat, "role": role, "cluster": cluster}
    return Sample.model_validate(names | {"prompt_sha256": ""} | fields)
