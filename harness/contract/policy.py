"""The policy: one YAML file that says what is served, what is asked and what must hold.

The exact bytes are sealed by sha256 into a run before the first request; a run is judged by the sealed policy.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from harness.contract.errors import BadInput, first_error
from harness.contract.metrics import METRICS, Difference, Margin
from harness.contract.text import quoted

M = TypeVar("M", bound=BaseModel)


SHORT_ANSWER = 512
"""Default budget, in tokens, of an answer of the suites that ask the prompts that ship."""
SHORT_ANSWERS = ("decoding", "speculative")
STEP_LIMIT = 250
"""Default of the most steps of an agent's trajectory."""


class Config(BaseModel):
    """Base of everything a policy holds: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Serving(Config):
    """One set of server flags, used for both roles."""

    max_model_len: int = Field(4096, ge=128)
    """Context in tokens, prompt and answer together."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    kv_cache_dtype: str = "auto"
    kv_cache_memory_gib: float = Field(1.0, gt=0)
    """KV-cache memory of each server, set and not found out, so that two servers on one device cannot disagree."""
    max_num_seqs: int = Field(16, ge=1)
    max_logprobs: int = 64
    enforce_eager: bool = False
    tensor_parallel_size: int = Field(1, ge=1)
    reasoning_parser: str | None = None
    tool_call_parser: str | None = None
    extra_args: tuple[str, ...] = ()
    """Further `vllm serve` arguments, for both roles."""
    placement: Literal["together", "sequential"] = "together"
    """`sequential`: the reference answers everything first, then the candidate is served."""
    image: str | None = None
    """Container image with vLLM inside; both roles run from it instead of the local vLLM. For codes that vLLM reads by
    the plugin of quantgate-kernels, the one installed here is mounted."""
    image_args: tuple[str, ...] = ()
    """Further arguments of `docker run` / `podman run` (devices, mounts)."""
    ports: tuple[int, int] | None = None
    """Ports of (reference, candidate); free ones are taken when absent."""
    ready_timeout_seconds: float = Field(900, gt=0)


class Sampling(Config):
    """How every answer is sampled, in every suite and by both roles; nothing is left to a server's default."""

    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = -1
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int = Field(16384, ge=1)
    """Budget of one answer, thinking included."""
    seed: int = 0


class Requests(Config):
    """How servers are asked."""

    concurrency: int = Field(16, ge=1)
    """Requests in flight to one server."""
    retries: int = Field(2, ge=0)
    """Further tries after a connection error, a timeout, a 429 or a 5xx."""
    min_tokens_per_second: float = Field(1.0, gt=0)
    """The slowest answer that is still waited for: timeout = 120 s + (max_tokens + characters of the prompt / 1,000) /
    this. A prompt of a million tokens takes minutes to read."""
    thinking_tags: tuple[tuple[str, str], ...] = ()
    """(opening, closing) texts of thinking that a server leaves in the answer, beside the families that are known
    (harness/endpoint/thinking_tags.py)."""

    @field_validator("thinking_tags")
    @classmethod
    def _are_texts(cls, tags: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        if any(not tag.strip() for pair in tags for tag in pair) or any(
            opening == closing for opening, closing in tags
        ):
            raise ValueError("a tag is a text, and the closing one is another than the opening one")
        return tags


_POINTS = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:points?|pp)\s*")


def _points(value: Any) -> Any:
    """`1 point`, `0.5 points` and `2 pp` are shares of one; anything else is taken as it is."""
    if isinstance(value, bool):  # pydantic would take true as 1.0
        raise ValueError("give a number")
    found = _POINTS.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) / 100 if found else value


def _not_all(value: float) -> float:
    if value >= 1:
        raise ValueError(
            f"{value:g} is {100 * value:g} points, which lets everything pass; one point is 0.01 or '1 point'"
        )
    return value


Points = Annotated[float, BeforeValidator(_points), Field(ge=0, le=1)]
"""A share of one: 0.01, or `1 point`."""
Limit = Annotated[float, BeforeValidator(_points), Field(ge=0), AfterValidator(_not_all)]
"""A share of one that something may not exceed."""


class Check(Config):
    """One statement with the one margin that fits its metric."""

    metric: str
    """One of harness.contract.metrics.METRICS."""
    on: str
    """`suite` pools its tasks; `suite/task` (wildcards allowed) is one statement for each task that matches."""
    max_loss: Limit | None = None
    """Largest allowed mean of reference - candidate (0.01 is one point)."""
    max_relative_loss: Limit | None = None
    """Largest allowed share of the reference's score that is lost: from 0.100 to 0.095 is 0.05. Beside `max_loss` it is
    a statement of its own, and both must hold."""
    max_increase: Limit | None = None
    """Largest allowed mean of candidate - reference."""
    max: float | None = Field(None, ge=0)
    """Largest allowed value, for metrics of a pair such as kl_mean."""
    min: float | None = Field(None, ge=0)
    """Smallest allowed value, for ratios such as speed_ratio."""
    max_over_noise: float | None = Field(None, ge=0)
    """Largest allowed value above the noise floor (the policy must measure one: `noise_floor`)."""
    floor: Points | None = None
    """A reference below this cannot show damage: INCONCLUSIVE."""
    ceiling: Limit | None = None
    """Largest allowed value of the candidate by itself."""
    confidence: float | None = Field(None, gt=0.5, lt=1)
    """One-sided confidence of this check's bounds; the policy's when absent."""
    stop: Literal["sequential"] | None = None
    """`sequential`: decided by a test that may be looked at after every item; what is left is then not asked."""
    advisory: bool = False
    """Shown, and without a say in the run's verdict."""
    mean: Literal["items", "tasks"] = "items"
    """Of a pooled check: over all items (micro), or the plain mean of the tasks' means (macro)."""
    guard_tasks: bool = False
    """Of a pooled check: no PASS while a task breaks the margin by itself, after Holm's correction for the tasks."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        metric = METRICS.get(self.metric)
        if metric is None:
            near = difflib.get_close_matches(self.metric, METRICS, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(METRICS)}"
            raise ValueError(f"unknown metric '{self.metric}'; {hint}")
        given = [name for name in get_args(Margin) if getattr(self, name) is not None]
        if (len(given) != 1 and given != ["max_loss", "max_relative_loss"]) or not {*given} <= {*metric.margins}:
            found = " and ".join(given) or "no margin"
            raise ValueError(f"{self.metric} is judged with {' or '.join(metric.margins)}, found {found}")
        guard = metric.guard if isinstance(metric, Difference) else None
        for name in ("floor", "ceiling"):
            if getattr(self, name) is not None and name != guard:
                raise ValueError(f"{name} does not belong to {self.metric}")
        if self.stop and self.max_relative_loss is not None:
            raise ValueError("max_relative_loss is decided when all is answered: leave out stop: sequential")
        if self.stop and not isinstance(metric, Difference):
            raise ValueError(f"stop: sequential is for differences such as accuracy, not for {self.metric}")
        for name, given_so in (("mean: tasks", self.mean == "tasks"), ("guard_tasks", self.guard_tasks)):
            if given_so and "/" in self.on:
                raise ValueError(f"{name} is for a check on a whole suite, not for {self.on}")
        if self.mean == "tasks" and (self.stop or not isinstance(metric, Difference)):
            raise ValueError("mean: tasks is for differences such as accuracy that are decided at the end")
        return self

    @property
    def statements(self) -> tuple[Check, ...]:
        """Each with one margin."""
        if self.max_loss is None or self.max_relative_loss is None:
            return (self,)
        return tuple(self.model_copy(update={name: None}) for name in ("max_relative_loss", "max_loss"))

    @property
    def margin_kind(self) -> Margin:
        return next(name for name in get_args(Margin) if getattr(self, name) is not None)

    @property
    def margin(self) -> float:
        return float(getattr(self, self.margin_kind))


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
        BadInput: no such file, not YAML, an unknown key (the nearest known one is named) or a bad value.
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
    return parse_policy(text, source=name)


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


def validate(model: type[M], data: Any, what: str) -> M:
    """Check `data` against a pydantic model; the first mistake becomes one clear line.

    Raises:
        BadInput: what is wrong and where; for an unknown key the nearest known one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as failure:
        # A misspelt key that is required is also missing: its nearest known one says more than "Field required".
        unknown = next((error["loc"] for error in failure.errors() if error["type"] == "extra_forbidden"), None)
        if unknown is None:
            message = first_error(failure, "value").replace(": Value error, ", ": ", 1)
            raise BadInput(f"{what}: {message}") from None
        known = _keys_at(model, unknown[:-1])
        near = difflib.get_close_matches(str(unknown[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"
        raise BadInput(f"{what}: unknown key '{'.'.join(map(str, unknown))}'; {hint}") from None


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields at `location` inside `model`."""
    for part in location:
        if part not in model.model_fields:  # the index of a list, the key of a dict: its model is already found
            continue
        annotation = model.model_fields[str(part)].annotation
        nested = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type)]
        inner = next((a for a in nested if issubclass(a, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


NOTHING_WEAKER = "no margin is weaker than the sealed one"
"""What is said where `weakened` finds nothing."""


def weakened(sealed: Policy, other: Policy) -> list[str]:
    """What `other` lets pass that `sealed` does not: one line for each margin or guard that is weaker."""
    found = [] if other.max_unusable <= sealed.max_unusable else [_change("max_unusable", sealed, other)]
    if "*" not in sealed.allow_unreadable and set(other.allow_unreadable) - set(sealed.allow_unreadable):
        found.append(_change("allow_unreadable", sealed, other))
    found += [f"{task}: no longer required" for task in sealed.required if task not in other.required]
    now = [statement for check in other.checks for statement in check.statements]
    for check in (statement for given in sealed.checks for statement in given.statements):
        what = check.metric, check.on, check.margin_kind
        same = [_weaker(sealed, check, other, c) for c in now if (c.metric, c.on, c.margin_kind) == what]
        lost = f"{check.metric} on {check.on}: no longer checked with {check.margin_kind}"
        least: list[str] = min(same, key=len, default=[lost])
        found += least
    return found


def _weaker(sealed: Policy, check: Check, other: Policy, now: Check) -> list[str]:
    """What `now` lets pass that `check` does not."""
    found, name = [], f"{check.metric} on {check.on}"
    looser = now.margin < check.margin if check.margin_kind == "min" else now.margin > check.margin
    confidence = now.confidence or other.confidence, check.confidence or sealed.confidence
    if looser:
        found.append(f"{name}: {_change(check.margin_kind, check, now)}")
    if confidence[0] < confidence[1]:
        found.append(f"{name}: confidence {confidence[1]:g} -> {confidence[0]:g}")
    if (now.floor or 0.0) < (check.floor or 0.0):
        found.append(f"{name}: {_change('floor', check, now)}")
    if check.ceiling is not None and (now.ceiling is None or now.ceiling > check.ceiling):
        found.append(f"{name}: {_change('ceiling', check, now)}")
    if check.stop != now.stop:  # two looks at the same samples: the error rates of both no longer hold
        found.append(f"{name}: {_change('stop', check, now)}")
    if now.mean != check.mean:
        found.append(f"{name}: {_change('mean', check, now)}")
    if now.advisory and not check.advisory:
        found.append(f"{name}: only advisory")
    if check.guard_tasks and not now.guard_tasks:
        found.append(f"{name}: no longer guards its tasks")
    return found


def _change(key: str, before: Config, after: Config) -> str:
    found = [getattr(c, key) for c in (before, after)]
    values = [", ".join(v) or "none" if isinstance(v, tuple) else "none" if v is None else v for v in found]
    return f"{key} {values[0]} -> {values[1]}"
