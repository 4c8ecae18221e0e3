"""How long a report of 30,000 pairs takes to be written, how much memory that needs, and how fast its page is.

    python -m benchmarks.report_samples --out benchmarks/results/report_samples.json

A run of so many pairs is made up first (some hundred MB in a temporary folder). What is measured runs in a process of
its own, so that its peak of memory holds nothing of the making. Times of the page are taken in Chromium through
playwright; where either is not installed they are left out, and the result says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_memory
from harness import __version__
from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES, Item, Sample, sha256_of
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from harness.serving.hardware import detect

ROOT = Path(__file__).parents[1]
POLICY = """name: report_samples
sampling: {temperature: 0.6, max_tokens: 16384}
suites:
  cot: {tasks: {gsm8k: {limit: 8000}}}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.01}
"""
SUITES = {
    "cot": ("gsm8k", "math500", "mmlu_pro"),
    "ruler": ("niah_single_1@4096", "vt@4096", "cwe@16384"),
    "language": ("arithmetic-en", "arithmetic-ja", "facts-zh"),
}
SENTENCE = "the of result we then add 17 and 48 to find how many clips per hour × 3 = 144, so each box holds half"
WORDS = SENTENCE.split()
THINKING = 0.3
"""Share of answers with thinking."""


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_samples", description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--keep", type=Path, help="make the run here and leave it")
    parser.add_argument("--run", type=Path, help="render this folder in this process, and print what was found")
    asked = parser.parse_args(arguments)
    if asked.run:
        print(json.dumps(rendered(asked.run)))
        return 0
    words = ["python -m benchmarks.report_samples", *(sys.argv[1:] if arguments is None else arguments)]
    with tempfile.TemporaryDirectory() as name:
        found = {"command": " ".join(words), **measure(asked.keep or Path(name) / "run", asked.pairs)}
    said = json.dumps(found, indent=1) + "\n"
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(said, "utf-8")
    print(said, end="")
    return 0


def measure(run: Path, pairs: int) -> dict[str, Any]:
    """Make a run of so many pairs, render it in another process, and look at it in a browser."""
    start = time.monotonic()
    written = make_run(run, pairs)
    print(f"made {written / 1e6:,.0f} MB of samples in {time.monotonic() - start:.0f} s", file=sys.stderr)
    command = [sys.executable, "-m", "benchmarks.report_samples", "--run", str(run)]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), **detect().record()},
        "load_average": round(os.getloadavg()[0], 2),
        "pairs": pairs,
        "sample_bytes": written,
        **json.loads(said.stdout),
        "page": page_times(run / "report" / "index.html"),
    }


def make_run(run: Path, pairs: int) -> int:
    """A run folder with items and samples, not judged; returns the bytes of all samples."""
    folder, sealed, rng = RunFolder(run), parse_policy(POLICY), random.Random(0)
    tasks = [(suite, task) for suite, names in SUITES.items() for task in names]
    planned = {f"{suite}/{task}": len(range(place, pairs, len(tasks))) for place, (suite, task) in enumerate(tasks)}
    manifest = Manifest(
        run_id="report-samples",
        created=datetime.now(UTC).isoformat(),
        quantgate_version=__version__,
        command=["quantgate", "gate"],
        policy_name=sealed.policy.name,
        policy_sha256=sealed.sha256,
        planned=planned,
    )
    folder.create(manifest, sealed)
    for suite, names in SUITES.items():
        counts = [(task, planned[f"{suite}/{task}"]) for task in names]
        path = folder.samples_path(suite)
        path.parent.mkdir(exist_ok=True)
        with path.open("w", encoding="utf-8") as file:  # the reference first, as when roles are served in turns
            file.writelines(f"{sample.model_dump_json()}\n" for sample in _samples(rng, suite, counts))
        manifest.items_sha256[suite] = folder.write_items(suite, _items(rng, suite, counts))
    manifest.samples = folder.sample_files()
    folder.write_manifest(manifest)
    return sum(path.stat().st_size for path in (run / "samples").iterdir())


def rendered(run: Path) -> dict[str, Any]:
    """Render a run: seconds, the peak of this process's memory, and what was written."""
    from reports.render import render  # here, so that the other process does not hold it

    loaded, start, used = peak_memory(), time.monotonic(), time.process_time()
    index = render(run)
    seconds, used = time.monotonic() - start, time.process_time() - used
    files = list((run / "report" / "samples").glob("*.js"))
    return {
        "render_seconds": round(seconds, 2),
        "render_processor_seconds": round(used, 2),
        "loaded_memory_mib": loaded,
        "peak_memory_mib": peak_memory(),
        "index_bytes": index.stat().st_size,
        "side_files": len(files),
        "side_file_bytes": sum(path.stat().st_size for path in files),
    }


def page_times(index: Path) -> dict[str, Any]:
    """What a reader waits for, in Chromium, from disk: the best and the worst of five."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {"left_out": "playwright is not installed"}
    if chromium is None:
        return {"left_out": "there is no chromium on the path"}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        times: dict[str, list[float]] = {}
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(index.as_uri())
            for name, milliseconds in page.evaluate(IN_PAGE).items():
                times.setdefault(name, []).append(milliseconds)
            page.close()
        found = {"browser": f"Chromium {browser.version}"}
        browser.close()
    return found | {name: {"best": round(min(all_), 1), "worst": round(max(all_), 1)} for name, all_ in times.items()}


IN_PAGE = """async () => {
  const byId = (id) => document.getElementById(id);
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const until = async (there) => { while (!there()) await new Promise((done) => setTimeout(done, 5)); };
  const timed = async (act, there = () => true) => {
    const start = performance.now();
    act();
    await until(there);
    await painted();
    return performance.now() - start;
  };
  const set = (id, value) => () => {
    byId(id).value = value;
    byId(id).dispatchEvent(new Event("input", { bubbles: true }));
  };
  await until(() => document.querySelector(".pair"));
  await painted();
  const found = { first_view_ms: performance.now() };
  found.filter_kind_ms = await timed(set("kind", "kinds:worse,better"));
  found.filter_suite_ms = await timed(set("suite", "language"));
  found.filter_all_again_ms = await timed(() => { set("kind", "")(); set("suite", "")(); });
  found.first_search_ms = await timed(set("search", "0001"));
  found.second_search_ms = await timed(set("search", "00012"));
  await timed(set("search", ""));
  found.next_page_ms = await timed(() => byId("next").click());
  found.open_pair_ms = await timed(() => { document.querySelector(".pair").open = true; },
    () => document.querySelector(".pair .sides"));
  set("search", "no such words")();
  found.search_whole_answers_ms = await timed(() => byId("whole").click(), () => byId("whole").hidden);
  return found;
}"""


def _text(rng: random.Random, least: int, most: int) -> str:
    """Words of so many characters, about."""
    size = rng.randint(least, most)
    return " ".join(rng.choices(WORDS, k=size // 4))[:size]


def _items(rng: random.Random, suite: str, counts: list[tuple[str, int]]) -> Iterator[Item]:
    for task, count in counts:
        for number in range(count):
            yield Item(
                task=task,
                item=f"{number:05d}",
                prompt=[{"role": "user", "content": _text(rng, 200, 2000)}],
                prompt_sha256=_prompt_sha256(suite, task, number),
                target="144",
            )


def _samples(rng: random.Random, suite: str, counts: list[tuple[str, int]]) -> Iterator[Sample]:
    for role in ROLES:
        for task, count in counts:
            for number in range(count):
                right = (number % 4 > 0) != (role == "candidate" and rng.random() < 0.05)
                yield Sample(
                    suite=suite,
                    task=task,
                    item=f"{number:05d}",
                    role=role,
                    prompt_sha256=_prompt_sha256(suite, task, number),
                    score=float(right),
                    answer="144" if right else "96",
                    finish_reason="length" if rng.random() < 0.02 else "stop",
                    prompt_tokens=rng.randint(50, 500),
                    completion_tokens=rng.randint(50, 4000),
                    seconds=rng.random() * 9,
                    text=_text(rng, 200, 4000),
                    reasoning=_text(rng, 500, 8000) if rng.random() < THINKING else "",
                    metrics={"unterminated": 0.0, "looped": 0.0},
                )


def _prompt_sha256(suite: str, task: str, number: int) -> str:
    return sha256_of([suite, task, number])


if __name__ == "__main__":
    sys.exit(main())
