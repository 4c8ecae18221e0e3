// Registers of A as float16, exactly: what fragments.cuh or trellis.cuh decode, in units of a scale.

__device__ __forceinline__ unsigned times(unsigned pair, unsigned other)
{
    unsigned v;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(v) : "r"(pair), "r"(other));
    return v;
}

// (1024 + u) / 32 - 36 in two halves, which is exact: (u - 128) / 32.
__device__ __forceinline__ unsigned steps_of(unsigned pair)
{
    unsigned v;
    asm("{ .reg .b32 by, less; mov.b32 by, 0x28002800; mov.b32 less, 0xd080d080; fma.rn.f16x2 %0, %1, by, less; }" : "=r"(v) : "r"(pair));
    return v;
}

#ifdef BYTE_SUMS
// (1024 + u) / 128 - 12 in two halves, which is exact: (u - 512) / 128.
__device__ __forceinline__ unsigned sum_steps_of(unsigned pair)
{
    unsigned v;
    asm("{ .reg .b32 by, less; mov.b32 by, 0x20002000; mov.b32 less, 0xca00ca00; fma.rn.f16x2 %0, %1, by, less; }" : "=r"(v) : "r"(pair));
    return v;
}

// Two weights of four bytes each.
__device__ __forceinline__ unsigned two_halves(unsigned first, unsigned second)
{
    const int halves = 0x6400 + 512;  // 0x6400 + u is the half 1024 + u
    return sum_steps_of(__byte_perm(__dp4a((int)first, 0x01010101, halves), __dp4a((int)second, 0x01010101, halves), 0x5410));
}

// Four neighbouring columns of row l / 4 + 8 e, the first (h = 0) or the last ones, of the registers for 32 inputs.
__device__ __forceinline__ uint2 halves_of(const unsigned* a, int e, int h)
{
    const unsigned* own = a + h * 2 + e;
    return make_uint2(two_halves(own[0], own[4]), two_halves(own[8], own[12]));
}
#else
__device__ __forceinline__ uint2 halves_of(const unsigned* a, int e, int h)
{
    const unsigned shifted = a[h * 2 + e] ^ 0x80808080u;  // u = value + 128; 0x6400 + u is the half 1024 + u
    return make_uint2(steps_of(__byte_perm(shifted, 0x64646464u, 0x4140)), steps_of(__byte_perm(shifted, 0x64646464u, 0x4342)));
}
#endif
