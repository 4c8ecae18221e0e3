"""What a command prints of a verdict."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.contract.weakened import NOTHING_WEAKER
from harness.judging.results import CheckResult, show
from harness.judging.verdict import Verdict
from harness.runs.progress import clock

COLOURS = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}


def print_verdict(verdict: Verdict) -> None:
    """The verdict on stdout: one row a check, what of its pairs was left out, then one line."""
    output = console()
    table = Table("check", "verdict", "estimate", "bounds", "margin", "n", "D", box=None, header_style="bold")
    for check in verdict.checks:
        table.add_row(
            escape(f"{check.metric} on {check.on}"),
            f"[{COLOURS[check.verdict]}]{check.verdict}[/]",
            _number(check, check.estimate),
            f"{_number(check, check.lower)} … {_number(check, check.upper)}",
            _number(check, check.margin),
            str(check.n),
            "" if check.discordant is None else str(check.discordant),
        )
        for task in check.tasks:
            table.add_row(
                escape(f"  {task.task}"),
                f"[{COLOURS['FAIL']}]breaks it[/]" if task.after_holm else "",
                _number(check, task.estimate),
                f"{_number(check, task.lower)} … {_number(check, task.upper)}",
                "",
                str(task.n),
                "" if task.b is None or task.c is None else str(task.b + task.c),
            )
    output.print(table)
    for line in left_out(verdict):
        output.print(line, markup=False)
    if verdict.after_the_fact:
        output.print("judged after the fact: not with the policy sealed into the run", style="bold yellow")
        for line in verdict.weakened or [NOTHING_WEAKER]:
            output.print(f"  {line}", markup=False)
    output.print(f"[{COLOURS[verdict.verdict]}]{verdict.verdict}[/]: ", end="")
    output.print(verdict.reason, markup=False)


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


def _number(check: CheckResult, value: float | None) -> str:
    return "–" if value is None else show(check.unit, value)
