"""Made-up results of SWE-bench: folders of instances as the suite leaves them, in both shapes of trajectories.

Sizes are like those of real runs: 30 to 60 steps, outputs of 1 to 20 KB, each answer stored twice (as the message and
inside the response that it came from), which makes a trajectory of about 1 MB.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from harness.contract.samples import Role
from harness.runs.instances import InstanceOutcome, InstanceResult, write_result

REPOSITORIES = ("django", "sympy", "scikit-learn", "matplotlib", "astropy", "sphinx-doc", "pytest-dev", "pydata")
WORDS = (
    "the",
    "field",
    "returns",
    "value",
    "when",
    "query",
    "is",
    "empty",
    "so",
    "check",
    "self",
    "and",
    "raise",
    "test",
)


def text(rng: random.Random, characters: int) -> str:
    """Lines of words, as many characters as asked for."""
    bank = [" ".join(rng.choices(WORDS, k=12)) for _ in range(40)]
    lines: list[str] = []
    length = 0
    while length < characters:
        lines.append(f"{len(lines) + 1:>5}  {rng.choice(bank)}")
        length += len(lines[-1]) + 1
    return "\n".join(lines)[:characters]


def instance_id(number: int) -> str:
    return f"{REPOSITORIES[number % len(REPOSITORIES)]}__project-{10_000 + number}"


def patch(rng: random.Random, changes: int = 8) -> str:
    """A patch of one file."""
    head = "diff --git a/pkg/core.py b/pkg/core.py\n--- a/pkg/core.py\n+++ b/pkg/core.py\n@@ -10,20 +10,20 @@\n"
    return head + "".join(f"-    {text(rng, 60).strip()}\n+    {text(rng, 60).strip()}\n" for _ in range(changes))


def answer(rng: random.Random, step: int, command: str, as_text: bool, reasoning: int) -> dict[str, Any]:
    """The model's message of one step, with the response it came from."""
    thought = f"THOUGHT: {text(rng, rng.randint(200, 900))}"
    call = {"id": f"call-{step}", "type": "function"} | {
        "function": {"name": "bash", "arguments": json.dumps({"command": command})}
    }
    message = {
        "content": f"{thought}\n\n```mswea_bash_command\n{command}\n```" if as_text else thought,
        "role": "assistant",
        "tool_calls": None if as_text else [call],
        "function_call": None,
        "reasoning_content": text(rng, reasoning),
    }
    usage = {"completion_tokens": 300, "prompt_tokens": 2000 + 900 * step, "total_tokens": 2300 + 900 * step}
    response = {"id": f"chat-{step}", "object": "chat.completion", "usage": usage} | {
        "choices": [{"finish_reason": "stop" if as_text else "tool_calls", "index": 0, "message": message}]
    }
    action = {"command": command} if as_text else {"command": command, "tool_call_id": call["id"]}
    return message | {"extra": {"actions": [action], "response": response, "cost": 0.0, "timestamp": 1.7e9 + step}}


def observation(rng: random.Random, step: int, as_text: bool, characters: int) -> dict[str, Any]:
    """What a command printed, as the agent stores it: whole, and as the model saw it."""
    output, status = text(rng, characters), int(rng.random() < 0.1)
    seen = output if len(output) < 10_000 else f"{output[:5000]}\n<elided_chars/>\n{output[-5000:]}"
    extra = {"raw_output": output, "returncode": status, "timestamp": 1.7e9 + step + 0.5, "exception_info": ""}
    message = {"role": "user" if as_text else "tool", "extra": extra}
    message["content"] = f"<returncode>{status}</returncode>\n<output>\n{seen}</output>"
    return message if as_text else message | {"tool_call_id": f"call-{step}"}


def trajectory(rng: random.Random, name: str, submission: str, status: str = "Submitted") -> dict[str, Any]:
    """A whole trajectory of 30 to 60 steps; of every other instance commands are tool calls."""
    as_text = rng.random() < 0.5
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You can interact with a shell."},
        {"role": "user", "content": f"Consider the following PR description:\n{text(rng, 3000)}"},
    ]
    steps = rng.randint(30, 60)
    for step in range(1, steps):
        command = f"cd /testbed && sed -n '{step},{step + 80}p' pkg/core.py | grep -n \"{rng.choice(WORDS)}\""
        messages.append(answer(rng, step, command, as_text, rng.randint(0, 2000)))
        messages.append(observation(rng, step, as_text, int(1000 * 20 ** rng.random())))
    last = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt"
    messages.append(answer(rng, steps, last, as_text, 200))
    messages.append({"role": "exit", "content": submission, "extra": {"exit_status": status, "submission": submission}})
    info = {"model_stats": {"instance_cost": 0.0, "api_calls": steps}, "mini_version": "2.4.6"}
    info |= {"exit_status": status, "submission": submission}
    return {"info": info, "messages": messages, "trajectory_format": "mini-swe-agent-1.1", "instance_id": name}


def write_instance(run: Path, role: Role, name: str, rng: random.Random, outcome: InstanceOutcome) -> int:
    """The folder of one instance of one role; returns the bytes of its trajectory."""
    folder = run / "swebench" / role / name
    submission = "" if outcome == "empty patch" else patch(rng)
    status = "LimitsExceeded" if outcome == "empty patch" else "Submitted"
    made = trajectory(rng, name, submission, status)
    path = folder / "agent" / name / f"{name}.traj.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(made, indent=2))
    (folder / "grading").mkdir()
    (folder / "grading" / "test_output.txt").write_text(text(rng, 40_000))
    steps = int(made["info"]["model_stats"]["api_calls"])
    broken = [f"test_{n}" for n in range(3)]
    solved = outcome == "resolved"
    result = InstanceResult(
        instance_id=name,
        role=role,
        outcome=outcome,
        exit_status=status,
        patch=submission,
        steps=steps,
        prompt_tokens=sum(2000 + 900 * step for step in range(1, steps + 1)),
        completion_tokens=300 * steps,
        cut_steps=0,
        format_errors=0,
        agent_seconds=20.0 * steps,
        grading_seconds=40.0,
        image=f"example/{name}:latest",
        image_digest="sha256:" + "ab" * 32,
        agent_version="2.4.6",
        grader_version="5.0.2",
        trajectory=str(path.relative_to(folder)),
        test_output="grading/test_output.txt",
        tests={
            "FAIL_TO_PASS": {"success": broken if solved else [], "failure": [] if solved else broken},
            "PASS_TO_PASS": {"success": [f"test_old_{n}" for n in range(200)], "failure": []},
        },
    )
    write_result(folder, result)
    return path.stat().st_size
