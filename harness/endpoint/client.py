"""The one client of both roles: an OpenAI-compatible server, asked with the `openai` package.

Every answer keeps what a gate must know of it: finish_reason, usage, reasoning, token ids, log-probabilities.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

from harness.contract.chat import Messages
from harness.contract.secrets import without_login
from harness.contract.settings import Requests, Sampling
from harness.endpoint.answers import (
    FINGERPRINT_HEADER,
    SCORE_PATH,
    SCORE_VERSION,
    Completion,
    EndpointError,
    Scores,
    common_fields,
    first_choice,
    json_object,
    message_fields,
    read_prompt_logprobs,
    require_own,
    token_ids_of,
    unpack_scores,
    valid_text,
)
from harness.endpoint.asked import Asked
from harness.endpoint.connections import REQUEST_ID, SpreadClient
from harness.endpoint.tries import again, answered, found

__all__ = ["Asked", "Completion", "Endpoint", "EndpointError", "Scores"]

T = TypeVar("T")
GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
PATIENCE_SECONDS = 120.0
"""For an answer, beside the time that its tokens take."""
MOST_FINGERPRINTS = 8
"""So many distinct ones are kept: one is right, two are a restart, and a server may send a new one each time."""


class Endpoint:
    """A role's server. Suites know this and nothing of processes."""

    def __init__(
        self,
        url: str,
        model: str,
        requests: Requests,
        sampling: Sampling,
        api_key: str = "none",
        *,
        thinking_opened: bool = False,
        tokenizer_path: str = "",
        fingerprints: Iterable[str] = (),
    ) -> None:
        """`url` is the server's root (without /v1), `model` the name it is served under. A login in the URL is sent and
        stands in no error.

        `thinking_opened`: the chat template opens the thinking, so that answers begin inside it. `tokenizer_path`: of
        the tokenizer that items were made with; empty when it is not here. `fingerprints`: of earlier answers.
        """
        self.url = without_login(url.rstrip("/"))
        self.model = model
        self.api_key = api_key
        self._given_url = url
        self.sampling = sampling
        self.thinking_opened = thinking_opened
        self.tokenizer_path = tokenizer_path
        self.asked = Asked()
        self.fingerprints = set(fingerprints)
        """Every distinct system_fingerprint of its answers."""
        self.measured: dict[str, float] = {}
        """What is known of checkpoint and server without asking: bytes, KV room. The gate fills it after parity."""
        self.packed_scores: bool | None = None
        """Whether the server has harness/endpoint/score_route.py in it; None: not known yet."""
        self._requests = requests
        self._slots = asyncio.Semaphore(requests.concurrency)
        # A proxy from the environment must not be asked for a server on this machine.
        self._http = SpreadClient(requests.concurrency, trust_env=not self.on_this_machine, auth=_login(url))
        self._http.headers["Authorization"] = f"Bearer {api_key}"  # /v1/models and the like are guarded as well
        self._client = openai.AsyncOpenAI(
            base_url=self.url + "/v1",
            api_key=api_key,
            max_retries=requests.retries,
            http_client=self._http,
        )

    def with_seed(self, seed: int) -> Endpoint:
        """Another client of the same server: the two count together what they ask, and know the same of it."""
        other = Endpoint(
            self._given_url,
            self.model,
            self._requests,
            self.sampling.model_copy(update={"seed": seed}),
            self.api_key,
            thinking_opened=self.thinking_opened,
            tokenizer_path=self.tokenizer_path,
        )
        other.asked, other.fingerprints, other.measured = self.asked, self.fingerprints, self.measured
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    # -- asking ----------------------------------------------------------------------------------------------

    async def chat(
        self,
        messages: Messages,
        max_tokens: int | None = None,
        *,
        repeat: int = 0,
        greedy: bool = False,
        tools: list[dict[str, Any]] | None = None,
    ) -> Completion:
        """Ask for one answer with the policy's sampling; `max_tokens` overrides the policy's budget.

        Each `repeat` has a seed of its own (the policy's + repeat). `greedy` takes the likeliest token each time.
        `tools` are told to the model and left to it: a call stands in the text, since servers without a tool parser
        refuse any other choice.

        A request that is tried again replaces the one that failed: usage and text come from one answer only.

        Raises:
            EndpointError: no usable answer.
        """
        return await self._again(lambda: self._chat(messages, max_tokens, repeat, greedy, tools))

    async def _chat(
        self, messages: Messages, max_tokens: int | None, repeat: int, greedy: bool, tools: list[dict[str, Any]] | None
    ) -> Completion:
        budget = max_tokens or self.sampling.max_tokens
        body = {"model": self.model, "messages": messages, "return_token_ids": True, **self._sampling_body(budget)}
        body["seed"] += repeat
        if greedy:
            body |= GREEDY
        if tools is not None:
            body |= {"tools": tools, "tool_choice": "none"}
        data, seconds = await self._post("/chat/completions", body, budget + _reading(messages))
        choice = first_choice(data)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise EndpointError("garbage", f"{self.url}: a choice without message")
        said = message_fields(message, self.thinking_opened, self.thinking_tags)
        completion = Completion(seconds=seconds, **said, **common_fields(data, choice))
        if completion.finish_reason == "length" and completion.completion_tokens < budget:
            used = f"{completion.prompt_tokens} prompt + {completion.completion_tokens} answer tokens"
            raise EndpointError("budget", f"{self.url} cut the answer at {used}, before max_tokens {budget}")
        return completion

    async def score(self, token_ids: list[int], start: int, top: int) -> Scores:
        """Log-probabilities of token_ids[start:] given all before, with the `top` likeliest at each position.

        The same numbers either way: over our route in the server (harness/endpoint/score_route.py) where it has one,
        else from its completions. A route that fails where completions do not is left alone from then on.

        Raises:
            EndpointError: no usable answer.
        """
        if not await self._has_packed_scores():
            return await self._again(lambda: self._completion_scores(token_ids, start, top))
        try:
            return await self._again(lambda: self._packed_scores(token_ids, start, top))
        except EndpointError as error:
            if error.kind in ("unreachable", "timeout"):
                raise
        scores = await self._again(lambda: self._completion_scores(token_ids, start, top))
        self.packed_scores = False
        return scores

    async def _completion_scores(self, token_ids: list[int], start: int, top: int) -> Scores:
        body = {"model": self.model, "prompt": token_ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": top}
        data, _ = await self._post("/completions", body, budget=len(token_ids))
        entries = first_choice(data).get("prompt_logprobs")
        if not isinstance(entries, list) or len(entries) != len(token_ids):
            raise EndpointError("garbage", f"{self.url}: prompt_logprobs do not match the {len(token_ids)} tokens sent")
        return read_prompt_logprobs(token_ids[start:], entries[start:], top)

    async def _packed_scores(self, token_ids: list[int], start: int, top: int) -> Scores:
        body = {"token_ids": token_ids, "start": start, "top": top}
        response, _ = await self._send(SCORE_PATH, body, budget=len(token_ids), max_tokens=1)
        await require_own(response, response.headers.get(REQUEST_ID), self.url)
        self._note(response.headers.get(FINGERPRINT_HEADER), len(token_ids), 1)
        return unpack_scores(token_ids[start:], response.content, top)

    async def _has_packed_scores(self) -> bool:
        """Ask the server once. One that is busy or broken just now is asked again the next time."""
        if self.packed_scores is None:
            try:
                response = await self._http.get(f"{self.url}/v1{SCORE_PATH}", timeout=60.0)
            except httpx.HTTPError:
                return False
            if response.status_code >= 500:
                return False
            try:
                found = json_object(response, self.url) if response.status_code == 200 else {}
            except EndpointError:  # a page in the place of what was asked for
                found = {}
            self.packed_scores = found.get("quantgate_score") == SCORE_VERSION
        return self.packed_scores

    async def render(
        self, messages: Messages, max_tokens: int = 1, tools: list[dict[str, Any]] | None = None
    ) -> list[int]:
        """Token ids that the server makes of chat messages, read back from a real request of `max_tokens`.

        `tools` are told to the model and not to be called: a server without a tool parser refuses any other choice.

        Raises:
            EndpointError: no usable answer, or a server that does not tell its ids.
        """
        body = {"model": self.model, "messages": messages, "return_token_ids": True, "max_tokens": max_tokens}
        if tools is not None:
            body |= {"tools": tools, "tool_choice": "none"}
        data, _ = await self._again(lambda: self._post("/chat/completions", body, budget=max_tokens))
        ids = token_ids_of(data.get("prompt_token_ids"))
        if not ids:
            raise EndpointError("garbage", f"{self.url} does not return prompt_token_ids (vLLM 0.10.2 or newer does)")
        return ids

    @property
    def has_login(self) -> bool:
        """Whether it is asked with a login in its URL, which only this client knows."""
        return self._given_url.rstrip("/") != self.url

    @property
    def on_this_machine(self) -> bool:
        """Whether the server is reached over loopback: no proxy must be asked for it."""
        return httpx.URL(self.url).host in ("127.0.0.1", "localhost", "::1")

    @property
    def thinking_tags(self) -> tuple[tuple[str, str], ...]:
        """Tags of thinking that the policy names beside those that are known."""
        return self._requests.thinking_tags

    def patience(self, tokens: int) -> float:
        """Seconds after which an answer of so many tokens is not waited for any longer, however it trickles in."""
        return PATIENCE_SECONDS + tokens / self._requests.min_tokens_per_second

    def note(self, fingerprint: Any, prompt_tokens: Any, max_tokens: int) -> None:
        """Count a request that something else than this client has sent (an agent), and what its answer says.

        So the server's own counters can be held against what was asked.
        """
        self.asked.add(1, max_tokens)
        self._note(fingerprint, prompt_tokens, max_tokens)

    # -- reading back ----------------------------------------------------------------------------------------

    async def healthy(self) -> bool:
        """Whether /health answers 200 within ten seconds."""
        try:
            response = await self._http.get(self.url + "/health", timeout=10.0)
        except httpx.HTTPError:
            return False
        return response.status_code == 200

    async def get_json(self, path: str) -> dict[str, Any]:
        """GET a JSON object. Raises EndpointError."""

        async def get() -> dict[str, Any]:
            return json_object(await self._get(path), self.url + path)

        return await self._again(get)

    async def find_json(self, path: str) -> dict[str, Any] | None:
        """GET a JSON object that a server need not have: None where there is none.

        Raises:
            EndpointError: no server, or one that cannot say just now whether it has it (NOT_NOW).
        """
        return await found(self.get_json(path))

    async def rendered_request(self, messages: Messages, max_tokens: int | None = None) -> dict[str, Any] | None:
        """The request as the server would run it, sampling defaults filled in; None where the server keeps it shut.

        With `max_tokens` the request carries the policy's sampling; without, it says nothing of sampling.
        Raises EndpointError as `find_json` does.
        """
        settings = {"max_tokens": 1} if max_tokens is None else self._sampling_body(max_tokens)
        body = {"model": self.model, "messages": messages, **settings}
        path = "/chat/completions/render"

        async def post() -> dict[str, Any]:
            sent = self._client.post(path, body=body, cast_to=httpx.Response, options={"timeout": 60.0})
            response = await answered(sent, f"{self.url}/v1{path}", 60.0)
            data = json_object(response, self.url)
            await require_own(response, data.get("request_id", data.get("id")), self.url)
            if not isinstance(data.get("sampling_params"), dict):  # asked again: what stands in its place may pass
                raise EndpointError("garbage", f"{self.url}/v1{path} gives no sampling_params")
            return data

        return await found(self._again(post))

    async def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Prometheus samples of /metrics by name: (labels, value). Raises EndpointError."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        response = await self._get("/metrics")
        try:
            for family in text_string_to_metric_families(response.text):
                for sample in family.samples:
                    found.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
        except (ValueError, LookupError) as error:  # LookupError: an empty name of a label
            raise EndpointError("garbage", f"{self.url}/metrics: {error}") from None
        return found

    # -- transport -------------------------------------------------------------------------------------------

    def _sampling_body(self, max_tokens: int) -> dict[str, Any]:
        return {**self.sampling.model_dump(exclude={"max_tokens"}), "max_tokens": max_tokens}

    async def _again(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await again(ask, self._requests.retries)

    async def _get(self, path: str) -> httpx.Response:
        sent = self._client.get(self.url + path, cast_to=httpx.Response, options={"timeout": 60.0})
        return await answered(sent, self.url + path, 60.0)

    async def _post(self, path: str, body: dict[str, Any], budget: int) -> tuple[dict[str, Any], float]:
        """POST as `_send` does. Returns the JSON object and the seconds of the SDK's tries."""
        response, seconds = await self._send(path, body, budget, body["max_tokens"])
        data = json_object(response, self.url)
        await require_own(response, data.get("id"), self.url)
        usage = data.get("usage")
        prompt_tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        self._note(data.get("system_fingerprint"), prompt_tokens, body["max_tokens"])
        return data, seconds

    async def _send(
        self, path: str, body: dict[str, Any], budget: int, max_tokens: int
    ) -> tuple[httpx.Response, float]:
        """POST with the SDK's retries: one request of `max_tokens`, `budget` tokens' time to answer it."""
        timeout = httpx.Timeout(self.patience(budget), connect=30.0)
        async with self._slots:
            start = time.monotonic()
            sent = self._client.post(path, body=body, cast_to=httpx.Response, options={"timeout": timeout})
            response = await answered(sent, self.url, self.patience(budget))
            seconds = time.monotonic() - start
        self.asked.add(1, max_tokens)
        return response, seconds

    def _note(self, fingerprint: Any, prompt_tokens: Any, max_tokens: int) -> None:
        """Remember what an answer says of its server and of the room it took."""
        if isinstance(fingerprint, str) and len(self.fingerprints) < MOST_FINGERPRINTS:
            self.fingerprints.add(valid_text(fingerprint[:100]))
        if isinstance(prompt_tokens, int):
            self.asked.add(0, 0, prompt_tokens + max_tokens)


def _reading(messages: Messages) -> int:
    """Tokens' time for reading a prompt: a thousand characters are read at least as fast as one token is written."""
    return sum(len(str(message.get("content", ""))) for message in messages) // 1000


def _login(url: str) -> httpx.BasicAuth | None:
    """The login in a URL, in the place of the bearer's key; None where there is none."""
    parsed = httpx.URL(url)
    return httpx.BasicAuth(parsed.username, parsed.password) if parsed.userinfo else None
