"""From pairs to a statistic: the estimate of a check with its bounds, before any margin is looked at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

from harness.contract.check import Check
from harness.contract.metrics import METRICS, BoundedMean, Difference, Ratio, RatioPart
from harness.contract.pairs import Pair, Pairing, sealed_order
from harness.contract.policy import Policy
from harness.contract.samples import PairKey, Sample
from harness.judging.betting import documents_to_decide
from harness.judging.bounded_means import bounded_mean_interval, bounded_mean_p_value, chance_to_keep_mean
from harness.judging.bounded_ratios import Range, bounded_ratio, bounded_ratio_p_value, chance_to_keep_ratio
from harness.judging.clusters import ratio_units
from harness.judging.paired_rates import paired_interval, paired_p_value
from harness.judging.resampling import mean_interval, mean_p_value, ratio_interval, ratio_p_value
from harness.judging.sequential import SequentialTest, sequence_p_value
from harness.judging.statistics import Interval, proportion_interval, proportion_p_value


@dataclass(frozen=True)
class Context:
    """What a check is decided with, beside its pairs."""

    policy: Policy
    confidence: float
    seal: str
    """Orders the items of sequential tests."""
    noise: Pairing
    fail_level: float = 0.05
    """Chance of a wrong FAIL at which a sequential check stops: so small that it stands among all checks of the run."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bounds, before any margin is looked at."""

    interval: Interval
    n: int
    method: str
    p_fail: Callable[[float], float]
    """p value of "the value keeps this margin"."""
    b: int | None = None
    c: int | None = None
    reference: float | None = None
    candidate: float | None = None
    alone: tuple[float, ...] | None = None
    """The candidate's value of each item, a mean over its repeats; of a sequential check in the sealed order."""
    stretch: float = 1.0
    """How many items count as one where none is a case: of a relative loss, and of clusters."""
    losses: tuple[float, ...] = ()
    """Of a sequential check: the loss of each item, in the sealed order."""
    power: Callable[[float], float] | None = None
    """Chance of a PASS at this margin for a candidate as good as its reference, and items that would decide: where the
    bound does not shrink as a normal one does."""
    needed: Callable[[float], int | None] | None = None
    approximate: bool = False
    """The bounds are no proven ones: the error rates of the run do not hold for them."""


class ItemValues(NamedTuple):
    """Of one item, means over its repeats: its loss, and the candidate's value by itself."""

    loss: float
    alone: float


class StopRule:
    """When a sequential check is decided: its loss, and its ceiling if it has one, both by tests that may be looked at
    after every item. PASS needs both; either one is enough for FAIL."""

    def __init__(self, check: Check, confidence: float, fail_level: float | None = None) -> None:
        """`fail_level` is the chance of a wrong FAIL, shared by the two ways to fail; default: 1 - confidence."""
        limits = [check.margin] if check.ceiling is None else [check.margin, check.ceiling]
        level = min(1 - confidence if fail_level is None else fail_level, 1 - confidence) / len(limits)
        self._tests = [SequentialTest(limit, confidence, level) for limit in limits]
        self.items = 0

    @property
    def outcome(self) -> Literal["PASS", "FAIL"] | None:
        """What is decided. Nothing that comes later changes it."""
        found = [test.outcome for test in self._tests]
        return "FAIL" if "FAIL" in found else "PASS" if all(found) else None

    def update(self, worst: ItemValues, best: ItemValues | None = None) -> Literal["PASS", "FAIL"] | None:
        """Take one more item: at its worst for PASS, at its best for FAIL, which differ where an answer is lacking.
        Nothing changes after the decision."""
        if self.outcome is None:
            self.items += 1
            for test, most, least in zip(self._tests, worst, best or worst, strict=False):
                test.update(most, least)
        return self.outcome


def sequence_interval(values: Sequence[float], confidence: float) -> Interval:
    """Bounds of the confidence sequence after values in [-1, 1], in the sealed order: valid whenever one stops."""
    test = SequentialTest(0.0, confidence)
    test.losses = list(values)
    return test.interval()


def measure(check: Check, pairing: Pairing, context: Context) -> Estimate:
    """The statistic of a check on pairs that all have its value. Raises ValueError when there are none."""
    metric, confidence = METRICS[check.metric], context.confidence
    if isinstance(metric, Ratio):
        reference, candidate = _counts(metric, pairing)
        return replace(_ratio(metric, check, pairing, context), reference=reference, candidate=candidate)
    items = values_by_item(metric, pairing.pairs)
    losses = {item: values.loss for item, values in items.items()}
    values = [(metric.value(p.reference) or 0.0, metric.value(p.candidate) or 0.0) for p in pairing.pairs.values()]
    b, c, n = sum(x > 0 for x in losses.values()), sum(x < 0 for x in losses.values()), len(losses)
    measured = Estimate(
        interval=Interval(math.nan, math.nan, math.nan),
        n=n,
        method="",
        p_fail=lambda margin: paired_p_value(b, c, n, margin, confidence),
        b=b,
        c=c,
        reference=_mean(metric, [(key, pair.reference) for key, pair in pairing.pairs.items()], check.mean),
        candidate=_mean(metric, [(key, pair.candidate) for key, pair in pairing.pairs.items()], check.mean),
        alone=tuple(values.alone for values in items.values()),
    )
    units, of = ratio_units(check, metric, pairing.pairs, losses)
    if units:
        at, p_fail = units.interval(confidence), units.p_value
        return replace(measured, interval=at, method=of, p_fail=p_fail, stretch=units.stretch(n))
    if check.stop:
        order = list(dict.fromkeys(key[:3] for key in sealed_order(pairing.pairs, context.seal)))
        in_order = tuple(losses[item] for item in order)
        return replace(
            measured,
            interval=sequence_interval(in_order, confidence),
            method="betting confidence sequence",
            p_fail=partial(sequence_p_value, in_order),
            alone=tuple(items[item].alone for item in order),
            losses=in_order,
        )
    if check.mean == "tasks":
        return _macro(measured, losses, confidence)
    binary = n == len(pairing.pairs) and all(v in (0.0, 1.0) for row in values for v in row)
    if binary:
        return replace(measured, interval=paired_interval(b, c, n, confidence), method="exact paired interval")
    values_in_any_order = list(losses.values())
    return replace(
        measured,
        interval=mean_interval(values_in_any_order, confidence),
        method="Gaffke's bound over items (its level is conjectured)",
        p_fail=partial(mean_p_value, values_in_any_order),
    )


def values_by_item(metric: Difference, pairs: Mapping[PairKey, Pair]) -> dict[tuple[str, str, str], ItemValues]:
    """Loss and the candidate's own value of each item, means over its repeats; every pair has them."""
    sign = 1.0 if metric.margin == "max_loss" else -1.0
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for key, pair in pairs.items():
        reference, candidate = metric.value(pair.reference) or 0.0, metric.value(pair.candidate) or 0.0
        found.setdefault(key[:3], []).append((sign * (reference - candidate), candidate))
    return {
        item: ItemValues(math.fsum(loss for loss, _ in both) / len(both), math.fsum(own for _, own in both) / len(both))
        for item, both in found.items()
    }


def _mean(metric: Difference, samples: Iterable[tuple[PairKey, Sample]], over: Literal["items", "tasks"]) -> float:
    """A role's own value, as the estimate weighs items: of eight answers to one item each counts an eighth."""
    repeats: dict[tuple[str, str, str], list[float]] = {}
    for key, sample in samples:
        repeats.setdefault(key[:3], []).append(metric.value(sample) or 0.0)
    by_item = {item: math.fsum(values) / len(values) for item, values in repeats.items()}
    if over == "items":
        return math.fsum(by_item.values()) / len(by_item)
    sizes = Counter(item[:2] for item in by_item)
    return math.fsum(value / sizes[item[:2]] for item, value in by_item.items()) / len(sizes)


def _macro(measured: Estimate, losses: Mapping[tuple[str, str, str], float], confidence: float) -> Estimate:
    """The plain mean of the tasks' mean losses: a mean over items in which those of a small task count more."""
    sizes = Counter(item[:2] for item in losses)
    weights = {task: len(losses) / (len(sizes) * size) for task, size in sizes.items()}
    most = max(weights.values())
    values = [loss * weights[item[:2]] / most for item, loss in losses.items()]  # in [-1, 1]
    found = bounded_mean_interval(values, -1, 1, confidence)
    return replace(
        measured,
        interval=Interval(*(min(1.0, max(-1.0, most * bound)) for bound in found)),
        method="betting bound over items, tasks weighted alike",
        p_fail=lambda margin: bounded_mean_p_value(values, -1, 1, margin / most),
    )


def share(values: Sequence[float], confidence: float) -> Interval:
    """Bounds of a mean of values in [0, 1] over items."""
    if all(value in (0.0, 1.0) for value in values):
        return proportion_interval(round(math.fsum(values)), len(values), confidence)
    return Interval(*((v + 1) / 2 for v in mean_interval([2 * v - 1 for v in values], confidence)))


def share_p_value(values: Sequence[float], limit: float) -> float:
    """p value of "the mean of values in [0, 1] is at most `limit`", by the bounds of `share`."""
    if all(value in (0.0, 1.0) for value in values):
        return proportion_p_value(round(math.fsum(values)), len(values), limit)
    return mean_p_value([2 * v - 1 for v in values], 2 * limit - 1)


def _counts(metric: Ratio, pairing: Pairing) -> tuple[float | None, float | None]:
    """What an answer of the reference has on average, and of the candidate, where their ratio is judged."""
    parts = [part for pair in pairing.pairs.values() if (part := metric.part(pair))]
    if not metric.of_both or not parts:
        return None, None
    return math.fsum(p.weight for p in parts) / len(parts), math.fsum(p.high for p in parts) / len(parts)


def _ratio(metric: Ratio, check: Check, pairing: Pairing, context: Context) -> Estimate:
    confidence, noise = context.confidence, context.noise
    over_noise = check.margin_kind == "max_over_noise"
    by_item: dict[tuple[str, str, str], RatioPart] = {}
    for key, pair in pairing.pairs.items():
        part = metric.part(pair)
        below = metric.part(noise.pairs[key]) if over_noise else None
        if part is not None and below is not None:
            scale = part.weight / below.weight
            part = RatioPart(part.low - scale * below.high, part.high - scale * below.low, part.weight)
        if part is not None:  # repeats of an item are not independent of each other: together they are one document
            before = by_item.get(key[:3], RatioPart(0.0, 0.0, 0.0))
            by_item[key[:3]] = RatioPart(*(a + b for a, b in zip(before, part, strict=True)))
    parts = list(by_item.values())
    weights = [p.weight for p in parts]
    if isinstance(metric, BoundedMean):
        return _mean_of_documents(metric, parts, confidence, signed=over_noise)

    low, high = [p.low for p in parts], [p.high for p in parts]
    if metric.exact:
        value = math.fsum(high) / math.fsum(weights)
        least = check.margin_kind == "min"

        def exact_p(margin: float) -> float:
            return float(value >= margin if least else value <= margin)

        return Estimate(Interval(value, value, value), len(parts), "exact", exact_p)
    signed = metric.signed or over_noise
    if metric.bounded:
        budget = context.policy.most(next(iter(by_item))[0], metric.of)
        repeats = max(Counter(key[:3] for key in pairing.pairs).values())
        # A longer answer than the budget is a server's fault; it must not make a bound too narrow.
        most = float(max(budget * repeats, *weights, *(high if metric.counts else weights)))
        return _bounded(check, metric, parts, Range(most, -metric.high if signed else 0.0, metric.high), confidence)
    lower = ratio_interval(low, weights, confidence, signed=signed, high=metric.high)
    upper = ratio_interval(high, weights, confidence, signed=signed, high=metric.high)

    def p_fail(margin: float) -> float:
        if check.margin_kind == "min":
            return ratio_p_value(high, weights, margin, least=True, signed=signed, high=metric.high)
        return ratio_p_value(low, weights, margin, signed=signed, high=metric.high)

    interval = Interval(upper.estimate, lower.lower, upper.upper)
    return Estimate(interval, len(parts), "Bayesian bootstrap by document", p_fail, approximate=True)


def _bounded(check: Check, metric: Ratio, parts: Sequence[RatioPart], of: Range, confidence: float) -> Estimate:
    low, high = [part.low for part in parts], [part.high for part in parts]
    weights, least = [part.weight for part in parts], check.margin_kind == "min"
    interval = bounded_ratio(low, high, weights, of, confidence)
    keeping, breaking = (low, high) if least else (high, low)
    # A candidate as good as the reference: the same documents, with their ratio where it is for such a one.
    middle = interval.estimate
    scale, shift = (1.0, middle) if of.low else ((metric.neutral or 0.0) / middle if middle else 1.0, 0.0)
    equal = [min(of.most, scale * c - shift * w) for c, w in zip(high, weights, strict=True)]

    def needed(margin: float) -> int | None:
        keeps = middle >= margin if least else middle <= margin
        counts, side = (keeping, least) if keeps else (breaking, not least)
        chance = partial(chance_to_keep_ratio, counts, weights, of, margin, confidence=confidence, least=side)
        return documents_to_decide(chance)

    return Estimate(
        interval,
        len(parts),
        "betting bound over documents",
        lambda margin: bounded_ratio_p_value(breaking, weights, of, margin, least=least),
        power=lambda margin: chance_to_keep_ratio(equal, weights, of, margin, len(parts), confidence, least=least),
        needed=needed,
    )


def _mean_of_documents(metric: BoundedMean, parts: Sequence[RatioPart], confidence: float, *, signed: bool) -> Estimate:
    ends = (-metric.high if signed else 0.0), metric.high
    low, high = [p.low / p.weight for p in parts], [p.high / p.weight for p in parts]
    lower, upper = bounded_mean_interval(low, *ends, confidence), bounded_mean_interval(high, *ends, confidence)
    equal = [min(max(value - upper.estimate, ends[0]), ends[1]) if signed else 0.0 for value in high]

    def needed(margin: float) -> int | None:
        fails = upper.estimate > margin
        values = low if fails else high
        return documents_to_decide(lambda n: chance_to_keep_mean(values, *ends, margin, n, confidence, least=fails))

    return Estimate(
        Interval(upper.estimate, lower.lower, upper.upper),
        len(parts),
        "betting bound over documents",
        partial(bounded_mean_p_value, low, *ends),
        power=lambda margin: chance_to_keep_mean(equal, *ends, margin, len(high), confidence),
        needed=needed,
    )
