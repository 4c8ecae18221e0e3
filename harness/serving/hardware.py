"""What this machine has: cores, memory, GPUs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.contract.errors import BadInput
from harness.contract.text import quoted

GIB = 1 << 30
GPU_SHARE = "QUANTGATE_GPU_SHARE"
"""Environment variable: the part of each GPU that this process may use, where several gates share them."""
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Gpu:
    """One GPU that may be used."""

    index: str
    name: str
    memory_gib: float
    free_gib: float


@dataclass(frozen=True)
class Hardware:
    """A machine, as far as serving needs to know it."""

    processor: str
    cpus: list[int]
    """Core numbers that this process may use."""
    memory_gib: float
    free_gib: float
    gpus: list[Gpu]
    avx512: bool = True
    """Whether the processor has AVX-512 where it is an x86: without it vLLM's CPU build has no KV cache
    of 8 bits, and no int4 of its own."""
    gpu_share: float = 1.0
    """The part of each GPU's memory that servers may take."""

    def record(self) -> dict[str, Any]:
        """As JSON for the manifest."""
        return asdict(self)


def detect() -> Hardware:
    """Look at this machine. GPUs hidden by CUDA_VISIBLE_DEVICES are not seen. Raises BadInput: QUANTGATE_GPU_SHARE."""
    memory = psutil.virtual_memory()
    return Hardware(
        processor=_processor(),
        cpus=sorted(os.sched_getaffinity(0)),
        memory_gib=round(memory.total / GIB, 1),
        free_gib=round(memory.available / GIB, 1),
        gpus=_gpus(),
        avx512=_has_avx512(),
        gpu_share=_gpu_share(),
    )


def _gpu_share() -> float:
    text = os.environ.get(GPU_SHARE, "1")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise BadInput(f"{GPU_SHARE} is {quoted(text)}: it must be a number above 0 and at most 1; unset it")
    return share


def _has_avx512() -> bool:
    """What vLLM's CPU build asks torch for. True on processors that are no x86: they have a build of their own."""
    try:
        flags = next(line for line in _CPU_INFO.read_text("utf-8").splitlines() if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return True
    return {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= {*flags}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def _gpus() -> list[Gpu]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = "--query-gpu=index,uuid,name,memory.total,memory.free"
    result = subprocess.run([tool, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    allowed = None if visible is None else [part.strip() for part in visible.split(",") if part.strip()]
    found = []
    for line in result.stdout.splitlines():
        index, uuid, name, total, free = (part.strip() for part in line.split(","))
        if allowed is None or index in allowed or uuid in allowed:
            found.append(Gpu(index, name, round(float(total) / 1024, 1), round(float(free) / 1024, 1)))
    return found
