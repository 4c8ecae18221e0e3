"""The instances of SWE-bench as the report lists them: how each ended for both roles, with a link to its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.contract.samples import ROLES, Role, Sample
from harness.runs.instances import BROKEN, OUTCOMES, SUITE
from reports.suite_tables.swebench import exit_status
from reports.suite_tables.table import Table, both
from reports.text import ABSENT, number
from reports.view import Report

NOT_RUN = "not run"
REFERENCE_ONLY, CANDIDATE_ONLY = "reference only", "candidate only"


@dataclass(frozen=True)
class Ended:
    """How an instance ended for one role, by its sample."""

    outcome: str = NOT_RUN
    exit_status: str = ABSENT
    steps: float | None = None

    @property
    def resolved(self) -> bool | None:
        """None when it was not graded."""
        return None if self.outcome in (NOT_RUN, BROKEN) else self.outcome == "resolved"


@dataclass
class Instance:
    """One instance of both roles."""

    name: str
    ended: dict[Role, Ended] = field(default_factory=dict)

    def of(self, role: Role) -> Ended:
        return self.ended.get(role, Ended())

    @property
    def resolved_by(self) -> str:
        """Which roles resolved it, in a word; a dash when one was not graded."""
        reference, candidate = (self.of(role).resolved for role in ROLES)
        if reference is None or candidate is None:
            return ABSENT
        if reference == candidate:
            return "both" if reference else "neither"
        return REFERENCE_ONLY if reference else CANDIDATE_ONLY


@dataclass(frozen=True)
class LinkedTable(Table):
    """A table whose rows have pages of their own."""

    links: Sequence[str | None] = ()
    """Of each row, relative to index.html."""


def instances(samples: Iterable[Sample], planned: Iterable[str] = ()) -> list[Instance]:
    """Every planned instance, or every one with a sample where no plan is known; those worth a look first."""
    found = {name: Instance(name) for name in planned}
    open_plan = not found
    for sample in samples:
        if sample.suite != SUITE or sample.role not in ROLES:
            continue
        instance = found.setdefault(sample.item, Instance(sample.item)) if open_plan else found.get(sample.item)
        if instance is not None:
            instance.ended.setdefault(sample.role, _ended(sample))
    return sorted(found.values(), key=lambda instance: (_rank(instance), instance.name))


def _ended(sample: Sample) -> Ended:
    if sample.error or sample.score is None:
        outcome = BROKEN
    else:
        outcome = sample.answer if sample.answer in OUTCOMES else "resolved" if sample.score == 1 else "unresolved"
    return Ended(outcome, exit_status(sample), sample.metrics.get("steps"))


def _rank(instance: Instance) -> int:
    """Lost instances first, then won ones, errors, other differences, and what ended alike; last what nobody ran."""
    if instance.resolved_by in (REFERENCE_ONLY, CANDIDATE_ONLY):
        return (REFERENCE_ONLY, CANDIDATE_ONLY).index(instance.resolved_by)
    reference, candidate = (instance.of(role) for role in ROLES)
    if BROKEN in (reference.outcome, candidate.outcome):
        return 2
    if reference.outcome != candidate.outcome:
        return 3
    if reference.exit_status != candidate.exit_status:
        return 4
    return 6 if reference.outcome == NOT_RUN else 5


def with_instances(
    report: Report, found: Sequence[Instance], links: Mapping[str, str], remark: str = "", linked: bool = True
) -> Report:
    """The report with its instances: outcomes behind the suite's first table, the list of all behind the last."""
    last = listed(found, links, linked)
    suites = [
        replace(suite, tables=[*suite.tables[:1], outcomes(found, remark), *suite.tables[1:], last])
        if suite.name == SUITE and found
        else suite
        for suite in report.suites
    ]
    return replace(report, suites=suites)


def outcomes(found: Sequence[Instance], remark: str = "") -> Table:
    """How many instances ended in which way; `remark` says what ran them."""
    counts = [Counter(instance.of(role).outcome for instance in found) for role in ROLES]
    rows = [
        (name, *(number(count[name]) for count in counts))
        for name in (*OUTCOMES, NOT_RUN)
        if name != NOT_RUN or any(count[name] for count in counts)
    ]
    note = " ".join(("All instances. An infrastructure error is never counted against a model.", remark)).strip()
    return Table("Outcomes", ("Outcome", *both("Instances")), rows, note)


def listed(found: Sequence[Instance], links: Mapping[str, str], linked: bool = True) -> LinkedTable:
    """Every instance with its outcomes, exit statuses, steps and its page, which need not be `linked`."""
    rows = []
    for instance in found:
        roles = [instance.of(role) for role in ROLES]
        rows.append(
            (
                instance.name,
                instance.resolved_by,
                *(ended.outcome for ended in roles),
                *(ended.exit_status for ended in roles),
                *(number(ended.steps) for ended in roles),
            )
        )
    columns = ("Instance", "Resolved by", *both("Outcome"), *both("Exit status"), *both("Steps"))
    there = sum(instance.name in links for instance in found)
    note = "The run folder holds no trajectories of them."
    if there:
        opens = "A name opens" if linked else f"Pages in the run's folder, report/{SUITE}/, show"
        note = f"Those that only one role resolved come first. {opens} both trajectories, patches and test results."
    places = [links.get(instance.name) for instance in found] if linked else []
    return LinkedTable("Instances", columns, rows, note, links=places)
