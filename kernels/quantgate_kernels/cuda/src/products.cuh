// Products of vq_gemm.cu by mma.sync, a warp by itself: of any GPU of these kernels. group_products.cuh has the same for
// Hopper.

#define TOGETHER 1  // warps that multiply the same panel at once
#define TOKENS (N_TILES * 8)

// Four matrices of 8 x 8 halves out of shared memory, of which lane l says where row l % 8 of matrix l / 8 begins; a lane
// gets two halves of each, as an operand B has them (PTX ISA, ldmatrix).
__device__ __forceinline__ void four_matrices(unsigned* v, const char* row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}

// c += A B of 16 x 16 by 16 x 8 float16 (PTX ISA, mma.m16n8k16).
__device__ __forceinline__ void mma_halves(float* c, const unsigned* a, unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Adds the q-th 32 inputs of a piece: of all tiles, times all tokens.
template <int q>
__device__ __forceinline__ void begin_products(float (*sums)[N_TILES][4], const unsigned (*a)[2][4], const char* panel, unsigned lane)
{
    const char* row = panel + ((q * 4 + lane / 8) * TOKENS + lane % 8) * 16;
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
        unsigned b[4];
        four_matrices(b, row + n * 128);
#pragma unroll
        for (int t = 0; t < TILES; t++) mma_halves(sums[t][n], a[t][0], b[0], b[1]);
#pragma unroll
        for (int t = 0; t < TILES; t++) mma_halves(sums[t][n], a[t][1], b[2], b[3]);
    }
}

// Products have ended when begin_products returns.
template <int n> __device__ __forceinline__ void wait_for_products() {}
__device__ __forceinline__ void finish_products(float (*)[N_TILES][4]) {}
