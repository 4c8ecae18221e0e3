"""Two folders that lm-eval wrote with --log_samples as samples: a record for each document and filter."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.contract.errors import BadInput
from harness.contract.samples import ROLES, PairKey, Sample
from harness.offline.lm_eval_aggregates import disagreements, documents_asked
from harness.offline.lm_eval_files import Folder
from harness.offline.lm_eval_groups import NAME, Group, Mean, find_groups
from harness.offline.lm_eval_metrics import (
    OF_A_CORPUS,
    PREFERRED,
    Choice,
    Listed,
    choose,
    direction,
    is_length,
    no_score,
)
from harness.offline.lm_eval_records import Record, Wanted, read_records
from harness.offline.lm_eval_settings import LmEvalSettings, TaskSettings
from harness.offline.results import Results, result_sample, score_in_unit_interval, shown

SUITE = "lm_eval"
"""Of tasks that are judged by themselves. A group is a suite of its own."""
NOT_RUN = -1
"""What RULER's records hold for lengths other than their own."""


class Rows(NamedTuple):
    """The records of one task and filter."""

    task: str
    filter: str
    sides: tuple[list[Record], list[Record]]
    """Of reference and candidate; empty where a folder has none."""
    settings: TaskSettings


class Judged(NamedTuple):
    """One metric of a task."""

    rows: Rows
    choice: Choice


def read_lm_eval(
    reference: Path, candidate: Path, settings: LmEvalSettings | None = None, texts: bool = False
) -> Results:
    """The records of two folders as samples; a task that only one folder has is missing on the other side.

    With `texts` samples hold what was written, for a report.

    Raises:
        BadInput: no samples, ambiguous files, a record that cannot be used, no task in common, or no metric to judge.
        OSError: a file cannot be read.
    """
    settings = settings or LmEvalSettings()
    folders = Folder(reference), Folder(candidate)
    rows = list(_tasks(folders, settings, texts))
    notes: list[str] = []
    groups = find_groups([s for f in folders for s in f.summaries], {r.task for r in rows})
    judged = list(_judged(rows, folders, groups, settings, notes))
    if not judged:
        raise BadInput(f"nothing can be judged: {'; '.join(notes)}")
    labels = _labels(judged)
    suites, pooled = _suites(judged, [] if settings.per_task else groups)
    samples: list[Sample] = []
    lacking: list[PairKey] = []
    prompts: dict[PairKey, str] = {}
    for one, label, suite in zip(judged, labels, suites, strict=True):
        made = list(_samples(one, label, suite))
        if not made:
            notes.append(f"{one.rows.task}: length {one.choice.metric} was not run")
        elif any(sample.cluster for sample in made):
            shared = len({sample.cluster for sample in made})
            notes.append(f"{one.rows.task}: its items share {shared:,} passages and are drawn with them: wider bounds")
        samples += made
        if texts:
            for sample, row in zip(made, (r for side in one.rows.sides for r in _run(side, one)), strict=True):
                prompts.setdefault(sample.key.pair, row.prompt)
        asked = 0
        for folder, side in zip(folders, one.rows.sides, strict=True):
            of_side = one.rows.task, one.rows.filter, one.choice.metric, _run(side, one)
            notes += disagreements(folder, *of_side)
            asked = max(asked, documents_asked(folder, *of_side))
        lacking += _lacking(made, label, suite, asked)
    planned: dict[PairKey, str | None] = dict.fromkeys([*(sample.key.pair for sample in samples), *lacking])
    pooled = {suite: mean for suite, mean in pooled.items() if any(key[0] == suite for key in planned)}
    models = [folder.model or str(folder.path) for folder in folders]
    of_groups = {group.name: group.tasks for group in groups}
    return Results(samples, planned, pooled, of_groups, tuple(dict.fromkeys(notes)), prompts, (models[0], models[1]))


def _tasks(folders: tuple[Folder, Folder], settings: LmEvalSettings, texts: bool) -> Iterator[Rows]:
    """Every task and filter that a folder has, those that the settings leave out excepted."""
    tasks = [folder.samples.keys() for folder in folders]
    if not tasks[0] & tasks[1]:
        raise BadInput(
            f"no task in common: {folders[0].path} has {_listed(tasks[0])}; {folders[1].path} has {_listed(tasks[1])}"
        )
    for task in sorted(tasks[0] | tasks[1]):
        of_task = next((s for name, s in settings.tasks.items() if fnmatch.fnmatchcase(task, name)), TaskSettings())
        wanted = Wanted(of_task.cluster, texts)
        read = [read_records(f.samples[task].path, wanted) if task in f.samples else {} for f in folders]
        filters = sorted(read[0].keys() | read[1].keys())
        if of_task.filter is not None and of_task.filter not in filters:
            raise BadInput(f"task {task} has no filter {shown(of_task.filter)}; it has {_listed(filters)}")
        for name in filters if of_task.filter is None else [of_task.filter]:
            yield Rows(task, name, (read[0].get(name, []), read[1].get(name, [])), of_task)


def _judged(
    rows: Sequence[Rows],
    folders: tuple[Folder, Folder],
    groups: Sequence[Group],
    settings: LmEvalSettings,
    notes: list[str],
) -> Iterator[Judged]:
    """What is judged of each task; what is not goes into `notes`."""
    _require_known(rows, settings)
    for one in rows:
        common = _common(one)
        why = {metric: _no_score(one, metric) for metric in common}
        scores = [metric for metric in common if why[metric] is None]
        asked = one.settings.metric or (settings.metric if settings.metric in common else None)
        if asked is not None and why.get(asked):
            raise BadInput(f"task {one.task}: {why[asked]}; name another metric")
        if one.settings.metric is None and settings.metric and settings.metric not in common and scores:
            notes.append(f"{one.task} has no {shown(settings.metric)}: judged by a metric of its own")
        if not scores:
            notes.append(f"{one.task} is not judged: {_why_not(why)}")
            continue
        if lost := _of_one_side(one):
            notes.append(f"{one.task}: only one side has {', '.join(lost)}: not judged by it")
        of_group = next((group.metrics for group in groups if one.task in group.tasks), ())
        for metric in choose(one.task, scores, asked, of_group):
            said = [folder.results(one.task) for folder in folders]
            yield Judged(one, Choice(metric, direction(one.task, metric, said, one.settings.better)))


def _why_not(why: Mapping[str, str | None]) -> str:
    """The reasons of a task's metrics, those that share one together."""
    of_a_corpus = [metric for metric in why if OF_A_CORPUS.fullmatch(metric)]
    reasons = [f"of {', '.join(of_a_corpus)} a single document has no score from 0 to 1"] if of_a_corpus else []
    reasons += [reason for metric, reason in why.items() if reason and metric not in of_a_corpus]
    return "; ".join(reasons) or "it has no metric"


def _require_known(rows: Sequence[Rows], settings: LmEvalSettings) -> None:
    """Raises BadInput for a metric that is asked for and that no task has."""
    for one in rows:
        asked = one.settings.metric
        if asked is not None and asked not in _common(one):
            raise BadInput(f"task {one.task} has no metric {shown(asked)}; it has {_listed(_common(one))}")
    if settings.metric is not None and not any(settings.metric in _common(one) for one in rows):
        first = rows[0]
        raise BadInput(f"task {first.task} has no metric {shown(settings.metric)}; it has {_listed(_common(first))}")


def _common(rows: Rows) -> list[str]:
    """Metrics that both sides have, in the reference's order; of RULER each length that a side has."""
    sides = [dict.fromkeys(name for row in side for name in row.values) for side in rows.sides if side]
    return [
        name for name in dict.fromkeys(n for s in sides for n in s) if is_length(name) or all(name in s for s in sides)
    ]


def _of_one_side(rows: Rows) -> list[str]:
    """Preferred metrics that one side lacks: the task is judged by another one, which must not go unsaid."""
    sides = [{*side[0].values} for side in rows.sides if side]
    lost = {name for names in sides for name in names if not all(name in others for others in sides)}
    return sorted(name for name in lost if name in PREFERRED or name == "acc_norm")


def _no_score(rows: Rows, metric: str) -> str | None:
    """Decided by the reference alone: a candidate's odd value is refused, and leaves nothing out."""
    side = rows.sides[0] or rows.sides[1]
    first = next((row for row in side if metric in row.values), None)
    return no_score(metric, first.values[metric], first.where) if first else None


def _labels(judged: Sequence[Judged]) -> list[str]:
    """A task with its metric, and with its filter where it has several."""
    filters = Counter(task for task, _ in {(one.rows.task, one.rows.filter) for one in judged})
    return [
        f"{one.rows.task} ({one.rows.filter}, {one.choice.label})"
        if filters[one.rows.task] > 1
        else f"{one.rows.task} ({one.choice.label})"
        for one in judged
    ]


def _suites(judged: Sequence[Judged], groups: Sequence[Group]) -> tuple[list[str], dict[str, Mean]]:
    """The suite of each judged metric: its group, for each length and filter one, or SUITE; and which are pooled.

    A group of one is none.
    """
    names = [_pool(one, judged, groups) for one in judged]
    sizes = Counter(names)
    suites = [name if name and sizes[name] > 1 else SUITE for name in names]
    means = {group.name: group.mean or "items" for group in groups}
    return suites, {name: means[name.partition("@")[0]] for name in suites if name != SUITE}


def _pool(one: Judged, judged: Sequence[Judged], groups: Sequence[Group]) -> str | None:
    group = next((group for group in groups if one.rows.task in group.tasks), None)
    if group is None:
        return None
    filters = [{o.rows.filter for o in judged if o.rows.task == task} for task in group.tasks]
    name = group.name
    if is_length(one.choice.metric):
        name += f"@{one.choice.metric}"
    elif any(len(of_task) > 1 for of_task in filters):
        name += f"@{one.rows.filter}"
    return name if NAME.fullmatch(name.replace("@", "-")) and name != SUITE else None


def _run(side: Sequence[Record], one: Judged) -> list[Record]:
    """The records that are of this metric: of RULER those of its length."""
    if not is_length(one.choice.metric):
        return list(side)
    return [row for row in side if row.values.get(one.choice.metric, NOT_RUN) != NOT_RUN]


def _samples(one: Judged, label: str, suite: str) -> Iterator[Sample]:
    sides = [_run(side, one) for side in one.rows.sides]
    repeated = _repeated(sides)
    passages = _shared(sides)
    for role, side in zip(ROLES, sides, strict=True):
        for row in side:
            item = f"{row.doc_hash}#{row.doc_id}" if row.doc_hash in repeated else row.doc_hash
            cluster = row.passage if passages else None
            score = _score(row, one.choice)
            yield result_sample(role, suite, label, item, row.asked, score, cluster=cluster, text=row.text)


def _lacking(made: Sequence[Sample], label: str, suite: str, asked: int) -> list[PairKey]:
    """Pairs of documents that were asked and that neither side has: nobody knows which they are."""
    there = len({sample.item for sample in made})
    return [(suite, label, f"lacking {number}", 0) for number in range(1, asked - there + 1)] if made else []


def _repeated(sides: Sequence[Sequence[Record]]) -> set[str]:
    """doc_hashes that a side has more than once: real sets hold the same text twice. These pair by doc_id too."""
    counts = [Counter(row.doc_hash for row in side) for side in sides]
    return {doc_hash for count in counts for doc_hash, times in count.items() if times > 1}


def _shared(sides: Sequence[Sequence[Record]]) -> bool:
    """Whether documents share passages."""
    return any(len({row.passage for row in side}) < len(side) and side[0].passage is not None for side in sides if side)


def _score(row: Record, choice: Choice) -> float:
    if choice.metric not in row.values:
        raise BadInput(f"{row.where}: no {choice.metric}")
    value, what = row.values[choice.metric], f"{row.where}: {choice.metric}"
    if isinstance(value, Listed):
        raise BadInput(f"{what} is {value.shown}; a score is a number from 0 to 1")
    score = score_in_unit_interval(value, what)
    return score if choice.better == "higher" else 1.0 - score


def _listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    found = sorted(names)
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return (", ".join(found[:8]) or "none") + more
