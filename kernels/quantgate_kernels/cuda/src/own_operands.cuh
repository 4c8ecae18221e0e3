// The operands of one token, made by the block that multiplies with them: to the bit what activations.cu leaves, but only
// the token's two columns. They lie where a table of 256 entries leaves 128 of its 256 bytes an entry free; where there
// is no table, in a place of their own.
//
// WARPS, UNITS (of 512 inputs, that a warp turns at most), APART (bytes from one half of a piece to the next one: 256, or
// 128 without a table) and what rotation.cuh asks for are given. In two steps, as
// signs can be read before the token is there.

struct OwnSigns {
    unsigned words[UNITS][4];
};

__device__ __forceinline__ void read_own_signs(OwnSigns& own, const char* signs, long long inputs, int warp, unsigned lane)
{
#pragma unroll
    for (int u = 0; u < UNITS; u++)
        if (signs) read_signs<16>(own.words[u], signs, inputs, (warp + u * WARPS) * 512LL + lane * 16);
}

// Half h of piece p comes to place + (p * 2 + h) * APART: 64 bytes of its inputs as int8, then 64 of what that leaves.
// `factors` [pieces, 128 / GROUP] say what one unit is worth. All warps of a block come here; a barrier has to follow.
__device__ __forceinline__ void make_operands(char* place, float* factors, const unsigned short* x, const OwnSigns& own,
                                              bool turned, long long inputs, int warp, unsigned lane)
{
    float v[UNITS][16];
#pragma unroll
    for (int u = 0; u < UNITS; u++) read_floats<16>(v[u], x, 0, inputs, (warp + u * WARPS) * 512LL + lane * 16);
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
        const int unit = warp + u * WARPS;
        if (unit * 512LL >= inputs) return;
        if (turned) turn<16>(v[u], own.words[u], lane);
        float most = 0;
#pragma unroll
        for (int i = 0; i < 16; i++) most = larger(most, v[u][i]);
#pragma unroll
        for (unsigned bit = 1; bit < GROUP / 16; bit *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, bit));
        const Step step = step_of(most);
        unsigned hi[4], lo[4];
#pragma unroll
        for (int i = 0; i < 4; i++) split_four(v[u] + i * 4, step, hi[i], lo[i]);
        const unsigned part = lane % 8, piece = unit * 4 + lane / 8;
        char* to = place + (piece * 2 + part / 4) * APART + (part & 1) * 32 + (part >> 1 & 1) * 8;
        *(uint2*)to = make_uint2(hi[0], hi[1]);
        *(uint2*)(to + 16) = make_uint2(hi[2], hi[3]);
        *(uint2*)(to + 64) = make_uint2(lo[0], lo[1]);
        *(uint2*)(to + 80) = make_uint2(lo[2], lo[3]);
        if (lane % (GROUP / 16) == 0) factors[piece * (128 / GROUP) + part * 16 / GROUP] = step.factor;
    }
}
