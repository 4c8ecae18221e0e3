// Once per tier, in a namespace of its own, after fragments.cuh with the tier's DIMENSIONS, CODE_BITS and COPIES:
// neighbouring tiles of 16 rows of one matrix, times the tokens of a slot.

// Returns the number of an item to come, for lane 0: claimed late, so that those who are done first take most.
template <int GROUPS> __device__ __forceinline__ int stream(const Tiles& t, const char* lookup, unsigned lane)
{
    struct {
        Codes codes;
        unsigned scales[GROUPS];
    } ring[PREFETCH];
#if WORDS == 4 || WORDS == 2  // one plane: the lane's place in it is added once
    const unsigned* codes = t.codes + lane * WORDS;
    const unsigned within = 0;
#else
    const unsigned* codes = t.codes;
    const unsigned within = lane;
#endif
    const unsigned* scales = t.scales + (lane >> 2);
    int left = t.pieces * t.tiles;
    auto fetch = [&](int i, int ahead) {
        if (left > ahead) {
            ring[i].codes = codes_of<Streamed>(codes + ahead * PIECE_WORDS, within);
#pragma unroll
            for (int g = 0; g < GROUPS; g++) ring[i].scales[g] = stream1(scales + (ahead * GROUPS + g) * 8);
        }
    };
#pragma unroll
    for (int i = 0; i < PREFETCH; i++) fetch(i, i);
    if (DEEP > PREFETCH && left > PREFETCH) {
        if (lane == 0) into_l2(t.codes + PREFETCH * 32 * WORDS, min(left, DEEP) - PREFETCH, 128 * WORDS);
        if (lane == 1) into_l2(t.scales + PREFETCH * GROUPS * 8, min(left, DEEP) - PREFETCH, GROUPS * 32);
    }
    // Codes depend on nothing that this launch makes: they are on their way while the inputs are waited for.
    wait_until(t.flag, t.needed);
    const unsigned part = lane_part(lane);
    const int column = lane >> 3;
    Inputs<GROUPS> x[2];
    x[0].b[0] = x[0].b[1] = x[1].b[0] = x[1].b[1] = make_uint4(0, 0, 0, 0);
    float sums[N_TILES][2];
#pragma unroll
    for (int n = 0; n < N_TILES; n++) sums[n][0] = sums[n][1] = 0;
    float* out = t.out;
    int piece = 0, claimed = -1;
    auto load = [&](int n, int at) {
        if (n < N_TILES && (n == 0 || n * 4 < t.count))
            load_inputs<GROUPS>(x[n & 1], t.operands + (t.operand_at[n] + at * 64),
                                t.factors + (t.factor_at[n] + at * GROUPS * 4), n * 4 + column < t.count);
    };
    load(0, 0);
    for (;;) {
        if (claimed < 0 && left <= 2 * PREFETCH) claimed = claim(t.claims, lane);
#pragma unroll
        for (int i = 0; i < PREFETCH; i++) {
            if (left > i) {
                unsigned a[16], own[GROUPS];
                decode(ring[i].codes, lookup, part, a);
#pragma unroll
                for (int g = 0; g < GROUPS; g++) own[g] = ring[i].scales[g];
                fetch(i, i + PREFETCH);
                const int following = piece + 1 < t.pieces ? piece + 1 : 0;
#pragma unroll
                for (int n = 0; n < N_TILES; n++) {
                    load(n + 1, piece);
                    if (n == 0 || n * 4 < t.count) add_piece<GROUPS>(sums[n], a, own, x[n & 1]);
                    // A piece ahead: what another multiprocessor wrote, or an emptied L1 cache, takes its time.
                    if (n == 2 || (n == 0 && (N_TILES <= 2 || t.count <= 8))) load(0, following);
                }
                piece = following;
                if (piece == 0) {
#pragma unroll
                    for (int n = 0; n < N_TILES; n++) {
                        if (n * 4 + (int)(lane & 3) < t.count) {
                            float* place = out + t.out_at[n] * t.out_step;
                            place[0] = sums[n][0];
                            place[8] = sums[n][1];
                        }
                        sums[n][0] = sums[n][1] = 0;
                    }
                    out += 16;
                }
            }
        }
        if (DEEP > PREFETCH && left > DEEP) {
            if (lane == 0) into_l2(codes + DEEP * 32 * WORDS, min(left - DEEP, PREFETCH), 128 * WORDS);
            if (lane == 1) into_l2(scales + DEEP * GROUPS * 8, min(left - DEEP, PREFETCH), GROUPS * 32);
        }
        left -= PREFETCH;
        if (left <= 0) break;
        codes += PREFETCH * 32 * WORDS;
        scales += PREFETCH * GROUPS * 8;
    }
    return claimed;
}
