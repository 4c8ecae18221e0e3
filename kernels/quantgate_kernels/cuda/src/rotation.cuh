// Inputs as floats, turned by signs and a Hadamard matrix within each group of GROUP (128, 64, 32) inputs.
//
// X_BFLOAT (1: bfloat16, 0: float16) is what they are stored as. A lane holds N neighbours, 4 or 16, a warp 32 * N.

__device__ __forceinline__ float bfloat(unsigned bits)
{
    return __uint_as_float(bits << 16);
}

// Inputs N * lane ... of a group, by a Sylvester matrix over sqrt(GROUP); lanes of a group are neighbours.
template <int N> __device__ __forceinline__ void hadamard(float* v, unsigned lane)
{
#pragma unroll
    for (int bit = 1; bit < N; bit *= 2) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (i & bit) continue;
            const float a = v[i], b = v[i | bit];
            v[i] = a + b;
            v[i | bit] = a - b;
        }
    }
#pragma unroll
    for (unsigned bit = 1; bit < GROUP / N; bit *= 2) {
        const float sign = lane & bit ? -1.0f : 1.0f;
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = fmaf(v[i], sign, __shfl_xor_sync(0xffffffffu, v[i], bit));
    }
    const float norm = GROUP == 128 ? 0.08838834764831845f : GROUP == 64 ? 0.125f : 0.17677669529663687f;
#pragma unroll
    for (int i = 0; i < N; i++) v[i] *= norm;
}

// N neighbouring inputs of a row, from `first` on; zeros beyond the inputs.
template <int N> __device__ __forceinline__ void read_floats(float* v, const unsigned short* x, long long row,
                                                             long long inputs, long long first)
{
    unsigned pairs[N / 2] = {};
    if (first < inputs) {
        const unsigned short* from = x + row * inputs + first;
        if (N == 4) {
            const uint2 bits = fresh2(from);
            pairs[0] = bits.x;
            pairs[1] = bits.y;
        }
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            const uint4 bits = fresh4(from + i * 8);
            pairs[i * 4] = bits.x;
            pairs[i * 4 + 1] = bits.y;
            pairs[i * 4 + 2] = bits.z;
            pairs[i * 4 + 3] = bits.w;
        }
    }
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
#if X_BFLOAT
        v[i * 2] = bfloat(pairs[i] & 0xffff);
        v[i * 2 + 1] = bfloat(pairs[i] >> 16);
#else
        v[i * 2] = low_half(pairs[i]);
        v[i * 2 + 1] = high_half(pairs[i]);
#endif
    }
}

// Signs of N neighbouring inputs from `first` on, four a word (int8 [inputs]).
template <int N> __device__ __forceinline__ void read_signs(unsigned* words, const char* signs, long long inputs, long long first)
{
#pragma unroll
    for (int w = 0; w < N / 4; w++) words[w] = first < inputs ? *(const unsigned*)(signs + first + w * 4) : 0;
}

// Signs, then the matrix. All lanes of a warp come here.
template <int N> __device__ __forceinline__ void turn(float* v, const unsigned* signs, unsigned lane)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = __uint_as_float(__float_as_uint(v[i]) ^ (signs[i / 4] << (24 - 8 * (i % 4)) & 0x80000000u));
    hadamard<N>(v, lane);
}

template <int N> __device__ __forceinline__ void turn(float* v, const char* signs, long long inputs, long long first,
                                                      unsigned lane)
{
    unsigned words[N / 4];
    read_signs<N>(words, signs, inputs, first);
    turn<N>(v, words, lane);
}

// The power of two that brings a token's largest value, before it is turned, to between 8 and 16; infinite values stay so.
__device__ __forceinline__ float to_safe_range(float most)
{
    const unsigned exponent = __float_as_uint(most) >> 23;
    return __uint_as_float((257 - (exponent == 255 ? 127 : min(max(exponent, 4u), 253u))) << 23);
}
