// Before the tiers: what a warp is told to multiply, and the B operands of the tokens that meet at an expert.
//
// SIDE (tiles that a warp works on side by side), RING (bytes of shared memory that a warp's codes and scales go through)
// and SPLIT (an item is one part of the inputs, else all) are given.

// Up to SIDE neighbouring tiles of one matrix of one expert, and a part of their inputs. Places are those of this lane: of
// the token whose column (lane / 4) it loads and of the token whose sums (lane % 4) it has.
struct Tiles {
    const unsigned* codes;      // of the first tile's first piece
    const unsigned* scales;
    const uint4* operands;
    const float* factors;
    float* out;                 // row lane / 4 of the first tile
    int operand_at;             // at the first piece
    int factor_at;
    int out_at;                 // times `out_step`
    long long out_step;
    int* claims;
    const int* flag;            // the operands are there once this counts to `needed`; null: they are there
    int needed, pieces, of_tile, parts, tiles, tier, count;  // `of_tile`: pieces from one tile to the next one
};

// Where part `part` of so many of `pieces` begins. A sum goes from the first to the last piece of a part, then over
// the parts, whoever does it.
__device__ __forceinline__ int part_begin(int part, int parts, int pieces)
{
    return part * pieces / parts;
}

template <int GROUPS> struct Inputs {
    uint4 b[2];
    float factors[GROUPS];
};

// Of a column that is no token's, the operands stay as they were: no sum that counts sees them.
template <int GROUPS>
__device__ __forceinline__ void load_inputs(Inputs<GROUPS>& x, const uint4* operands, const float* factors, bool here)
{
    if (here) {
        x.b[0] = fresh4(operands);
        x.b[1] = fresh4(operands + 32);
    }
#pragma unroll
    for (int g = 0; g < GROUPS; g++) x.factors[g] = fresh1(factors + g * 4);
}

// Adds 128 inputs to the sums of rows r and r + 8 of the token lane % 4.
template <int GROUPS>
__device__ __forceinline__ void add_piece(float* sums, const unsigned* a, const unsigned* scales,
                                          const Inputs<GROUPS>& x)
{
    const unsigned b[8] = {x.b[0].x, x.b[0].y, x.b[0].z, x.b[0].w, x.b[1].x, x.b[1].y, x.b[1].z, x.b[1].w};
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        int c[4] = {0, 0, 0, 0};
#pragma unroll
        for (int q = g * 4 / GROUPS; q < (g + 1) * 4 / GROUPS; q++) mma(c, a + q * 4, b[q * 2], b[q * 2 + 1]);
        sums[0] += (float)(c[0] * 254 + c[1]) * (low_half(scales[g]) * x.factors[g]);
        sums[1] += (float)(c[2] * 254 + c[3]) * (high_half(scales[g]) * x.factors[g]);
    }
}

__device__ __forceinline__ int peek(const int* place)
{
    int v;
    asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(place) : "memory");
    return v;
}

// What comes after it may read what was written before a count that was seen.
__device__ __forceinline__ void acquire()
{
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

// Counts what this thread wrote, and what others wrote before they met it, as done.
__device__ __forceinline__ int release(int* counter, int by)
{
    int v;
    asm volatile("atom.add.release.gpu.global.s32 %0, [%1], %2;" : "=r"(v) : "l"(counter), "r"(by) : "memory");
    return v;
}

__device__ __forceinline__ void nap()
{
    asm volatile("nanosleep.u32 40;");
}

// All lanes look, so that each has acquired what it reads afterwards. Acquiring empties the L1 cache: once is enough.
__device__ __forceinline__ void wait_until(const int* flag, int needed)
{
    if (flag) {
        while (peek(flag) < needed) nap();
        acquire();
    }
    __syncwarp();
}

// The number of an item that nobody else has, for lane 0.
__device__ __forceinline__ int claim(int* claims, unsigned lane)
{
    return lane == 0 ? atomicAdd(claims, 1) : 0;
}
