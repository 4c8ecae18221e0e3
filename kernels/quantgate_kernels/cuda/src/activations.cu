// Activations to B operands: turned by signs and a Hadamard matrix within each group, then int8 and an int8 residual.
//
// hi and lo (operands.cuh) are two neighbouring columns of B, so four tokens fill one n tile. Stored: operands uint4 [n tiles, pieces, 2, 32 lanes], as a warp loads them: byte b of
// lane l's uint4 h is column l / 4 (token l / 8, hi or lo), input h * 64 + b / 8 * 32 + l % 4 * 8 + b % 8 of the piece;
// factors float [n tiles, pieces, 128 / GROUP, 4 tokens], s / 254 / 32: what one unit of 254 hi + lo, times one unit of
// a codebook, is worth. Columns of tokens that are not there are not written.
//
// What rotation.cuh asks for is given, and operands.cuh. One warp a piece of a token; blocks of 128 threads.

// Four inputs of a lane, turned, of one piece of a token: the lanes of a warp have all 128 of them.
__device__ __forceinline__ void store_operands(const float* v, unsigned* operands, float* factors, long long token,
                                               long long pieces, long long piece, unsigned lane)
{
    float most = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) most = larger(most, v[i]);
#pragma unroll
    for (unsigned bit = 1; bit < GROUP / 4; bit *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, bit));
    const Step step = step_of(most);
    unsigned hi, lo;
    split_four(v, step, hi, lo);
    // Inputs 4 * lane are of the 32 that lane / 8 counts, for the mma lane lane % 8 / 2, its first or last four.
    const long long tile = token >> 2, slot = token & 3;
    unsigned* place = operands + ((tile * pieces + piece) * 2 + (lane >> 4)) * 128 + slot * 32 + (lane % 8 / 2) * 4
                      + (lane >> 3 & 1) * 2 + (lane & 1);
    place[0] = hi;
    place[16] = lo;
    if (lane % (GROUP / 4) == 0)
        factors[((tile * pieces + piece) * (128 / GROUP) + lane / (GROUP / 4)) * 4 + slot] = step.factor;
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
