// For many tokens: the weight as float16 in the basis of its codes, the activations turned into float16 of a safe range,
// and the results of a float16 matrix product brought back. What fragments.cuh and rotation.cuh ask for is given, and
// OUT_BFLOAT (1: bfloat16, 0: float16) of the results. halves.cuh goes before.

#define GROUPS (128 / GROUP)

// A piece's codes and scales, of a lane.
struct Piece {
    Codes codes;
    unsigned scales[GROUPS];
};

__device__ __forceinline__ void load_piece(Piece& piece, const unsigned* codes, const unsigned* scales, long long at, unsigned lane)
{
    piece.codes = codes_of<Streamed>(codes + at * PIECE_WORDS, lane);
#pragma unroll
    for (int g = 0; g < GROUPS; g++) piece.scales[g] = stream1(scales + (at * GROUPS + g) * 8 + (lane >> 2));
}

// Rows first ... first + rows - 1 of a matrix (`first` a multiple of 16) into out [rows, inputs]. Blocks of 512 threads.
extern "C" __global__ void __launch_bounds__(512) vq_dequantize(
    const unsigned* codes, const unsigned* scales, const unsigned* table, unsigned short* out, long long first,
    long long rows, long long inputs)
{
    extern __shared__ float4 shared[];
    char* lookup = (char*)shared;
    let_next_begin();
    fill_table(lookup, table, threadIdx.x, 512);
    wait_for_inputs();  // kernels before this one may still read what it writes
    __syncthreads();
    const unsigned lane = threadIdx.x & 31, part = lane_part(lane);
    const unsigned pieces = (unsigned)((inputs + 127) / 128), count = (unsigned)((rows + 15) / 16) * pieces, step = gridDim.x * 16;
    unsigned work = blockIdx.x * 16 + (threadIdx.x >> 5);
    Piece now, next;
    if (work < count) load_piece(next, codes, scales, first / 16 * pieces + work, lane);
    for (; work < count; work += step) {
        now = next;
        if (work + step < count) load_piece(next, codes, scales, first / 16 * pieces + work + step, lane);
        const long long row = work / pieces * 16 + (lane >> 2);
        const unsigned piece = work % pieces;
        unsigned a[A_WORDS];
        decode(now.codes, lookup, part, a);
#pragma unroll
        for (int q = 0; q < 4; q++) {
            const unsigned pair = now.scales[q * GROUPS / 4];
            const long long column = piece * 128 + q * 32 + (lane & 3) * 8;
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const unsigned scale = __byte_perm(pair, 0, e ? 0x3232 : 0x1010);
                const unsigned* own_a = a + q * (A_WORDS / 4);
                const uint2 left = halves_of(own_a, e, 0), right = halves_of(own_a, e, 1);
                if (row + e * 8 < rows && column < inputs)
                    *(uint4*)(out + (row + e * 8) * inputs + column) = make_uint4(times(left.x, scale), times(left.y, scale),
                                                                                       times(right.x, scale), times(right.y, scale));
            }
        }
    }
}

// A token of x [M, inputs] as float16 in out, its largest value between 8 and 16 before it is turned; factors [M] say
// what one unit is worth (a power of two: exact). A block of 256 threads a token.
extern "C" __global__ void __launch_bounds__(256) rotate(
    const unsigned short* x, const char* signs, unsigned short* out, float* factors, long long inputs)
{
    __shared__ float largest[8];
    let_next_begin();
    wait_for_inputs();
    const unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const long long token = blockIdx.x;
    float v[16], most = 0;
#pragma unroll 2
    for (long long first = warp * 512 + lane * 16; first < inputs; first += 8 * 512) {
        read_floats<16>(v, x, token, inputs, first);
#pragma unroll
        for (int i = 0; i < 16; i++) most = fmaxf(most, fabsf(v[i]));
    }
#pragma unroll
    for (unsigned bit = 1; bit < 32; bit *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, bit));
    if (lane == 0) largest[warp] = most;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; i++) most = fmaxf(most, largest[i]);
    const float by = to_safe_range(most);
    if (threadIdx.x == 0) factors[token] = 1 / by;
    for (long long base = warp * 512; base < inputs; base += 8 * 512) {
        const long long first = base + lane * 16;
        read_floats<16>(v, x, token, inputs, first);
#pragma unroll
        for (int i = 0; i < 16; i++) v[i] *= by;
        if (signs) turn<16>(v, signs, inputs, first, lane);
        unsigned pairs[8];
#pragma unroll
        for (int i = 0; i < 8; i++) pairs[i] = to_half(v[i * 2]) | (unsigned)to_half(v[i * 2 + 1]) << 16;
        if (first < inputs) {
            uint4* to = (uint4*)(out + token * inputs + first);
            to[0] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
            to[1] = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
        }
    }
}

__device__ __forceinline__ unsigned result(unsigned pair, float factor)
{
    const float low = low_half(pair) * factor, high = high_half(pair) * factor;
#if OUT_BFLOAT
    return to_bfloat(low) | (unsigned)to_bfloat(high) << 16;
#else
    return to_half(low) | (unsigned)to_half(high) << 16;
#endif
}

// Products [M, rows] in float16 times their tokens' factors into out, whose rows are `stride` apart. A block of 256
// threads a token.
extern "C" __global__ void __launch_bounds__(256) rescale(
    const unsigned short* products, const float* factors, unsigned short* out, long long rows, long long stride)
{
    let_next_begin();
    wait_for_inputs();
    const long long token = blockIdx.x;
    const unsigned short* from = products + token * rows;
    unsigned short* to = out + token * stride;
    const float factor = fresh1(factors + token);
    if (((unsigned long long)to | rows * 2 | stride * 2) % 16 == 0) {
        for (long long i = threadIdx.x; i < rows / 8; i += 4 * 256) {
            uint4 v[4];
#pragma unroll
            for (int k = 0; k < 4; k++)
                if (i + k * 256 < rows / 8) v[k] = fresh4(from + (i + k * 256) * 8);
#pragma unroll
            for (int k = 0; k < 4; k++)
                if (i + k * 256 < rows / 8)
                    ((uint4*)to)[i + k * 256] = make_uint4(result(v[k].x, factor), result(v[k].y, factor),
                                                           result(v[k].z, factor), result(v[k].w, factor));
        }
    } else {
        for (long long i = threadIdx.x; i < rows; i += 256) to[i] = (unsigned short)result(from[i], factor);
    }
}
