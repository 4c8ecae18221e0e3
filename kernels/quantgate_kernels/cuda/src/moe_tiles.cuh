// Once per tier, in a namespace of its own, after fragments.cuh with the tier's DIMENSIONS, CODE_BITS and COPIES:
// neighbouring tiles of 16 rows of one matrix, times up to four tokens.

template <int GROUPS> __device__ __forceinline__ void stream(const Tiles& t, const char* lookup, unsigned lane)
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
            ring[i].codes = load_codes(codes, ahead, within);
#pragma unroll
            for (int g = 0; g < GROUPS; g++) ring[i].scales[g] = stream1(scales + (ahead * GROUPS + g) * 8);
        }
    };
#pragma unroll
    for (int i = 0; i < PREFETCH; i++) fetch(i, i);
    // Codes depend on nothing that this launch makes: they are on their way while the inputs are waited for.
    wait_until(t.flag, t.needed);
    const unsigned part = lane_part(lane);
    const uint4* operands = t.operands;
    const float* factors = t.factors;
    Inputs<GROUPS> x;
    x.b[0] = x.b[1] = make_uint4(0, 0, 0, 0);
    float sums[2] = {0, 0};
    float* out = t.out;
    int adding = t.pieces;
    for (;;) {
#pragma unroll
        for (int i = 0; i < PREFETCH; i++) {
            if (left > i) {
                load_inputs<GROUPS>(x, operands, factors, t.here);
                unsigned a[16], own[GROUPS];
                decode(ring[i].codes, lookup, part, a);
#pragma unroll
                for (int g = 0; g < GROUPS; g++) own[g] = ring[i].scales[g];
                fetch(i, i + PREFETCH);
                add_piece<GROUPS>(sums, a, own, x);
                operands += 64;
                factors += GROUPS * 4;
                if (--adding == 0) {
                    if (out) {
                        out[0] = sums[0] * t.weight;
                        out[8] = sums[1] * t.weight;
                        out += 16;
                    }
                    sums[0] = sums[1] = 0;
                    adding = t.pieces;
                    operands = t.operands;
                    factors = t.factors;
                }
            }
        }
        left -= PREFETCH;
        if (left <= 0) break;
        codes += PREFETCH * 32 * WORDS;
        scales += PREFETCH * GROUPS * 8;
    }
}
