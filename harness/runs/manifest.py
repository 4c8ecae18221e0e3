"""The manifest of a run: what exactly ran, as pydantic models. A public format that tools may read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.contract.model_facts import ModelFacts
from harness.contract.samples import Role

SCHEMA_VERSION = 1


class ServerFacts(BaseModel):
    """How a role was served, and what its server said of itself."""

    model_config = ConfigDict(extra="forbid")

    url: str
    command: list[str] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    readback: dict[str, str] = Field(default_factory=dict)
    fingerprints: list[str] = Field(default_factory=list)
    """Every system_fingerprint of its answers, those before a run broke off included."""


class Baseline(BaseModel):
    """The earlier run whose reference samples are used again."""

    run_id: str
    created: str
    path: str


class SampleFile(BaseModel):
    """A suite's samples as the run left them, so that later edits show."""

    lines: int
    sha256: str


class Stage(BaseModel):
    """Where the time went. A resumed run adds its own stages."""

    name: str
    seconds: float


class Manifest(BaseModel):
    """What exactly ran. Written when the run begins and completed as facts become known."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    run_id: str
    created: str
    quantgate_version: str
    command: list[str]
    policy_name: str
    policy_sha256: str
    models: dict[Role, ModelFacts] = Field(default_factory=dict)
    servers: dict[Role, ServerFacts] = Field(default_factory=dict)
    allowed_differences: list[str] = Field(default_factory=list)
    """Facts that differ between the servers and that the policy allows to."""
    hardware: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    planned: dict[str, int] = Field(default_factory=dict)
    """Pairs to be made for each "suite/task"."""
    items_sha256: dict[str, str] = Field(default_factory=dict)
    """sha256 of items/<suite>.jsonl: the bytes both roles were asked."""
    thinking_opened: bool = False
    """Whether the chat template ends with an opening <think>, so that answers begin inside the thinking."""
    samples: dict[str, SampleFile] = Field(default_factory=dict)
    """samples/<suite>.jsonl when everything had been asked; empty while the run is not finished."""
    baseline: Baseline | None = None
    noise_by: Literal["server", "seed"] | None = None
    """How the noise floor was measured, when it was."""
    stopped: list[str] = Field(default_factory=list)
    """What sequential checks decided before every item was asked."""
    speculative: dict[str, dict[Role, dict[str, float]]] = Field(default_factory=dict)
    """By suite and role what the draft head proposed and what was accepted (names: harness/endpoint/counters.py)."""
    stages: list[Stage] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    """What a reader must be told: of results made elsewhere what was not judged, of servers whose code they ran."""
