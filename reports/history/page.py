"""The page of many runs: one file that opens from disk, under the same content policy as a report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from harness.contract.weakened import NOTHING_WEAKER
from harness.contract.whole_files import write_whole
from harness.judging.results import CheckResult
from reports.history.chart import Chart, chart
from reports.history.runs import History, Run, RunGroup, facts_of, groups, key_of, read_history
from reports.html import TEMPLATES, embed_json, environment, source_hash, style_sheet
from reports.metric_words import in_words
from reports.text import bare, duration, one_line, unit_word


@dataclass(frozen=True)
class RunRow:
    """One run in the table."""

    run: Run
    link: str | None
    """To its report, relative to the page; None where there is none."""
    tally: str
    time: str
    after: str
    """By how much the policy that judged it is weaker than the sealed one; empty where that one judged it."""


@dataclass(frozen=True)
class GroupView:
    """One model under one policy."""

    group: RunGroup
    charts: list[Chart]


def write_history(paths: Iterable[Path], out: Path) -> History:
    """Read runs and write the page; returns what is on it, and what is not.

    Raises:
        BadInput: a path that is not there, or nothing that looks like a run. OSError: the page cannot be written.
    """
    history = read_history(paths)
    write_whole(out, render_history(history, out.parent))
    return history


def render_history(history: History, beside: Path) -> str:
    """The page's HTML; links to reports are relative to the folder `beside`."""
    style = style_sheet() + (TEMPLATES / "history.css").read_text("utf-8")
    script = "".join((TEMPLATES / name).read_text("utf-8") for name in ("report.js", "history.js"))
    policy = (
        f"default-src 'none'; style-src '{source_hash(style)}'; script-src '{source_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    runs = history.runs
    return (
        environment()
        .get_template("history.html.j2")
        .render(
            history=history,
            rows=[_row(run, beside) for run in reversed(runs)],
            groups=[GroupView(group, [chart(line) for line in group.lines]) for group in groups(runs)],
            models=len({run.model for run in runs}),
            chosen=_first_choice(runs),
            runs_json=embed_json(_compared(runs)),
            content_policy=policy,
            style=Markup(style),
            script=Markup(script),
        )
    )


def _row(run: Run, beside: Path) -> RunRow:
    report = run.path / "report" / "index.html"
    link = quote(os.path.relpath(report.resolve(), beside.resolve())) if report.is_file() else None
    verdicts = [check.verdict for check in run.verdict.checks]
    counts = {word: verdicts.count(word) for word in ("FAIL", "INCONCLUSIVE", "PASS")}
    return RunRow(
        run=run,
        link=link,
        tally=", ".join(f"{count} {word.lower()}" for word, count in counts.items() if count) or "no checks",
        after=_after(run),
        time=duration(sum(stage.seconds for stage in run.manifest.stages)) if run.manifest.stages else "–",
    )


def _after(run: Run) -> str:
    if not run.verdict.after_the_fact:
        return ""
    weaker = "; ".join(one_line(line, 200) for line in run.verdict.weakened)
    return f"judged after the fact: {weaker or NOTHING_WEAKER}"


def _first_choice(runs: Sequence[Run]) -> tuple[int, int] | None:
    """The latest run and the one before it of the same model and policy, else the one before it."""
    if len(runs) < 2:
        return None
    last = len(runs) - 1
    alike = [i for i in range(last) if (runs[i].model, runs[i].policy) == (runs[last].model, runs[last].policy)]
    return (alike[-1] if alike else last - 1), last


def _compared(runs: Sequence[Run]) -> list[dict[str, object]]:
    """What the script lays side by side. A fact that is the same in every run is counted and not stored."""
    facts = [facts_of(run) for run in runs]
    parts = list(facts[0]) if facts else []
    moving = {
        part: [
            name
            for name in sorted({name for each in facts for name in each[part]})
            if len({each[part].get(name) for each in facts}) > 1
        ]
        for part in parts
    }
    same = {part: len({name for each in facts for name in each[part]}) - len(moving[part]) for part in parts}
    return [
        {
            "checks": {"\n".join(map(one_line, key_of(check))): _words(run, check) for check in run.verdict.checks},
            "facts": {part: {name: each[part].get(name) for name in moving[part]} for part in parts},
            "same": same,
        }
        for run, each in zip(runs, facts, strict=True)
    ]


def _words(run: Run, check: CheckResult) -> dict[str, object]:
    there = check.estimate is not None
    digits = len(bare(check.unit, 0.0).partition(".")[2])
    return {
        "name": one_line(f"{in_words(check.metric)} on {check.on}"),
        "verdict": f"{check.verdict} after the fact" if run.verdict.after_the_fact else check.verdict,
        "estimate": bare(check.unit, check.estimate) if there else "–",
        "bounds": f"{bare(check.unit, check.lower)} to {bare(check.unit, check.upper)}" if there else "–",
        "margin": f"{'≥' if check.margin_kind == 'min' else '≤'} {bare(check.unit, check.margin)}",
        "unit": unit_word(check.unit),
        "n": f"{check.n:,}",
        "value": (check.estimate or 0.0) * (100 if check.unit in ("points", "share") else 1) if there else None,
        "digits": digits,
    }
