// First launch of a layer of experts: which tokens meet at which expert, and the tokens as B operands.
//
// A *slot* is an expert with up to four of its tokens. Its record is 16 ints: where its codes begin (three 64-bit
// offsets in words: gate, up, down), the tier of each in a byte, the expert's position, the number of its tokens, and
// the *pairs* of those (token * top_k + place). Experts lie in the order of their positions, the dearest first.
//
// EXPERTS and X_BFLOAT are given. Blocks of 256 threads: the first plans, the others set `counters` to 0, and
// each of their warps has a piece of a token.

#define SLOT_INTS 16
#define SLOT_TIERS 6
#define SLOT_POSITION 7
#define SLOT_COUNT 8
#define SLOT_PAIRS 9
#define PLAN_THREADS 256
#define PLAN_RUN ((EXPERTS + PLAN_THREADS - 1) / PLAN_THREADS)

// The position of a pair's expert among those that are here, or -1.
__device__ __forceinline__ int position_of(const void* ids, int wide, int pair, const int* expert_map, int mapped,
                                           const int* positions)
{
    long long id = wide ? ((const long long*)ids)[pair] : ((const int*)ids)[pair];
    if (expert_map) id = id >= 0 && id < mapped ? expert_map[id] : -1;
    return id >= 0 && id < EXPERTS ? positions[id] : -1;
}

// `slot_count` becomes the number of slots, and two counts of claimed items: none yet. Which of an expert's tokens come first is left to chance: no sum
// depends on a token's neighbours.
static __device__ __forceinline__ void plan(const void* ids, int wide, int pairs, const int* expert_map, int mapped,
                                            const int* positions, const int* records, int* slots, int* owners,
                                            int* slot_count)
{
    __shared__ int count[EXPERTS];
    __shared__ int begin[EXPERTS];
    __shared__ int before[PLAN_THREADS];
    const int thread = threadIdx.x;
    for (int e = thread; e < EXPERTS; e += PLAN_THREADS) count[e] = 0;
    __syncthreads();
    for (int pair = thread; pair < pairs; pair += PLAN_THREADS) {
        const int e = position_of(ids, wide, pair, expert_map, mapped, positions);
        owners[pair] = e;
        if (e >= 0) atomicAdd(&count[e], 1);
    }
    __syncthreads();
    int own = 0;
    for (int i = 0; i < PLAN_RUN; i++)
        if (thread * PLAN_RUN + i < EXPERTS) own += (count[thread * PLAN_RUN + i] + 3) / 4;
    before[thread] = own;
    __syncthreads();
    for (int reach = 1; reach < PLAN_THREADS; reach *= 2) {
        const int more = thread >= reach ? before[thread - reach] : 0;
        __syncthreads();
        before[thread] += more;
        __syncthreads();
    }
    int slot = before[thread] - own;
    if (thread == PLAN_THREADS - 1) {
        slot_count[0] = before[thread];
        slot_count[1] = slot_count[2] = 0;
    }
    for (int i = 0; i < PLAN_RUN; i++) {
        const int e = thread * PLAN_RUN + i;
        if (e >= EXPERTS) break;
        begin[e] = slot;
        for (int left = count[e]; left > 0; left -= 4, slot++) {
            int* record = slots + slot * SLOT_INTS;
            for (int part = 0; part < 7; part++) record[part] = records[e * 8 + part];
            record[SLOT_POSITION] = e;
            record[SLOT_COUNT] = left < 4 ? left : 4;
        }
        count[e] = 0;
    }
    __syncthreads();
    for (int pair = thread; pair < pairs; pair += PLAN_THREADS) {
        const int e = owners[pair];
        if (e < 0) continue;
        const int place = atomicAdd(&count[e], 1);
        slots[(begin[e] + place / 4) * SLOT_INTS + SLOT_PAIRS + place % 4] = pair;
    }
}

extern "C" __global__ void __launch_bounds__(PLAN_THREADS) moe_plan(
    const unsigned short* x, const char* signs, const void* ids, const int* expert_map, const int* positions,
    const int* records, int* slots, int* owners, int* slot_count, int* counters, unsigned* operands, float* factors,
    long long tokens, long long inputs, long long top_k, long long ids_wide, long long mapped, long long counts)
{
    let_next_begin();
    wait_for_inputs();
    if (blockIdx.x == 0) {
        plan(ids, (int)ids_wide, (int)(tokens * top_k), expert_map, (int)mapped, positions, records, slots, owners,
             slot_count);
        return;
    }
    const long long others = (long long)(gridDim.x - 1) * PLAN_THREADS;
    for (long long i = (long long)(blockIdx.x - 1) * PLAN_THREADS + threadIdx.x; i < counts; i += others)
        counters[i] = 0;
    const unsigned lane = threadIdx.x & 31;
    const long long pieces = (inputs + 127) / 128;
    const long long work = (long long)(blockIdx.x - 1) * (PLAN_THREADS / 32) + (threadIdx.x >> 5);
    const long long token = work / pieces, piece = work % pieces;
    if (token >= tokens) return;
    float v[4];
    of_inputs::read_floats(v, x, token, inputs, piece * 128 + lane * 4);
    if (signs) of_inputs::turn(v, signs, inputs, piece * 128 + lane * 4, lane);
    of_inputs::store_operands(v, operands, factors, token, pieces, piece, lane);
}
