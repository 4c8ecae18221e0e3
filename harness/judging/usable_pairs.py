"""Which pairs a check is decided on: those that have its value, and of a sequential check those that it needed.

Nothing is dropped uncounted: what cannot be used is counted against the policy's limit.
"""

from __future__ import annotations

from typing import Literal

from harness.contract.check import Check
from harness.contract.metrics import METRICS, Difference
from harness.contract.pairs import Gap, Pair, Pairing, sealed_order
from harness.contract.samples import PairKey
from harness.judging.estimates import Context, StopRule, values_by_item
from harness.judging.gaps import filled


def with_values(check: Check, pairing: Pairing, noise: Pairing) -> Pairing:
    """The pairing with pairs that lack this check's value counted as errored."""
    if check.margin_kind == "max_over_noise":
        pairing = _beside_noise(pairing, noise)
        floor = noise.pairs
    else:
        floor = {}
    kept, unusable, gaps = {}, dict(pairing.unusable), dict(pairing.gaps)
    metric = METRICS[check.metric]
    applies = metric.applies if isinstance(metric, Difference) else None
    if applies:
        for key, gap in pairing.gaps.items():
            if gap.reference is not None and not applies(gap.reference):
                unusable.pop(key, None)
    for key, pair in pairing.pairs.items():
        if applies and not applies(pair.reference):
            continue
        if _has_value(check, pair) and (key not in floor or _has_value(check, floor[key])):
            kept[key] = pair
        else:
            unusable[key] = "errored"
            gaps[key] = Gap(*pair)
    return Pairing(kept, unusable, pairing.foreign, gaps)


def _beside_noise(pairing: Pairing, noise: Pairing) -> Pairing:
    """The pairs that the noise role was to be asked as well; what it has no answer to cannot be used."""
    asked = noise.pairs.keys() | noise.unusable.keys()
    unusable = {key: reason for key, reason in (noise.unusable | pairing.unusable).items() if key in asked}
    pairs = {key: pair for key, pair in pairing.pairs.items() if key in noise.pairs}
    gaps = {key: Gap(*pair) for key, pair in pairing.pairs.items() if key in unusable}
    return Pairing(pairs, unusable, pairing.foreign, gaps | {k: g for k, g in pairing.gaps.items() if k in asked})


def _has_value(check: Check, pair: Pair) -> bool:
    metric = METRICS[check.metric]
    if isinstance(metric, Difference):
        return metric.value(pair.reference) is not None and metric.value(pair.candidate) is not None
    return metric.part(pair) is not None


def usable_enough(pairing: Pairing, max_unusable: float) -> bool:
    """Whether so few pairs cannot be used that a check may be decided."""
    return few_enough(len(pairing.unusable), pairing.total, max_unusable)


def few_enough(unusable: int, pairs: int, max_unusable: float) -> bool:
    """Whether so many of all pairs may be left out."""
    return unusable <= max_unusable * pairs


def until_decided(check: Check, pairing: Pairing, context: Context) -> tuple[Pairing, Literal["PASS", "FAIL"] | None]:
    """What a sequential check needed, and what it decided: the items of the sealed order up to its decision.

    Where pairs that cannot be used are too many at the decision, as one error among few items is, it needed the items
    after it too.
    """
    metric = METRICS[check.metric]
    assert isinstance(metric, Difference)  # the policy refuses others
    worst, best = (
        values_by_item(metric, filled(check, pairing, Pairing(), context.policy, worst=worst)[0].pairs)
        for worst in (True, False)
    )
    rule, used = StopRule(check, context.confidence, context.fail_level), Pairing(foreign=pairing.foreign)
    by_item: dict[tuple[str, str, str], list[PairKey]] = {}
    for key in sealed_order([*pairing.pairs, *pairing.unusable], context.seal):
        by_item.setdefault(key[:3], []).append(key)
    for item, keys in by_item.items():
        used.pairs |= {key: pairing.pairs[key] for key in keys if key in pairing.pairs}
        used.unusable |= {key: pairing.unusable[key] for key in keys if key in pairing.unusable}
        used.gaps |= {key: pairing.gaps[key] for key in keys if key in pairing.gaps}
        rule.update(worst[item], best[item])
        if rule.outcome and usable_enough(used, context.policy.max_unusable):
            return used, rule.outcome
    return pairing, rule.outcome
