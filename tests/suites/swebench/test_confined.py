"""swebench's module runs as it is, and no container of its process is made without label and limits."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from tiny_image import no_engine, tiny_image

from harness.serving.containers import LABEL, ContainerLimits, create_options, remove_leftovers
from suites.swebench.confined import confined_arguments, unmet

REPOSITORY = Path(__file__).parents[3]
LIMITS = ContainerLimits(memory_gib=0.125, pids=64, cpus=0.5)
HOST = {"NetworkMode": "none", "Memory": 128 << 20, "PidsLimit": 64, "NanoCpus": 500_000_000}
CREATE = "client.containers.create(image='i', name='n', user='root', detach=True, command='c', cap_add=['SYS_ADMIN'])"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with FakeEngine() as running:
        running.images = {"i": {"Id": "sha256:1"}}
        monkeypatch.setenv("DOCKER_HOST", running.address)
        yield running


def command(*arguments: str, limits: ContainerLimits = LIMITS, label: str = "/r") -> list[str]:
    return [sys.executable, "-m", "suites.swebench.confined", *confined_arguments(limits, label), "--", *arguments]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}


def run(folder: Path, code: str, *arguments: str, limits: ContainerLimits = LIMITS) -> subprocess.CompletedProcess[str]:
    """Run `code` as the module, in a folder of its own."""
    (folder / "grader_of_test.py").write_text(code, "utf-8")
    return subprocess.run(
        command("grader_of_test", *arguments, limits=limits),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )


def with_client(line: str) -> str:
    return (
        f"import docker\nclient = docker.from_env()\ntry:\n    {line}\nexcept Exception as error:\n    print(error)\n"
    )


def test_what_swebench_creates_gets_label_and_limits(fake: FakeEngine, tmp_path: Path) -> None:
    ended = run(tmp_path, with_client(CREATE))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    (body,) = fake.created
    host = body["HostConfig"]
    assert {key: host[key] for key in HOST} == HOST and host["MemorySwap"] == 128 << 20
    assert body["Labels"] == {LABEL: "/r"} and "CapAdd" not in host
    assert (body["Image"], body["Cmd"], body["User"]) == ("i", ["c"], "root")  # what it asked for itself is kept


def test_only_asked_for_is_swebenchs_own_capability_kept(fake: FakeEngine, tmp_path: Path) -> None:
    limits = LIMITS.model_copy(update={"sys_admin": True, "network": True})
    assert run(tmp_path, with_client(CREATE), limits=limits).returncode == 0
    host = fake.created[0]["HostConfig"]
    assert host["CapAdd"] == ["SYS_ADMIN"] and host.get("NetworkMode") != "none"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (CREATE.replace("detach=True", "privileged=True"), "made with privileged=True, cap_add="),
        (CREATE.replace("SYS_ADMIN", "ALL"), r"made with cap_add=\['ALL'\]"),
        (CREATE.replace("detach=True", "network_mode='host'"), "made with network_mode='host'"),
        ("client.api.create_container('i', 'c')", "in a way that is not known"),
        ("client.containers.run('i', 'c', remove=True, volumes=['/:/host'])", "made with volumes="),
    ],
)
def test_an_unknown_way_to_make_a_container_is_refused(line: str, said: str, fake: FakeEngine, tmp_path: Path) -> None:
    ended = run(tmp_path, with_client(line))  # the module takes the error for one of the instance, as swebench does
    assert ended.returncode == 4 and not fake.created
    assert re.fullmatch(rf"quantgate: a container was to be .*{said}.*\n", ended.stderr)
    assert re.search(said, ended.stdout)


def test_a_container_without_its_limits_is_removed(fake: FakeEngine, tmp_path: Path) -> None:
    fake.drops = ("Memory", "PidsLimit")
    ended = run(tmp_path, with_client(CREATE))
    assert (ended.returncode, fake.removed) == (4, ["new"])
    assert ended.stderr == "quantgate: the engine made a container without its mem_limit, pids_limit\n"


def test_unmet_limits_are_named() -> None:
    attrs = {"HostConfig": HOST, "Config": {"Labels": {LABEL: "/r", "other": "x"}}}
    assert unmet(attrs, LIMITS, "/r") == []
    assert unmet(attrs, LIMITS, "/other") == ["labels"]
    assert unmet({}, LIMITS, "/r") == ["labels", "network_mode", "mem_limit", "pids_limit", "nano_cpus"]
    assert unmet({**attrs, "HostConfig": {}}, ContainerLimits(network=True, memory_gib=None, pids=None), "/r") == []
    assert set(create_options(LIMITS, "/r")) - {"memswap_limit"} == set(unmet({}, LIMITS, "/r"))


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("pass", 0, ""),
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('no dataset')", 1, "no dataset\n"),
        ("raise ValueError('broken row')", 1, "ValueError: broken row\n"),
    ],
)
def test_the_exit_status_is_the_modules(code: str, status: int, said: str, tmp_path: Path) -> None:
    ended = run(tmp_path, code)
    assert ended.returncode == status and ended.stderr.endswith(said) and bool(ended.stderr) == bool(said)


def test_the_module_runs_as_main_with_its_arguments(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FROM_DOTENV=1\n", "utf-8")
    code = (
        "import os, sys, dotenv\ndotenv.load_dotenv('.env')\nprint(__name__, sys.argv[1:], 'FROM_DOTENV' in os.environ)"
    )
    assert run(tmp_path, code, "-p", "x y", "--").stdout == "__main__ ['-p', 'x y', '--'] False\n"


def test_sigterm_ends_it(tmp_path: Path) -> None:
    (tmp_path / "slow_grader.py").write_text("import time\nprint('on', flush=True)\ntime.sleep(60)\n", "utf-8")
    child = subprocess.Popen(
        command("slow_grader"), cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == "on\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize("arguments", [[], ["{}", "/r"], ["{", "/r", "--", "m"], ["{}", "/r", "--"]])
def test_bad_arguments_are_one_line(arguments: list[str]) -> None:
    started = [sys.executable, "-m", "suites.swebench.confined", *arguments]
    ended = subprocess.run(started, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (3, 1)
    assert ended.stderr.startswith("quantgate: python -m suites.swebench.confined LIMITS_JSON")


def test_podman_goes_by_the_name_of_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "podman").write_text("#!/bin/sh\necho podman $1\n", "utf-8")
    (tools / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    code = "import os, subprocess\nos.environ['PATH'] += ':/bin'\nsubprocess.run(['docker', 'stop'], check=True)"
    ended = run(tmp_path, code)
    assert (ended.returncode, ended.stdout) == (0, "podman stop\n")


LOOK = """
echo '>>>>> Start Test Output'
echo network: $(ls /sys/class/net)
echo memory: $(cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes)
while read -r name value; do [ "$name" = CapEff: ] && echo capabilities: $value; done </proc/self/status
read -r value </testbed/value.txt
if [ "$value" = new ]; then echo PASSED t.py::test_value; else echo FAILED t.py::test_value; fi
echo PASSED t.py::test_other
echo '>>>>> End Test Output'
"""
PATCH = "diff --git a/value.txt b/value.txt\n--- a/value.txt\n+++ b/value.txt\n@@ -1 +1 @@\n-old\n+new\n"


def test_the_official_grader_with_real_containers(tmp_path: Path) -> None:
    if no_engine():
        pytest.skip(no_engine())
    tests = {"FAIL_TO_PASS": ["t.py::test_value"], "PASS_TO_PASS": ["t.py::test_other"]}
    row: dict[str, Any] = {"repo": "team/tiny", "version": "1", "image": tiny_image(), "log_parser": "parse_log_flask"}
    row |= {"eval_type": "pass_and_fail", "eval_script": LOOK, **tests}
    mended, other = {"instance_id": "tiny__tiny-1", **row}, {"instance_id": "tiny__tiny-2", **row}
    patches = {"tiny__tiny-1": PATCH, "tiny__tiny-2": PATCH.replace("+new", "+other")}
    asked = [{"instance_id": name, "model_name_or_path": "m", "model_patch": p} for name, p in patches.items()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (mended, other)), "utf-8")
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(p) + "\n" for p in asked), "utf-8")
    options = ["-d", "rows.jsonl", "-s", "test", "-p", "predictions.jsonl", "-id", tmp_path.name, "-t", "60"]
    module = ["swebench.harness.run_evaluation", *options, "--max_workers", "2"]
    started = command(*module, label=str(tmp_path))
    ended = subprocess.run(
        started, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    report = json.loads((tmp_path / f"m.{tmp_path.name}.json").read_text("utf-8"))
    assert (report["resolved_ids"], report["unresolved_ids"]) == (["tiny__tiny-1"], ["tiny__tiny-2"])
    (log, _) = sorted(tmp_path.glob("logs/run_evaluation/*/m/*/test_output.txt"))
    lines = dict(line.split(": ", 1) for line in log.read_text("utf-8").splitlines() if ": " in line)
    assert (lines["network"], lines["memory"]) == ("lo", str(128 << 20))
    assert not int(lines["capabilities"], 16) >> 21 & 1  # CAP_SYS_ADMIN
    assert remove_leftovers(str(tmp_path)) == 0  # the grader removed its own
