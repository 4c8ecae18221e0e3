"""Answers that were made elsewhere, scored without a server: by the suite's own `score`, as answers of a server are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from harness.contract.errors import BadInput
from harness.contract.items import ItemRef, index_items, load_item
from harness.contract.policy import Policy, SealedPolicy, load_policy
from harness.contract.samples import Item, Role, Sample, sample_of
from harness.contract.text import quoted
from harness.contract.whole_files import whole_file
from harness.endpoint.answers import Completion, EndpointError, message_fields, require_ended
from harness.offline.answer_files import MOST_LISTED, Answer, by_name, match_answers, name_of, read_answer
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter
from suites.base import ChatSuite
from suites.registry import make_suite

CANNOT_SCORE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a scorer raises on an item of another suite, or an edited one."""


@dataclass(frozen=True)
class TaskSummary:
    """What came of a task's answers. A mean is None when there is nothing to average."""

    answers: int
    score: float | None
    score_completed: float | None
    """Of the answers that ended by themselves (finish_reason "stop"); never to be read without the cap-hit rate."""
    cap_hit_rate: float | None
    """Share that was cut by the budget, of the answers whose finish_reason is known."""
    finish_unknown: int
    unterminated_rate: float | None
    looped_rate: float | None
    null: int
    tool_calls: int
    not_scored: int
    """Nothing at all, calls of tools, thinking that stopped without closing: no answer, and not a wrong one."""
    errors: int
    missing: int


@dataclass(frozen=True)
class OfflineScores:
    """What came of an answers file."""

    suite: str
    role: str
    policy: str
    policy_sha256: str
    tasks: dict[str, TaskSummary]
    all_tasks: TaskSummary
    missing: list[str]
    """Items without an answer: task/id, or task/id/repeat."""
    errors: list[str]
    """Answers that are errors (cut before their budget was used, or longer than it), and why."""


def score_answers(
    suite_name: str,
    items: Path,
    answers: Path,
    reporter: Reporter,
    *,
    sealed: SealedPolicy | None = None,
    role: Role = "candidate",
    out: Path | None = None,
    thinking_opened: bool = False,
) -> OfflineScores:
    """Score answers by the suite's own `score`; the samples go to `out`, whole or not at all.

    `items` is what `quantgate items` wrote, or a run's items/<suite>.jsonl, whose sealed policy is then the default.
    `thinking_opened`: the model's chat template opens the thinking (a run knows that by itself).

    Raises:
        BadInput: a suite that needs a server, items that are broken, or answers that are broken, unknown or there
            twice: nothing is scored then. A missing answer is counted and no fault.
        OSError: `out` cannot be written.
    """
    if out is not None and (out.is_dir() or out.resolve() in (items.resolve(), answers.resolve())):
        raise BadInput(f"--out {out} is a folder or one of the files that are read; name another file")
    run = RunFolder(items.resolve().parent.parent)
    if run.manifest_path.exists() and run.items_path(suite_name) == items.resolve():
        refs, sealed = run.items(suite_name), sealed or run.sealed_policy()
        thinking_opened = thinking_opened or run.manifest().thinking_opened
    else:
        refs, sealed = index_items(items), sealed or load_policy("demo")
    suite = _chat_suite(sealed.policy, suite_name, items.parent / suite_name)
    thinking = Thinking(thinking_opened, sealed.policy.requests.thinking_tags)
    offsets = match_answers(answers, by_name(items, refs))
    _require_items_of(suite, refs, items, sealed.policy.name)
    kept: dict[str, list[Sample]] = {ref.task: [] for ref in refs}
    with reporter.stage("score", len(offsets)) as meter, answers.open("rb") as file, _whole(out) as write:
        for ref, offset in meter.each(offsets.items()):
            file.seek(offset)
            sample = _score(suite, load_item(items, ref), role, read_answer(file.readline()), thinking)
            write(sample)
            kept[ref.task].append(sample.model_copy(update={"text": "", "reasoning": "", "answer": None}))
    missing = [ref for ref in refs if ref not in offsets]
    lacking = Counter(ref.task for ref in missing)
    everything = [sample for samples in kept.values() for sample in samples]
    return OfflineScores(
        suite=suite_name,
        role=role,
        policy=sealed.policy.name,
        policy_sha256=sealed.sha256,
        tasks={task: _summary(samples, lacking[task]) for task, samples in kept.items()},
        all_tasks=_summary(everything, len(missing)),
        missing=[name_of(ref) for ref in missing],
        errors=[f"{name_of(sample)}: {sample.error}" for sample in everything if sample.error],
    )


def _chat_suite(policy: Policy, name: str, folder: Path) -> ChatSuite:
    suite = make_suite(policy, name, folder)
    if not isinstance(suite, ChatSuite):
        raise BadInput(f"suite {name} cannot be scored offline: it measures a server")
    return suite


def _require_items_of(suite: ChatSuite, refs: Sequence[ItemRef], items: Path, policy: str) -> None:
    """Raises BadInput: an item is of no task that the suite has under this policy: of another suite, or policy."""
    for ref in refs:
        if suite.tasks and ref.task not in suite.tasks:
            listed = ", ".join(suite.tasks[:8]) + (", …" if len(suite.tasks) > 8 else "")
            raise BadInput(
                f"{items}: item {name_of(ref)} is none of suite {suite.name} under policy {policy}, whose tasks are "
                f"{listed}; name the suite that made the items, and their policy (--policy)"
            )


class Thinking(NamedTuple):
    """How thinking is told from the answer: see `split_thinking`."""

    opened: bool
    tags: tuple[tuple[str, str], ...]


# -- scores ----------------------------------------------------------------------------------------------------------


def _score(suite: ChatSuite, item: Item, role: Role, answer: Answer, thinking: Thinking) -> Sample:
    """The sample that the live path makes of this answer, with None for what the file does not tell.

    Raises:
        BadInput: an item that the suite cannot score.
    """
    message = {"content": answer.text, "reasoning": answer.reasoning, "tool_calls": answer.tool_calls}
    try:
        _check_budget(answer, suite.max_tokens)
        completion = Completion(
            # How unfinished thinking is counted depends on it; the sample does not claim it.
            finish_reason=answer.finish_reason or "stop",
            prompt_tokens=answer.prompt_tokens or 0,
            completion_tokens=answer.completion_tokens or 0,
            prompt_ids=[],
            token_ids=[],
            seconds=answer.seconds,
            fingerprint=None,
            **message_fields(message, thinking.opened, thinking.tags),
        )
        sample = suite.score(item, role, completion)
    except EndpointError as error:
        return sample_of(suite.name, item, role, error=str(error))
    except CANNOT_SCORE as error:
        why = f"{type(error).__name__}: {quoted(str(error))}"
        raise BadInput(
            f"item {name_of(item)} cannot be scored by suite {suite.name} ({why}); is it of this suite and policy?"
        ) from error
    known = ("finish_reason", "prompt_tokens", "completion_tokens")
    return sample.model_copy(update={name: None for name in known if getattr(answer, name) is None})


def _check_budget(answer: Answer, budget: int) -> None:
    """As on the live path, an answer with another budget than the policy's is an error and not a wrong answer.

    Raises:
        EndpointError: it was cut before the budget was used, or is longer than it, or its server ended it.
    """
    if answer.finish_reason is not None:
        require_ended(answer.finish_reason)
    used = answer.completion_tokens
    if used is not None and used < budget and answer.finish_reason == "length":
        raise EndpointError("budget", f"the answer was cut at {used} tokens, before max_tokens {budget}")
    if used is not None and used > budget:
        raise EndpointError("budget", f"the answer has {used} tokens, more than max_tokens {budget} of the policy")


def _summary(samples: Sequence[Sample], missing: int) -> TaskSummary:
    usable = [sample for sample in samples if sample.error is None]
    finished = [sample for sample in usable if sample.finish_reason is not None]
    return TaskSummary(
        answers=len(samples),
        score=_mean(sample.score for sample in usable),
        score_completed=_mean(sample.score for sample in finished if sample.finish_reason == "stop"),
        cap_hit_rate=_mean(float(sample.finish_reason == "length") for sample in finished),
        finish_unknown=len(usable) - len(finished),
        unterminated_rate=_mean(sample.metrics.get("unterminated") for sample in usable),
        looped_rate=_mean(sample.metrics.get("looped") for sample in usable),
        null=sum("null" in sample.metrics for sample in usable),
        tool_calls=sum("tool_calls" in sample.metrics for sample in usable),
        not_scored=sum(sample.score is None for sample in usable),
        errors=len(samples) - len(usable),
        missing=missing,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


@contextmanager
def _whole(path: Path | None) -> Iterator[Callable[[Sample], object]]:
    """A function that writes samples to a file, which is there once all are written; it does nothing without a file."""
    if path is None:
        yield lambda sample: None
        return
    with whole_file(path) as file:
        yield lambda sample: file.write(sample.model_dump_json().encode() + b"\n")


# -- shown -----------------------------------------------------------------------------------------------------------


def to_json(scores: OfflineScores) -> str:
    """All of it as one JSON object in ASCII."""
    return json.dumps(asdict(scores), indent=2)


def offline_score_table(scores: OfflineScores) -> Table:
    """One row a task, and one for all. Score, score of the completed and cap-hit rate stand together."""
    table = Table("task", box=None, header_style="bold")
    columns = ("answers", "score", "completed", "cap hit", "unterminated", "looped", "null", "tool calls")
    for name in (*columns, "not scored", "errors", "missing"):
        table.add_column(name, justify="right")
    rows = [(escape(quoted(task)), row) for task, row in scores.tasks.items()]
    for name, row in [*rows, ("all", scores.all_tasks)] if len(rows) > 1 else rows:
        means = [row.score, row.score_completed, row.cap_hit_rate, row.unterminated_rate, row.looped_rate]
        counts = [row.null, row.tool_calls, row.not_scored, row.errors, row.missing]
        shown = ["–" if mean is None else f"{mean:.1%}" for mean in means]
        table.add_row(name, str(row.answers), *shown, *map(str, counts))
    return table


def score_notes(scores: OfflineScores) -> list[str]:
    """What the table's counts mean, a line each: safe to print."""
    unknown = scores.all_tasks.finish_unknown
    notes = [f"{unknown} answers have no finish_reason: whether their budget cut them is not known"] if unknown else []
    for what, found in (("missing", scores.missing), ("error", scores.errors)):
        notes += [f"{what}: {quoted(line, 300)}" for line in found[:MOST_LISTED]]
        if len(found) > MOST_LISTED:
            notes.append(f"{what}: {len(found) - MOST_LISTED} more; --json names them all")
    return notes
