"""Decoding: where two greedy answers part, and a reference whose own answer is stored for later."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, ask, chat_reply
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.errors import BadInput, NotComparable
from harness.contract.samples import Item
from harness.contract.settings import Sampling
from harness.endpoint.client import EndpointError
from suites.base import make_item
from suites.decoding import Decoding, DecodingConfig, parting, read_ids, write_ids

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def suite(tmp_path: Path, **config: Any) -> Decoding:
    sampling = Sampling(temperature=0.6, max_tokens=99)
    return Decoding(DecodingConfig(max_tokens=8, **config), sampling, tmp_path / "decoding")


@pytest.fixture
def item() -> Item:
    return make_item("tools-en", "tools-en-01", [{"role": "user", "content": "Hello"}], tools=TOOLS)


def reply(*token_ids: int, **message: Any) -> dict[str, Any]:
    return chat_reply(token_ids=list(token_ids), completion_tokens=len(token_ids), **message)


# -- where they part -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "candidate", "first", "diverged", "positions"),
    [
        ([1, 2, 3], [1, 2, 3], 3, 0, 3),
        ([1, 2, 3], [9, 2, 3], 0, 1, 1),
        ([1, 2, 3], [1, 2, 9], 2, 1, 3),
        ([1, 2, 3], [1, 2], 2, 1, 3),  # one stops where the other goes on
        ([1, 2], [1, 2, 3], 2, 1, 3),
        ([1, 5, 2], [1, 6, 2], 1, 1, 2),  # what is equal after a difference does not count
    ],
)
def test_where_two_answers_part(
    reference: list[int], candidate: list[int], first: int, diverged: int, positions: int
) -> None:
    assert parting(reference, candidate) == {
        "first_divergence": first,
        "diverged": diverged,
        "decode_positions": positions,
    }


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@given(TOKENS, TOKENS)
def test_parting_is_what_a_search_finds(one: list[int], other: list[int]) -> None:
    found = parting(one, other)
    first = int(found["first_divergence"])
    prefixes = [n for n in range(len(one) + 1) if one[:n] == other[:n]]
    assert first == max(n for n in prefixes if n <= len(other))
    assert found["diverged"] == (one != other)
    assert found == parting(other, one)
    assert found["decode_positions"] == first + found["diverged"] >= 1


# -- the suite -----------------------------------------------------------------------------------------------


def test_both_roles_answer_greedily_and_are_compared(server: FakeServer, item: Item, tmp_path: Path) -> None:
    decoding = suite(tmp_path)
    server.script(reply(5, 6, 7, 8))
    reference = ask(server.url, lambda e: decoding.answer(item, "reference", e))
    assert not {"first_divergence", "diverged", "decode_positions"} & reference.metrics.keys()
    assert (reference.score, reference.error, reference.completion_tokens) == (None, None, 4)

    server.script(reply(5, 6, 9))
    candidate = ask(server.url, lambda e: decoding.answer(item, "candidate", e))
    server.script(reply(5, 6, 7, 8))
    noise = ask(server.url, lambda e: decoding.answer(item, "noise", e))
    assert [candidate.metrics[key] for key in ("first_divergence", "diverged", "decode_positions")] == [2, 1, 3]
    assert [noise.metrics[key] for key in ("first_divergence", "diverged", "decode_positions")] == [4, 0, 4]
    assert noise.answer == reference.answer != candidate.answer
    assert candidate.prompt_sha256 == reference.prompt_sha256 == item.prompt_sha256

    for path, body in server.posts:
        assert path == "/v1/chat/completions" and body["messages"] == item.prompt and body["tools"] == TOOLS
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.0, 1.0, 8)
    # One file a role, by the names that a baseline's are copied by.
    stored = sorted(p.name for p in (tmp_path / "decoding").iterdir())
    assert stored == [f"tools-en-01.{role}.json" for role in ("candidate", "noise", "reference")]


def test_a_resumed_run_goes_on_from_what_is_stored(server: FakeServer, item: Item, tmp_path: Path) -> None:
    server.script(reply(5, 6, 7, 8))
    ask(server.url, lambda e: suite(tmp_path).answer(item, "reference", e))
    found = ask(server.url, lambda e: suite(tmp_path).answer(item, "candidate", e))  # another process would do this
    assert found.metrics["diverged"] == 0 and len(server.posts) == 2


def test_a_call_of_a_tool_is_compared_like_any_answer(server: FakeServer, item: Item, tmp_path: Path) -> None:
    call = {"text": None, "finish": "tool_calls", "tool_calls": [{"id": "1", "type": "function", "function": {}}]}
    server.script(reply(5, 6, **call))
    reference = ask(server.url, lambda e: suite(tmp_path).answer(item, "reference", e))
    candidate = ask(server.url, lambda e: suite(tmp_path).answer(item, "candidate", e))
    assert reference.answer == candidate.answer is not None and candidate.metrics["diverged"] == 0


def test_another_prompt_is_not_comparable(server: FakeServer, item: Item, tmp_path: Path) -> None:
    server.script(reply(5, 6))
    ask(server.url, lambda e: suite(tmp_path).answer(item, "reference", e))
    server.script(chat_reply(prompt_ids=[1, 2, 4], token_ids=[5, 6]))
    with pytest.raises(NotComparable, match="tools-en-01 is another prompt"):
        ask(server.url, lambda e: suite(tmp_path).answer(item, "candidate", e))


@pytest.mark.parametrize("ids", [{"prompt_ids": []}, {"token_ids": []}])
def test_a_server_that_tells_no_ids_is_named(
    server: FakeServer, item: Item, tmp_path: Path, ids: dict[str, Any]
) -> None:
    server.script(chat_reply(**ids))
    with pytest.raises(EndpointError, match="does not return token ids"):
        ask(server.url, lambda e: suite(tmp_path).answer(item, "reference", e))


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b"{}",
        b'{"prompt_ids": [1], "token_ids": []}',
        b'{"prompt_ids": [1], "token_ids": ["7"]}',
        b'{"prompt_ids": [1], "token_ids": [true]}',
        b'{"prompt_ids": [1.5], "token_ids": [7]}',
        b"[" * 100_000,
    ],
)
def test_without_the_references_answer_nothing_is_asked(
    server: FakeServer, item: Item, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "decoding").mkdir()
        (tmp_path / "decoding" / "tools-en-01.reference.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"tools-en-01\.reference\.json: not a stored answer"):
        ask(server.url, lambda e: suite(tmp_path).answer(item, "candidate", e))
    assert server.posts == []


def test_ids_are_read_back(tmp_path: Path) -> None:
    write_ids(tmp_path / "a" / "x.json", [1, 2], [3])
    assert read_ids(tmp_path / "a" / "x.json") == ([1, 2], [3])
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.json"]
    assert json.loads((tmp_path / "a" / "x.json").read_text()) == {"prompt_ids": [1, 2], "token_ids": [3]}


def test_items_are_the_shipped_prompts(tmp_path: Path) -> None:
    class Template:
        def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
            return ""

    items = suite(tmp_path, prompts=12).items(Template())
    assert len(items) == 12 and {item.task.split("-")[0] for item in items} == {"chat", "reasoning", "code", "tools"}
    assert len(suite(tmp_path, prompts=24, limit=1).items(Template())) == 12
    with pytest.raises(BadInput, match="decoding: 600 prompts asked"):
        suite(tmp_path, prompts=600).items(Template())
    assert suite(tmp_path).reference_first and suite(tmp_path).context_needed > 8
