// y = W x of more tokens than vq_gemv.cu is good for, from the same codes, by tensor cores in float16.
//
// A block keeps *panels* in shared memory: the activations of one piece (128 inputs) of all tokens, as
// half_activations.cu leaves them, which all warps that work on that piece share. The WARPS warps of a block are `beside`
// warps of each of WARPS / beside groups; a group has TILES tiles of 16 rows, and its `beside` warps take neighbouring
// pieces. A *step* is so many pieces; the steps of a block's rows are dealt to `splits` blocks, which are a cluster. Panels
// and codes of STAGES - 1 steps are on their way while one is multiplied, and a step has one barrier.
//
// Weights are exact in float16 but for one rounding when their scale is multiplied in; all sums are float32, those of a
// warp in the registers of its tensor cores from its first piece to its last. Of each 32 inputs, weights are decoded while
// those before are multiplied. Sums of a block are added in the order of the warps, those of a cluster, which reads them from
// its blocks' shared memory, in the order of the blocks: the same bits every time.
//
// GROUP (128, 64, 32), N_TILES (of eight tokens), WARPS, TILES and STAGES are given, and what fragments.cuh asks for.
// halves.cuh goes before.

#define GROUPS (128 / GROUP)
#define THREADS (WARPS * 32)
#define TOKENS (N_TILES * 8)

#define PIECE_BYTES (PIECE_WORDS * 4)
#define SCALE_BYTES (GROUPS * 32)
#define CODE_BYTES (TILES * (PIECE_BYTES + SCALE_BYTES))  // of a warp: codes of its tiles, then their scales
#define PANEL_BYTES (TOKENS * 256)
// Of sums in shared memory, [tiles, tokens, 16 rows]: so far apart that lanes meet in no bank.
#define SUM_TOKEN 20
#define SUM_TILE (TOKENS * SUM_TOKEN + 16)

// c += A B of 16 x 16 by 16 x 8 float16 (PTX ISA, mma.m16n8k16).
__device__ __forceinline__ void mma_halves(float* c, const unsigned* a, unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

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

// The q-th 32 inputs of a piece: of all tiles, times all tokens. `tokens` is this lane's place in the panel.
template <int q>
__device__ __forceinline__ void multiply(float (*sums)[N_TILES][4], const Codes* codes, const unsigned (*scales)[GROUPS],
                                         const char* lookup, unsigned part, const char* tokens)
{
    unsigned a[TILES][2][4];
#pragma unroll
    for (int t = 0; t < TILES; t++) weights_of<q>(a[t], codes[t], scales[t], lookup, part);
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
        const uint4 b = *(const uint4*)(tokens + n * 2048);
#pragma unroll
        for (int t = 0; t < TILES; t++) mma_halves(sums[t][n], a[t][0], b.x, b.y);
#pragma unroll
        for (int t = 0; t < TILES; t++) mma_halves(sums[t][n], a[t][1], b.z, b.w);
    }
}

// Eight results of a token in neighbouring rows, of which `count` are there.
__device__ __forceinline__ void store_eight(void* out, long long place, const float* v, int count, int kind)
{
    const bool whole = count >= 8 && ((unsigned long long)out + place * (kind == 0 ? 4 : 2)) % 16 == 0;
    if (whole && kind == 0) {
        float4* to = (float4*)((float*)out + place);
        to[0] = make_float4(v[0], v[1], v[2], v[3]);
        to[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else if (whole) {
        unsigned pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            pairs[i] = kind == 1 ? to_bfloat(v[i * 2]) | (unsigned)to_bfloat(v[i * 2 + 1]) << 16
                                 : to_half(v[i * 2]) | (unsigned)to_half(v[i * 2 + 1]) << 16;
        *(uint4*)((unsigned short*)out + place) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
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
    void* out, long long tokens, long long rows, long long inputs, long long row_splits,
    long long warps_beside, long long kind)
{
    extern __shared__ float4 shared[];
    char* lookup = (char*)shared;
    char* stages = lookup + TABLE_BYTES;  // each: `beside` panels, then the codes of each warp
    let_next_begin();

    const unsigned thread = __shfl_sync(0xffffffffu, threadIdx.x, threadIdx.x & 31), lane = thread & 31;
    const int warp = __shfl_sync(0xffffffffu, thread >> 5, 0), beside = (int)warps_beside, splits = (int)row_splits;
    const int pieces = (int)((inputs + 127) / 128), tiles = (int)((rows + 15) / 16), in_block = WARPS / beside * TILES;
    const int first_tile = (int)(blockIdx.x / splits) * in_block, split = blockIdx.x % splits;
    const int all_steps = (pieces + beside - 1) / beside;
    const int from = (int)((long long)split * all_steps / splits), steps = (int)((long long)(split + 1) * all_steps / splits) - from;
    const int column = warp % beside, tile = first_tile + warp / beside * TILES, here = tiles - tile;
    const unsigned stage_bytes = (unsigned)beside * PANEL_BYTES + WARPS * CODE_BYTES;

    // This warp's codes of a step; a tile or a piece that is not there is left as it is, and its results are nobody's.
    const unsigned long long place = (unsigned long long)tile * pieces;
    const int scale_tile = lane / (2 * GROUPS);
    auto fetch_codes = [&](int step, char* stage) {
        const int piece = (from + step) * beside + column;
        const bool any = step < steps && piece < pieces;
        char* to = stage + beside * PANEL_BYTES + warp * CODE_BYTES;
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < PIECE_BYTES; i += 512)
                copy16_if(any && t < here && (PIECE_BYTES - i >= 512 || lane * 16 < PIECE_BYTES - i),
                          to + t * PIECE_BYTES + i + lane * 16,
                          (const char*)codes + (place + (unsigned long long)t * pieces + piece) * PIECE_BYTES + i + lane * 16);
        copy16_if(any && scale_tile < TILES && scale_tile < here, to + TILES * PIECE_BYTES + lane * 16,
                  (const char*)scales + (place + (unsigned long long)scale_tile * pieces + piece) * SCALE_BYTES
                      + lane % (2 * GROUPS) * 16);
    };
    // All panels of a step, by all threads.
    auto fetch_panels = [&](int step, char* stage) {
        for (int c = 0; c < beside; c++) {
            const int piece = (from + step) * beside + c;
            const bool any = step < steps && piece < pieces;
            char* to = stage + c * PANEL_BYTES;
#pragma unroll
            for (int i = 0; i < PANEL_BYTES; i += THREADS * 16)
                copy16_if(any && i + thread * 16 < PANEL_BYTES, to + i + thread * 16,
                          halves + (unsigned long long)piece * PANEL_BYTES + i + thread * 16);
        }
    };

    for (int i = 0; i < STAGES - 1; i++) fetch_codes(i, stages + i * stage_bytes);
    fill_table(lookup, table, thread, THREADS);
    wait_for_inputs();
    for (int i = 0; i < STAGES - 1; i++) {
        fetch_panels(i, stages + i * stage_bytes);
        commit_copies();
    }

    float sums[TILES][N_TILES][4];
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < N_TILES; n++) sums[t][n][0] = sums[t][n][1] = sums[t][n][2] = sums[t][n][3] = 0;
    const unsigned part = lane_part(lane);
    // Of token lane / 4 of an n tile, inputs (lane % 4) * 8 ... of 32; half_activations.cu says why odd tokens' are aside.
    const int row_place = (lane >> 2) * 256 + (lane & 3) * 16, aside = (lane >> 2 & 1) * 64;
    char* now = stages;
    char* ahead = stages + (STAGES - 1) * stage_bytes;
    char* const end = stages + STAGES * stage_bytes;
    for (int step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();  // this step's copies are there, and nobody reads the last step's any more
        fetch_codes(step + STAGES - 1, ahead);
        fetch_panels(step + STAGES - 1, ahead);
        commit_copies();
        if ((from + step) * beside + column < pieces) {
            const char* mine = now + beside * PANEL_BYTES + warp * CODE_BYTES;
            const char* panel = now + column * PANEL_BYTES;
            Codes own[TILES];
            unsigned scale[TILES][GROUPS];
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                own[t] = codes_of<Kept>((const unsigned*)(mine + t * PIECE_BYTES), lane);
#pragma unroll
                for (int g = 0; g < GROUPS; g++)
                    scale[t][g] = *(const unsigned*)(mine + TILES * PIECE_BYTES + t * SCALE_BYTES + g * 32 + (lane >> 2) * 4);
            }
            const char* even = panel + row_place + aside;  // inputs 0 ... 31 and 64 ... 95 of the piece
            const char* odd = panel + row_place + 64 - aside;
            multiply<0>(sums, own, scale, lookup, part, even);
            multiply<1>(sums, own, scale, lookup, part, odd);
            multiply<2>(sums, own, scale, lookup, part, even + 128);
            multiply<3>(sums, own, scale, lookup, part, odd + 128);
        }
        now = now + stage_bytes == end ? stages : now + stage_bytes;
        ahead = ahead + stage_bytes == end ? stages : ahead + stage_bytes;
    }
    wait_for_copies<0>();
    __syncthreads();

    // Sums of the warps, [beside, tiles of the block, tokens, rows]: they take the room of the table and of the stages.
    float* partial = (float*)shared;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < N_TILES; n++) {
            float* target = partial + (column * in_block + warp / beside * TILES + t) * SUM_TILE
                            + (n * 8 + (lane & 3) * 2) * SUM_TOKEN + (lane >> 2);
            target[0] = sums[t][n][0];
            target[SUM_TOKEN] = sums[t][n][1];
            target[8] = sums[t][n][2];
            target[SUM_TOKEN + 8] = sums[t][n][3];
        }
    __syncthreads();
    // Eight rows of a token are an item; the block adds the sums of its warps, the cluster those of its blocks.
    const unsigned eights = in_block * 2, items = eights * (unsigned)tokens;
    auto item_at = [&](unsigned v, unsigned& token, long long& row) {
        token = v / eights;
        const unsigned eight = v - token * eights;
        row = (long long)first_tile * 16 + eight * 8;
        return partial + (eight >> 1) * SUM_TILE + token * SUM_TOKEN + (eight & 1) * 8;
    };
    auto finish = [&](float* sum, unsigned token, long long row) {
        const float factor = fresh1(factors + token);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] *= factor;
        store_eight(out, token * rows + row, sum, (int)min(rows - row, 8ll), (int)kind);
    };
    unsigned token;
    long long row;
    for (unsigned v = thread; v < items; v += THREADS) {
        float* own = item_at(v, token, row);
        if (row >= rows) continue;
        float sum[8] = {};
        for (int k = 0; k < beside; k++) {
            const float4* each = (const float4*)(own + k * in_block * SUM_TILE);
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
        for (int k = 0; k < splits; k++) add_eight(sum, theirs4(own, k), theirs4(own + 4, k));
        finish(sum, token, row);
    }
    cluster_barrier();  // nobody's shared memory goes while others read it
}
