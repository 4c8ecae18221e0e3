// Copies into shared memory by the copy engine, and the barriers that say when they are there (PTX ISA, mbarrier and
// cp.async.bulk). A barrier's phase ends when `count` threads have arrived and all bytes that they announced have come;
// phases are told apart by their parity, 0 at first. What was copied is there for all threads, and for the tensor cores.

__device__ __forceinline__ void begin_barrier(unsigned long long* barrier, unsigned count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"((unsigned)__cvta_generic_to_shared(barrier)), "r"(count) : "memory");
}

// Barriers that were begun are there for the copy engine. A __syncthreads() has to follow.
__device__ __forceinline__ void show_barriers()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrive, and announce bytes.
__device__ __forceinline__ void arrive(unsigned long long* barrier, unsigned bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"((unsigned)__cvta_generic_to_shared(barrier)), "r"(bytes) : "memory");
}

// Copy multiples of 16 bytes, whose places are such too.
__device__ __forceinline__ void copy_bulk(void* to, const void* from, unsigned bytes, unsigned long long* barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes), "r"((unsigned)__cvta_generic_to_shared(barrier)) : "memory");
}

// Whether the phase of this parity has ended; waits a moment if not.
__device__ __forceinline__ bool has_ended(unsigned long long* barrier, unsigned parity)
{
    unsigned ended;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }" : "=r"(ended) : "r"((unsigned)__cvta_generic_to_shared(barrier)), "r"(parity) : "memory");
    return ended;
}
