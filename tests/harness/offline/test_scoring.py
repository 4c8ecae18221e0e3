"""Answers from a file get the very samples that the live path makes of them; what is no answer is no wrong answer."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, ask, chat_reply
from offline_cases import SEALED, items_of, right, score, write_lines

from harness.contract.samples import Item, Role, Sample
from harness.endpoint.client import Completion, EndpointError
from harness.offline.scoring import score_answers, score_notes
from harness.runs.progress import Reporter
from suites.cot.suite import Cot
from suites.registry import make_suite
from suites.ruler.suite import Ruler


@pytest.mark.parametrize("suite", ["cot", "ruler"])
def test_right_answers_score_one_and_wrong_ones_nothing(made: Path, tmp_path: Path, suite: str) -> None:
    items = items_of(made, suite)
    scores, samples = score(made, suite, [right(item) for item in items], tmp_path)
    assert len(items) == 6 and [s.key.pair for s in samples] == [(suite, i.task, i.item, i.repeat) for i in items]
    assert {s.score for s in samples} == {1.0} and {s.role for s in samples} == {"candidate"}
    assert [s.prompt_sha256 for s in samples] == [item.prompt_sha256 for item in items]
    assert {t: row.answers for t, row in scores.tasks.items()} == Counter(item.task for item in items)
    assert all((row.score, row.score_completed, row.cap_hit_rate) == (1, 1, 0) for row in scores.tasks.values())
    wrong, _ = score(made, suite, [right(item, text="no idea") for item in items], tmp_path, role="reference")
    assert wrong.all_tasks.score == 0 and wrong.all_tasks.not_scored == 0 and wrong.role == "reference"


CASES: dict[str, dict[str, Any]] = {
    "right": {"text": None},
    "wrong": {"text": "no idea"},
    "empty": {"text": ""},
    "thinking by tags": {"text": "<think>\nhm </think>\n\nRIGHT"},
    "thinking by the server's parser": {"text": "RIGHT", "reasoning": " hm\n"},
    "thinking closed by a tag alone": {"text": "hm</think>RIGHT"},
    "thinking that stops": {"text": "<think> hm, RIGHT"},
    "thinking that the budget cuts": {"text": "<think> hm, RIGHT", "finish": "length", "completion_tokens": 0},
    "parsed thinking without an answer": {"text": None, "reasoning": "hm, RIGHT", "null": True},
    "cut by its budget": {"text": "it is", "finish": "length", "completion_tokens": 0},
    "null": {"text": None, "null": True},
    "a call of a tool": {
        "text": None,
        "null": True,
        "finish": "tool_calls",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    "a loop": {"text": "RIGHT and again " * 300},
    "hostile": {"text": "\x1b[2J\ud800 RIGHT \u202e\x00"},
}


@pytest.mark.parametrize("suite", ["cot", "ruler"])
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_sample_is_the_one_of_the_live_path(made: Path, tmp_path: Path, suite: str, case: str, opened: bool) -> None:
    """Byte by byte, the seconds that the answer took excepted."""
    item = items_of(made, suite)[1]
    live_suite = make_suite(SEALED.policy, suite, tmp_path)
    fields = dict(CASES[case])
    target = right(item)["text"]
    text = None if fields.pop("null", False) else (fields.pop("text") or target).replace("RIGHT", target)
    if case == "empty":
        text = ""
    fields.pop("text", None)
    if "completion_tokens" in fields:
        assert isinstance(live_suite, Cot | Ruler)
        fields["completion_tokens"] = live_suite.max_tokens

    async def live(endpoint: Any) -> Sample:
        endpoint.thinking_opened = opened
        return await live_suite.answer(item, "reference", endpoint)

    reply = chat_reply(text, **fields)
    with FakeServer() as server:
        server.script(reply)
        expected = ask(server.url, live, max_tokens=SEALED.policy.sampling.max_tokens)

    message, usage = reply["choices"][0]["message"], reply["usage"]
    line = {"item": item.item, "task": item.task, "text": message["content"], "seconds": expected.seconds}
    line |= {key: message[key] for key in ("reasoning", "tool_calls") if key in message}
    line |= {"finish_reason": reply["choices"][0]["finish_reason"]}
    line |= {key: usage[key] for key in ("prompt_tokens", "completion_tokens")}
    _, (sample,) = score(made, suite, [line], tmp_path, role="reference", thinking_opened=opened)
    assert sample.model_dump_json() == expected.model_dump_json()


def test_what_is_no_answer_is_counted_as_what_it_is(made: Path, tmp_path: Path) -> None:
    a, b, c, d, e, f = items_of(made, "cot")
    lines = [
        right(a),
        right(b, text=None),
        right(c, text=None, tool_calls=[{"function": {"name": "f"}}], finish_reason="tool_calls"),
        right(d, text="<think> for ever"),
        right(e, text="it is", finish_reason="length", completion_tokens=24),
        right(f, text="so " * 1000, finish_reason="length"),
    ]
    scores, samples = score(made, "cot", lines, tmp_path)
    row = scores.all_tasks
    assert [s.score for s in samples] == [1, None, None, None, 0, 0]
    assert (row.score, row.score_completed, row.cap_hit_rate) == (1 / 3, 1.0, 2 / 6)
    assert (row.null, row.tool_calls, row.not_scored, row.errors, row.missing) == (1, 1, 3, 0, 0)
    assert (row.unterminated_rate, row.looped_rate) == (1 / 6, 1 / 6)
    assert scores.tasks == {"word_problems": row}


def test_a_budget_that_is_not_the_policys_is_an_error_as_on_the_live_path(made: Path, tmp_path: Path) -> None:
    a, b, c, d, *_ = items_of(made, "cot")
    lines = [
        right(a, finish_reason="length", completion_tokens=23),
        right(b, completion_tokens=25),
        right(c, completion_tokens=24),
        right(d, completion_tokens=23),
    ]
    scores, samples = score(made, "cot", lines, tmp_path)
    assert [(s.error is None, s.score) for s in samples] == [(False, None), (False, None), (True, 1), (True, 1)]
    assert samples[0].error == "budget: the answer was cut at 23 tokens, before max_tokens 24"
    assert samples[1].error == "budget: the answer has 25 tokens, more than max_tokens 24 of the policy"
    assert scores.all_tasks.errors == 2 and scores.all_tasks.score == 1 and scores.all_tasks.cap_hit_rate == 0
    assert scores.errors == [f"word_problems/{i.item}: {s.error}" for i, s in zip((a, b), samples, strict=False)]

    suite = make_suite(SEALED.policy, "cot", tmp_path)
    with FakeServer() as server:
        server.script(chat_reply("x", finish="length", completion_tokens=23))
        with pytest.raises(EndpointError, match=r"^budget: .*before max_tokens 24"):
            ask(server.url, lambda endpoint: suite.answer(a, "candidate", endpoint), max_tokens=24)


def test_what_the_file_does_not_tell_stays_unknown(made: Path, tmp_path: Path) -> None:
    a, b, c, *_ = items_of(made, "cot")
    bare = [{"item": i.item, "text": right(i)["text"]} for i in (a, b)]
    scores, samples = score(made, "cot", [*bare, {"item": c.item, "text": None}], tmp_path)
    assert all((s.finish_reason, s.prompt_tokens, s.completion_tokens) == (None, None, None) for s in samples)
    row = scores.all_tasks
    assert [s.score for s in samples] == [1, 1, None] and row.null == 1 and row.finish_unknown == 3
    assert (row.score, row.score_completed, row.cap_hit_rate) == (1.0, None, None)
    assert score_notes(scores)[0].startswith("3 answers have no finish_reason")


def test_missing_answers_are_named_and_counted(made: Path, tmp_path: Path) -> None:
    items = items_of(made, "ruler")
    scores, samples = score(made, "ruler", [right(items[4]), right(items[0])], tmp_path)
    assert [s.key.pair[1:] for s in samples] == [(items[i].task, items[i].item, 0) for i in (4, 0)]
    assert scores.missing == [f"{items[i].task}/{items[i].item}" for i in (1, 2, 3, 5)]
    assert {task: row.missing for task, row in scores.tasks.items()} == {"niah_single_1@2048": 2, "vt@2048": 2}
    assert scores.all_tasks.missing == 4 and scores.all_tasks.score == 1
    none_of_vt, _ = score(made, "ruler", [right(items[0])], tmp_path)
    row = none_of_vt.tasks["vt@2048"]
    assert (row.answers, row.score, row.cap_hit_rate, row.missing) == (0, None, None, 3)


def test_repeats_are_items_of_their_own(made: Path, tmp_path: Path) -> None:
    first = items_of(made, "cot")[0]
    twice = tmp_path / "cot.jsonl"
    write_lines(twice, [first.model_copy(update={"repeat": i}).model_dump_json() for i in range(3)])
    lines = [right(first, repeat=2), right(first, repeat=0, text="no idea")]
    scores, samples = score(tmp_path, "cot", lines, tmp_path)
    assert [(s.repeat, s.score) for s in samples] == [(2, 1), (0, 0)]
    assert scores.missing == [f"word_problems/{first.item}/1"] and scores.all_tasks.score == 0.5


def test_without_out_the_same_is_counted_and_nothing_written(made: Path, tmp_path: Path) -> None:
    lines = [right(item) for item in items_of(made, "cot")]
    with_out, _ = score(made, "cot", lines, tmp_path)
    (tmp_path / "samples.jsonl").unlink()
    answers = tmp_path / "answers.jsonl"
    assert score_answers("cot", made / "cot.jsonl", answers, Reporter(), sealed=SEALED) == with_out
    assert list(tmp_path.iterdir()) == [answers]


# -- the suite's own scorer ----------------------------------------------------------------------------------


def test_the_scorer_is_the_suites_own(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's answer reaches `score` as a Completion; what `score` returns is what is stored."""
    seen: list[Completion] = []
    real = Ruler.score

    def score_of(self: Ruler, item: Item, role: Role, completion: Completion) -> Sample:
        seen.append(completion)
        return real(self, item, role, completion).model_copy(update={"score": 0.25})

    monkeypatch.setattr(Ruler, "score", score_of)
    item = items_of(made, "ruler")[0]
    scores, _ = score(made, "ruler", [right(item, text="<think>a</think>b", completion_tokens=3)], tmp_path)
    assert scores.all_tasks.score == 0.25
    assert (seen[0].text, seen[0].reasoning, seen[0].completion_tokens) == ("b", "a", 3)


def test_an_answer_that_the_scorer_calls_unusable_is_an_error(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Sample:
        raise EndpointError("garbage", "no \x1b[31muse")

    monkeypatch.setattr(Ruler, "score", refuse)
    scores, samples = score(made, "ruler", [right(items_of(made, "ruler")[0])], tmp_path)
    assert scores.all_tasks.errors == 1 and samples[0].error == "garbage: no \x1b[31muse" and samples[0].score is None
    assert all(note.isprintable() for note in score_notes(scores))
