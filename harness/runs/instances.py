"""What came of one SWE-bench instance for one role: written into the run folder by the suite, read by reports.

`RUN/swebench/<role>/<instance>/` holds the agent's folder, the grader's folder and `result.json`, which is written last
and whole: an instance without one has not been finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.contract.datasets import SWEBENCH
from harness.contract.error_kinds import INFRASTRUCTURE, error_text
from harness.contract.errors import BadInput, first_error
from harness.contract.samples import Named, Role, Sample, sample_of
from harness.contract.whole_files import write_whole

SUITE = SWEBENCH.suite
RESULT_FILE = "result.json"

InstanceOutcome = Literal["resolved", "unresolved", "empty patch", "patch does not apply", "infrastructure error"]
OUTCOMES: tuple[InstanceOutcome, ...] = (
    "resolved",
    "unresolved",
    "empty patch",
    "patch does not apply",
    "infrastructure error",
)
"""Best first. An instance without a result was not run."""
BROKEN: Final = "infrastructure error"

SUBMITTED = "Submitted"
CONTEXT_FULL = "ContextWindowExceededError"
AT_A_LIMIT = frozenset({"LimitsExceeded", "TimeExceeded", CONTEXT_FULL})
"""Exit statuses of mini-swe-agent: the limit of steps (or cost), of time, or the model's context was reached."""
BAD_FORMAT = "RepeatedFormatError"


class InstanceResult(BaseModel):
    """One instance of one role."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    instance_id: str
    role: Role
    outcome: InstanceOutcome
    exit_status: str
    """How the trajectory ended, in mini-swe-agent's words; that of the last try."""
    patch: str = ""
    steps: int = Field(0, ge=0)
    """Answers of the model."""
    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)
    """Sums over the steps."""
    cut_steps: int = Field(0, ge=0)
    """Steps whose answer the budget cut."""
    format_errors: int = Field(0, ge=0)
    """Steps whose answer held no usable command."""
    agent_seconds: float = 0.0
    grading_seconds: float = 0.0
    tests_timed_out: bool = False
    image: str = ""
    image_digest: str | None = None
    agent_version: str = ""
    grader_version: str = ""
    failures: list[str] = Field(default_factory=list)
    """Infrastructure failures, one for each try that had one."""
    trajectory: str | None = None
    """Path of the trajectory, relative to the instance's folder."""
    test_output: str | None = None
    """Likewise, of what the tests printed."""
    tests: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    """FAIL_TO_PASS and PASS_TO_PASS, each with the tests that were a success and a failure."""


def read_result(folder: Path) -> InstanceResult:
    """Read `result.json` of an instance's folder.

    Raises:
        BadInput: it is absent, broken or of another schema.
    """
    path = folder / RESULT_FILE
    try:
        return InstanceResult.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise BadInput(f"{path}: {first_error(error, 'file')}") from None


def write_result(folder: Path, result: InstanceResult) -> None:
    """Write `result.json` so that a reader sees all of it or none. Raises OSError."""
    write_whole(folder / RESULT_FILE, result.model_dump_json(indent=1))


def sample_of_result(item: Named, role: Role, result: InstanceResult) -> Sample:
    """The sample of an instance: 1 resolved, 0 for a patch that is empty, does not apply or does not resolve it.

    Its finish_reason: stop (submitted); length (tokens ran out: the context is full); limit (of steps or time);
    format_error. Its metrics: steps, cut_steps, format_errors, format_error_rate (of the steps), unsubmitted,
    agent_seconds, grading_seconds, tests_timed_out, and `exit <status>`.
    """
    broken = result.outcome == BROKEN
    status = result.exit_status
    ends = dict.fromkeys(AT_A_LIMIT, "limit") | {CONTEXT_FULL: "length", BAD_FORMAT: "format_error"}
    reason = result.failures[-1] if result.failures else "no reason was kept"
    return sample_of(
        SUITE,
        item,
        role,
        score=None if broken else float(result.outcome == "resolved"),
        answer=result.outcome,
        finish_reason=ends.get(status, "stop"),
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        seconds=round(result.agent_seconds + result.grading_seconds, 3),
        text=result.patch,
        metrics={
            "steps": float(result.steps),
            "cut_steps": float(result.cut_steps),
            "format_errors": float(result.format_errors),
            "format_error_rate": min(1.0, result.format_errors / max(1, result.steps)),
            "unsubmitted": float(status != SUBMITTED),
            "agent_seconds": result.agent_seconds,
            "grading_seconds": result.grading_seconds,
            "tests_timed_out": float(result.tests_timed_out),
            f"exit {status[:60]}": 1.0,
        },
        error=error_text(INFRASTRUCTURE, reason) if broken else None,
    )
