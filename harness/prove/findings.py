"""What came of an entry: what the gate said, and whether that is what had been stated."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.judging.results import CheckResult, Outcome, show
from harness.judging.verdict import EXIT_CODES, Verdict
from harness.prove.entries import HARMLESS, Entry, Family

Status = Literal["caught", "caught otherwise", "undecided", "missed", "harmless", "false alarm", "not run"]
SCHEMA_VERSION = 2


class Finding(BaseModel):
    """One entry of the catalogue, and what came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: Family
    damage: str
    expected: str
    status: Status
    exit_code: int | None = None
    """Of the gate; None where it was not run."""
    verdict: Outcome | None = None
    reason: str = ""
    """The gate's own words, or why the entry was not run."""
    checks: list[CheckResult] = []
    doubts: list[str] = []
    """About the candidate's checkpoint, which decide nothing."""
    seconds: float = 0.0
    processor_seconds: float = 0.0
    """Of the gate and its servers, as far as they ended by themselves: what a busy machine does not lengthen."""
    seeds: list[Status] = []
    """What came of it with further seeds, each against a control of its own."""

    @property
    def harmless(self) -> bool:
        return self.expected == str(HARMLESS)

    @property
    def well(self) -> bool:
        """Whether it is as it must be, with every seed: stopped where it is harmful, not stopped where it is not."""
        ran = [status for status in (self.status, *self.seeds) if status != "not run"]
        if self.harmless:
            return "false alarm" not in ran
        return all(status in ("caught", "caught otherwise") for status in ran)


class Weakest(BaseModel):
    """Of a defect of which there is more or less: the weakest dose that is caught, found by bisection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    damage: str
    caught: str | None
    """In words; None: not even the strongest one."""
    not_caught: str | None
    """The step below it; None: the weakest one is caught."""
    tried: dict[str, Status]
    """Doses that were gated, in words, and what came of each."""


class Proof(BaseModel):
    """Everything that one `quantgate prove` found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    quantgate_version: str
    command: str
    model: str
    model_sha256: str
    policy: str
    policy_sha256: str
    machine: str
    seeds: int = 1
    findings: list[Finding]
    weakest: list[Weakest] = []

    @property
    def holds(self) -> bool:
        """Whether of all that were run every harmful candidate is stopped and no harmless one is."""
        return all(finding.well for finding in self.findings if finding.status != "not run")

    @property
    def columns(self) -> list[str]:
        """Names of the policy's checks, in its order."""
        names = [f"{check.metric} on {check.on}" for finding in self.findings for check in finding.checks]
        return list(dict.fromkeys(names))


def not_run(entry: Entry, why: str) -> Finding:
    """An entry of which nothing is known."""
    return _finding(entry, "not run", reason=why)


def of_verdict(entry: Entry, verdict: Verdict, doubts: list[str], seconds: float) -> Finding:
    """An entry whose candidate was judged."""
    return _finding(
        entry,
        status_of(entry, verdict, verdict.reason, EXIT_CODES[verdict.verdict]),
        exit_code=EXIT_CODES[verdict.verdict],
        verdict=verdict.verdict,
        reason=verdict.reason,
        checks=verdict.checks,
        doubts=doubts,
        seconds=round(seconds, 1),
    )


def of_refusal(entry: Entry, exit_code: int, reason: str, seconds: float, log: str = "") -> Finding:
    """An entry at which the gate ended without a verdict; `log` is the candidate's server's."""
    status = status_of(entry, None, f"{reason}\n{log}", exit_code)
    return _finding(entry, status, exit_code=exit_code, reason=reason, seconds=round(seconds, 1))


def status_of(entry: Entry, verdict: Verdict | None, reason: str, exit_code: int) -> Status:
    """Whether what was stated came true.

    A harmful candidate is caught where the gate ends as stated and names what was stated; FAIL or exit 3 for another
    reason stop it too. INCONCLUSIVE publishes nothing, but it is no discovery unless what was stated is named.
    A run that failed (exit 4) says nothing of either, unless just that was stated.
    """
    kind, names = entry.expected.kind, entry.expected.names
    if exit_code == 4:
        return "caught" if kind == "unserved" and names in reason else "not run"
    if kind == "harmless":
        return {0: "harmless", 2: "undecided"}.get(exit_code, "false alarm")  # type: ignore[return-value]
    broken = {c.metric for c in (verdict.checks if verdict else ()) if c.verdict == "FAIL" and c.after_holm}
    as_stated = {
        "refused": exit_code == 3 and names in reason,
        "fail": exit_code == 1 and names in broken,
        "inconclusive": exit_code == 2 and names in reason,
        "unserved": False,
    }
    if as_stated[kind]:
        return "caught"
    return {0: "missed", 2: "undecided"}.get(exit_code, "caught otherwise")  # type: ignore[return-value]


def cell(finding: Finding, column: str) -> str:
    """What one check said of a candidate: of FAIL by how much, the bound that breaks the margin beside the margin."""
    check = next((c for c in finding.checks if f"{c.metric} on {c.on}" == column), None)
    if check is None:
        return ""
    if check.verdict != "FAIL":
        return {"PASS": "pass", "INCONCLUSIVE": "open"}[check.verdict]
    margin, least = show(check.unit, check.margin), check.margin_kind == "min"
    bound = check.upper if least else check.lower
    sign = "<" if least else ">"
    found = "FAIL" if check.after_holm or check.advisory else "FAIL alone"
    return found if bound is None else f"{found}: {show(check.unit, bound)} {sign} {margin}"


def _finding(entry: Entry, status: Status, **fields: object) -> Finding:
    stated = {"name": entry.name, "family": entry.family, "damage": entry.damage, "expected": str(entry.expected)}
    return Finding.model_validate(stated | {"status": status} | fields)
