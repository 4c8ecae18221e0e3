"""A run that was killed, on real vLLM servers: one role after the other, a fresh server for the noise floor."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.contract.pairs import pair_samples
from harness.judging.verdict import EXIT_CODES
from harness.runs.folder import RunFolder
from tests.e2e.conftest import FEW_PAIRS, quantgate, servers_of, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.long]  # eight servers, one after the other


def test_a_killed_run_is_finished_by_resume(
    finished: tuple[RunFolder, int, str], candidate: Path, few: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    run = RunFolder(out)
    # The candidate's card names its base_model, a model of the hub, which no test can fetch.
    command = [sys.executable, "-m", "harness", "gate", str(candidate), "--reference", "demo"]
    command += ["--policy", str(few), "--out", str(out)]
    log = tmp_path / "gate.log"
    with log.open("w") as file:
        gate = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        wait_for(lambda: _lines(run.samples_path("ruler")) >= 2, 300, gate, log)
        processes = servers_of(out)
        assert processes, "the gate has no servers, although it got answers"
        gate.send_signal(signal.SIGKILL)
        gate.wait()
    before = {suite: run.samples_path(suite).read_bytes() for suite in ("divergence", "ruler")}
    psutil.wait_procs(processes, timeout=40)
    assert [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []

    result = quantgate("gate", candidate, "--reference", "demo", "--out", out, "--resume")
    assert result.returncode == EXIT_CODES[run.verdict().verdict], result.stderr
    for suite, stored in before.items():
        whole = stored[: stored.rfind(b"\n") + 1]
        assert run.samples_path(suite).read_bytes().startswith(whole), "a stored sample was lost or changed"
    pairing = pair_samples(run.samples())  # raises for a key that is there twice
    assert len(pairing.pairs) == FEW_PAIRS and not pairing.unusable
    _require_noise(run)
    assert servers_of(out) == []


def _require_noise(run: RunFolder) -> None:
    """The reference was measured against itself too: on two items of each task, and it is nearer than the candidate."""
    assert run.manifest().noise_by == "server"
    checks = {check.metric: check for check in run.verdict().checks}
    noise, candidate = checks["kl_mean"].noise, checks["kl_mean"].estimate
    assert noise is not None and candidate is not None and 0 <= noise.estimate < candidate
    answers = checks["accuracy"].noise
    assert answers is not None and answers.n == 4 and answers.discordant is not None


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
