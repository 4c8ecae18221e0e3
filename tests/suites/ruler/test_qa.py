"""RULER's questions on documents: gold documents once, near ones first, any length, and data that is checked."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruler_tasks import made, question_of, ruler, text_of, write_data

from harness.contract.errors import BadInput
from suites.ruler.qa_data import _squad_flat, hotpotqa, squad

REAL = Path(os.environ.get("QUANTGATE_DATA") or Path(__file__).parents[4] / "shared" / "data")


@pytest.fixture(autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.getbasetemp() / "qa_data"
    if not folder.exists():
        write_data(folder)
    monkeypatch.setenv("QUANTGATE_DATA", str(folder))
    return folder


def documents(text: str) -> list[str]:
    """The documents of a prompt, their numbers checked."""
    parts = re.split(r"(?:^|\n\n)Document (\d+):\n", text.split("\n\n", 1)[1].rsplit("\n\nQuestion: ", 1)[0])
    assert parts[0] == "" and [int(n) for n in parts[1::2]] == list(range(1, len(parts) // 2 + 1))
    return parts[2::2]


@cache
def beginnings(everything: tuple[str, ...]) -> set[str]:
    """The documents cut at every word."""
    cut = (document.split() for document in everything)
    return {" ".join(words[:i]) for words in cut for i in range(1, len(words))}


@pytest.mark.parametrize("task", ["qa_1", "qa_2"])
@settings(max_examples=25)
@given(index=st.integers(0, 11), units=st.integers(0, 9000), seed=st.integers(0, 100))
def test_gold_documents_stand_once_and_filling_has_the_words_asked_for(
    task: str, index: int, units: int, seed: int
) -> None:
    questions, everything = squad() if task == "qa_1" else hotpotqa()
    item = made(task, index=index, seed=seed)
    (question,) = (q for q in questions if q.name == item.data["question"])
    text = text_of(item.build(units))
    found = Counter(documents(text))
    assert question_of(text) == f"Question: {question.question}"
    assert item.references == question.answers
    assert all(found.pop(gold) == 1 for gold in question.gold)
    assert sum(len(d.split()) * n for d, n in found.items()) == units
    whole, cut = set(found) & set(everything), set(found) - set(everything)
    assert all(" ".join(document.split()) in beginnings(everything) for document in cut) and len(cut) <= 1
    if whole - set(question.near):
        assert set(question.near) <= whole  # what is near comes first
    assert max(found.values(), default=1) - min((found[d] for d in whole), default=1) <= 1  # all again, evenly


@pytest.mark.parametrize("task", ["qa_1", "qa_2"])
def test_documents_keep_their_order_while_the_filling_grows(task: str) -> None:
    item = made(task)
    before: list[str] = []
    for units in range(0, 1800, 150):
        now = documents(text_of(item.build(units)))
        kept = [d for d in now if d in before]
        assert kept == [d for d in before if d in kept]
        before = now


def test_every_question_comes_once_and_is_the_same_at_every_length() -> None:
    names = [made("qa_2", index=i).data["question"] for i in range(12)]
    assert sorted(names) == sorted(f"h{i}" for i in range(12)) and names != sorted(names)
    assert names == [made("qa_2", 9999, index=i).data["question"] for i in range(12)]
    assert names != [made("qa_2", index=i, seed=1).data["question"] for i in range(12)]
    with pytest.raises(BadInput, match="qa_2: there are only 12 questions; set a smaller per_task"):
        made("qa_2", index=12)


def test_gold_documents_are_spread_over_the_prompt() -> None:
    places = []
    for seed in range(60):
        item = made("qa_1", seed=seed)
        texts = documents(text_of(item.build(1500)))
        (at,) = (i for i, text in enumerate(texts) if f" {item.references[0]}. " in text)
        places.append(at / (len(texts) - 1))
    assert min(places) < 0.1 and max(places) > 0.9 and 0.35 < sum(places) / len(places) < 0.65


# -- data ----------------------------------------------------------------------------------------------------


def test_unanswerable_questions_and_files_without_paragraphs_are_left_out() -> None:
    questions, everything = squad()
    assert len(questions) == 20 and len(everything) == 20 and all(q.name.startswith("q") for q in questions)
    assert questions[0].answers == ("Answer00", "the Answer00") and len(questions[0].near) == 4
    questions, everything = hotpotqa()
    assert len(questions) == 12 and len(everything) == 120
    assert [len(q.gold) for q in questions] == [2] * 12 and [len(q.near) for q in questions] == [8] * 12
    assert questions[5].gold[0].startswith("Title 5-3\nAbout Title 5-3. ")


SQUAD: dict[str, Any] = {"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]}
QA = {"id": "1", "question": "?", "is_impossible": False, "answers": [{"text": "a"}]}
ROW: dict[str, Any] = {"_id": "1", "question": "?", "answer": "a", "supporting_facts": [["t", 0]]}
ROW["context"] = [["t", ["s"]]]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("squad", "{", "is not JSON"),
        ("squad", "\xff", "is not JSON"),
        ("squad", json.dumps(SQUAD), "no answerable question"),
        ("squad", json.dumps(SQUAD).replace('"qas": []', f'"qas": [{json.dumps(QA)}]'), "a single document"),
        ("squad", json.dumps(SQUAD).replace('"qas"', '"other"'), "not in the published form: KeyError: 'qas'"),
        ("squad", '{"data": 3}', "not in the published form: TypeError"),
        ("squad", json.dumps(SQUAD).replace('"qas": []', f'"qas": [{json.dumps(QA | {"question": 3})}]'), "question"),
        ("hotpotqa", json.dumps([ROW]), "a single document"),
        ("hotpotqa", json.dumps([ROW | {"supporting_facts": [["other", 0]]}]), "gold"),
        ("hotpotqa", json.dumps([ROW | {"context": [["t"]]}]), "not in the published form: ValueError"),
        ("hotpotqa", json.dumps([ROW, 3]), "not in the published form: TypeError"),
    ],
)
def test_broken_data_is_refused(
    name: str, content: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "dev.json").write_bytes(content.encode("latin-1"))
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=reason):
        made({"squad": "qa_1", "hotpotqa": "qa_2"}[name])


@pytest.mark.parametrize(("task", "name"), [("qa_1", "squad"), ("qa_2", "hotpotqa")])
def test_without_data_the_error_names_the_variable(
    task: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: Any, **options: Any) -> Any:
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", offline)
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=f"set QUANTGATE_DATA to a folder with {name}/.*ConnectionError: no network"):
        made(task)


def test_the_hub_is_read_where_there_is_no_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's rows are the published files, flattened; what is made of them is the same."""
    local = squad(), hotpotqa()
    rows = []
    for row in json.loads((data / "hotpotqa" / "dev.json").read_text("utf-8")):
        context = {"title": [t for t, _ in row["context"]], "sentences": [s for _, s in row["context"]]}
        facts = {"title": [t for t, _ in row["supporting_facts"]], "sent_id": [n for _, n in row["supporting_facts"]]}
        rows.append({"id": row["_id"], "question": row["question"], "answer": row["answer"]})
        rows[-1] |= {"context": context, "supporting_facts": facts}
    flat = list(_squad_flat(json.loads((data / "squad" / "dev.json").read_text("utf-8"))))
    hub = {("rajpurkar/squad_v2", None): flat, ("hotpotqa/hotpot_qa", "distractor"): rows}

    def load_dataset(name: str, subset: str | None = None, *, split: str) -> Any:
        assert split == "validation"
        return hub[name, subset]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path / "elsewhere"))
    assert (squad(), hotpotqa()) == local


@pytest.mark.skipif(not (REAL / "squad").exists(), reason="no squad and hotpotqa in QUANTGATE_DATA")
def test_the_real_data_sets_are_read(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_DATA", str(REAL))
    for item in ruler(lengths=(4096,), tasks=("qa_1", "qa_2"), per_task=3).items(tokenizer):
        assert any(answer in text_of(item.prompt) for answer in item.target) or set(item.target) & {"yes", "no"}
