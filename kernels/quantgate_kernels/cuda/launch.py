"""Compiled kernels, loaded into a device and launched on torch's stream, through the driver's own functions.

`libcuda` is in every process that uses a GPU; some of its functions are called through ctypes, so that nothing but
torch is needed. A launch may be captured in a CUDA graph, and neither waits nor allocates.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from quantgate_kernels.cuda.compile import cubin

_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_CARVEOUT = 9  # CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, in percent
_CLUSTER = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
_OVERLAP = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION


class LaunchError(RuntimeError):
    """The driver refused to load or to start a kernel."""


class _Attribute(ctypes.Structure):
    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint * 16))


class _Config(ctypes.Structure):
    _fields_ = (
        *((f"grid_{axis}", ctypes.c_uint) for axis in "xyz"),
        *((f"block_{axis}", ctypes.c_uint) for axis in "xyz"),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


@dataclass(frozen=True)
class Kernel:
    """A function of a device, and how it is started."""

    handle: int
    threads: int
    shared: int
    """Bytes of dynamic shared memory."""


@functools.cache
def load(
    device: int,
    source: str,
    name: str,
    definitions: tuple[tuple[str, int], ...],
    threads: int,
    shared: int = 0,
    all_shared: bool = False,
) -> Kernel:
    """The kernel `name` of a program on a device; compiled if nobody has yet.

    With `all_shared` a multiprocessor gives its L1 to shared memory as far as it can, so that another block finds room
    beside this kernel's.

    Raises:
        CompileError: NVRTC refuses it, or is not there.
        LaunchError: the driver refuses it.
    """
    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # the context exists from here on
        image = cubin(source, dict(definitions), architecture(device))
        module, handle = ctypes.c_void_p(), ctypes.c_void_p()
        _require(_driver().cuModuleLoadData(ctypes.byref(module), image), f"loading {name}")
        _require(_driver().cuModuleGetFunction(ctypes.byref(handle), module, name.encode()), f"finding {name}")
        if shared > 48 << 10:
            code = _driver().cuFuncSetAttribute(handle, _DYNAMIC_SHARED, shared)
            _require(code, f"{shared} bytes of shared memory for {name}")
        if all_shared:
            _require(_driver().cuFuncSetAttribute(handle, _CARVEOUT, 100), f"the L1 as shared memory for {name}")
        # The driver would load its code at the first launch, which a graph may be capturing by then.
        _require(_driver().cuFuncLoad(handle), f"loading the code of {name}")
    assert handle.value is not None
    return Kernel(handle.value, threads, shared)


def launch(
    kernel: Kernel,
    blocks: int,
    arguments: Sequence[torch.Tensor | int | None],
    device: torch.device,
    overlap: bool = True,
    shared: int | None = None,
    cluster: int = 1,
) -> None:
    """Start a kernel on torch's current stream of the device: tensors as pointers, integers as 64 bits.

    With `overlap` it may begin before the kernels ahead of it have ended (programmatic dependent launch): its source
    waits for them before it touches what they write. `shared` is less than what the kernel was loaded with, if given.
    `cluster` blocks in a row read each other's shared memory.

    Raises:
        LaunchError: the driver refuses.
    """
    numbers = [a if type(a) is int else 0 if a is None else a.data_ptr() for a in arguments]  # type: ignore[union-attr]
    packet = _packet(threading.get_ident(), len(numbers))
    packet.values[:] = numbers
    packet.ask(blocks, kernel.threads, kernel.shared if shared is None else shared, overlap, cluster)
    packet.config.stream = torch.cuda.current_stream(device).cuda_stream
    with nullcontext() if torch.cuda.current_device() == device.index else torch.cuda.device(device):
        code = _driver().cuLaunchKernelEx(packet.at, kernel.handle, packet.places, None)
    if code:
        _require(code, "a launch")


class _Packet:
    """What the driver reads of a launch with so many arguments: made once a thread, for making it takes 10 us."""

    def __init__(self, count: int) -> None:
        self.values = (ctypes.c_int64 * count)()
        first = ctypes.addressof(self.values)
        self.places = (ctypes.c_void_p * count)(*range(first, first + 8 * count, 8))
        self.attributes = (_Attribute * 2)(_Attribute(id=_OVERLAP), _Attribute(id=_CLUSTER, value=(1, 1, 1)))
        self.config = _Config(1, 1, 1, 1, 1, 1, 0, None, self.attributes, 0)
        self.at = ctypes.byref(self.config)

    def ask(self, blocks: int, threads: int, shared: int, overlap: bool = False, cluster: int = 1) -> None:
        """Of the next launch: how many blocks, and of what kind."""
        self.attributes[0].value[0], self.attributes[1].value[0] = overlap, cluster
        self.config.grid_x, self.config.block_x, self.config.shared = blocks, threads, shared
        self.config.count = 1 + (cluster > 1)


@functools.cache
def _packet(thread: int, count: int) -> _Packet:
    del thread  # each has its own
    return _Packet(count)


@functools.cache
def architecture(device: int) -> str:
    """The name by which NVRTC knows a device: `sm_100`, or `sm_90a`, which has Hopper's own instructions.

    Raises:
        LaunchError: the device is older than Hopper.
    """
    major, minor = torch.cuda.get_device_capability(device)
    if major < 9:
        raise LaunchError(f"{torch.cuda.get_device_name(device)} is older than Hopper (sm_90): these kernels need it")
    return "sm_90a" if major == 9 else f"sm_{major}{minor}"


@functools.cache
def multiprocessors(device: int) -> int:
    """How many blocks run side by side where one fills a multiprocessor."""
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


@functools.cache
def clusters(device: int, size: int, shared: int) -> int:
    """How many clusters of so many blocks run side by side where a block, by its shared memory, fills a multiprocessor.

    Fewer than multiprocessors over size: a cluster is of one GPC, which have 18 of them or less, not the same on two
    GPUs of a kind.

    Raises:
        LaunchError: the driver refuses.
    """
    empty = load(device, 'extern "C" __global__ void empty() {}', "empty", (), 32, shared)
    packet, found = _Packet(0), ctypes.c_int()
    packet.ask(size, 32, shared, cluster=size)
    with torch.cuda.device(device):
        code = _driver().cuOccupancyMaxActiveClusters(ctypes.byref(found), empty.handle, packet.at)
    _require(code, f"clusters of {size}")
    return found.value


def _require(code: int, what: str) -> None:
    if code:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(text))
        said = text.value.decode() if text.value else "unknown"
        raise LaunchError(f"the CUDA driver refuses {what}: {said} (error {code})")


@functools.cache
def _driver() -> ctypes.CDLL:
    try:
        found = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise LaunchError("libcuda.so.1 is not found: these kernels need an NVIDIA driver") from None
    found.cuLaunchKernelEx.argtypes = (ctypes.c_void_p,) * 4
    found.cuOccupancyMaxActiveClusters.argtypes = (ctypes.c_void_p,) * 3
    return found
