// y = W x of more tokens than vq_gemv.cu is good for, from the same codes, by tensor cores in float16.
//
// A block keeps *panels* in shared memory: the activations of one piece (128 inputs) of all tokens, as
// half_activations.cu leaves them, which all warps that work on that piece share. The WARPS warps of a block are BESIDE
// sets, which have the same rows and take neighbouring pieces; in a set each warp has TILES tiles of 16 rows of its
// own. A *step* is so many pieces; the steps of a block's rows are dealt to `splits` blocks, which are a cluster.
// Panels and codes of STAGES - 1 steps are on their way while one is multiplied, and a step has one barrier.
//
// Weights are exact in float16 but for one rounding when their scale is multiplied in; all sums are float32, those of a
// warp in the registers of its tensor cores from its first piece to its last. Of each 32 inputs, weights are decoded
// while those before are multiplied, the first of a step before its barrier. Sums of a block are added in the order of
// the warps, those of a cluster, which reads them from its blocks' shared memory, in the order of the blocks: the same
// bits every time.
//
// GROUP (128, 64, 32), N_TILES (of eight tokens), WARPS, TILES, BESIDE, STAGES, MOST_SPLITS and HEAD_BYTES are given,
// and what fragments.cuh asks for. halves.cuh, bulk.cuh and products.cuh or group_products.cuh go before.

#define GROUPS (128 / GROUP)
#define THREADS (WARPS * 32)
#define BLOCK_TILES (WARPS / BESIDE * TILES)

#define PIECE_BYTES (PIECE_WORDS * 4)
#define SCALE_BYTES (GROUPS * 32)
#define CODE_BYTES (TILES * (PIECE_BYTES + SCALE_BYTES))  // of a warp: codes of its tiles, then their scales
#define PANEL_BYTES (TOKENS * 256)
#define STAGE_BYTES (BESIDE * PANEL_BYTES + WARPS * CODE_BYTES)
// Of sums in shared memory, [tiles, tokens, 16 rows]: so far apart that lanes meet in no bank.
#define SUM_TOKEN 20
#define SUM_TILE (TOKENS * SUM_TOKEN + 16)

// Registers of A of the q-th 32 inputs of a tile, for two matrix instructions.
template <int q>
__device__ __forceinline__ void weights_of(unsigned (*a)[4], const Codes& codes, const unsigned* scales, const char* lookup, unsigned part)
{
    unsigned words[A_WORDS / 4];
    decode_quarter<q>(codes, lookup, part, words);
    const unsigned both = scales[q * GROUPS / 4], above = __byte_perm(both, 0, 0x1010), below = __byte_perm(both, 0, 0x3232);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint2 upper = halves_of(words, 0, h), lower = halves_of(words, 1, h);
        a[h][0] = times(upper.x, above);
        a[h][1] = times(lower.x, below);
        a[h][2] = times(upper.y, above);
        a[h][3] = times(lower.y, below);
    }
}

// The same of all tiles of a warp.
template <int q>
__device__ __forceinline__ void decode(unsigned (*a)[2][4], const Codes* codes, const unsigned (*scales)[GROUPS],
                                       const char* lookup, unsigned part)
{
#pragma unroll
    for (int t = 0; t < TILES; t++) weights_of<q>(a[t], codes[t], scales[t], lookup, part);
}

// Two results as 16 bits each, the first in the lower ones; `kind` is 1: bfloat16, 2: float16.
__device__ __forceinline__ unsigned pair_of(float first, float second, int kind)
{
    return kind == 1 ? bfloat_pair(first, second) : half_pair(first, second);
}

// Eight results of a token in neighbouring rows, of which `count` are there; `even`: where they go is a multiple of 16 bytes.
__device__ __forceinline__ void store_eight(void* out, long long place, const float* v, int count, bool even, int kind)
{
    if (count >= 8 && even && kind == 0) {
        float4* to = (float4*)((float*)out + place);
        to[0] = make_float4(v[0], v[1], v[2], v[3]);
        to[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else if (count >= 8 && even) {
        *(uint4*)((unsigned short*)out + place) = make_uint4(
            pair_of(v[0], v[1], kind), pair_of(v[2], v[3], kind), pair_of(v[4], v[5], kind), pair_of(v[6], v[7], kind));
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < count) store(out, place + i, v[i], kind);
    }
}

// All threads of a cluster; what they stored in shared memory before it is there for the others after it.
__device__ __forceinline__ void cluster_barrier()
{
    asm volatile("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;" ::: "memory");
}

// All threads of a cluster have come so far.
__device__ __forceinline__ void leave_cluster()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;" ::: "memory");
}

// Four floats of another block of the cluster, from where this block has its own.
__device__ __forceinline__ float4 theirs4(const float* own, unsigned block)
{
    float4 v;
    asm volatile("{ .reg .b32 place; mapa.shared::cluster.u32 place, %4, %5; ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [place]; }" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"((unsigned)__cvta_generic_to_shared(own)), "r"(block) : "memory");
    return v;
}

__device__ __forceinline__ void add_eight(float* sum, float4 low, float4 high)
{
    const float more[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] += more[i];
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) vq_gemm(
    const unsigned* codes, const unsigned* scales, const unsigned* table, const char* halves, const float* factors,
    void* out, long long tokens, long long rows, long long inputs, long long row_splits, long long kind)
{
    extern __shared__ float4 shared[];
    unsigned long long* arrived = (unsigned long long*)shared;  // of a stage's copies
    float* by = (float*)shared + 2 * STAGES;                    // a token's factor
    char* lookup = (char*)shared + HEAD_BYTES;
    char* stages = lookup + TABLE_BYTES;  // each: BESIDE panels, then the codes of each warp
    let_next_begin();

    const unsigned thread = __shfl_sync(0xffffffffu, threadIdx.x, threadIdx.x & 31), lane = thread & 31;
    const int warp = __shfl_sync(0xffffffffu, thread >> 5, 0), splits = (int)row_splits;
    const int pieces = (int)((inputs + 127) / 128), tiles = (int)((rows + 15) / 16);
    const int first_tile = (int)(blockIdx.x / splits) * BLOCK_TILES, split = blockIdx.x % splits;
    const int all_steps = (pieces + BESIDE - 1) / BESIDE;
    const int from = (int)((long long)split * all_steps / splits), steps = (int)((long long)(split + 1) * all_steps / splits) - from;
    const int column = warp / TOGETHER % BESIDE;  // which of the pieces side by side
    const int own_tiles = (warp / TOGETHER / BESIDE * TOGETHER + warp % TOGETHER) * TILES;
    const int tile = first_tile + own_tiles, here = max(0, min(TILES, tiles - tile));

    if (thread == 0) {
        for (int i = 0; i < STAGES; i++) begin_barrier(arrived + i, WARPS + 1);
        show_barriers();
    }
    __syncthreads();
    // This warp's codes of a step, a tile a lane. A tile or a piece that is not there is left as it is, and its results are
    // nobody's.
    const unsigned long long place = (unsigned long long)(tile + min((int)lane, TILES - 1)) * pieces;
    auto fetch_codes = [&](int step, int stage) {
        const int piece = (from + step) * BESIDE + column, count = piece < pieces ? here : 0;
        if (lane == 0) arrive(arrived + stage, count * (PIECE_BYTES + SCALE_BYTES));
        if ((int)lane >= count) return;
        char* to = stages + stage * STAGE_BYTES + BESIDE * PANEL_BYTES + warp * CODE_BYTES;
        copy_bulk(to + lane * PIECE_BYTES, (const char*)codes + (place + piece) * PIECE_BYTES, PIECE_BYTES, arrived + stage);
        copy_bulk(to + TILES * PIECE_BYTES + lane * SCALE_BYTES, (const char*)scales + (place + piece) * SCALE_BYTES,
                  SCALE_BYTES, arrived + stage);
    };
    // The panels of a step, which lie one after the other.
    auto fetch_panels = [&](int step, int stage) {
        if (thread != 0) return;
        const int first = (from + step) * BESIDE;
        const unsigned bytes = min(BESIDE, pieces - first) * PANEL_BYTES;
        arrive(arrived + stage, bytes);
        copy_bulk(stages + stage * STAGE_BYTES, halves + (unsigned long long)first * PANEL_BYTES, bytes, arrived + stage);
    };

    for (int i = 0; i < min(STAGES - 1, steps); i++) fetch_codes(i, i);
    fill_table(lookup, table, thread, THREADS);
    wait_for_inputs();
    for (int i = 0; i < min(STAGES - 1, steps); i++) fetch_panels(i, i);
    if (thread < tokens) by[thread] = fresh1(factors + thread);

    float sums[TILES][N_TILES][4];
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < N_TILES; n++) sums[t][n][0] = sums[t][n][1] = sums[t][n][2] = sums[t][n][3] = 0;
    const unsigned part = lane_part(lane);
    int stage = 0;
    unsigned parity = 0;
    __syncthreads();  // the table is there
    for (int step = 0; step < steps; step++) {
        while (!has_ended(arrived + stage, parity)) {}
        const char* panels = stages + stage * STAGE_BYTES;
        const bool any = (from + step) * BESIDE + column < pieces;
        Codes own[TILES];
        unsigned scale[TILES][GROUPS], a[2][TILES][2][4];
        if (any) {
            const char* mine = panels + BESIDE * PANEL_BYTES + warp * CODE_BYTES;
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                own[t] = codes_of<Kept>((const unsigned*)(mine + t * PIECE_BYTES), lane);
#pragma unroll
                for (int g = 0; g < GROUPS; g++)
                    scale[t][g] = *(const unsigned*)(mine + TILES * PIECE_BYTES + t * SCALE_BYTES + g * 32 + (lane >> 2) * 4);
            }
            decode<0>(a[0], own, scale, lookup, part);
        }
        wait_for_products<0>();
        __syncthreads();  // nobody reads the last step's stage any more
        const int ahead = step + STAGES - 1, its_stage = stage == 0 ? STAGES - 1 : stage - 1;
        if (ahead < steps) {
            fetch_codes(ahead, its_stage);
            fetch_panels(ahead, its_stage);
        }
        if (any) {
            const char* panel = panels + column * PANEL_BYTES;
            begin_products<0>(sums, a[0], panel, lane);
            decode<1>(a[1], own, scale, lookup, part);
            begin_products<1>(sums, a[1], panel, lane);
            wait_for_products<1>();
            decode<2>(a[0], own, scale, lookup, part);
            begin_products<2>(sums, a[0], panel, lane);
            wait_for_products<1>();
            decode<3>(a[1], own, scale, lookup, part);
            begin_products<3>(sums, a[1], panel, lane);
        }
        stage = stage == STAGES - 1 ? 0 : stage + 1;
        parity ^= stage == 0;
    }
    finish_products(sums);
    __syncthreads();

    // Sums of the warps, [BESIDE, tiles of the block, tokens, rows]: they take the room of the table and of the stages.
    float* partial = (float*)lookup;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < N_TILES; n++) {
            float* target = partial + (column * BLOCK_TILES + own_tiles + t) * SUM_TILE
                            + (n * 8 + (lane & 3) * 2) * SUM_TOKEN + (lane >> 2);
            target[0] = sums[t][n][0];
            target[SUM_TOKEN] = sums[t][n][1];
            target[8] = sums[t][n][2];
            target[SUM_TOKEN + 8] = sums[t][n][3];
        }
    __syncthreads();
    // Eight rows of a token are an item; the block adds the sums of its warps, the cluster those of its blocks.
    const unsigned items = BLOCK_TILES * 2 * (unsigned)tokens;
    const bool even = ((unsigned long long)out | rows * (kind == 0 ? 4 : 2)) % 16 == 0;
    auto item_at = [&](unsigned v, unsigned& token, long long& row) {
        token = v / (BLOCK_TILES * 2);
        const unsigned eight = v % (BLOCK_TILES * 2);
        row = (long long)first_tile * 16 + eight * 8;
        return partial + (eight >> 1) * SUM_TILE + token * SUM_TOKEN + (eight & 1) * 8;
    };
    auto finish = [&](float* sum, unsigned token, long long row) {
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] *= by[token];
        store_eight(out, token * rows + row, sum, (int)min(rows - row, 8ll), even, (int)kind);
    };
    unsigned token;
    long long row;
    if (splits == 1 || BESIDE > 1)
#pragma unroll 2
        for (unsigned v = thread; v < items; v += THREADS) {
            float* own = item_at(v, token, row);
            if (row >= rows) continue;
            float sum[8] = {};
#pragma unroll
            for (int k = 0; k < BESIDE; k++) {
                const float4* each = (const float4*)(own + k * BLOCK_TILES * SUM_TILE);
                add_eight(sum, each[0], each[1]);
            }
            if (splits == 1) {
                finish(sum, token, row);
            } else {
                ((float4*)own)[0] = make_float4(sum[0], sum[1], sum[2], sum[3]);
                ((float4*)own)[1] = make_float4(sum[4], sum[5], sum[6], sum[7]);
            }
        }
    if (splits == 1) return;
    cluster_barrier();
    for (unsigned v = split * THREADS + thread; v < items; v += splits * THREADS) {
        const float* own = item_at(v, token, row);
        if (row >= rows) continue;
        float sum[8] = {};
        float4 low[MOST_SPLITS], high[MOST_SPLITS];
#pragma unroll
        for (int k = 0; k < MOST_SPLITS; k++) {  // all on their way before one is added
            if (k >= splits) continue;
            low[k] = theirs4(own, k);
            high[k] = theirs4(own + 4, k);
        }
#pragma unroll
        for (int k = 0; k < MOST_SPLITS; k++)
            if (k < splits) add_eight(sum, low[k], high[k]);
        finish(sum, token, row);
    }
    leave_cluster();  // nobody's shared memory goes while others read it
}
