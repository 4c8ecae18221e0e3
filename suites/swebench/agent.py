"""Solving: mini-swe-agent as a subprocess, one instance at a time.

A folder of its own for each try: what was asked of the agent, its log, its trajectory. One instance a process costs
some seconds of imports, and makes resuming simple: mini-swe-agent's own resume skips for ever what ended in an error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.contract.errors import BadInput
from harness.contract.extras import MODAL_EXTRA
from harness.contract.secrets import without_secrets
from harness.contract.whole_files import write_whole
from harness.endpoint.client import Endpoint
from harness.serving.guarded_command import run_guarded
from suites.swebench.trajectory import (
    AgentRun,
    InfrastructureError,
    has_ended,
    raise_unless_ended,
    read_agent_run,
    trajectory_path,
)

Format = Literal["tool_calls", "backticks"]
CONFIGS: dict[Format, tuple[str, str]] = {
    "tool_calls": ("swebench.yaml", "litellm"),
    "backticks": ("swebench_backticks.yaml", "litellm_textbased"),
}
"""mini-swe-agent's own configuration of SWE-bench and its class of model, by how the model writes a command. The class
is said since that configuration does not: tools would be offered to a model that is told to write text."""

MODAL_MODULES = ("modal", "swerex", "boto3")
WATCHED = "suites.swebench.environment.WatchedContainer"
"""The class of the agent's container, by the name under which mini-swe-agent loads it."""


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
) -> AgentRun:
    """Let the agent work on one instance; a trajectory in `folder` that the model had ended is taken as it is.

    Any other one is of an agent that outlived its gate, or its server: it says nothing of this run, and is made anew.

    Raises:
        EndpointError: the server gave no usable answer. InfrastructureError: a container or the agent failed.
    """
    path = trajectory_path(folder, instance)
    there = has_ended(path)
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
    agent_run = read_agent_run(path)
    for fingerprint, prompt_tokens in () if there else agent_run.answers:
        endpoint.note(fingerprint, prompt_tokens, settings.max_tokens)
    raise_unless_ended(agent_run, endpoint.url)
    return agent_run


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
    ours = without_secrets(os.environ, keep="MODAL_")
    environment = {name: value for name, value in ours.items() if not name.startswith(("MSWEA_", "OPENAI_"))}
    environment |= {
        "OPENAI_API_KEY": endpoint.api_key,  # not in the configuration, which is kept with the trajectory
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
