"""Speculative: what one answer added to a server's counters, and no other answer's drafts."""

from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, ask, chat_reply

from harness.contract.samples import Sample
from harness.contract.settings import Sampling
from harness.endpoint.client import EndpointError
from suites import speculative
from suites.base import make_item
from suites.speculative import Speculative, SpeculativeConfig

ITEM = make_item("chat-en", "chat-en-01", [{"role": "user", "content": "Hi"}])


class Drafting:
    """A handler: a server that counts drafts. A test changes one thing."""

    def __init__(self) -> None:
        self.accepts = [3, 1, 0]
        """Of each draft of an answer, how many of its three tokens are accepted."""
        self.lag = 0
        """So many looks at /metrics later an answer is counted."""
        self.others = 0
        """Requests of other clients that each of ours brings with it."""
        self.counts = self.drafts = True
        self.tools: list[Any] = []
        self._answers, self._accepted = 100, [3, 2]
        self._pending: list[int] = []

    def restart(self) -> None:
        self._answers, self._accepted = 0, []

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/metrics":
            return Reply(self._metrics().encode(), headers={"content-type": "text/plain"})
        self.tools.append(body.get("tools"))
        self._pending.append(self.lag)
        return chat_reply("one two three", finish="length", completion_tokens=body["max_tokens"])

    def _metrics(self) -> str:
        for left in [left for left in self._pending if left <= 0]:
            self._pending.remove(left)
            self._answers += 1 + self.others
            self._accepted += self.accepts
        self._pending = [left - 1 for left in self._pending]
        lines = [f"vllm:request_params_max_tokens_count {self._answers}"] if self.counts else ["x 1"]
        if self.drafts:
            lines.append(f"vllm:spec_decode_num_drafts_total {len(self._accepted)}")
            lines.append(f"vllm:spec_decode_num_draft_tokens_total {3 * len(self._accepted)}")
            lines.append(f"vllm:spec_decode_num_accepted_tokens_total {sum(self._accepted)}")
            for p in range(3):
                total = sum(n > p for n in self._accepted)
                lines.append(f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{position="{p}"}} {total}')
        return "\n".join(lines) + "\n"


def suite(**config: Any) -> Speculative:
    return Speculative(SpeculativeConfig(**config), Sampling(max_tokens=64), Path("unused"))


def answer(server: FakeServer, handler: Drafting, item: Any = ITEM) -> Sample:
    server.handler = handler
    return ask(server.url, lambda endpoint: suite().answer(item, "candidate", endpoint))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculative, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(speculative, "SETTLE_SECONDS", 0.3)


@pytest.mark.parametrize("lag", [0, 1, 5])
def test_a_sample_has_what_its_answer_added(server: FakeServer, lag: int) -> None:
    handler = Drafting()
    handler.lag = lag
    sample = answer(server, handler)
    expected = {"drafts": 3.0, "draft_tokens": 9.0, "accepted_tokens": 4.0, "accepted_length": 1 + 4 / 3}
    expected |= {"accepted_pos_0": 2.0, "accepted_pos_1": 1.0, "accepted_pos_2": 1.0}
    assert {name: sample.metrics[name] for name in expected} == pytest.approx(expected)
    assert (sample.suite, sample.task, sample.item, sample.score) == ("speculative", "chat-en", "chat-en-01", None)
    assert sample.text == "one two three" and sample.completion_tokens == 64  # the policy's budget, the smaller one


def test_each_answer_has_its_own_drafts(server: FakeServer) -> None:
    handler = Drafting()
    found = []
    for accepts in ([3, 3], [0], [2, 1, 3, 0]):
        handler.accepts = accepts
        found.append(answer(server, handler).metrics["accepted_tokens"])
    assert found == [6.0, 0.0, 6.0]


def test_drafts_that_are_never_accepted_have_a_length_of_one(server: FakeServer) -> None:
    handler = Drafting()
    handler.accepts = [0, 0]
    assert answer(server, handler).metrics["accepted_length"] == 1.0


def test_a_server_without_drafts_says_so(server: FakeServer) -> None:
    handler = Drafting()
    handler.drafts = False
    metrics = answer(server, handler).metrics
    assert metrics["draft_tokens"] == metrics["drafts"] == 0.0
    assert "accepted_length" not in metrics and "accepted_tokens" not in metrics


def test_an_answer_that_could_not_be_drafted_for_has_no_length(server: FakeServer) -> None:
    handler = Drafting()
    handler.accepts = []
    metrics = answer(server, handler).metrics
    assert metrics["draft_tokens"] == 0.0 and "accepted_length" not in metrics


def test_what_others_ask_is_not_counted_as_ours(server: FakeServer) -> None:
    handler = Drafting()
    handler.others = 2
    with pytest.raises(EndpointError, match=r"^refused: .* answered 2 other requests meanwhile"):
        answer(server, handler)


@pytest.mark.parametrize("never", ["counts", "settles"])
def test_a_server_that_does_not_count_is_an_error(server: FakeServer, never: str) -> None:
    handler = Drafting()
    handler.counts, handler.lag = never != "counts", 10**6 if never == "settles" else 0
    with pytest.raises(EndpointError, match=r"^garbage: .* does not count the answers"):
        answer(server, handler)


def test_a_restart_in_between_is_an_error(server: FakeServer) -> None:
    handler = Drafting()

    def answers_and_restarts(path: str, body: dict[str, Any]) -> Any:
        reply = handler(path, body)
        if path != "/metrics":
            handler.restart()
        return reply

    server.handler = answers_and_restarts
    with pytest.raises(EndpointError, match=r"^server: .* restarted"):
        ask(server.url, lambda endpoint: suite().answer(ITEM, "candidate", endpoint))


def test_a_refused_question_is_refused(server: FakeServer) -> None:
    handler = Drafting()
    server.handler = lambda path, body: handler(path, body) if path == "/metrics" else Reply({"error": {}}, 400)
    with pytest.raises(EndpointError, match=r"^refused"):
        ask(server.url, lambda endpoint: suite().answer(ITEM, "candidate", endpoint))


def test_functions_are_told_to_the_model(server: FakeServer) -> None:
    tools = [{"type": "function", "function": {"name": "find_train"}}]
    handler = Drafting()
    answer(server, handler, make_item("tools-en", "tools-en-01", [{"role": "user", "content": "Hi"}], tools=tools))
    answer(server, handler)
    assert handler.tools == [tools, None]


class Plain:
    """A tokenizer whose chat template shows no functions."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        return str(conversation)


def test_items_are_the_shipped_prompts_and_stay_what_they_are() -> None:
    tokenizer = Plain()
    items = list(suite(prompts=24).items(tokenizer))
    assert len(items) == 24 and len({(i.task, i.item) for i in items}) == 24
    assert {i.task.split("-")[1] for i in items} == {"en", "ja", "zh"}
    fewer = list(suite(prompts=24, limit=1).items(tokenizer))
    assert len(fewer) == len({i.task for i in items}) and all(i in items for i in fewer)
    assert suite(max_tokens=16).context_needed > 16 and suite().max_tokens == 64
    assert Speculative.alternates  # one at a time, the roles in turn
