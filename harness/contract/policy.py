"""The policy: one YAML file that says what is served, what is asked and what must hold.

The exact bytes are sealed by sha256 into a run before the first request; a run is judged by the sealed policy.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from harness.contract.check import Check
from harness.contract.errors import BadInput
from harness.contract.secrets import secret_in
from harness.contract.settings import SHORT_ANSWER, SHORT_ANSWERS, STEP_LIMIT, Config, Requests, Sampling, Serving
from harness.contract.text import quoted
from harness.contract.validation import validate


class NoiseFloor(Config):
    """How the reference is measured against itself."""

    by: Literal["server", "seed"] = "server"
    """`server`: a fresh server of the reference, same seed. `seed`: the same server asked again, with another seed."""
    items: int = Field(32, ge=1)
    """Items of each task, the first ones of the sealed order."""


class Policy(Config):
    """What must hold before a quantized model may be published."""

    name: str
    recipe: str = "w4a16"
    """How a MODEL that is not quantized yet is quantized."""
    serving: Serving = Serving()
    allow_different: tuple[str, ...] = ("model", "quantization")
    """Facts read back from the servers that may differ (glob patterns over their names)."""
    allow_unreadable: tuple[str, ...] = ("*",)
    """Facts that a server need not tell (glob patterns over their names). What is not told is counted in every report;
    `[]`: all must be read, on both sides."""
    sampling: Sampling = Sampling()
    requests: Requests = Requests()
    suites: dict[str, dict[str, Any]] = Field(min_length=1)
    """Suite name to its configuration; checked against the suite's own class before anything runs."""
    noise_floor: NoiseFloor | None = None
    """Measured only when given."""
    checks: list[Check] = Field(min_length=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """One-sided confidence of every bound (a check may ask for another)."""
    max_unusable: float = Field(0.01, ge=0, lt=1)
    """Share of missing, errored or unequal pairs above which a check is INCONCLUSIVE."""
    required: tuple[str, ...] = ()
    """Tasks (`suite/task`, wildcards allowed, or `suite`) that must be there and that a blocking check must speak of:
    without them nothing passes. A check with a wildcard does not miss a task that was never run."""

    def most(self, suite: str, what: Literal["tokens", "steps"] = "tokens") -> int:
        """Most tokens of one answer of a suite, or most steps of one trajectory."""
        own = self.suites.get(suite, {})
        if what == "steps":
            return int(own.get("step_limit", STEP_LIMIT))
        default = SHORT_ANSWER if suite in SHORT_ANSWERS else self.sampling.max_tokens
        return int(own.get("max_tokens") or default)

    @model_validator(mode="after")
    def _decides_something(self) -> Self:
        if all(check.advisory for check in self.checks):
            raise ValueError("every check is advisory: at least one must have a say in the verdict")
        return self

    @model_validator(mode="after")
    def _noise_is_measured(self) -> Self:
        over = next((c for c in self.checks if c.max_over_noise is not None), None)
        if over and self.noise_floor is None:
            raise ValueError(f"max_over_noise of {over.metric} on {over.on} needs a noise_floor")
        return self


class SealedPolicy(BaseModel):
    """A policy with the bytes it was read from and their sha256."""

    model_config = ConfigDict(frozen=True)

    policy: Policy
    text: str
    sha256: str


def shipped_policies() -> list[str]:
    """Names of the policies inside the package."""
    folder = resources.files("harness") / "policies"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_policy(name_or_path: str | Path) -> SealedPolicy:
    """Read a policy by the name of a shipped one or by path.

    Raises:
        BadInput: no such file, not YAML, an unknown key (the nearest known one is named), a bad value, or a secret: the
            policy's bytes are kept in every run and shown in its report.
    """
    name = str(name_or_path)
    try:
        if name in shipped_policies():
            data = (resources.files("harness") / "policies" / f"{name}.yaml").read_bytes()
        else:
            data = Path(name).read_bytes()
        text = data.decode("utf-8")  # not read_text: it would turn CRLF into LF, and other bytes have another sha256
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(shipped_policies())
        raise BadInput(f"policy {name}: {error}; give a YAML file or one of: {known}") from None
    sealed = parse_policy(text, source=name)
    serving = sealed.policy.serving
    if found := secret_in(text, [*serving.extra_args, *serving.image_args]):
        raise BadInput(
            f"policy {name} holds a secret, {found}, and a policy is kept and shown as it is: leave it out (servers "
            "that the gate starts have a key of their own; containers take NAME of `-e NAME` from the environment)"
        )
    return sealed


def parse_policy(text: str, source: str = "policy") -> SealedPolicy:
    """Check the text of a policy and seal it. Raises BadInput as `load_policy` does."""
    try:
        # YAML 1.2: in 1.1 the key `on` would be read as true. A key given twice is an error.
        data = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: 2024-13-45 is no date
        raise BadInput(f"policy {source}: not YAML: {quoted(str(error), 300)}") from None
    if not isinstance(data, dict):
        raise BadInput(f"policy {source}: expected keys and values, found {type(data).__name__}")
    policy = validate(Policy, data, f"policy {source}")
    return SealedPolicy(policy=policy, text=text, sha256=hashlib.sha256(text.encode("utf-8")).hexdigest())
