// Activations to B operands: turned by signs and a Hadamard matrix within each group, then int8 and an int8 residual.
//
// x = s (hi + lo / 254) with s = max |x| / 127 of a group of a token; hi and lo are two neighbouring columns of B, so
// four tokens fill one n tile. Stored: operands uint4 [n tiles, pieces, 2, 32 lanes], as a warp loads them: byte b of
// lane l's uint4 h is column l / 4 (token l / 8, hi or lo), input h * 64 + b / 8 * 32 + l % 4 * 8 + b % 8 of the piece;
// factors float [n tiles, pieces, 128 / GROUP, 4 tokens], s / 254 / 32: what one unit of 254 hi + lo, times one unit of
// a codebook, is worth. Columns of tokens that are not there are not written.
//
// What rotation.cuh asks for is given. One warp a piece of a token; blocks of 128 threads.

// Four inputs of a lane, turned, of one piece of a token: the lanes of a warp have all 128 of them.
__device__ __forceinline__ void store_operands(const float* v, unsigned* operands, float* factors, long long token,
                                               long long pieces, long long piece, unsigned lane)
{
    float most = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float size = fabsf(v[i]);
        most = fmaxf(most, size <= 3.4e38f ? size : __uint_as_float(0x7f800000u));  // NaN counts as infinite
    }
#pragma unroll
    for (unsigned bit = 1; bit < GROUP / 4; bit *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, bit));
    const bool sound = most > 1e-30f && most <= 3.4e38f;
    const float by = sound ? 127.0f / most : 0.0f;
    unsigned hi = 0, lo = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float whole = sound ? v[i] * by : 0.0f, near = rintf(whole);
        hi |= ((unsigned)(int)near & 255u) << 8 * i;
        lo |= ((unsigned)(int)rintf((whole - near) * 254.0f) & 255u) << 8 * i;
    }
    // Inputs 4 * lane are of the 32 that lane / 8 counts, for the mma lane lane % 8 / 2, its first or last four.
    const long long tile = token >> 2, slot = token & 3;
    unsigned* place = operands + ((tile * pieces + piece) * 2 + (lane >> 4)) * 128 + slot * 32 + (lane % 8 / 2) * 4
                      + (lane >> 3 & 1) * 2 + (lane & 1);
    place[0] = hi;
    place[16] = lo;
    if (lane % (GROUP / 4) == 0) {
        // What is not finite stays so: the result of such a token is NaN, as it would be of floats.
        const float factor = sound ? most * (1.0f / 127 / 254 / 32) : most <= 1e-30f ? 0.0f : most - most;
        factors[((tile * pieces + piece) * (128 / GROUP) + lane / (GROUP / 4)) * 4 + slot] = factor;
    }
}

extern "C" __global__ void __launch_bounds__(128) activations(
    const unsigned short* x, const char* signs, unsigned* operands, float* factors, long long tokens, long long inputs)
{
    let_next_begin();
    wait_for_inputs();
    const unsigned lane = threadIdx.x & 31;
    const long long pieces = (inputs + 127) / 128, work = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
    const long long token = work / pieces, piece = work % pieces;
    if (token >= tokens) return;
    float v[4];
    read_floats<4>(v, x, token, inputs, piece * 128 + lane * 4);
    if (signs) turn<4>(v, signs, inputs, piece * 128 + lane * 4, lane);  // null: no rotation
    store_operands(v, operands, factors, token, pieces, piece, lane);
}
