"""Packed log-probabilities: the same scores as from completions, from bytes of which nothing is believed."""

import json
import math
from typing import Any

import numpy as np
import pytest
from fake_server import FakeServer, FakeVllm, Reply, ask, score_reply
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from harness.endpoint.answers import EndpointError, Scores, read_prompt_logprobs, unpack_scores
from harness.endpoint.client import Asked, Endpoint
from harness.parity.steadiness import read_after, read_counters

PATH = "/v1/quantgate/score"
IDS = np.array([[8, 2, 6], [6, 7, 6]], np.int32)
LOGPROBS = np.array([[-12.0, -0.3, -1.6], [-1.5, -0.5, -1.5]], np.float32)
"""Two positions, the two likeliest: token 8 is not among them, token 6 is."""


def packed(ids: Any = IDS, logprobs: Any = LOGPROBS, **more: Any) -> bytes:
    return save({"ids": np.asarray(ids), "logprobs": np.asarray(logprobs), **more})


def same(left: Scores, right: Scores) -> bool:
    names = ("token_ids", "logprobs", "top_ids", "top_logprobs")
    pairs = [(getattr(left, name), getattr(right, name)) for name in names]
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


# -- what is read --------------------------------------------------------------------------------------------


def test_packed_scores_are_read() -> None:
    scores = unpack_scores([8, 6], packed(), 2)
    assert scores.token_ids.tolist() == [8, 6] and scores.token_ids.dtype == np.int32
    assert scores.logprobs.tolist() == pytest.approx([-12.0, -1.5])
    assert scores.top_ids.tolist() == [[2, 6], [7, 6]]
    assert scores.top_logprobs == pytest.approx(np.array([[-0.3, -1.6], [-0.5, -1.5]]))


def test_no_positions_are_none() -> None:
    scores = unpack_scores([], packed(np.empty((0, 3), np.int32), np.empty((0, 3), np.float32)), 2)
    assert (scores.token_ids.shape, scores.top_ids.shape) == ((0,), (0, 2))
    assert same(scores, read_prompt_logprobs([], [], 2))


VOCABULARY, TOP = 9, 4


@given(
    # Few distinct values: ties within the list, and at its end, are common in bf16.
    st.lists(st.lists(st.integers(-6, 0), min_size=VOCABULARY, max_size=VOCABULARY), min_size=1, max_size=5),
    st.data(),
)
def test_both_ways_give_the_same_scores(logits: list[list[int]], data: st.DataObject) -> None:
    logprobs = np.array(logits, np.float64)
    logprobs = (logprobs - np.log(np.exp(logprobs).sum(axis=1, keepdims=True))).astype(np.float32)
    tokens = [data.draw(st.integers(0, VOCABULARY - 1)) for _ in logits]
    rows, entries = [], []
    for token, row in zip(tokens, logprobs, strict=True):
        likeliest = data.draw(st.permutations(range(VOCABULARY)))  # vLLM promises no order among equals
        likeliest = sorted(likeliest, key=lambda i: -row[i])[:TOP]
        rows.append([token, *likeliest])
        entries.append({str(i): {"logprob": float(row[i]), "rank": 1} for i in rows[-1]})
    ids = np.array(rows, np.int32)
    plain = read_prompt_logprobs(tokens, json.loads(json.dumps(entries)), TOP)
    assert same(unpack_scores(tokens, packed(ids, np.take_along_axis(logprobs, ids, axis=1)), TOP), plain)
    # And they are right: by brute force, ties by id.
    for row, entry in enumerate(entries):
        best = sorted(((v["logprob"], int(i)) for i, v in entry.items()), reverse=True)[:TOP]
        assert plain.top_ids[row].tolist() == [i for _, i in best]
        assert plain.top_logprobs[row].tolist() == [v for v, _ in best]
        assert plain.logprobs[row] == np.float32(entry[str(tokens[row])]["logprob"])


def changed(array: Any, row: int, column: int, value: float) -> Any:
    array = array.copy()
    array[row, column] = value
    return array


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "JSON": b'{"ids": [[8, 2, 6]]}',
    "a page": b"<html>busy</html>",
    "a length beyond its end": b"\xff" * 8 + b"{}",
    "a header that is none": (9).to_bytes(8, "little") + b"[1, 2, 3]" + b"\x00" * 8,
    "cut off": packed()[:-1],
    "more at its end": packed() + b"\x00",
    "a type that numpy has not": (64).to_bytes(8, "little")
    + b'{"ids":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]}}'.ljust(64)
    + b"\x00",
    "one array less": save({"ids": IDS}),
    "other names": save({"token_ids": IDS, "logprobs": LOGPROBS}),
    "wide ids": packed(IDS.astype(np.int64)),
    "unsigned ids": packed(IDS.astype(np.uint32)),
    "ids that are floats": packed(IDS.astype(np.float32)),
    "half log-probabilities": packed(logprobs=LOGPROBS.astype(np.float16)),
    "double log-probabilities": packed(logprobs=LOGPROBS.astype(np.float64)),
    "a position too few": packed(IDS[:1], LOGPROBS[:1]),
    "a position too many": packed(np.vstack([IDS, IDS[:1]]), np.vstack([LOGPROBS, LOGPROBS[:1]])),
    "fewer than asked for": packed(IDS[:, :2].copy(), LOGPROBS[:, :2].copy()),
    "more than asked for": packed(
        np.hstack([IDS, [[1], [1]]]).astype(np.int32), np.hstack([LOGPROBS, LOGPROBS[:, :1]])
    ),
    "different shapes": packed(logprobs=LOGPROBS[:, :2].copy()),
    "flat": packed(IDS.ravel(), LOGPROBS.ravel()),
    "turned": packed(np.ascontiguousarray(IDS.T), np.ascontiguousarray(LOGPROBS.T)),
    "a scalar": packed(np.int32(1), np.float32(1)),
    "other tokens": packed(changed(IDS, 0, 0, 9)),
    "a negative id": packed(changed(IDS, 0, 1, -5)),
    "the id of nothing": packed(changed(IDS, 0, 1, -1)),
    "one of the likeliest twice": packed(changed(IDS, 0, 2, 2)),
    "the token three times": packed(changed(IDS, 1, 1, 6)),
    "NaN": packed(logprobs=changed(LOGPROBS, 0, 1, math.nan)),
    "NaN for the token": packed(logprobs=changed(LOGPROBS, 0, 0, math.nan)),
    "minus infinity for the token": packed(logprobs=changed(LOGPROBS, 0, 0, -math.inf)),
    "minus infinity": packed(logprobs=changed(LOGPROBS, 0, 2, -math.inf)),
    "infinity": packed(logprobs=changed(LOGPROBS, 1, 1, math.inf)),
    "more than everything": packed(logprobs=changed(LOGPROBS, 1, 1, -0.01)),
    "above one": packed(logprobs=changed(LOGPROBS, 0, 0, 5.0)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_bytes_that_cannot_be_are_garbage(data: bytes) -> None:
    with pytest.raises(EndpointError) as caught:
        unpack_scores([8, 6], data, 2)
    assert caught.value.kind == "garbage" and "\n" not in str(caught.value)


@given(st.integers(0, len(packed()) - 1), st.integers(1, 255))
def test_a_changed_byte_is_garbage_or_scores_that_can_be(where: int, by: int) -> None:
    data = bytearray(packed())
    data[where] ^= by
    try:
        scores = unpack_scores([8, 6], bytes(data), 2)
    except EndpointError as error:
        assert error.kind == "garbage"
        return
    assert scores.token_ids.tolist() == [8, 6] and scores.top_ids.shape == (2, 2)
    assert np.isfinite(scores.logprobs).all() and (np.exp(scores.top_logprobs).sum(axis=1) <= 1.01).all()


@pytest.mark.parametrize(
    "entries",
    [
        [{"8": {"logprob": -1.0}, "2": {"logprob": -2.0}, "3": {"logprob": -3.0}, "4": {"logprob": -4.0}}],
        [{"8": {"logprob": -1.0}, "08": {"logprob": -2.0}}],
        [{"8": {"logprob": -1.0}, "-2": {"logprob": -2.0}}],
        [{"8": {"logprob": -1.0}, "-1": {"logprob": -2.0}}],
        [{"8": {"logprob": -1.0}, "4294967304": {"logprob": -2.0}}],
        [{"8": {"logprob": -1e300}, "2": {"logprob": -2.0}}],
        [{"8": {"logprob": [1.0]}, "2": {"logprob": -2.0}}],
        ["8"],
    ],
)
def test_entries_that_cannot_be_are_garbage_too(entries: list[Any]) -> None:
    with pytest.raises(EndpointError, match="garbage"):
        read_prompt_logprobs([8], entries, 2)


# -- which way is taken --------------------------------------------------------------------------------------


def entries_of() -> list[Any]:
    rows = zip(IDS.tolist(), LOGPROBS.tolist(), strict=True)
    return [None, *({str(i): {"logprob": v} for i, v in zip(ids, logprobs, strict=True)} for ids, logprobs in rows)]


def score_twice(server: FakeServer, **more: Any) -> tuple[Scores, bool | None, Asked]:
    async def run(endpoint: Endpoint) -> tuple[Scores, bool | None, Asked]:
        first = await endpoint.score([1, 8, 6], 1, 2)
        assert same(first, await endpoint.score([1, 8, 6], 1, 2))
        return first, endpoint.packed_scores, endpoint.asked

    return ask(server.url, run, **more)


def test_a_server_with_the_route_is_asked_there(server: FakeServer) -> None:
    asked: list[str] = []

    def handler(path: str, body: dict[str, Any]) -> Any:
        asked.append(path)
        return Reply(packed(), headers={"x-system-fingerprint": "vllm-a"}) if body else {"quantgate_score": 1}

    server.handler = handler
    scores, fast, counted = score_twice(server)
    assert same(scores, unpack_scores([8, 6], packed(), 2)) and fast is True
    assert asked == [PATH] * 3  # looked for once
    assert server.posts == [(PATH, {"token_ids": [1, 8, 6], "start": 1, "top": 2})] * 2
    assert counted == Asked(requests=2, budget=2, longest=4)

    async def fingerprints(endpoint: Endpoint) -> set[str]:
        await endpoint.score([1, 8, 6], 1, 2)
        return endpoint.fingerprints

    assert ask(server.url, fingerprints) == {"vllm-a"}


@pytest.mark.parametrize(
    ("found", "remembered"),
    [
        (Reply({}, 404), False),
        (Reply({}, 401), False),
        (Reply(b"<html>"), False),
        (Reply([1]), False),
        (Reply({"quantgate_score": 2}), False),
        (Reply({}, 503), None),
        (None, None),
    ],
)
def test_a_server_without_the_route_is_asked_for_completions(
    server: FakeServer, found: Any, remembered: bool | None
) -> None:
    server.handler = lambda path, body: score_reply(entries_of()) if path == "/v1/completions" else found
    scores, fast, counted = score_twice(server)
    assert same(scores, unpack_scores([8, 6], packed(), 2)) and fast is remembered
    assert [path for path, _ in server.posts] == ["/v1/completions"] * 2 and counted.requests == 2


@pytest.mark.parametrize("bad", [Reply({}, 500), Reply({}, 404), Reply(b"<html>"), Reply(HOSTILE["NaN"])])
def test_a_route_that_fails_where_completions_do_not_is_left(server: FakeServer, bad: Reply) -> None:
    def handler(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/completions":
            return score_reply(entries_of())
        return bad if body else {"quantgate_score": 1}

    server.handler = handler
    scores, fast, counted = score_twice(server)
    assert same(scores, unpack_scores([8, 6], packed(), 2)) and fast is False
    assert [path for path, _ in server.posts] == [PATH, "/v1/completions", "/v1/completions"]
    assert counted.requests == 2 + (bad.status == 200)  # garbage was answered all the same


def test_a_request_that_both_ways_refuse_leaves_the_route_as_it_is(server: FakeServer) -> None:
    server.handler = lambda path, body: Reply({"error": {"message": "long"}}, 400) if body else {"quantgate_score": 1}

    async def run(endpoint: Endpoint) -> tuple[str, bool | None]:
        with pytest.raises(EndpointError) as caught:
            await endpoint.score([1, 8, 6], 1, 2)
        return caught.value.kind, endpoint.packed_scores

    assert ask(server.url, run) == ("refused", True)


@pytest.mark.parametrize("has_route", [True, False])
def test_the_counters_of_a_server_agree_with_what_was_asked(server: FakeServer, has_route: bool) -> None:
    vllm = FakeVllm()
    if has_route:
        vllm.packed = packed(np.array([[5, 5]], np.int32), np.array([[-0.1, -0.1]], np.float32))

    def answer(path: str, body: dict[str, Any]) -> Any:
        reply = vllm(path, body)
        return score_reply([None, {"5": {"logprob": -0.1}}]) if path == "/v1/completions" else reply

    server.handler = answer

    async def action(endpoint: Endpoint) -> dict[str, str]:
        before = await read_counters(endpoint)
        await endpoint.score([4, 5], 1, 1)
        assert endpoint.packed_scores is has_route
        return await read_after(endpoint, before)

    assert ask(server.url, action)["run.budget"] == "arrives as asked (1 tokens in 1 requests)"
