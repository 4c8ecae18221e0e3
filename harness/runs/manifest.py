"""The manifest of a run: what exactly ran, as pydantic models. A public format that tools may read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.contract.samples import Role

SCHEMA_VERSION = 1


class ModelFacts(BaseModel):
    """What a checkpoint is, read from its own files."""

    model_config = ConfigDict(extra="forbid")

    name: str
    path: str
    sha256: str = ""
    """Over config.json and every safetensors file, by name; empty when the files are not on this machine."""
    bytes: int = 0
    parameters: int = 0
    bits_per_weight: float = 0.0
    """All bytes of the tensors over all weights."""
    quantization: str | None = None
    """quant_method of config.json, None for an unquantized checkpoint."""
    tensor_bytes: dict[str, int] = Field(default_factory=dict)
    """Bytes of the tensors by safetensors dtype, the largest first."""
    block_parameters: int = 0
    """Weights inside numbered blocks, without the draft head: what quantizing must leave as many as there were."""
    layers: int = 0
    """Decoder layers that are there, without the draft head."""
    bias_parameters: int = 0
    """Biases inside numbered blocks, without the draft head."""
    layout_known: bool = True
    """False: the weights are stored in a layout that is not known here, so nothing is said of bits and of numbers of
    weights (all 0)."""
    linear_parameters: int = 0
    """Weights of the blocks' linear layers that the config means to quantize; all of them where it means none."""
    linear_bits: float = 0.0
    """Bits for each of these, with scales, zero points, codebooks and indices; 0 when there are none."""
    low_bit_share: float = 0.0
    """Share of all weights in the blocks' linear layers that are stored below 16 bits."""
    draft_bytes: dict[str, int] = Field(default_factory=dict)
    """Bytes of the draft head (MTP) by safetensors dtype; empty when there is none."""
    claimed: dict[str, str] = Field(default_factory=dict)
    """What config.json, model card and name say of the quantization, by source; other people's text on one line."""
    doubts: list[str] = Field(default_factory=list)
    """One line for each point in which what is claimed and what is there disagree."""


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
