"""Whatever a server sends and a model writes: it is an answer, or an error of the request; and it is scored."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
from fake_server import chat_reply, server_info
from fuzzing import fuzz
from hypothesis import strategies as st
from mutations import as_json, damaged, edited, seeded, text
from ruler_tasks import ruler
from safetensors.numpy import save

from harness.contract.policy import parse_policy
from harness.contract.samples import Item
from harness.endpoint.answers import (
    Completion,
    EndpointError,
    common_fields,
    first_choice,
    json_object,
    message_fields,
    read_prompt_logprobs,
    unpack_scores,
    valid_text,
)
from harness.endpoint.thinking_tags import TAGS, WRAPPERS, split_thinking
from harness.parity.comparison import differences, unread
from harness.parity.server_config import config_facts, served_quantization
from suites.base import ChatSuite, make_item
from suites.readings.accepted_answers import first_accepted, share_said
from suites.readings.final_expressions import final_expression
from suites.readings.final_letters import final_letter
from suites.readings.final_numbers import final_number, last_number
from suites.readings.loops import looped
from suites.readings.markers import count_markers
from suites.readings.no_language import without_code
from suites.readings.numerals import find_numbers, plain_number
from suites.readings.scripts import fits
from suites.readings.thinking import reached_in, thinking_metrics
from suites.registry import make_suites

REPLIES = [
    chat_reply("<think>so</think>7"),
    chat_reply(None, finish="length", reasoning="so"),
    chat_reply("x", tool_calls=[{"function": {}}]),
]
ENTRIES = [
    None,
    {"7": {"logprob": -1.5, "rank": 1, "decoded_token": "a"}, "9": {"logprob": -2.0, "rank": 2}},
    {"8": {"logprob": -0.5, "rank": 1}, "1": {"logprob": -9.0, "rank": 2}},
]
PACKED = save({"ids": np.ones((2, 3), np.int32), "logprobs": -np.ones((2, 3), np.float32)})
PIECES = [
    *(tag for pair in TAGS[:8] for tag in pair),
    *WRAPPERS[:4],
    *[
        "The answer is ",
        "Answer: ",
        "\\boxed{",
        "}",
        "$",
        "\\frac{1}{2}",
        "(A)",
        "**B**",
        "#### ",
        "\n",
        "\n\n",
        ".",
        "```",
    ],
    *[
        "12",
        "-3.5",
        "1,234",
        "10^{9}",
        "9^{9^{9^9}}",
        "½",
        "twelve",
        "三百二十",
        "1e400",
        "0.000",
        "٣",
        "²",
        "⅓",
        "１２",
    ],
    *[
        "so ",
        "Wait, ",
        "no, ",
        "答え",
        "是",
        "x = ",
        "% ",
        "((((",
        "|",
        "\t",
        "\u202e",
        "\x00",
        "sqrt(",
        "=",
        "or",
        "and ",
    ],
]


def _written(rng: Random) -> str:
    """What a model might write: pieces in a row, one piece very often, or noise between pieces."""
    kind = rng.randint(0, 3)
    if kind == 0:
        return rng.choice(PIECES) * rng.choice((1, 2, 50, 1000, 3000))
    pieces = [rng.choice(PIECES) if kind < 3 or rng.random() < 0.5 else text(rng) for _ in range(rng.randint(0, 30))]
    return (" " if kind == 1 else "").join(pieces)


WRITTEN = seeded(lambda rng: valid_text(_written(rng)))  # as every text that comes out of an endpoint


@fuzz(7, reply=edited(REPLIES))
def test_values_of_an_answer(reply: Any) -> None:
    with suppress(EndpointError):
        data = json_object(httpx.Response(200, content=as_json(reply).encode()), "u")
        choice = first_choice(data)
        message = choice.get("message")
        if isinstance(message, dict):
            completion = Completion(seconds=1.0, **message_fields(message), **common_fields(data, choice))
            completion.text.encode("utf-8")
            assert all(isinstance(token, int) for token in completion.token_ids)


@fuzz(2, data=damaged([as_json(reply).encode() for reply in REPLIES]))
def test_bytes_of_an_answer(data: bytes) -> None:
    with suppress(EndpointError):
        json_object(httpx.Response(200, content=data), "u")


@fuzz(3, entries=edited([ENTRIES]), ids=st.lists(st.integers(0, 9), min_size=2, max_size=2))
def test_values_of_log_probabilities(entries: Any, ids: list[int]) -> None:
    with suppress(EndpointError):
        if isinstance(entries, list):
            scores = read_prompt_logprobs([7, 8], entries[1:], 2)
            assert np.isfinite(scores.logprobs).all() and scores.top_ids.shape == (2, 2)


@fuzz(2, data=damaged([PACKED]))
def test_bytes_of_packed_log_probabilities(data: bytes) -> None:
    with suppress(EndpointError):
        unpack_scores([1, 1], data, 2)


@fuzz(4, one=edited([server_info(), server_info(speculative_config={"method": "mtp"})]), other=edited([server_info()]))
def test_values_of_what_a_server_says_of_itself(one: Any, other: Any) -> None:
    facts = [config_facts(info if isinstance(info, dict) else None) for info in (one, other)]
    served_quantization(one if isinstance(one, dict) else None)
    differences(*facts)
    assert unread(*facts).sentence and all(len(value) < 200 for found in facts for value in found.values())


@fuzz(8, said=WRITTEN, gold=st.sampled_from(["7", "A", "\\frac{1}{2}", "twelve", "x"]))
def test_an_answer_is_read(said: str, gold: str) -> None:
    for opened in (False, True):
        thinking, answer, _ = split_thinking(said, opened)
        assert len(thinking) + len(answer) <= 2 * len(said) + 2
    completion = Completion(said, said[::-1], "stop", 3, 7, [], [], 1.0, None)
    final_number(said), last_number(said), final_letter(said), final_expression(said), plain_number(said[:60])
    list(find_numbers(said)), count_markers(said), without_code(said), looped(said), looped(said, cut=True)
    first_accepted(said, [gold]), share_said(said, [gold]), reached_in(said, gold)
    thinking_metrics(completion, answered=True, reached=False, right=True)
    for language in ("en", "ja", "zh"):
        fits(said, language)


@cache
def scored() -> list[tuple[ChatSuite, Item]]:
    """Suites that score text, and an item of each kind."""
    policy = parse_policy(
        "name: n\nserving: {max_model_len: 8192}\nsampling: {max_tokens: 512}\n"
        "suites: {cot: {tasks: {word_problems: {limit: 2}}}, termination: {per_task: 1}, language: {limit: 1}}\n"
        "checks: [{metric: accuracy, on: cot, max_loss: 0.5}]\n"
    ).policy
    found: list[tuple[ChatSuite, Item]] = []
    for suite in make_suites(policy, Path("run")):
        assert isinstance(suite, ChatSuite)
        found += [(suite, item) for item in list(suite.items(None))[:40]]  # type: ignore[arg-type]
    asked = [{"role": "user", "content": "?"}]
    for task in ("niah_single_1", "vt", "cwe", "fwe", "qa_1"):
        found.append((ruler(lengths=[1024], per_task=1), make_item(f"{task}@1024", "0", asked, ["alpha", "7", "café"])))
    return found


@fuzz(
    5,
    text=WRITTEN,
    place=st.integers(0, 10_000),
    reasoning=st.one_of(st.just(""), WRITTEN),
    finish=st.sampled_from(["stop", "length", "tool_calls"]),
    tokens=st.sampled_from([-1, 0, 1, 511, 512, 2**60]),
)
def test_an_answer_is_scored_by_suites_and_ruler(
    text: str, place: int, reasoning: str, finish: str, tokens: int
) -> None:
    suite, item = scored()[place % len(scored())]
    sample = suite.score(item, "candidate", Completion(text, reasoning, finish, 3, tokens, [], [], 1.0, None))
    assert sample.score is None or 0 <= sample.score <= 1
    json.loads(sample.model_dump_json())
