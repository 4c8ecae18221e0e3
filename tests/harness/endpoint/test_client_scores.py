"""Log-probabilities of tokens that are given: in order of rank, and garbage where they cannot be."""

import math
from typing import Any

import numpy as np
import pytest
from fake_server import FakeServer, ask, score_reply
from scripted_chats import entry

from harness.endpoint.client import EndpointError, Scores


def score(server: FakeServer, entries: list[Any], ids: list[int], start: int, top: int) -> Scores:
    server.script(score_reply(entries))
    return ask(server.url, lambda e: e.score(ids, start, top))


def test_log_probabilities_come_in_order_of_rank(server: FakeServer) -> None:
    entries = [None, entry({9: -9.0}), entry({3: -2.0, 5: -0.5, 4: -1.5}), entry({7: -0.1, 3: -5.0})]
    scores = score(server, entries, [1, 9, 5, 7], start=2, top=2)
    assert scores.token_ids.tolist() == [5, 7] and scores.token_ids.dtype == np.int32
    assert scores.logprobs.tolist() == pytest.approx([-0.5, -0.1])
    assert scores.top_ids.tolist() == [[5, 4], [7, 3]]
    assert scores.top_logprobs == pytest.approx(np.array([[-0.5, -1.5], [-0.1, -5.0]]))
    path, body = server.posts[0]
    assert path == "/v1/completions"
    assert body == {
        "model": "quantgate",
        "prompt": [1, 9, 5, 7],
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 2,
    }


def test_a_token_outside_the_likeliest_keeps_its_own_log_probability(server: FakeServer) -> None:
    # vLLM sends the k likeliest and the token that is there, k + 1 in all.
    scores = score(server, [None, entry({8: -12.0, 2: -0.3, 6: -1.6})], [1, 8], start=1, top=2)
    assert scores.logprobs.tolist() == pytest.approx([-12.0])
    assert scores.top_ids.tolist() == [[2, 6]]
    assert scores.top_logprobs.tolist() == [pytest.approx([-0.3, -1.6])]


@pytest.mark.parametrize(
    "entries",
    [
        [entry({8: -1.0, 2: -2.0})],  # one position too few
        [None, entry({8: -1.0, 2: -2.0}), entry({8: -1.0, 2: -2.0})],  # one too many
        [None, None],
        [None, {}],
        [None, entry({8: -1.0})],  # fewer than asked for
        [None, entry({2: -1.0, 3: -2.0})],  # not the token that was sent
        [None, entry({8: math.nan, 2: -1.0})],
        [None, entry({8: -1.0, 2: math.nan})],
        [None, entry({8: -math.inf, 2: -1.0})],
        [None, entry({8: -1.0, 2: -math.inf})],
        [None, entry({8: math.inf, 2: -1.0})],
        [None, entry({8: 0.0, 2: 0.0})],  # probabilities that sum to two
        [None, entry({8: 1.0, 2: -1.0})],
        [None, entry({8: None, 2: -1.0})],
        [None, entry({8: "low", 2: -1.0})],
        [None, {"8": -1.0, "2": -2.0}],
        [None, {"8": {"logprob": -1.0}, "two": {"logprob": -2.0}}],
        [None, entry({8: -1.0, 99_999_999_999: -2.0})],
        [None, [-1.0, -2.0]],
    ],
)
def test_log_probabilities_that_cannot_be_are_garbage(server: FakeServer, entries: list[Any]) -> None:
    with pytest.raises(EndpointError) as caught:
        score(server, entries, [1, 8], start=1, top=2)
    assert caught.value.kind == "garbage"


@pytest.mark.parametrize("reply", [{"choices": [{"text": "x"}]}, score_reply([]), {"choices": []}, {}])
def test_a_server_without_prompt_logprobs_is_garbage(server: FakeServer, reply: dict[str, Any]) -> None:
    server.script(reply)
    with pytest.raises(EndpointError, match="garbage"):
        ask(server.url, lambda e: e.score([1, 2], 1, 1))
