"""The one client of both roles: an OpenAI-compatible server, asked with the `openai` package.

Every answer keeps what a gate must know of it: finish_reason, usage, reasoning, token ids, log-probabilities.
Answers are checked at the door, since a server may send anything.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import httpx
import numpy as np
import openai
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from harness.policy import Requests, Sampling

ErrorKind = Literal["unreachable", "timeout", "server", "refused", "garbage", "budget"]
Messages = list[dict[str, Any]]


class EndpointError(Exception):
    """One request that gave no usable answer. `kind` says what happened; it is never a wrong answer.

    unreachable: no connection. timeout: no answer in time. server: 5xx. refused: 4xx. garbage: an answer that is
    not what the API promises. budget: the server cut the answer before max_tokens was used.
    """

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(f"{kind}: {_text(' '.join(message.split())[:300])}")
        self.kind = kind


@dataclass(frozen=True)
class Completion:
    """One answer."""

    text: str
    reasoning: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    prompt_ids: list[int]
    """Ids of the rendered prompt, as the server used them; empty when the server does not tell."""
    token_ids: list[int]
    """Ids of the answer, as sampled; empty when the server does not tell."""
    seconds: float
    fingerprint: str | None
    """system_fingerprint: changes when the server restarts with other settings."""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities (nats) of given tokens and of the k likeliest ones at n positions."""

    token_ids: NDArray[np.int32]
    """[n] the tokens that are there."""
    logprobs: NDArray[np.float32]
    """[n] their log-probabilities."""
    top_ids: NDArray[np.int32]
    """[n, k] likeliest tokens, best first."""
    top_logprobs: NDArray[np.float32]
    """[n, k] their log-probabilities."""


class Endpoint:
    """A role's server. Suites know this and nothing of processes."""

    def __init__(self, url: str, model: str, requests: Requests, sampling: Sampling, api_key: str = "none") -> None:
        """`url` is the server's root (without /v1), `model` the name it is served under."""
        self.url = url.rstrip("/")
        self.model = model
        self.sampling = sampling
        self._requests = requests
        self._slots = asyncio.Semaphore(requests.concurrency)
        limits = httpx.Limits(max_connections=requests.concurrency + 4)
        # A proxy from the environment must not be asked for a server on this machine.
        self._http = httpx.AsyncClient(limits=limits, trust_env=not _is_loopback(self.url))
        self._client = openai.AsyncOpenAI(
            base_url=self.url + "/v1",
            api_key=api_key,
            max_retries=requests.retries,
            http_client=self._http,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    # -- asking ----------------------------------------------------------------------------------------------

    async def chat(self, messages: Messages, max_tokens: int | None = None) -> Completion:
        """Ask for one answer with the policy's sampling; `max_tokens` overrides the policy's budget.

        A request that is tried again replaces the one that failed: usage and text come from one answer only.

        Raises:
            EndpointError: no usable answer.
        """
        budget = max_tokens or self.sampling.max_tokens
        body = {"model": self.model, "messages": messages, "return_token_ids": True, **self._sampling_body(budget)}
        data, seconds = await self._post("/chat/completions", body, budget)
        choice = _first_choice(data)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise EndpointError("garbage", f"{self.url}: a choice without message")
        completion = Completion(
            text=_text(message.get("content")),
            reasoning=_text(message.get("reasoning") or message.get("reasoning_content")),
            seconds=seconds,
            **_common(data, choice),
        )
        if completion.finish_reason == "length" and completion.completion_tokens < budget:
            used = f"{completion.prompt_tokens} prompt + {completion.completion_tokens} answer tokens"
            raise EndpointError("budget", f"{self.url} cut the answer at {used}, before max_tokens {budget}")
        return completion

    async def score(self, token_ids: list[int], start: int, top: int) -> Scores:
        """Log-probabilities of token_ids[start:] given all before, with the `top` likeliest at each position.

        Raises:
            EndpointError: no usable answer.
        """
        body = {"model": self.model, "prompt": token_ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": top}
        data, _ = await self._post("/completions", body, budget=len(token_ids))
        entries = _first_choice(data).get("prompt_logprobs")
        if not isinstance(entries, list) or len(entries) != len(token_ids):
            raise EndpointError("garbage", f"{self.url}: prompt_logprobs do not match the {len(token_ids)} tokens sent")
        return _scores(token_ids[start:], entries[start:], top)

    async def render(self, messages: Messages, max_tokens: int = 1) -> list[int]:
        """Token ids that the server makes of chat messages, read back from a real request of `max_tokens`.

        Raises:
            EndpointError: no usable answer, or a server that does not tell its ids.
        """
        body = {"model": self.model, "messages": messages, "return_token_ids": True, "max_tokens": max_tokens}
        data, _ = await self._post("/chat/completions", body, budget=max_tokens)
        ids = _ids(data.get("prompt_token_ids"))
        if not ids:
            raise EndpointError("garbage", f"{self.url} does not return prompt_token_ids (vLLM 0.10.2 or newer does)")
        return ids

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
        return _object(await self._get(path), self.url + path)

    async def rendered_request(self, messages: Messages) -> dict[str, Any] | None:
        """The request as the server would run it, sampling defaults filled in; None where the server keeps it shut."""
        body = {"model": self.model, "messages": messages, "max_tokens": 1}
        try:
            response = await self._http.post(self.url + "/v1/chat/completions/render", json=body, timeout=60.0)
        except httpx.HTTPError as error:
            raise EndpointError("unreachable", f"{self.url}: {error!r}") from None
        return _object(response, self.url) if response.status_code == 200 else None

    async def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Prometheus samples of /metrics by name: (labels, value). Raises EndpointError."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        response = await self._get("/metrics")
        try:
            for family in text_string_to_metric_families(response.text):
                for sample in family.samples:
                    found.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
        except ValueError as error:
            raise EndpointError("garbage", f"{self.url}/metrics: {error}") from None
        return found

    # -- transport -------------------------------------------------------------------------------------------

    def _sampling_body(self, max_tokens: int) -> dict[str, Any]:
        return {**self.sampling.model_dump(exclude={"max_tokens"}), "max_tokens": max_tokens}

    async def _get(self, path: str) -> httpx.Response:
        try:
            response = await self._http.get(self.url + path, timeout=60.0)
        except httpx.HTTPError as error:
            raise EndpointError("unreachable", f"{self.url}{path}: {error!r}") from None
        if response.status_code != 200:
            raise EndpointError("server", f"{self.url}{path} answers {response.status_code}")
        return response

    async def _post(self, path: str, body: dict[str, Any], budget: int) -> tuple[dict[str, Any], float]:
        """POST with the SDK's retries. Returns the JSON object and the seconds of all tries."""
        timeout = httpx.Timeout(120 + budget / self._requests.min_tokens_per_second, connect=30.0)
        async with self._slots:
            start = time.monotonic()
            try:
                response = await self._client.post(
                    path, body=body, cast_to=httpx.Response, options={"timeout": timeout}
                )
            except openai.APITimeoutError:
                raise EndpointError("timeout", f"{self.url}: no answer in {timeout.read:.0f} s") from None
            except openai.APIConnectionError as error:
                raise EndpointError("unreachable", f"{self.url}: {(error.__cause__ or error)!r}") from None
            except openai.APIStatusError as error:
                kind: ErrorKind = "server" if error.status_code >= 500 else "refused"
                raise EndpointError(kind, f"{self.url} answers {error.status_code}: {error.message}") from None
            return _object(response, self.url), time.monotonic() - start


def _is_loopback(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")


def _object(response: httpx.Response, what: str) -> dict[str, Any]:
    try:
        data = response.json()
    except (ValueError, RecursionError):
        raise EndpointError("garbage", f"{what}: not JSON: {response.text[:80]!r}") from None
    if not isinstance(data, dict):
        raise EndpointError("garbage", f"{what}: expected a JSON object, found {type(data).__name__}")
    return data


def _first_choice(data: dict[str, Any]) -> dict[str, Any]:
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EndpointError("garbage", "the answer has no choices")
    return choices[0]


def _common(data: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    usage, finish = data.get("usage"), choice.get("finish_reason")
    if not isinstance(finish, str):
        raise EndpointError("garbage", "a choice without finish_reason")
    if not isinstance(usage, dict) or not all(
        isinstance(usage.get(key), int) for key in ("prompt_tokens", "completion_tokens")
    ):
        raise EndpointError("garbage", "the answer has no usage")
    fingerprint = data.get("system_fingerprint")
    return {
        "finish_reason": finish,
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "prompt_ids": _ids(data.get("prompt_token_ids")),
        "token_ids": _ids(choice.get("token_ids")),
        "fingerprint": fingerprint if isinstance(fingerprint, str) else None,
    }


def _ids(value: Any) -> list[int]:
    return value if isinstance(value, list) and all(isinstance(i, int) for i in value) else []


def _text(value: Any) -> str:
    """Model text as valid Unicode: JSON may carry lone surrogates, which no file or page can hold."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""


def _scores(token_ids: list[int], entries: list[Any], top: int) -> Scores:
    """Arrays from vLLM's prompt_logprobs: one {token id: {logprob, rank}} a position, the token itself included."""
    n = len(token_ids)
    logprobs = np.empty(n, np.float32)
    top_ids = np.empty((n, top), np.int32)
    top_logprobs = np.empty((n, top), np.float32)
    try:
        for row, (token, entry) in enumerate(zip(token_ids, entries, strict=True)):
            logprobs[row] = entry[str(token)]["logprob"]
            ranked = sorted(((float(v["logprob"]), int(k)) for k, v in entry.items()), reverse=True)[:top]
            if len(ranked) < top:
                raise EndpointError("garbage", f"asked for {top} log-probabilities, got {len(ranked)}")
            top_logprobs[row] = [logprob for logprob, _ in ranked]
            top_ids[row] = [token_id for _, token_id in ranked]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise EndpointError("garbage", f"prompt_logprobs cannot be read: {error!r}") from None
    mass = np.exp(top_logprobs.astype(np.float64)).sum(axis=1)
    if not np.isfinite(logprobs).all() or not np.isfinite(top_logprobs).all() or not (mass <= 1.01).all():
        raise EndpointError("garbage", "log-probabilities are not finite or sum to more than one")
    return Scores(np.asarray(token_ids, np.int32), logprobs, top_ids, top_logprobs)
