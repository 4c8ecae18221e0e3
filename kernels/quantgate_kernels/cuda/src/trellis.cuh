// What fragments.cuh has for vq, of trellis tiers: TRELLIS (1 to 4) bits a weight, states of STATE_BITS (12 or 16) bits,
// or BYTE_SUMS.
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
//
// BYTE_SUMS: there is no table. A weight is the sum of the four signed bytes of state * MULTIPLIER, and the matrix
// instructions make the sum: a register of A is one weight, whose four columns of A meet the same input four times. So a
// weight costs an instruction for its state and one for the product, and none to be packed.

#define HALF (4 * TRELLIS)  // words
#define PIECE_WORDS (16 * HALF)
#ifdef BYTE_SUMS
#define TABLE_BYTES 0
#define A_WORDS 64
#define UNIT 0.25f
#else
#define A_WORDS 16
#define UNIT 1.0f
#define TABLE_BYTES (STATE_BITS == 12 ? 131072 : 65536)
#endif

struct Codes {
    unsigned w[4][HALF];
};

template <class Memory> __device__ __forceinline__ Codes codes_of(const unsigned* piece, unsigned lane)
{
    const unsigned* place = piece + (lane >> 1 & 1) * (2 * HALF) + (lane & 1 ? 0 : HALF);
    Codes found;
#pragma unroll
    for (int q = 0; q < 4; q++)
#pragma unroll
        for (int i = 0; i < HALF; i += 4) {
            const uint4 v = Memory::four(place + q * (4 * HALF) + i);
            found.w[q][i] = v.x;
            found.w[q][i + 1] = v.y;
            found.w[q][i + 2] = v.z;
            found.w[q][i + 3] = v.w;
        }
    return found;
}

__device__ __forceinline__ unsigned lane_part(unsigned lane)
{
    return lane;
}

// The 4 * TRELLIS words and the next one's lowest bits, moved down for this lane.
__device__ __forceinline__ void move_down(unsigned* words, const unsigned* stored, unsigned after, unsigned lane)
{
    const unsigned down = (7 - (lane >> 2)) * TRELLIS;
#pragma unroll
    for (int i = 0; i < HALF; i++)
        words[i] = __funnelshift_r(stored[i], i + 1 < HALF ? stored[i + 1 < HALF ? i + 1 : i] : after, down);
    words[HALF] = after >> down;
}

#ifdef BYTE_SUMS
__device__ __forceinline__ void fill_table(char*, const unsigned*, unsigned, unsigned) {}

__device__ __forceinline__ unsigned hashed(unsigned state)
{
    return state * (unsigned)(MULTIPLIER);
}

// The state whose lowest bit is bit `from`, the first of a byte.
template <int from> __device__ __forceinline__ unsigned state_of(const unsigned* words)
{
    constexpr int word = from / 32, by = from % 32;
    if (by == 24) return __funnelshift_r(words[word], words[word + 1], by) & 0xffffu;
    return __byte_perm(words[word], 0, by == 0 ? 0x4410 : by == 8 ? 0x4421 : 0x4432);
}

// The weights of column j, rows l / 4 and l / 4 + 8, as four bytes each.
template <int j> __device__ __forceinline__ void two_of(const unsigned* words, unsigned& upper, unsigned& lower)
{
#if TRELLIS == 2  // Both states are one word.
    const unsigned high = words[7 - j] >> 16;
    upper = hashed(high);
    // Either the lower one is cut out, or what the upper adds to the product is taken from it: two pipes share the work.
    if (j % 4 == 3)
        lower = hashed(words[7 - j] & 0xffffu);
    else
        lower = words[7 - j] * (unsigned)(MULTIPLIER) + high * (0u - ((unsigned)(MULTIPLIER) << 16));
#else
    upper = hashed(state_of<(120 - 16 * j) * TRELLIS>(words));
    lower = hashed(state_of<(112 - 16 * j) * TRELLIS>(words));
#endif
}

// Registers of A of the four matrix instructions for 32 inputs: number i has columns i and 4 + i of each lane.
__device__ __forceinline__ void sixteen_of(const unsigned* words, unsigned* a)
{
    two_of<0>(words, a[0], a[1]);
    two_of<4>(words, a[2], a[3]);
    two_of<1>(words, a[4], a[5]);
    two_of<5>(words, a[6], a[7]);
    two_of<2>(words, a[8], a[9]);
    two_of<6>(words, a[10], a[11]);
    two_of<3>(words, a[12], a[13]);
    two_of<7>(words, a[14], a[15]);
}

// The same for the q-th 32 inputs of a piece in shared memory.
__device__ __forceinline__ void decode_part(const unsigned* piece, int q, unsigned lane, unsigned* a)
{
    const unsigned* tile = piece + (lane >> 1 & 1) * (2 * HALF) + q * (4 * HALF);
    const unsigned* own = tile + (lane & 1 ? 0 : HALF);
    unsigned stored[HALF], words[HALF + 1];
#pragma unroll
    for (int i = 0; i < HALF; i += 4) {
        const uint4 v = *(const uint4*)(own + i);
        stored[i] = v.x;
        stored[i + 1] = v.y;
        stored[i + 2] = v.z;
        stored[i + 3] = v.w;
    }
    move_down(words, stored, tile[lane & 1 ? HALF : 0], lane);
    sixteen_of(words, a);
}

// The same of codes in registers.
template <int q> __device__ __forceinline__ void decode_quarter(const Codes& codes, const char*, unsigned lane, unsigned* a)
{
    unsigned words[HALF + 1];
    move_down(words, codes.w[q], __shfl_xor_sync(0xffffffffu, codes.w[q][0], 1), lane);
    sixteen_of(words, a);
}
#else
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

// Register h * 2 + e of a quarter: row l / 4 + 8 e of columns h * 4 ... + 3.
template <int h, int e>
__device__ __forceinline__ unsigned four_of(const unsigned* words, const unsigned char* lookup, unsigned lane)
{
    constexpr int first = (120 - 64 * h - 8 * e) * TRELLIS;
    const unsigned a = value_of<first>(words, lookup, lane), b = value_of<first - 16 * TRELLIS>(words, lookup, lane);
    const unsigned c = value_of<first - 32 * TRELLIS>(words, lookup, lane);
    const unsigned d = value_of<first - 48 * TRELLIS>(words, lookup, lane);
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

template <int q> __device__ __forceinline__ void decode_quarter(const Codes& codes, const char* lookup, unsigned lane, unsigned* a)
{
    const unsigned char* table = (const unsigned char*)lookup;
    unsigned words[HALF + 1];
    move_down(words, codes.w[q], __shfl_xor_sync(0xffffffffu, codes.w[q][0], 1), lane);
    a[0] = four_of<0, 0>(words, table, lane);
    a[1] = four_of<0, 1>(words, table, lane);
    a[2] = four_of<1, 0>(words, table, lane);
    a[3] = four_of<1, 1>(words, table, lane);
}
#endif

// All of a piece: A_WORDS registers.
__device__ __forceinline__ void decode(const Codes& codes, const char* lookup, unsigned lane, unsigned* a)
{
    decode_quarter<0>(codes, lookup, lane, a);
    decode_quarter<1>(codes, lookup, lane, a + A_WORDS / 4);
    decode_quarter<2>(codes, lookup, lane, a + A_WORDS / 2);
    decode_quarter<3>(codes, lookup, lane, a + A_WORDS / 4 * 3);
}
