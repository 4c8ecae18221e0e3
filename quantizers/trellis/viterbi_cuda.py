"""The search of viterbi.py as one CUDA kernel, compiled when it is first needed by cupy (NVRTC: no compiler installed).

A block of threads searches one tile. The costs of all groups before and after a symbol lie in shared memory (twice
2^(L-k) floats: 128 KiB for L = 16 at 2 bits, which server GPUs have). Each thread has its states' values in registers,
two in a word as bf16, in which int8 over 32 is exact. Which way into a group was the best is written to global memory,
64 bits for each thread and symbol, and read again by the thread that goes back. Equal to the search in torch but for
ties: the way is kept in the lowest k bits of its cost, so that one integer minimum finds both.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch

SOURCE = r"""
#define WAYS (1 << K)                     // into a group, and symbols out of it
#define GROUPS (1 << (L - K))
#define OWN ((GROUPS) / THREADS)          // groups of a thread
#define RUN (OWN < WAYS ? OWN : WAYS)     // neighbouring groups: the same groups come before all of them
#define RUNS (OWN / RUN)
#define WRAPPED 32
#define REACH 8.f
#define FAR 1e30f
typedef unsigned long long u64;

// The best way into a group at a symbol, out of the words [THREADS] that the threads wrote there.
__device__ __forceinline__ unsigned way_into(const u64* words, int group)
{
    int run = group / (THREADS * RUN), rest = group % (THREADS * RUN);
    return (unsigned)(__ldcg(words + rest / RUN) >> ((run * RUN + rest % RUN) * K)) & (WAYS - 1);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) search(
    const float* __restrict__ targets,    // [tiles][256], in units of the scale
    const float* __restrict__ feedback,   // matrices of [16][16]
    const int* __restrict__ owners,       // [tiles]: which of them a tile has
    const float* __restrict__ table,      // [2^L]
    u64* choices,                         // room for [tiles][256 + WRAPPED][THREADS]
    unsigned char* __restrict__ symbols)  // [tiles][256]
{
    extern __shared__ float costs[];      // [2][GROUPS]
    __shared__ float aims[256], errors[16];
    __shared__ u64 best;
    const int thread = threadIdx.x;
    choices += (size_t)blockIdx.x * (256 + WRAPPED) * THREADS;
    targets += blockIdx.x * 256;
    feedback += owners[blockIdx.x] * 256;
    symbols += blockIdx.x * 256;

    // State = way << (L - K) | group. This thread's groups: RUNS runs of RUN, THREADS * RUN apart.
    unsigned values[(OWN * WAYS + 1) / 2];
    #pragma unroll
    for (int i = 0; i < OWN; i++)
        #pragma unroll
        for (int way = 0; way < WAYS; way++) {
            int n = i * WAYS + way, group = (i / RUN) * (THREADS * RUN) + thread * RUN + i % RUN;
            unsigned value = __float_as_uint(table[(way << (L - K)) | group]);
            if (n & 1) values[n >> 1] |= value & 0xffff0000u; else values[n >> 1] = value >> 16;
        }

    int crossing = -1;                    // the group in which the free path crosses the ring's end
    for (int pass = 0; pass < 2; pass++) {
        __syncthreads();
        for (int i = thread; i < 256; i += THREADS) aims[i] = targets[i];
        for (int g = thread; g < GROUPS; g += THREADS) costs[g] = pass == 0 || g == crossing ? 0.f : FAR;
        const int steps = pass == 0 ? 256 + WRAPPED : 256;
        for (int step = 0; step <= steps; step++) {
            const float* now = costs + (step & 1) * GROUPS;
            float* next = costs + ((step + 1) & 1) * GROUPS;
            const bool last = step == steps;
            __syncthreads();
            if (last || (step < 256 && step > 0 && step % 16 == 0)) {
                int group = crossing;     // where the way back begins: in the best group, or where the ring closes
                if (!last || pass == 0) {
                    if (thread == 0) best = ~0ull;
                    __syncthreads();
                    u64 mine = ~0ull;     // positive floats are ordered as their bits are
                    for (int g = thread; g < GROUPS; g += THREADS)
                        mine = min(mine, ((u64)__float_as_uint(now[g]) << 32) | (unsigned)g);
                    for (int other = 16; other; other >>= 1) mine = min(mine, __shfl_xor_sync(~0u, mine, other));
                    if (thread % 32 == 0) atomicMin(&best, mine);
                    __syncthreads();
                    group = (int)(best & 0xffffffffu);
                    __syncthreads();
                }
                if (thread == 0) {
                    const int stop = !last ? step - 16 : pass == 0 ? 256 : 0;
                    for (int i = step - 1; i >= stop; i--) {
                        unsigned state = way_into(choices + (size_t)i * THREADS, group) << (L - K) | group;
                        if (!last) errors[i % 16] = aims[i] - table[state];
                        else if (pass == 1) symbols[i] = state & (WAYS - 1);
                        group = state >> K;
                    }
                    best = (u64)group;
                }
                __syncthreads();
                if (last) { if (pass == 0) crossing = (int)best; break; }
                const int column = step / 16;
                for (int i = step + thread; i < 256; i += THREADS)
                    aims[i] -= errors[i % 16] * feedback[(column - 1) * 16 + i / 16];
                __syncthreads();
            }
            const float aim = fminf(fmaxf(aims[step % 256], -REACH), REACH);
            const float twice = -2.f * aim, base = aim * aim + 1e-4f;  // more than rounding takes: costs stay positive
            u64 word = 0;
            #pragma unroll
            for (int run = 0; run < RUNS; run++) {
                const int first = run * (THREADS * RUN) + thread * RUN;
                float before[WAYS], found[RUN];
                #pragma unroll
                for (int way = 0; way < WAYS; way++) before[way] = now[(way << (L - 2 * K)) | (first >> K)] + base;
                #pragma unroll
                for (int i = 0; i < RUN; i++) {
                    int least = 0x7fffffff;
                    #pragma unroll
                    for (int way = 0; way < WAYS; way++) {
                        const int n = (run * RUN + i) * WAYS + way;
                        float value = __uint_as_float(n & 1 ? values[n >> 1] & 0xffff0000u : values[n >> 1] << 16);
                        float cost = fmaf(value, value + twice, before[way]);
                        least = min(least, (__float_as_int(cost) & ~(WAYS - 1)) | way);
                    }
                    found[i] = __int_as_float(least & ~(WAYS - 1));
                    word |= (u64)(least & (WAYS - 1)) << ((run * RUN + i) * K);
                }
                #pragma unroll
                for (int i = 0; i < RUN; i++) next[first + i] = found[i];
            }
            __stcg(choices + (size_t)step * THREADS + thread, word);
        }
    }
}
"""
SYMBOLS, WRAPPED = 256, 32
STATIC_BYTES = 4096
"""Of shared memory beside the costs; generous."""
WAVES = 8
"""Tiles that each multiprocessor gets in one launch: bounds the memory of the choices, 1.2 MB a tile."""


def threads_of(state_bits: int) -> int:
    """Threads of a block: 16 states each, more where that would be more than 512 threads."""
    return min(512, 1 << (state_bits - 4))


def costs_bytes(state_bits: int, bits: int) -> int:
    """Shared memory for the costs of all groups before and after a symbol."""
    return 2 * 4 << (state_bits - bits)


def usable(device: torch.device, table: torch.Tensor, bits: int) -> bool:
    """Whether the kernel can run there; a warning says why the much slower search in torch must do."""
    state_bits = len(table).bit_length() - 1
    if state_bits < 9 or bits > 4:  # less than a warp, or several thousand ways
        return False
    if (cupy := _cupy()) is None:
        return False
    room = cupy.cuda.Device(device.index or 0).attributes["MaxSharedMemoryPerBlockOptin"]
    if costs_bytes(state_bits, bits) + STATIC_BYTES > room:
        _warn(f"a search over 2^{state_bits} states does not fit this GPU's shared memory")
        return False
    return True


def search(targets: torch.Tensor, feedback: torch.Tensor, table: torch.Tensor, bits: int) -> torch.Tensor:
    """`viterbi.search` of tiles [N, 256] on a CUDA device; arguments as there."""
    cupy = _cupy()
    device, state_bits = targets.device, len(table).bit_length() - 1
    threads, shared = threads_of(state_bits), costs_bytes(state_bits, bits)
    targets, feedback, table = (part.to(torch.float32).contiguous() for part in (targets, feedback, table))
    most = WAVES * torch.cuda.get_device_properties(device).multi_processor_count
    matrices = feedback.numel() // SYMBOLS
    owners = (torch.arange(len(targets), device=device) // (len(targets) // matrices)).to(torch.int32)
    room = min(len(targets), most) * (SYMBOLS + WRAPPED) * threads
    choices = torch.empty(room, dtype=torch.int64, device=device)
    symbols = torch.empty(targets.shape, dtype=torch.uint8, device=device)
    # Deprecated in CuPy 14, but what Stream.from_external makes there destroys torch's stream when it is dropped.
    stream = torch.cuda.current_stream(device).cuda_stream
    with cupy.cuda.Device(device.index or 0), cupy.cuda.ExternalStream(stream):
        kernel = _kernel(device.index or 0, state_bits, bits)
        for part, own, found in zip(*(torch.split(each, most) for each in (targets, owners, symbols)), strict=True):
            pointers = [tensor.data_ptr() for tensor in (part, feedback, own, table, choices, found)]
            kernel((len(part),), (threads,), tuple(pointers), shared_mem=shared)
    return symbols


def definitions(state_bits: int, bits: int) -> tuple[str, ...]:
    """What the compiler is told of a trellis."""
    return ("-std=c++17", f"-DL={state_bits}", f"-DK={bits}", f"-DTHREADS={threads_of(state_bits)}")


@functools.cache
def _kernel(_device: int, state_bits: int, bits: int) -> Any:
    module = _cupy().RawModule(code=SOURCE, options=definitions(state_bits, bits), backend="nvrtc")
    kernel = module.get_function("search")
    kernel.max_dynamic_shared_size_bytes = costs_bytes(state_bits, bits)
    return kernel


@functools.cache
def _cupy() -> Any:
    """The module cupy, or None, which a warning says once."""
    try:
        import cupy
    except ImportError as error:
        _warn(f"cupy cannot be imported ({error}): install the cupy wheel of this CUDA version")
        return None
    return cupy


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(f"trellis search: {reason}; torch searches instead, many times slower", stacklevel=2)
