"""Speculative decoding: how many drafted tokens were accepted, by task, by position in the draft, and by suite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.contract.samples import Sample
from reports.scores import by_task
from reports.suite_tables.table import (
    DraftCounts,
    SuiteRun,
    Table,
    both,
    not_measured,
    quotient,
    shares,
    total,
    with_total,
)
from reports.text import number

TITLE = "Drafted tokens that were accepted"
NOTE = "Accepted length: tokens that a step gives, its own and those accepted. At 1.00 the draft head does not work."

_POSITION = re.compile(r"accepted_pos_([0-9]{1,3})")

Counts = Mapping[str, float]
"""drafts, draft_tokens, accepted_tokens, accepted_pos_0 ..."""


def tables(run: SuiteRun) -> list[Table]:
    """Acceptance of both roles in this suite's answers, then in all suites by the servers' counters."""
    groups = {name: (counts(r), counts(c)) for name, (r, c) in _samples(run).items()}
    of_servers = by_suite(run.speculative)
    own = [_by_task(groups), *_by_position(groups)] if run.pairs or not of_servers else []  # no suite need have run
    return [*own, *of_servers]


def _samples(run: SuiteRun) -> dict[str, tuple[list[Sample], list[Sample]]]:
    found = with_total(by_task(run.pairs, run.tasks), "all tasks")
    return {name: ([p.reference for p in pairs], [p.candidate for p in pairs]) for name, pairs in found.items()}


def counts(samples: Sequence[Sample]) -> dict[str, float]:
    """Counters summed over samples."""
    names = {name for sample in samples for name in sample.metrics if name in _COUNTED or _POSITION.fullmatch(name)}
    return {name: total(samples, name) or 0.0 for name in names} | {"n": float(len(samples))}


_COUNTED = ("drafts", "draft_tokens", "accepted_tokens")


def _by_task(groups: Mapping[str, tuple[Counts, Counts]]) -> Table:
    if not any(role.get("draft_tokens") for roles in groups.values() for role in roles):
        return not_measured(TITLE, "neither server drafted a token in this suite's answers.")
    rows = [(name, number(roles[0]["n"]), *_cells(*roles)) for name, roles in groups.items()]
    return Table(TITLE, ("Task", "n", *_COLUMNS), rows, NOTE, total=len(rows) > 1)


_COLUMNS = (*both("Accepted"), "Difference, points", *both("Accepted length"), *both("Drafted tokens"))


def _cells(reference: Counts, candidate: Counts) -> tuple[str, ...]:
    roles = (reference, candidate)
    of_reference, of_candidate = (quotient(c.get("accepted_tokens"), c.get("draft_tokens")) for c in roles)
    more = [quotient(c.get("accepted_tokens"), c.get("drafts")) for c in roles]
    return (
        *shares(of_reference, of_candidate),
        *(number(None if value is None else 1 + value, 2) for value in more),
        *(number(c.get("draft_tokens")) for c in roles),
    )


def _by_position(groups: Mapping[str, tuple[Counts, Counts]]) -> list[Table]:
    roles = list(groups.values())[-1] if groups else ({}, {})  # all tasks together, or the only one
    places = sorted({int(match[1]) for counters in roles for name in counters if (match := _POSITION.fullmatch(name))})
    rows = []
    for place in places:
        accepted = [quotient(counters.get(f"accepted_pos_{place}"), counters.get("drafts")) for counters in roles]
        rows.append((number(place + 1), *shares(accepted[0], accepted[1])))
    columns = ("Position in the draft", *both("Accepted"), "Difference, points")
    note = "Share of drafts whose token at this position was accepted."
    return [Table("Acceptance by position", columns, rows, note)] if rows else []


def by_suite(speculative: DraftCounts) -> list[Table]:
    """Acceptance while each suite ran; none when nothing was counted."""
    rows = [
        (suite, *_cells(roles.get("reference", {}), roles.get("candidate", {})))
        for suite, roles in speculative.items()
        if any(counters.get("draft_tokens", 0.0) > 0 for counters in roles.values())
    ]
    return [Table("Acceptance by suite", ("Suite", *_COLUMNS), rows, NOTE)] if rows else []
