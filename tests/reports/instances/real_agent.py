"""Run mini-swe-agent itself, without a server: its agent, its parsers and a shell, with answers from a list.

python real_agent.py FOLDER writes backticks.traj.json and tool_calls.traj.json there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.local import LocalEnvironment
from minisweagent.exceptions import FormatError
from minisweagent.models.utils.actions_text import format_observation_messages, parse_regex_actions
from minisweagent.models.utils.actions_toolcall import format_toolcall_observation_messages, parse_toolcall_actions

FENCED = r"```mswea_bash_command\s*\n(.*?)\n```"
OBSERVATION = "<returncode>{{output.returncode}}</returncode>\n<output>{{output.output[:20]}}</output>"
PATCH = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
LAST = f"echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && printf '{PATCH}'".replace("\n", "\\n")
SAID = [
    ("I look around.", "seq 1 2000"),
    ("No command from me.", None),
    ("It fails.", "echo broken; exit 3"),
    ("Done.", LAST),
]


class Scripted:
    """A model whose answers are those above, in one of mini-swe-agent's two formats."""

    def __init__(self, as_text: bool) -> None:
        self.as_text, self.asked = as_text, 0
        self.config = SimpleNamespace(model_dump=lambda **_: {})

    def query(self, messages: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
        said, command = SAID[self.asked]
        self.asked += 1
        calls: list[dict[str, Any]] = []
        content = said
        if command and self.as_text:
            content = f"{said}\n\n```mswea_bash_command\n{command}\n```\n"
        elif command:
            function = {"name": "bash", "arguments": json.dumps({"command": command})}
            calls = [{"id": f"c{self.asked}", "type": "function", "function": function}]
        answer = {
            "role": "assistant",
            "content": content,
            "tool_calls": calls or None,
            "reasoning_content": "Let me think.",
        }
        finish = "stop" if command else "length"
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        extra = {"response": {"choices": [{"finish_reason": finish, "message": answer}], "usage": usage}, "cost": 0.0}
        try:
            if self.as_text:
                actions = parse_regex_actions(content, action_regex=FENCED, format_error_template="{{ error }}")
            else:
                named = [SimpleNamespace(id=c["id"], function=SimpleNamespace(**c["function"])) for c in calls]
                actions = parse_toolcall_actions(named, format_error_template="{{ error }}")
        except FormatError as error:
            error.messages[0]["extra"] |= extra
            raise
        return answer | {"extra": {"actions": actions, **extra}}

    def format_message(self, **fields: Any) -> dict[str, Any]:
        return fields

    def format_observation_messages(self, message: dict[str, Any], outputs: list[Any], values: Any = None) -> list[Any]:
        if self.as_text:
            return format_observation_messages(outputs, observation_template=OBSERVATION)
        actions = message["extra"]["actions"]
        return format_toolcall_observation_messages(actions=actions, outputs=outputs, observation_template=OBSERVATION)

    def get_template_vars(self) -> dict[str, Any]:
        return {}

    def serialize(self) -> dict[str, Any]:
        return {}


if __name__ == "__main__":
    for kind in ("backticks", "tool_calls"):
        agent = DefaultAgent(
            cast(Any, Scripted(kind == "backticks")),
            LocalEnvironment(),
            system_template="You have a shell.",
            instance_template="Mend this: {{ task }}",
            cost_limit=0,
        )
        agent.run("x is a, not b")
        agent.save(Path(sys.argv[1]) / f"{kind}.traj.json")
