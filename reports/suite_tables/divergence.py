"""Divergence: how far the candidate's next-token distribution lies from the reference's, beside the noise floor.

Means are sums of the samples' metrics, so those that checks judge; percentiles need every position and are read from
the files (harness/runs/positions.py), where these are still there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness.contract.metrics import KL_CAP
from harness.contract.pairs import Pair
from harness.contract.samples import Sample
from harness.runs.positions import BUCKETS, CONFIDENCES, PositionStats, PositionSummary
from reports.kl import per_document, per_position
from reports.suite_tables.table import (
    NOT_MEASURED,
    SuiteRun,
    Table,
    average,
    between,
    finite,
    language_of,
    not_measured,
    total,
    values,
)
from reports.text import ABSENT, number, percent

TITLE = "Distance to the reference's distribution"


class ComparedRole(NamedTuple):
    """What is known of one role that was compared with the reference."""

    samples: Sequence[Sample]
    summary: PositionSummary | None

    @property
    def stats(self) -> PositionStats | None:
        return self.summary.total if self.summary else None


def tables(run: SuiteRun) -> list[Table]:
    """All figures of the whole, then KL and flips by position, by how sure the reference was, by language and by kind
    of prompt, and how likely thinking was to end where it did."""
    roles = [ComparedRole(_compared(run.pairs), run.positions.get("candidate"))]
    if not roles[0].samples:
        return [not_measured(TITLE, "no sample was compared with the reference.")]
    noise = ComparedRole(_compared(run.noise), run.positions.get("noise"))
    if noise.samples:
        roles.append(noise)
    parts = [
        *_by_position(roles),
        *_by_confidence(roles),
        *_by_task(roles, "Language"),
        *_by_task(roles, "Kind of prompt"),
    ]
    return [_whole(roles), *parts, *_end_of_thinking(run)]


def _compared(pairs: Sequence[Pair]) -> list[Sample]:
    return [pair.candidate for pair in pairs if pair.candidate.metrics.get("positions", 0.0) > 0]


# -- the whole ------------------------------------------------------------------------------------------------------


def _whole(roles: Sequence[ComparedRole]) -> Table:
    rows = [(name, *(_measured(said(role)) for role in roles)) for name, said in FIGURES.items()]
    note = "From a lower to an upper figure where lists of likeliest tokens leave it open. Positions of one answer are "
    note += "not independent: bounds are drawn over answers, in the checks."
    stats, counted = roles[0].stats, total(roles[0].samples, "positions")
    if stats is None:
        note += " Percentiles are read from the files under divergence/; there are none that can be."
    elif stats.positions != counted:
        note += f" Percentiles are of the {number(stats.positions)} positions stored under divergence/."
    return Table(TITLE, ("", "Candidate", "Noise floor")[: 1 + len(roles)], rows, note)


def _measured(said: str) -> str:
    return NOT_MEASURED if said == ABSENT else said


def _mean(role: ComparedRole) -> str:
    return between((per_position(role.samples, "kl_lower_sum"), per_position(role.samples, "kl_upper_sum")))


def _of_documents(name: str) -> Callable[[ComparedRole], str]:
    return lambda role: between(
        (per_document(role.samples, f"{name}_lower_sum"), per_document(role.samples, f"{name}_upper_sum"))
    )


def _percentile(name: str) -> Callable[[ComparedRole], str]:
    return lambda role: between(getattr(role.stats, name)) if role.stats else ABSENT


def _largest(role: ComparedRole) -> str:
    found = [values(role.samples, f"kl_{side}_max") for side in ("lower", "upper")]
    return between((max(found[0], default=None), max(found[1], default=None)))


def _mean_change(role: ComparedRole) -> str:
    return _signed(per_position(role.samples, "delta_p_sum"))


def _rms_change(role: ComparedRole) -> str:
    square = finite(per_position(role.samples, "delta_p_squared_sum"))
    return ABSENT if square is None or square < 0 else percent(math.sqrt(square), 2)


def _same(role: ComparedRole) -> str:
    flips = per_position(role.samples, "flips")
    return ABSENT if flips is None else percent(1 - flips, 2)


def _flips(name: str) -> Callable[[ComparedRole], str]:
    def said(role: ComparedRole) -> str:
        share = percent(per_position(role.samples, name), 2)
        return share if share == ABSENT else f"{share} ({number(total(role.samples, name))})"

    return said


def _perplexity(role: ComparedRole) -> str:
    both = [per_position(role.samples, f"nll_{name}_sum") for name in ("candidate", "reference")]
    if both[0] is None or both[1] is None or finite(both[0] - both[1]) is None:
        return ABSENT
    return number(math.exp(min(both[0] - both[1], 700.0)), 4)


def _signed(value: float | None) -> str:
    return percent(value, 2)


FIGURES: dict[str, Callable[[ComparedRole], str]] = {
    "Answers": lambda role: number(len(role.samples)),
    "Positions": lambda role: number(total(role.samples, "positions")),
    "Mean KL, nats a position": _mean,
    f"KL of at most {KL_CAP:g} nat, mean of answers": _of_documents("kl_capped"),
    "Total variation, mean of answers": _of_documents("tv"),
    "Jensen–Shannon in nats, mean of answers": _of_documents("js"),
    "Median KL": _percentile("kl_median"),
    "99 % of positions below": _percentile("kl_p99"),
    "99.9 % of positions below": _percentile("kl_p999"),
    "Largest KL": _largest,
    "Mean change of the token's probability": _mean_change,
    "RMS change of the token's probability": _rms_change,
    "Same likeliest token": _same,
    "Flips of the likeliest token": _flips("flips"),
    "Flips where the reference was sure": _flips("confident_flips"),
    "Perplexity ÷ the reference's": _perplexity,
    "Probability on shared top tokens": lambda role: percent(per_position(role.samples, "captured_mass_sum"), 2),
}


# -- its parts ------------------------------------------------------------------------------------------------------


class PositionGroup(NamedTuple):
    """Some positions: of each role its samples, the suffix of their metrics, and what the files say."""

    name: str
    samples: list[Sequence[Sample]]
    suffix: str
    stats: PositionStats | None


def _by_position(roles: Sequence[ComparedRole]) -> list[Table]:
    summary = roles[0].summary
    parts = [
        PositionGroup(
            name, [role.samples for role in roles], f"@{name}", summary.by_bucket.get(name) if summary else None
        )
        for name in BUCKETS
    ]
    return _parts("By position in the answer", "Position", parts)


def _by_confidence(roles: Sequence[ComparedRole]) -> list[Table]:
    parts = [PositionGroup(name, [role.samples for role in roles], f"@{name}", None) for name in CONFIDENCES]
    return _parts("By the reference's probability of its likeliest token", "Probability", parts)


def _by_task(roles: Sequence[ComparedRole], first: str) -> list[Table]:
    tasks = {sample.task for sample in roles[0].samples}
    if not all("-" in task for task in tasks):  # one task of everything, as older runs have
        return []
    of = language_of if first == "Language" else _kind_of
    summary = roles[0].summary
    known = (summary.by_language if first == "Language" else summary.by_kind) if summary else {}
    parts = [
        PositionGroup(name, [[s for s in role.samples if of(s.task) == name] for role in roles], "", known.get(name))
        for name in sorted({of(task) for task in tasks})
    ]
    return _parts(f"By {first.lower()}", first, parts)


def _kind_of(task: str) -> str:
    return task.rpartition("-")[0]


def _parts(title: str, first: str, parts: Sequence[PositionGroup]) -> list[Table]:
    there = [part for part in parts if total(part.samples[0], f"positions{part.suffix}")]
    with_noise, with_stats = any(len(part.samples) > 1 for part in there), any(part.stats for part in there)
    columns = (
        first,
        "Positions",
        "Mean KL, nats",
        *(("99 % below",) if with_stats else ()),
        "Flips",
        "Flips where sure",
        *(("Mean KL of the noise floor",) if with_noise else ()),
    )
    rows = [
        (
            part.name,
            number(total(part.samples[0], f"positions{part.suffix}")),
            _kl(part.samples[0], part.suffix),
            *((between(part.stats.kl_p99) if part.stats else ABSENT,) if with_stats else ()),
            percent(per_position(part.samples[0], "flips", part.suffix), 2),
            percent(per_position(part.samples[0], "confident_flips", part.suffix), 2),
            *((_kl(part.samples[1], part.suffix),) if with_noise else ()),
        )
        for part in there
    ]
    return [Table(title, columns, rows)] if rows else []


def _kl(samples: Sequence[Sample], suffix: str) -> str:
    return between((per_position(samples, "kl_lower_sum", suffix), per_position(samples, "kl_upper_sum", suffix)))


# -- the end of thinking --------------------------------------------------------------------------------------------


def _end_of_thinking(run: SuiteRun) -> list[Table]:
    known = [pair for pair in run.pairs if "thinking_closed" in pair.reference.metrics]
    if not known:  # measured by an older version, or without a tokenizer
        return []
    title = "The end of thinking"
    closed = [pair for pair in known if "end_of_thinking" in pair.reference.metrics]
    if not closed:
        return [Table(title, (), note="Not applicable: the reference closed no thinking in any answer.")]
    noise = [pair for pair in run.noise if "end_of_thinking" in pair.reference.metrics]
    sides = {
        "Reference": [pair.reference for pair in closed],
        "Candidate": [pair.candidate for pair in closed],
        **({"Noise floor": [pair.candidate for pair in noise]} if noise else {}),
    }
    rows = []
    for name, samples in sides.items():
        found = values(samples, "end_of_thinking")
        rows.append((name, number(len(found)), percent(average(found), 2), percent(min(found, default=None), 2)))
    note = "Probability of the closing tag where the reference closed its thinking, of each role on the same text. The "
    note += "reference chose these places, so that a candidate as good as it may lie a little below."
    return [Table(title, ("", "Answers that closed it", "Mean probability", "Smallest"), rows, note)]
