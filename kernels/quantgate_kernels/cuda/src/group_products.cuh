// Products of vq_gemm.cu by wgmma, four warps together: twice as fast as mma.sync, and they go on while the warps decode
// what is multiplied next. Of Hopper alone (sm_90a).

#define TOGETHER 4  // warps that multiply the same panel at once
#define TOKENS (N_TILES * 8)

#define FOUR(n) "+f"(c[4 * (n)]), "+f"(c[4 * (n) + 1]), "+f"(c[4 * (n) + 2]), "+f"(c[4 * (n) + 3])
#if N_TILES == 1
#define SHAPE "m64n8k16"
#define SUMS "%0, %1, %2, %3"
#define OPERANDS "{%4, %5, %6, %7}, %8"
#define PLACES FOUR(0)
#elif N_TILES == 2
#define SHAPE "m64n16k16"
#define SUMS "%0, %1, %2, %3, %4, %5, %6, %7"
#define OPERANDS "{%8, %9, %10, %11}, %12"
#define PLACES FOUR(0), FOUR(1)
#elif N_TILES == 3
#define SHAPE "m64n24k16"
#define SUMS "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11"
#define OPERANDS "{%12, %13, %14, %15}, %16"
#define PLACES FOUR(0), FOUR(1), FOUR(2)
#elif N_TILES == 4
#define SHAPE "m64n32k16"
#define SUMS "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define OPERANDS "{%16, %17, %18, %19}, %20"
#define PLACES FOUR(0), FOUR(1), FOUR(2), FOUR(3)
#elif N_TILES == 6
#define SHAPE "m64n48k16"
#define SUMS "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23"
#define OPERANDS "{%24, %25, %26, %27}, %28"
#define PLACES FOUR(0), FOUR(1), FOUR(2), FOUR(3), FOUR(4), FOUR(5)
#else
#define SHAPE "m64n64k16"
#define SUMS "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define OPERANDS "{%32, %33, %34, %35}, %36"
#define PLACES FOUR(0), FOUR(1), FOUR(2), FOUR(3), FOUR(4), FOUR(5), FOUR(6), FOUR(7)
#endif

// c += A B of 64 x 16 by 16 x TOKENS float16, begun: A in registers of four warps, of 16 rows each, laid out like that of
// mma.m16n8k16, and so are the sums c; B in shared memory, in matrices of 8 tokens x 8 inputs that lie one after the
// other, first by tokens (PTX ISA, wgmma.mma_async; matrix descriptors without swizzling).
__device__ __forceinline__ void wgmma_halves(float* c, const unsigned* a, const char* panel)
{
    const unsigned long long next_tokens = 128 >> 4, next_inputs = TOKENS * 16 >> 4;
    const unsigned place = (unsigned)__cvta_generic_to_shared(panel) & 0x3ffff;  // above: the block's rank in its cluster
    const unsigned long long b = next_tokens << 32 | next_inputs << 16 | place >> 4;
    asm volatile("{ .reg .pred add; setp.eq.u32 add, 0, 0; wgmma.mma_async.sync.aligned." SHAPE ".f32.f16.f16 {" SUMS "}, " OPERANDS ", add, 1, 1, 0; }" : PLACES : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// What the registers of operands and sums hold is there for the products that are begun next.
__device__ __forceinline__ void show_registers()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void end_group()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int n> __device__ __forceinline__ void wait_for_groups()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(n) : "memory");
}

// The compiler must not use this sum's register before this line.
__device__ __forceinline__ void keep_in_order(float& sum)
{
    asm volatile("" : "+f"(sum) :: "memory");
}

// Adds the q-th 32 inputs of a piece: of all tiles, times all tokens. Registers of `a` are read until
// `wait_for_products` says that they are not.
template <int q>
__device__ __forceinline__ void begin_products(float (*sums)[N_TILES][4], const unsigned (*a)[2][4], const char* panel, unsigned)
{
    show_registers();
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int t = 0; t < TILES; t++) wgmma_halves(sums[t][0], a[t][h], panel + (q * 2 + h) * TOKENS * 32);
    end_group();
}

// All but the last n products that were begun have ended.
template <int n> __device__ __forceinline__ void wait_for_products()
{
    wait_for_groups<n>();
}

// No product is on its way any more, and its sums may be read.
__device__ __forceinline__ void finish_products(float (*sums)[N_TILES][4])
{
    wait_for_groups<0>();
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < N_TILES; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) keep_in_order(sums[t][n][i]);
}
