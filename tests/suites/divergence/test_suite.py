"""The suite: trajectories that the reference writes and that both roles score alike."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import FakeServer, Reply, ask, chat_reply, score_reply
from next_tokens import Array, draw, exact_kl, top

from harness.contract.errors import BadInput
from harness.contract.samples import Item, Role, Sample
from harness.contract.settings import Sampling
from harness.endpoint.client import Endpoint, EndpointError
from harness.runs.positions import position_summary
from suites.base import make_item
from suites.divergence.kl_bounds import compare_scores
from suites.divergence.parquet_files import read_trajectory, rounded
from suites.divergence.suite import Divergence, DivergenceConfig

K, VOCABULARY = 4, 24
PROMPT, ANSWER = [3, 1, 4], [1, 5, 9, 2, 6]


class Model:
    """A server's next-token distributions along PROMPT + ANSWER."""

    def __init__(self, logprobs: Array) -> None:
        self.logprobs = logprobs  # [len(PROMPT) + len(ANSWER), V]; row i is of the token at position i

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/chat/completions"):
            return chat_reply("text", prompt_ids=PROMPT, token_ids=ANSWER, completion_tokens=len(ANSWER))
        entries: list[Any] = [None]
        for row, token in zip(self.logprobs[1:], body["prompt"][1:], strict=True):
            kept = {*np.argsort(-row)[: body["prompt_logprobs"]].tolist(), token}
            entries.append({str(i): {"logprob": float(row[i]), "rank": 1} for i in kept})
        return score_reply(entries)


@pytest.fixture
def suite(tmp_path: Path) -> Divergence:
    config = DivergenceConfig(trajectories=1, max_tokens=16, top_logprobs=K)
    return Divergence(config, Sampling(max_tokens=99), tmp_path / "divergence")


@pytest.fixture
def item() -> Item:
    return make_item("chat-en", "chat-en-01", [{"role": "user", "content": "Hello"}])


def test_both_roles_score_the_trajectory_of_the_reference(
    server: FakeServer, suite: Divergence, item: Item, tmp_path: Path
) -> None:
    p, q = draw(11, n=len(PROMPT) + len(ANSWER), vocabulary=VOCABULARY)
    server.handler = Model(p)
    reference = ask(server.url, lambda e: suite.answer(item, "reference", e))
    chat, scored = server.posts
    assert chat[1]["max_tokens"] == 16 and chat[1]["messages"] == item.prompt
    assert scored[1]["prompt"] == PROMPT + ANSWER and scored[1]["prompt_logprobs"] == K
    assert reference.metrics == {"positions": 5.0, "looped": 0.0, "unterminated": 0.0}
    assert reference.score is None and reference.error is None

    server.handler = Model(q)
    candidate = ask(server.url, lambda e: suite.answer(item, "candidate", e))
    assert server.posts[2] == scored and len(server.posts) == 3  # the candidate writes nothing of its own
    assert candidate.answer == reference.answer  # the same trajectory
    assert (candidate.finish_reason, candidate.completion_tokens) == (None, None)
    assert candidate.prompt_sha256 == reference.prompt_sha256 == item.prompt_sha256

    tail = slice(len(PROMPT), None)
    tokens = np.array(ANSWER, np.int32)
    expected = compare_scores(rounded(top(p[tail], K, tokens)), rounded(top(q[tail], K, tokens)))
    assert candidate.metrics == pytest.approx(expected.totals())
    assert candidate.metrics["kl_lower_sum"] <= exact_kl(p[tail], q[tail]).sum() + 1e-4
    for role, rows in (("reference", p), ("candidate", q)):
        prompt_ids, stored = read_trajectory(tmp_path / "divergence" / f"chat-en-01.{role}.parquet")
        assert prompt_ids == PROMPT
        assert stored.token_ids.tolist() == ANSWER
        assert stored.logprobs == pytest.approx(rows[tail][np.arange(5), tokens], abs=1e-5)
    summary = position_summary(tmp_path / "divergence")
    assert summary is not None and list(summary.by_language) == ["en"] and list(summary.by_kind) == ["chat"]
    assert summary.total.kl_mean[0] == pytest.approx(candidate.metrics["kl_lower_sum"] / 5, rel=1e-6)


def test_an_identical_server_shows_no_divergence(server: FakeServer, suite: Divergence, item: Item) -> None:
    p, _ = draw(12, n=len(PROMPT) + len(ANSWER), vocabulary=VOCABULARY)
    server.handler = Model(p)
    ask(server.url, lambda e: suite.answer(item, "reference", e))
    metrics = ask(server.url, lambda e: suite.answer(item, "candidate", e)).metrics
    assert (metrics["positions"], metrics["flips"], metrics["confident_flips"]) == (5.0, 0.0, 0.0)
    assert metrics["kl_lower_sum"] == metrics["kl_upper_sum"] == metrics["kl_upper_max"] == 0  # exactly


@pytest.mark.parametrize("ids", [{"prompt_ids": []}, {"token_ids": []}])
def test_a_server_that_tells_no_ids_has_no_trajectory(
    server: FakeServer, suite: Divergence, item: Item, ids: dict[str, Any]
) -> None:
    server.script(chat_reply(**ids))
    with pytest.raises(EndpointError, match="does not return token ids"):
        ask(server.url, lambda e: suite.answer(item, "reference", e))


def test_without_the_references_trajectory_nothing_is_compared(
    server: FakeServer, suite: Divergence, item: Item
) -> None:
    with pytest.raises(BadInput, match="not a stored trajectory"):
        ask(server.url, lambda e: suite.answer(item, "candidate", e))
    assert server.posts == []


def test_items_are_the_shipped_prompts(tmp_path: Path) -> None:
    class Template:
        def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
            return ""

    def items(**config: Any) -> list[Item]:
        return list(Divergence(DivergenceConfig(**config), Sampling(), tmp_path).items(Template()))

    default = DivergenceConfig().trajectories
    assert len(items()) == default == 48
    assert {item.task.split("-")[0] for item in items(trajectories=16)} == {"chat", "reasoning", "code", "tools"}
    assert len(items(trajectories=96, limit=3)) == 36
    with pytest.raises(BadInput, match="divergence: 10000 prompts asked"):
        items(trajectories=10_000)


def test_the_suite_wants_the_reference_first(suite: Divergence) -> None:
    assert suite.reference_first and suite.context_needed > 16


def test_the_functions_of_a_prompt_are_told_and_a_call_is_a_trajectory(server: FakeServer, suite: Divergence) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    item = make_item("tools-en", "tools-en-01", [{"role": "user", "content": "Hello"}], tools=tools)
    p, _ = draw(13, n=len(PROMPT) + len(ANSWER), vocabulary=VOCABULARY)
    model = Model(p)

    def called(path: str, body: dict[str, Any]) -> Any:
        answer = model(path, body)
        if path.endswith("/chat/completions"):
            answer["choices"][0] |= {"finish_reason": "tool_calls"}
            answer["choices"][0]["message"] |= {"content": None, "tool_calls": [{"id": "1", "type": "function"}]}
        return answer

    server.handler = called
    reference = ask(server.url, lambda e: suite.answer(item, "reference", e))
    assert server.posts[0][1]["tools"] == tools
    candidate = ask(server.url, lambda e: suite.answer(item, "candidate", e))
    assert reference.answer == candidate.answer is not None and candidate.metrics["positions"] == 5


REFUSAL = "Requested prompt logprobs of 64, which is greater than max allowed: 20"


@pytest.mark.parametrize("role", ["reference", "candidate"])
def test_a_server_that_gives_fewer_logprobs_names_the_setting(
    server: FakeServer, suite: Divergence, item: Item, role: Any
) -> None:
    p, _ = draw(14, n=len(PROMPT) + len(ANSWER), vocabulary=VOCABULARY)
    server.handler = Model(p)
    if role == "candidate":
        ask(server.url, lambda e: suite.answer(item, "reference", e))
    body = {"error": {"message": REFUSAL, "type": "BadRequestError", "code": 400}}
    refused = Reply(body, 400)
    server.handler = lambda path, b: Model(p)(path, b) if path.endswith("/chat/completions") else refused
    with pytest.raises(BadInput, match=r"does not give 4 log-probabilities; set serving\.max_logprobs .* to 4, or"):
        ask(server.url, lambda e: suite.answer(item, role, e))


def test_another_refusal_is_the_items_own(server: FakeServer, suite: Divergence, item: Item) -> None:
    p, _ = draw(15, n=len(PROMPT) + len(ANSWER), vocabulary=VOCABULARY)
    refused = Reply({"error": {"message": "This model's maximum context length is 4 tokens"}}, 400)
    server.handler = lambda path, b: Model(p)(path, b) if path.endswith("/chat/completions") else refused
    with pytest.raises(EndpointError, match=r"refused: .*maximum context length"):
        ask(server.url, lambda e: suite.answer(item, "reference", e))


def test_the_end_of_thinking_is_scored_where_the_reference_closed_it(
    server: FakeServer, suite: Divergence, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, q = draw(11, n=len(PROMPT) + len(ANSWER), vocabulary=VOCABULARY)
    texts = {1: "so", 5: " 12", 9: "</think>", 2: "12", 6: "."}
    paths = []

    def pieces(path: str, token_ids: list[int]) -> list[str]:
        paths.append(path)
        return [texts[token] for token in token_ids]

    async def answered(endpoint: Endpoint, role: Role) -> Sample:
        endpoint.tokenizer_path, endpoint.thinking_opened = "folder", True
        return await suite.answer(item, role, endpoint)

    monkeypatch.setattr("suites.divergence.suite.token_pieces", pieces)
    found = {}
    roles: tuple[tuple[Role, Array], ...] = (("reference", p), ("candidate", q))
    for role, rows in roles:
        server.handler = Model(rows)
        found[role] = ask(server.url, partial(answered, role=role)).metrics
        assert found[role]["end_of_thinking"] == pytest.approx(np.exp(rows[len(PROMPT) + 2, 9]), rel=1e-4)
        assert found[role]["thinking_closed"] == 1.0
    assert found["reference"]["end_of_thinking"] != found["candidate"]["end_of_thinking"] and paths == ["folder"] * 2
    texts[9] = " and"  # thinking that never closes is said to be so, and has no probability
    closed = ask(server.url, partial(answered, role="candidate")).metrics
    assert closed["thinking_closed"] == 0.0 and "end_of_thinking" not in closed
