"""Whose answer each line is; lines that cannot be used are named, counted and never dropped."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from offline_cases import write_lines

from harness.contract.errors import BadInput
from harness.contract.items import ItemRef
from harness.offline import answer_files
from harness.offline.answer_files import MOST_LISTED, Answer, by_name, match_answers, read_answer


def ref(task: str, item: str, repeat: int = 0) -> ItemRef:
    return ItemRef(task, item, repeat, "sha", 0)


A0, A1, B1, B1_AGAIN, B2 = ref("a", "0"), ref("a", "1"), ref("b", "1"), ref("b", "1", 1), ref("b", "2")
REFS = [A0, A1, B1, B1_AGAIN, B2]


def match(path: Path, *lines: Any) -> dict[ItemRef, int]:
    return match_answers(write_lines(path / "answers.jsonl", lines), by_name(Path("items"), REFS))


def line(item: str, **more: Any) -> dict[str, Any]:
    return {"item": item, "text": "x", **more}


@pytest.mark.parametrize(
    ("answer", "whose"),
    [
        (line("0"), A0),
        (line("2"), B2),
        (line("1", task="a"), A1),
        (line("a/1"), A1),
        (line("b/1"), B1),
        (line("b/1", task="b"), B1),
        (line("1", task="b", repeat=1), B1_AGAIN),
        (line("1", repeat=1), B1_AGAIN),  # task a has no second repeat
        (line("b/1", repeat=1), B1_AGAIN),
    ],
)
def test_an_answer_finds_its_item(tmp_path: Path, answer: dict[str, Any], whose: ItemRef) -> None:
    assert match(tmp_path, answer) == {whose: 0}


def test_offsets_are_where_the_lines_begin(tmp_path: Path) -> None:
    lines = [line("b/1", text="日本\u2028"), b"", line("0"), b"  ", line("2")]
    offsets = match(tmp_path, *lines)
    assert list(offsets) == [B1, A0, B2]
    with (tmp_path / "answers.jsonl").open("rb") as file:
        for offset, expected in zip(offsets.values(), ("b/1", "0", "2"), strict=True):
            file.seek(offset)
            assert read_answer(file.readline()).item == expected


def test_windows_line_ends_and_a_last_line_without_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"item": "0", "text": "x"}\r\n{"item": "2", "text": null}')
    assert list(match_answers(path, by_name(path, REFS))) == [A0, B2]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("{", "not JSON, or cut off"),
        (b'{"item": "0", "text": "\xff"}', "not JSON, or cut off"),
        ("[" * 100_000, "not JSON, or cut off"),
        ("[]", "not an answer (line: "),
        ('"0"', "not an answer (line: "),
        ({"text": "x"}, "not an answer (item: Field required)"),
        ({"item": "0"}, "not an answer (text: Field required)"),
        (line("0", text=3), "not an answer (text: "),
        (line("0", repeat="0"), "not an answer (repeat: "),
        (line("0", repeat=-1), "not an answer (repeat: "),
        (line("0", repeat=True), "not an answer (repeat: "),
        (line("0", finish_reason=""), "not an answer (finish_reason: "),
        (line("0", completion_tokens=1.5), "not an answer (completion_tokens: "),
        (line("0", completion_tokens=-1), "not an answer (completion_tokens: "),
        (line("0", prompt_tokens=10**30), "not an answer (prompt_tokens: "),
        (line("0", seconds=float("nan")), "not an answer (seconds: "),
        (line("0", tool_calls=["f"]), "not an answer (tool_calls.0: "),
        ('{"item": "\\ud8000", "text": "x"}', "there is no item '0'"),
        (line("0", score=1), "unknown key 'score'; known: item, text, task, repeat, reasoning, tool_calls"),
        (line("0", **{"\x1b[31m\n": 1}), "unknown key '[31m'"),
        (line("7"), "there is no item '7'"),
        (line("\x1b[2J\u202e7"), "there is no item '[2J 7'"),
        (line("0", task="b"), "there is no item '0' of task 'b'"),
        (line("0", repeat=2), "there is no item '0', repeat 2"),
        (line("a/0", task="b"), "there is no item 'a/0' of task 'b'"),
        (line("1"), "item '1' is in several tasks (a, b); name one with \"task\""),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, answer: Any, says: str) -> None:
    with pytest.raises(BadInput) as found:
        match(tmp_path, line("2"), answer)
    message = str(found.value)
    assert f"answers.jsonl:2: {says}" in message and "(1 of 2 answers cannot be used; nothing was scored)" in message
    assert message.isprintable() and found.value.details == ""


def test_a_second_answer_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r":3: a second answer to b/1/1; the first is on line 1"):
        match(tmp_path, line("b/1", repeat=1), line("0"), line("1", repeat=1))


def test_all_faults_are_counted_and_the_first_ones_listed(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as found:
        match(tmp_path, line("0"), *[line(f"no\x07{i}") for i in range(30)], line("0"))
    assert "answers.jsonl:2: there is no item 'no 0' (31 of 32 answers cannot be used" in str(found.value)
    listed = found.value.details.splitlines()
    assert len(listed) == MOST_LISTED and listed[1].endswith("answers.jsonl:3: there is no item 'no 1'")
    assert all(entry.isprintable() for entry in listed)


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_files, "LONGEST_LINE", 2**20)
    with pytest.raises(BadInput, match=r"answers.jsonl:2: longer than 1 MiB"):
        match(tmp_path, line("0"), b" " * (2**20 + 1), line("2"))


def test_files_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no answer is in it"):
        match(tmp_path, b"", b"  ")
    with pytest.raises(BadInput, match="No such file"):
        match_answers(tmp_path / "nowhere", by_name(Path("items"), REFS))
    with pytest.raises(BadInput, match="is no regular file"):
        match_answers(tmp_path, by_name(Path("items"), REFS))
    with pytest.raises(BadInput, match=r"items\.jsonl: no item is in it"):
        by_name(Path("items.jsonl"), [])


def test_items_of_one_name_are_refused() -> None:
    with pytest.raises(BadInput, match=r"items\.jsonl: item b/1/1 is there twice"):
        by_name(Path("items.jsonl"), [*REFS, B1_AGAIN])


def test_lone_surrogates_become_what_the_live_path_makes_of_them() -> None:
    answer = read_answer(b'{"item": "0", "text": "a\\ud800b", "reasoning": "\\udfff", "finish_reason": "\\ud800"}')
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("a�b", "�", "�")


@given(st.builds(dict, item=st.text(min_size=1), text=st.none() | st.text(), reasoning=st.none() | st.text()))
def test_any_text_survives(fields: dict[str, Any]) -> None:
    assert read_answer(json.dumps(fields).encode()) == Answer(**fields)
    assert read_answer(json.dumps(fields, ensure_ascii=False).encode()) == Answer(**fields)


@given(st.binary())
def test_any_bytes_are_an_answer_or_one_printable_line(data: bytes) -> None:
    try:
        read_answer(data)
    except BadInput as error:
        assert str(error).isprintable()
