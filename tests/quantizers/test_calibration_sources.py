"""Documents: of files, of what ships, of data sets of the hub."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from quantizers.calibration_sources import read_documents, shuffled_documents, trace_prompts
from quantizers.conversations import checked_messages, conversation_text
from quantizers.errors import QuantizeError
from quantizers.recipe import SHIPPED, Source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def texts(source: Source) -> list[Any]:
    return [document.content for document in shuffled_documents(source, 0)]


def test_documents_of_text_files(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("abcdefgh\n%%\n\n%%\n%% not a separator\nx", encoding="utf-8")
    assert [d.content for d in read_documents(file, Source(file=file))] == ["abcdefgh", "%% not a separator\nx"]


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    rows = [{"quantgate_traces": 1, "model": "m"}, *({"text": t, "id": 3} for t in ("one", "  ", "two\u2028three"))]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert sorted(texts(Source(file=file))) == ["one", "two\u2028three"]


def test_language_and_kind_choose_rows(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    rows = [{"text": "a", "language": "ja", "kind": "code"}, {"text": "b", "language": "en"}, {"text": "c"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert sorted(texts(Source(file=file, language="ja"))) == ["a", "c"]
    assert sorted(texts(Source(file=file, kind="chat"))) == ["b", "c"]
    file.write_text(json.dumps(rows[0]))
    with pytest.raises(QuantizeError, match="holds no text of language zh: name what its rows name"):
        texts(Source(file=file, language="zh"))


def test_a_mark_of_the_byte_order_is_no_text(tmp_path: Path) -> None:
    file, rows = tmp_path / "one.txt", tmp_path / "rows.jsonl"
    file.write_text("abc", encoding="utf-8-sig")
    rows.write_text('{"text": "abc"}\n', encoding="utf-8-sig")
    assert texts(Source(file=file)) == texts(Source(file=rows)) == ["abc"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(QuantizeError, match=r"pipe\.txt is no regular file"):
        texts(Source(file=tmp_path / "pipe.txt"))


@pytest.mark.parametrize(
    "row", [{"text": "a\ud83d"}, {"messages": [{"role": "user", "content": "\udc00b"}]}], ids=["text", "messages"]
)
def test_half_a_character_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "sound"}) + "\n" + json.dumps(row))
    _, broken = read_documents(file, Source(file=file))
    with pytest.raises(QuantizeError, match=r"rows\.jsonl, line 2 holds half of a surrogate pair"):
        broken.ids(None)


def test_running_text_that_ships_has_no_rows_to_choose_from() -> None:
    with pytest.raises(ValueError, match="shipped: dialogue is running text, all of it: leave out its language"):
        Source(shipped="dialogue", language="ja")


@pytest.mark.parametrize("kind", SHIPPED)
def test_what_ships(kind: str) -> None:
    assert len(texts(Source(shipped=kind))) > 5


@pytest.mark.parametrize("language", ["en", "ja", "zh"])
def test_shipped_reasoning_closes_and_answers(language: str) -> None:
    for messages in texts(Source(shipped="reasoning", language=language)):
        assert messages[-1]["role"] == "assistant"
        assert len(messages[-1]["reasoning_content"]) > 40 and messages[-1]["content"].strip()


def test_prompts_of_traces_are_not_what_the_suites_ask() -> None:
    prompts = trace_prompts()
    assert len({prompt["id"] for prompt in prompts}) == len({prompt["prompt"] for prompt in prompts}) == 54
    asked = (Path(__file__).parents[2] / "suites" / "data" / "prompts.jsonl").read_text("utf-8").splitlines()
    suites = {json.loads(line)["messages"][-1]["content"] for line in asked}
    assert not suites & {prompt["prompt"] for prompt in prompts}


class Hub:
    """Stands in for datasets.load_dataset."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.asked: tuple[Any, ...] = ()

    def __call__(self, name: str, config: str | None, *, split: str, revision: str) -> list[dict[str, Any]]:
        self.asked = (name, config, split, revision)
        return self.rows


def test_data_sets_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    hub = Hub([{"text": "one", "talk": conversation}, {"text": "two", "talk": None}])
    monkeypatch.setattr("datasets.load_dataset", hub)
    source = Source(dataset="some/texts", revision=COMMIT, config="ja", split="test")
    assert sorted(texts(source)) == ["one", "two"] and hub.asked == ("some/texts", "ja", "test", COMMIT)
    assert source.label == "some/texts ja (test, text) at 0123456789ab"
    hub.rows = hub.rows[:1]
    assert texts(source.model_copy(update={"column": "talk"})) == [conversation]
    with pytest.raises(QuantizeError, match=r'row 0: column "body" holds no text or messages: .*it has text, talk'):
        texts(source.model_copy(update={"column": "body"}))


def test_a_data_set_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(QuantizeError, match=r"some/texts .* cannot be had .no network.: check its name") as caught:
        texts(Source(dataset="some/texts", revision=COMMIT))
    assert "\n" not in str(caught.value)


def test_traces_that_were_not_made() -> None:
    with pytest.raises(QuantizeError, match="8 traces of the model itself: they are not made yet; `quantgate traces"):
        texts(Source(traces=8))


class Templated:
    """A tokenizer with a template."""

    def __init__(self, opening: str = "", template: str = "any", vocabulary: tuple[str, ...] = ()) -> None:
        self.chat_template, self._opening, self._vocabulary = template, opening, vocabulary

    def apply_chat_template(self, messages: list[Any], *, tokenize: bool, add_generation_prompt: bool) -> str:
        if messages[0]["role"] == "system":
            raise ValueError("no\nsystem")
        return f"[{len(messages)}]" + ("A:" + self._opening if add_generation_prompt else "")

    def get_vocab(self) -> dict[str, int]:
        return dict.fromkeys(self._vocabulary, 0)


THOUGHT = [
    {"role": "user", "content": "why?"},
    {"role": "assistant", "content": "so", "reasoning_content": "hm"},
]


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        (Templated(), "[1]A:hm\n\nso"),
        (Templated(template="</think>"), "[1]A:<think>\nhm\n</think>\n\nso"),
        (Templated(vocabulary=("</think>",)), "[1]A:<think>\nhm\n</think>\n\nso"),
        (Templated("<think>\n"), "[1]A:<think>\nhm\n</think>\n\nso"),
        (object(), "user: why?\nassistant: hm\n\nso"),
    ],
)
def test_thinking_stands_closed_before_the_answer(tokenizer: Any, expected: str) -> None:
    assert conversation_text(THOUGHT, tokenizer) == expected


def test_thinking_that_the_template_opens_is_closed_where_none_was_thought() -> None:
    plain = [THOUGHT[0], {"role": "assistant", "content": "so"}]
    assert conversation_text(plain, Templated("<think>\n")) == "[1]A:<think>\n\n</think>\n\nso"
    assert conversation_text(plain[:1], Templated()) == "[1]"


def test_a_template_that_refuses(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "system", "content": "be"}, *THOUGHT]}))
    (document,) = read_documents(file, Source(file=file))
    with pytest.raises(QuantizeError, match=r"some.jsonl, line 1: the model's chat template refuses it \(no system\)"):
        document.ids(Templated())


def test_messages_of_other_forms() -> None:
    parts = [{"type": "reasoning", "value": "hm"}, {"type": "text", "text": "so"}]
    assert checked_messages([THOUGHT[0], {"role": "assistant", "content": parts}]) == THOUGHT
    assert checked_messages([THOUGHT[0], {"role": "assistant", "content": "so", "thinking": " hm "}]) == THOUGHT
    for broken in ([], "x", [1], [{"content": "x"}], [{"role": "user", "content": [{"type": "image"}]}]):
        assert checked_messages(broken) is None
