"""The search of viterbi.py as one CUDA kernel.

A block of threads searches one tile. The costs of all groups before and after a symbol lie in shared memory (twice
2^(L-k) floats: 128 KiB for L = 16 at 2 bits, which server GPUs have), and where there is room the choices of the last
16 symbols too, which one thread follows back after each column. Each thread has its states' values in registers, two
in a word as halves, in which int8 over 32 is exact.

All arithmetic is exact: targets are rounded to 1/128 (0.01 to 0.1 % of the squared error at 2 to 4 bits), so a cost is
a whole number of units in the mantissa of a float, and the way into a group is its lowest k bits: one integer minimum
of three finds both, and only the winner is masked. By the compiler's listing a state takes 4.2 instructions.
"""

from __future__ import annotations

import torch

from quantizers.cupy_kernels import compiled, cupy_module, launch, shared_room, warn

SOURCE = r"""
#define WAYS (1 << K)                     // into a group, and symbols out of it
#define GROUPS (1 << (L - K))
#define OWN (GROUPS / THREADS)            // groups of a thread
#define RUN (OWN < WAYS ? OWN : WAYS)     // neighbouring groups: the same groups come before all of them
#define RUNS (OWN / RUN)
#define EACH (GROUPS / WAYS)              // groups that are the same way into those after them: neighbours
#define MOST (K < 3 ? 16 : 8)             // ways that a word holds, a power of two
#define PACKED (OWN < MOST ? OWN : MOST)
#define WORDS (OWN / PACKED)              // of a thread and symbol
#define WINDOW (WORDS * THREADS * 16)     // words of a column
#define PLAIN(i) ((i) % 8 < PLAIN_OF_8)   // groups whose values are floats in registers, not halves
#define STEPS (256 + 32)                  // of the first search; of the second: JOINED, whole columns
#define REACH 5.f
// Costs lie between SHIFT and 2 SHIFT, where floats are UNIT apart: targets are rounded to 1/128 and values are eighths
// of 1/4, so squares are whole 1/16384, and the way into a group has the K bits below.
#define UNIT (1.f / (16384 << K))
#define SHIFT (8388608.f * UNIT)
#define FAR 1e30f

__device__ __forceinline__ unsigned minus(unsigned pair, unsigned other)
{
    unsigned found;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(found) : "r"(pair), "r"(other));
    return found;
}

__device__ __forceinline__ float low(unsigned pair)
{
    float found;
    asm("{.reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, a;}" : "=f"(found) : "r"(pair));
    return found;
}

__device__ __forceinline__ float high(unsigned pair)
{
    float found;
    asm("{.reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, b;}" : "=f"(found) : "r"(pair));
    return found;
}

__device__ __forceinline__ unsigned half_of(float value)
{
    unsigned short found;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(found) : "f"(value));
    return found;
}

// The way into a group, out of the words that threads wrote at a symbol.
__device__ __forceinline__ int way_into(const unsigned* words, int group)
{
    const int run = group / (THREADS * RUN), rest = group % (THREADS * RUN), n = run * RUN + rest % RUN;
    return words[n / PACKED * THREADS + rest / RUN] >> (32 - K * (PACKED - n % PACKED)) & (WAYS - 1);
}

// The cost of a group, and in its lowest bits which way it is into the groups after it.
__device__ __forceinline__ float with_way(int cost, int way)
{
    return __int_as_float((cost & ~(WAYS - 1)) | way);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) search(
    const float* __restrict__ targets,    // [tiles][256], in units of the scale
    const float* __restrict__ feedback,   // matrices of [16][16]
    const int* __restrict__ owners,       // [tiles]: which of them a tile has
    const float* __restrict__ table,      // [2^L]
    unsigned* choices,                    // room for [tiles][STEPS][WORDS][THREADS]
    unsigned char* __restrict__ symbols)  // [tiles][256]
{
    extern __shared__ float4 shared[];
    float* costs = (float*)shared;        // [2][GROUPS]
    unsigned* recent = (unsigned*)(costs + 2 * GROUPS);  // if RECENT: the choices of 16 symbols
    __shared__ float aims[256], errors[16];
    __shared__ int least_cost, least_group;
    const unsigned thread = threadIdx.x;
    choices += (size_t)blockIdx.x * STEPS / 16 * WINDOW;
    targets += blockIdx.x * 256;
    feedback += owners[blockIdx.x] * 256;
    symbols += blockIdx.x * 256;

    // State = way << (L - K) | group. This thread's groups: RUNS runs of RUN, THREADS * RUN apart.
    float plain[OWN][WAYS];               // of groups that are PLAIN, and the others' pairs: what is not used of
    unsigned pairs[OWN][WAYS / 2];        // either takes no registers
    #pragma unroll
    for (int i = 0; i < OWN; i++) {
        const int group = i / RUN * (THREADS * RUN) + thread * RUN + i % RUN;
        #pragma unroll
        for (int way = 0; way < WAYS; way += 2) {
            plain[i][way] = table[(way << (L - K)) | group];
            plain[i][way + 1] = table[((way + 1) << (L - K)) | group];
            pairs[i][way / 2] = half_of(plain[i][way]) | half_of(plain[i][way + 1]) << 16;
        }
    }

    int crossing = 0, joint = 0;          // the groups that the second search begins and ends in
    for (int pass = 0; pass < 2; pass++) {
        __syncthreads();
        for (int i = thread; i < 256; i += THREADS) aims[i] = targets[i];
        for (int g = thread; g < GROUPS; g += THREADS)
            costs[g] = with_way(__float_as_int(pass == 0 || g == crossing ? SHIFT : FAR), g / EACH);
        const int steps = pass == 0 ? STEPS : JOINED;
        for (int step = 0;; step++) {
            float* now = costs + (step & 1) * GROUPS;
            float* next = costs + ((step + 1) & 1) * GROUPS;
            __syncthreads();
            if (step == steps || (step % 16 == 0 && step > 0 && step < 256)) {
                if (thread == 0) least_cost = least_group = 0x7fffffff;
                __syncthreads();
                int mine = 0x7fffffff;    // positive floats are ordered as their bits are
                for (int g = thread; g < GROUPS; g += THREADS) mine = min(mine, __float_as_int(now[g]));
                int least = mine;
                for (int other = 16; other; other >>= 1) least = min(least, __shfl_xor_sync(~0u, least, other));
                if (thread % 32 == 0) atomicMin(&least_cost, least);
                __syncthreads();
                const int best = least_cost;
                const float excess = __int_as_float(best & ~(WAYS - 1)) - SHIFT;
                for (int g = thread; g < GROUPS; g += THREADS) {
                    if (__float_as_int(now[g]) == best) atomicMin(&least_group, g);
                    now[g] -= excess;
                }
                __syncthreads();
                const bool last = step == steps;
                int group = last && pass == 1 ? joint : least_group;
                const int stop = !last ? step - 16 : pass == 0 ? JOINED : 0;
                for (int top = step - 16; top >= stop; top -= 16) {
                    const unsigned* words = RECENT ? recent : choices + top / 16 * WINDOW;
                    if (RECENT && top != step - 16) {
                        __syncthreads();
                        const unsigned* from = choices + top / 16 * WINDOW + thread;
                        unsigned copied[WINDOW / THREADS];
                        #pragma unroll
                        for (int i = 0; i < WINDOW / THREADS; i++) copied[i] = __ldcg(from + i * THREADS);
                        #pragma unroll
                        for (int i = 0; i < WINDOW / THREADS; i++) recent[i * THREADS + thread] = copied[i];
                        __syncthreads();
                    }
                    if (thread == 0) {
                        for (int i = 15; i >= 0; i--) {
                            const int state = way_into(words + i * (WINDOW / 16), group) << (L - K) | group;
                            if (!last) errors[i] = aims[top + i] - table[state];
                            else if (top < 256) symbols[top + i] = state & (WAYS - 1);
                            group = state >> K;
                        }
                        if (top == 256) least_cost = group;  // which was read above, and has no other use now
                    }
                }
                if (last) {
                    if (pass == 0 && thread == 0) least_group = group;
                    __syncthreads();
                    crossing = least_cost;
                    joint = least_group;
                    break;
                }
                __syncthreads();
                const int column = step / 16;
                for (int i = step + thread; i < 256; i += THREADS)
                    aims[i] -= errors[i % 16] * feedback[(column - 1) * 16 + i / 16];
                __syncthreads();
            }
            const float aim = rintf(fminf(fmaxf(aims[step % 256], -REACH), REACH) * 128.f) * (1.f / 128.f);
            const unsigned both = half_of(aim) * 0x10001u;
            const float* from = now + thread * RUN / WAYS;
            float* to = next + thread * RUN;
            unsigned word = 0;
            #pragma unroll
            for (int run = 0; run < RUNS; run++) {
                const int own = run * (THREADS * RUN) / EACH + (THREADS * RUN > EACH ? thread * RUN / EACH : 0);
                float before[WAYS];
                float found[RUN];
                #pragma unroll
                for (int way = 0; way < WAYS; way++) before[way] = from[way * EACH + run * (THREADS * RUN / WAYS)];
                #pragma unroll
                for (int i = 0; i < RUN; i++) {
                    int least = 0x7fffffff;
                    #pragma unroll
                    for (int way = 0; way < WAYS; way += 2) {
                        float one, two;
                        if (PLAIN(run * RUN + i)) {
                            one = plain[run * RUN + i][way] - aim;
                            two = plain[run * RUN + i][way + 1] - aim;
                        } else {
                            const unsigned pair = minus(pairs[run * RUN + i][way / 2], both);
                            one = low(pair);
                            two = high(pair);
                        }
                        least = min(least, min(__float_as_int(fmaf(one, one, before[way])),
                                               __float_as_int(fmaf(two, two, before[way + 1]))));
                    }
                    found[i] = with_way(least, own);
                    word = __funnelshift_r(word, least, K);
                    if ((run * RUN + i + 1) % PACKED == 0) {
                        const int at = (run * RUN + i) / PACKED * THREADS + thread;
                        if (RECENT) recent[step % 16 * (WINDOW / 16) + at] = word;
                        if (!RECENT || pass == 1 || step >= JOINED) choices[step * (WINDOW / 16) + at] = word;
                    }
                }
                #pragma unroll
                for (int i = 0; i < RUN; i += RUN % 4 ? 1 : 4)
                    if (RUN % 4) to[run * (THREADS * RUN) + i] = found[i];
                    else *(float4*)(to + run * (THREADS * RUN) + i)
                        = make_float4(found[i], found[i + 1], found[i + 2], found[i + 3]);
            }
        }
    }
}
"""
SYMBOLS, WRAPPED, COLUMN = 256, 32, 16
JOINED = 64
"""Symbols of the second search, whole columns. All 256 take 50 % longer and have 0.4 to 0.9 % less squared error
(docs/experts.md)."""
STATIC_BYTES = 4096
"""Of shared memory beside the costs and choices; generous."""
PLAIN_OF_8 = 2
"""Of 8 groups of a thread: how many have their values as floats, where a half has to be made one at each symbol.
Registers hold 4 at most. With 0, 2, 3 and 4 a layer took 291, 280, 282 and 287 s on an H200 (docs/experts.md)."""
WAVES = 8
"""Tiles that each multiprocessor gets in one launch: bounds the memory of the choices, 1.2 MB a tile."""


def threads_of(state_bits: int) -> int:
    """Threads of a block: 16 states each, more where that would be more than 512 threads."""
    return min(512, 1 << (state_bits - 4))


def words_of(state_bits: int, bits: int) -> int:
    """Words of 32 bits for the choices of a thread at a symbol."""
    own = (1 << (state_bits - bits)) // threads_of(state_bits)
    return own // min(own, 16 if bits < 3 else 8)


def shared_bytes(state_bits: int, bits: int, *, recent: bool) -> int:
    """Shared memory for the costs of all groups before and after a symbol, and for the choices of a column."""
    choices = COLUMN * words_of(state_bits, bits) * threads_of(state_bits) if recent else 0
    return (2 * 4 << (state_bits - bits)) + 4 * choices + STATIC_BYTES


def usable(device: torch.device, table: torch.Tensor, bits: int) -> bool:
    """Whether the kernel can run there; a warning says why the much slower search in torch must do."""
    state_bits = len(table).bit_length() - 1
    if state_bits < 9 or bits > 4:  # less than a warp, or several thousand ways
        return False
    if cupy_module() is None:
        return False
    if shared_bytes(state_bits, bits, recent=False) > shared_room(device):
        warn(f"a search over 2^{state_bits} states does not fit this GPU's shared memory")
        return False
    return True


def search(targets: torch.Tensor, feedback: torch.Tensor, table: torch.Tensor, bits: int) -> torch.Tensor:
    """`viterbi.search` of tiles [N, 256] on a CUDA device; arguments as there."""
    device, state_bits = targets.device, len(table).bit_length() - 1
    threads = threads_of(state_bits)
    targets, feedback, table = (part.to(torch.float32).contiguous() for part in (targets, feedback, table))
    most = WAVES * torch.cuda.get_device_properties(device).multi_processor_count
    matrices = feedback.numel() // SYMBOLS
    owners = (torch.arange(len(targets), device=device) // (len(targets) // matrices)).to(torch.int32)
    room = min(len(targets), most) * (SYMBOLS + WRAPPED) * words_of(state_bits, bits) * threads
    choices = torch.empty(room, dtype=torch.int32, device=device)
    symbols = torch.empty(targets.shape, dtype=torch.uint8, device=device)
    recent = shared_bytes(state_bits, bits, recent=True) <= shared_room(device)
    definitions = (
        ("L", state_bits),
        ("K", bits),
        ("THREADS", threads),
        ("RECENT", int(recent)),
        ("PLAIN_OF_8", PLAIN_OF_8),
        ("JOINED", JOINED),
    )
    shared = shared_bytes(state_bits, bits, recent=recent) - STATIC_BYTES
    kernel = compiled(device.index or 0, SOURCE, "search", definitions, shared)
    for part, own, found in zip(*(torch.split(each, most) for each in (targets, owners, symbols)), strict=True):
        launch(kernel, (len(part),), threads, [part, feedback, own, table, choices, found], device)
    return symbols
