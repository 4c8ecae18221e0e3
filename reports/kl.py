"""How far the two distributions lie apart, summed over positions of answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.contract.pairs import Pair
from harness.contract.samples import Sample


@dataclass(frozen=True)
class Document:
    """One trajectory that both models scored. KL is in nats a position."""

    name: str
    positions: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class KlSummary:
    """KL over all positions of all documents, in nats a position."""

    documents: list[Document]
    without_metrics: int
    positions: float
    lower: float | None
    upper: float | None
    margin: float | None = None
    """The policy's margin on the mean, when it has one."""


def kl_summary(pairs: Sequence[Pair], margin: float | None = None) -> KlSummary:
    """What the candidate's samples say of the distance to the reference."""
    samples = [pair.candidate for pair in pairs]
    measured = [s for s in samples if _measured(s)]
    one_task = len({s.task for s in samples}) == 1
    documents = [
        Document(
            _name(sample, one_task),
            sample.metrics["positions"],
            per_position([sample], "kl_lower_sum"),
            per_position([sample], "kl_upper_sum"),
        )
        for sample in measured
    ]
    return KlSummary(
        documents=sorted(documents, key=lambda d: -(d.upper if d.upper is not None else d.lower or 0.0)),
        without_metrics=len(samples) - len(measured),
        positions=sum(document.positions for document in documents),
        lower=per_position(measured, "kl_lower_sum"),
        upper=per_position(measured, "kl_upper_sum"),
        margin=margin,
    )


def per_position(samples: Iterable[Sample], name: str, part: str = "") -> float | None:
    """A metric that is a sum over positions, per position of the samples that have it; None when none has.

    `part` names the positions: "" all of them, "@0-1k" those of a bucket.
    """
    there = [
        (sample.metrics[name + part], sample.metrics[f"positions{part}"])
        for sample in samples
        if name + part in sample.metrics and sample.metrics.get(f"positions{part}", 0.0) > 0
    ]
    return sum(value for value, _ in there) / sum(count for _, count in there) if there else None


def per_document(samples: Iterable[Sample], name: str) -> float | None:
    """A metric that is a sum over positions, per position of each sample: the mean of these; None when none has it."""
    found = [value for sample in samples if (value := per_position([sample], name)) is not None]
    return math.fsum(found) / len(found) if found else None


def _measured(sample: Sample) -> bool:
    metrics = sample.metrics
    return metrics.get("positions", 0.0) > 0 and ("kl_lower_sum" in metrics or "kl_upper_sum" in metrics)


def _name(sample: Sample, one_task: bool) -> str:
    name = sample.item if one_task else f"{sample.task}/{sample.item}"
    return name if sample.repeat == 0 else f"{name}/{sample.repeat}"
