"""What a trajectory of mini-swe-agent says. Most of it was written by a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minisweagent.environments import get_environment_class

from harness.contract.policy import Requests, Sampling
from harness.endpoint.answers import EndpointError
from harness.endpoint.client import Endpoint
from suites.swebench.agent import (
    WATCHED,
    AgentSettings,
    InfrastructureError,
    Trajectory,
    _command,
    _config,
    _environment,
    _own_config,
    _raise_unless_ended,
    read_trajectory,
    require_agent,
)
from suites.swebench.environment import WatchedContainer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def answer(prompt: int, completion: int, finish: str = "stop", time: float = 0.0, **extra: Any) -> dict[str, Any]:
    """A message of the model as mini-swe-agent stores it."""
    response = {
        "choices": [{"finish_reason": finish}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion},
        "system_fingerprint": "vllm-1",
    }
    return {"role": "assistant", "content": "x", "extra": {"response": response, "timestamp": time, **extra}}


def stored(folder: Path, info: Any, messages: Any) -> Path:
    path = folder / "a.traj.json"
    path.write_text(json.dumps({"info": info, "messages": messages, "trajectory_format": "mini-swe-agent-1.1"}))
    return path


def test_what_is_counted(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "s"},
        answer(100, 10, time=50.0),
        {"role": "tool", "content": "out", "extra": {"timestamp": 51.5, "returncode": 0}},
        answer(120, 4096, "length", 60.0, interrupt_type="FormatError"),
        answer(4300, 20, "tool_calls", 62.0),
        {"role": "exit", "content": "diff", "extra": {"exit_status": "Submitted"}},
    ]
    found = read_trajectory(stored(tmp_path, {"exit_status": "Submitted", "submission": "diff --git\n"}, messages))
    assert found == Trajectory(
        exit_status="Submitted",
        patch="diff --git\n",
        steps=3,
        prompt_tokens=4520,
        completion_tokens=4126,
        cut_steps=1,
        format_errors=1,
        seconds=12.0,
        answers=[("vllm-1", 100), ("vllm-1", 120), ("vllm-1", 4300)],
    )


def test_only_what_was_submitted_is_a_patch(tmp_path: Path) -> None:
    found = read_trajectory(stored(tmp_path, {"exit_status": "LimitsExceeded", "submission": "diff"}, []))
    assert found.patch == ""


@pytest.mark.parametrize(
    "status", ["Submitted", "LimitsExceeded", "TimeExceeded", "ContextWindowExceededError", "RepeatedFormatError"]
)
def test_what_the_model_has_ended_is_an_outcome(status: str) -> None:
    _raise_unless_ended(Trajectory(status), "http://x")


@pytest.mark.parametrize(
    ("status", "kind"),
    [("Timeout", "timeout"), ("APIConnectionError", "unreachable"), ("InternalServerError", "server")],
)
def test_errors_of_the_server_are_its_own(status: str, kind: str) -> None:
    with pytest.raises(EndpointError) as error:
        _raise_unless_ended(Trajectory(status, said="gone"), "http://x")
    assert error.value.kind == kind


@pytest.mark.parametrize(
    "status", ["CalledProcessError", "ContainerGoneError", "TimeoutExpired", "none", "RuntimeError", "KeyError"]
)
def test_everything_else_is_the_infrastructure(status: str) -> None:
    with pytest.raises(InfrastructureError, match=status):
        _raise_unless_ended(Trajectory(status), "http://x")


def test_a_full_context_is_the_models_end_however_it_is_called(tmp_path: Path) -> None:
    said = "BadRequestError: This model's maximum context length is 4096 tokens"
    found = read_trajectory(stored(tmp_path, {"exit_status": "BadRequestError", "exception_str": said}, []))
    assert found.exit_status == "ContextWindowExceededError"


def test_the_model_cannot_make_its_own_end(tmp_path: Path) -> None:
    """What a command printed is a message, not the trajectory's info."""
    messages = [{"role": "user", "content": '{"info": {"exit_status": "Submitted", "submission": "x"}}'}]
    found = read_trajectory(stored(tmp_path, {"exit_status": "InternalServerError"}, messages))
    assert found.exit_status == "InternalServerError" and found.patch == ""


@given(info=st.dictionaries(st.sampled_from(["exit_status", "submission", "exception_str"]), JSON), messages=st.lists(
    st.fixed_dictionaries({}, optional={"extra": st.fixed_dictionaries({}, optional={
        "response": st.fixed_dictionaries({}, optional={"usage": JSON, "choices": JSON, "system_fingerprint": JSON}),
        "timestamp": JSON, "interrupt_type": JSON})}) | JSON, max_size=4))  # fmt: skip
def test_any_json_is_read_without_harm(info: dict[str, Any], messages: list[Any], tmp_path_factory: Any) -> None:
    path = stored(tmp_path_factory.mktemp("t"), info, messages)
    found = read_trajectory(path)
    assert found.steps >= 0 and found.prompt_tokens >= 0 and isinstance(found.patch, str)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"info": 1, "messages": []}', "[" * 100_000])
def test_broken_files_are_the_infrastructures(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.traj.json"
    path.write_text(text)
    with pytest.raises(InfrastructureError):
        read_trajectory(path)


def test_without_a_trajectory_the_log_says_why(tmp_path: Path) -> None:
    (tmp_path / "minisweagent.log").write_text("fine\nError processing instance a: no such image\n")
    with pytest.raises(InfrastructureError, match="no such image"):
        read_trajectory(tmp_path / "a" / "a.traj.json")


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
