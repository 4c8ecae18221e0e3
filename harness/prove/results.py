"""Defects of what is kept and of who reads it: samples, graders, the names of the two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from harness.contract.samples import Item, Role, Sample, read_samples
from harness.endpoint.answers import Completion
from harness.prove.editing import link_files
from harness.prove.entries import Entry, NotApplicable, refused
from harness.runs.folder import RunFolder
from suites.base import ChatSuite
from suites.registry import SUITES

DROPPED = 0.01
Score = Callable[[ChatSuite, Item, Role, Completion], Sample]


def drop_wrong(run: RunFolder) -> None:
    """A hundredth of the candidate's answers, and at least one, is lost from the stored samples: wrong ones."""
    path, wrong = _with_wrong(run)
    lost = {sample.key for sample in wrong[: math.ceil(DROPPED * sum(1 for _ in read_samples(path)))]}
    _write(path, [sample for sample in read_samples(path) if sample.key not in lost])


def turn_right(run: RunFolder) -> None:
    """Every wrong answer of the candidate in one suite is stored as a right one."""
    path, wrong = _with_wrong(run)
    turned = {sample.key for sample in wrong}
    _write(path, [s.model_copy(update={"score": 1.0}) if s.key in turned else s for s in read_samples(path)])


def _with_wrong(run: RunFolder) -> tuple[Path, list[Sample]]:
    for path in sorted((run.path / "samples").glob("*.jsonl")):
        wrong = [sample for sample in read_samples(path) if sample.role == "candidate" and sample.score == 0]
        if wrong:
            return path, wrong
    raise NotApplicable("the control has no wrong answer")


def _write(path: Path, samples: list[Sample]) -> None:
    path.write_text("".join(sample.model_dump_json() + "\n" for sample in samples), "utf-8")


@contextmanager
def says_yes() -> Iterator[None]:
    """Every grader calls every answer right."""
    with ExitStack() as patches:
        for suite, _ in SUITES.values():
            if issubclass(suite, ChatSuite):
                patches.enter_context(mock.patch.object(suite, "score", _yes(suite.score)))
        yield


def _yes(score: Score) -> Score:
    def right(suite: ChatSuite, item: Item, role: Role, completion: Completion) -> Sample:
        return score(suite, item, role, completion).model_copy(update={"score": 1.0})

    return right


ENTRIES = (
    Entry("reference-named", "results", "the reference named as the candidate", refused("same checkpoint"), link_files),
    Entry("grader-yes", "results", "graders that call every answer right", refused("grader"), during=says_yes),
    Entry(
        "samples-dropped",
        "results",
        "wrong answers dropped from the stored samples (1 %)",
        refused("is not what the run wrote"),
        after=drop_wrong,
    ),
    Entry(
        "scores-edited",
        "results",
        "wrong answers stored as right ones",
        refused("is not what the run wrote"),
        after=turn_right,
    ),
)
