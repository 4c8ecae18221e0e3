"""What the tables of suites are made of and from: rows of words, and what a run stored of one suite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.contract.pairs import Pair
from harness.contract.samples import Role, Sample
from harness.runs.positions import PositionSummary
from reports.text import ABSENT, number, percent, points

NOT_MEASURED = "not measured"

Groups = Mapping[str, Sequence[Pair]]
"""Pairs by what a row is called."""


class Heading(NamedTuple):
    """A column, or several under one name."""

    name: str
    columns: tuple[str, ...]
    """Empty for a column by itself."""


@dataclass(frozen=True)
class Table:
    """Rows of words. A column called "Score: reference" stands under "Score", beside others that begin so."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]] = ()
    """The first cell names the row."""
    note: str = ""
    total: bool = False
    """Whether the last row is all others together."""

    @property
    def headings(self) -> list[Heading]:
        found: list[Heading] = []
        for column in self.columns:
            name, colon, part = column.partition(": ")
            if colon and found and found[-1].columns and found[-1].name == name:
                found[-1] = Heading(name, (*found[-1].columns, part))
            else:
                found.append(Heading(name, (part,) if colon else ()))
        return found

    @property
    def parts(self) -> list[tuple[str, bool]]:
        """Of each column: what it is of ("reference" of "Score: reference", "difference"), and if a gap follows."""
        found: list[tuple[str, bool]] = []
        for heading in self.headings:
            alone = heading.name.split(",")[0].lower()
            columns = heading.columns or (alone,)
            gap = bool(heading.columns) or alone == "difference"
            found += [(part, gap and part == columns[-1]) for part in columns]
        return [*found[:-1], (found[-1][0], False)] if found else []


DraftCounts = Mapping[str, Mapping[Role, Mapping[str, float]]]
"""What was drafted while a suite ran: suite -> role -> counters, named as the speculative suite's metrics are."""


@dataclass(frozen=True)
class SuiteRun:
    """What a run stored of one suite that its tables may show."""

    pairs: Sequence[Pair]
    """Those that can be compared."""
    tasks: Sequence[str] = ()
    """Planned tasks, in the order of the plan."""
    noise: Sequence[Pair] = ()
    """The reference beside itself, in the candidate's place."""
    positions: Mapping[Role, PositionSummary] = field(default_factory=dict)
    speculative: DraftCounts = field(default_factory=dict)
    kl_margin: float | None = None
    """The policy's margin on the mean KL, when it has one."""


def not_measured(title: str, why: str) -> Table:
    """A table that has nothing to show."""
    return Table(title, (), note=f"Not measured: {why}")


def with_total(groups: Groups, name: str) -> Groups:
    """The groups that have pairs, and all of them together when there are several."""
    there = {key: pairs for key, pairs in groups.items() if pairs}
    return there if len(there) < 2 else there | {name: [pair for pairs in there.values() for pair in pairs]}


def both(name: str, *more: str) -> tuple[str, ...]:
    """The columns of both roles under one name."""
    return tuple(f"{name}: {part}" for part in ("reference", "candidate", *more))


def of_roles(pairs: Sequence[Pair], said: Callable[..., str], *more: object) -> tuple[str, str]:
    """The same said of both roles' samples: `said(samples, *more)`."""
    return said([p.reference for p in pairs], *more), said([p.candidate for p in pairs], *more)


# -- numbers of samples ---------------------------------------------------------------------------------------------


def values(samples: Iterable[Sample], metric: str) -> list[float]:
    """A metric of the samples that have it."""
    return [sample.metrics[metric] for sample in samples if metric in sample.metrics]


def total(samples: Iterable[Sample], metric: str) -> float | None:
    """Its sum; None when no sample has it."""
    found = values(samples, metric)
    return sum(found) if found else None


def average(found: Sequence[float]) -> float | None:
    """Mean; None of nothing, or when it is no number."""
    return finite(sum(found) / len(found)) if found else None


def quotient(over: float | None, under: float | None) -> float | None:
    """over / under; None when either is missing, `under` is not positive, or the result is no number."""
    return None if over is None or under is None or not under > 0 else finite(over / under)


def difference(reference: float | None, candidate: float | None) -> float | None:
    """Candidate minus reference."""
    return None if reference is None or candidate is None else finite(candidate - reference)


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


# -- their words ----------------------------------------------------------------------------------------------------


def rate(samples: Sequence[Sample], metric: str) -> str:
    """Mean of a metric that is 0 or 1, as a share; of how many, when not all have it."""
    found = values(samples, metric)
    return known(average(found), len(found), len(samples))


def known(share: float | None, of: int, n: int) -> str:
    """A share of `of` answers, which is said when there are more."""
    return percent(share) if of == n or not of else f"{percent(share)} of {number(of)}"


def shares(reference: float | None, candidate: float | None, digits: int = 1) -> tuple[str, str, str]:
    """Two shares and their difference in points."""
    return percent(reference, digits), percent(candidate, digits), points(difference(reference, candidate))


def nats(value: float | None) -> str:
    """A KL divergence: four digits after the point, small ones with two that count."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return number(value, 4) if value == 0 or abs(value) >= 0.001 else f"{value:#.2g}"


def between(bounds: tuple[float | None, float | None]) -> str:
    """A lower and an upper figure, or the one that is known."""
    there = list(dict.fromkeys(nats(value) for value in bounds if finite(value) is not None))
    return " to ".join(there) if there else ABSENT


def language_of(task: str) -> str:
    """The end of a task's name: ja of hard-ja."""
    return task.rpartition("-")[2]
