// Activations as float16 for vq_gemm.cu: brought to a safe range by a power of two a token, then turned by signs and a
// Hadamard matrix within each group.
//
// Stored: halves [pieces, 16, padded tokens, 8 inputs], so that a piece of all tokens is one copy, of matrices of eight
// tokens by eight inputs as tensor cores read them. Which inputs: of 32, lane l of a multiplying warp decodes the
// weights of 8 (l % 4) ... + 7, and two of them at a time are neighbours in an operand A. So matrix 2 h + c of four has
// inputs 8 t + 4 h + 2 c and the one after it, for t from 0 to 3. factors float [padded tokens]: what one unit is
// worth. Tokens that are not there are not written.
//
// WARPS, and what rotation.cuh asks for, are given. A block a token; a warp takes 512 inputs at a time, of which it
// keeps the first.

extern "C" __global__ void __launch_bounds__(WARPS * 32) half_activations(
    const unsigned short* x, const char* signs, unsigned short* halves, float* factors, long long padded, long long inputs)
{
    __shared__ float largest[WARPS];
    let_next_begin();
    wait_for_inputs();
    const unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const long long token = blockIdx.x, own = warp * 512 + lane * 16;
    float kept[16], v[16], most = 0;
    read_floats<16>(kept, x, token, inputs, own);
#pragma unroll
    for (int i = 0; i < 16; i++) most = fmaxf(most, fabsf(kept[i]));
    for (long long first = own + WARPS * 512; first < inputs; first += WARPS * 512) {
        read_floats<16>(v, x, token, inputs, first);
#pragma unroll
        for (int i = 0; i < 16; i++) most = fmaxf(most, fabsf(v[i]));
    }
#pragma unroll
    for (unsigned bit = 1; bit < 32; bit *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, bit));
    if (lane == 0) largest[warp] = most;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < WARPS; i++) most = fmaxf(most, largest[i]);
    const float by = to_safe_range(most);
    if (threadIdx.x == 0) factors[token] = 1 / by;
    for (long long base = warp * 512; base < inputs; base += WARPS * 512) {
        const long long first = base + lane * 16;
        if (first != own) read_floats<16>(kept, x, token, inputs, first);
#pragma unroll
        for (int i = 0; i < 16; i++) v[i] = kept[i] * by;
        if (signs) turn<16>(v, signs, inputs, first, lane);  // null: no rotation
        unsigned pairs[8];
#pragma unroll
        for (int i = 0; i < 8; i++) pairs[i] = half_pair(v[i * 2], v[i * 2 + 1]);
        if (first / 128 * 128 >= inputs) continue;  // no piece begins there
        // Of matrix i of its 32 inputs this lane has half a row.
        const long long matrix = first / 128 * 16 + lane % 8 / 2 * 4;
        uint2* half = (uint2*)halves + (matrix * padded + token) * 2 + (lane & 1);
#pragma unroll
        for (int i = 0; i < 4; i++) half[i * padded * 2] = make_uint2(pairs[i], pairs[4 + i]);
    }
}
