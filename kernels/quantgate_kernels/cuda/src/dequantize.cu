// For many tokens: the weight as float16 in the basis of its codes, the activations turned into float16 of a safe range,
// and the results of a float16 matrix product brought back. What fragments.cuh and rotation.cuh ask for is given, and
// OUT_BFLOAT (1: bfloat16, 0: float16) of the results.

#define GROUPS (128 / GROUP)

// (1024 + u) / 32 - 36 in two halves, which is exact: (u - 128) / 32.
__device__ __forceinline__ unsigned steps_of(unsigned pair)
{
    unsigned v;
    asm("{ .reg .b32 by, less; mov.b32 by, 0x28002800; mov.b32 less, 0xd080d080; fma.rn.f16x2 %0, %1, by, less; }" : "=r"(v) : "r"(pair));
    return v;
}

__device__ __forceinline__ unsigned times(unsigned pair, unsigned other)
{
    unsigned v;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(v) : "r"(pair), "r"(other));
    return v;
}

// Four int8 as four halves, in units of 1 / 32, times a scale in both halves of `scale`.
__device__ __forceinline__ uint2 scaled(unsigned four, unsigned scale)
{
    const unsigned shifted = four ^ 0x80808080u;  // u = value + 128; 0x6400 + u is the half 1024 + u
    return make_uint2(times(steps_of(__byte_perm(shifted, 0x64646464u, 0x4140)), scale),
                      times(steps_of(__byte_perm(shifted, 0x64646464u, 0x4342)), scale));
}

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

#ifdef BYTE_SUMS
// (1024 + u) / 128 - 12 in two halves, which is exact: (u - 512) / 128.
__device__ __forceinline__ unsigned sum_steps_of(unsigned pair)
{
    unsigned v;
    asm("{ .reg .b32 by, less; mov.b32 by, 0x20002000; mov.b32 less, 0xca00ca00; fma.rn.f16x2 %0, %1, by, less; }" : "=r"(v) : "r"(pair));
    return v;
}

// Two weights of four bytes each as two halves, times a scale.
__device__ __forceinline__ unsigned two_scaled(unsigned first, unsigned second, unsigned scale)
{
    const int halves = 0x6400 + 512;  // 0x6400 + u is the half 1024 + u
    const unsigned pair = __byte_perm(__dp4a((int)first, 0x01010101, halves), __dp4a((int)second, 0x01010101, halves), 0x5410);
    return times(sum_steps_of(pair), scale);
}

// Four neighbouring columns of row l / 4 + 8 e, the first (h = 0) or the last ones, of the registers for 32 inputs.
__device__ __forceinline__ uint2 scaled_part(const unsigned* a, int e, int h, unsigned scale)
{
    const unsigned* own = a + h * 2 + e;
    return make_uint2(two_scaled(own[0], own[4], scale), two_scaled(own[8], own[12], scale));
}
#else
__device__ __forceinline__ uint2 scaled_part(const unsigned* a, int e, int h, unsigned scale)
{
    return scaled(a[h * 2 + e], scale);
}
#endif

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
                const uint2 left = scaled_part(own_a, e, 0, scale), right = scaled_part(own_a, e, 1, scale);
                if (row + e * 8 < rows && column < inputs)
                    *(uint4*)(out + (row + e * 8) * inputs + column) = make_uint4(left.x, left.y, right.x, right.y);
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
    unsigned exponent = __float_as_uint(most) >> 23;
    exponent = exponent == 255 ? 127 : min(max(exponent, 4u), 253u);  // infinite values stay so
    const float by = __uint_as_float((257 - exponent) << 23);         // 8 / 2 ^ (exponent - 127)
    if (threadIdx.x == 0) factors[token] = __uint_as_float((exponent - 3) << 23);
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
