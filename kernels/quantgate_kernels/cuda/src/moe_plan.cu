// First launch of a layer of experts: which tokens meet at which expert, and the tokens as B operands.
//
// EXPERTS and X_BFLOAT are given. Blocks of 256 threads: the first plans, the others set `counters` to 0, and
// each of their warps has a piece of a token.

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

struct PlanRoom {
    int positions[EXPERTS];
    int count[EXPERTS];
    int begin[EXPERTS];
    int of_warp[PLAN_THREADS / 32];
};

// `slot_count` becomes the number of slots, and two counts of claimed items: none yet. Which of an expert's tokens come
// first is left to chance: no sum depends on a token's neighbours.
__device__ __forceinline__ void plan(PlanRoom& room, const void* ids, int wide, int pairs, const int* expert_map,
                                     int mapped, const int* positions, const uint4* records, int* slots, int* owners,
                                     int* slot_count)
{
    const int thread = threadIdx.x, lane = thread & 31, first = thread * PLAN_RUN;
    // What no kernel writes is read while the kernels ahead still run.
    uint4 record[2];
    record[0] = record[1] = make_uint4(0, 0, 0, 0);
    if (first < EXPERTS) {
        record[0] = records[first * 2];
        record[1] = records[first * 2 + 1];
    }
    for (int e = thread; e < EXPERTS; e += PLAN_THREADS) {
        room.positions[e] = positions[e];
        room.count[e] = 0;
    }
    wait_for_inputs();
    __syncthreads();
    for (int pair = thread; pair < pairs; pair += PLAN_THREADS) {
        const int e = position_of(ids, wide, pair, expert_map, mapped, room.positions);
        owners[pair] = e;
        if (e >= 0) atomicAdd(&room.count[e], 1);
    }
    __syncthreads();
    int own = 0;
    for (int i = 0; i < PLAN_RUN; i++)
        if (first + i < EXPERTS) own += (room.count[first + i] + SLOT_TOKENS - 1) / SLOT_TOKENS;
    int up_to = own;  // slots of this warp's threads, this one's with them
    for (int reach = 1; reach < 32; reach *= 2) {
        const int more = __shfl_sync(0xffffffffu, up_to, (lane - reach) & 31);
        if (lane >= reach) up_to += more;
    }
    if (lane == 31) room.of_warp[thread / 32] = up_to;
    __syncthreads();
    int slot = up_to - own;
    for (int warp = 0; warp < thread / 32; warp++) slot += room.of_warp[warp];
    if (thread == PLAN_THREADS - 1) {
        slot_count[0] = slot + own;
        slot_count[1] = slot_count[2] = 0;
    }
    for (int i = 0; i < PLAN_RUN; i++) {
        const int e = first + i;
        if (e >= EXPERTS) break;
        room.begin[e] = slot;
        for (int left = room.count[e]; left > 0; left -= SLOT_TOKENS, slot++) {
            uint4* target = (uint4*)(slots + slot * SLOT_INTS);
            target[0] = i ? records[e * 2] : record[0];
            target[1] = i ? records[e * 2 + 1] : record[1];
            slots[slot * SLOT_INTS + SLOT_COUNT] = left < SLOT_TOKENS ? left : SLOT_TOKENS;
        }
        room.count[e] = 0;
    }
    __syncthreads();
    for (int pair = thread; pair < pairs; pair += PLAN_THREADS) {
        const int e = position_of(ids, wide, pair, expert_map, mapped, room.positions);
        if (e < 0) continue;
        const int place = atomicAdd(&room.count[e], 1);
        slots[(room.begin[e] + place / SLOT_TOKENS) * SLOT_INTS + SLOT_PAIRS + place % SLOT_TOKENS] = pair;
    }
}

extern "C" __global__ void __launch_bounds__(PLAN_THREADS) moe_plan(
    const unsigned short* x, const char* signs, const void* ids, const int* expert_map, const int* positions,
    const uint4* records, int* slots, int* owners, int* slot_count, int* counters, unsigned* operands, float* factors,
    long long tokens, long long inputs, long long top_k, long long ids_wide, long long mapped, long long counts)
{
    __shared__ PlanRoom room;
    let_next_begin();
    if (blockIdx.x == 0) {
        plan(room, ids, (int)ids_wide, (int)(tokens * top_k), expert_map, (int)mapped, positions, records, slots, owners,
             slot_count);
        return;
    }
    wait_for_inputs();
    const long long others = (long long)(gridDim.x - 1) * PLAN_THREADS;
    for (long long i = (long long)(blockIdx.x - 1) * PLAN_THREADS + threadIdx.x; i < counts; i += others)
        counters[i] = 0;
    const unsigned lane = threadIdx.x & 31;
    const long long pieces = (inputs + 127) / 128;
    const long long work = (long long)(blockIdx.x - 1) * (PLAN_THREADS / 32) + (threadIdx.x >> 5);
    const long long token = work / pieces, piece = work % pieces;
    if (token >= tokens) return;
    float v[4];
    of_inputs::read_floats<4>(v, x, token, inputs, piece * 128 + lane * 4);
    if (signs) of_inputs::turn<4>(v, signs, inputs, piece * 128 + lane * 4, lane);
    of_inputs::store_operands(v, operands, factors, token, pieces, piece, lane);
}
