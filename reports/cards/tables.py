"""What a card of a quantized model begins with: both scores, what is recovered, how to serve it and to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from reports.cards.licence import Origin, public_name
from reports.cards.sources import HUB_ID
from reports.formats.markdown import MAX_ROWS, escape, folded
from reports.known_suites import known_suite
from reports.metric_words import in_words, recovery
from reports.scores import TaskScores
from reports.suite_view import SuiteView
from reports.text import percent
from reports.view import Report

THIS_MODEL = "OWNER/THIS-MODEL"
"""Stands for a candidate whose place on a hub is not known."""
WITH_VALUE = (
    "--max-model-len",
    "--dtype",
    "--kv-cache-dtype",
    "--tensor-parallel-size",
    "--reasoning-parser",
    "--tool-call-parser",
    "--speculative-config",
)
ALONE = ("--enable-auto-tool-choice", "--enforce-eager")
"""Flags of the gate's servers that say how a model answers; the others say where its server runs."""


def recovery_table(report: Report) -> list[str]:
    """The four columns that cards of quantized models have: benchmark, both scores, recovery."""
    rows = [row for suite in report.suites for row in _rows(suite)]
    reference, candidate = report.model("reference"), report.model("candidate")
    if not rows or reference is None or candidate is None:
        return []
    names = [escape(public_name(model.name), 80) for model in (reference, candidate)]
    lines = [f"| Benchmark | {names[0]} | {names[1]} | Recovery |", "| --- | ---: | ---: | ---: |"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _rows(suite: SuiteView) -> Iterator[tuple[str, str, str, str]]:
    """A row for each task of a suite; for the suite as a whole where there are many, or tasks mean nothing alone."""
    scored = [task for task in suite.tasks if task.reference.score is not None and task.candidate.score is not None]
    known = known_suite(suite.name)
    if known.result_by_task and len(scored) <= MAX_ROWS:
        for task in scored:
            yield _row(f"{suite.name}/{task.task}", known.score, [task])
    elif scored:
        yield _row(suite.name, known.score, scored)


def _row(name: str, metric: str, tasks: Sequence[TaskScores]) -> tuple[str, str, str, str]:
    items = sum(task.items for task in tasks)
    reference = sum((task.reference.score or 0.0) * task.items for task in tasks) / items
    candidate = sum((task.candidate.score or 0.0) * task.items for task in tasks) / items
    said = f"{escape(name)} ({in_words(metric).lower()}, {items:,} items)"
    return said, percent(reference), percent(candidate), percent(recovery(metric, reference, candidate))


def how_to_serve(report: Report, found: Origin) -> list[str]:
    """Commands that serve the model as it was evaluated; nothing where no server was asked."""
    command = [word.text for word in report.provenance.commands.get("candidate", [])]
    candidate = report.model("candidate")
    if not command or candidate is None:
        return []
    model = _hub_name(candidate.name)
    flags = [*_kept(command)]
    lines = ["### How to serve it", "", "With the settings that it was evaluated with:", "", "```shell"]
    return [*lines, _code(["vllm", "serve", model, *flags]), "```", ""]


def how_to_repeat(report: Report) -> list[str]:
    """Commands that repeat the evaluation, with the policy that they need; nothing for results made elsewhere."""
    reference, candidate = report.model("reference"), report.model("candidate")
    if not report.provenance.commands or reference is None or candidate is None:
        return []
    models = [_hub_name(candidate.name), "--reference", _hub_name(reference.name, "OWNER/REFERENCE")]
    gate = ["quantgate", "gate", *models, "--policy", "policy.yaml"]
    lines = ["### How to repeat the evaluation", "", "```shell", _code(gate), "```", ""]
    if not report.policy_text:
        return lines
    text = ["````yaml", *(line.replace("````", "` ` ` `") for line in report.policy_text.splitlines()), "````", ""]
    return lines + folded("policy.yaml, as it was sealed", text)


def _hub_name(name: str, otherwise: str = THIS_MODEL) -> str:
    return name if HUB_ID.fullmatch(name) else otherwise


def _kept(command: Sequence[str]) -> Iterator[str]:
    for place, word in enumerate(command):
        if word in ALONE:
            yield word
        elif word in WITH_VALUE and place + 1 < len(command):
            yield from shlex.split(" ".join(command[place : place + 2]))


def _code(words: Sequence[str]) -> str:
    """A command on one line inside of a block of code, which it cannot end."""
    return shlex.join(words).replace("\n", " ").replace("```", "` ` `")
