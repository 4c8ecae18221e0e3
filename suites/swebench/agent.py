"""Solving: mini-swe-agent as a subprocess, one instance at a time, and what its trajectory says.

A folder of its own for each try: what was asked of the agent, its log, its trajectory. One instance a process costs
some seconds of imports, and makes resuming simple: mini-swe-agent's own resume skips for ever what ended in an error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.contract.errors import BadInput
from harness.contract.files import write_whole
from harness.endpoint.answers import EndpointError, ErrorKind
from harness.endpoint.client import Endpoint
from harness.runs.instances import AT_A_LIMIT, BAD_FORMAT, SUBMITTED
from harness.serving.commands import run_guarded

Format = Literal["tool_calls", "backticks"]
CONFIGS: dict[Format, tuple[str, str]] = {
    "tool_calls": ("swebench.yaml", "litellm"),
    "backticks": ("swebench_backticks.yaml", "litellm_textbased"),
}
"""mini-swe-agent's own configuration of SWE-bench and its class of model, by how the model writes a command. The class
is said since that configuration does not: tools would be offered to a model that is told to write text."""

SERVER_ERRORS: dict[str, ErrorKind] = {
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
MODAL_MODULES = ("modal", "swerex", "boto3")
MODAL_EXTRA = "pip install 'quantgate[modal]'"
WATCHED = "suites.swebench.environment.WatchedContainer"
"""The class of the agent's container, by the name under which mini-swe-agent loads it."""
CONTEXT_IS_FULL = "maximum context length"
"""What vLLM answers (400) when a conversation has outgrown its context; litellm does not always know it."""


class InfrastructureError(Exception):
    """A container, the engine, the agent or the grader failed: it says nothing of the model, and is tried again."""


@dataclass(frozen=True)
class Trajectory:
    """What a trajectory says, as far as a gate must know it."""

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


@dataclass(frozen=True)
class AgentSettings:
    """What a try needs besides the endpoint."""

    format: Format
    max_tokens: int
    step_limit: int
    seconds: float
    """Of a whole trajectory."""
    command_seconds: int
    pull_seconds: int
    executable: str
    """docker or podman; empty: containers are made at Modal."""
    run_arguments: Sequence[str]
    """Arguments of `docker run`: label and limits."""


async def solve(
    folder: Path,
    instance: str,
    problem: str,
    image: str,
    endpoint: Endpoint,
    settings: AgentSettings,
    cleanup: Sequence[str],
) -> Trajectory:
    """Let the agent work on one instance; a trajectory in `folder` that the model had ended is taken as it is.

    Any other one is of an agent that outlived its gate, or its server: it says nothing of this run, and is made anew.

    Raises:
        EndpointError: the server gave no usable answer. InfrastructureError: a container or the agent failed.
    """
    path = trajectory_path(folder, instance)
    there = _ended(path)
    if not there:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        row = {"instance_id": instance, "problem_statement": problem, "image_name": image}
        write_whole(folder / "dataset" / "test.jsonl", json.dumps(row) + "\n")
        write_whole(folder / "config.yaml", json.dumps(_config(endpoint, settings, image), indent=1))  # JSON is YAML
        command = [*_command(settings), "--subset", str(folder / "dataset"), "--split", "test", "-o", str(folder)]
        command += ["-w", "1", "-c", str(_own_config(settings.format)), "-c", str(folder / "config.yaml")]
        log = folder / "agent.log"
        try:
            patience = settings.seconds + settings.pull_seconds + endpoint.patience(settings.max_tokens)
            await run_guarded(
                command, log, patience, environment=_environment(folder, endpoint), folder=folder, cleanup=cleanup
            )
        except TimeoutError:
            raise InfrastructureError(f"the agent did not end ({log})") from None
        finally:
            shutil.rmtree(folder / "cache", ignore_errors=True)
    trajectory = read_trajectory(path)
    for fingerprint, prompt_tokens in () if there else trajectory.answers:
        endpoint.note(fingerprint, prompt_tokens, settings.max_tokens)
    _raise_unless_ended(trajectory, endpoint.url)
    return trajectory


def trajectory_path(folder: Path, instance: str) -> Path:
    """Where mini-swe-agent leaves the trajectory of an instance."""
    return folder / instance / f"{instance}.traj.json"


def read_trajectory(path: Path) -> Trajectory:
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
        status = "ContextWindowExceededError"
    answers = list(_answers(messages))
    times = [t for message in messages if isinstance(t := _extra(message).get("timestamp"), int | float)]
    return Trajectory(
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


def _ended(path: Path) -> bool:
    """Whether a whole trajectory is there that the model has ended. mini-swe-agent does not write it in one piece."""
    try:
        return read_trajectory(path).exit_status in ENDED_BY_THE_MODEL
    except InfrastructureError:
        return False


def _raise_unless_ended(trajectory: Trajectory, url: str) -> None:
    """Pass what the model itself has ended, at a limit or by submitting."""
    status = trajectory.exit_status
    if status in ENDED_BY_THE_MODEL:
        return
    if status in SERVER_ERRORS:
        raise EndpointError(SERVER_ERRORS[status], f"{url}: the agent's request: {trajectory.said}")
    raise InfrastructureError(f"agent: {status}: {trajectory.said}")


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


def require_agent() -> None:
    """Raises BadInput: mini-swe-agent is not installed here."""
    if importlib.util.find_spec("minisweagent") is None:
        raise BadInput("suite swebench runs mini-swe-agent, and that is not installed here: run `make`")


def require_modal() -> None:
    """Raises BadInput: what mini-swe-agent and swebench make containers at Modal with is not installed here."""
    for module in MODAL_MODULES:
        if importlib.util.find_spec(module) is None:
            raise BadInput(f"modal: true needs the module {module}, which is not installed here: {MODAL_EXTRA}")


def _own_config(format: Format) -> Path:
    spec = importlib.util.find_spec("minisweagent")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "config" / "benchmarks" / CONFIGS[format][0]


def _command(settings: AgentSettings) -> list[str]:
    command = [sys.executable, "-m", "minisweagent.run.benchmarks.swebench"]
    return command if settings.executable else [*command, "--environment-class", "swerex_modal"]


def _config(endpoint: Endpoint, settings: AgentSettings, image: str) -> dict[str, Any]:
    """Laid over mini-swe-agent's own configuration: the role's server, the policy's sampling, and limits."""
    longest = int(settings.seconds) + 600
    sampling = endpoint.sampling.model_dump(exclude={"max_tokens"})
    beside = {name: sampling.pop(name) for name in ("top_k", "min_p", "repetition_penalty")}
    kwargs = {
        "api_base": f"{endpoint.url}/v1",
        "api_key": "none",
        "max_tokens": settings.max_tokens,
        "timeout": endpoint.patience(settings.max_tokens),
        **sampling,
        "extra_body": beside,
    }
    # The image's own environment is activated in .bashrc; the configuration for backticks does not say so.
    environment: dict[str, Any] = {"timeout": settings.command_seconds, "env": {"BASH_ENV": "/root/.bashrc"}}
    if settings.executable:
        environment |= {
            "environment_class": WATCHED,
            "image": image,  # which mini-swe-agent adds for its own classes alone
            "executable": settings.executable,
            "run_args": list(settings.run_arguments),
            "container_timeout": f"{longest}s",
            "pull_timeout": settings.pull_seconds,
        }
    else:  # its defaults are a minute to begin and an hour to live
        environment |= {
            "startup_timeout": float(settings.pull_seconds),
            "runtime_timeout": float(longest),
            "deployment_timeout": float(longest + settings.pull_seconds),
        }
    return {
        "agent": {
            "step_limit": settings.step_limit,
            "cost_limit": 0,
            "wall_time_limit_seconds": int(settings.seconds),
        },
        "environment": environment,
        "model": {
            "model_name": f"openai/{endpoint.model}",
            "model_class": CONFIGS[settings.format][1],
            "cost_tracking": "ignore_errors",  # a model of one's own has no price, and without one there is no patch
            "model_kwargs": kwargs,
        },
    }


def _environment(folder: Path, endpoint: Endpoint) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MSWEA_", "OPENAI_"))}
    environment |= {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_GLOBAL_CONFIG_DIR": str(folder / "cache" / "mini"),
        "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "3",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache" / "datasets"),
        "DO_NOT_TRACK": "1",
    }
    if endpoint.on_this_machine:  # a proxy must not be asked for it
        environment |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    return environment
