"""SQuAD and HotpotQA, for RULER: files of QUANTGATE_DATA, else the hub's data sets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.contract.datasets import PublicDataset, public_dataset
from harness.contract.errors import BadInput
from harness.contract.text import quoted


class QaQuestion(BaseModel):
    """One question with the documents that answer it."""

    model_config = ConfigDict(frozen=True)

    name: str
    question: str = Field(min_length=1)
    answers: tuple[str, ...] = Field(min_length=1)
    """Each of them is right."""
    gold: tuple[str, ...] = Field(min_length=1)
    """Documents that answer it."""
    near: tuple[str, ...]
    """Documents that are about the same without being needed."""


Pool = tuple[tuple[QaQuestion, ...], tuple[str, ...]]
"""Questions, and all documents."""


def squad() -> Pool:
    """SQuAD (Rajpurkar et al. 2016, 2018): its answerable questions; near are the paragraphs of the same article.

    Raises:
        BadInput: no data, or data in another form.
    """
    return _squad(os.environ.get("QUANTGATE_DATA"))


def hotpotqa() -> Pool:
    """HotpotQA with distractors (Yang et al. 2018): two gold paragraphs a question; near are its own distractors.

    Raises:
        BadInput: no data, or data in another form.
    """
    return _hotpotqa(os.environ.get("QUANTGATE_DATA"))


@cache
def _squad(data: str | None) -> Pool:
    dataset = _dataset("qa_1")
    files = _files(data, dataset, lambda content: isinstance(content, dict) and "data" in content)
    if not files:
        return _pool(dataset.hub_id, _squad_rows(_hub(dataset)))
    return _checked(files, lambda content: _squad_rows(_squad_flat(content)))


def _squad_flat(content: Any) -> Iterable[Mapping[str, Any]]:
    """A file of SQuAD as rows, as the hub has them."""
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers = {"text": [] if asked.get("is_impossible") else [a["text"] for a in asked["answers"]]}
                row = {"id": asked["id"], "title": article["title"], "context": paragraph["context"]}
                yield row | {"question": asked["question"], "answers": answers}


def _squad_rows(rows: Iterable[Mapping[str, Any]]) -> list[QaQuestion]:
    rows = list(rows)
    articles: dict[str, dict[str, None]] = {}
    for row in rows:
        articles.setdefault(row["title"], {})[row["context"]] = None
    return [
        QaQuestion(
            name=row["id"],
            question=row["question"],
            answers=tuple(dict.fromkeys(row["answers"]["text"])),
            gold=(row["context"],),
            near=tuple(other for other in articles[row["title"]] if other != row["context"]),
        )
        for row in rows
        if row["answers"]["text"]
    ]


@cache
def _hotpotqa(data: str | None) -> Pool:
    def whole(content: Any) -> bool:
        return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "context" in content[0]

    dataset = _dataset("qa_2")
    files = _files(data, dataset, whole)
    if not files:
        return _pool(dataset.hub_id, _hotpot_rows(map(_hotpot_flat, _hub(dataset))))
    return _checked(files, _hotpot_rows)


def _hotpot_flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the hub as the published file has it."""
    context, facts = row["context"], row["supporting_facts"]
    pairs = {
        "context": list(zip(context["title"], context["sentences"], strict=True)),
        "supporting_facts": list(zip(facts["title"], facts["sent_id"], strict=True)),
    }
    return {"_id": row["id"], "question": row["question"], "answer": row["answer"]} | pairs


def _hotpot_rows(rows: Iterable[Mapping[str, Any]]) -> list[QaQuestion]:
    found = []
    for row in rows:
        needed = {title for title, _ in row["supporting_facts"]}
        documents = {title: f"{title}\n{''.join(sentences)}" for title, sentences in row["context"]}
        gold = tuple(text for title, text in documents.items() if title in needed)
        near = tuple(text for title, text in documents.items() if title not in needed)
        found.append(
            QaQuestion(name=row["_id"], question=row["question"], answers=(row["answer"],), gold=gold, near=near)
        )
    return found


# -- where rows come from ------------------------------------------------------------------------------------


def _dataset(task: str) -> PublicDataset:
    found = public_dataset("ruler", task)
    assert found is not None, task
    return found


def _files(data: str | None, dataset: PublicDataset, fits: Callable[[Any], bool]) -> list[tuple[Path, Any]]:
    """The JSON files of a folder in $QUANTGATE_DATA that have the published form."""
    if not data:
        return []
    found = []
    for path in sorted(Path(data).glob(dataset.file)):
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(f"{path} is not JSON ({error}); mend it or take it away") from error
        if fits(content):
            found.append((path, content))
    return found


def _checked(files: list[tuple[Path, Any]], read: Callable[[Any], list[QaQuestion]]) -> Pool:
    questions: list[QaQuestion] = []
    for path, content in files:
        try:
            questions += read(content)
        except (KeyError, TypeError, ValueError, ValidationError, AttributeError) as error:
            reason = quoted(str(error), 200)
            raise BadInput(f"{path} is not in the published form: {type(error).__name__}: {reason}") from error
    return _pool(", ".join(str(path) for path, _ in files), questions)


def _pool(source: str, questions: list[QaQuestion]) -> Pool:
    if not questions:
        raise BadInput(f"{source}: no answerable question in it")
    documents = dict.fromkeys(text for question in questions for text in (*question.gold, *question.near))
    return tuple(questions), tuple(documents)


def _hub(dataset: PublicDataset) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset

    try:
        rows: Iterable[Mapping[str, Any]] = load_dataset(dataset.hub_id, dataset.config, split=dataset.split)
    except Exception as error:  # every error of a download
        reason = str(error).strip().splitlines()
        raise BadInput(
            f"no {dataset.file.split('/')[0]} data: set QUANTGATE_DATA to a folder with {dataset.file} in its "
            f"published form, or leave its task out; the hub's {dataset.hub_id} cannot be had "
            f"({type(error).__name__}: {reason[0] if reason else ''})"
        ) from error
    return rows
