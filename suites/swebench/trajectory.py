"""What a trajectory of mini-swe-agent says: the model wrote most of it, so nothing of it is believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contract.error_kinds import RequestErrorKind
from harness.endpoint.answers import EndpointError
from harness.runs.instances import AT_A_LIMIT, BAD_FORMAT, CONTEXT_FULL, SUBMITTED

SERVER_ERRORS: dict[str, RequestErrorKind] = {
    "APIConnectionError": "unreachable",
    "Timeout": "timeout",
    "APIError": "server",
    "InternalServerError": "server",
    "ServiceUnavailableError": "server",
    "BadGatewayError": "server",
    "RateLimitError": "server",
    "APIResponseValidationError": "garbage",
    "BadRequestError": "refused",
    "UnsupportedParamsError": "refused",
    "UnprocessableEntityError": "refused",
    "AuthenticationError": "refused",
    "NotFoundError": "refused",
    "PermissionDeniedError": "refused",
}
"""litellm's exceptions: the trajectory ended because of the server, not because of the model or a container."""
ENDED_BY_THE_MODEL = AT_A_LIMIT | {SUBMITTED, BAD_FORMAT}
CONTEXT_IS_FULL = "maximum context length"
"""What vLLM answers (400) when a conversation has outgrown its context; litellm does not always know it."""


class InfrastructureError(Exception):
    """A container, the engine, the agent or the grader failed: it says nothing of the model, and is tried again."""


@dataclass(frozen=True)
class AgentRun:
    """What a trajectory says of a run of the agent, as far as a gate must know it."""

    exit_status: str
    patch: str = ""
    said: str = ""
    """The exception that ended it."""
    steps: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut_steps: int = 0
    format_errors: int = 0
    seconds: float = 0.0
    """From the first answer to what the last command printed."""
    answers: list[tuple[str | None, int]] = field(default_factory=list)
    """Of each answer the server's system_fingerprint and its prompt tokens."""


def trajectory_path(folder: Path, instance: str) -> Path:
    """Where mini-swe-agent leaves the trajectory of an instance."""
    return folder / instance / f"{instance}.traj.json"


def read_agent_run(path: Path) -> AgentRun:
    """Read a trajectory that mini-swe-agent has saved: the model wrote most of it, so nothing of it is believed.

    Raises:
        InfrastructureError: there is none, or it is broken.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError:
        raise InfrastructureError(f"the agent left no trajectory: {_reason(path)}") from None
    except (ValueError, RecursionError) as error:
        raise InfrastructureError(f"{path.name}: not JSON: {error}") from None
    info = data.get("info") if isinstance(data, dict) else None
    messages = data.get("messages") if isinstance(data, dict) else None
    if not isinstance(info, dict) or not isinstance(messages, list):
        raise InfrastructureError(f"{path.name}: no trajectory of mini-swe-agent")
    status, patch = str(info.get("exit_status") or "none"), info.get("submission")
    said = str(info.get("exception_str") or "")
    if CONTEXT_IS_FULL in said and status in SERVER_ERRORS:
        status = CONTEXT_FULL
    answers = list(_answers(messages))
    times = [t for message in messages if isinstance(t := _extra(message).get("timestamp"), int | float)]
    return AgentRun(
        exit_status=status,
        patch=patch if status == SUBMITTED and isinstance(patch, str) else "",
        said=" ".join(said.split())[:300],
        steps=len(answers),
        prompt_tokens=sum(prompt for _, prompt, _, _ in answers),
        completion_tokens=sum(completion for _, _, completion, _ in answers),
        cut_steps=sum(reason == "length" for *_, reason in answers),
        format_errors=sum(_extra(message).get("interrupt_type") == "FormatError" for message in messages),
        seconds=round(max(times) - min(times), 3) if times and min(times) > 0 and max(times) < 1e11 else 0.0,
        answers=[(fingerprint, prompt) for fingerprint, prompt, *_ in answers],
    )


def _answers(messages: list[Any]) -> Iterator[tuple[str | None, int, int, str]]:
    """(fingerprint, prompt tokens, completion tokens, finish_reason) of each answer of the server."""
    for message in messages:
        response = _extra(message).get("response")
        if not isinstance(response, dict):
            continue
        usage, choices = response.get("usage"), response.get("choices")
        usage = usage if isinstance(usage, dict) else {}
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        fingerprint = response.get("system_fingerprint")
        yield (
            fingerprint if isinstance(fingerprint, str) else None,
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            str(choice.get("finish_reason")),
        )


def _extra(message: Any) -> dict[str, Any]:
    extra = message.get("extra") if isinstance(message, dict) else None
    return extra if isinstance(extra, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else 0


def has_ended(path: Path) -> bool:
    """Whether a whole trajectory is there that the model has ended. mini-swe-agent does not write it in one piece."""
    try:
        return read_agent_run(path).exit_status in ENDED_BY_THE_MODEL
    except InfrastructureError:
        return False


def raise_unless_ended(agent_run: AgentRun, url: str) -> None:
    """Pass what the model itself has ended, at a limit or by submitting."""
    status = agent_run.exit_status
    if status in ENDED_BY_THE_MODEL:
        return
    if status in SERVER_ERRORS:
        raise EndpointError(SERVER_ERRORS[status], f"{url}: the agent's request: {agent_run.said}")
    raise InfrastructureError(f"agent: {status}: {agent_run.said}")


def _reason(path: Path) -> str:
    """The last line of the agent's logs that speaks of an error."""
    folder = path.parent.parent
    for name in ("minisweagent.log", "agent.log"):
        try:
            lines = (folder / name).read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        said = [line.strip() for line in lines if "rror" in line]
        if said:
            return said[-1][:250]
    return f"nothing is in its log ({folder})"
