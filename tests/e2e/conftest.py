"""Real servers, a real model, real weights.

One gate of the demo model with every suite makes a small quantized checkpoint and a run that most tests here look at.
Starting a server takes longer than asking it: what a test needs of its own run it asks with few items.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import psutil
import pytest

from harness.contract.datasets import PUBLIC_DATASETS
from harness.runs.folder import RunFolder

DATA = Path(os.environ.get("QUANTGATE_DATA") or Path(__file__).parents[3] / "shared" / "data")
COT = {dataset.task: dataset.file for dataset in PUBLIC_DATASETS if dataset.suite == "cot"}
"""cot tasks whose data are not this project's -> the file of QUANTGATE_DATA that they need."""
RULER = {"niah_single_1": "", "niah_multiquery": "", "vt": "", "cwe": "", "fwe": "", "qa_1": "squad"}
"""A ruler task of each kind -> the folder of QUANTGATE_DATA that it needs."""

# One decoder layer's worth of calibration is enough to test the way; the demo's own recipe is in `make gate`.
RECIPE = "name: w4a16-tiny\ntune: none\ncalibration: {samples: 4, length: 128}\n"

# Drafts out of the prompt, greedy ones: with seeded sampling the CPU build ends on them.
# Of a vast margin no more is wanted than that the check is judged.
SERVED = """
recipe: {recipe}
serving: {{max_model_len: 2048, dtype: float32, kv_cache_memory_gib: 1, enforce_eager: true, max_num_seqs: 16,
          max_logprobs: 20, extra_args: ["--speculative-config",
          '{{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}}']}}
sampling: {{temperature: 0.0, max_tokens: 48}}
requests: {{concurrency: 16}}
"""
SUITE_SETTINGS = {
    "divergence": "{trajectories: 8, max_tokens: 32, top_logprobs: 20}",
    "decoding": "{prompts: 8, max_tokens: 32}",
    "cot": "{tasks: {%s}}",
    "ruler": "{lengths: [1024], per_task: 1, tasks: [%s], max_tokens: 32}",
    "needle": "{lengths: [512, 1024], depths: [0, 1], max_tokens: 32}",
    "termination": "{levels: [easy, hard], per_task: 1}",
    "language": "{limit: 2}",
    "speculative": "{prompts: 4}",
    "footprint": "{}",
    "speed": "{concurrency: [4], rounds: 1, waves: 2, warmups: 1, input_tokens: 160, output_tokens: 24}",
}
CHECKS = """
accuracy, on: cot, max_loss: 0.5
accuracy, on: ruler, max_loss: 0.5
accuracy, on: needle, max_loss: 0.5
accuracy, on: language, max_loss: 0.5
truncated_rate, on: termination, max_increase: 0.5
unterminated_rate, on: termination, max_increase: 0.5
looped_rate, on: termination, max_increase: 0.5
uncommitted_rate, on: termination, max_increase: 0.5
length_ratio, on: termination, max: 4
wrong_language_rate, on: language, max_increase: 0.5
garbled_rate, on: language, max_increase: 0.5
kl_mean, on: divergence, max: 0.5
flip_rate, on: divergence, max: 0.3
parting_rate, on: decoding, max: 0.5
accepted_length, on: speculative, min: 1.0
acceptance, on: speculative, max_loss: 0.5
bytes_ratio, on: footprint, max: 0.9
speed_ratio, on: speed, min: 0.1
"""

FEW = """
name: few
recipe: {recipe}
serving: {{max_model_len: 2048, dtype: float32, kv_cache_memory_gib: 1, enforce_eager: true, max_logprobs: 20,
          placement: sequential}}
sampling: {{temperature: 0.0, max_tokens: 32}}
requests: {{concurrency: 8}}
suites:
  divergence: {{trajectories: 4, max_tokens: 32, top_logprobs: 20}}
  ruler: {{lengths: [512], per_task: 4, tasks: [niah_single_1, vt], max_tokens: 32}}
  cot: {{tasks: {{word_problems: {{limit: 8}}}}}}
noise_floor: {{by: server, items: 2}}
checks:
  - {{metric: accuracy, on: ruler, max_loss: 0.3}}
  - {{metric: kl_mean, on: divergence, max: 0.5}}
"""
FEW_PAIRS = 4 + 8 + 8


def policy_of(suites: Collection[str], recipe: Path) -> str:
    """A policy with these suites and the checks on them; settings and serving are the same in all such policies."""
    cot = ["word_problems: {limit: 4}"]
    cot += [f"{task}: {{limit: 1}}" for task, file in COT.items() if (DATA / file).exists()]
    ruler = [task for task, needed in RULER.items() if (DATA / needed).exists() or not needed]
    named = {"cot": ", ".join(cot), "ruler": ", ".join(ruler)}
    lines = ["name: e2e", SERVED.format(recipe=recipe), "suites:"]
    for suite in suites:
        settings = SUITE_SETTINGS[suite]
        lines.append(f"  {suite}: {settings % named[suite] if suite in named else settings}")
    checks = [check for check in CHECKS.split("\n") if any(f"on: {suite}," in check for suite in suites)]
    return "\n".join([*lines, "checks:", *(f"  - {{metric: {check}}}" for check in checks)]) + "\n"


def quantgate(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def servers_of(run: Path) -> list[psutil.Process]:
    """Processes (guards and servers) that name this run folder or its checkpoints' servers in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if "harness.serving.guard" in command and str(run) in command:
            found += [process, *process.children(recursive=True)]
    return found


def wait_for(condition: Callable[[], bool], timeout: float, process: subprocess.Popen[bytes] | None, log: Path) -> None:
    """Wait until `condition` holds; fail with the log's end when `process` ends or `timeout` seconds pass before."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process is None or process.poll() is None, f"the gate ended early:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"nothing after {timeout} s:\n{log.read_text()[-3000:]}"
        time.sleep(0.2)


@pytest.fixture(scope="session", autouse=True)
def data() -> Iterator[None]:
    """QUANTGATE_DATA for every command, where there are data."""
    with pytest.MonkeyPatch.context() as patch:
        if DATA.exists():
            patch.setenv("QUANTGATE_DATA", str(DATA))
        yield


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def few(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small policy: one role after the other, and a fresh server of the reference for the noise floor."""
    path = tmp_path_factory.mktemp("policies") / "few.yaml"
    path.write_text(FEW.format(recipe=recipe))
    return path


@pytest.fixture(scope="session")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, int, str]:
    """One whole gate of the demo model with every suite: the run, the exit code and what was printed.

    Of tests that run side by side the first makes it, for all.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "finished"
    folder.mkdir(exist_ok=True)
    policy, out, ended = folder / "all-suites.yaml", folder / "whole", folder / "ended.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ended.exists():
            policy.write_text(policy_of(SUITE_SETTINGS, recipe))
            result = quantgate("gate", "demo", "--policy", policy, "--out", out, timeout=1200)
            print(result.stdout, result.stderr, file=sys.stderr)
            ended.write_text(json.dumps([result.returncode, result.stdout + result.stderr]))
    status, printed = json.loads(ended.read_text())
    return RunFolder(out), status, printed


@pytest.fixture(scope="session")
def candidate(finished: tuple[RunFolder, int, str]) -> Path:
    """The W4A16 checkpoint which the whole gate made."""
    return Path(finished[0].manifest().models["candidate"].path)
