"""How both roles will be served: one set of flags, each with its own port and its share of cores or GPUs."""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import sys
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

from packaging.version import Version

from harness.contract.errors import BadInput, RunFailed
from harness.contract.samples import Role
from harness.contract.settings import Serving
from harness.serving.hardware import GIB, Hardware
from harness.serving.plugin import MOUNTED, needs_plugin, plugin_folder

SERVED_NAME = "quantgate"
"""Both roles are served under one name, so that both are sent the same bytes."""

API_KEY = "VLLM_API_KEY"
"""Environment variable of vLLM: the key that it asks for."""

SERVER_OVERHEAD_GIB = 2.4
"""Memory of a vLLM server on CPU beside weights and KV cache (measured: 3.4 GiB with 1 GiB of KV, 135M weights)."""


@dataclass(frozen=True)
class ServerPlan:
    """How one role will be served. Pure data: nothing has been started."""

    role: Role
    model: Path
    port: int
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    """Set on top of the environment of this process."""
    cpus: list[int] = field(default_factory=list)
    cleanup: list[str] = field(default_factory=list)
    """Command that removes what ending the process group may leave (a container)."""
    api_key: str = field(default="", repr=False)
    """What the server asks for below /v1. Only its process gets it, by its environment: a command line is for all to
    see, and is kept."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def plan_servers(serving: Serving, models: dict[Role, Path], hardware: Hardware, run_id: str) -> list[ServerPlan]:
    """Divide the machine between the roles of `models` that run at the same time, in the order reference, candidate.

    Raises:
        BadInput: no vLLM, no container engine, or too few GPUs.
        RunFailed: a port that is taken, or too little memory.
    """
    if not hardware.gpus and serving.tensor_parallel_size > 1:
        raise BadInput(one_process(serving))
    ports = _ports(serving, models)
    plans = []
    for share, (role, model) in enumerate(models.items()):
        # Dev mode opens /server_info, from which the flags are read back, and routes that can steer the server: on
        # loopback only, as everything here. It changes no answer.
        environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_SERVER_DEV_MODE": "1"}
        arguments = _arguments(serving, ports[role])
        cpus: list[int] = []
        if hardware.gpus:
            arguments += ["--kv-cache-memory-bytes", str(int(serving.kv_cache_memory_gib * GIB))]
            gpus, alone = _gpu_share(serving, hardware, share, len(models))
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
            share_of_memory = hardware.gpu_share * (0.9 if alone else 0.45)
            arguments += ["--gpu-memory-utilization", f"{share_of_memory:.3g}"]
        else:
            cpus = _cpu_share(hardware, share, len(models))
            environment |= {
                "VLLM_CPU_KVCACHE_SPACE": f"{serving.kv_cache_memory_gib:g}",
                "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
                "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)),
            }
            if len(cpus) == 1:
                # One thread has nothing to be bound to, which is what vLLM's CPU worker has a process of its own for: a
                # third of what a start takes is saved.
                environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            if serving.enforce_eager:
                # vLLM compiles its log-probability code all the same, with a C++ compiler that may not be there.
                environment["TORCHDYNAMO_DISABLE"] = "1"
        if serving.image:
            plans.append(_container(serving, role, model, ports[role], arguments, environment, cpus, run_id))
        else:
            command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model), *arguments]
            plans.append(ServerPlan(role, model, ports[role], command, environment, cpus))
    if not hardware.gpus:
        if serving.kv_cache_memory_gib % 1:
            raise BadInput("serving.kv_cache_memory_gib must be a whole number on CPU: vLLM reads no other there")
        _require_memory(serving, plans, hardware)
    return plans


def with_api_key(plans: list[ServerPlan]) -> list[ServerPlan]:
    """The same servers with a key of their own, new each time, which is kept nowhere: nobody else may ask them."""
    key = secrets.token_urlsafe(32)
    return [replace(plan, api_key=key) for plan in plans]


def one_process(serving: Serving) -> str:
    """Why a machine without GPUs cannot serve in parallel, in a sentence."""
    return f"serving.tensor_parallel_size is {serving.tensor_parallel_size}, and no GPU is seen: on CPU it must be 1"


def _arguments(serving: Serving, port: int) -> list[str]:
    """The flags of `vllm serve` that both roles get; only the port differs."""
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", SERVED_NAME]
    arguments += ["--max-model-len", str(serving.max_model_len), "--dtype", serving.dtype]
    arguments += ["--kv-cache-dtype", serving.kv_cache_dtype, "--max-num-seqs", str(serving.max_num_seqs)]
    arguments += ["--max-logprobs", str(serving.max_logprobs)]
    arguments += ["--tensor-parallel-size", str(serving.tensor_parallel_size)]
    if serving.enforce_eager:
        arguments.append("--enforce-eager")
    if serving.reasoning_parser:
        arguments += ["--reasoning-parser", serving.reasoning_parser]
    if serving.tool_call_parser:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", serving.tool_call_parser]
    if not serving.image and _vllm_version() >= Version("0.31"):
        # Opens /render, from which the stop settings are read back; older versions have it open. Loopback only.
        arguments.append("--enable-scale-out")
    if not serving.image:  # an image need not hold this package; without the route, completions give the same numbers
        arguments += ["--middleware", "harness.endpoint.score_route.ScoreRoute"]
    return [*arguments, *serving.extra_args]


def _vllm_version() -> Version:
    try:
        return Version(metadata.version("vllm"))
    except metadata.PackageNotFoundError:
        raise BadInput("vLLM is not installed here: run `make`, or name a container in serving.image") from None


def _ports(serving: Serving, models: dict[Role, Path]) -> dict[Role, int]:
    wanted: dict[Role, int] = {}
    if serving.ports:
        wanted = {"reference": serving.ports[0], "candidate": serving.ports[1]}
    held = []
    chosen: dict[Role, int] = {}
    for role in models:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted.get(role, 0)))
        except OSError as error:
            raise RunFailed(
                f"port {wanted[role]} for the {role} cannot be used ({error.strerror}); "
                "free it, or leave serving.ports out and free ones are chosen"
            ) from None
        held.append(listener)
        chosen[role] = listener.getsockname()[1]
    for listener in held:
        listener.close()
    return chosen


def _gpu_share(serving: Serving, hardware: Hardware, share: int, roles: int) -> tuple[list[str], bool]:
    """GPUs of the share-th role, and whether no other role uses them."""
    need, have = serving.tensor_parallel_size, [gpu.index for gpu in hardware.gpus]
    if need * roles <= len(have):
        return have[share * need : (share + 1) * need], True
    if need <= len(have):
        return have[:need], roles == 1
    raise BadInput(f"serving.tensor_parallel_size is {need}, this machine shows {len(have)} GPUs")


def _cpu_share(hardware: Hardware, share: int, roles: int) -> list[int]:
    count = max(1, len(hardware.cpus) // roles)
    return hardware.cpus[share * count : (share + 1) * count] or hardware.cpus


def _require_memory(serving: Serving, plans: list[ServerPlan], hardware: Hardware) -> None:
    need = 0.0
    for plan in plans:
        weights = sum(file.stat().st_size for file in plan.model.glob("*.safetensors")) / GIB
        need += weights + serving.kv_cache_memory_gib + SERVER_OVERHEAD_GIB
    if need > hardware.free_gib:
        raise RunFailed(
            f"too little memory: {len(plans)} server(s) need about {need:.1f} GiB, {hardware.free_gib} GiB are free; "
            "lower serving.kv_cache_memory_gib or set serving.placement: sequential"
        )


def _container(
    serving: Serving,
    role: Role,
    model: Path,
    port: int,
    arguments: list[str],
    environment: dict[str, str],
    cpus: list[int],
    run_id: str,
) -> ServerPlan:
    """The same server out of an image. The host's network is used, so that the port stays on loopback."""
    engine = shutil.which("docker") or shutil.which("podman")
    if engine is None:
        raise BadInput("serving.image needs docker or podman on the PATH; install one, or leave serving.image out")
    name = f"quantgate-{re.sub(r'[^a-zA-Z0-9_.-]', '-', run_id)}-{role}"
    command = [engine, "run", "--rm", "--name", name, "--label", f"quantgate.run={run_id}", "--network", "host"]
    command += ["--ipc", "host", "-v", f"{model.resolve()}:/model:ro"]
    if cpus:
        command += ["--cpuset-cpus", ",".join(map(str, cpus))]
    if "CUDA_VISIBLE_DEVICES" in environment:
        command += ["--gpus", f'"device={environment.pop("CUDA_VISIBLE_DEVICES")}"']
    if needs_plugin(model):
        command += ["-v", f"{plugin_folder()}:{MOUNTED}:ro"]
        environment["PYTHONPATH"] = MOUNTED
    for key, value in environment.items():
        command += ["-e", f"{key}={value}"]
    command += ["-e", API_KEY]  # out of the environment of this command, if it is there
    command += [*serving.image_args, str(serving.image), "--model", "/model", *arguments]
    return ServerPlan(role, model, port, command, {}, [], cleanup=[engine, "rm", "-f", name])
