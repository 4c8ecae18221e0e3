"""Where lm-eval's files lie, and what is read of them: samples (a record each document) and results (aggregates).

    OUT/<model>/samples_<task>_<time>.jsonl      what lm-eval 0.4.3 and newer write; results_<time>.json beside it
    OUT/<task>/<model>/samples_…, OUT/<task>/samples_…, OUT/samples_…      one call for each task, files laid together

`.jsonl.gz` is what people pack them into. `samples_<task>_<time>.json` is older: an array, or records line by line.
lm-eval 0.4.0 to 0.4.2 wrote `<model arguments>_<task>.jsonl`, an array, and one results.json, which names the tasks.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from harness.contract.errors import BadInput
from harness.contract.whole_files import read_json
from harness.offline import results
from harness.offline.results import numbered_lines, plain_name, shown

DEPTH = 4
"""Folders below the one that was named that are looked into."""
STAMP = r"\d{4}-\d\d-\d\dT[0-9.-]*\d"
FILE_NAME = re.compile(rf"samples_(?P<task>.+?)(?:_(?P<stamp>{STAMP}))?\.jsonl?(?:\.gz)?")
RESULTS_NAME = re.compile(rf"(?!samples_).*_{STAMP}\.json|results\.json")


OLD_NAME = re.compile(r"(?!samples_)(?:pretrained|model|engine|base_url|path)(?:=|__)(?P<rest>.+)\.jsonl(?:\.gz)?")
"""By lm-eval 0.4.0 to 0.4.2: "pretrained__org__model,dtype__float_gsm8k.jsonl"."""


class SampleFile(NamedTuple):
    """One task's records."""

    path: Path
    task: str
    stamp: str | None


class Folder:
    """The files that lm-eval wrote of one model.

    Raises:
        BadInput: no samples, two runs of a task, or two models.
        OSError: a folder cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples = _sample_files(path)
        self._results = {file.path: _beside(file) for file in self.samples.values()}
        self._read: dict[Path, dict[str, Any]] = {}
        self._require_one_model()

    def results(self, task: str) -> Mapping[str, Any]:
        """What lm-eval summed up when it ran a task; empty where that is not beside its samples. Raises BadInput."""
        path = self._results[self.samples[task].path] if task in self.samples else None
        if path is None:
            return {}
        if path not in self._read:
            self._read[path] = read_json(path, results.MAX_BYTES)
        return self._read[path]

    def results_path(self, task: str) -> Path | None:
        return self._results[self.samples[task].path]

    @cached_property
    def summaries(self) -> list[Mapping[str, Any]]:
        """Every results file that belongs to samples, once."""
        for task in self.samples:
            self.results(task)
        return list(self._read.values())

    @property
    def model(self) -> str | None:
        """What lm-eval calls the model, where it says so."""
        said = (summary.get("model_name") for summary in self.summaries)
        return next((shown(name)[1:-1] for name in said if isinstance(name, str) and name.strip()), None)

    def _require_one_model(self) -> None:
        """Two models in one folder are a choice that is not ours to make.

        Which model it was say the results; without them the folder, which lm-eval names by the model. A folder may
        also be named by the task, where one called lm-eval for each.
        """
        said: dict[str, Path] = {}
        silent: dict[str, Path] = {}
        named: set[str] = set()
        for task, file in self.samples.items():
            folder, model = file.path.parent, self.results(task).get("model_name")
            if isinstance(model, str) and model:
                said.setdefault(model, folder)
                named.add(folder.name)
            elif not task.startswith(folder.name) and not folder.name.startswith(task):
                silent.setdefault(folder.name, folder)
        others = [*said.values(), *(folder for name, folder in silent.items() if name not in named)]
        if len(others) > 1:
            which = f" ({' and '.join(map(shown, list(said)[:2]))})" if len(said) > 1 else ""
            raise BadInput(
                f"{self.path} holds samples of two models, {others[0]} and {others[1]}{which}: name one of them"
            )


def has_lm_eval_files(folder: Path) -> bool:
    """Whether lm-eval seems to have written here: samples or results, in the folder or below."""
    names = (FILE_NAME, OLD_NAME)
    return any(any(n.fullmatch(path.name) for n in names) or path.match("results_*.json") for path in _walk(folder))


def _walk(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Files in the folder and below; hidden folders are passed over.

    Not by glob, which takes a folder that cannot be read for an empty one.
    """
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            yield path
        elif depth and not path.name.startswith("."):
            yield from _walk(path, depth - 1)


def _sample_files(folder: Path) -> dict[str, SampleFile]:
    """Task -> its one samples file. Two runs of a task are a choice that is not ours to make."""
    found: dict[str, SampleFile] = {}
    for path in _walk(folder):
        match = FILE_NAME.fullmatch(path.name)
        if match is None and not OLD_NAME.fullmatch(path.name):
            continue
        named = match["task"] if match else _task_of_old_name(path)
        task = plain_name(named, f"{shown(path.name)}: task")
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is not a file")
        if task in found:
            one, other = found[task].path.relative_to(folder), path.relative_to(folder)
            if one.parent == other.parent:
                raise BadInput(f"{folder} holds two runs of {task}, {one.name} and {other.name}: keep one of them")
            raise BadInput(f"{folder} holds two runs of {task}, {one} and {other}: keep one, or name one's folder")
        found[task] = SampleFile(path, task, match["stamp"] if match else None)
    if not found:
        raise BadInput(f"{folder}: no samples_<task>_<timestamp>.jsonl; run lm-eval with --log_samples")
    return found


def _task_of_old_name(path: Path) -> str:
    """The task at the end of an old name: model and task have the same signs in them, so the results beside it tell."""
    there = _results_files(path.parent)
    said = [read_json(file, results.MAX_BYTES).get("configs") for file in there]
    tasks = {task for configs in said if isinstance(configs, dict) for task in configs if isinstance(task, str)}
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    ending = [task for task in tasks if stem.endswith(f"_{task}")]
    if not ending:
        raise BadInput(
            f"{path}: lm-eval 0.4.2 and older name samples by model and task, and no results.json beside it names "
            "this task: put it there, or rename the file to samples_<task>.jsonl"
        )
    return max(ending, key=len)


def _results_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if RESULTS_NAME.fullmatch(path.name)]


def _beside(file: SampleFile) -> Path | None:
    """The results of the same call, by the time in their name; of an older lm-eval the only ones of the folder."""
    there = _results_files(file.path.parent)
    if file.stamp is not None:
        return next((path for path in there if path.stem.endswith(f"_{file.stamp}")), None)
    return there[0] if len(there) == 1 else None


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where it stands, record) of one samples file, plain or packed: JSON lines, or one array.

    Raises:
        BadInput: a record that is too long or no JSON object, a broken archive; with file and line.
        OSError: the file cannot be read.
    """
    with path.open("rb") as plain:
        file: Any = gzip.GzipFile(fileobj=plain) if path.suffix == ".gz" else plain
        try:
            first = file.read(4096).lstrip()[:1]
            file.seek(0)
            if first == b"[":
                yield from _array(file, path)
            else:
                yield from ((f"{path}:{number}", found) for number, found in numbered_lines(file, path))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadInput(f"{path}: cannot be unpacked ({error}); pack or copy it again") from None


def _array(file: BinaryIO, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of one array, read piece by piece: such a file holds a whole task."""
    decoder, text, at, count = json.JSONDecoder(), codecs.getreader("utf-8")(file), 0, 0
    size = 1 << 20
    try:
        rest, at = text.read(size).lstrip(), 1
        while True:
            at = _past(rest, at)
            where = f"{path}: record {count + 1}"
            if at < len(rest) and rest[at] == "]":
                return
            try:
                found, at = decoder.raw_decode(rest, at)
            except (ValueError, RecursionError) as error:
                more = text.read(size)
                if not more or isinstance(error, RecursionError):
                    raise BadInput(f"{where}: not JSON: {error}") from None
                if len(rest) - at > results.MAX_BYTES:
                    raise BadInput(f"{where}: longer than {results.MAX_BYTES // 2**20} MiB") from None
                rest, at, size = rest[at:] + more, 0, 2 * size  # twice as much each time: long records are not slow
                continue
            if not isinstance(found, dict):
                raise BadInput(f"{where}: expected an object, found {type(found).__name__}")
            count += 1
            yield where, found
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: record {count + 1}: not JSON: {error}") from None


def _past(text: str, at: int) -> int:
    """The place after spaces and one comma."""
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at
