"""What mini-swe-agent is told, and what is kept from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from minisweagent.environments import get_environment_class

from harness.contract.settings import Requests, Sampling
from harness.endpoint.client import Endpoint
from suites.swebench.agent import (
    WATCHED,
    AgentSettings,
    _command,
    _config,
    _environment,
    _own_config,
    require_agent,
)
from suites.swebench.environment import WatchedContainer


def test_the_agent_is_installed() -> None:
    require_agent()


def settings(**changes: Any) -> AgentSettings:
    usual: dict[str, Any] = {
        "format": "tool_calls",
        "max_tokens": 4096,
        "step_limit": 250,
        "seconds": 7200.0,
        "command_seconds": 60,
        "pull_seconds": 900,
        "executable": "/usr/bin/podman",
        "run_arguments": ["--rm", "--network", "none"],
    }
    return AgentSettings(**(usual | changes))


def endpoint() -> Endpoint:
    sampling = Sampling(temperature=0.6, top_p=0.95, top_k=20, seed=7, max_tokens=16384)
    return Endpoint("http://127.0.0.1:9/", "quantgate", Requests(), sampling)


def test_the_agent_is_asked_with_the_policys_sampling_and_limits() -> None:
    config = _config(endpoint(), settings(), "an/image:1")
    kwargs = config["model"]["model_kwargs"]
    assert config["model"]["model_name"] == "openai/quantgate" and kwargs["api_base"] == "http://127.0.0.1:9/v1"
    assert (kwargs["temperature"], kwargs["top_p"], kwargs["seed"], kwargs["max_tokens"]) == (0.6, 0.95, 7, 4096)
    assert kwargs["extra_body"] == {"top_k": 20, "min_p": 0.0, "repetition_penalty": 1.0}
    assert kwargs["timeout"] == 120 + 4096
    assert config["agent"] == {"step_limit": 250, "cost_limit": 0, "wall_time_limit_seconds": 7200}
    environment = config["environment"]
    assert environment["run_args"] == ["--rm", "--network", "none"] and environment["pull_timeout"] == 900
    assert environment["executable"] == "/usr/bin/podman" and environment["timeout"] == 60
    assert environment["image"] == "an/image:1" and get_environment_class(WATCHED) is WatchedContainer
    assert environment["environment_class"] == WATCHED
    assert environment["container_timeout"] == "7800s"  # no container outlives its trajectory for long


@pytest.mark.parametrize(("format", "model"), [("tool_calls", "litellm"), ("backticks", "litellm_textbased")])
def test_the_class_of_model_fits_the_format(format: Any, model: str) -> None:
    assert _config(endpoint(), settings(format=format), "i")["model"]["model_class"] == model
    assert _own_config(format).exists()


def test_modal_is_passed_through() -> None:
    modal = settings(executable="", run_arguments=())
    assert _command(modal)[-2:] == ["--environment-class", "swerex_modal"]
    environment = _config(endpoint(), modal, "i")["environment"]
    assert not environment.keys() & {"executable", "environment_class", "image", "run_args"}
    # Not the hour of mini-swe-agent's defaults, after which every command would fail.
    timeouts = {"startup_timeout": 900.0, "runtime_timeout": 7800.0, "deployment_timeout": 8700.0}
    assert environment.items() >= timeouts.items()
    assert "--environment-class" not in _command(settings())


def test_nothing_of_the_users_own_settings_reaches_the_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", "http://elsewhere")
    monkeypatch.setenv("MSWEA_COST_TRACKING", "default")
    found = _environment(tmp_path, endpoint())
    assert not {"OPENAI_API_BASE", "MSWEA_COST_TRACKING"} & found.keys()
    assert found["HF_HUB_OFFLINE"] == "1" and "127.0.0.1" in found["NO_PROXY"]


def test_the_servers_key_is_in_the_agents_environment_and_not_in_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setenv("OPENAI_API_KEY", "of the user")
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "needed")
    asked = Endpoint("http://127.0.0.1:9/", "m", Requests(), Sampling(), "of the run")
    found = _environment(tmp_path, asked)
    assert found["OPENAI_API_KEY"] == "of the run" and found["MODAL_TOKEN_SECRET"] == "needed"
    assert "HF_TOKEN" not in found and "of the run" not in str(_config(asked, settings(), "i"))
