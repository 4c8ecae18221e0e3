// What fragments.cuh has for vq, of trellis tiers: TRELLIS (1 to 4) bits a weight, states of STATE_BITS (12 or 16) bits.
// The order in memory is that of the file: [rows / 16, inputs / 16] tiles of 8 * TRELLIS words.
//
// Of every 32 inputs of a piece a lane has the eight columns from 8 * (l % 4) on: half a tile, whose states lie in 4 *
// TRELLIS neighbouring words and the lowest bits of the word after them, which is the first of the other half (the tile
// is a ring). Weight i of a tile has the bits from bit (255 - i) * TRELLIS on: within these words, of column j and row
// r, from (127 - 16 j - r) * TRELLIS on. All words are moved down by (7 - l / 4) * TRELLIS, so that rows l / 4 and l / 4
// + 8 begin at bits which the compiler knows.
//
// 2^16 states are a table of 64 KiB: lanes meet in its banks about 3.5 times. 2^12 states are 4 KiB, of which each lane
// has a copy in its own bank: 128 KiB, and nobody waits.

#define HALF (4 * TRELLIS)  // words
#define PIECE_WORDS (16 * HALF)
#define TABLE_BYTES (STATE_BITS == 12 ? 131072 : 65536)

struct Codes {
    unsigned w[4][HALF];
};

__device__ __forceinline__ Codes load_codes(const unsigned* pieces, long long piece, unsigned lane)
{
    const unsigned* place = pieces + piece * (16 * HALF) + (lane >> 1 & 1) * (2 * HALF) + (lane & 1 ? 0 : HALF);
    Codes found;
#pragma unroll
    for (int q = 0; q < 4; q++)
#pragma unroll
        for (int i = 0; i < HALF; i += 4) {
            const uint4 v = stream4(place + q * (4 * HALF) + i);
            found.w[q][i] = v.x;
            found.w[q][i + 1] = v.y;
            found.w[q][i + 2] = v.z;
            found.w[q][i + 3] = v.w;
        }
    return found;
}

__device__ __forceinline__ Codes kept_codes(const unsigned* piece, unsigned lane)
{
    const unsigned* place = piece + (lane >> 1 & 1) * (2 * HALF) + (lane & 1 ? 0 : HALF);
    Codes found;
#pragma unroll
    for (int q = 0; q < 4; q++)
#pragma unroll
        for (int i = 0; i < HALF; i += 4) {
            const uint4 v = *(const uint4*)(place + q * (4 * HALF) + i);
            found.w[q][i] = v.x;
            found.w[q][i + 1] = v.y;
            found.w[q][i + 2] = v.z;
            found.w[q][i + 3] = v.w;
        }
    return found;
}

__device__ __forceinline__ void fill_table(char* lookup, const unsigned* table, unsigned thread, unsigned threads)
{
#if STATE_BITS == 12
    for (unsigned i = thread; i < TABLE_BYTES / 16; i += threads) {
        const unsigned four = table[i >> 3];
        ((uint4*)lookup)[i] = make_uint4(four, four, four, four);
    }
#else
    for (unsigned i = thread; i < TABLE_BYTES / 16; i += threads) ((uint4*)lookup)[i] = ((const uint4*)table)[i];
#endif
}

__device__ __forceinline__ unsigned lane_part(unsigned lane)
{
    return lane;
}

// The bits from bit `from` (at least -5) on, those that `mask` has, which is no wider than 17 bits.
template <int from, unsigned mask> __device__ __forceinline__ unsigned bits_of(const unsigned* words)
{
    constexpr int word = from < 0 ? 0 : from / 32, by = from < 0 ? 0 : from % 32;
    constexpr bool across = by > 15;
    if (from < 0) return words[0] << (from < 0 ? -from : 0) & mask;
    return (across ? __funnelshift_r(words[word], words[across ? word + 1 : word], by) : words[word] >> by) & mask;
}

// The table's byte for the state whose lowest bit is bit `from`.
template <int from> __device__ __forceinline__ unsigned value_of(const unsigned* words, const unsigned char* lookup, unsigned lane)
{
#if STATE_BITS == 12  // which word: 128 bytes each; the lane's copy; which byte
    return lookup[bits_of<from - 5, 0x1ff80u>(words) | lane * 4 | bits_of<from, 3u>(words)];
#else
    return lookup[bits_of<from, 0xffffu>(words)];
#endif
}

// Register q * 4 + h * 2 + e of `decode`: row l / 4 + 8 e of columns h * 4 ... + 3.
template <int h, int e>
__device__ __forceinline__ unsigned four_of(const unsigned* words, const unsigned char* lookup, unsigned lane)
{
    constexpr int first = (120 - 64 * h - 8 * e) * TRELLIS;
    const unsigned a = value_of<first>(words, lookup, lane), b = value_of<first - 16 * TRELLIS>(words, lookup, lane);
    const unsigned c = value_of<first - 32 * TRELLIS>(words, lookup, lane);
    const unsigned d = value_of<first - 48 * TRELLIS>(words, lookup, lane);
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

__device__ __forceinline__ void decode(const Codes& codes, const char* lookup, unsigned lane, unsigned* a)
{
    const unsigned char* table = (const unsigned char*)lookup;
    const unsigned down = (7 - (lane >> 2)) * TRELLIS;
#pragma unroll
    for (int q = 0; q < 4; q++) {
        unsigned words[HALF + 1];
        const unsigned after = __shfl_xor_sync(0xffffffffu, codes.w[q][0], 1);
#pragma unroll
        for (int i = 0; i < HALF; i++)
            words[i] = __funnelshift_r(codes.w[q][i], i + 1 < HALF ? codes.w[q][i + 1 < HALF ? i + 1 : i] : after, down);
        words[HALF] = after >> down;
        a[q * 4] = four_of<0, 0>(words, table, lane);
        a[q * 4 + 1] = four_of<0, 1>(words, table, lane);
        a[q * 4 + 2] = four_of<1, 0>(words, table, lane);
        a[q * 4 + 3] = four_of<1, 1>(words, table, lane);
    }
}
