// Once per tier, in a namespace of its own, after fragments.cuh with the tier's DIMENSIONS, CODE_BITS and COPIES:
// neighbouring tiles of 16 rows of one matrix, times up to four tokens.

template <int GROUPS> __device__ __forceinline__ void stream(const Tiles& t, const char* lookup, unsigned lane)
{
    struct {
        Codes codes;
        unsigned scales[GROUPS];
    } ring[PREFETCH];
    const int total = t.pieces * t.tiles;
    auto fetch = [&](int i, int at) {
        if (at < total) {
            ring[i].codes = load_codes(t.codes, at, lane);
#pragma unroll
            for (int g = 0; g < GROUPS; g++) ring[i].scales[g] = stream1(t.scales + (at * GROUPS + g) * 8 + (lane >> 2));
        }
    };
#pragma unroll
    for (int i = 0; i < PREFETCH; i++) fetch(i, i);
    // Codes depend on nothing that this launch makes: they are on their way while the inputs are waited for.
    wait_until(t.flag, t.needed);
    const unsigned part = lane_part(lane);
    float sums[2] = {0, 0};
    float* out = t.out;
    int piece = 0;
    Inputs<GROUPS> next = load_inputs<GROUPS>(t, 0);
    for (int first = 0; first < total; first += PREFETCH) {
#pragma unroll
        for (int i = 0; i < PREFETCH; i++) {
            if (first + i < total) {
                unsigned a[16], scales[GROUPS];
                decode(ring[i].codes, lookup, part, a);
#pragma unroll
                for (int g = 0; g < GROUPS; g++) scales[g] = ring[i].scales[g];
                fetch(i, first + i + PREFETCH);
                const Inputs<GROUPS> now = next;
                piece = piece + 1 < t.pieces ? piece + 1 : 0;
                next = load_inputs<GROUPS>(t, piece);
                add_piece<GROUPS>(sums, a, scales, now);
                if (piece == 0) {
                    if (out) {
                        out[0] = sums[0] * t.weight;
                        out[8] = sums[1] * t.weight;
                        out += 16;
                    }
                    sums[0] = sums[1] = 0;
                }
            }
        }
    }
}
