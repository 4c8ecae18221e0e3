"""One block of the sweep over codebooks (quantizers/sweep.py) as one CUDA kernel.

In torch the scores of all entries are written to memory and read again, 8 bytes for each weight, try and entry: for the
experts of a layer of GLM-5 at 3 bits 126 s, against 15 s where they stay in registers (H200; docs/experts.md). A thread
has a few rows; the entries pass through shared memory; of four entries the best score is compared, and which of the
four it was is found in the end.
"""

from __future__ import annotations

import torch

from quantizers.cupy_kernels import compiled, cupy_module, launch, shared_room

SOURCE = r"""
#define THREADS 256
#define TOGETHER 4                        // entries whose scores are compared at once

__device__ __forceinline__ float score(const float* entry, float bias, const float* point)
{
    float found = bias;
    #pragma unroll
    for (int i = 0; i < D; i++) found = fmaf(entry[i], point[i], found);
    return found;
}

extern "C" __global__ void __launch_bounds__(THREADS) nearest(
    const float* __restrict__ part,       // [experts][rows][width]: the weights of a group
    const float* __restrict__ turns,      // [experts][blocks][D][D]
    const float* __restrict__ entries,    // [experts][blocks][K][D]: of the table, turned
    const float* __restrict__ biases,     // [experts][blocks][K]
    const float* __restrict__ table,      // [K][D]
    const float* __restrict__ scales,     // [experts][rows]
    int* __restrict__ codes,              // [experts][rows][blocks]
    float* __restrict__ errors,           // [experts][rows][width]
    long long rows, long long blocks, long long block)
{
    extern __shared__ float4 shared[];
    float* held = (float*)shared;         // [TILE][D]
    float* base = held + TILE * D;        // [TILE]
    const long long expert = blockIdx.y, own = expert * blocks + block, width = blocks * D;
    const long long first = (long long)blockIdx.x * THREADS * POINTS + threadIdx.x;
    turns += own * D * D;
    entries += own * K * D;
    biases += own * K;

    float points[POINTS][D], best[POINTS];
    int at[POINTS];
    #pragma unroll
    for (int p = 0; p < POINTS; p++) {
        const long long row = expert * rows + min(first + p * THREADS, rows - 1);
        const float* target = part + row * width + block * D;
        const float inverse = 1.f / scales[row];
        best[p] = -3e38f;
        at[p] = 0;
        #pragma unroll
        for (int j = 0; j < D; j++) points[p][j] = 0.f;
        #pragma unroll
        for (int i = 0; i < D; i++)
            #pragma unroll
            for (int j = 0; j < D; j++) points[p][j] = fmaf(target[i], turns[i * D + j], points[p][j]);
        #pragma unroll
        for (int j = 0; j < D; j++) points[p][j] *= inverse;
    }
    for (int start = 0; start < K; start += TILE) {
        __syncthreads();
        for (int i = threadIdx.x; i < TILE * D / 4; i += THREADS) shared[i] = ((const float4*)(entries + start * D))[i];
        for (int i = threadIdx.x; i < TILE; i += THREADS) base[i] = biases[start + i];
        __syncthreads();
        for (int k = 0; k < TILE; k += TOGETHER) {
            float four[TOGETHER * D], bias[TOGETHER];
            #pragma unroll
            for (int i = 0; i < TOGETHER * D / 4; i++) *(float4*)(four + 4 * i) = shared[k * D / 4 + i];
            *(float4*)bias = *(const float4*)(base + k);
            #pragma unroll
            for (int p = 0; p < POINTS; p++) {
                float most = score(four, bias[0], points[p]);
                #pragma unroll
                for (int n = 1; n < TOGETHER; n++) most = fmaxf(most, score(four + n * D, bias[n], points[p]));
                if (most > best[p]) { best[p] = most; at[p] = start + k; }
            }
        }
    }
    #pragma unroll
    for (int p = 0; p < POINTS; p++) {
        const long long place = first + p * THREADS, row = expert * rows + place;
        if (place >= rows) continue;
        int code = at[p];
        for (int n = TOGETHER - 1; n >= 0; n--)  // the same arithmetic: one of them is equal
            if (score(entries + (at[p] + n) * D, biases[at[p] + n], points[p]) == best[p]) code = at[p] + n;
        codes[row * blocks + block] = code;
        #pragma unroll
        for (int i = 0; i < D; i++)
            errors[row * width + block * D + i] = part[row * width + block * D + i] - table[code * D + i] * scales[row];
    }
}
"""
THREADS, POINTS, TILE = 256, 4, 1024
"""Threads of a block of the kernel, rows of each, and the most entries in shared memory at a time."""


def usable(weights: torch.Tensor, table: torch.Tensor) -> bool:
    """Whether the kernel can do it; a warning says where cupy is missing."""
    entries, dimensions = table.shape
    return (
        weights.is_cuda
        and dimensions in (4, 8)
        and entries % min(entries, TILE) == 0
        and entries % 4 == 0
        and cupy_module() is not None
        and shared_room(weights.device) >= _shared_bytes(entries, dimensions)
    )


def nearest(
    part: torch.Tensor,
    metric: torch.Tensor,
    entries: torch.Tensor,
    bias: torch.Tensor,
    table: torch.Tensor,
    scale: torch.Tensor,
    codes: torch.Tensor,
    errors: torch.Tensor,
    block: int,
) -> None:
    """Fill in the codes int32 [E, N, g/d] and errors [E, N, g] of one block of `part` [E, N, g]; all contiguous.

    Args:
        metric: float32 [E, g/d, d, d]; `entries` [E, g/d, K, d] are the table [K, d] times it, and `bias` [E, g/d, K]
            half of their squared norms, negative.
        scale: [E, N].
    """
    count, rows, _ = part.shape
    size, dimensions = table.shape
    definitions = (("D", dimensions), ("K", size), ("POINTS", POINTS), ("TILE", min(size, TILE)))
    index = part.device.index or 0
    kernel = compiled(index, SOURCE, "nearest", definitions, _shared_bytes(size, dimensions))
    grid = (-(-rows // (THREADS * POINTS)), count)
    tensors = [part, metric, entries, bias, table, scale, codes, errors]
    launch(kernel, grid, THREADS, [*tensors, rows, metric.shape[1], block], part.device)


def _shared_bytes(entries: int, dimensions: int) -> int:
    return 4 * min(entries, TILE) * (dimensions + 1)
