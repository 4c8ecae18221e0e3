"""One record of lm-eval: a document, what was asked, and the value of every metric. By any version since 0.4.0."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.contract.errors import BadInput
from harness.contract.samples import sha256_of
from harness.offline.lm_eval_files import records
from harness.offline.lm_eval_metrics import Listed
from harness.offline.results import plain_name, shown

NO_METRICS = {"doc_id", "doc", "doc_hash", "target", "target_hash", "arguments", "prompt_hash", "filter", "metrics"}
NO_METRICS |= {"resps", "filtered_resps"}
"""Keys of a record that are none. What else is there is one, where the record does not list them."""
PASSAGES = ("passage", "flores_passage", "article", "context", "story", "paragraph")
"""Fields of a document that several questions may share (boolq, belebele, race, squad, coqa, drop)."""
MOST_TEXT = 20_000
"""Characters of a prompt or an answer that are kept for the report."""


class Record(NamedTuple):
    """What is kept of one record."""

    where: str
    """File and line."""
    doc_id: str
    doc_hash: str
    asked: str
    """sha256 of all that must be equal in a pair: prompt, target and generation settings."""
    values: dict[str, Any]
    """By metric. Texts are cut short, lists are `Listed`: neither is a score."""
    passage: str | None = None
    """sha256 of the text that other documents may share."""
    prompt: str = ""
    text: str = ""
    """What the model wrote; of a choice by log-likelihood, these."""


class Wanted(NamedTuple):
    """What is to be kept of a task's records."""

    passage: str | None = None
    """The field of a document that several share; None: the first of PASSAGES that is there, "": none."""
    texts: bool = False


def read_records(path: Path, wanted: Wanted) -> dict[str, list[Record]]:
    """The records of one file by filter, each filter and document once.

    Raises:
        BadInput: a record that cannot be used, with file and line; none at all.
        OSError: the file cannot be read.
    """
    found: dict[str, list[Record]] = {}
    seen: dict[tuple[str, str, str], str] = {}
    times: dict[tuple[str, str], int] = {}
    for where, record in records(path):
        row = _record(record, where, wanted)
        document = row.doc_hash, row.doc_id
        times[document] = times.get(document, 0) + 1
        if "filter" in record:
            row_filter = plain_name(record["filter"], f"{where}: filter")
        else:  # before 0.4.6 the filters' records follow each other without their names
            row_filter = "none" if times[document] == 1 else f"filter {times[document]}"
        before = seen.setdefault((row_filter, *document), where)
        if before != where:
            raise BadInput(f"{where}: the same document and filter as {_line(before)}")
        found.setdefault(row_filter, []).append(row)
    if not found:
        raise BadInput(f"{path}: no record is in it")
    if "filter 2" in found:
        found["filter 1"] = found.pop("none")
    return found


def _line(where: str) -> str:
    place = where.rpartition(":")[2].strip()
    return f"line {place}" if place.isdigit() else place


def _record(record: Mapping[str, Any], where: str, wanted: Wanted) -> Record:
    hashes = _hashes(record, where)
    doc_id = record["doc_id"]
    names = _metrics(record, where)
    return Record(
        where,
        plain_name(str(doc_id) if isinstance(doc_id, int) else doc_id, f"{where}: doc_id"),
        plain_name(hashes["doc_hash"], f"{where}: doc_hash"),
        _asked(record, hashes, where),
        {name: _value(record[name]) for name in names if name in record},
        _passage(record.get("doc"), wanted.passage, where),
        _prompt(record) if wanted.texts else "",
        _text(record) if wanted.texts else "",
    )


def _hashes(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The hashes that lm-eval writes since 0.4.3; of older records, made as it makes them."""
    found = {key: record.get(key) for key in ("doc_id", "doc_hash", "prompt_hash", "target_hash")}
    prompt = _argument(record, 0)
    if found["doc_hash"] is None and "doc" in record:
        found["doc_hash"] = _sha256(json.dumps(record["doc"], indent=2, ensure_ascii=False))
        if found["prompt_hash"] is None and isinstance(prompt, str):
            found["prompt_hash"] = _sha256(prompt)
        if found["target_hash"] is None and "target" in record:
            found["target_hash"] = _sha256(str(record["target"]))
    lacking = [key for key in ("doc_id", "doc_hash", "prompt_hash") if found[key] is None]
    if lacking:
        raise BadInput(f"{where}: no {', '.join(lacking)}; --log_samples of lm-eval 0.4.3 and newer writes them")
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _argument(record: Mapping[str, Any], place: int, request: int = 0) -> Any:
    """An argument of a request: 0 is the prompt, 1 the settings of a generation or the text that is scored."""
    arguments = record.get("arguments")
    if isinstance(arguments, dict):
        of_request = arguments.get(f"gen_args_{request}")
        return of_request.get(f"arg_{place}") if isinstance(of_request, dict) else None
    try:  # older: lists
        return arguments[request][place]  # type: ignore[index]
    except (TypeError, IndexError, KeyError):
        return None


def _asked(record: Mapping[str, Any], hashes: Mapping[str, Any], where: str) -> str:
    """lm-eval's prompt_hash covers the prompt alone; another target or other settings make other scores as well."""
    prompt, settings = plain_name(hashes["prompt_hash"], f"{where}: prompt_hash"), _argument(record, 1)
    return sha256_of([prompt, hashes["target_hash"], settings if isinstance(settings, dict) else None])


def _metrics(record: Mapping[str, Any], where: str) -> list[str]:
    listed = record.get("metrics")
    if listed is None:  # an older lm-eval does not list them
        listed = [name for name in record if name not in NO_METRICS]
    if not isinstance(listed, list):
        raise BadInput(f"{where}: metrics is {shown(listed)}, no list")
    return [plain_name(name, f"{where}: metric") for name in dict.fromkeys(map(_hashable, listed))]


def _hashable(name: object) -> object:
    return name if isinstance(name, str) else shown(name)


def _value(value: Any) -> Any:
    if isinstance(value, list | dict):
        return Listed(shown(value))
    return value[:60] if isinstance(value, str) else value


def _passage(doc: object, field: str | None, where: str) -> str | None:
    if field == "" or not isinstance(doc, dict):
        if field:
            raise BadInput(f"{where}: no doc, so no {shown(field)} to group documents by")
        return None
    if field is None:
        field = next((name for name in PASSAGES if isinstance(doc.get(name), str)), None)
    elif field not in doc:
        raise BadInput(f"{where}: its doc has no {shown(field)}; it has {', '.join(map(shown, list(doc)[:8]))}")
    return None if field is None else sha256_of(doc[field])[:16]


def _prompt(record: Mapping[str, Any]) -> str:
    prompt = _argument(record, 0)
    return prompt[-MOST_TEXT:] if isinstance(prompt, str) else ""


def _text(record: Mapping[str, Any]) -> str:
    """What was generated; of a choice, each text with its log-likelihood."""
    return "\n".join(_answers(record))[:MOST_TEXT]


def _answers(record: Mapping[str, Any]) -> Iterator[str]:
    answers = record.get("resps")
    for place, answer in enumerate(answers if isinstance(answers, list) else ()):
        first = answer[0] if isinstance(answer, list) and answer else answer
        if isinstance(first, str):
            yield first
        elif isinstance(first, list) and first:
            yield f"{shown(_argument(record, 1, place))}: {str(first[0])[:20]}"
