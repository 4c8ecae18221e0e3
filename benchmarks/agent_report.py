"""How long results of SWE-bench take from their folders to samples, verdict and report, and how much memory that needs.

    python -m benchmarks.agent_report --out benchmarks/results/agent_report.json

500 instances for both roles are made up first (benchmarks/trajectories.py, about 1 GB in a temporary folder). What is
measured runs in a process of its own, so that its peak of memory holds nothing of the making.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_memory
from benchmarks.trajectories import instance_id, text, write_instance
from harness import __version__
from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES
from harness.gate.pipeline import judge_run, render_run
from harness.runs.folder import RunFolder
from harness.runs.instances import SUITE, InstanceOutcome, read_result, sample_of_result
from harness.runs.manifest import Manifest
from harness.serving.hardware import detect
from suites.base import make_item

ROOT = Path(__file__).parents[1]
POLICY = """name: agent_report
sampling: {temperature: 0.6, max_tokens: 16384}
suites:
  swebench: {}
checks:
  - {metric: resolved, on: swebench, max_loss: 0.03}
  - {metric: unsubmitted_rate, on: swebench, max_increase: 0.05}
  - {metric: steps_ratio, on: swebench, max: 1.2}
"""
OUTCOMES: tuple[InstanceOutcome, ...] = ("resolved", "unresolved", "unresolved", "empty patch", "patch does not apply")
SAME = 0.85
"""Share of instances that end alike for both roles."""


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agent_report", description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--run", type=Path, help="measure this folder in this process, and print what was found")
    asked = parser.parse_args(arguments)
    if asked.run:
        print(json.dumps(stages(RunFolder(asked.run))))
        return 0
    words = ["python -m benchmarks.agent_report", *(sys.argv[1:] if arguments is None else arguments)]
    found = json.dumps({"command": " ".join(words), **measure(asked.instances)}, indent=1) + "\n"
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(found, "utf-8")
    print(found, end="")
    return 0


def measure(instances: int) -> dict[str, Any]:
    """Make a run of so many instances, and measure it in another process."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        start = time.monotonic()
        written = make_run(run, instances)
        print(f"made {written / 1e6:,.0f} MB in {time.monotonic() - start:.0f} s", file=sys.stderr)
        command = [sys.executable, "-m", "benchmarks.agent_report", "--run", str(run)]
        said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, Any] = json.loads(said.stdout)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), **detect().record()},
        "load_average": round(os.getloadavg()[0], 2),
        "instances": instances,
        "trajectories": 2 * instances,
        "trajectory_bytes": written,
        **found,
    }


def make_run(run: Path, instances: int) -> int:
    """A run folder that has everything but samples, verdict and report; returns the bytes of all trajectories."""
    folder, sealed = RunFolder(run), parse_policy(POLICY)
    manifest = Manifest(
        run_id="agent-report",
        created=datetime.now(UTC).isoformat(),
        quantgate_version=__version__,
        command=["quantgate", "gate"],
        policy_name=sealed.policy.name,
        policy_sha256=sealed.sha256,
        planned={f"{SUITE}/instances": instances},
    )
    folder.create(manifest, sealed)
    rng, written = random.Random(0), 0
    names = [instance_id(number) for number in range(instances)]
    items = [make_item("instances", name, [{"role": "user", "content": text(rng, 3000)}]) for name in names]
    manifest.items_sha256[SUITE] = folder.write_items(SUITE, items)
    folder.write_manifest(manifest)
    for name in names:
        outcome = rng.choice(OUTCOMES)
        for role in ROLES:
            other = role == "candidate" and rng.random() > SAME
            written += write_instance(run, role, name, rng, rng.choice(OUTCOMES) if other else outcome)
    return written


def stages(folder: RunFolder) -> dict[str, Any]:
    """Results to samples, verdict, report: seconds of each, and the peak of this process's memory."""
    marks, loaded = [time.monotonic()], peak_memory()
    log = folder.log(SUITE)
    for ref in folder.items(SUITE):
        for role in ROLES:
            log.append(sample_of_result(ref, role, read_result(folder.path / SUITE / role / ref.item)))
    log.close()
    manifest = folder.manifest()
    manifest.samples = folder.sample_files()
    folder.write_manifest(manifest)
    marks.append(time.monotonic())
    judge_run(folder)
    marks.append(time.monotonic())
    render_run(folder)
    marks.append(time.monotonic())
    seconds = {
        name: round(end - start, 2)
        for name, start, end in zip(("samples", "verdict", "report"), marks, marks[1:], strict=False)
    }
    pages = list((folder.report_path / SUITE).glob("*.html"))
    return {
        "seconds": seconds | {"all": round(marks[-1] - marks[0], 2)},
        "loaded_memory_mib": loaded,
        "peak_memory_mib": peak_memory(),
        "pages": len(pages),
        "page_bytes": sum(page.stat().st_size for page in pages),
        "index_bytes": (folder.report_path / "index.html").stat().st_size,
    }


if __name__ == "__main__":
    sys.exit(main())
