// Second launch: gate and up, SiLU, the rotation of what comes out, down, and the sum over each token's experts.
//
// A warp works alone. It claims an item, SIDE neighbouring tiles of 16 rows of one matrix of one slot and a part of their
// inputs: first gate and up of all slots, then down of all slots. Whoever finishes the last item of 128 rows of gate and up
// makes B operands of them; whoever finishes the last slot of SIDE tiles adds the experts up, in the order of `top_k`. Down of a slot
// waits until all its operands are there: they come from items that were claimed earlier, by warps that run and wait for
// nothing before they are done with them. So it does not matter how many blocks run at once.
//
// WARPS, GROUPS_IN, GROUPS_MID (scale groups in 128 inputs of D and of I), GATE_PARTS and DOWN_PARTS (that the inputs of
// a tile are summed in), SPLIT (each part is an item of its own, whose sum is stored) and TABLES (their bytes) are given,
// and `piece_words`, `start`, `finish` and `fill_tables` for the tiers of the layer.

#define THREADS (WARPS * 32)
#define GATE_SUMS (SPLIT ? GATE_PARTS : 1)
#define DOWN_SUMS (SPLIT ? DOWN_PARTS : 1)

struct Layer {
    long long inputs, middle;  // D and I
    int pieces_in, pieces_mid, tiles_mid, tiles_out;
    int gate_items, down_items;  // of a slot
    int top_k;
};

struct Buffers {
    const unsigned* codes;
    const unsigned* scales;
    const uint4* operands;
    const float* factors;
    float* raw;        // [slots * SLOT_TOKENS, 2, GATE_SUMS, pieces_mid * 128]
    uint4* mid;        // operands [slots, pieces_mid, 2, 32]
    float* mid_factors;
    float* partial;    // [pairs, DOWN_SUMS, D]
    const float* router;
    int* arrived;      // [slots, pieces_mid]: tiles of gate and up, of each part
    int* ready;        // [slots]: pieces of operands
    int* rows_done;    // [groups of SIDE tiles]: items of down
    int* claims;
};

__device__ __forceinline__ float silu(float v)
{
    return v / (1 + expf(-v));
}

// Four rows, of which there are so many sums `apart` from each other, one after the other.
template <int SUMS> __device__ __forceinline__ float4 sum_of(const float* sums, long long apart)
{
    float4 v[SUMS];
#pragma unroll
    for (int i = 0; i < SUMS; i++) v[i] = __ldcg((const float4*)(sums + i * apart));
#pragma unroll
    for (int i = 1; i < SUMS; i++) v[0] = make_float4(v[0].x + v[i].x, v[0].y + v[i].y, v[0].z + v[i].z, v[0].w + v[i].w);
    return v[0];
}

// Four rows of a token, weighted and summed over its experts that are here; the kind of `out` is 0: float32, 1: bfloat16, 2: float16.
__device__ __forceinline__ void add_four(long long token, long long row, const int* owners, void* out, int kind,
                                         long long inputs, int top_k, const float* partial, const float* router)
{
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (int j = 0; j < top_k; j++) {
        if (owners[token * top_k + j] < 0) continue;
        const float4 v = sum_of<DOWN_SUMS>(partial + (token * top_k + j) * DOWN_SUMS * inputs + row, inputs);
        const float weight = router[token * top_k + j];
        sum.x = fmaf(weight, v.x, sum.x);
        sum.y = fmaf(weight, v.y, sum.y);
        sum.z = fmaf(weight, v.z, sum.z);
        sum.w = fmaf(weight, v.w, sum.w);
    }
    const long long place = token * inputs + row;
    if (kind == 0) {
        *(float4*)((float*)out + place) = sum;
    } else if (kind == 1) {
        *(uint2*)((unsigned short*)out + place) =
            make_uint2(to_bfloat(sum.x) | (unsigned)to_bfloat(sum.y) << 16, to_bfloat(sum.z) | (unsigned)to_bfloat(sum.w) << 16);
    } else {
        *(uint2*)((unsigned short*)out + place) =
            make_uint2(to_half(sum.x) | (unsigned)to_half(sum.y) << 16, to_half(sum.z) | (unsigned)to_half(sum.w) << 16);
    }
}

// Which tiles an item is, of matrix 0 (gate), 1 (up), 2 (down), and which part of their inputs, of those that are stored.
struct Item {
    int slot, matrix, tile, tiles, part;
};

__device__ __forceinline__ Item item_of(int item, int slots, const Layer& l)
{
    Item found;
    if (item < slots * l.gate_items) {
        const int rest = item % l.gate_items, group = rest / GATE_SUMS % (16 / SIDE);
        found.slot = item / l.gate_items;
        found.matrix = group / (8 / SIDE);
        found.tile = rest / (16 / SIDE * GATE_SUMS) * 8 + group % (8 / SIDE) * SIDE;
        found.tiles = min(SIDE, l.tiles_mid - found.tile);  // may be none, of a last piece that is not whole
        found.part = rest % GATE_SUMS;
    } else {
        const int other = item - slots * l.gate_items, rest = other % l.down_items;
        found.slot = other / l.down_items;
        found.matrix = 2;
        found.tile = rest / DOWN_SUMS * SIDE;
        found.tiles = min(SIDE, l.tiles_out - found.tile);
        found.part = rest % DOWN_SUMS;
    }
    return found;
}

// What a lane reads of the record of a slot before it is needed, and how the warp gets it back.
__device__ __forceinline__ int field(int record, int place)
{
    return __shfl_sync(0xffffffffu, record, place);
}

__device__ __forceinline__ Tiles tiles_of(const Item& item, int record, const Layer& l, const Buffers& m, unsigned lane)
{
    Tiles t;
    const bool down = item.matrix == 2;
    const unsigned low = (unsigned)field(record, item.matrix * 2), high = (unsigned)field(record, item.matrix * 2 + 1);
    const int position = field(record, SLOT_POSITION), groups = down ? GROUPS_MID : GROUPS_IN;
    t.count = field(record, SLOT_COUNT);
    t.tier = field(record, SLOT_TIERS) >> (item.matrix * 8) & 255;
    t.of_tile = down ? l.pieces_mid : l.pieces_in;
    t.tiles = item.tiles;
    const int sums = down ? DOWN_SUMS : GATE_SUMS, begin = part_begin(item.part, sums, t.of_tile);
    t.pieces = part_begin(item.part + 1, sums, t.of_tile) - begin;
    t.parts = down ? DOWN_PARTS : GATE_PARTS;
    const long long first = (long long)item.tile * t.of_tile + begin;
    t.codes = m.codes + (long long)((unsigned long long)high << 32 | low) + first * piece_words(t.tier);
    const long long of_gate = (long long)l.tiles_mid * l.pieces_in * GROUPS_IN * 8;
    const long long of_down = (long long)l.tiles_out * l.pieces_mid * GROUPS_MID * 8;
    t.scales = m.scales + position * (2 * of_gate + of_down) + item.matrix * of_gate + first * groups * 8;
    t.operands = down ? m.mid : m.operands;
    t.factors = down ? m.mid_factors : m.factors;
    t.out_step = down ? l.inputs : (long long)l.pieces_mid * 128;
    t.out = (down ? m.partial : m.raw) + item.tile * 16 + (lane >> 2);
    // Where there is no token, that of the slot's first: what it gives is not stored.
    const int column = lane >> 3, mine = lane & 3;
    const int loaded = column < t.count ? column : 0, summed = mine < t.count ? mine : 0;
    const int loaded_pair = field(record, SLOT_PAIRS + loaded), pair = field(record, SLOT_PAIRS + summed);
    const int token = down ? item.slot * SLOT_TOKENS + loaded : loaded_pair / l.top_k;
    const int owner = down ? item.slot * SLOT_TOKENS + summed : pair / l.top_k;
    t.operand_at = ((token >> 2) * t.of_tile + begin) * 64 + (token & 3) * 8 + (lane & 7);
    t.factor_at = ((owner >> 2) * t.of_tile + begin) * groups * 4 + (owner & 3);
    t.out_at = (down ? pair : (item.slot * SLOT_TOKENS + summed) * 2 + item.matrix) * sums + item.part;
    t.flag = down ? m.ready + item.slot : 0;
    t.needed = l.pieces_mid;
    t.claims = m.claims;
    return t;
}

// Everything this warp wrote can be seen by who sees the count; lane 0 gets what was counted before.
__device__ __forceinline__ int arrive(int* counter, int by, unsigned lane)
{
    __syncwarp();
    return lane == 0 ? release(counter, by) : 0;
}

// silu(gate) * up of 128 rows of a slot's tokens, as operands for down.
__device__ __forceinline__ void activate(int slot, int piece, int count, const char* signs, const Layer& l,
                                         const Buffers& m, unsigned lane)
{
    const long long row = piece * 128 + lane * 4, padded = (long long)l.pieces_mid * 128;
    for (int c = 0; c < count; c++) {
        const float* gate = m.raw + (long long)(slot * SLOT_TOKENS + c) * 2 * GATE_SUMS * padded + row;
        float v[4] = {0, 0, 0, 0};
        if (row < l.middle) {
            const float4 g = sum_of<GATE_SUMS>(gate, padded), u = sum_of<GATE_SUMS>(gate + GATE_SUMS * padded, padded);
            v[0] = silu(g.x) * u.x;
            v[1] = silu(g.y) * u.y;
            v[2] = silu(g.z) * u.z;
            v[3] = silu(g.w) * u.w;
        }
        if (signs) of_middle::turn<4>(v, signs, l.middle, row, lane);
        of_middle::store_operands(v, (unsigned*)m.mid, m.mid_factors, slot * SLOT_TOKENS + c, l.pieces_mid, piece, lane);
    }
    arrive(m.ready + slot, 1, lane);
}

// The sum over experts of some tiles of rows, of all tokens: a lane has four rows of a token.
__device__ __forceinline__ void add_experts(int tile, int tiles, const int* owners, void* out, int kind, int tokens,
                                            const Layer& l, const Buffers& m, unsigned lane)
{
    for (int at = lane; at < tokens * tiles * 4; at += 32)
        add_four(at / (tiles * 4), (long long)tile * 16 + at % (tiles * 4) * 4, owners, out, kind, l.inputs, l.top_k, m.partial, m.router);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) moe_experts(
    const unsigned* codes, const unsigned* scales, const char* books, const char* signs, const int* slots,
    const int* owners, const int* slot_count, int* claims, int* arrived, int* ready, int* rows_done, const uint4* operands,
    const float* factors, float* raw, uint4* mid, float* mid_factors, float* partial, const float* router, void* out,
    long long tokens, long long top_k, long long inputs, long long middle, long long pieces_in, long long pieces_mid,
    long long gate_items, long long down_items, long long phases, long long out_kind)
{
    extern __shared__ float4 shared[];
    char* lookup = (char*)shared;
    fill_tables(lookup, books);
    let_next_begin();
    wait_for_inputs();
    __syncthreads();
    // What comes out of a shuffle stays in a register; the thread's number itself would be read anew for every piece.
    const unsigned thread = __shfl_sync(0xffffffffu, threadIdx.x, threadIdx.x & 31), lane = thread & 31;
    char* ring = lookup + TABLES + __shfl_sync(0xffffffffu, thread >> 5, 0) * RING;
    const int count = *slot_count;
    const Layer l = {inputs,           middle,          (int)pieces_in,  (int)pieces_mid, (int)middle / 16,
                     (int)inputs / 16, (int)gate_items, (int)down_items, (int)top_k};
    const Buffers m = {codes,   scales, operands, factors, raw,       mid, mid_factors,
                       partial, router, arrived,  ready,   rows_done, claims};
    const int end = count * (l.gate_items + (phases & 2 ? l.down_items : 0));
    const int begin = phases & 1 ? 0 : count * l.gate_items;

    if (count == 0 && phases & 4) {  // no expert of any token is here
        const long long all = tokens * inputs / 4, step = (long long)gridDim.x * THREADS;
        for (long long at = (long long)blockIdx.x * THREADS + thread; at < all; at += step)
            add_four((int)(at / (inputs / 4)), at % (inputs / 4) * 4, owners, out, (int)out_kind, inputs, (int)top_k, partial,
                     router);
        return;
    }
    int item = begin + __shfl_sync(0xffffffffu, claim(claims, lane), 0);
    if (item >= end) return;
    Item now = item_of(item, count, l);
    int record = slots[now.slot * SLOT_INTS + lane];
    Tiles t = tiles_of(now, record, l, m, lane);
    if (now.tiles > 0) start(t, now.matrix == 2, ring, lane);
    for (;;) {
        const int claimed = now.tiles > 0 ? finish(t, now.matrix == 2, lookup, ring, lane) : claim(claims, lane);
        item = begin + __shfl_sync(0xffffffffu, claimed, 0);
        const Item done = now;
        const int tokens_here = t.count, piece = done.tile / 8;
        now = item_of(item < end ? item : begin, count, l);
        record = slots[now.slot * SLOT_INTS + lane];
        const bool counts = done.tiles > 0 && (done.matrix != 2 || phases & 4);
        int* counter = done.matrix != 2 ? m.arrived + done.slot * l.pieces_mid + piece : m.rows_done + done.tile / SIDE;
        int before = counts ? arrive(counter, done.matrix != 2 ? done.tiles : 1, lane) : 0;
        // Codes to come are on their way while others' sums are waited for.
        t = tiles_of(now, record, l, m, lane);
        if (item < end && now.tiles > 0) start(t, now.matrix == 2, ring, lane);
        if (counts) {
            before = __shfl_sync(0xffffffffu, before, 0);
            const bool last = done.matrix != 2 ? before + done.tiles == 2 * GATE_SUMS * min(8, l.tiles_mid - piece * 8)
                                               : before + 1 == count * DOWN_SUMS;
            if (last) {
                acquire();
                if (done.matrix != 2)
                    activate(done.slot, piece, tokens_here, signs, l, m, lane);
                else
                    add_experts(done.tile, done.tiles, owners, out, (int)out_kind, (int)tokens, l, m, lane);
            }
        }
        if (item >= end) return;
    }
}

// Third launch where there are many tokens: the sum over experts alone.
extern "C" __global__ void __launch_bounds__(256) moe_sum(
    const float* partial, const float* router, const int* owners, void* out, long long inputs, long long tokens, long long top_k,
    long long out_kind)
{
    let_next_begin();
    wait_for_inputs();
    const long long at = (long long)blockIdx.x * 256 + threadIdx.x;
    if (at < tokens * inputs / 4)
        add_four((int)(at / (inputs / 4)), at % (inputs / 4) * 4, owners, out, (int)out_kind, inputs, (int)top_k, partial,
                     router);
}
