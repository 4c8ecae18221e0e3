"""Two folders that lm-eval wrote with --log_samples as samples: `samples_<task>_<timestamp>.jsonl`, a record a line.

lm-eval logs one record for each document and filter. Records pair by task, filter and doc_hash.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.contract.errors import BadInput
from harness.contract.samples import ROLES, PairKey, Sample, sha256_of
from harness.contract.whole_files import read_json
from harness.offline.results import (
    MAX_BYTES,
    Results,
    json_lines,
    plain_name,
    result_sample,
    score_in_unit_interval,
    shown,
)

SUITE = "lm_eval"
PREFERRED = ("exact_match", "acc")
"""Where a task has several metrics and none is asked for: the first of these that it has."""
LOWER_IS_BETTER = frozenset(
    ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "mse", "ter", "wer", "cer")
)
"""Metrics refused by name: where lm-eval's own results are not beside the samples, nothing else tells."""
FILE_NAME = re.compile(r"samples_(?P<task>.+?)(?:_(?P<stamp>\d{4}-\d\d-\d\dT[0-9.-]+))?\.jsonl")


class Record(NamedTuple):
    """What is kept of one record."""

    path: Path
    line: int
    doc_id: str
    doc_hash: str
    asked: str
    """sha256 of all that must be equal in a pair: prompt, target and generation settings."""
    metrics: tuple[str, ...]
    values: dict[str, Any]

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


TaskFilter = tuple[str, str]
"""Task and filter."""
Side = dict[TaskFilter, list[Record]]


def read_lm_eval(reference: Path, candidate: Path, metric: str | None = None) -> Results:
    """The records of two folders as samples; a task that only one folder has is missing on the other side.

    The metric of a task is `metric`, or its only one, or the first of PREFERRED.

    Raises:
        BadInput: no samples, ambiguous files, a record that cannot be used, no task in common, or no such metric.
        OSError: a file cannot be read.
    """
    sides = [_read_folder(path, metric) for path in (reference, candidate)]
    tasks = [{task for task, _ in side} for side in sides]
    if not tasks[0] & tasks[1]:
        raise BadInput(f"no task in common: {reference} has {_listed(tasks[0])}; {candidate} has {_listed(tasks[1])}")
    groups = sorted(sides[0].keys() | sides[1].keys())
    filters = Counter(task for task, _ in groups)
    samples: list[Sample] = []
    for task, name in groups:
        rows = [side.get((task, name), []) for side in sides]
        chosen = _choose_metric(task, [r[0].metrics for r in rows if r], metric)
        for path in {r[0].path for r in rows if r}:
            _require_higher_is_better(task, chosen, path)
        label = f"{task} ({name}, {chosen})" if filters[task] > 1 else f"{task} ({chosen})"
        repeated = _repeated(rows)
        for role, side_rows in zip(ROLES, rows, strict=True):
            for row in side_rows:
                item = f"{row.doc_hash}#{row.doc_id}" if row.doc_hash in repeated else row.doc_hash
                samples.append(result_sample(role, SUITE, label, item, row.asked, _score(row, chosen)))
    planned: dict[PairKey, str | None] = {sample.key.pair: None for sample in samples}
    return Results(samples, planned)


def has_lm_eval_files(folder: Path) -> bool:
    """Whether lm-eval seems to have written here: samples or results, in the folder or in one of its subfolders."""
    return bool(_files(folder, "samples_*.jsonl") or _files(folder, "results_*.json"))


def _files(folder: Path, pattern: str) -> list[Path]:
    """Files in the folder, or one below: lm-eval puts a folder with the model's name between.

    Not by glob, which takes a folder that cannot be read for an empty one.
    """
    folders = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    return sorted(path for each in folders for path in each.iterdir() if fnmatch.fnmatchcase(path.name, pattern))


def _read_folder(folder: Path, metric: str | None) -> Side:
    side: Side = {}
    for task, path in _sample_files(folder).items():
        count = 0
        for row_filter, row in _rows(path, metric):
            side.setdefault((task, row_filter), []).append(row)
            count += 1
        if count == 0:
            raise BadInput(f"{path}: no record is in it")
    return side


def _sample_files(folder: Path) -> dict[str, Path]:
    """Task -> its one samples file. Two runs of a task, or two models, are a choice that is not ours to make."""
    paths = _files(folder, "samples_*.jsonl")
    if not paths:
        raise BadInput(f"{folder}: no samples_<task>_<timestamp>.jsonl; run lm-eval with --log_samples")
    other = next((path for path in paths if path.parent != paths[0].parent), None)
    if other:
        raise BadInput(f"{folder} holds samples of two models, {paths[0].parent} and {other.parent}: name one of them")
    found: dict[str, Path] = {}
    for path in paths:
        match = FILE_NAME.fullmatch(path.name)
        task = plain_name(match and match["task"], f"{shown(path.name)}: task")
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is not a file")
        if task in found:
            raise BadInput(f"{folder} holds two runs of {task}, {found[task].name} and {path.name}: keep one of them")
        found[task] = path
    return found


def _rows(path: Path, metric: str | None) -> Iterator[tuple[str, Record]]:
    """Yield (filter, row) of one file, each filter and document once."""
    seen: dict[tuple[str, str, str], int] = {}
    for line, record in json_lines(path):
        where = f"{path}:{line}"
        lacking = [key for key in ("doc_id", "doc_hash", "prompt_hash") if record.get(key) is None]
        if lacking:
            raise BadInput(f"{where}: no {', '.join(lacking)}; --log_samples of lm-eval 0.4.3 and newer writes them")
        row_filter = plain_name(record.get("filter", "none"), f"{where}: filter")
        doc_hash = plain_name(record["doc_hash"], f"{where}: doc_hash")
        doc_id = plain_name(_text(record["doc_id"]), f"{where}: doc_id")
        key_of_row = (row_filter, doc_hash, doc_id)
        if key_of_row in seen:
            raise BadInput(f"{where}: the same document and filter as line {seen[key_of_row]}")
        seen[key_of_row] = line
        metrics = _metrics(record, metric, where)
        values = {name: record[name] for name in metrics if name in record}
        yield row_filter, Record(path, line, doc_id, doc_hash, _asked(record, where), metrics, values)


def _text(doc_id: object) -> object:
    return str(doc_id) if isinstance(doc_id, int) else doc_id


def _metrics(record: Mapping[str, Any], metric: str | None, where: str) -> tuple[str, ...]:
    listed = record.get("metrics")
    if listed is None:  # an older lm-eval does not list them
        listed = [name for name in dict.fromkeys([*PREFERRED, metric]) if name in record]
    if not isinstance(listed, list):
        raise BadInput(f"{where}: metrics is {shown(listed)}, no list")
    return tuple(plain_name(name, f"{where}: metric") for name in listed)


def _asked(record: Mapping[str, Any], where: str) -> str:
    """lm-eval's prompt_hash covers the prompt alone; another target or other settings make other scores as well."""
    prompt = plain_name(record["prompt_hash"], f"{where}: prompt_hash")
    arguments = record.get("arguments")
    first = arguments.get("gen_args_0") if isinstance(arguments, dict) else None
    settings = first.get("arg_1") if isinstance(first, dict) else None
    target = record.get("target_hash")
    return sha256_of([prompt, target, settings if isinstance(settings, dict) else None])


def _choose_metric(task: str, listed: Sequence[tuple[str, ...]], metric: str | None) -> str:
    common = [name for name in listed[0] if all(name in names for names in listed)]
    if metric is None:
        metric = common[0] if len(common) == 1 else next((name for name in PREFERRED if name in common), None)
        if metric is None:
            raise BadInput(f"task {task} has {_listed(common)}: choose with --metric")
    elif metric not in common:
        raise BadInput(f"task {task} has no metric {shown(metric)}; it has {_listed(common)}")
    return metric


def _require_higher_is_better(task: str, metric: str, samples: Path) -> None:
    """Raises BadInput for a metric of which more is worse: a loss would count as a gain."""
    lower = metric in LOWER_IS_BETTER
    match = FILE_NAME.fullmatch(samples.name)
    for path in samples.parent.glob(f"*_{match['stamp']}.json") if match and match["stamp"] else ():
        tasks = read_json(path, MAX_BYTES).get("higher_is_better")
        known = tasks.get(task) if isinstance(tasks, dict) else None
        lower = lower or (isinstance(known, dict) and known.get(metric) is False)
    if lower:
        raise BadInput(f"task {task}: less {metric} is better; choose a score from 0 to 1 with --metric")


def _repeated(rows: Sequence[Sequence[Record]]) -> set[str]:
    """doc_hashes that a side has more than once: real sets hold the same text twice. These pair by doc_id too."""
    counts = [Counter(row.doc_hash for row in side) for side in rows]
    return {doc_hash for count in counts for doc_hash, times in count.items() if times > 1}


def _score(row: Record, metric: str) -> float:
    if metric not in row.values:
        raise BadInput(f"{row.where}: no {metric}")
    return score_in_unit_interval(row.values[metric], f"{row.where}: {metric}")


def _listed(names: Sequence[str] | set[str]) -> str:
    """The first names, and how many more there are."""
    first = sorted(names)[:8]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(first) or "none") + more
