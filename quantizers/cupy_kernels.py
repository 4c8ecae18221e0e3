"""CUDA kernels of our own, compiled by cupy when they are first needed (NVRTC: no compiler installed)."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch


@functools.cache
def cupy_module() -> Any:
    """The module cupy, or None, which a warning says once."""
    try:
        import cupy
    except ImportError as error:
        warn(f"cupy cannot be imported ({error}): install the cupy wheel of this CUDA version")
        return None
    return cupy


@functools.cache
def warn(reason: str) -> None:
    """Say once why torch does what a kernel would do."""
    warnings.warn(f"quantizers: {reason}; torch searches instead, many times slower", stacklevel=2)


def shared_room(device: torch.device) -> int:
    """Bytes of shared memory that a block of threads may have."""
    room: int = cupy_module().cuda.Device(device.index or 0).attributes["MaxSharedMemoryPerBlockOptin"]
    return room


@functools.cache
def compiled(device: int, source: str, name: str, definitions: tuple[tuple[str, int], ...], shared: int) -> Any:
    """The kernel `name` of `source` for a device, with `shared` bytes of shared memory beside what it declares."""
    options = ("-std=c++17", *(f"-D{key}={value}" for key, value in definitions))
    with cupy_module().cuda.Device(device):
        kernel = cupy_module().RawModule(code=source, options=options, backend="nvrtc").get_function(name)
        kernel.max_dynamic_shared_size_bytes = shared
    return kernel


def launch(
    kernel: Any, grid: tuple[int, ...], threads: int, arguments: Sequence[torch.Tensor | int], device: torch.device
) -> None:
    """Run a kernel on torch's current stream: tensors as pointers, integers as 64 bits."""
    cupy = cupy_module()
    values = tuple(each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments)
    # Deprecated in CuPy 14, but what Stream.from_external makes there destroys torch's stream when it is dropped.
    stream = torch.cuda.current_stream(device).cuda_stream
    with cupy.cuda.Device(device.index or 0), cupy.cuda.ExternalStream(stream):
        kernel(grid, (threads,), values, shared_mem=kernel.max_dynamic_shared_size_bytes)
