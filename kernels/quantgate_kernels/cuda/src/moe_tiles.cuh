// Once per tier, in a namespace of its own, after fragments.cuh with the tier's DIMENSIONS, CODE_BITS and COPIES:
// neighbouring tiles of 16 rows of one matrix, side by side, times the tokens of a slot.

// A warp's codes and scales on their way through its ring: RING bytes of shared memory, a piece of each tile in a slot.
template <int GROUPS> struct Ring {
    static constexpr int CODES = PIECE_WORDS * 4, SCALES = GROUPS * 32, SLOT = SIDE * (CODES + SCALES), DEPTH = RING / SLOT;
    static_assert(DEPTH > 0, "RING holds no piece of each tile");
    const char* codes;
    const char* scales;
    unsigned slot;  // bytes into the ring
    int left;       // pieces to be copied

    // From the piece `first` on.
    __device__ __forceinline__ Ring(const Tiles& t, int first, unsigned lane)
    {
        codes = (const char*)t.codes + first * CODES + lane * 16;
        scales = (const char*)t.scales + (lane / (2 * GROUPS) * t.of_tile + first) * SCALES + lane % (2 * GROUPS) * 16;
        slot = 0;
        left = t.pieces - first;
    }

    // Copies the next piece of each tile into the slot: a group of copies, an empty one where there are no more.
    __device__ __forceinline__ void next(const Tiles& t, char* ring, unsigned lane)
    {
        char* to = ring + slot + lane * 16;
        const int scale_tile = lane / (2 * GROUPS);
#pragma unroll
        for (int s = 0; s < SIDE; s++) {
#pragma unroll
            for (int i = 0; i < CODES; i += 512)
                copy16_if(left > 0 && s < t.tiles && (CODES - i >= 512 || (int)lane * 16 < CODES - i), to + s * CODES + i,
                          codes + s * t.of_tile * CODES + i);
        }
        copy16_if(left > 0 && scale_tile < SIDE && scale_tile < t.tiles, to + SIDE * CODES, scales);
        commit_copies();
        codes += CODES;
        scales += SCALES;
        left--;
        slot = slot == (DEPTH - 1) * SLOT ? 0 : slot + SLOT;
    }
};

// The first pieces, which depend on nothing that this launch makes.
template <int GROUPS> __device__ __forceinline__ void start(const Tiles& t, char* ring, unsigned lane)
{
    Ring<GROUPS> coming(t, 0, lane);
#pragma unroll
    for (int i = 0; i < Ring<GROUPS>::DEPTH; i++) coming.next(t, ring, lane);
}

// The rest. Returns the number of an item to come, for lane 0: claimed late, so that those who are done first take most.
template <int GROUPS> __device__ __forceinline__ int finish(const Tiles& t, const char* lookup, char* ring, unsigned lane)
{
    typedef Ring<GROUPS> R;
    R coming(t, R::DEPTH, lane);
    wait_until(t.flag, t.needed);
    const unsigned part = lane_part(lane);
    Inputs<GROUPS> x, x_to_come;
    x.b[0] = x.b[1] = x_to_come.b[0] = x_to_come.b[1] = make_uint4(0, 0, 0, 0);
    float sums[SIDE][2], before[SIDE][2];  // of this part of the inputs, of those before it
#pragma unroll
    for (int s = 0; s < SIDE; s++) sums[s][0] = sums[s][1] = before[s][0] = before[s][1] = 0;
    int claimed = -1, part_of = 1, turn = part_begin(1, t.parts, t.pieces);
    auto load = [&](Inputs<GROUPS>& to, int at) {
        if (at < t.pieces)
            load_inputs<GROUPS>(to, t.operands + (t.operand_at + at * 64), t.factors + (t.factor_at + at * GROUPS * 4),
                                (int)(lane >> 3) < t.count);
    };
    load(x, 0);
    for (int piece = 0; piece < t.pieces; piece++) {
        if (claimed < 0 && t.pieces - piece <= R::DEPTH) claimed = claim(t.claims, lane);
        // A piece ahead: what another multiprocessor wrote, or an emptied L1 cache, takes its time.
        load(x_to_come, piece + 1);
        wait_for_copies<R::DEPTH - 1>();
        __syncwarp();
        Codes now[SIDE];
        unsigned own[SIDE][GROUPS];
#pragma unroll
        for (int s = 0; s < SIDE; s++) {
            now[s] = codes_of<Kept>((const unsigned*)(ring + coming.slot + s * R::CODES), lane);
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
                own[s][g] = *(const unsigned*)(ring + coming.slot + SIDE * R::CODES + s * R::SCALES + g * 32 + (lane >> 2) * 4);
        }
        __syncwarp();  // every lane has read before the slot is written again
        coming.next(t, ring, lane);
#pragma unroll
        for (int s = 0; s < SIDE; s++) {
            unsigned a[16];
            decode(now[s], lookup, part, a);
            add_piece<GROUPS>(sums[s], a, own[s], x);
        }
        x = x_to_come;
        if (!SPLIT && piece + 1 == turn) {  // otherwise an item is one part
#pragma unroll
            for (int s = 0; s < SIDE; s++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    before[s][e] += sums[s][e];
                    sums[s][e] = 0;
                }
            }
            turn = part_begin(++part_of, t.parts, t.pieces);
        }
    }
#pragma unroll
    for (int s = 0; s < SIDE; s++) {
        if (s < t.tiles && (int)(lane & 3) < t.count) {
            float* place = t.out + s * 16 + t.out_at * t.out_step;
            place[0] = before[s][0] + sums[s][0];
            place[8] = before[s][1] + sums[s][1];
        }
    }
    return claimed;
}
