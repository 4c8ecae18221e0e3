// Turned inputs as int8 and an int8 residual: x = s (hi + lo / 254) with s = max |x| / 127 of a group of a token.

// What is not finite counts as infinite.
__device__ __forceinline__ float larger(float most, float value)
{
    const float size = fabsf(value);
    return fmaxf(most, size <= 3.4e38f ? size : __uint_as_float(0x7f800000u));  // NaN too
}

// Of a group: `by` brings its inputs to steps of hi, 0 where there are none; `factor` is what one unit of 254 hi + lo,
// times one unit of a codebook (1 / 32), is worth. What is not finite stays so: the results of such a token are NaN.
struct Step {
    float by, factor;
};

__device__ __forceinline__ Step step_of(float most)
{
    const bool sound = most > 1e-30f && most <= 3.4e38f;
    return {sound ? 127.0f / most : 0.0f, sound ? most * (1.0f / 127 / 254 / 32) : most <= 1e-30f ? 0.0f : most - most};
}

// The lowest bytes of four words.
__device__ __forceinline__ unsigned lowest_bytes(const unsigned* words)
{
    return __byte_perm(__byte_perm(words[0], words[1], 0x0040), __byte_perm(words[2], words[3], 0x0040), 0x5410);
}

// Four neighbours as the bytes of two words. Adding 1.5 * 2^23 rounds to the next integer and leaves it in the lowest
// bits: conversions would cost four times as much.
__device__ __forceinline__ void split_four(const float* v, const Step& step, unsigned& hi, unsigned& lo)
{
    const float whole = 12582912.0f;
    unsigned first[4], second[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float near = fmaf(v[i], step.by, whole);
        first[i] = __float_as_uint(near);
        second[i] = __float_as_uint(fmaf(fmaf(v[i], step.by, whole - near), 254.0f, whole));
    }
    hi = lowest_bytes(first);
    lo = lowest_bytes(second);
}
