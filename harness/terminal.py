"""What a command prints of a verdict."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.contract.weakened import NOTHING_WEAKER
from harness.judging.verdict import Verdict
from harness.runs.folder import RunFolder
from harness.runs.progress import clock
from reports.check_rows import check_row, check_rows, task_interval, telling, too_few
from reports.metric_words import both_values, recovered
from reports.text import quantity
from reports.what_helps import items_there

MOST_REASONS = 3
"""Checks whose reasons stand below the table; the others have theirs in the report."""
COLOURS = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}


def print_verdict(verdict: Verdict, run: RunFolder | None = None) -> None:
    """The verdict on stdout: one row a check, what of its pairs was left out, then the outcome and why.

    `run` is what was judged, where it is a run: its policy and plan say how many items the tasks have.
    """
    output = console()
    blocking = sum(not check.advisory for check in verdict.checks)
    columns = ("check", "verdict", "reference → candidate", "recovery", "loss", "bounds", "margin", "n", "D")
    table = Table(*columns, box=None, header_style="bold")
    for check in verdict.checks:
        row = check_row(check, blocking)
        table.add_row(
            escape(f"{check.metric} on {check.on}"),
            f"[{COLOURS[check.verdict]}]{check.verdict}[/]",
            row.both,
            row.recovery,
            row.value,
            row.interval,
            row.margin,
            f"{check.n:,}",
            _count(check.discordant),
        )
        for task in telling(check):
            table.add_row(
                escape(f"  {task.task}"),
                f"[{COLOURS['FAIL']}]breaks it[/]" if task.after_holm else "",
                both_values(check, task),
                recovered(check.metric, task),
                quantity(check.unit, task.estimate),
                task_interval(check, task),
                "",
                f"{task.n:,}",
                _count(None if task.b is None or task.c is None else task.b + task.c),
            )
        if few := too_few(check):
            table.add_row(f"  {few}, folded", style="dim")
    output.print(table)
    for line in left_out(verdict):
        output.print(line, markup=False)
    if verdict.after_the_fact:
        output.print("judged after the fact: not with the policy sealed into the run", style="bold yellow")
        for line in verdict.weakened or [NOTHING_WEAKER]:
            output.print(f"  {line}", markup=False)
    reasons = why(verdict, run)
    output.print(f"[{COLOURS[verdict.verdict]}]{verdict.verdict}[/]: ", end="" if len(reasons) == 1 else "\n")
    for line in reasons:
        output.print(line if len(reasons) == 1 else f"  {line}", markup=False)


def why(verdict: Verdict, run: RunFolder | None = None) -> list[str]:
    """The reasons of a verdict, a line each: first those of the whole run, then the checks nearest to failing."""
    open_ones = [check for check in verdict.checks if f"{check.name}: {check.reason}" in verdict.reason]
    if not open_ones:
        return [verdict.reason]
    suites = run.sealed_policy().policy.suites if run else {}
    planned = run.manifest().planned if run else {}
    rows = check_rows(verdict.checks, lambda on: items_there(on, planned, suites))
    rows = [row for row in rows if row.result in open_ones]
    first = min(verdict.reason.index(f"{check.name}: {check.reason}") for check in open_ones)
    whole = verdict.reason[:first].rstrip("; ")
    lines = [whole, *(". ".join([f"{row.result.name}: {row.reason}", *row.remarks]) for row in rows[:MOST_REASONS])]
    more = len(rows) - MOST_REASONS
    return [line for line in [*lines, f"and {more} more, in the report" if more > 0 else ""] if line]


def closing_line(verdict: Verdict, seconds: float) -> str:
    """How many checks ended how, the worst first, and in what time: "2 failed, 4 inconclusive, 7 passed in 6:55"."""
    ended = [check.verdict for check in verdict.checks]
    words = {"FAIL": "failed", "INCONCLUSIVE": "inconclusive", "PASS": "passed"}
    said = [f"{ended.count(outcome)} {word}" for outcome, word in words.items() if outcome in ended]
    return f"{', '.join(said) or 'no checks'} in {clock(seconds)}"


def left_out(verdict: Verdict) -> list[str]:
    """One line for each check that some pairs could not be used for: what a PASS does not speak of."""
    lines = []
    for check in verdict.checks:
        counts = {"missing": check.missing, "errored or without a value": check.errored, "unequal": check.unequal}
        found = [f"{count:,} {what}" for what, count in counts.items() if count]
        if found:
            lines.append(f"pairs left out of {check.metric} on {check.on}: {', '.join(found)}")
    return lines


def console() -> Console:
    """Standard output; wide where it is no terminal."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, soft_wrap=True, width=140)


def _count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
