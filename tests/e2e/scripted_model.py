"""A server that a test scripts: what vLLM says of itself, and for an agent's requests the commands of a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from fake_server import FakeVllm, chat_reply


class ScriptedModel(FakeVllm):
    """Plays one script for each problem: the agent's n-th request about it is answered with its n-th command.

    A request with tools is answered by a call of `bash`, another one by a block of text, as mini-swe-agent asks for
    them. What the agent sent is kept in `asked`.
    """

    def __init__(self, scripts: Mapping[str, Sequence[str]]) -> None:
        """`scripts` are the commands by the problem's text."""
        super().__init__()
        self.models = [{"id": "quantgate", "max_model_len": 16384}]
        self.scripts = scripts
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        with self._lock:
            commands = self._script(body) if path == "/v1/chat/completions" else None
            if commands is None:
                return super().__call__(path, body)
            self.asked.append(body)
            self.requests += 1
            self.budget += body["max_tokens"]
        step = sum(message["role"] == "assistant" for message in body["messages"])
        command = commands[min(step, len(commands) - 1)]
        if "tools" in body:
            call = {"name": "bash", "arguments": json.dumps({"command": command})}
            calls = [{"id": f"call-{step}", "type": "function", "function": call}]
            reply = chat_reply("Next.", finish="tool_calls", completion_tokens=20, tool_calls=calls)
        else:
            reply = chat_reply(f"THOUGHT: next.\n\n```mswea_bash_command\n{command}\n```", completion_tokens=20)
        return reply | {"system_fingerprint": self.fingerprint}

    def _script(self, body: dict[str, Any]) -> Sequence[str] | None:
        text = json.dumps(body.get("messages"))
        return next((self.scripts[problem] for problem in self.scripts if json.dumps(problem)[1:-1] in text), None)
