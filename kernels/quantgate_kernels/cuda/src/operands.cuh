// Turned inputs as int8 and an int8 residual: x = s (hi + lo / 254) with s = max |x| / 127 of a group of a token.

// What is not finite counts as infinite.
__device__ __forceinline__ float larger(float most, float value)
{
    const float size = fabsf(value);
    return fmaxf(most, size <= 3.4e38f ? size : __uint_as_float(0x7f800000u));  // NaN too
}

// Of a group: `by` brings its inputs to steps of hi, 0 where there are none; `factor` is what one unit of 254 hi + lo,
// times one unit of a codebook (1 / 32), is worth.
struct Step {
    float by, factor;
    bool sound;
};

__device__ __forceinline__ Step step_of(float most)
{
    Step found;
    found.sound = most > 1e-30f && most <= 3.4e38f;
    found.by = found.sound ? 127.0f / most : 0.0f;
    // What is not finite stays so: the result of such a token is NaN, as it would be of floats.
    found.factor = found.sound ? most * (1.0f / 127 / 254 / 32) : most <= 1e-30f ? 0.0f : most - most;
    return found;
}

// Four neighbours as the bytes of two words.
__device__ __forceinline__ void split_four(const float* v, const Step& step, unsigned& hi, unsigned& lo)
{
    hi = lo = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float whole = step.sound ? v[i] * step.by : 0.0f, near = rintf(whole);
        hi |= ((unsigned)(int)near & 255u) << 8 * i;
        lo |= ((unsigned)(int)rintf((whole - near) * 254.0f) & 255u) << 8 * i;
    }
}
