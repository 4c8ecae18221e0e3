// Activations of a few tokens to int8 and an int8 residual within the kernel that multiplies them: every block does it
// for itself, which for a few thousand inputs is faster than a kernel ahead of it.
//
// The Hadamard matrix of 128 is H8 x H16 (input n * 16 + m; of 64 and 32 it is H4 and H2 x H16). A tensor core applies
// H16 to the 16 x 8 matrix of a piece as it is stored, exactly up to float32 sums; H8 takes two shuffles. GROUP,
// X_BFLOAT and ROTATED (0: nothing is turned) are given.

#if X_BFLOAT
#define KIND "bf16"
#define ONE 0x3f80u
#else
#define KIND "f16"
#define ONE 0x3c00u
#endif

// c += A B of 16 x 16 by 16 x 8 (PTX ISA, mma.m16n8k16 of 16-bit floats).
__device__ __forceinline__ void mma_half(float* c, const unsigned* a, unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The A operand: H16 without its norm, or the unit matrix where nothing is turned.
__device__ __forceinline__ void first_matrix(unsigned* a, unsigned lane)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const unsigned row = (lane >> 2) + i % 2 * 8, column = (lane & 3) * 2 + i / 2 * 8;
        unsigned pair[2];
#pragma unroll
        for (unsigned k = 0; k < 2; k++) {
            const unsigned value = __popc(row & (column + k)) & 1 ? ONE | 0x8000u : ONE;
            pair[k] = ROTATED ? value : row == column + k ? ONE : 0;
        }
        a[i] = pair[0] | pair[1] << 16;
    }
}

__device__ __forceinline__ float reciprocal(float value)
{
    float v;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(v) : "f"(value));
    return v;
}

// A lane's four inputs of a piece are n = lane / 4; m = lane % 4 * 2, + 1, + 8 and + 9: this is the first of them.
__device__ __forceinline__ unsigned first_input(unsigned lane)
{
    return (lane >> 2) * 16 + (lane & 3) * 2;
}

// What turns the signs of the inputs from `first` on around, as bits of their 16-bit floats. Signs are int8.
__device__ __forceinline__ uint2 read_signs(const char* signs, unsigned first, unsigned inputs)
{
    if (!ROTATED || first >= inputs) return make_uint2(0, 0);
    const unsigned near = *(const unsigned short*)(signs + first), far = *(const unsigned short*)(signs + first + 8);
    return make_uint2((near & 0x80u) << 8 | (near & 0x8000u) << 16, (far & 0x80u) << 8 | (far & 0x8000u) << 16);
}

// The inputs themselves; zeros beyond the last.
__device__ __forceinline__ uint2 read_pairs(const unsigned short* x, unsigned first, unsigned inputs)
{
    if (first >= inputs) return make_uint2(0, 0);
    return make_uint2(fresh_word(x + first), fresh_word(x + first + 8));
}

// H8 of a lane's four values as `mma_half` leaves them: n = lane % 4 * 2 and + 1; m = lane / 4 and + 8.
__device__ __forceinline__ void turn_columns(float* c, unsigned lane)
{
#if ROTATED
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const float sum = c[i] + c[i + 1];
        c[i + 1] = c[i] - c[i + 1];
        c[i] = sum;
    }
#pragma unroll
    for (unsigned bit = 1; bit < GROUP / 32; bit *= 2) {
        const float sign = lane & bit ? -1.0f : 1.0f;
#pragma unroll
        for (int i = 0; i < 4; i++) c[i] = fmaf(c[i], sign, __shfl_xor_sync(0xffffffffu, c[i], bit));
    }
#endif
}

// The largest size of a value in this lane's group, as the bits of its float: as whole numbers these are in the same
// order, infinite ones and what is no number at the top.
__device__ __forceinline__ unsigned largest_of(const float* c)
{
    unsigned most = max(max(__float_as_uint(c[0]) & 0x7fffffffu, __float_as_uint(c[1]) & 0x7fffffffu),
                        max(__float_as_uint(c[2]) & 0x7fffffffu, __float_as_uint(c[3]) & 0x7fffffffu));
#if GROUP == 128
    most = __reduce_max_sync(0xffffffffu, most);
#else
#pragma unroll
    for (unsigned bit = 4; bit < 32; bit *= 2) most = max(most, __shfl_xor_sync(0xffffffffu, most, bit));
#pragma unroll
    for (unsigned bit = 1; bit < GROUP / 32; bit *= 2) most = max(most, __shfl_xor_sync(0xffffffffu, most, bit));
#endif
    return most;
}

// Writes a piece of a token: the lane's bytes of column hi at `place` + i * 16, of column lo 64 bytes further; and the
// factors of its groups, four floats apart.
__device__ __forceinline__ void write_piece(const float* c, unsigned most, char* place, float* factors, unsigned lane)
{
    const float largest = __uint_as_float(most);
    const bool sound = most < 0x7f800000u && largest > 1e-30f;
    const float by = sound ? reciprocal(largest * (1.0f / 127)) : 0.0f;
    const float magic = 12582912.0f;  // 1.5 * 2^23: sums are rounded to integers
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float whole = fmaf(c[i], by, magic), rest = fmaf(c[i], by, magic - whole);
        char* target = place + (i % 2 * 2 + i / 2) * 16;
        target[0] = (char)__float_as_uint(whole);
        target[64] = (char)__float_as_uint(fmaf(rest, 254.0f, magic));
    }
    const float norm = !ROTATED ? 1.0f : GROUP == 128 ? 0.08838834764831845f : GROUP == 64 ? 0.125f : 0.17677669529663687f;
    const float finite = sound ? largest * (norm / 127 / 254 / 32) : 0.0f;
    const float factor = most < 0x7f800000u ? finite : __uint_as_float(0x7fc00000u);
    if (lane < 4 && lane % (GROUP / 32) == 0) factors[lane / (GROUP / 32) * 4] = factor;
}
