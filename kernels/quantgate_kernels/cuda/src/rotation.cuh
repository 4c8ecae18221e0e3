// Inputs as floats, turned by signs and a Hadamard matrix within each group of GROUP (128, 64, 32) inputs.
//
// X_BFLOAT (1: bfloat16, 0: float16) is what they are stored as. A warp holds 128 inputs, four neighbours a lane.

__device__ __forceinline__ float bfloat(unsigned bits)
{
    return __uint_as_float(bits << 16);
}

// Inputs 4 * lane ... + 3 of a group, by a Sylvester matrix over sqrt(GROUP); lanes of a group are neighbours.
__device__ __forceinline__ void hadamard(float* v, unsigned lane)
{
    float a = v[0] + v[1], b = v[0] - v[1], c = v[2] + v[3], d = v[2] - v[3];
    v[0] = a + c;
    v[1] = b + d;
    v[2] = a - c;
    v[3] = b - d;
#pragma unroll
    for (unsigned bit = 1; bit < GROUP / 4; bit *= 2) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float other = __shfl_xor_sync(0xffffffffu, v[i], bit);
            v[i] = lane & bit ? other - v[i] : v[i] + other;
        }
    }
    const float norm = GROUP == 128 ? 0.08838834764831845f : GROUP == 64 ? 0.125f : 0.17677669529663687f;
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] *= norm;
}

// Four neighbouring inputs of a row, from `first` on; zeros beyond the inputs.
__device__ __forceinline__ void read_floats(float* v, const unsigned short* x, long long row, long long inputs,
                                            long long first)
{
    uint2 bits = make_uint2(0, 0);
    if (first < inputs) bits = fresh2(x + row * inputs + first);
#if X_BFLOAT
    v[0] = bfloat(bits.x & 0xffff);
    v[1] = bfloat(bits.x >> 16);
    v[2] = bfloat(bits.y & 0xffff);
    v[3] = bfloat(bits.y >> 16);
#else
    v[0] = low_half(bits.x);
    v[1] = high_half(bits.x);
    v[2] = low_half(bits.y);
    v[3] = high_half(bits.y);
#endif
}

// Signs (int8 [inputs]), then the matrix. All lanes of a warp come here.
__device__ __forceinline__ void turn(float* v, const char* signs, long long inputs, long long first, unsigned lane)
{
    unsigned four = 0x01010101u;
    if (first < inputs) four = *(const unsigned*)(signs + first);
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (four >> (8 * i + 7) & 1) v[i] = -v[i];
    hadamard(v, lane);
}
