"""A server that costs next to nothing: every chat is answered after a fixed delay with the same bytes.

python -m benchmarks.scripted_server     # writes its port to stdout and serves until its standard input closes

It stands in for vLLM where only the client is measured: no model, and no parsing of what it is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

TEXT = "Maya picks 12 + 7 = 19 apples in all, and then gives 4 of them away. 19 - 4 = 15 are left.\n"
"""A sentence of an answer, about 32 tokens."""


def answer(tokens: int, prompt_tokens: int) -> bytes:
    """A chat completion as vLLM sends it when token ids are asked for, with HTTP headers."""
    ids = [(7919 * i) % 49152 for i in range(tokens)]
    text = TEXT * (tokens // 32) + f"The answer is {tokens % 97}"
    body = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1795308921,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None, "tool_calls": [], "reasoning": None},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
                "token_ids": ids,
            }
        ],
        "system_fingerprint": "scripted",
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens + tokens, "completion_tokens": tokens},
        "prompt_logprobs": None,
        "prompt_token_ids": ids[:prompt_tokens],
    }
    data = json.dumps(body, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data) + data


class Connection(asyncio.Protocol):
    """One connection: reads the length of a request and nothing else of it."""

    def __init__(self, reply: bytes, seconds: float) -> None:
        self._reply, self._seconds, self._buffer = reply, seconds, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
        if len(rest) >= length:
            self._buffer = rest[length:]
            asyncio.get_running_loop().call_later(self._seconds, self._send)

    def _send(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._reply)


async def serve(tokens: int, prompt_tokens: int, seconds: float) -> None:
    """Serve on a free port of loopback until standard input closes."""
    reply, loop = answer(tokens, prompt_tokens), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(reply, seconds), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scripted_server")
    parser.add_argument("--tokens", type=int, default=512, help="of an answer")
    parser.add_argument("--prompt-tokens", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.0, help="from a request to its answer")
    asked = parser.parse_args()
    asyncio.run(serve(asked.tokens, asked.prompt_tokens, asked.seconds))
