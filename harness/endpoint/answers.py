"""Answers of a server, checked at the door: it may send anything, and what breaks the API's promise is no answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from harness.contract.error_kinds import RequestErrorKind, error_text
from harness.endpoint.connections import OURS, REQUEST_ID
from harness.endpoint.thinking_tags import split_thinking


class EndpointError(Exception):
    """One request that gave no usable answer. `kind` says what happened; it is never a wrong answer."""

    def __init__(self, kind: RequestErrorKind, message: str, status: int | None = None) -> None:
        """`status` is that of the answer, where it was another than 2xx."""
        super().__init__(error_text(kind, valid_text(" ".join(message.split())[:300])))
        self.kind = kind
        self.status = status


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
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """Calls of tools, as the server parsed them."""
    null: bool = False
    """The server sent neither text nor thinking nor a call of a tool: null, which is not an empty text."""
    closed: bool | None = None
    """Whether the thinking was closed by its tag; None where the server's parser took it out, or there was no tag."""


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


def json_object(response: httpx.Response, what: str) -> dict[str, Any]:
    try:
        data = response.json()
    except (ValueError, RecursionError):
        raise EndpointError("garbage", f"{what}: not JSON: {response.text[:80]!r}") from None
    if not isinstance(data, dict):
        raise EndpointError("garbage", f"{what}: expected a JSON object, found {type(data).__name__}")
    return data


NOT_OF_THE_ITEM = frozenset({401, 403, 404, 407, 408, 409, 421, 423, 425, 429})
"""Statuses 4xx that say nothing of what was asked: a key that ran out, a route that is not there just now, too much at
once. Taken for refusals of the items, they would be recorded for good, one item after the other."""


def kind_of_status(status: int) -> RequestErrorKind:
    """Kind of an answer that is no 2xx: `refused` speaks of the item, `server` of the server or what is before it."""
    return "refused" if 400 <= status < 500 and status not in NOT_OF_THE_ITEM else "server"


async def require_own(response: httpx.Response, said: Any, what: str) -> None:
    """Check that an answer is that to its own request, where its id tells: vLLM makes it of our X-Request-Id.

    A connection on which answers and requests have parted is closed: each later answer would be another's as well.

    Raises:
        EndpointError: server: the answer to another request of ours, which says nothing of the item (see PASSING).
    """
    sent = response.request.headers.get(REQUEST_ID, "")
    if not isinstance(said, str) or OURS not in said or sent in said:
        return
    if stream := response.extensions.get("network_stream"):
        await stream.aclose()
    raise EndpointError("server", f"{what}: the answer to another request ({said[:80]!r})")


def first_choice(data: dict[str, Any]) -> dict[str, Any]:
    """The choice of an answer. Raises EndpointError: there is none, or several where one was asked for."""
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EndpointError("garbage", "the answer has no choices")
    if len(choices) > 1:
        raise EndpointError("garbage", f"the answer has {len(choices)} choices, one was asked for")
    return choices[0]


def common_fields(data: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    usage, finish = data.get("usage"), choice.get("finish_reason")
    if not isinstance(finish, str):
        raise EndpointError("garbage", "a choice without finish_reason")
    require_ended(finish)
    if not isinstance(usage, dict) or not all(
        isinstance(usage.get(key), int) for key in ("prompt_tokens", "completion_tokens")
    ):
        raise EndpointError("garbage", "the answer has no usage")
    fingerprint = data.get("system_fingerprint")
    return {
        "finish_reason": finish,
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "prompt_ids": token_ids_of(data.get("prompt_token_ids")),
        "token_ids": token_ids_of(choice.get("token_ids")),
        "fingerprint": fingerprint if isinstance(fingerprint, str) else None,
    }


ENDS = {"stop", "length", "repetition", "tool_calls", "function_call", "content_filter"}
"""How an answer of the model ends. With anything else the server ended it: vLLM says `abort` when it shuts down or is
paused, `error` when something broke, and sends the text that it had."""


def require_ended(finish_reason: str) -> None:
    """Raises EndpointError when it was the server, and not the model or the budget, that ended an answer."""
    if finish_reason not in ENDS:
        raise EndpointError("server", f"the server ended the answer (finish_reason {finish_reason[:40]!r})")


def message_fields(
    message: dict[str, Any], opened: bool = False, tags: Iterable[tuple[str, str]] = ()
) -> dict[str, Any]:
    """Text, thinking and calls of tools of one chat message; `opened` and `tags` as in `split_thinking`.

    Tags are taken out of the text beside a field of thinking too: some servers fill both.

    Raises:
        EndpointError: text or thinking is no string.
    """
    content, calls = message.get("content"), message.get("tool_calls")
    said = message.get("reasoning") or message.get("reasoning_content")
    for name, value in (("content", content), ("reasoning", said)):
        if value is not None and not isinstance(value, str):
            raise EndpointError("garbage", f"the answer's {name} is no string, but {type(value).__name__}")
    text, reasoning = valid_text(content), valid_text(said)
    thought, text, closed = split_thinking(text, opened and not reasoning, tags)
    if thought and thought != reasoning.strip():
        reasoning = f"{reasoning}\n{thought}" if reasoning else thought
    tool_calls = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    null = content is None and not reasoning and not tool_calls
    return {"text": text, "reasoning": reasoning, "tool_calls": tool_calls, "null": null, "closed": closed}


def token_ids_of(value: Any) -> list[int]:
    return value if isinstance(value, list) and all(isinstance(i, int) for i in value) else []


def valid_text(value: Any) -> str:
    """Model text as valid Unicode: JSON may carry lone surrogates, which no file or page can hold."""
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") if isinstance(value, str) else ""


SCORE_PATH = "/quantgate/score"
"""Of the route in harness/endpoint/score_route.py, below /v1."""
SCORE_VERSION = 1
NO_LOGPROB = -9999.0
"""What vLLM writes for minus infinity, since JSON has no such number: no value."""
FINGERPRINT_HEADER = "x-system-fingerprint"


def read_prompt_logprobs(token_ids: list[int], entries: list[Any], top: int) -> Scores:
    """Scores from vLLM's prompt_logprobs: one {token id: {logprob, rank}} a position, the token itself included.

    Raises:
        EndpointError: garbage.
    """
    ids, logprobs = np.zeros((len(token_ids), top + 1), np.int32), np.zeros((len(token_ids), top + 1), np.float32)
    try:
        own = [entry[str(token)]["logprob"] for token, entry in zip(token_ids, entries, strict=True)]
        counts = np.array([len(entry) for entry in entries], np.int64)
        if counts.size and not top <= counts.min() <= counts.max() <= top + 1:
            raise EndpointError("garbage", f"asked for {top} log-probabilities, got {counts.min()} to {counts.max()}")
        there = np.arange(top + 1) < counts[:, None]
        with np.errstate(over="ignore"):  # too large for a float32 is infinite, which is refused
            ids[there] = np.array([int(token) for entry in entries for token in entry], np.int32)
            logprobs[there] = np.array([one["logprob"] for entry in entries for one in entry.values()], np.float32)
            return _scores(token_ids, np.array(own, np.float32), ids, logprobs, there)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise EndpointError("garbage", f"prompt_logprobs cannot be read: {error!r}") from None


def unpack_scores(token_ids: list[int], data: bytes, top: int) -> Scores:
    """Scores from an answer of harness/endpoint/score_route.py: ids and logprobs [n, top + 1], the token itself first.

    Raises:
        EndpointError: garbage.
    """
    try:
        found = safetensors.numpy.load(data)
        ids, logprobs = found["ids"], found["logprobs"]
    except (safetensors.SafetensorError, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise EndpointError("garbage", f"packed log-probabilities cannot be read: {error!r}") from None
    shape = (len(token_ids), top + 1)
    if (ids.dtype.name, logprobs.dtype.name) != ("int32", "float32") or not ids.shape == logprobs.shape == shape:
        is_there = f"{ids.dtype}{list(ids.shape)} and {logprobs.dtype}{list(logprobs.shape)}"
        raise EndpointError("garbage", f"asked for {top} log-probabilities at {shape[0]} positions, got {is_there}")
    if not np.array_equal(ids[:, 0], np.asarray(token_ids, np.int64)):
        raise EndpointError("garbage", "log-probabilities of other tokens than were asked for")
    # A token that is also among the likeliest is there twice; in the dictionaries of vLLM the later one is kept.
    again = ids[:, 1:] == ids[:, :1]
    twice = again.any(axis=1)
    own = np.where(twice, logprobs[np.arange(len(ids)), again.argmax(axis=1) + 1], logprobs[:, 0])
    there = np.ones(shape, np.bool_)
    there[twice, 0] = False
    return _scores(token_ids, own, ids, logprobs, there)


def _scores(
    token_ids: list[int],
    own: NDArray[np.float32],
    ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    there: NDArray[np.bool_],
) -> Scores:
    """Checked scores of n positions, of the tokens' `own` log-probabilities [n] and of all that are `there` [n, k + 1].

    At least k are there in each row. The likeliest are put in one order, ties by id: a tie is no difference between
    two models.
    """
    if (ids[there] < 0).any() or not np.isfinite(own).all() or not np.isfinite(logprobs[there]).all():
        raise EndpointError("garbage", "log-probabilities that are not finite, or of an id below zero")
    if min(own.min(initial=0.0), logprobs[there].min(initial=0.0)) <= NO_LOGPROB:
        raise EndpointError("garbage", f"log-probabilities of {NO_LOGPROB:g}, which servers write where they have none")
    nothing = -1 - np.arange(ids.shape[1], dtype=np.int32)  # distinct, and no id
    ids, logprobs = np.where(there, ids, nothing), np.where(there, logprobs, -np.inf).astype(np.float32)
    known = np.sort(ids, axis=1)
    if (known[:, 1:] == known[:, :-1]).any():
        raise EndpointError("garbage", "two log-probabilities of one token at one position")
    order = np.lexsort((ids, logprobs), axis=-1)[:, :0:-1]
    top_ids, top_logprobs = np.take_along_axis(ids, order, axis=1), np.take_along_axis(logprobs, order, axis=1)
    if not (np.exp(np.minimum(top_logprobs, 1.0).astype(np.float64)).sum(axis=1) <= 1.01).all():
        raise EndpointError("garbage", "probabilities that sum to more than one")
    return Scores(np.asarray(token_ids, np.int32), own, top_ids, top_logprobs)
