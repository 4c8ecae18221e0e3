"""Both roles out of a container image, with a real engine and a real vLLM inside.

QUANTGATE_TEST_IMAGE names an image whose entrypoint is `vllm serve`, QUANTGATE_TEST_IMAGE_ARGS further arguments of
`docker run` (CONTRIBUTING.md says how to make a thin one). Without them, or without an engine, these tests skip.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.contract.pairs import pair_samples
from harness.judging.verdict import EXIT_CODES
from harness.runs.folder import RunFolder
from tests.e2e.conftest import quantgate, wait_for

ENGINE = shutil.which("docker") or shutil.which("podman")
IMAGE = os.environ.get("QUANTGATE_TEST_IMAGE", "")
POLICY = """
name: container
recipe: {recipe}
serving: {{max_model_len: 2048, dtype: float32, enforce_eager: true, max_logprobs: 20,
          image: {image}, image_args: {args}}}
sampling: {{temperature: 0.0, max_tokens: 32}}
suites:
  ruler: {{lengths: [1024], per_task: 3, tasks: [niah_single_1], max_tokens: 32}}
  divergence: {{trajectories: 3, max_tokens: 32, top_logprobs: 20}}
checks: [{{metric: kl_mean, on: divergence, max: 0.5}}]
"""


def engine_runs() -> bool:
    return ENGINE is not None and subprocess.run([ENGINE, "info"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not IMAGE, reason="QUANTGATE_TEST_IMAGE names no image with vLLM"),
    pytest.mark.skipif(not engine_runs(), reason="no container engine answers (docker info)"),
]


@pytest.fixture
def policy(recipe: Path, tmp_path: Path) -> Path:
    args = shlex.split(os.environ.get("QUANTGATE_TEST_IMAGE_ARGS", ""))
    path = tmp_path / "container.yaml"
    path.write_text(POLICY.format(recipe=recipe, image=IMAGE, args=args))
    return path


def containers() -> list[str]:
    """Names of the containers that carry our label."""
    command = [str(ENGINE), "ps", "-a", "--filter", "label=quantgate.run", "--format", "{{.Names}}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_both_roles_from_one_image(policy: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    result = quantgate("gate", "demo", "--policy", policy, "--out", run.path)
    assert result.returncode == EXIT_CODES[run.verdict().verdict], result.stderr
    assert len(pair_samples(run.samples()).pairs) == 6
    commands = [facts.command for facts in run.manifest().servers.values()]
    assert all(IMAGE in command and "run" in command for command in commands)
    assert containers() == []


def test_containers_end_with_a_killed_gate(policy: Path, tmp_path: Path) -> None:
    log = tmp_path / "gate.log"
    command = [sys.executable, "-m", "harness", "gate", "demo", "--policy", str(policy), "--out", str(tmp_path / "run")]
    with log.open("w") as file:
        gate = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        wait_for(lambda: len(containers()) == 2, 300, gate, log)
        gate.send_signal(signal.SIGKILL)
        gate.wait()
    wait_for(lambda: containers() == [], 60, None, log)
