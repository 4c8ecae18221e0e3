"""What a check may speak of: how each metric is read from samples, and which margins fit it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from harness.contract.pairs import Pair
from harness.contract.samples import Sample

Margin = Literal["max_loss", "max_relative_loss", "max_increase", "max", "min", "max_over_noise"]
Unit = Literal["points", "nats", "share", "ratio"]


class Reading(Protocol):
    """A value of a sample, and how a sample with such a value looks."""

    def __call__(self, sample: Sample) -> float | None: ...

    def fields(self, value: float) -> dict[str, Any]:
        """Fields of a sample that has the value."""
        ...


@dataclass(frozen=True)
class Difference:
    """Each role has a value in [0, 1] for each sample; what is judged is the mean difference of the pairs."""

    value: Reading
    margin: Literal["max_loss", "max_increase"]
    """max_loss: lower is worse. max_increase: higher is worse."""
    guard: Literal["floor", "ceiling"]
    """floor: least value of the reference that can show damage. ceiling: highest value of the candidate by itself."""
    unit: Unit = "points"

    applies: Callable[[Sample], bool] | None = None
    """Of a pair's reference: whether the metric speaks of it at all. What it does not speak of is left out, and is no
    gap; where it speaks of nothing, nothing is decided."""
    without: str = ""
    """What is said where it applies to no pair."""

    @property
    def margins(self) -> tuple[Margin, ...]:
        return (self.margin, "max_relative_loss") if self.margin == "max_loss" else (self.margin,)

    @property
    def neutral(self) -> float:
        """Value of a candidate that is like its reference."""
        return 0.0


class RatioPart(NamedTuple):
    """What one pair adds to a ratio of sums. The two sums differ where a pair only bounds its value."""

    low: float
    high: float
    weight: float


@dataclass(frozen=True)
class Ratio:
    """Each pair adds to two sums; what is judged is their ratio."""

    part: Callable[[Pair], RatioPart | None]
    margins: tuple[Margin, ...]
    unit: Unit
    neutral: float | None
    """Value of a candidate that is like its reference; None where the value is the candidate's alone."""
    signed: bool = False
    """Whether a pair's value may be negative."""
    high: float = float("inf")
    """Largest value that is possible."""
    exact: bool = False
    """Measured without error (a file's size): no interval is needed."""
    sums: tuple[str, str, str] | None = None
    """Where the part is the candidate's alone: the metrics of its sample that hold it. The weight is a number of
    tokens, of one answer at most."""
    counts: Reading | None = None
    """Where the part is a count of each role, from 1 to what one answer may have: how it is read."""
    of: Literal["tokens", "steps"] = "tokens"
    """What is counted, or weighs."""

    @property
    def bounded(self) -> bool:
        """Whether a pair's part has a known range: then the bounds hold for every distribution."""
        return self.counts is not None or (self.sums is not None and math.isfinite(self.high))

    @property
    def of_both(self) -> bool:
        """Whether the candidate's count is divided by the reference's: the part and the weight are what each has."""
        return self.unit == "ratio" and self.neutral is not None

    @property
    def equal(self) -> float | None:
        """What a check's power is asked at: `neutral`; None where there is no such value, or nothing is uncertain."""
        return None if self.exact else self.neutral


@dataclass(frozen=True)
class BoundedMean(Ratio):
    """Each document has a mean over its positions, in [0, high]; what is judged is the mean over documents, in which
    all count alike, by bounds that hold for every distribution. `high`, the cap, is the worst that a gap can be."""


KL_CAP = 1.0
"""Nats that a position's KL counts as at most in kl_capped_mean: e times as likely, on average, by the reference. A
larger cap needs more documents: what was not seen may be as large as the cap."""


class _Score:
    def __call__(self, sample: Sample) -> float | None:
        return sample.score

    def fields(self, value: float) -> dict[str, Any]:
        return {"score": value}


class _Truncated:
    def __call__(self, sample: Sample) -> float | None:
        return None if sample.finish_reason is None else float(sample.finish_reason == "length")

    def fields(self, value: float) -> dict[str, Any]:
        return {"finish_reason": "length" if value else "stop"}


class _Tokens:
    def __call__(self, sample: Sample) -> float | None:
        return sample.completion_tokens

    def fields(self, value: float) -> dict[str, Any]:
        return {"completion_tokens": int(value)}


@dataclass(frozen=True)
class _stored:
    """A value of at most `most` that the suite put into the sample's metrics."""

    name: str
    most: float = 1.0

    def __call__(self, sample: Sample) -> float | None:
        value = sample.metrics.get(self.name)
        return value if value is not None and 0 <= value <= self.most else None

    def fields(self, value: float) -> dict[str, Any]:
        return {"metrics": {self.name: value}}


def _of_candidate(low: str, high: str, weight: str) -> Callable[[Pair], RatioPart | None]:
    def read(pair: Pair) -> RatioPart | None:
        found = pair.candidate.metrics
        if not {low, high, weight} <= found.keys() or found[weight] <= 0:
            return None
        return RatioPart(found[low], found[high], found[weight])

    return read


def _share(count: str, weight: str) -> Ratio:
    """Share of the candidate's tokens that are something."""
    sums = (count, count, weight)
    return Ratio(_of_candidate(*sums), OVER_NOISE, "share", 0.0, high=1.0, sums=sums)


def _bounded(name: str, unit: Unit, cap: float) -> BoundedMean:
    sums = (f"{name}_lower_sum", f"{name}_upper_sum", "positions")
    of_candidate = _of_candidate(*sums)

    def read(pair: Pair) -> RatioPart | None:
        part = of_candidate(pair)
        within = part and 0 <= part.low <= part.high <= cap * part.weight * (1 + 1e-9)
        return part if within else None

    return BoundedMean(read, OVER_NOISE, unit, 0.0, high=cap, sums=sums)


def _closed_thinking(reference: Sample) -> bool:
    """Not known (an older sample): yes, so that what is missing is counted."""
    return reference.metrics.get("thinking_closed", 1.0) > 0


def _candidate_to_reference(value: Reading) -> Callable[[Pair], RatioPart | None]:
    def read(pair: Pair) -> RatioPart | None:
        reference, candidate = value(pair.reference), value(pair.candidate)
        if reference is None or candidate is None or reference <= 0 or candidate < 0:
            return None
        return RatioPart(candidate, candidate, reference)

    return read


def _count(value: Reading, of: Literal["tokens", "steps"]) -> Ratio:
    """What the candidate's answers have, to what the reference's have."""
    return Ratio(_candidate_to_reference(value), ("max", "min"), "ratio", 1.0, counts=value, of=of)


def _acceptance_loss(pair: Pair) -> RatioPart | None:
    """Accepted of the tokens that the draft head proposed, reference - candidate, weighted by the fewer proposals."""
    rates, weight = [], float("inf")
    for sample in pair:
        drafted, accepted = sample.metrics.get("draft_tokens", 0.0), sample.metrics.get("accepted_tokens", -1.0)
        if drafted <= 0 or not 0 <= accepted <= drafted:
            return None
        rates.append(accepted / drafted)
        weight = min(weight, drafted)
    loss = (rates[0] - rates[1]) * weight
    return RatioPart(loss, loss, weight)


def _accepted_length(pair: Pair) -> RatioPart | None:
    """Tokens of the candidate's steps that had a draft, 1 + accepted of each, over these steps."""
    found = pair.candidate.metrics
    drafts, accepted = found.get("drafts", 0.0), found.get("accepted_tokens", -1.0)
    if drafts <= 0 or not 0 <= accepted <= found.get("draft_tokens", 0.0):
        return None
    return RatioPart(drafts + accepted, drafts + accepted, drafts)


OVER_NOISE: tuple[Margin, ...] = ("max", "max_over_noise")
KL_SUMS = ("kl_lower_sum", "kl_upper_sum", "positions")

METRICS: dict[str, Difference | Ratio] = {
    "accuracy": Difference(_Score(), "max_loss", "floor"),
    "resolved": Difference(_Score(), "max_loss", "floor"),
    "truncated_rate": Difference(_Truncated(), "max_increase", "ceiling"),
    "unterminated_rate": Difference(_stored("unterminated"), "max_increase", "ceiling"),
    "looped_rate": Difference(_stored("looped"), "max_increase", "ceiling"),
    "wrong_language_rate": Difference(_stored("wrong_language"), "max_increase", "ceiling"),
    "uncommitted_rate": Difference(_stored("uncommitted"), "max_increase", "ceiling"),
    "wrong_reasoning_language_rate": Difference(_stored("wrong_reasoning_language"), "max_increase", "ceiling"),
    "garbled_rate": Difference(_stored("garbled"), "max_increase", "ceiling"),
    "unsubmitted_rate": Difference(_stored("unsubmitted"), "max_increase", "ceiling"),
    "format_error_rate": Difference(_stored("format_error_rate"), "max_increase", "ceiling"),
    "end_of_thinking": Difference(
        _stored("end_of_thinking"),
        "max_loss",
        "floor",
        applies=_closed_thinking,
        without="not applicable: the reference closed no thinking in any answer",
    ),
    "tv_mean": _bounded("tv", "share", 1.0),
    "js_mean": _bounded("js", "nats", math.log(2)),
    "kl_capped_mean": _bounded("kl_capped", "nats", KL_CAP),
    "kl_mean": Ratio(_of_candidate(*KL_SUMS), OVER_NOISE, "nats", 0.0, sums=KL_SUMS),
    "flip_rate": _share("flips", "positions"),
    "parting_rate": _share("diverged", "decode_positions"),
    "length_ratio": _count(_Tokens(), "tokens"),
    "steps_ratio": _count(_stored("steps", math.inf), "steps"),
    "acceptance": Ratio(_acceptance_loss, ("max_loss",), "points", 0.0, signed=True, high=1.0),
    "accepted_length": Ratio(_accepted_length, ("min",), "ratio", None),
    "bytes_ratio": Ratio(_candidate_to_reference(_stored("bytes", math.inf)), ("max",), "ratio", 1.0, exact=True),
    "speed_ratio": Ratio(_candidate_to_reference(_stored("tokens_per_second", math.inf)), ("min",), "ratio", 1.0),
}
"""accuracy, resolved: score of a sample. The rates: share of answers cut by the budget, whose thinking never closed,
that repeat themselves, that are in another language than asked for or whose thinking is, with words of mixed scripts or
broken characters, that reached an answer in their thinking and did not commit to it; of agents' trajectories that ended
otherwise than by submitting, and of their steps without a usable command. end_of_thinking: probability of the closing
tag where the reference closed its thinking. tv_mean, js_mean, kl_capped_mean: total variation, Jensen-Shannon
divergence and KL of a position, of KL at most KL_CAP nats, along the reference's trajectories, every trajectory counted
alike. kl_mean, flip_rate: there too, every position counted alike. parting_rate: share of greedily written tokens at
which an answer leaves the reference's. length_ratio: tokens of the candidate to those of the reference; steps_ratio: an
agent's steps likewise. acceptance: loss of the share of drafted tokens that were accepted. accepted_length: mean number
of tokens that a step with a draft gives, of the candidate alone: 1 + accepted / drafts, 1 is a draft head that never
helps. bytes_ratio, speed_ratio: candidate to reference."""
