"""CUDA kernels on a CPU, to the letter but slowly: every thread of a block is a fiber, which waits at barriers.

What it shows is that the source computes what it should, in either of two orders of warps; speed is for a GPU to show.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

AVAILABLE = shutil.which("g++") is not None and "f16c" in Path("/proc/cpuinfo").read_text("utf-8")
HEAD = r"""
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
#define __align__(n) alignas(n)
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
template <class A, class B> static auto min(A a, B b) { return b < a ? b : a; }
template <class A, class B> static auto max(A a, B b) { return b > a ? b : a; }
// A fiber is thread `current` of block `rank` of its cluster; `dynamic` is that block's shared memory.
const int MOST_BLOCKS = 8, MOST_FIBERS = 2048;
static float4 of_blocks[MOST_BLOCKS][1 << 14], *dynamic;
static unsigned fiber, current, rank, column, line, columns_, lines_, threads_, cluster_;
struct Index { unsigned& x; unsigned& y; };
static Index threadIdx{current, current}, blockIdx{column, line};
static Index gridDim{columns_, lines_}, blockDim{threads_, threads_};
static ucontext_t fibers[MOST_FIBERS], home;
static bool done[MOST_FIBERS], moved;
static unsigned long long all_slots[MOST_FIBERS][8], (*slots)[8];
static void pause_() { unsigned me = fiber; swapcontext(&fibers[me], &home); }
static void go_on(unsigned which)
{
    fiber = which; rank = which / threads_; current = which % threads_;
    column = column / cluster_ * cluster_ + rank;
    dynamic = of_blocks[rank]; slots = all_slots + rank * threads_;
    swapcontext(&home, &fibers[which]);
}

// Fibers first ... first + count - 1 wait for each other, those that have returned left out.
struct Meeting { unsigned arrived, generation; };
static Meeting of_cluster, of_block[MOST_BLOCKS], of_warp[MOST_BLOCKS][32];
static void meet(Meeting& meeting, unsigned first, unsigned count)
{
    const unsigned generation = meeting.generation;
    meeting.arrived++;
    moved = true;
    for (long turns = 0; meeting.generation == generation; turns++) {
        unsigned here = 0;
        for (unsigned t = first; t < first + count; t++) here += !done[t];
        if (meeting.arrived >= here) { meeting.arrived = 0; meeting.generation++; break; }
        if (turns > 1000000) { fprintf(stderr, "thread %u waits for ever\n", current); abort(); }
        pause_();
    }
    moved = true;
}
static void cluster_meets() { meet(of_cluster, 0, cluster_ * threads_); }
// PTX ISA, mbarrier: arrivals and bytes that are awaited, and the parity of the phase; copies are there at once.
struct Barrier { unsigned short count, left; int bytes : 31; unsigned parity : 1; };
static void begin(void* place, unsigned count)
{
    Barrier fresh = {};
    fresh.count = fresh.left = count;
    memcpy(place, &fresh, sizeof fresh);
}
static void change(void* place, unsigned arrived, int bytes)
{
    Barrier& own = *(Barrier*)place;
    own.left -= arrived;
    own.bytes += bytes;
    if (own.left || own.bytes) return;
    own.left = own.count;
    own.parity ^= 1;
}
static bool wait_a_moment(void* place, unsigned parity)
{
    static unsigned long turns;
    const bool ended = ((Barrier*)place)->parity != parity;
    turns = ended ? 0 : turns + 1;
    if (turns > 100000000) { fprintf(stderr, "thread %u waits for ever\n", current); abort(); }
    if (ended) moved = true;
    else pause_();
    return ended;
}
static const void* in_block(const void* own, unsigned block)
{
    return (char*)of_blocks[block] + ((char*)own - (char*)dynamic);
}
static void __syncthreads() { meet(of_block[rank], rank * threads_, threads_); }
static void __syncwarp(unsigned = 0xffffffffu)
{
    const unsigned first = current / 32 * 32;
    meet(of_warp[rank][current / 32], rank * threads_ + first, min(32u, threads_ - first));
}
template <class T> static T __shfl_sync(unsigned, T value, int lane)
{
    memcpy(slots[current], &value, sizeof value); __syncwarp();
    T found; memcpy(&found, slots[current / 32 * 32 + (lane & 31)], sizeof found); __syncwarp();
    return found;
}
template <class T> static T __shfl_xor_sync(unsigned all, T value, int other)
{
    return __shfl_sync(all, value, (current ^ other) & 31);
}
// PTX ISA, mma.m16n8k32 of int8: c += A B, a warp's fragments as there.
static void mma_s8(int* c, const unsigned* a, unsigned b0, unsigned b1)
{
    const unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    memcpy(slots[current], mine, sizeof mine); __syncwarp();
    const unsigned base = current / 32 * 32, lane = current % 32;
    auto byte = [&](unsigned of, unsigned word, unsigned place) {
        return (int)((signed char*)slots[base + of])[word * 4 + place];
    };
    for (int i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + i / 2 * 8, column_ = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 32; k++)
            c[i] += byte(row % 8 * 4 + k % 16 / 4, row / 8 + k / 16 * 2, k % 4)
                    * byte(column_ * 4 + k % 16 / 4, 4 + k / 16, k % 4);
    }
    __syncwarp();
}
// PTX ISA, mma.m16n8k16 of bfloat16 (`brain`) or float16 with float32 sums.
static float half_to_float(unsigned half);
static float __uint_as_float(unsigned value);
static void mma_f32(float* c, const unsigned* a, unsigned b0, unsigned b1, bool brain)
{
    const unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    memcpy(slots[current], mine, sizeof mine); __syncwarp();
    const unsigned base = current / 32 * 32, lane = current % 32;
    auto value = [&](unsigned of, unsigned word, unsigned place) {
        const unsigned bits = ((unsigned short*)slots[base + of])[word * 2 + place];
        return brain ? __uint_as_float(bits << 16) : half_to_float(bits);
    };
    for (int i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + i / 2 * 8, column_ = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; k++)
            c[i] += value(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2, k % 2)
                    * value(column_ * 4 + k % 8 / 2, 4 + k / 8, k % 2);
    }
    __syncwarp();
}
// PTX ISA, ldmatrix.m8n8.x4 of 16 bits.
static void load_matrices(unsigned* v, const char* row)
{
    memcpy(slots[current], &row, sizeof row); __syncwarp();
    for (unsigned i = 0; i < 4; i++) {
        const char* found;
        memcpy(&found, slots[current / 32 * 32 + i * 8 + current % 32 / 4], sizeof found);
        memcpy(v + i, found + current % 4 * 4, 4);
    }
    __syncwarp();
}
static unsigned __reduce_max_sync(unsigned all, unsigned value)
{
    for (unsigned bit = 1; bit < 32; bit *= 2) value = max(value, __shfl_xor_sync(all, value, bit));
    return value;
}
static int __popc(unsigned value) { return __builtin_popcount(value); }
static unsigned __byte_perm(unsigned low, unsigned high, unsigned selector)
{
    const unsigned long long both = (unsigned long long)high << 32 | low;
    unsigned found = 0;
    for (int i = 0; i < 4; i++) found |= (unsigned)(both >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
    return found;
}
static int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++) c += (signed char)(a >> 8 * i) * (signed char)(b >> 8 * i);
    return c;
}
static void atomicMin(int* place, int value) { if (value < *place) *place = value; }
static int __float_as_int(float value) { int found; memcpy(&found, &value, 4); return found; }
static float __int_as_float(int value) { float found; memcpy(&found, &value, 4); return found; }
static unsigned __float_as_uint(float value) { unsigned found; memcpy(&found, &value, 4); return found; }
static float __uint_as_float(unsigned value) { float found; memcpy(&found, &value, 4); return found; }
static unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)((((unsigned long long)high << 32) | low) >> by);
}
template <class T> static T __ldcg(const T* place) { return *place; }
template <class T> static T __ldg(const T* place) { return *place; }
// The instructions of F16C by their own names: <immintrin.h> takes longer to read than a kernel to compile.
typedef short Halves __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(16)));
static float half_to_float(unsigned half) { return __builtin_ia32_vcvtph2ps(Halves{(short)half})[0]; }
static unsigned float_to_half(float value)
{
    return (unsigned short)((Halves)__builtin_ia32_vcvtps2ph(Floats{value}, 0))[0];
}
static unsigned float_to_bfloat(float value)
{
    const unsigned bits = __float_as_uint(value);
    return value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
"""
TAIL = r"""
static void thread_()
{
    CALL;
    done[fiber] = moved = true;
    pause_();
}
extern "C" void launch(void** arguments_, unsigned columns, unsigned lines, unsigned threads, unsigned cluster,
                       unsigned backwards)
{
    arguments = arguments_;
    columns_ = columns; lines_ = lines; threads_ = threads; cluster_ = cluster;
    const unsigned warps = (threads + 31) / 32, count = cluster * threads;
    static char* stacks = (char*)malloc((size_t)MOST_FIBERS << 16);
    if (count > MOST_FIBERS || cluster > MOST_BLOCKS || columns % cluster) abort();
    for (line = 0; line < lines; line++) for (unsigned place = 0; place < columns; place += cluster) {
        column = place;
        memset(of_blocks, 0xff, cluster * sizeof of_blocks[0]);  // NaN to floats: shared memory holds nothing at first
        of_cluster = {};
        memset(of_block, 0, sizeof of_block);
        memset(of_warp, 0, sizeof of_warp);
        for (unsigned t = 0; t < count; t++) {
            done[t] = false;
            getcontext(&fibers[t]);
            fibers[t].uc_stack.ss_sp = stacks + ((size_t)t << 16);
            fibers[t].uc_stack.ss_size = 1 << 16;
            makecontext(&fibers[t], thread_, 0);
        }
        for (bool any = true; any;) {
            any = false;
            for (unsigned turn = 0; turn < cluster * warps; turn++) {
                const unsigned which = backwards ? cluster * warps - 1 - turn : turn;
                const unsigned first = which / warps * threads + which % warps * 32;
                const unsigned end = min(first + 32, (which / warps + 1) * threads);
                for (moved = true; moved;) {  // a warp goes on until it waits for others
                    moved = false;
                    for (unsigned t = first; t < end; t++) {
                        if (done[t]) continue;
                        any = true;
                        go_on(t);
                    }
                }
            }
        }
    }
}
"""


@functools.cache
def _compiled(code: str, options: tuple[str, ...]) -> Any:
    """The function `launch` of a source; tests share what they compile, as they share most kernels."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        source.write_text(code, "utf-8")
        # Without contraction: what the source does not call a fused product is none.
        command = ["g++", "-O0", "-w", "-ffp-contract=off", "-mf16c", "-mfma", "-shared", "-fPIC", *options]
        subprocess.run([*command, "-o", str(library), str(source)], check=True)
        return ctypes.CDLL(str(library)).launch


class Kernel:
    """The kernel `name` of a source, compiled for this CPU.

    `instead` are the bodies of functions that are written in PTX. Pointers and 64-bit integers are its only parameters.
    """

    def __init__(self, source: str, name: str, definitions: Mapping[str, int], instead: Mapping[str, str]) -> None:
        for function, body in instead.items():
            source, count = re.subn(
                rf"(\b{function}\([^)]*\)\s*\{{).*?\n\}}", rf"\g<1> {body} }}", source, count=1, flags=re.S
            )
            assert count == 1, function
        source = source.replace("extern __shared__ float4 shared[];", "float4* shared = dynamic;")
        parameters = re.search(rf"\b{name}\((.*?)\)\s*\{{", re.sub(r"//.*", "", source), re.S)
        assert parameters
        types = [" ".join(part.split()[:-1]).replace("__restrict__", "") for part in parameters.group(1).split(",")]
        call = f"{name}({', '.join(f'({kind})arguments[{n}]' for n, kind in enumerate(types))})"
        code = HEAD + source + "static void** arguments;" + TAIL.replace("CALL", call)
        self.launch = _compiled(code, tuple(f"-D{key}={value}" for key, value in definitions.items()))

    def __call__(
        self,
        grid: tuple[int, ...],
        threads: int,
        arguments: Sequence[torch.Tensor | int],
        backwards: bool = False,
        cluster: int = 1,
    ) -> None:
        """Run it, `cluster` blocks in a row at once; tensors are contiguous and on the CPU.

        Each warp runs as far as it can before the next, `backwards` from the last to the first: if results differ, a
        barrier is missing.
        """
        values = [each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments]
        columns, lines = (*grid, 1)[:2]
        self.launch((ctypes.c_void_p * len(values))(*values), columns, lines, threads, cluster, int(backwards))
