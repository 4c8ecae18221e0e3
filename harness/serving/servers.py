"""Servers as processes: started beside each other, awaited, and ended when the gate ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from harness.contract.errors import RunFailed
from harness.contract.secrets import without_secrets
from harness.runs.progress import Meter
from harness.serving.flags import API_KEY, ServerPlan
from harness.serving.guard import GRACE_SECONDS, end_leftovers

HINTS = [
    (
        r"No available memory for the cache blocks|Free memory on device",
        "lower serving.kv_cache_memory_gib, or set serving.placement: sequential",
    ),
    (
        r"CUDA out of memory|OutOfMemoryError",
        "the model does not fit: more GPUs (serving.tensor_parallel_size) or placement: sequential",
    ),
    (r"[Aa]ddress already in use", "the port is taken: leave serving.ports out and free ones are chosen"),
    (r"No package metadata was found for vllm", "the vLLM install is not whole: run `make`"),
    (r"torchvision::nms", "a CUDA build of torchvision lies beside a CPU torch: run `make`"),
    (
        r"greater than the derived max_model_len|max seq len \(|maximum model length|estimated maximum model",
        "serving.max_model_len does not fit the model or the KV cache",
    ),
    (
        r"does not recognize this architecture|are not supported for now",
        "this vLLM does not know the architecture: use a newer one",
    ),
    (r"No working C\+\+ compiler", "install g++ where the server runs, or set serving.enforce_eager: true"),
    (r"No module named 'harness", "the server cannot import quantgate: start it where quantgate is installed"),
    (r"unrecognized arguments|invalid choice", "serving.extra_args has a flag that this vLLM does not know"),
]


class Server:
    """A started server: its guard process and its log."""

    def __init__(self, plan: ServerPlan, log: Path) -> None:
        self.plan = plan
        self.log = log
        self.state = log.with_suffix(".state.json")
        log.parent.mkdir(parents=True, exist_ok=True)
        guard = [sys.executable, "-m", "harness.serving.guard", str(self.state), ",".join(map(str, plan.cpus))]
        key = {API_KEY: plan.api_key} if plan.api_key else {}
        with log.open("ab") as file:
            self._log_start = file.tell()
            self.guard = subprocess.Popen(
                [*guard, json.dumps(plan.cleanup), "--", *plan.command],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**without_secrets(os.environ), **plan.environment, **key},
                start_new_session=True,
            )

    def alive(self) -> bool:
        return self.guard.poll() is None

    def ended_within(self, seconds: float) -> bool:
        """Whether the server is gone, or is so in this time: a guard needs a moment to see its server die."""
        with suppress(subprocess.TimeoutExpired):
            self.guard.wait(seconds)
        return not self.alive()

    def ready(self) -> bool:
        """Whether /health answers 200.

        Raises:
            RunFailed: the server has ended.
        """
        if not self.alive():
            raise self.failure("ended before it was ready")
        try:
            return httpx.get(self.plan.url + "/health", timeout=2.0, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def last_lines(self, count: int = 15) -> list[str]:
        """The end of what this server wrote (not of an earlier server in the same log)."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read()[-100_000:].decode("utf-8", "replace").splitlines()[-count:]

    def failure(self, what: str) -> RunFailed:
        """The error to raise for this server: what happened, a hint when the log gives one, the log's last lines."""
        lines = self.last_lines(200)
        text = "\n".join(lines)
        damage = re.search(r"FormatError: (.+)", text)  # of a checkpoint of ours, by quantgate-kernels
        hint = (
            damage[1] if damage else next((hint for pattern, hint in HINTS if re.search(pattern, text)), "see the log")
        )
        return RunFailed(f"{self.plan.role} server {what}: {hint} ({self.log})", details="\n".join(lines[-15:]))

    def stop(self) -> None:
        """End the server's process group and wait until it is gone."""
        if self.guard.stdin:
            self.guard.stdin.close()
        try:
            self.guard.wait(GRACE_SECONDS + 20)
        except subprocess.TimeoutExpired:
            end_leftovers(self.state)


@contextmanager
def serve(plans: list[ServerPlan], logs: Path, timeout: float, meter: Meter) -> Iterator[list[Server]]:
    """Start servers, wait until all are ready, and end them when the body is left, however it is left.

    Servers that share a GPU are started one after the other: two that start at once see each other's memory and die.

    Raises:
        RunFailed: a server ended or was not ready in time; the log's last lines and a hint are in the error.
    """
    servers: list[Server] = []
    deadline = time.monotonic() + timeout
    gpus = [plan.environment.get("CUDA_VISIBLE_DEVICES") for plan in plans]
    one_by_one = (len(set(gpus)) < len(gpus) and any(gpus)) or any("--gpus" in plan.command for plan in plans)
    try:
        for plan in plans:
            servers.append(Server(plan, logs / f"{plan.role}.log"))
            if one_by_one:
                _wait(servers, deadline, timeout, meter)
        _wait(servers, deadline, timeout, meter)
        yield servers
    finally:
        meter.update(text="ending")
        for server in servers:
            if server.guard.stdin:
                server.guard.stdin.close()  # all begin to end at once
        for server in servers:
            server.stop()


def _wait(servers: list[Server], deadline: float, timeout: float, meter: Meter) -> None:
    waiting = list(servers)
    while waiting:
        waiting = [server for server in waiting if not server.ready()]
        meter.update(done=len(servers) - len(waiting), text="waiting for " + ", ".join(s.plan.role for s in waiting))
        if waiting and time.monotonic() > deadline:
            raise waiting[0].failure(f"was not ready after {timeout:.0f} s (serving.ready_timeout_seconds)")
        if waiting:
            time.sleep(0.5)
    meter.update(text="ready")


def end_dead_run(logs: Path) -> list[str]:
    """End servers that a killed gate left running. Returns the roles found."""
    return [state.name.split(".")[0] for state in sorted(logs.glob("*.state.json")) if end_leftovers(state)]
