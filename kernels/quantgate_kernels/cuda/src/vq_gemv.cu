// y = W x of up to 4 * N_TILES tokens, from codes in the order of order.py and operands as activations.cu leaves them.
//
// A block takes WARPS / splits tiles of 16 rows at a time (`in_flight`); the pieces (128 inputs) of a tile are dealt to
// `splits` warps in turn. A warp's codes are loaded PREFETCH pieces ahead, the first of them before the table is in
// shared memory and before this kernel's inputs are there. Each piece is summed in int32, scaled once a group into
// float32; the sums of a tile's warps meet in shared memory and are added in the order of the warps: the same bits
// every time.
//
// GROUP (128, 64, 32), N_TILES (1, 2, 4, 8, 16), WARPS, PREFETCH, SLOTS (tiles of a warp between two barriers) and
// OUT (0: float32, 1: bfloat16, 2: float16) are given, and what fragments.cuh asks for.

#define GROUPS (128 / GROUP)
#define THREADS (WARPS * 32)

struct Piece {
    Codes codes;
    unsigned scales[GROUPS];  // fp16 of the rows r (low) and r + 8
};

struct Operands {
    uint4 b[2];
    float factors[GROUPS];
};

// The operands of n tile n that this lane needs: columns of tokens that are not there are zeros. Plain loads: another
// kernel may have written them while this one was already running, so they are not read-only to it.
__device__ __forceinline__ Operands load_operands(const uint4* operands, const float* factors, long long place,
                                                  int columns, unsigned lane)
{
    Operands found;
    found.b[0] = found.b[1] = make_uint4(0, 0, 0, 0);
    if ((int)(lane >> 2) < columns) {
        found.b[0] = operands[place * 64 + lane];
        found.b[1] = operands[place * 64 + 32 + lane];
    }
#pragma unroll
    for (int g = 0; g < GROUPS; g++) found.factors[g] = factors[(place * GROUPS + g) * 4 + (lane & 3)];
    return found;
}

// Adds a piece to the sums of rows r and r + 8, of the token lane % 4 of an n tile.
__device__ __forceinline__ void add_piece(float* sums, const unsigned* a, const unsigned* scales, const Operands& x)
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

__device__ __forceinline__ void store(void* out, long long place, float value)
{
#if OUT == 0
    ((float*)out)[place] = value;
#elif OUT == 1
    ((unsigned short*)out)[place] = to_bfloat(value);
#else
    ((unsigned short*)out)[place] = to_half(value);
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) vq_gemv(
    const unsigned* codes, const unsigned* scales, const unsigned* table, const uint4* operands, const float* factors,
    void* out, long long tokens, long long rows, long long row_pieces, long long row_splits)
{
    extern __shared__ float4 shared[];
    char* lookup = (char*)shared;
    float* partial = (float*)(lookup + TABLE_BYTES);  // [SLOTS, WARPS, N_TILES, 2, 32]
    const unsigned thread = threadIdx.x, lane = thread & 31;
    const int warp = thread >> 5, pieces = (int)row_pieces, splits = (int)row_splits;
    const int tiles = (int)((rows + 15) / 16), in_flight = WARPS / splits;
    const int split = warp % splits, place = warp / splits;
    const int stride = gridDim.x * in_flight, block_first = blockIdx.x * in_flight;
    const int steps = (tiles - block_first + stride - 1) / stride;
    let_next_begin();

    // Codes first: they depend on no other kernel. Between two barriers ("batch": SLOTS tiles) a warp takes a multiple
    // of PREFETCH places in the ring, the last of which may be empty: so each place's registers are known to the compiler.
    Piece ring[PREFETCH];
    int load_tile = place < in_flight ? block_first + place : tiles, load_piece = split, load_slot = 0;
    auto fetch = [&](int i) {
        if (load_slot < SLOTS && load_tile < tiles) {
            const long long at = (long long)load_tile * pieces + load_piece;
            ring[i].codes = load_codes(codes, at, lane);
#pragma unroll
            for (int g = 0; g < GROUPS; g++) ring[i].scales[g] = stream1(scales + (at * GROUPS + g) * 8 + (lane >> 2));
            load_piece += splits;
            if (load_piece >= pieces) {
                load_piece = split;
                load_tile += stride;
                load_slot++;
            }
        }
        if (i == PREFETCH - 1 && load_slot == SLOTS) load_slot = 0;
    };
#pragma unroll
    for (int i = 0; i < PREFETCH; i++) fetch(i);
    fill_table(lookup, table, thread, THREADS);
    wait_for_inputs();
    __syncthreads();

    const unsigned part = lane_part(lane);
    const int columns = (int)tokens * 2;
    float sums[N_TILES][2];
#pragma unroll
    for (int n = 0; n < N_TILES; n++) sums[n][0] = sums[n][1] = 0;
    int tile = place < in_flight ? block_first + place : tiles, piece = split, step = 0;
#if N_TILES == 1
    Operands next = load_operands(operands, factors, piece, columns, lane);
#endif
    while (true) {
        int slot = 0;
        for (bool open = true; open;) {
#pragma unroll
            for (int i = 0; i < PREFETCH; i++) {
                if (open) {
                    const int following = piece + splits < pieces ? piece + splits : split;
                    if (tile < tiles) {
                        unsigned a[16];
                        decode(ring[i].codes, lookup, part, a);
#if N_TILES == 1
                        const Operands now = next;
                        next = load_operands(operands, factors, following, columns, lane);
                        add_piece(sums[0], a, ring[i].scales, now);
#else
#pragma unroll
                        for (int n = 0; n < N_TILES; n++) {
                            const long long at = (long long)n * pieces + piece;
                            const Operands now = load_operands(operands, factors, at, columns - n * 8, lane);
                            add_piece(sums[n], a, ring[i].scales, now);
                        }
#endif
                    }
                    if (piece + splits >= pieces) {  // the warp's share of this tile is done
                        float* mine = partial + (slot * WARPS + warp) * (N_TILES * 64) + lane;
#pragma unroll
                        for (int n = 0; n < N_TILES; n++) {
                            mine[n * 64] = sums[n][0];
                            mine[n * 64 + 32] = sums[n][1];
                            sums[n][0] = sums[n][1] = 0;
                        }
                        tile += stride;
                        slot++;
                        open = slot < SLOTS && step + slot < steps;
                    }
                    piece = following;
                }
                fetch(i);
            }
        }
        __syncthreads();
        const int of_slot = in_flight * N_TILES * 64;
        for (int v = thread; v < slot * of_slot; v += THREADS) {
            const int s = v / of_slot, p = v % of_slot / (N_TILES * 64), rest = v % (N_TILES * 64);
            const float* each = partial + (s * WARPS + p * splits) * (N_TILES * 64) + rest;
            float sum = 0;
            for (int k = 0; k < splits; k++) sum += each[k * (N_TILES * 64)];
            const long long row = (long long)((step + s) * stride + block_first + p) * 16 + (rest >> 5 & 1) * 8
                                  + (rest >> 2 & 7);
            const long long token = (rest >> 6) * 4 + (rest & 3);
            if (row < rows && token < tokens) store(out, token * rows + row, sum);
        }
        step += slot;
        if (step >= steps) return;
        __syncthreads();
    }
}
