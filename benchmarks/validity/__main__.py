"""Measure how often the verdicts are wrong, and write it down.

python -m benchmarks.validity --data ../shared/data     # everything; a run that is ended goes on where it was
python -m benchmarks.validity --only divergences        # bounded divergences alone, which have results of their own
python -m benchmarks.validity --only runs               # whole runs, gaps and lengths alone, beside the stored results
python -m benchmarks.validity --write-docs              # docs/validity.md from the stored results
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import scipy

from benchmarks.validity import divergences, figure, page, runs
from benchmarks.validity.cells import Cells
from benchmarks.validity.parts import FULL, QUICK, Plan, evidence
from harness import __version__

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/validity.json"
DIVERGENCES = ROOT / "benchmarks/results/validity_divergences.json"
DOCS = ROOT / "docs/validity.md"
JUDGED = tuple(f"harness/judging/{name}.py" for name in ("paired_rates", "resampling", "statistics", "sequential"))
JUDGED_DIVERGENCES = (*JUDGED, "harness/judging/bounded_means.py")


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validity", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("QUANTGATE_DATA"), help="folder of real outcomes")
    parser.add_argument("--trials", type=int, help="simulated runs of a cell (fixed and sequential test, scores)")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--cells", type=Path, help="where finished cells are kept (default: build/)")
    parser.add_argument("--only", choices=["divergences", "runs"], help="measure this part alone")
    parser.add_argument("--write-docs", action="store_true", help="only write docs/validity.md from the results")
    asked = parser.parse_args(arguments)
    if asked.only == "runs":
        stored = json.loads(RESULTS.read_text("utf-8"))
        trials, few = (50, 20) if asked.quick else (asked.trials or 2_000, 400)
        made = {"command": f"python -m benchmarks.validity {' '.join(arguments or sys.argv[1:])}"}
        made |= {"date": datetime.now(UTC).isoformat(timespec="seconds")}
        stored["whole_runs"] = made | runs.measure(trials, few)
        asked.out.write_text(written(stored) + "\n", "utf-8")
    elif not asked.write_docs:
        plan = QUICK if asked.quick else FULL
        if asked.trials:
            plan = Plan(**(asdict(plan) | {"trials": asked.trials}))
        words = ["python -m benchmarks.validity", *(sys.argv[1:] if arguments is None else arguments)]
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        if not asked.only:
            results = measure(plan, asked.data, asked.workers, asked.cells, " ".join(words))
            results["whole_runs"] = json.loads(RESULTS.read_text("utf-8"))["whole_runs"]  # `--only runs` makes them
            asked.out.write_text(written(results) + "\n", "utf-8")
        beside = divergences.QUICK if asked.quick else divergences.FULL
        results = measure_divergences(beside, asked.workers, asked.cells, " ".join(words))
        asked.out.with_name(DIVERGENCES.name).write_text(written(results) + "\n", "utf-8")
    if asked.out == RESULTS:
        stored, beside = (json.loads(path.read_text("utf-8")) for path in (RESULTS, DIVERGENCES))
        DOCS.write_text(page.render(stored, beside), "utf-8")
        figure.draw(stored, DOCS.with_suffix(".svg"))
    return 0


def measure(plan: Plan, data: Path | None, workers: int, cells_path: Path | None, command: str) -> dict[str, Any]:
    """All results but those of bounded divergences, with what they were made on and of."""
    return _made_of(JUDGED, plan, cells_path, command, lambda cells: evidence(plan, cells, data, workers))


def measure_divergences(plan: divergences.Plan, workers: int, cells_path: Path | None, command: str) -> dict[str, Any]:
    """The results of bounded divergences."""
    return _made_of(
        JUDGED_DIVERGENCES, plan, cells_path, command, lambda cells: divergences.evidence(plan, cells, workers)
    )


def _made_of(
    judged_files: Sequence[str],
    plan: Plan | divergences.Plan,
    cells_path: Path | None,
    command: str,
    found_in: Callable[[Cells], dict[str, Any]],
) -> dict[str, Any]:
    judged = {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in judged_files}
    code = hashlib.sha256("".join(judged.values()).encode()).hexdigest()[:12]  # other code, other cells
    cells = Cells(cells_path or ROOT / f"build/validity-{code}.jsonl")
    start = time.monotonic()
    found = found_in(cells)
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {
            "quantgate": __version__,
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "scipy": scipy.__version__,
        },
        "judged": judged,
        "plan": asdict(plan),
        "seconds": {
            "this run": round(time.monotonic() - start),
            "all cells, one process": round(sum(cells.seconds.values())),
        },
    } | found


def written(value: Any, indent: str = "") -> str:
    """JSON with one line for each row of a table, and 8 digits: enough, and small enough to be looked through."""
    deep = isinstance(value, dict | list) and any(isinstance(v, dict | list) for v in _children(value))
    if not deep:
        return json.dumps(_rounded(value), ensure_ascii=False)
    inner = indent + " "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {written(v, inner)}" for key, v in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if all(isinstance(row, dict) for row in value):
        return (
            "[\n" + ",\n".join(inner + json.dumps(_rounded(row), ensure_ascii=False) for row in value) + f"\n{indent}]"
        )
    return json.dumps(_rounded(value), ensure_ascii=False)


def _children(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
