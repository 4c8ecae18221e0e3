"""The shape of report.json. Its JSON schema is docs/report.schema.json:

python -m reports.formats.report_schema >docs/report.schema.json
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from harness.contract.samples import Role
from harness.judging.results import CheckResult
from reports.provenance import FactState

SCHEMA_VERSION: Literal[1] = 1
"""Goes up when a field is removed or changes its meaning. New fields may come without that: read what you know."""

OutcomeJson = Literal["PASS", "FAIL", "INCONCLUSIVE", "NOT JUDGED"]


class PartJson(BaseModel):
    """Everything in report.json: fields are described by the text under them."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Decision(PartJson):
    """What was decided. Only PASS publishes."""

    outcome: OutcomeJson
    """NOT JUDGED: there is no verdict that can be read."""
    sentence: str
    """Why, in one sentence."""
    exit_code: int | None
    """What `quantgate gate` and `quantgate judge` end with; null when not judged."""
    after_the_fact: bool
    """Judged with another policy than the sealed one."""
    checks: dict[str, int]
    """Number of checks by verdict."""


class PolicySeal(PartJson):
    """The policy that decided."""

    name: str
    sha256: str
    sealed_sha256: str
    """Of the policy that was sealed into the run before the first request."""
    confidence: float | None
    """One-sided, of every bound; null where checks differ."""
    sampling: dict[str, str]
    """Where a suite sets no other."""


class ModelJson(PartJson):
    """One checkpoint, by its own files."""

    name: str
    sha256: str | None
    """Over config.json and every safetensors file."""
    bytes: int | None
    parameters: int | None
    bits_per_weight: float | None
    """All bytes of the tensors over all weights."""
    linear_bits: float | None
    """Bits for each weight of the linear layers that quantizing is about, scales included."""
    quantization: str | None
    claimed: dict[str, str]
    """What config, card and name say of the quantization, by source."""
    doubts: list[str]
    """Where that and the files disagree."""


class CheckJson(CheckResult):
    """One check, decided."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    title: str
    """What is measured, in words."""
    recovery: float | None
    """Share of the reference's value that the candidate has; null where more is not better."""
    remarks: list[str]
    """What the verdict alone does not say."""


class RoleScore(PartJson):
    """How one role did, on the pairs in which both have a score."""

    score: float | None
    score_completed: float | None
    """Of the answers that ended by themselves."""
    completed: int
    cap_hit_rate: float | None
    """Share of answers that hit the token cap."""
    limit_rate: float | None
    """Share of agents that a limit of steps, time or cost ended."""
    tokens: float | None
    """Mean length of an answer."""


class TaskScore(PartJson):
    """One task of a suite."""

    task: str
    items: int
    n: int
    """Pairs with two scores: items times their repeats."""
    reference: RoleScore
    candidate: RoleScore
    difference: float | None
    """Candidate minus reference."""
    worse: int
    """Pairs in which the candidate scored less."""
    better: int
    """Pairs in which it scored more."""


class PairCounts(PartJson):
    """How many pairs were planned, are there, and cannot be used."""

    planned: int
    usable: int
    missing: int
    not_needed: int
    """Missing, but of a task that sequential checks had decided."""
    errored: int
    unequal: int
    unscored: int


class SuiteKl(PartJson):
    """KL divergence along the reference's trajectories, in nats a position."""

    documents: int
    positions: float
    lower: float | None
    upper: float | None


class Failures(PartJson):
    """Errors, or answers without a score, of one role."""

    role: str
    what: str
    count: int


class SuiteJson(PartJson):
    """One suite."""

    name: str
    coverage: PairCounts
    tasks: list[TaskScore]
    """Tasks with a score; empty for suites that have none."""
    kl: SuiteKl | None
    errors: list[Failures]
    unscored: list[Failures]


class DifferenceJson(PartJson):
    """A fact in which the servers differ."""

    name: str
    reference: str
    candidate: str
    state: FactState
    """allowed: by the policy. forbidden: not allowed, so that nothing may be compared. differs: not compared.
    Facts that are equal (same) or could not be read (unread) are not listed here."""


class Servers(PartJson):
    """Both servers, as they were read back."""

    facts: int
    """That were laid side by side."""
    differences: list[DifferenceJson]
    unread: list[str]
    """Facts that at least one server does not tell: whether they are equal is not known."""


class DataFileJson(PartJson):
    """A file of the run: what was asked, or what was answered."""

    kind: Literal["items", "samples"]
    suite: str
    sha256: str
    lines: int | None


class Timing(PartJson):
    """Where some of the time went; a resumed run adds its own."""

    stage: str
    seconds: float


class Notice(PartJson):
    """Something that changes how the verdict is to be read."""

    title: str
    lines: list[str]


class ReportJson(PartJson):
    """One run of quantgate, as report.json holds it."""

    schema_version: Literal[1]
    run_id: str
    created: str
    """ISO 8601."""
    quantgate_version: str
    command: list[str]
    """Without passwords and tokens."""
    verdict: Decision
    policy: PolicySeal
    models: dict[Role, ModelJson]
    checks: list[CheckJson]
    """The one closest to failing first."""
    suites: list[SuiteJson]
    servers: Servers
    versions: dict[str, str]
    hardware: dict[str, JsonValue]
    data: list[DataFileJson]
    pairs: dict[str, int]
    """Pairs of all suites by what became of them (worse, better, error, …)."""
    timings: list[Timing]
    seconds: float
    reused_from: str | None
    """Run whose reference samples were used again."""
    notices: list[Notice]
    remarks: list[str]
    """How the run was made, where that is not as always."""
    notes: list[str]
    """What is missing or odd."""


def schema_text() -> str:
    """The JSON schema of report.json, as it is committed."""
    schema = ReportJson.model_json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "report.json of quantgate"}
    return json.dumps(head | {k: v for k, v in schema.items() if k != "title"}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
