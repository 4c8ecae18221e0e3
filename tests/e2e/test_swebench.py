"""SWE-bench with real containers, the real agent and the official grading; only the model is a script."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_server import FakeServer

from harness.checkpoint.models import resolve_model
from harness.contract.whole_files import cache_folder
from harness.runs.folder import RunFolder
from harness.runs.instances import read_result
from harness.serving.containers import LABEL
from tests.e2e.conftest import quantgate, wait_for
from tests.e2e.scripted_model import ScriptedModel
from tests.e2e.swe_instances import instances, missing, scripted_fix

POLICY = """
name: swe
serving: {{max_model_len: 16384, tool_call_parser: hermes}}
sampling: {{temperature: 0.7, top_p: 0.9, top_k: 40, max_tokens: 2048, seed: 5}}
requests: {{concurrency: 4}}
suites:
  swebench: {{dataset: {dataset}, workers: 2, format: {format}, step_limit: 8, retries: 1, pull_seconds: 60,
             grading_seconds: 120, containers: {{memory_gib: {memory}, pids: {pids}}}}}
checks:
  - {{metric: resolved, on: swebench, max_loss: 3 points}}
  - {{metric: unsubmitted_rate, on: swebench, max_increase: 10 points}}
max_unusable: 0.01
"""
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt"
LOOK = "ls /sys/class/net; id -u"

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    return instances(cache_folder() / "swe-instances")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints: a small model, and the same with another word in its configuration."""
    reference = resolve_model("demo", print)
    candidate = tmp_path_factory.mktemp("models") / "candidate"
    shutil.copytree(reference, candidate, copy_function=os.link)
    config = json.loads((reference / "config.json").read_text()) | {"note": "the candidate"}
    (candidate / "config.json").unlink()
    (candidate / "config.json").write_text(json.dumps(config))
    return reference, candidate


@pytest.fixture
def servers() -> Iterator[tuple[FakeServer, FakeServer]]:
    with FakeServer() as reference, FakeServer() as candidate:
        yield reference, candidate


def wrong(row: dict[str, Any]) -> list[str]:
    """Commands that submit a change which fixes nothing."""
    file = next(line[6:] for line in row["patch"].splitlines() if line.startswith("+++ b/"))
    return [f"echo '# nothing' >> {file} && git diff -- {file} > patch.txt", SUBMIT]


def write_policy(folder: Path, rows: list[dict[str, Any]], format: str) -> Path:
    """A policy over these rows. What this engine cannot limit is not asked of it."""
    from harness.serving.containers import engine

    cannot = engine().cannot_limit
    dataset = folder / "rows.jsonl"
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows))
    memory, pids = ("null" if name in cannot else value for name, value in (("memory_gib", "2"), ("pids", "512")))
    path = folder / "policy.yaml"
    path.write_text(POLICY.format(dataset=dataset, format=format, memory=memory, pids=pids))
    return path


def gate_arguments(models: tuple[Path, Path], servers: tuple[FakeServer, FakeServer], run: Path) -> list[str]:
    arguments = ["gate", str(models[1]), "--reference", str(models[0]), "--out", str(run)]
    return [*arguments, "--reference-url", servers[0].url, "--candidate-url", servers[1].url]


def labelled(run: Path) -> list[str]:
    """Ids of the containers whose label is inside this run folder."""
    import docker

    found = docker.from_env().api.containers(all=True, filters={"label": LABEL})
    return [c["Id"] for c in found if c["Labels"][LABEL].startswith(str(run.resolve()))]


def test_both_roles_solve_and_are_graded(
    rows: list[dict[str, Any]],
    models: tuple[Path, Path],
    servers: tuple[FakeServer, FakeServer],
    tmp_path: Path,
) -> None:
    """The reference resolves both, the candidate one of two; of a third instance there is no image."""
    first, second = rows[:2]
    lost = second | {
        "instance_id": "quantgate__lost-1",
        "image": "localhost/quantgate-test/none:1",
        "problem_statement": "Its image is lost.",
    }
    fixes = {row["problem_statement"]: [LOOK, *scripted_fix(row)] for row in (first, second, lost)}
    models_of = ScriptedModel(fixes), ScriptedModel(fixes | {second["problem_statement"]: wrong(second)})
    for server, model in zip(servers, models_of, strict=True):
        server.handler = model
    run = RunFolder(tmp_path / "run")
    policy = write_policy(tmp_path, [first, second, lost], "tool_calls")
    result = quantgate(*gate_arguments(models, servers, run.path), "--policy", policy)
    assert result.returncode == 2, result.stdout + result.stderr

    found = {(s.role, s.item): (s.score, s.answer) for s in run.samples()}
    names = first["instance_id"], second["instance_id"]
    assert found == {
        ("reference", names[0]): (1.0, "resolved"),
        ("reference", names[1]): (1.0, "resolved"),
        ("candidate", names[0]): (1.0, "resolved"),
        ("candidate", names[1]): (0.0, "unresolved"),
        ("reference", "quantgate__lost-1"): (None, "infrastructure error"),
        ("candidate", "quantgate__lost-1"): (None, "infrastructure error"),
    }
    resolved = next(check for check in run.verdict().checks if check.metric == "resolved")
    assert (resolved.n, resolved.b, resolved.c, resolved.verdict) == (2, 1, 0, "INCONCLUSIVE")
    assert all(s.error and s.error.startswith("infrastructure: ") for s in run.samples() if s.score is None)

    kept = read_result(run.path / "swebench" / "candidate" / names[1])
    assert (kept.exit_status, kept.steps, kept.format_errors) == ("Submitted", 2, 0)
    assert kept.image_digest and kept.tests["FAIL_TO_PASS"]["failure"] == second["FAIL_TO_PASS"]
    folder = run.path / "swebench" / "reference" / names[0]
    kept = read_result(folder)
    assert kept.test_output and (folder / kept.test_output).exists() and kept.trajectory
    messages = json.loads((folder / kept.trajectory).read_text())["messages"]
    seen = next(m["extra"]["raw_output"] for m in messages if m["role"] == "tool")
    assert seen.split() == ["lo", "0"]  # loopback is all the network there is
    lost_result = read_result(run.path / "swebench" / "candidate" / "quantgate__lost-1")
    assert len(lost_result.failures) == 2  # tried again, once

    asked = models_of[1].asked[0]
    sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "max_tokens": 2048, "seed": 5}
    assert {name: asked[name] for name in sampling} == sampling
    facts = run.manifest().servers["candidate"].readback
    assert facts["run.budget"].startswith("arrives as asked"), facts["run.budget"]
    assert labelled(run.path) == []
    assert (run.report_path / "swebench" / f"{names[1]}.html").exists()


@pytest.mark.long
def test_a_killed_run_goes_on(
    rows: list[dict[str, Any]],
    models: tuple[Path, Path],
    servers: tuple[FakeServer, FakeServer],
    tmp_path: Path,
) -> None:
    """Everything is killed while agents work, guards included; a resumed run loses, doubles and skips nothing."""
    import docker

    rows = rows[:2]
    slow = {row["problem_statement"]: ["sleep 4", *scripted_fix(row)] for row in rows}
    for server in servers:
        server.handler = ScriptedModel(slow)
    run = RunFolder(tmp_path / "run")
    policy, log = write_policy(tmp_path, rows, "backticks"), tmp_path / "gate.log"
    arguments = gate_arguments(models, servers, run.path)
    client = docker.from_env()
    other = client.containers.run(rows[0]["image"], "sleep 600", detach=True, network_mode="none")
    try:
        with log.open("w") as file:
            command = [sys.executable, "-m", "harness", *arguments, "--policy", str(policy)]
            gate = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        wait_for(lambda: len(labelled(run.path)) >= 2, 120, gate, log)
        family = [psutil.Process(gate.pid), *psutil.Process(gate.pid).children(recursive=True)]
        for process in sorted(family, key=lambda p: p.pid):
            with_guard = process.is_running()
            if with_guard:
                process.send_signal(signal.SIGKILL)
        gate.wait()
        psutil.wait_procs(family, timeout=20)
        assert len(labelled(run.path)) >= 2  # nobody was left to remove them
        result = quantgate(*arguments, "--resume")
        assert result.returncode in (0, 2), result.stdout + result.stderr
        assert labelled(run.path) == []
        other.reload()
        assert other.status == "running"
    finally:
        other.remove(force=True)
    keys = Counter((s.role, s.item, s.answer) for s in run.samples())
    wanted = {(role, row["instance_id"], "resolved") for role in ("reference", "candidate") for row in rows}
    assert keys == dict.fromkeys(wanted, 1)
    assert all(read_result(run.path / "swebench" / role / name).failures == [] for role, name, _ in wanted)
