"""CUDA kernels on a CPU, to the letter but slowly: every thread of a block is a fiber, which waits at barriers.

What it shows is that the source computes what it should; races and speed are for a GPU to show.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

AVAILABLE = shutil.which("g++") is not None and "f16c" in Path("/proc/cpuinfo").read_text("utf-8")
HEAD = r"""
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <immintrin.h>
#include <ucontext.h>
#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
struct float4 { float x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <class A, class B> static auto min(A a, B b) { return b < a ? b : a; }
static float4 dynamic[1 << 16];
static unsigned current, column, line;
struct Index { unsigned& x; unsigned& y; };
static Index threadIdx{current, current}, blockIdx{column, line};
static ucontext_t fibers[1024], home;
static bool done[1024];
static int slots[1024];
static void pause_() { unsigned me = current; swapcontext(&fibers[me], &home); }
static void __syncthreads() { pause_(); }
static int __shfl_xor_sync(unsigned, int value, int other)
{
    slots[current] = value; pause_();
    int found = slots[current ^ other]; pause_();
    return found;
}
static void atomicMin(int* place, int value) { if (value < *place) *place = value; }
static int __float_as_int(float value) { int found; memcpy(&found, &value, 4); return found; }
static float __int_as_float(int value) { float found; memcpy(&found, &value, 4); return found; }
static unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)((((unsigned long long)high << 32) | low) >> by);
}
template <class T> static T __ldcg(const T* place) { return *place; }
static float half_to_float(unsigned half) { return _cvtsh_ss((unsigned short)half); }
static unsigned float_to_half(float value) { return _cvtss_sh(value, 0); }
"""
TAIL = r"""
static void thread_()
{
    CALL;
    done[current] = true;
    pause_();
}
extern "C" void launch(void** arguments_, unsigned columns, unsigned lines, unsigned threads)
{
    arguments = arguments_;
    static char* stacks = (char*)malloc((size_t)1024 << 16);
    for (line = 0; line < lines; line++) for (column = 0; column < columns; column++) {
        for (unsigned t = 0; t < threads; t++) {
            done[t] = false;
            getcontext(&fibers[t]);
            fibers[t].uc_stack.ss_sp = stacks + ((size_t)t << 16);
            fibers[t].uc_stack.ss_size = 1 << 16;
            makecontext(&fibers[t], thread_, 0);
        }
        for (bool any = true; any;) {
            any = false;
            for (unsigned t = 0; t < threads; t++) {
                if (done[t]) continue;
                any = true;
                current = t;
                swapcontext(&home, &fibers[t]);
            }
        }
    }
}
"""


class Kernel:
    """The kernel `name` of a source, compiled for this CPU into `folder`.

    `instead` are the bodies of functions that are written in PTX. Pointers and 64-bit integers are its only parameters.
    """

    def __init__(
        self, source: str, name: str, definitions: Mapping[str, int], folder: Path, instead: Mapping[str, str]
    ) -> None:
        for function, body in instead.items():
            source, count = re.subn(
                rf"(\b{function}\([^)]*\)\n\{{).*?\n\}}", rf"\g<1> {body} }}", source, count=1, flags=re.S
            )
            assert count == 1, function
        source = source.replace("extern __shared__ float4 shared[];", "float4* shared = dynamic;")
        parameters = re.search(rf"\b{name}\((.*?)\)\s*\{{", re.sub(r"//.*", "", source), re.S)
        assert parameters
        types = [" ".join(part.split()[:-1]).replace("__restrict__", "") for part in parameters.group(1).split(",")]
        call = f"{name}({', '.join(f'({kind})arguments[{n}]' for n, kind in enumerate(types))})"
        code = HEAD + source + "static void** arguments;" + TAIL.replace("CALL", call)
        (folder / "kernel.cpp").write_text(code, "utf-8")
        options = [f"-D{key}={value}" for key, value in definitions.items()]
        # Without contraction: what the source does not call a fused product is none.
        command = ["g++", "-O2", "-w", "-ffp-contract=off", "-mf16c", "-mfma", "-shared", "-fPIC", *options]
        subprocess.run([*command, "-o", str(folder / "kernel.so"), str(folder / "kernel.cpp")], check=True)
        self.launch = ctypes.CDLL(str(folder / "kernel.so")).launch

    def __call__(self, grid: tuple[int, ...], threads: int, arguments: Sequence[torch.Tensor | int]) -> None:
        """Run it; tensors are contiguous and on the CPU."""
        values = [each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments]
        columns, lines = (*grid, 1)[:2]
        self.launch((ctypes.c_void_p * len(values))(*values), columns, lines, threads)
