"""`.eval_results/*.yaml` beside a card: scores on data sets that a model hub knows as benchmarks, for its leaderboards.

Source: https://huggingface.co/docs/hub/eval-results. `model-index` in the card's front matter has all results.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
from ruamel.yaml import YAML

from harness.contract.datasets import PublicDataset
from harness.contract.whole_files import write_whole
from reports.cards.model_index import source_of
from reports.scores import TaskScores
from reports.text import one_line
from reports.view import Report

FOLDER = ".eval_results"
OURS = "quantgate-"
"""Files of this name are ours: a later run replaces them, and others stay."""
BENCHMARKS = {
    "openai/gsm8k": "gsm8k",
    "TIGER-Lab/MMLU-Pro": "mmlu_pro",
    "SWE-bench/SWE-bench_Verified": "swe_bench_%_resolved",
}
"""Data sets that are benchmarks on the hub, and what their leaderboard calls the task."""


class Written(NamedTuple):
    """What came of it."""

    paths: list[Path]
    left_out: list[str]
    """Benchmarks of which only a part was asked, in words: no leaderboard may show that beside others."""


def write_eval_results(report: Report, card: Path, source_url: str | None = None) -> Written:
    """Write one file a benchmark beside the card, in place of those of an earlier run.

    Raises:
        OSError: they cannot be written.
    """
    folder = card.resolve().parent / FOLDER
    done = Written([], [])
    for suite, task, source in _of_benchmarks(report):
        name = task.task if source.task else suite
        if task.items != source.items:
            done.left_out.append(f"{FOLDER}: not {name}, of which {task.items:,} of {source.items:,} items were asked")
            continue
        path = folder / f"{OURS}{name}.yaml"
        write_whole(path, _yaml(_entry(report, task, source, source_url)))
        done.paths.append(path)
    for path in folder.glob(f"{OURS}*.yaml"):
        if path not in done.paths:
            path.unlink()
    return done


def _of_benchmarks(report: Report) -> Iterator[tuple[str, TaskScores, PublicDataset]]:
    for suite in report.suites:
        for task in suite.tasks:
            source = source_of(report, suite.name, task.task)
            if source and source.hub_id in BENCHMARKS and source.items and task.candidate.score is not None:
                yield suite.name, task, source


def _entry(report: Report, task: TaskScores, source: PublicDataset, source_url: str | None) -> EvalResultEntry:
    sampling = ", ".join(f"{name} {value}" for name, value in report.sampling)
    named = {"source_url": source_url, "source_name": "quantgate report"} if source_url else {}
    return EvalResultEntry(
        dataset_id=source.hub_id,
        task_id=BENCHMARKS[source.hub_id],
        value=round(100 * (task.candidate.score or 0.0), 2),
        date=report.day,
        notes=one_line(f"no few-shot examples; {sampling}", 300),
        **named,
    )


def _yaml(entry: EvalResultEntry) -> str:
    yaml, written = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style, yaml.width = False, 1 << 20
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(eval_result_entries_to_yaml([entry]), written)
    return written.getvalue()
