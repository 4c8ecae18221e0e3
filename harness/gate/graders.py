"""Is every grader able to say no? Asked before the first server starts, with an answer that is known to be wrong."""

from __future__ import annotations

from harness.contract.errors import NotComparable
from harness.contract.items import ItemRef
from harness.endpoint.answers import Completion
from harness.gate.job import Job
from suites.base import ChatSuite

WRONG = "I have nothing to say to that."
"""Answers no question of any suite."""


def require_graders(job: Job) -> None:
    """Score a wrong answer to the first item of each task.

    Raises:
        NotComparable: a grader gives it something; with such scores both roles look alike, whatever they answer.
    """
    for suite in job.suites:
        if not isinstance(suite, ChatSuite):
            continue
        first: dict[str, ItemRef] = {}
        for ref in job.items[suite.name]["reference"]:
            first.setdefault(ref.task, ref)
        for task, ref in first.items():
            completion = Completion(WRONG, "", "stop", 1, 1, [], [], 0.0, None)
            score = suite.score(job.run.load(suite.name, ref), "candidate", completion).score
            if score:
                raise NotComparable(
                    f'the grader of {suite.name}/{task} gives {score:g} to "{WRONG}": it cannot tell right from wrong; '
                    "repair its task file or its scorer"
                )
