"""Both roles get the same flags and their share of the machine, in processes as in containers."""

import socket
import sys
from dataclasses import replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest

from harness.contract.errors import BadInput, RunFailed
from harness.contract.samples import Role
from harness.contract.settings import Serving
from harness.endpoint.score_route import ScoreRoute
from harness.serving.flags import SERVED_NAME, SERVER_OVERHEAD_GIB, ServerPlan, plan_servers
from harness.serving.hardware import Gpu, Hardware

CPU = Hardware(processor="test", cpus=[4, 5], memory_gib=64, free_gib=32, gpus=[])


def with_gpus(count: int) -> Hardware:
    return replace(CPU, gpus=[Gpu(str(i), "H100", 80.0, 79.0) for i in range(count)])


def config(**fields: Any) -> Serving:
    return Serving(**fields)


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """These are tests of plans: no vLLM needs to be installed."""
    monkeypatch.setattr(metadata, "version", lambda name: "0.32.0+cpu")


@pytest.fixture
def models(tmp_path: Path) -> dict[Role, Path]:
    made: dict[Role, Path] = {"reference": tmp_path / "big", "candidate": tmp_path / "small"}
    for folder in made.values():
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"\0" * 1000)
    return made


def plan(serving: Serving, models: dict[Role, Path], hardware: Hardware) -> list[ServerPlan]:
    return plan_servers(serving, models, hardware, "run-1")


def value(command: list[str], flag: str) -> str:
    assert command.count(flag) == 1, flag
    return command[command.index(flag) + 1]


def assert_same_but_model_and_port(plans: list[ServerPlan]) -> None:
    assert [p.role for p in plans] == ["reference", "candidate"]
    blanked = [["MODEL" if a == str(p.model) else "PORT" if a == str(p.port) else a for a in p.command] for p in plans]
    assert blanked[0] == blanked[1] and blanked[0].count("PORT") == 1 and blanked[0].count("MODEL") == 1
    assert plans[0].port != plans[1].port


@pytest.mark.parametrize("hardware", [CPU, with_gpus(1), with_gpus(2)])
def test_the_roles_differ_in_nothing_but_model_and_port(models: dict[Role, Path], hardware: Hardware) -> None:
    serving = config(
        max_model_len=8192,
        reasoning_parser="glm45",
        tool_call_parser="hermes",
        enforce_eager=True,
        extra_args=("--x", "1"),
    )
    plans = plan(serving, models, hardware)
    assert_same_but_model_and_port(plans)
    for made in plans:
        assert made.command[:4] == [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
        assert made.command[4] == str(made.model) == str(models[made.role])
        assert made.url == f"http://127.0.0.1:{made.port}"


def test_every_setting_of_the_policy_becomes_a_flag(models: dict[Role, Path]) -> None:
    serving = config(
        max_model_len=8192,
        dtype="bfloat16",
        kv_cache_dtype="fp8",
        max_num_seqs=7,
        max_logprobs=33,
        enforce_eager=True,
        reasoning_parser="glm45",
        tool_call_parser="hermes",
        extra_args=("--swap-space", "2"),
    )
    command = plan(serving, models, CPU)[0].command
    expected = {
        "--host": "127.0.0.1",
        "--served-model-name": SERVED_NAME,
        "--max-model-len": "8192",
        "--dtype": "bfloat16",
        "--kv-cache-dtype": "fp8",
        "--max-num-seqs": "7",
        "--max-logprobs": "33",
        "--tensor-parallel-size": "1",
        "--reasoning-parser": "glm45",
        "--tool-call-parser": "hermes",
    }
    assert {flag: value(command, flag) for flag in expected} == expected
    assert "--enforce-eager" in command and "--enable-auto-tool-choice" in command
    assert command[-2:] == ["--swap-space", "2"]
    plain = plan(config(), models, CPU)[0].command
    assert not {"--enforce-eager", "--reasoning-parser", "--tool-call-parser"} & set(plain)


@pytest.mark.parametrize("hardware", [CPU, with_gpus(1)])
def test_the_flags_of_a_server_can_be_read_back_and_only_from_this_machine(
    models: dict[Role, Path], hardware: Hardware
) -> None:
    for made in plan(config(), models, hardware):
        assert made.environment["VLLM_SERVER_DEV_MODE"] == "1"
        assert value(made.command, "--host") == "127.0.0.1"


@pytest.mark.parametrize(("version", "given"), [("0.30.2", False), ("0.31.0", True), ("0.32.0+cpu", True)])
def test_render_is_opened_where_vllm_keeps_it_shut(
    models: dict[Role, Path], monkeypatch: pytest.MonkeyPatch, version: str, given: bool
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    assert ("--enable-scale-out" in plan(config(), models, CPU)[0].command) is given


def test_the_route_of_a_server_is_where_its_flag_says(models: dict[Role, Path]) -> None:
    for made in plan(config(), models, CPU):
        module, _, name = value(made.command, "--middleware").rpartition(".")
        assert getattr(import_module(module), name) is ScoreRoute


def test_a_kv_cache_that_vllm_cannot_read_on_a_cpu_is_refused(models: dict[Role, Path]) -> None:
    with pytest.raises(BadInput, match="whole number on CPU"):
        plan(config(kv_cache_memory_gib=1.5), models, CPU)


@pytest.mark.parametrize(
    ("cores", "shares"),
    [([4, 5], [[4], [5]]), ([0, 1, 2, 3, 4], [[0, 1], [2, 3]]), ([3], [[3], [3]])],
)
def test_cores_are_shared_equally(models: dict[Role, Path], cores: list[int], shares: list[list[int]]) -> None:
    plans = plan(config(kv_cache_memory_gib=2), models, replace(CPU, cpus=cores))
    assert [p.cpus for p in plans] == shares
    for made, share in zip(plans, shares, strict=True):
        assert made.environment["VLLM_CPU_OMP_THREADS_BIND"] == ",".join(map(str, share))
        assert made.environment["VLLM_CPU_KVCACHE_SPACE"] == "2"
        alone = made.environment.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"  # no process for one thread
        assert alone == (len(share) == 1)
        assert "CUDA_VISIBLE_DEVICES" not in made.environment
        assert "--kv-cache-memory-bytes" not in made.command


def test_a_role_that_is_served_alone_gets_all_cores(models: dict[Role, Path]) -> None:
    (alone,) = plan(config(), {"candidate": models["candidate"]}, CPU)
    assert (alone.role, alone.cpus) == ("candidate", [4, 5])


def test_one_gpu_is_shared_and_two_are_divided(models: dict[Role, Path]) -> None:
    shared = plan(config(kv_cache_memory_gib=2), models, with_gpus(1))
    assert [p.environment["CUDA_VISIBLE_DEVICES"] for p in shared] == ["0", "0"]
    assert {value(p.command, "--gpu-memory-utilization") for p in shared} == {"0.45"}
    divided = plan(config(kv_cache_memory_gib=2), models, with_gpus(2))
    assert [p.environment["CUDA_VISIBLE_DEVICES"] for p in divided] == ["0", "1"]
    assert {value(p.command, "--gpu-memory-utilization") for p in divided} == {"0.9"}
    for made in shared + divided:
        assert value(made.command, "--kv-cache-memory-bytes") == str(2 * 2**30)
        assert made.cpus == [] and not any(name.startswith("VLLM_CPU") for name in made.environment)


def test_several_gates_share_a_gpus_memory(models: dict[Role, Path]) -> None:
    one: dict[Role, Path] = {"candidate": models["candidate"]}
    (made,) = plan(config(kv_cache_memory_gib=2), one, replace(with_gpus(1), gpu_share=1 / 3))
    assert value(made.command, "--gpu-memory-utilization") == "0.3"


def test_tensor_parallel_roles_get_gpus_of_their_own(models: dict[Role, Path]) -> None:
    serving = config(tensor_parallel_size=2)
    four = plan(serving, models, with_gpus(4))
    assert [p.environment["CUDA_VISIBLE_DEVICES"] for p in four] == ["0,1", "2,3"]
    three = plan(serving, models, with_gpus(3))
    assert [p.environment["CUDA_VISIBLE_DEVICES"] for p in three] == ["0,1", "0,1"]
    with pytest.raises(BadInput, match="tensor_parallel_size is 2, this machine shows 1 GPUs"):
        plan(serving, models, with_gpus(1))


def test_too_little_memory_is_seen_before_anything_starts(models: dict[Role, Path]) -> None:
    serving, each = config(kv_cache_memory_gib=4), 4 + SERVER_OVERHEAD_GIB
    said = rf"too little memory: 2 server\(s\) need about {2 * each:.1f} GiB, {2 * each - 0.1} GiB are free"
    with pytest.raises(RunFailed, match=said):
        plan(serving, models, replace(CPU, free_gib=2 * each - 0.1))
    assert len(plan(serving, models, replace(CPU, free_gib=2 * each + 0.1))) == 2
    assert len(plan(serving, {"reference": models["reference"]}, replace(CPU, free_gib=each + 0.1))) == 1


def test_the_weights_count_as_memory(models: dict[Role, Path]) -> None:
    with (models["candidate"] / "model-2.safetensors").open("wb") as file:
        file.truncate(3 << 30)  # sparse: no disk is used
    without = 2 * (1 + SERVER_OVERHEAD_GIB)
    with pytest.raises(RunFailed, match=f"need about {without + 3:.1f} GiB"):
        plan(config(kv_cache_memory_gib=1), models, replace(CPU, free_gib=without + 2))


def test_free_ports_are_found_and_those_asked_for_are_used(models: dict[Role, Path]) -> None:
    assert len({p.port for _ in range(5) for p in plan(config(), models, CPU)}) > 1
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    plans = plan(config(ports=ports), models, CPU)
    assert [p.port for p in plans] == list(ports)


def test_a_port_that_is_taken_is_named(models: dict[Role, Path]) -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        used, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        with pytest.raises(RunFailed, match=f"port {used} for the candidate cannot be used"):
            plan(config(ports=(other, used)), models, CPU)


# -- containers ----------------------------------------------------------------------------------------------


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker on the PATH, and nothing else there."""
    tool = tmp_path / "bin" / "docker"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n", "utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    return tool


def test_an_image_is_run_with_the_same_flags(models: dict[Role, Path], docker: Path) -> None:
    serving = config(image="vllm/vllm-openai:v0.33.0", image_args=("--shm-size", "8g"), max_model_len=2048)
    plans = plan_servers(serving, models, CPU, "2026 run/1")
    blanked = []
    for made, core in zip(plans, ("4", "5"), strict=True):
        command = made.command
        assert command[:3] == [str(docker), "run", "--rm"]
        name = value(command, "--name")
        assert name == f"quantgate-2026-run-1-{made.role}" and made.cleanup == [str(docker), "rm", "-f", name]
        assert value(command, "-v") == f"{models[made.role].resolve()}:/model:ro"
        assert value(command, "--network") == "host" and value(command, "--host") == "127.0.0.1"
        assert value(command, "--cpuset-cpus") == core
        assert f"VLLM_CPU_OMP_THREADS_BIND={core}" in command  # in the container, not in ours
        assert "VLLM_SERVER_DEV_MODE=1" in command
        assert made.environment == {} and made.cpus == []
        image = command.index("vllm/vllm-openai:v0.33.0")
        assert command[image - 2 : image] == ["--shm-size", "8g"]
        assert command[image + 1 : image + 3] == ["--model", "/model"]
        assert value(command, "--max-model-len") == "2048"
        blanked.append(["PORT" if a == str(made.port) else a for a in command[image:]])
    assert blanked[0] == blanked[1]


def test_a_container_gets_its_gpus_by_number(models: dict[Role, Path], docker: Path) -> None:
    plans = plan(config(image="i", tensor_parallel_size=2), models, with_gpus(4))
    assert [value(p.command, "--gpus") for p in plans] == ['"device=0,1"', '"device=2,3"']
    assert not any("CUDA_VISIBLE_DEVICES" in argument for p in plans for argument in p.command)


def test_an_image_needs_docker_or_podman(
    models: dict[Role, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"serving\.image needs docker or podman"):
        plan(config(image="i"), models, CPU)
    podman = tmp_path / "podman"
    podman.write_text("#!/bin/sh\n", "utf-8")
    podman.chmod(0o755)
    assert plan(config(image="i"), models, CPU)[0].command[0] == str(podman)


def test_there_is_no_tensor_parallel_on_cpu(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"serving\.tensor_parallel_size is 8, and no GPU is seen: on CPU it must be 1"):
        plan_servers(Serving(tensor_parallel_size=8), {"reference": tmp_path}, CPU, "run")
