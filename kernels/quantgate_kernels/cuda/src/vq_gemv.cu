// y = W x of up to 4 * N_TILES tokens, from codes in the order of order.py and operands as activations.cu leaves them,
// or, FUSED, from the activations themselves (of up to four tokens).
//
// A block takes WARPS / splits tiles of 16 rows at a time (`in_flight`); the pieces (128 inputs) of a tile are dealt to
// `splits` warps in turn. A warp's codes are copied into shared memory DEPTH pieces ahead, the first of them before the
// table is there and before this kernel's inputs are: how many bytes are on their way decides the speed. Each piece is summed in int32, scaled once a group into
// float32; the sums of a tile's warps meet in shared memory and are added in the order of the warps: the same bits
// every time.
//
// FUSED (0, 1), GROUP (128, 64, 32), N_TILES (1 to 16), WARPS, DEPTH, SLOTS (tiles of a warp between two
// barriers) and MIN_BLOCKS (that a multiprocessor has registers for) are given, and what fragments.cuh asks for (FUSED:
// quantize.cuh too).

#define GROUPS (128 / GROUP)
#define THREADS (WARPS * 32)

#define PIECE_BYTES (PIECE_WORDS * 4)
#define SLOT_BYTES (PIECE_BYTES + GROUPS * 32)  // of the ring: codes of a piece, then its scales
#define RING_BYTES (DEPTH * SLOT_BYTES)

struct Piece {
    Codes codes;
    unsigned scales[GROUPS];  // fp16 of the rows r (low) and r + 8
};

// A warp copies a piece and its scales into a slot, if `any`. The copies of one call are a group, an empty one too.
// `to`, `codes` and `scales` are this lane's place in each: 16 bytes a lane.
__device__ __forceinline__ void fetch(char* to, const char* codes, const char* scales, unsigned piece, bool any,
                                      unsigned lane)
{
#pragma unroll
    for (int i = 0; i < PIECE_BYTES; i += 512)
        copy16_if(any && (PIECE_BYTES - i >= 512 || lane * 16 < PIECE_BYTES - i), to + i,
                  codes + (unsigned long long)piece * PIECE_BYTES + i);
    copy16_if(any && lane < GROUPS * 2, to + PIECE_BYTES, scales + (unsigned long long)piece * (GROUPS * 32));
    commit_copies();
}

struct Operands {
    uint4 b[2];
    float factors[GROUPS];
};

#if FUSED
// Operands in shared memory: [pieces, 2, 2 * tokens columns, 4] uint4, and factors [pieces, GROUPS, 4]. Lanes of a column
// of no token keep what they have.
__device__ __forceinline__ void load_operands(Operands& x, const uint4* operands, const float* factors, unsigned piece,
                                              int tokens, unsigned lane)
{
    if ((int)(lane >> 2) < tokens * 2) {
        x.b[0] = operands[piece * 16 * tokens + lane];
        x.b[1] = operands[piece * 16 * tokens + 8 * tokens + lane];
    }
#pragma unroll
    for (int g = 0; g < GROUPS; g++) x.factors[g] = factors[(piece * GROUPS + g) * 4 + (lane & 3)];
}
#else
// The operands that this lane needs, at a place counted in pieces; it keeps what it has for a column of no token.
__device__ __forceinline__ void load_operands(Operands& x, const uint4* operands, const float* factors, unsigned place,
                                              int columns, unsigned lane)
{
    if ((int)(lane >> 2) < columns) {
        x.b[0] = fresh4(operands + place * 64 + lane);
        x.b[1] = fresh4(operands + place * 64 + 32 + lane);
    }
#pragma unroll
    for (int g = 0; g < GROUPS; g++) x.factors[g] = fresh1(factors + (place * GROUPS + g) * 4 + (lane & 3));
}
#endif

// Adds a piece to the sums of rows r and r + 8, of the token lane % 4 of an n tile.
__device__ __forceinline__ void add_piece(float* sums, const unsigned* a, const unsigned* scales, const Operands& x)
{
    const unsigned b[8] = {x.b[0].x, x.b[0].y, x.b[0].z, x.b[0].w, x.b[1].x, x.b[1].y, x.b[1].z, x.b[1].w};
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        int c[4] = {0, 0, 0, 0};
#if GROUPS == 1  // two sums, so that half as many instructions wait for each other
        int d[4] = {0, 0, 0, 0};
        mma(c, a, b[0], b[1]);
        mma(d, a + 4, b[2], b[3]);
        mma(c, a + 8, b[4], b[5]);
        mma(d, a + 12, b[6], b[7]);
#pragma unroll
        for (int i = 0; i < 4; i++) c[i] += d[i];
#else
#pragma unroll
        for (int q = g * 4 / GROUPS; q < (g + 1) * 4 / GROUPS; q++) mma(c, a + q * 4, b[q * 2], b[q * 2 + 1]);
#endif
        sums[0] += (float)(c[0] * 254 + c[1]) * (low_half(scales[g]) * x.factors[g]);
        sums[1] += (float)(c[2] * 254 + c[3]) * (high_half(scales[g]) * x.factors[g]);
    }
}

// `kind` is 0: float32, 1: bfloat16, 2: float16.
__device__ __forceinline__ void store(void* out, long long place, float value, int kind)
{
    if (kind == 0)
        ((float*)out)[place] = value;
    else
        ((unsigned short*)out)[place] = kind == 1 ? to_bfloat(value) : to_half(value);
}

#if FUSED
#define AT_ONCE 4

// A warp's next pieces of the tokens, WARPS apart: token and piece of each; beyond the tokens there is nothing.
struct Items {
    int token, piece;
};

__device__ __forceinline__ void next_item(Items& at, int by, int pieces)
{
    at.piece += by;
    while (at.piece >= pieces) {
        at.piece -= pieces;
        at.token++;
    }
}

// Items from .. from + count - 1 of a warp, a step of all of them before the next: they hide each other's latency.
template <int from, int count>
__device__ __forceinline__ void quantize_items(const uint2* pairs, const unsigned* a, char* const* places,
                                               float* const* factors, unsigned lane)
{
    float c[count][4];
    unsigned most[count];
#pragma unroll
    for (int i = 0; i < count; i++) {
        c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0;
        mma_half(c[i], a, pairs[from + i].x, pairs[from + i].y);
    }
#pragma unroll
    for (int i = 0; i < count; i++) turn_columns(c[i], lane);
#pragma unroll
    for (int i = 0; i < count; i++) most[i] = largest_of(c[i]);
#pragma unroll
    for (int i = 0; i < count; i++) write_piece(c[i], most[i], places[from + i], factors[from + i], lane);
}

// All warps of a block together: each piece of each token by one of them, some at a time so that loads overlap. `masks`
// are the signs of the first of them, which depend on no other kernel.
__device__ __forceinline__ void quantize(uint4* operands, float* factors, const unsigned short* x, const char* signs,
                                         uint2* masks, const unsigned* a, int tokens, int pieces, unsigned inputs,
                                         int warp, unsigned lane)
{
    char* mine = (char*)operands + (lane >> 1 & 1) * tokens * 128 + (lane & 1) * 8 + (lane >> 2);
    Items at = {0, 0};
    next_item(at, warp, pieces);
    for (bool again = false; at.token < tokens; again = true) {
        uint2 pairs[AT_ONCE];
        char* places[AT_ONCE];
        float* beside[AT_ONCE];
        int count = 0;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (at.token < tokens) {
                const unsigned first = at.piece * 128 + first_input(lane);
                pairs[i] = read_pairs(x + at.token * inputs, first, inputs);
                if (again) masks[i] = read_signs(signs, first, inputs);
                places[i] = mine + (at.piece * 16 * tokens + at.token * 8) * 16;
                beside[i] = factors + at.piece * GROUPS * 4 + at.token;
                count++;
            }
            next_item(at, WARPS, pieces);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) pairs[i] = make_uint2(pairs[i].x ^ masks[i].x, pairs[i].y ^ masks[i].y);
        if (count == 4)
            quantize_items<0, 4>(pairs, a, places, beside, lane);
        else if (count == 1)
            quantize_items<0, 1>(pairs, a, places, beside, lane);
        else
            quantize_items<0, 2>(pairs, a, places, beside, lane);
        if (count == 3) quantize_items<2, 1>(pairs, a, places, beside, lane);
    }
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) vq_gemv(
    const unsigned* codes, const unsigned* scales, const unsigned* table, const void* given, const void* beside, void* out,
    long long tokens, long long rows, long long inputs, long long row_splits, long long kind)
{
    extern __shared__ float4 shared[];
    char* lookup = (char*)shared;
    float* partial = (float*)(lookup + TABLE_BYTES);  // [SLOTS, WARPS, N_TILES, 2, 32]
    char* rings = (char*)(partial + SLOTS * WARPS * N_TILES * 64);  // [WARPS, DEPTH, SLOT_BYTES]
#if FUSED
    uint4* operands = (uint4*)(rings + WARPS * RING_BYTES);
#else
    const uint4* operands = (const uint4*)given;
    const float* factors = (const float*)beside;
#endif
    // What comes out of a shuffle stays in a register; the thread's number itself would be read anew for every piece.
    const unsigned thread = __shfl_sync(0xffffffffu, threadIdx.x, threadIdx.x & 31), lane = thread & 31;
    const int warp = __shfl_sync(0xffffffffu, thread >> 5, 0), pieces = (int)((inputs + 127) / 128), splits = (int)row_splits;
    const int tiles = (int)((rows + 15) / 16), in_flight = WARPS / splits;
    const int split = warp % splits, place = warp / splits;
    const int stride = gridDim.x * in_flight, block_first = blockIdx.x * in_flight;
    const int steps = (tiles - block_first + stride - 1) / stride;
    char* ring = rings + warp * RING_BYTES;
    let_next_begin();

    // Codes first: they depend on no other kernel. A warp's pieces go through its ring, DEPTH ahead, over the borders of
    // tiles.
    const int own = (pieces - split + splits - 1) / splits;  // of a tile
    const int mine = place < in_flight && block_first + place < tiles ? (tiles - block_first - place + stride - 1) / stride : 0;
    const char* my_codes = (const char*)codes + lane * 16;
    const char* my_scales = (const char*)scales + lane * 16;
    int loading = own, load_left = own * mine;
    unsigned load_at = (unsigned)(block_first + place) * pieces + split, slot = 0;  // bytes into the ring
    const unsigned jump = (unsigned)stride * pieces - own * splits;
    auto next = [&]() {
        fetch(ring + slot + lane * 16, my_codes, my_scales, load_at, load_left > 0, lane);
        load_left--;
        load_at += splits;
        if (--loading == 0) {
            loading = own;
            load_at += jump;
        }
        slot = slot == RING_BYTES - SLOT_BYTES ? 0 : slot + SLOT_BYTES;
    };
#pragma unroll
    for (int i = 0; i < DEPTH; i++) next();
    fill_table(lookup, table, thread, THREADS);
#if FUSED
    float* factors = (float*)(operands + pieces * 16 * (int)tokens);
    const char* signs = (const char*)beside;
    unsigned matrix[4];
    first_matrix(matrix, lane);
    uint2 masks[AT_ONCE];
    Items item = {0, 0};
    next_item(item, warp, pieces);
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        masks[i] = read_signs(signs, item.piece * 128 + first_input(lane), (unsigned)inputs);
        next_item(item, WARPS, pieces);
    }
    wait_for_inputs();
    quantize(operands, factors, (const unsigned short*)given, signs, masks, matrix, (int)tokens, pieces, (unsigned)inputs,
             warp, lane);
#else
    wait_for_inputs();
#endif
    __syncthreads();

    const unsigned part = lane_part(lane);
    float sums[N_TILES][2];
#pragma unroll
    for (int n = 0; n < N_TILES; n++) sums[n][0] = sums[n][1] = 0;
    int later = own * mine, piece = split, step = 0;
    Operands x;
    x.b[0] = x.b[1] = make_uint4(0, 0, 0, 0);
    while (true) {
        float* target = partial + warp * (N_TILES * 64) + lane;
        int left = min(later, own * SLOTS), adding = own;
        later -= left;
        for (; left > 0; left--) {
            wait_for_copies<DEPTH - 1>();
            __syncwarp();
            Piece now;
            const unsigned* words = (const unsigned*)(ring + slot);
            now.codes = kept_codes(words, lane);
#pragma unroll
            for (int g = 0; g < GROUPS; g++) now.scales[g] = words[PIECE_WORDS + g * 8 + (lane >> 2)];
#if N_TILES == 1
            load_operands(x, operands, factors, piece, FUSED ? (int)tokens : (int)tokens * 2, lane);
#endif
            __syncwarp();  // every lane has read before the slot is written again
            next();
            unsigned a[16];
            decode(now.codes, lookup, part, a);
#if N_TILES == 1
            add_piece(sums[0], a, now.scales, x);
#else
#pragma unroll
            for (int n = 0; n < N_TILES; n++) {
                load_operands(x, operands, factors, n * pieces + piece, (int)tokens * 2 - n * 8, lane);
                add_piece(sums[n], a, now.scales, x);
            }
#endif
            piece += splits;
            if (--adding == 0) {  // the warp's share of this tile is done
                piece = split;
#pragma unroll
                for (int n = 0; n < N_TILES; n++) {
                    target[n * 64] = sums[n][0];
                    target[n * 64 + 32] = sums[n][1];
                    sums[n][0] = sums[n][1] = 0;
                }
                target += WARPS * N_TILES * 64;
                adding = own;
            }
        }
        const int done = min(SLOTS, steps - step);
        __syncthreads();
        const int of_slot = in_flight * N_TILES * 64;
        for (int v = thread; v < done * of_slot; v += THREADS) {
            const int s = v / of_slot, p = v % of_slot / (N_TILES * 64), rest = v % (N_TILES * 64);
            const float* each = partial + (s * WARPS + p * splits) * (N_TILES * 64) + rest;
            float sum = 0;
            for (int k = 0; k < splits; k++) sum += each[k * (N_TILES * 64)];
            const long long row = (long long)((step + s) * stride + block_first + p) * 16 + (rest >> 5 & 1) * 8
                                  + (rest >> 2 & 7);
            const long long token = (rest >> 6) * 4 + (rest & 3);
            if (row < rows && token < tokens) store(out, token * rows + row, sum, (int)kind);
        }
        step += done;
        if (step >= steps) return;
        __syncthreads();
    }
}
