// A *slot* is an expert with up to four of its tokens. Its record is 32 ints: where its codes begin (three 64-bit
// offsets in words: gate, up, down), the tier of each in a byte, the expert's position, the number of its tokens, and
// the *pairs* of those (token * top_k + place). Experts lie in the order of their positions, the dearest first.

#define SLOT_INTS 32
#define SLOT_TOKENS 4
#define SLOT_TIERS 6
#define SLOT_POSITION 7
#define SLOT_COUNT 8
#define SLOT_PAIRS 9
