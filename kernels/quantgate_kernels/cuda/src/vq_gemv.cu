// y = W x of up to 4 * N_TILES tokens, from codes in the order of order.py and operands as activations.cu leaves them.
//
// A block takes WARPS / splits tiles of 16 rows at a time (`in_flight`); the pieces (128 inputs) of a tile are dealt to
// `splits` warps in turn. A warp works on the same inputs of TILES of its tiles side by side, a *batch*: operands are
// loaded once for them, and one hides the latency of the others. Batches are copied into shared memory DEPTH ahead, the
// first of them before the table is there and before this kernel's inputs are. Each piece is summed in int32, scaled
// once a group into float32; the sums of a tile's warps meet in shared memory and are added in the order of the warps:
// the same bits every time.
//
// `given` and `beside` are operands and factors; FUSED: one token and signs, which the block makes operands of itself
// (own_operands.cuh).
//
// GROUP (128, 64, 32), N_TILES (1 to 16), WARPS, DEPTH, TILES, BUFFERS (of the sums: with two of them a round needs one
// barrier), MIN_BLOCKS (that a multiprocessor has registers for) and MOST_IN_PLACE (n tiles) are given, and what
// fragments.cuh asks for.

#define GROUPS (128 / GROUP)
#define THREADS (WARPS * 32)

#define PIECE_BYTES (PIECE_WORDS * 4)
#define SCALE_BYTES (GROUPS * 32)
#define SLOT_BYTES (TILES * (PIECE_BYTES + SCALE_BYTES))  // of the ring: codes of a batch, then its scales
#define RING_BYTES (DEPTH * SLOT_BYTES)
// Byte sums have more registers of A than can be kept: for few tokens a batch is decoded from its slot as it is
// multiplied, and the operands are kept.
#if defined(BYTE_SUMS) && N_TILES <= MOST_IN_PLACE
#define IN_PLACE 1
#else
#define IN_PLACE 0
#endif
#define PARTIALS (TILES * WARPS * N_TILES * 64)  // floats of a buffer of sums

// A warp's copies of a batch, of whose TILES pieces the first `count` are there. They are a group, an empty one too.
// `to`, `codes` and `scales` are this lane's places, `apart` the bytes from a tile's codes to the next one's.
__device__ __forceinline__ void fetch(char* to, char* scales_to, const char* codes, const char* scales, unsigned apart,
                                      int count, bool scaled, unsigned lane)
{
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int i = 0; i < PIECE_BYTES; i += 512)
            copy16_if(t < count && (PIECE_BYTES - i >= 512 || lane * 16 < PIECE_BYTES - i), to + t * PIECE_BYTES + i,
                      codes + i);
        codes += apart;
    }
    copy16_if(scaled, scales_to, scales);
    commit_copies();
}

struct Operands {
    uint4 b[2];
    float factors[GROUPS];
};

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

#if FUSED
// The same of what this block made of one token.
__device__ __forceinline__ void load_own(Operands& x, const char* own, const float* factors, unsigned piece, unsigned lane)
{
    if (lane < 8) {
        x.b[0] = *(const uint4*)(own + piece * (2 * APART) + lane * 16);
        x.b[1] = *(const uint4*)(own + piece * (2 * APART) + APART + lane * 16);
    }
#pragma unroll
    for (int g = 0; g < GROUPS; g++) x.factors[g] = factors[piece * GROUPS + g];
}
#endif

// c += the products of 32 inputs: of A_WORDS / 4 registers of A and two of an operand.
__device__ __forceinline__ void multiply_part(int* c, const unsigned* a, unsigned b0, unsigned b1)
{
#ifdef BYTE_SUMS
#pragma unroll
    for (int i = 0; i < 4; i++) mma(c, a + i * 4, __byte_perm(b0, 0, i * 0x1111), __byte_perm(b1, 0, i * 0x1111));
#else
    mma(c, a, b0, b1);
#endif
}

// Adds the products of a group to the sums of rows r and r + 8, of the token lane % 4 of an n tile.
__device__ __forceinline__ void add_group(float* sums, const int* c, unsigned scale, float factor)
{
    sums[0] += (float)(c[0] * 254 + c[1]) * (low_half(scale) * factor);
    sums[1] += (float)(c[2] * 254 + c[3]) * (high_half(scale) * factor);
}

// Adds a piece to the sums of rows r and r + 8, of the token lane % 4 of an n tile.
__device__ __forceinline__ void add_piece(float* sums, const unsigned* a, const unsigned* scales, const Operands& x)
{
    const unsigned b[8] = {x.b[0].x, x.b[0].y, x.b[0].z, x.b[0].w, x.b[1].x, x.b[1].y, x.b[1].z, x.b[1].w};
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        int c[4] = {0, 0, 0, 0};
#pragma unroll
        for (int q = g * 4 / GROUPS; q < (g + 1) * 4 / GROUPS; q++)
            multiply_part(c, a + q * (A_WORDS / 4), b[q * 2], b[q * 2 + 1]);
        add_group(sums, c, scales[g], x.factors[g]);
    }
}

// A batch from its slot of the ring, of which `count` pieces are there.
struct Batch {
    Codes codes[TILES];
    unsigned scales[TILES][GROUPS];
};

__device__ __forceinline__ void load_batch(Batch& batch, const char* slot, unsigned lane)
{
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        batch.codes[t] = codes_of<Kept>((const unsigned*)(slot + t * PIECE_BYTES), lane);
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
            batch.scales[t][g] = *(const unsigned*)(slot + TILES * PIECE_BYTES + t * SCALE_BYTES + g * 32 + (lane >> 2) * 4);
    }
}

#if IN_PLACE
// Adds the first `count` pieces of a batch to the sums of their tiles: 32 inputs of all of them, then the next 32.
__device__ __forceinline__ void add_batch(float (*sums)[N_TILES][2], const char* slot, int count, const Operands* x, unsigned lane)
{
    int c[TILES][N_TILES][4];
#pragma unroll
    for (int q = 0; q < 4; q++) {
        const int g = q * GROUPS / 4;
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            if (t >= count) break;
            unsigned a[16];
            decode_part((const unsigned*)(slot + t * PIECE_BYTES), q, lane, a);
#pragma unroll
            for (int n = 0; n < N_TILES; n++) {
                const uint4 b = x[n].b[q / 2];
                if (q * GROUPS % 4 == 0) c[t][n][0] = c[t][n][1] = c[t][n][2] = c[t][n][3] = 0;
                multiply_part(c[t][n], a, q % 2 ? b.z : b.x, q % 2 ? b.w : b.y);
            }
            if ((q + 1) * GROUPS % 4) continue;
            const unsigned scale = *(const unsigned*)(slot + TILES * PIECE_BYTES + t * SCALE_BYTES + g * 32 + (lane >> 2) * 4);
#pragma unroll
            for (int n = 0; n < N_TILES; n++) add_group(sums[t][n], c[t][n], scale, x[n].factors[g]);
        }
    }
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) vq_gemv(
    const unsigned* codes, const unsigned* scales, const unsigned* table, const void* given,
    const void* beside, void* out, long long tokens, long long rows, long long inputs, long long row_splits, long long kind)
{
    extern __shared__ float4 shared[];
    char* lookup = (char*)shared;
    float* partial = (float*)(lookup + TABLE_BYTES);      // [BUFFERS, TILES, WARPS, N_TILES, 2, 32]
#if FUSED
    const unsigned short* x = (const unsigned short*)given;
    const char* signs = (const char*)beside;
    float* factors = partial + BUFFERS * PARTIALS;  // [pieces, to a multiple of four, GROUPS]
    const unsigned padded = (unsigned)(inputs + 511) / 512 * 4;  // pieces
    char* after = (char*)(factors + padded * GROUPS);
    char* token = TABLE_BYTES ? lookup + 128 : after;
    char* rings = TABLE_BYTES ? after : after + padded * (2 * APART);
#else
    const uint4* operands = (const uint4*)given;
    const float* factors = (const float*)beside;
    char* rings = (char*)(partial + BUFFERS * PARTIALS);  // [WARPS, DEPTH, SLOT_BYTES]
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

    // Codes first: they depend on no other kernel. A warp's batches go through its ring, DEPTH ahead, over the borders
    // of rounds (TILES tiles of each warp).
    const int own = (pieces - split + splits - 1) / splits;  // pieces of a tile
    const int first = block_first + place, mine = place < in_flight && first < tiles ? (tiles - first + stride - 1) / stride : 0;
    const unsigned apart = (unsigned)stride * pieces;  // pieces from a tile of this warp to its next
    const int scale_tile = lane / (2 * GROUPS);
    const char* my_codes = (const char*)codes + ((unsigned long long)first * pieces + split) * PIECE_BYTES + lane * 16;
    const char* my_scales = (const char*)scales + lane % (2 * GROUPS) * 16
                            + ((unsigned long long)first * pieces + split + (unsigned long long)scale_tile * apart) * SCALE_BYTES;
    const long long jump = (long long)apart * TILES - own * splits;  // from a round's last batch to the next round
    int loading = own, coming = mine;                                // batches of the round and tiles from it on
    unsigned slot = 0;                                               // bytes into the ring
    auto next = [&]() {
        char* to = ring + slot + lane * 16;
        fetch(to, to + TILES * PIECE_BYTES, my_codes, my_scales, apart * PIECE_BYTES, coming,
              scale_tile < TILES && scale_tile < coming, lane);
        my_codes += splits * PIECE_BYTES;
        my_scales += splits * SCALE_BYTES;
        if (--loading == 0) {
            loading = own;
            coming -= TILES;
            my_codes += jump * PIECE_BYTES;
            my_scales += jump * SCALE_BYTES;
        }
        slot = slot == RING_BYTES - SLOT_BYTES ? 0 : slot + SLOT_BYTES;
    };
#pragma unroll
    for (int i = 0; i < DEPTH; i++) next();
    fill_table(lookup, table, thread, THREADS);
#if FUSED
    OwnSigns own_signs;
    read_own_signs(own_signs, signs, inputs, warp, lane);
    wait_for_inputs();
    make_operands(token, factors, x, own_signs, signs != 0, inputs, warp, lane);
#else
    wait_for_inputs();
#endif
    __syncthreads();

    const unsigned part = lane_part(lane);
    [[maybe_unused]] const int columns = (int)tokens * 2;
    Operands b[IN_PLACE ? N_TILES : 1];
#pragma unroll
    for (Operands& own : b) own.b[0] = own.b[1] = make_uint4(0, 0, 0, 0);
    for (int step = 0;; step += TILES) {
        float sums[TILES][N_TILES][2];
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int n = 0; n < N_TILES; n++) sums[t][n][0] = sums[t][n][1] = 0;
        const int here = mine - step;  // tiles of this warp from here on
        if (here > 0) {
            for (int piece = split; piece < pieces; piece += splits) {
#if FUSED
                load_own(b[0], token, factors, piece, lane);
#elif IN_PLACE || N_TILES == 1
#pragma unroll
                for (int n = 0; n < N_TILES; n++)
                    load_operands(b[n], operands, factors, n * pieces + piece, columns - n * 8, lane);
#endif
                wait_for_copies<DEPTH - 1>();
                __syncwarp();
#if IN_PLACE
                if (TILES == 1 || here >= TILES)
                    add_batch(sums, ring + slot, TILES, b, lane);
                else
                    add_batch(sums, ring + slot, here, b, lane);
                __syncwarp();
                next();
#else
                Batch now;
                load_batch(now, ring + slot, lane);
                __syncwarp();  // every lane has read before the slot is written again
                next();
                auto multiply = [&](bool all) {
                    unsigned a[TILES][A_WORDS];
#pragma unroll
                    for (int t = 0; t < TILES; t++)
                        if (all || t < here) decode(now.codes[t], lookup, part, a[t]);
#pragma unroll
                    for (int n = 0; n < N_TILES; n++) {
#if N_TILES > 1
                        load_operands(b[0], operands, factors, n * pieces + piece, columns - n * 8, lane);
#endif
#pragma unroll
                        for (int t = 0; t < TILES; t++)
                            if (all || t < here) add_piece(sums[t][n], a[t], now.scales[t], b[0]);
                    }
                };
                if (TILES == 1 || here >= TILES)
                    multiply(true);
                else
                    multiply(false);
#endif
            }
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int n = 0; n < N_TILES; n++) {
                    float* target = partial + ((t * WARPS + warp) * N_TILES + n) * 64 + lane;
                    target[0] = sums[t][n][0];
                    target[32] = sums[t][n][1];
                }
        }
        const int done = min(TILES, steps - step);
        __syncthreads();
        const int of_tile = in_flight * N_TILES * 64;
        for (int v = thread; v < done * of_tile; v += THREADS) {
            const int s = v / of_tile, p = v % of_tile / (N_TILES * 64), rest = v % (N_TILES * 64);
            const float* each = partial + (s * WARPS + p * splits) * (N_TILES * 64) + rest;
            float sum = 0;
            for (int k = 0; k < splits; k++) sum += each[k * (N_TILES * 64)];
            const long long row = (long long)((step + s) * stride + block_first + p) * 16 + (rest >> 5 & 1) * 8
                                  + (rest >> 2 & 7);
            const long long token = (rest >> 6) * 4 + (rest & 3);
            if (row < rows && token < tokens) store(out, token * rows + row, sum * UNIT, (int)kind);
        }
        if (step + TILES >= steps) return;
        // With two buffers nobody writes to this one before all have come to the next barrier, with their sums taken.
        if (BUFFERS == 1)
            __syncthreads();
        else
            partial += step / TILES % 2 ? -PARTIALS : PARTIALS;
    }
}
