"""Real servers, a real model, real weights. One small quantized checkpoint is made and shared by the tests here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

POLICY = """
name: e2e
recipe: {recipe}
serving: {{max_model_len: 2048, dtype: bfloat16, kv_cache_memory_gib: 1, enforce_eager: true, max_logprobs: 20,
          placement: {placement}}}
sampling: {{temperature: 0.0, max_tokens: 48}}
requests: {{concurrency: 8}}
suites:
  divergence: {{trajectories: 8, max_tokens: 48, top_logprobs: 20}}
  ruler: {{lengths: [1024], per_task: 3, tasks: [niah_single_1, vt, cwe], max_tokens: 32}}
  cot: {{tasks: {{word_problems: {{limit: 12}}}}}}
noise_floor: {{by: {noise}, items: 2}}
checks:
  - {{metric: accuracy, on: ruler, max_loss: 0.3}}
  - {{metric: truncated_rate, on: cot/*, max_increase: 0.5}}
  - {{metric: kl_mean, on: divergence, max: 0.5}}
  - {{metric: flip_rate, on: divergence, max: 0.3}}
"""
# One decoder layer's worth of calibration is enough to test the way; the demo's own recipe is in `make gate`.
RECIPE = "name: w4a16-tiny\ncalibration: {samples: 4, length: 128}\n"


def quantgate(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def servers_of(run: Path) -> list[psutil.Process]:
    """Processes (guards and servers) that name this run folder or its checkpoints' servers in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "harness.guard" in " ".join(process.info["cmdline"] or []) and str(run) in " ".join(process.info["cmdline"]):
            found += [process, *process.children(recursive=True)]
    return found


def wait_for(condition: Callable[[], bool], timeout: float, process: subprocess.Popen[bytes] | None, log: Path) -> None:
    """Wait until `condition` holds; fail with the log's end when `process` ends or `timeout` seconds pass before."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process is None or process.poll() is None, f"the gate ended early:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"nothing after {timeout} s:\n{log.read_text()[-3000:]}"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small policies, by placement."""
    folder = tmp_path_factory.mktemp("policies")
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE)
    made = {}
    for placement, noise in (("together", "seed"), ("sequential", "server")):
        made[placement] = folder / f"{placement}.yaml"
        made[placement].write_text(POLICY.format(recipe=recipe, placement=placement, noise=noise))
    return made
