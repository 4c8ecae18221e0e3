"""What stands between a client and vLLM and changes requests on their way, as gateways do: ASGI middleware.

    vllm serve MODEL --middleware harness.prove.gateways.CutBudget

Runs in the server's own process; nothing of ours is imported. Only chats are touched, not what the gate reads back.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CHAT = "/v1/chat/completions"
BUDGET = 32
"""Tokens that are left of every budget."""
STOP = "\n"
DROPPED = 100
"""One request in so many is refused."""
REFUSAL = b'{"error": {"message": "refused by the gateway", "code": 400}}'


class Gateway:
    """Reads a chat's request whole and sends on what `change` makes of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != CHAT:
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        asked = json.loads(body)
        changed = self.change(asked)
        if changed is None:
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(REFUSAL)).encode())]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})
            return
        new = json.dumps(changed).encode()
        kept = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        scope = {**scope, "headers": [*kept, (b"content-length", str(len(new)).encode())]}
        waiting: list[Message] = [{"type": "http.request", "body": new, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)

    def change(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What is asked of the server instead; None where the request is refused."""
        return asked


class CutBudget(Gateway):
    """No answer gets more than BUDGET tokens."""

    def change(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        budgets = {key: min(asked[key], BUDGET) for key in ("max_tokens", "max_completion_tokens") if asked.get(key)}
        return asked | budgets


class AddStop(Gateway):
    """Every answer ends at its first line break."""

    def change(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        return asked | {"stop": [STOP]}


class DropSome(Gateway):
    """One request in DROPPED is refused, the first one among the early ones of a run."""

    count = DROPPED // 2

    def change(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        self.count += 1
        return None if self.count % DROPPED == 0 else asked
