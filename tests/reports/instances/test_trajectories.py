"""Trajectories as they are read: what an agent stored, and whatever else a file may hold."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instance_runs import step

from benchmarks.trajectories import patch, trajectory
from harness.contract.errors import BadInput
from reports.instances.trajectories import (
    FILE_LIMIT,
    FIRST_STEPS,
    LAST_STEPS,
    OUTPUT_LIMIT,
    ShownSteps,
    read_steps,
)


@pytest.fixture(scope="module", params=["backticks", "tool_calls"])
def of_the_agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShownSteps:
    """A trajectory that mini-swe-agent itself has saved, in each of its formats."""
    folder = tmp_path_factory.mktemp("agent")
    environment = os.environ | {"MSWEA_SILENT_STARTUP": "1", "MSWEA_GLOBAL_CONFIG_DIR": str(folder)}
    script = Path(__file__).with_name("real_agent.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, env=environment, cwd=folder)
    return read_steps(folder / f"{request.param}.traj.json")


def read(tmp_path: Path, data: Any) -> ShownSteps:
    path = tmp_path / "made.traj.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return read_steps(path)


def test_a_trajectory_of_the_agent_itself(of_the_agent: ShownSteps) -> None:
    found = of_the_agent
    assert "x is a, not b" in found.task and "You have a shell" not in found.task
    assert (found.count, found.exit_status, found.problem) == (4, "Submitted", "")
    look, nothing, fails, last = found.steps
    assert [s.number for s in found.steps] == [1, 2, 3, 4]
    assert [s.thought for s in found.steps] == ["I look around.", "No command from me.", "It fails.", "Done."]
    assert {s.reasoning for s in found.steps} == {"Let me think."}
    (call,) = look.calls
    assert (call.command, call.status, call.length) == ("seq 1 2000", "0", 8893)
    assert call.output and call.output.startswith("1\n2\n") and call.output.endswith("\n2000\n") and not call.short
    assert f"[… {8893 - OUTPUT_LIMIT:,} characters left out …]" in call.output
    assert nothing.refused and nothing.finish_reason == "length" and not nothing.calls
    assert re.search("No tool calls found|Expected exactly 1 action", nothing.notices[0])
    assert [(c.command, c.output, c.status, c.short) for c in fails.calls] == [
        ("echo broken; exit 3", "broken\n", "3", True)
    ]
    assert last.calls[0].command.startswith("echo COMPLETE_TASK") and last.calls[0].output is None
    assert not any(s.notices for s in (look, fails, last))


def test_outputs_find_their_commands_by_id(tmp_path: Path) -> None:
    actions = [{"command": c, "tool_call_id": f"id-{c}"} for c in ("first", "second", "third")]
    outputs = [
        {"role": "tool", "tool_call_id": f"id-{c}", "extra": {"raw_output": f"of {c}", "returncode": n}}
        for n, c in enumerate(("third", "first"))
    ]
    messages = [{"role": "assistant", "content": None, "extra": {"actions": actions}}, *outputs]
    (found,) = read(tmp_path, {"messages": messages}).steps
    assert [(c.command, c.output, c.status) for c in found.calls] == [
        ("first", "of first", "1"),
        ("second", None, ""),
        ("third", "of third", "0"),
    ]


def test_a_command_that_ran_out_of_time_says_so(tmp_path: Path) -> None:
    messages = step("sleep 99", "", returncode=-1, exception_info="timed out after 60 s")
    (call,) = read(tmp_path, {"messages": messages}).steps[0].calls
    assert (call.problem, call.status, call.output) == ("timed out after 60 s", "-1", "")


def test_an_exception_that_ended_it_is_shown(tmp_path: Path) -> None:
    info = {"exit_status": "RuntimeError", "exception_str": "no container"}
    found = read(tmp_path, {"messages": [], "info": info})
    assert (found.count, found.exit_status, found.problem) == (0, "RuntimeError", "no container")


def test_long_trajectories_and_texts_are_cut_and_say_by_how_much(tmp_path: Path) -> None:
    messages = [m for n in range(1000) for m in step(f"c{n}", "x" * 100_000 if n == 5 else "")]
    messages[0]["extra"]["actions"] = [{"command": str(n)} for n in range(50)]
    found = read(tmp_path, {"messages": messages})
    assert found.count == 1000 and len(found.steps) == FIRST_STEPS + LAST_STEPS
    assert found.steps[FIRST_STEPS].left_out_before == 700 and found.steps[FIRST_STEPS].number == 901
    assert sum(s.left_out_before for s in found.steps) == 700
    assert (len(found.steps[0].calls), found.steps[0].calls_left_out) == (10, 40)
    assert found.steps[5].calls[0].length == 100_000
    assert len(found.steps[5].calls[0].output or "") < OUTPUT_LIMIT + 60


@pytest.mark.parametrize("text", ["", "{", '{"messages": [{"role":', "[1]", '{"messages": 3}', "[" * 100_000, "\x00"])
def test_what_is_no_trajectory_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"^made\.traj\.json [^\n]+$"):
        read(tmp_path, text)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.traj.json"
    with path.open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    with pytest.raises(BadInput, match=r"big\.traj\.json has 64 MiB, more than the 64 that are read"):
        read_steps(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    *(
        "role",
        "content",
        "extra",
        "actions",
        "tool_calls",
        "response",
        "choices",
        "message",
        "command",
        "finish_reason",
    ),
    *("interrupt_type", "raw_output", "returncode", "tool_call_id", "exception_info", "function", "text"),
)
ODD = st.recursive(
    JSON | st.sampled_from(["assistant", "tool", "user", "exit", "FormatError"]),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=20,
)


@given(messages=st.lists(ODD, max_size=6), info=ODD)
@settings(max_examples=100, deadline=None)
@pytest.mark.slow
def test_no_json_makes_reading_fail(tmp_path_factory: pytest.TempPathFactory, messages: list[Any], info: Any) -> None:
    found = read(tmp_path_factory.getbasetemp(), {"messages": messages, "info": info})
    for one in found.steps:
        assert isinstance(one.thought, str) and all(isinstance(c.command, str) for c in one.calls)


def test_made_up_trajectories_are_like_real_ones(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(4):
        made = trajectory(rng, "django__django-1", patch(rng))
        found = read(tmp_path, made)
        assert 30 <= found.count == made["info"]["model_stats"]["api_calls"] <= 60
        assert all(len(s.calls) == 1 and not s.notices and not s.refused for s in found.steps)
        assert all(s.calls[0].output for s in found.steps[:-1]) and found.steps[-1].calls[0].output is None
        assert not any("mswea_bash_command" in s.thought for s in found.steps)
