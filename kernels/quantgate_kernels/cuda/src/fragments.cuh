// What the kernels share: 128 inputs of 16 rows ("piece") from memory into the A operands of four int8 mma.m16n8k32.
//
// DIMENSIONS (4, 8), CODE_BITS (8, 12) and COPIES (of a table of 4,096 entries in shared memory: 1, 2, 4, 8) are
// given by whoever compiles. The order in memory is that of order.py. Functions written in PTX have one statement a
// line and no other braces at the start of a line: tests put C++ in their place.

__device__ __forceinline__ uint4 stream4(const unsigned* place)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(place));
    return v;
}

__device__ __forceinline__ uint2 stream2(const unsigned* place)
{
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(place));
    return v;
}

__device__ __forceinline__ unsigned stream1(const unsigned* place)
{
    unsigned v;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(place));
    return v;
}

// Where codes lie: in global memory, read once, or in shared memory.
struct Streamed {
    static __device__ __forceinline__ uint4 four(const unsigned* place) { return stream4(place); }
    static __device__ __forceinline__ uint2 two(const unsigned* place) { return stream2(place); }
    static __device__ __forceinline__ unsigned one(const unsigned* place) { return stream1(place); }
};

struct Kept {
    static __device__ __forceinline__ uint4 four(const unsigned* place) { return *(const uint4*)place; }
    static __device__ __forceinline__ uint2 two(const unsigned* place) { return *(const uint2*)place; }
    static __device__ __forceinline__ unsigned one(const unsigned* place) { return *place; }
};

// Of what a kernel before this one wrote, which may have ended after this one began. Written out because the compiler
// takes a plain load of what this kernel does not write for one of constant memory's kind, as those above are, which
// may find what was there before. In order with `wait_for_inputs`, and cached.
__device__ __forceinline__ uint4 fresh4(const void* place)
{
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(place));
    return v;
}

__device__ __forceinline__ float fresh1(const float* place)
{
    float v;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(v) : "l"(place));
    return v;
}

__device__ __forceinline__ uint2 fresh2(const void* place)
{
    uint2 v;
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(place));
    return v;
}

__device__ __forceinline__ unsigned fresh_word(const void* place)
{
    unsigned v;
    asm volatile("ld.global.u32 %0, [%1];" : "=r"(v) : "l"(place));
    return v;
}

// 16 bytes from global memory into shared memory, which do not pass through registers. Copies since the last commit are
// a group; waiting leaves at most `n` groups on their way. Other lanes see a lane's copies after a barrier.
__device__ __forceinline__ void copy16_if(bool any, void* to, const void* from)
{
    asm volatile("{ .reg .pred p; setp.ne.s32 p, %2, 0; @p cp.async.cg.shared.global [%0], [%1], 16; }" :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"((int)any) : "memory");
}

__device__ __forceinline__ void commit_copies()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int n> __device__ __forceinline__ void wait_for_copies()
{
    asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory");
}

__device__ __forceinline__ float low_half(unsigned pair)
{
    float v;
    asm("{ .reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l; }" : "=f"(v) : "r"(pair));
    return v;
}

__device__ __forceinline__ float high_half(unsigned pair)
{
    float v;
    asm("{ .reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h; }" : "=f"(v) : "r"(pair));
    return v;
}

// 16 bits, the nearest float16 or bfloat16 of a value.
__device__ __forceinline__ unsigned short to_half(float value)
{
    unsigned short v;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v) : "f"(value));
    return v;
}

__device__ __forceinline__ unsigned short to_bfloat(float value)
{
    unsigned short v;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(v) : "f"(value));
    return v;
}

// Two values as the nearest float16 or bfloat16, the first in the lower bits.
__device__ __forceinline__ unsigned half_pair(float first, float second)
{
    unsigned v;
    asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(v) : "f"(first), "f"(second));
    return v;
}

__device__ __forceinline__ unsigned bfloat_pair(float first, float second)
{
    unsigned v;
    asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(v) : "f"(first), "f"(second));
    return v;
}

// A result; `kind` is 0: float32, 1: bfloat16, 2: float16.
__device__ __forceinline__ void store(void* out, long long place, float value, int kind)
{
    if (kind == 0)
        ((float*)out)[place] = value;
    else
        ((unsigned short*)out)[place] = kind == 1 ? to_bfloat(value) : to_half(value);
}

// c += A B of 16 x 32 by 32 x 8 int8; a lane has a[0..3], b0 and b1, c[0..3] (PTX ISA, mma.m16n8k32).
__device__ __forceinline__ void mma(int* c, const unsigned* a, unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Programmatic dependent launch: what comes after `wait_for_inputs` may read what kernels before this one wrote; the
// next kernel may begin once all blocks have called `let_next_begin`. Nothing happens where the launch does not ask.
__device__ __forceinline__ void wait_for_inputs()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

__device__ __forceinline__ void let_next_begin()
{
    asm volatile("griddepcontrol.launch_dependents;");
}

#ifndef TRELLIS  // trellis.cuh has these of its own
#define WORDS (16 * 128 / DIMENSIONS * CODE_BITS / 32 / 32)  // of a lane, of a piece
#define PIECE_WORDS (32 * WORDS)
#define A_WORDS 16                                           // registers of A of a piece, of a lane
#define UNIT 1.0f                                            // of a weight, in units of 1 / 32 of a scale
#define ENTRY DIMENSIONS                                     // bytes of an entry of the table
#if CODE_BITS == 8
// 256 bytes an entry, of which 128 are used: the byte permutation that takes a code out of a word then makes the
// whole address. Of four bytes each lane has a copy in its own bank; of eight, each lane of a half warp.
#define TABLE_BYTES (256 * 256)
#else
#define TABLE_BYTES (4096 * ENTRY * COPIES)
#endif
#define LOG2(n) ((n) >= 64 ? 6 : (n) >= 32 ? 5 : (n) >= 16 ? 4 : (n) >= 8 ? 3 : (n) >= 4 ? 2 : (n) >= 2 ? 1 : 0)

struct Codes {
    unsigned w[WORDS];
};

// The codes that this lane holds of a piece, `Memory` being where that lies.
template <class Memory> __device__ __forceinline__ Codes codes_of(const unsigned* piece, unsigned lane)
{
    Codes found;
#if WORDS == 4 || WORDS == 6
    const uint4 first = Memory::four(piece + lane * 4);
    found.w[0] = first.x;
    found.w[1] = first.y;
    found.w[2] = first.z;
    found.w[3] = first.w;
#else
    const uint2 first = Memory::two(piece + lane * 2);
    found.w[0] = first.x;
    found.w[1] = first.y;
#endif
#if WORDS == 6
    const uint2 second = Memory::two(piece + 128 + lane * 2);
    found.w[4] = second.x;
    found.w[5] = second.y;
#elif WORDS == 3
    found.w[2] = Memory::one(piece + 64 + lane);
#endif
    return found;
}

// Puts the table (int8 [entries, DIMENSIONS] in global memory) into shared memory, by all `threads` of a block.
// A barrier has to follow.
__device__ __forceinline__ void fill_table(char* lookup, const unsigned* table, unsigned thread, unsigned threads)
{
#if CODE_BITS == 8
    for (unsigned i = thread; i < 256 * 8; i += threads) {
        const unsigned entry = i >> 3;
#if DIMENSIONS == 4
        const unsigned v = table[entry];
        const uint4 copies = make_uint4(v, v, v, v);
#else
        const uint2 v = ((const uint2*)table)[entry];
        const uint4 copies = make_uint4(v.x, v.y, v.x, v.y);
#endif
        *(uint4*)(lookup + entry * 256 + (i & 7) * 16) = copies;
    }
#else
    for (unsigned i = thread; i < TABLE_BYTES / 16; i += threads) {
#if COPIES == 1
        const uint4 copies = ((const uint4*)table)[i];
#elif DIMENSIONS == 4 && COPIES == 2
        const uint2 v = ((const uint2*)table)[i];
        const uint4 copies = make_uint4(v.x, v.x, v.y, v.y);
#elif DIMENSIONS == 4
        const unsigned v = table[i / (COPIES / 4)];
        const uint4 copies = make_uint4(v, v, v, v);
#else
        const uint2 v = ((const uint2*)table)[i / (COPIES / 2)];
        const uint4 copies = make_uint4(v.x, v.y, v.x, v.y);
#endif
        ((uint4*)lookup)[i] = copies;
    }
#endif
}

// Where this lane's copy of the table begins: an argument of `decode`.
__device__ __forceinline__ unsigned lane_part(unsigned lane)
{
#if CODE_BITS == 8
    return DIMENSIONS == 4 ? lane * 4 : (lane & 15) * 8;
#else
    return lane % COPIES * ENTRY;
#endif
}

// Byte offset of code j's entry in shared memory, in this lane's copy.
template <int j> __device__ __forceinline__ unsigned offset_of(const Codes& codes, unsigned part)
{
#if CODE_BITS == 8
    return __byte_perm(codes.w[j / 4], part, 0x5504 | (j % 4) << 4);  // part, code, 0, 0
#else
    constexpr int shift = LOG2(ENTRY * COPIES);  // where the code has to be in an offset
    constexpr int from = j * 12 - shift;
    constexpr int word = from < 0 ? 0 : from / 32, by = from < 0 ? 0 : from % 32;
    constexpr bool across = by + shift + 12 > 32;
    const unsigned bits = from < 0 ? codes.w[0] << (from < 0 ? -from : 0)
                          : across ? __funnelshift_r(codes.w[word], codes.w[across ? word + 1 : word], by)
                                   : codes.w[word] >> by;
    return (bits & 4095u << shift) | part;
#endif
}

// Registers r of the A operand of mma q, a[r]: four int8 weights each, in units of 1 / 32 of a scale.
template <int q> __device__ __forceinline__ void decode_quarter(const Codes& codes, const char* lookup, unsigned part, unsigned* a)
{
#if DIMENSIONS == 4
    a[0] = *(const unsigned*)(lookup + offset_of<q * 4>(codes, part));
    a[1] = *(const unsigned*)(lookup + offset_of<q * 4 + 1>(codes, part));
    a[2] = *(const unsigned*)(lookup + offset_of<q * 4 + 2>(codes, part));
    a[3] = *(const unsigned*)(lookup + offset_of<q * 4 + 3>(codes, part));
#else
    const uint2 upper = *(const uint2*)(lookup + offset_of<q * 2>(codes, part));
    const uint2 lower = *(const uint2*)(lookup + offset_of<q * 2 + 1>(codes, part));
    a[0] = upper.x;
    a[1] = lower.x;
    a[2] = upper.y;
    a[3] = lower.y;
#endif
}

// Those of all four, a[q * 4 + r].
__device__ __forceinline__ void decode(const Codes& codes, const char* lookup, unsigned part, unsigned* a)
{
    decode_quarter<0>(codes, lookup, part, a);
    decode_quarter<1>(codes, lookup, part, a + 4);
    decode_quarter<2>(codes, lookup, part, a + 8);
    decode_quarter<3>(codes, lookup, part, a + 12);
}
#endif
