"""What doctor says of this machine, with and without a policy; every sentence here is checked against a real state."""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from fake_engine import FakeEngine
from huggingface_hub import constants
from typer.testing import CliRunner

from harness.commands import app
from harness.contract.datasets import PUBLIC_DATASETS
from harness.contract.policy import Policy, parse_policy
from harness.doctor import findings as doctor
from harness.doctor.data_files import data_files, data_source
from harness.doctor.findings import Finding, Needs, examine, finding_table, lacks, to_json
from harness.serving.hardware import Gpu, Hardware

CPU = Hardware("a processor", [0, 1], 32.0, 24.0, [])
GPUS = Hardware("a processor", [0, 1], 64.0, 60.0, [Gpu("0", "H100", 80.0, 79.0)])
COT = "{cot: {tasks: {gsm8k: {}, word_problems: {}}}}"
SWEBENCH = "{swebench: {dataset: rows.jsonl}}"
Look = Callable[..., dict[str, Finding]]


def policy(suites: str = COT, serving: str = "{}") -> Policy:
    checks = "checks: [{metric: accuracy, on: cot, max_loss: 0.01}]"
    return parse_policy(f"name: test\nserving: {serving}\nsuites: {suites}\n{checks}\n").policy


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Look:
    """Examine this machine with another machine's hardware, in an empty folder, without an engine or data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache" / "of" / "models"))
    for name in ("QUANTGATE_DATA", "HF_DATASETS_OFFLINE", "MODAL_TOKEN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_DATASETS_CACHE", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def found(asked: Policy | None = None, hardware: Hardware = CPU) -> dict[str, Finding]:
        findings = [finding for check in doctor.CHECKS for finding in check(Needs(asked, hardware))]
        assert len({finding.name for finding in findings}) == len(findings)
        assert all(bool(finding.way_out) == (finding.state != "ok") for finding in findings)
        return {finding.name: finding for finding in findings}

    return found


@pytest.fixture
def fake(look: Look, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with FakeEngine() as running:
        monkeypatch.setenv("DOCKER_HOST", running.address)
        yield running


def test_without_a_policy_swebenchs_things_are_warnings(look: Look) -> None:
    found = look()
    assert found["container engine"].state == "warning" and "no.sock" in found["container engine"].detail
    assert "apt-get install docker.io" in found["container engine"].way_out
    assert found["data of the hub"].state == "warning"
    assert found["data of the hub"].detail.startswith("cot gsm8k (gsm8k/test.jsonl), ")
    assert {"python", "vllm", "devices", "memory", "runs", "cache", "swebench", "mini-swe-agent"} <= found.keys()


def test_a_policy_is_asked_for_what_it_needs_alone(look: Look) -> None:
    found = look(policy())
    assert not found.keys() & {"container engine", "container command", "swebench", "mini-swe-agent"}
    assert found["data of the hub"].detail == "cot gsm8k (gsm8k/test.jsonl)"
    found = look(policy(SWEBENCH))
    assert found["container engine"].state == found["data"].state == "missing"
    assert found["data"].detail == "swebench (rows.jsonl)"
    Path("rows.jsonl").write_text("{}\n", "utf-8")
    assert look(policy(SWEBENCH))["data in files"].detail == "swebench (rows.jsonl)"


def test_modal_needs_no_engine_but_a_token(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = policy("{swebench: {modal: true}}")
    found = look(asked)
    assert "container engine" not in found and found["modal's token"].way_out == "modal token new"
    monkeypatch.setenv("MODAL_TOKEN_ID", "x")
    assert "modal's token" not in look(asked)


def test_modal_needs_packages_of_an_extra(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"swebench": "5.0.2", "mini-swe-agent": "2.4.6", "modal": "1.6.4", "boto3": "1.40.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    found = look(policy("{swebench: {modal: true}}"))
    assert found["swe-rex"] == Finding("swe-rex", "missing", "not installed here", "pip install -e '.[modal]'")
    assert found["modal"].state == found["boto3"].state == "ok"
    monkeypatch.setattr(metadata, "requires", lambda package: ["swe-rex[modal]==1.4.0; extra == 'modal'"])
    versions["swe-rex"] = "1.3.0"
    assert look(policy("{swebench: {modal: true}}"))["swe-rex"].way_out == "pip install -e '.[modal]'"
    assert "swe-rex" not in look(policy(SWEBENCH))


def test_an_engine_that_answers(fake: FakeEngine, look: Look) -> None:
    found = look(policy(SWEBENCH))["container engine"]
    assert found == Finding("container engine", "ok", f"Docker 20.10.24 (API 1.41) at {fake.address}")
    fake.info["PidsLimit"] = False
    found = look(policy(SWEBENCH))["container engine"]
    assert found.state == "missing" and found.detail.endswith(
        "has no cgroup to limit pids with, and would run containers without"
    )
    assert found.way_out.endswith("set pids to null")
    assert look()["container engine"].state == "warning"
    assert look(policy("{swebench: {containers: {pids: null}}}"))["container engine"].state == "ok"


def test_podmans_command_looks_elsewhere(fake: FakeEngine, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    podman = Path("bin/podman").absolute()
    podman.parent.mkdir()
    monkeypatch.setenv("PATH", str(podman.parent))
    assert look(policy(SWEBENCH))["container command"].state == "missing"
    podman.write_text("#!/bin/sh\n", "utf-8")
    podman.chmod(0o755)
    assert look(policy(SWEBENCH))["container command"].way_out.startswith("install docker's client, or set CONTAINER")
    monkeypatch.delenv("DOCKER_HOST")
    assert look(policy(SWEBENCH))["container command"] == Finding("container command", "ok", str(podman))


def test_packages_that_are_not_installed(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    found = look()
    assert found["vllm"].state == "missing" and "serving.image" in found["vllm"].way_out
    assert found["swebench"] == Finding("swebench", "warning", "not installed here", "run `make`")
    assert look(policy(SWEBENCH))["mini-swe-agent"].state == "missing"
    found = look(policy(serving="{image: vllm}"))
    assert "vllm" not in found and found["container engine"].state == "missing"
    assert look(policy("{speed: {}}", "{image: vllm}"))["vllm"].state == "missing"


def test_versions_are_held_against_the_pins(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = ["swebench==5.0.2", "mini-swe-agent<3,>=2.4; extra == 'dev'", "vllm==0.33.*; extra == 'gpu'"]
    versions = {"swebench": "5.1.0", "mini-swe-agent": "2.4.6", "vllm": "0.32.0"}
    monkeypatch.setattr(metadata, "requires", lambda package: pins)
    monkeypatch.setattr(doctor, "_version", versions.get)
    found = look(policy(SWEBENCH), GPUS)
    assert found["swebench"].detail.startswith("5.1.0, and swebench==5.0.2 is needed: scores of other versions")
    assert found["mini-swe-agent"] == Finding("mini-swe-agent", "ok", "2.4.6")
    assert found["swebench"].state == found["vllm"].state == "warning"
    versions["vllm"] = "0.33.1"
    if importlib.util.find_spec("vllm"):
        assert look(policy(), GPUS)["vllm"] == Finding("vllm", "ok", "0.33.1")
        assert look(policy(), CPU)["vllm"].detail == "0.33.1 is built for GPUs, and none is seen"
        versions["vllm"] = "0.33.1+cpu"
        assert look(policy(), GPUS)["vllm"].way_out == "make FLAVOR=gpu"


def test_a_processor_on_which_int4_is_served_as_plain_weights_is_named(look: Look) -> None:
    found = look(policy(), replace(CPU, avx512=False))["devices"]
    assert found.state == "warning" and "AVX-512" in found.detail and "plain" in found.detail
    assert look(policy())["devices"].state == "ok"


def test_memory_of_the_servers_on_cpu(look: Look) -> None:
    found = look(policy(serving="{kv_cache_memory_gib: 10}"))["memory"]
    assert found.state == "missing"
    assert found.detail == "24 of 32 GiB free; 2 server(s) need 24.8 GiB and their weights"
    assert found.way_out.endswith("placement: sequential")
    sequential = "{kv_cache_memory_gib: 10, placement: sequential}"
    assert look(policy(serving=sequential))["memory"].state == "ok"
    small = Hardware("a processor", [0], 8.0, 6.0, [])
    assert look(None, small)["memory"].state == "warning"


def test_gpus_that_a_policy_asks_for(look: Look) -> None:
    assert look(policy(), GPUS)["devices"] == Finding("devices", "ok", "H100 (79 of 80 GiB free)")
    found = look(policy(serving="{tensor_parallel_size: 8}"), GPUS)["devices"]
    assert found.state == "missing" and found.detail.startswith("serving.tensor_parallel_size is 8, 1 GPUs: H100")
    assert look(policy(serving="{kv_cache_memory_gib: 90}"), GPUS)["devices"].state == "missing"
    assert look(policy(serving="{kv_cache_memory_gib: 40}"), GPUS)["memory"].state == "ok"  # it is not in this memory


def test_there_is_no_tensor_parallel_on_cpu(look: Look) -> None:
    found = look(policy(serving="{tensor_parallel_size: 8}"))["devices"]
    assert found.state == "missing" and "8, and no GPU is seen: on CPU it must be 1" in found.detail and found.way_out


def test_disk_is_looked_at_and_nothing_is_made(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "of" / "models"
    found = look()
    assert found["cache"].detail.endswith(f"GiB free in {cache}") and not (tmp_path / "cache").exists()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 30))
    assert look()["runs"] == Finding(
        "runs", "warning", f"1 GiB free in {tmp_path}/runs", "free some, or name another folder: --out"
    )
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert look()["cache"].state == "missing" and look()["cache"].detail == f"{tmp_path} cannot be written to"


def test_data_in_files_of_the_hub_and_nowhere(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = policy("{cot: {tasks: {gsm8k: {}, aime24: {}}}, ruler: {lengths: [4096]}}")
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path / "data"))
    assert look(asked)["QUANTGATE_DATA"].state == "missing"
    for name in ("gsm8k/test.jsonl", "squad/dev.json"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_text("", "utf-8")
    found = look(asked)
    assert found["data in files"].detail == "cot gsm8k (gsm8k/test.jsonl), ruler qa_1 (squad/*.json)"
    assert found["data of the hub"].detail == "cot aime24 (aime/aime24.jsonl), ruler qa_2 (hotpotqa/*.json)"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert look(asked)["data"].state == "missing" and look()["data"].state == "warning"
    (tmp_path / "home" / "datasets--Maxwell-Jia--AIME_2024").mkdir(parents=True)
    (tmp_path / "home" / "hotpotqa___hotpot_qa").mkdir()
    assert "data" not in look(asked)


def test_the_list_of_files_is_that_of_the_document() -> None:
    document = (Path(__file__).parents[3] / "docs" / "suites.md").read_text("utf-8")
    rows = [
        line for line in document.splitlines() if line.startswith("| `") and ("| cot `" in line or "| ruler `" in line)
    ]
    for file in PUBLIC_DATASETS:
        assert any(f"`{file.task}`" in row and file.hub_id.split("/")[0] in row for row in rows), file
    told = [part for row in rows for part in row.split("|")[2].split("`")[1::2]]
    assert sorted(told) == sorted(file.task for file in PUBLIC_DATASETS)


def test_tasks_that_need_no_data() -> None:
    assert data_files({"cot": {"tasks": {"word_problems": {}}}, "ruler": {"tasks": ["vt"]}, "language": None}) == []
    assert [file.task for file in data_files({"ruler": {"lengths": [4096]}})] == ["qa_1", "qa_2"]
    (hub,) = data_files({"swebench": {}})
    assert hub.hub_id == "SWE-bench/SWE-bench_Verified" and data_source(hub, None) in ("hub", "nowhere")


def test_the_command(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = tmp_path / "policy.yaml"
    written.write_text(
        f"name: mine\nsuites: {SWEBENCH}\nchecks: [{{metric: resolved, on: swebench, max_loss: 0.03}}]\n"
    )
    ended = CliRunner().invoke(app, ["doctor", "--policy", str(written), "--json"])
    told = json.loads(ended.stdout)
    assert ended.exit_code == 3 and (told["policy"], told["missing"]) == ("mine", True)
    states = {found["name"]: found["state"] for found in told["findings"]}
    assert states["container engine"] == "missing" and states["python"] == "ok"
    assert told["findings"][0]["detail"].endswith(f"({sys.executable})")
    ended = CliRunner().invoke(app, ["doctor"])
    assert "container engine" in ended.stdout and "warning" in ended.stdout
    assert ended.exit_code == (3 if lacks(examine(None)) else 0)


def test_nothing_missing_ends_with_zero(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", [lambda asked: iter([Finding("[red]x", "warning", "[bold]d", "w")])])
    ended = CliRunner().invoke(app, ["doctor"])
    assert ended.exit_code == 0 and "[red]x" in ended.stdout and "[bold]d" in ended.stdout


def test_json_and_table_say_the_same() -> None:
    findings = [Finding("a", "ok", "d"), Finding("b", "missing", "e", "w")]
    told = json.loads(to_json(findings, None))
    assert told["policy"] is None and told["missing"] is lacks(findings) is True
    assert [found["name"] for found in told["findings"]] == ["a", "b"] and not lacks(findings[:1])
    assert finding_table(findings).row_count == 2
