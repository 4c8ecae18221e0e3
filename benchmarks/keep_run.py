"""What is kept of a gate's run as evidence: the manifest, the verdict and the scores of each task, as one JSON file.

python -m benchmarks.keep_run runs/RUN --command "quantgate gate ..." --out benchmarks/results/NAME.json

`--command` is the command in the words that somebody else would use; the one that ran stands in the manifest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

from harness.contract.samples import ROLES, Sample
from harness.runs.folder import RunFolder

BY_LENGTH = ("needle", "ruler")
"""Suites whose prompts have a set length: what it really was, and how long an answer took, belong to the result."""
DIGITS = 4


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keep_run", description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder that was judged")
    parser.add_argument("--command", required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    kept = {"command": asked.command, **keep(asked.run)}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


def keep(path: Path) -> dict[str, Any]:
    """Manifest and verdict as they were written, and the scores.

    Raises:
        BadInput: no run, one that was not judged, or samples that were edited after the run.
    """
    run = RunFolder(path)
    run.require_untouched()
    manifest, verdict = run.manifest(), run.verdict()
    cells = scores(run.samples(), manifest.thinking_opened)
    return {"manifest": manifest.model_dump(mode="json"), "verdict": verdict.model_dump(mode="json"), "scores": cells}


def scores(samples: Iterable[Sample], thinking: bool) -> dict[str, Any]:
    """By suite/task and role: how many answers have a score, and its mean. Tasks in which a role has none are left out.

    Suites of set lengths have the longest prompt's tokens and the median answer's seconds beside it. `thinking` adds
    the share of thinking that did not close, over all answers: those without a score are most of it.
    """
    tasks: dict[str, list[Sample]] = {}
    for sample in samples:
        tasks.setdefault(f"{sample.suite}/{sample.task}", []).append(sample)
    found: dict[str, Any] = {}
    for name, there in sorted(tasks.items()):
        by_role = {role: [s for s in there if s.role == role] for role in sorted(ROLES)}
        cells = {name: {role: scored(mine) for role, mine in by_role.items()}}
        if thinking:
            cells[f"{name} unterminated"] = {role: unterminated(mine) for role, mine in by_role.items()}
        found |= {name: cell for name, cell in cells.items() if all(figures["n"] for figures in cell.values())}
    return found


def scored(samples: list[Sample]) -> dict[str, Any]:
    """The scores of one task and role."""
    figures = mean([s.score for s in samples if s.score is not None])
    if samples and samples[0].suite in BY_LENGTH:
        figures["prompt_tokens"] = max(s.prompt_tokens or 0 for s in samples)
        figures["seconds"] = round(median(s.seconds for s in samples), 3)
    return figures


def unterminated(samples: list[Sample]) -> dict[str, Any]:
    return mean([s.metrics["unterminated"] for s in samples if "unterminated" in s.metrics])


def mean(values: list[float]) -> dict[str, Any]:
    return {"n": len(values), "mean": round(fmean(values), DIGITS) if values else None}


if __name__ == "__main__":
    sys.exit(main())
