"""Limits of containers as arguments, what an engine says of itself, and that only our own containers are removed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_engine import FakeEngine
from tiny_image import no_engine, tiny_image

from harness.contract.errors import BadInput
from harness.contract.validation import validate
from harness.serving.containers import (
    LABEL,
    ContainerLimits,
    EngineError,
    cleanup_command,
    cli,
    create_options,
    engine,
    image_digest,
    main,
    remove_leftovers,
    require_engine,
    run_arguments,
)

NO_LIMITS = ContainerLimits(memory_gib=None, pids=None)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with FakeEngine() as running:
        monkeypatch.setenv("DOCKER_HOST", running.address)
        yield running


def test_the_agents_containers_have_limits_and_no_network() -> None:
    assert run_arguments(ContainerLimits(), "/runs/a b") == [
        *("--rm", "--label", "quantgate.run=/runs/a b", "--network", "none"),
        *("--memory", "8589934592b", "--memory-swap", "8589934592b", "--pids-limit", "2048"),
    ]
    more = run_arguments(ContainerLimits(network=True, memory_gib=0.5, pids=64, cpus=1.5), "/r")
    assert "--network" not in more and more[-2:] == ["--cpus", "1.5"]
    assert more[3:7] == ["--memory", "536870912b", "--memory-swap", "536870912b"]
    assert run_arguments(ContainerLimits(network=True, memory_gib=None, pids=None), "/r") == [
        "--rm",
        "--label",
        f"{LABEL}=/r",
    ]


def test_the_graders_containers_have_the_same() -> None:
    assert create_options(ContainerLimits(cpus=0.5), "/r") == {
        "labels": {LABEL: "/r"},
        "network_mode": "none",
        "mem_limit": 8 << 30,
        "memswap_limit": 8 << 30,
        "pids_limit": 2048,
        "nano_cpus": 500_000_000,
    }
    assert create_options(NO_LIMITS.model_copy(update={"network": True}), "/r") == {"labels": {LABEL: "/r"}}


@pytest.mark.parametrize("bad", [{"memory": 8}, {"memory_gib": 0}, {"pids": 1}, {"cpus": 0}, {"memory_gib": "a lot"}])
def test_limits_that_make_no_sense_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=f"limits: (unknown key '{next(iter(bad))}'|{next(iter(bad))}: )"):
        validate(ContainerLimits, bad, "limits")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("unix:///nowhere/docker.sock", "No such file or directory"),
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("tcp://127.0.0.1:none", "Port could not be cast"),
        ("nonsense://x", "nonsense"),
    ],
)
def test_no_engine_is_one_line(address: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(BadInput) as refused:
        engine()
    line = str(refused.value)
    assert line.startswith(f"no container engine answers: {address}: ") and "\n" not in line
    assert why in line and line.endswith("`quantgate doctor` says how to get one")


def test_what_an_engine_says_of_itself(fake: FakeEngine) -> None:
    found = engine()
    assert (found.name, found.version, found.api_version, found.cpus) == ("Docker", "20.10.24", "1.41", 4)
    assert found.address == fake.address and found.cannot_limit == ()
    fake.name = "Podman Engine"
    assert engine().name == "Podman"


def test_an_engine_that_would_drop_a_limit_is_refused(fake: FakeEngine) -> None:
    fake.info |= {"PidsLimit": False, "MemoryLimit": False}
    with pytest.raises(
        BadInput, match=r"has no cgroup to limit memory_gib and pids with.*set memory_gib and pids to null"
    ):
        require_engine()
    with pytest.raises(BadInput, match="has no cgroup to limit pids with"):
        require_engine(ContainerLimits(memory_gib=None))
    assert require_engine(NO_LIMITS).cannot_limit == ("memory_gib", "pids")
    del fake.info["CpuCfsQuota"]  # an engine that does not say is not believed to
    with pytest.raises(BadInput, match="limit cpus with"):
        require_engine(ContainerLimits(memory_gib=None, pids=None, cpus=1))


def test_more_processors_than_there_are(fake: FakeEngine) -> None:
    assert require_engine(ContainerLimits(cpus=4)).cpus == 4
    with pytest.raises(BadInput, match=r"are to have 4\.5 cpus, Docker at .* has 4"):
        require_engine(ContainerLimits(cpus=4.5))


def test_only_containers_of_the_folder_are_removed(fake: FakeEngine) -> None:
    inside = {"a": "/runs/1", "b": "/runs/1/swebench/candidate/x"}
    outside = {"c": "/runs/10", "d": "/runs", "e": "/other/runs/1", "f": "2026-run-1", "g": ""}
    for name, value in (inside | outside).items():
        fake.add(name, {LABEL: value})
    fake.add("foreign", {"other": "/runs/1"})
    assert remove_leftovers("/runs/1") == 2
    assert sorted(fake.removed) == ["a", "b"] and set(fake.containers) == {*outside, "foreign"}
    assert remove_leftovers("/runs/1") == 0
    for everything in ("", "/"):
        with pytest.raises(ValueError, match="no folder of a run"):
            remove_leftovers(everything)


def test_containers_that_go_by_themselves_are_no_error(fake: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gone", "going", "left"):
        fake.add(name, {LABEL: "/r"})
    fake.refuses_removal = {"gone": 404, "going": 409}
    assert remove_leftovers("/r") == 3 and fake.removed == ["left"]
    fake.refuses_removal = {"gone": 500}
    with pytest.raises(EngineError, match="cannot remove gone"):
        remove_leftovers("/r")
    assert main(["/r"]) == 4
    assert "containers of /r: " in capsys.readouterr().err


def test_the_command_of_a_guard_removes_them(fake: FakeEngine) -> None:
    fake.add("mine", {LABEL: "/r"})
    ended = subprocess.run(cleanup_command("/r"), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, fake.removed) == (0, "removed 1 containers of /r\n", ["mine"])


def test_an_image_by_its_digest(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.images = {
        "team/x:1": {"Id": "sha256:1", "RepoDigests": ["other/notteam/x@sha256:a", "registry.example/team/x@sha256:b"]},
        "only:here": {"Id": "sha256:2", "RepoDigests": None},
    }
    assert image_digest("team/x:1") == "registry.example/team/x@sha256:b"
    assert image_digest("only:here") == "sha256:2"
    assert image_digest("not:there") is None
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    with pytest.raises(EngineError, match="unix:///nowhere: No such file"):
        image_digest("only:here")


def test_docker_or_else_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="no command docker or podman"):
        cli()
    for name in ("podman", "docker"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\n", "utf-8")
        tool.chmod(0o755)
        assert cli() == str(tool)


def test_a_real_container_has_what_its_arguments_say(tmp_path: Path) -> None:
    if no_engine():
        pytest.skip(no_engine())
    limits = ContainerLimits(memory_gib=0.125, pids=64, cpus=0.5)
    ours, other = str(tmp_path / "run"), str(tmp_path / "run2")
    started = [
        subprocess.check_output([cli(), "run", "-d", *run_arguments(limits, label), tiny_image(), "sleep", "600"])
        for label in (ours, other)
    ]
    first, second = (line.decode().strip() for line in started)
    try:
        (found,) = json.loads(subprocess.check_output([cli(), "inspect", first]))
        host = found["HostConfig"]
        assert (host["NetworkMode"], host["Memory"], host["PidsLimit"]) == ("none", 128 << 20, 64)
        assert host["NanoCpus"] == 500_000_000 and found["Config"]["Labels"][LABEL] == ours
        devices = subprocess.check_output([cli(), "exec", first, "ls", "/sys/class/net"], text=True)
        assert devices.split() == ["lo"]
        assert remove_leftovers(ours) == 1
        left = subprocess.check_output([cli(), "ps", "-aq", "--no-trunc"], text=True).split()
        assert first not in left and second in left
    finally:
        assert remove_leftovers(str(tmp_path)) == 1


def test_the_guards_command_is_this_python() -> None:
    assert cleanup_command("/r") == [sys.executable, "-m", "harness.serving.containers", "/r"]
