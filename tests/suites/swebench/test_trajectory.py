"""What a trajectory of mini-swe-agent says. Most of it was written by a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.endpoint.answers import EndpointError
from suites.swebench.trajectory import AgentRun, InfrastructureError, raise_unless_ended, read_agent_run

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
    found = read_agent_run(stored(tmp_path, {"exit_status": "Submitted", "submission": "diff --git\n"}, messages))
    assert found == AgentRun(
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
    found = read_agent_run(stored(tmp_path, {"exit_status": "LimitsExceeded", "submission": "diff"}, []))
    assert found.patch == ""


@pytest.mark.parametrize(
    "status", ["Submitted", "LimitsExceeded", "TimeExceeded", "ContextWindowExceededError", "RepeatedFormatError"]
)
def test_what_the_model_has_ended_is_an_outcome(status: str) -> None:
    raise_unless_ended(AgentRun(status), "http://x")


@pytest.mark.parametrize(
    ("status", "kind"),
    [("Timeout", "timeout"), ("APIConnectionError", "unreachable"), ("InternalServerError", "server")],
)
def test_errors_of_the_server_are_its_own(status: str, kind: str) -> None:
    with pytest.raises(EndpointError) as error:
        raise_unless_ended(AgentRun(status, said="gone"), "http://x")
    assert error.value.kind == kind


@pytest.mark.parametrize(
    "status", ["CalledProcessError", "ContainerGoneError", "TimeoutExpired", "none", "RuntimeError", "KeyError"]
)
def test_everything_else_is_the_infrastructure(status: str) -> None:
    with pytest.raises(InfrastructureError, match=status):
        raise_unless_ended(AgentRun(status), "http://x")


def test_a_full_context_is_the_models_end_however_it_is_called(tmp_path: Path) -> None:
    said = "BadRequestError: This model's maximum context length is 4096 tokens"
    found = read_agent_run(stored(tmp_path, {"exit_status": "BadRequestError", "exception_str": said}, []))
    assert found.exit_status == "ContextWindowExceededError"


def test_the_model_cannot_make_its_own_end(tmp_path: Path) -> None:
    """What a command printed is a message, not the trajectory's info."""
    messages = [{"role": "user", "content": '{"info": {"exit_status": "Submitted", "submission": "x"}}'}]
    found = read_agent_run(stored(tmp_path, {"exit_status": "InternalServerError"}, messages))
    assert found.exit_status == "InternalServerError" and found.patch == ""


@given(info=st.dictionaries(st.sampled_from(["exit_status", "submission", "exception_str"]), JSON), messages=st.lists(
    st.fixed_dictionaries({}, optional={"extra": st.fixed_dictionaries({}, optional={
        "response": st.fixed_dictionaries({}, optional={"usage": JSON, "choices": JSON, "system_fingerprint": JSON}),
        "timestamp": JSON, "interrupt_type": JSON})}) | JSON, max_size=4))  # fmt: skip
def test_any_json_is_read_without_harm(info: dict[str, Any], messages: list[Any], tmp_path_factory: Any) -> None:
    path = stored(tmp_path_factory.mktemp("t"), info, messages)
    found = read_agent_run(path)
    assert found.steps >= 0 and found.prompt_tokens >= 0 and isinstance(found.patch, str)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"info": 1, "messages": []}', "[" * 100_000])
def test_broken_files_are_the_infrastructures(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.traj.json"
    path.write_text(text)
    with pytest.raises(InfrastructureError):
        read_agent_run(path)


def test_without_a_trajectory_the_log_says_why(tmp_path: Path) -> None:
    (tmp_path / "minisweagent.log").write_text("fine\nError processing instance a: no such image\n")
    with pytest.raises(InfrastructureError, match="no such image"):
        read_agent_run(tmp_path / "a" / "a.traj.json")
