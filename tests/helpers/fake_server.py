"""A small OpenAI-compatible server on loopback whose every answer a test scripts."""

import asyncio
import json
import math
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, TypeVar

from harness.contract.settings import Requests, Sampling
from harness.endpoint.client import Endpoint

T = TypeVar("T")
FAST_RETRY = {"retry-after-ms": "1"}
"""The openai client waits this long before it tries again, instead of half a second and more."""


@dataclass(frozen=True)
class Reply:
    """A raw answer; `body` that is not bytes is sent as JSON."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(FAST_RETRY))

    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Handler = Callable[[str, dict[str, Any]], Any]
"""(path, JSON body of a POST or {}) -> Reply, a JSON value, or None to drop the connection."""


class Listener(ThreadingHTTPServer):
    """With room for a burst of connections: the default of 5 resets some of them."""

    request_queue_size = 256
    daemon_threads = True


class FakeServer:
    """Answers GET /health with 200, everything else with what `handler` returns. Keeps what it was asked."""

    def __init__(self, port: int = 0) -> None:
        self.handler: Handler = lambda path, body: chat_reply()
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.authorizations: set[str | None] = set()
        """What requests said of who sends them."""
        self.most_in_flight = 0
        self.health = 200
        self._in_flight = 0
        self._lock = threading.Lock()
        self._http = Listener(("127.0.0.1", port), self._handler_class())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def script(self, *replies: Any) -> None:
        """Answer the next requests with these, the last one for ever."""
        left = list(replies)
        self.handler = lambda path, body: left.pop(0) if len(left) > 1 else left[0]

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handle(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                server.authorizations.add(self.headers["authorization"])
                if self.path == "/health":
                    self._send(Reply({}, server.health))
                else:
                    self._answer({})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server._lock:
                    server.authorizations.add(self.headers["authorization"])
                    server.posts.append((self.path, body))
                    server._in_flight += 1
                    server.most_in_flight = max(server.most_in_flight, server._in_flight)
                try:
                    self._answer(body)
                finally:
                    with server._lock:
                        server._in_flight -= 1

            def _answer(self, body: dict[str, Any]) -> None:
                reply = server.handler(self.path, body)
                if reply is None:
                    self.close_connection = True
                    return
                asked = self.headers["x-request-id"]
                if asked and isinstance(reply, dict):  # as vLLM does; a `Reply` is sent as it is
                    reply = reply | {key: f"chatcmpl-{asked}" for key in ("id", "request_id") if key in reply}
                self._send(reply if isinstance(reply, Reply) else Reply(reply))

            def _send(self, reply: Reply) -> None:
                data = reply.data()
                try:
                    self.send_response(reply.status)
                    for name, value in {"content-type": "application/json", **reply.headers}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the client has gone away
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handle


def chat_reply(
    text: str | None = "ok",
    *,
    finish: str | None = "stop",
    prompt_ids: list[int] | None = None,
    token_ids: list[int] | None = None,
    completion_tokens: int = 2,
    **message: Any,
) -> dict[str, Any]:
    """A chat completion as vLLM sends it; further arguments go into the message."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "quantgate",
        "system_fingerprint": "vllm-tp1",
        "prompt_token_ids": [1, 2, 3] if prompt_ids is None else prompt_ids,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "token_ids": [7, 8] if token_ids is None else token_ids,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": completion_tokens, "total_tokens": 3 + completion_tokens},
    }


class FakeVllm:
    """A handler: what a vLLM server says of itself, and the counters that it keeps. A test changes one thing."""

    def __init__(self) -> None:
        self.version: Any = "0.32.0"
        self.models: Any = [{"id": "other", "max_model_len": 1}, {"id": "quantgate", "max_model_len": 4096}]
        self.cache = 'cache_dtype="auto",enable_prefix_caching="True"'
        self.info: Any = server_info()
        self.defaults: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "stop": [], "stop_token_ids": [2]}
        self.sampling: dict[str, Any] = {}
        """Sampling parameters that the server puts in the place of those asked for."""
        self.render = True
        self.takes_tools = True
        self.ids: Any = None
        """Prompt ids of every request; None for the bytes of what was asked."""
        self.fingerprint: Any = "vllm-0.32.0-abc"
        self.started: float | None = 1795308921.37
        self.requests = 5
        self.budget = 700.0
        self.preemptions = 2
        self.metrics: str | None = None
        """The text of /metrics in the place of what the counters say."""
        self.most_tokens = 1 << 40
        """Cap on every budget that arrives."""
        self.packed: bytes | None = None
        """What the route of harness/endpoint/score_route.py answers; None for a server without it."""
        self.max_logprobs = 20
        self.logit_bits = 8
        """Bits of the significand of its logits: 8 in bfloat16, 11 in float16, 24 in float32."""

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        pages: dict[str, Callable[[], Any]] = {
            "/version": lambda: {"version": self.version},
            "/v1/models": lambda: {"data": self.models},
            "/server_info?config_format=json": lambda: Reply({}, 404) if self.info is None else self.info,
            "/metrics": lambda: Reply(self._metrics().encode(), headers={"content-type": "text/plain"}),
            "/v1/chat/completions/render": lambda: self._render(body),
            "/v1/quantgate/score": lambda: self._packed(body),
        }
        return pages.get(path, lambda: self._answer(body))()

    def _metrics(self) -> str:
        if self.metrics is not None:
            return self.metrics
        lines = [f"vllm:cache_config_info{{{self.cache}}} 1.0"]
        lines += [] if self.started is None else [f"process_start_time_seconds {self.started}"]
        for name, value in (
            ("request_params_max_tokens_count", self.requests),
            ("request_params_max_tokens_sum", self.budget),
            ("num_preemptions_total", self.preemptions),
        ):
            lines.append(f'vllm:{name}{{engine="0",model_name="quantgate"}} {value}')
        return "\n".join(lines) + "\n"

    def _render(self, body: dict[str, Any]) -> Any:
        if not self.render:
            return Reply({}, 404)
        asked = {key: value for key, value in body.items() if key not in ("model", "messages")}
        asked["max_tokens"] = min(asked["max_tokens"], self.most_tokens)
        return {"request_id": "", "sampling_params": {**self.defaults, **asked, **self.sampling}}

    def _packed(self, body: dict[str, Any]) -> Any:
        if self.packed is None:
            return Reply({}, 404)
        if not body:
            return {"quantgate_score": 1}
        self.requests += 1
        self.budget += 1
        return Reply(self.packed)

    def _answer(self, body: dict[str, Any]) -> Any:
        if "tools" in body and not self.takes_tools:
            return Reply({"error": {"message": "no tools"}}, 400)
        if body.get("prompt_logprobs", 0) > self.max_logprobs:
            found = f"Requested prompt logprobs of {body['prompt_logprobs']}, which is greater than max allowed: "
            return Reply({"error": {"message": f"{found}{self.max_logprobs}"}}, 400)
        self.requests += 1
        self.budget += min(body["max_tokens"], self.most_tokens)
        if "prompt_logprobs" in body:
            return score_reply(logprobs_of(body["prompt"], body["prompt_logprobs"], self.logit_bits))
        asked = json.dumps([body.get("messages"), body.get("tools")]).encode()
        return chat_reply(prompt_ids=list(asked) if self.ids is None else self.ids) | {
            "system_fingerprint": self.fingerprint
        }


def server_info(**sections: Any) -> dict[str, Any]:
    """An answer of /server_info, shortened; `sections` are laid over those of the configuration."""
    config: dict[str, Any] = {
        "model_config": {
            "model": "/models/a",
            "tokenizer": "/models/a",
            "served_model_name": "quantgate",
            "dtype": "torch.bfloat16",
            "seed": 0,
            "quantization": None,
            "hf_token": "hf_secret",
            "max_model_len": 4096,
            "enforce_eager": True,
            "hf_overrides": {},
        },
        "cache_config": {
            "block_size": 16,
            "cache_dtype": "auto",
            "enable_prefix_caching": True,
            "num_gpu_blocks": 364,
            "kv_cache_memory_bytes": 1 << 30,
            "_block_size_resolved": True,
        },
        "parallel_config": {
            "tensor_parallel_size": 1,
            "master_port": 29501,
            "data_parallel_master_ip": "127.0.0.1",
            "rank": 0,
            "assigned_physical_gpu_ids": [0],
            "eplb_config": {"window_size": 1000, "policy": "default"},
        },
        "scheduler_config": {"max_num_seqs": 16, "max_num_batched_tokens": 2048, "async_scheduling": False},
        "attention_config": {"backend": None},
        "compilation_config": {
            "custom_ops": ["all"],
            "pass_config": {"fuse_norm_quant": True, "eliminate_noops": True},
        },
        "speculative_config": None,
        "quant_config": None,
        "observability_config": {"otlp_traces_endpoint": None},
        "instance_id": "1795308934101637706",
        "optimization_level": 2,
    }
    environment = {"VLLM_BATCH_INVARIANT": False, "VLLM_CPU_INT4_W4A8": True, "VLLM_CACHE_ROOT": "/root/.cache"}
    for name, section in sections.items():
        config[name] = {**(config.get(name) or {}), **section} if isinstance(section, dict) else section
    return {"vllm_config": config, "vllm_env": environment, "system_env": {"os": "linux"}}


def logprobs_of(token_ids: list[int], top: int, bits: int) -> list[Any]:
    """prompt_logprobs of a model whose logits have significands of so many bits."""
    entries: list[Any] = [None]
    for place, token in enumerate(token_ids[1:]):
        logits = []
        for rank in range(top + 1):
            fraction, exponent = math.frexp(21.7 - 0.5371 * rank + 0.319 * math.sin(place + rank * rank))
            logits.append(math.ldexp(round(fraction * 2**bits), exponent - bits))
        norm = math.log(sum(map(math.exp, logits)))
        ids = [token, *(other for other in range(top + 1) if other != token)][: top + 1]
        ranked = enumerate(zip(ids, logits, strict=True))
        entries.append({str(i): {"logprob": x - norm, "rank": r + 1} for r, (i, x) in ranked})
    return entries


def score_reply(entries: list[Any]) -> dict[str, Any]:
    """A completion with prompt_logprobs."""
    choice = {"index": 0, "text": "x", "finish_reason": "length", "prompt_logprobs": entries}
    return {"id": "cmpl-1", "choices": [choice]}


def ask(
    url: str,
    action: Callable[[Endpoint], Awaitable[T]],
    *,
    retries: int = 0,
    concurrency: int = 16,
    min_tokens_per_second: float = 1.0,
    **sampling: Any,
) -> T:
    """Run `action` with an endpoint at `url` in an event loop of its own."""
    # Not validated: a test of timeouts needs a rate that no policy may ask for.
    requests = Requests.model_construct(
        concurrency=concurrency, retries=retries, min_tokens_per_second=min_tokens_per_second
    )

    async def run() -> T:
        async with Endpoint(url, "quantgate", requests, Sampling(**sampling)) as endpoint:
            return await action(endpoint)

    return asyncio.run(run())
