"""The text of the programs of a layer of experts: the device code of one tier, once for each tier that the layer has.

All tables of the layer lie in shared memory at once. Those of 256 entries use half of a row of 256 bytes, so that two
of them share 64 KiB; those of 4,096 entries are copied as often as there is room.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantgate_kernels.cuda.compile import source_of
from quantgate_kernels.cuda.order import LANES, words_of

MOST_TABLES = 160 << 10
"""Bytes of shared memory that tables may take."""
COPIED = 112 << 10
"""Up to which those of 4,096 entries are copied: one copy of all four tiers."""
_SMALL = 64 << 10
_MOST_COPIES = 8
_UNDEFINED = "".join(f"#undef {name}\n" for name in ("WORDS", "ENTRY", "TABLE_BYTES", "LOG2"))


@dataclass(frozen=True)
class Book:
    """What the kernels know of a tier."""

    dimensions: int
    code_bits: int

    @property
    def bytes(self) -> int:
        """Of the table, int8 [entries, d]."""
        return self.dimensions << self.code_bits

    @property
    def piece_words(self) -> int:
        """Words of 32 bits of 16 rows and 128 inputs."""
        return LANES * words_of(self.dimensions, self.code_bits)


@dataclass(frozen=True)
class Place:
    """Where the table of a tier lies in shared memory, in bytes, and how many copies of it."""

    offset: int
    copies: int


def places(books: tuple[Book, ...]) -> tuple[tuple[Place, ...], int]:
    """The place of each table, and the bytes of all of them.

    Raises:
        ValueError: they do not fit at once.
    """
    small = [number for number, book in enumerate(books) if book.code_bits == 8]
    copies = {number: 1 for number, book in enumerate(books) if book.code_bits != 8}
    of_small = (len(small) + 1) // 2 * _SMALL

    def taken() -> int:
        return of_small + sum(books[number].bytes * count for number, count in copies.items())

    if taken() > MOST_TABLES:
        raise ValueError(f"the tables of {len(books)} tiers do not fit shared memory: use fewer tiers in a layer")
    while True:  # the table with the fewest bytes gets the next copies
        found = [n for n in copies if copies[n] < _MOST_COPIES and taken() + books[n].bytes * copies[n] <= COPIED]
        if not found:
            break
        number = min(found, key=lambda n: books[n].bytes * copies[n])
        copies[number] *= 2
    result, end = {}, of_small
    for place, number in enumerate(small):
        result[number] = Place(place // 2 * _SMALL + place % 2 * 128, 1)
    for number, count in copies.items():
        result[number] = Place(end, count)
        end += books[number].bytes * count
    return tuple(result[number] for number in range(len(books))), end


def program(books: tuple[Book, ...], group_mid: int) -> str:
    """The source of the kernels `moe_experts` and `moe_sum`.

    Args:
        books: of the tiers, by the numbers that records call them by.
        group_mid: inputs of down that share a scale.
    """
    found, _ = places(books)
    shared, each = _split("fragments.cuh", "#ifndef TRELLIS")
    parts = [shared, source_of("moe_inputs.cuh")]
    for number, (book, place) in enumerate(zip(books, found, strict=True)):
        numbers = {"CODE_BITS": book.code_bits, "DIMENSIONS": book.dimensions, "COPIES": place.copies}
        body = each + source_of("moe_tiles.cuh")
        parts.append(f"{_UNDEFINED}{_defined(**numbers)}namespace tier{number} {{\n{body}}}\n")
    parts += [_turning("of_middle", group_mid), _choices(books, found), source_of("moe_slots.cuh", "moe_experts.cu")]
    return "\n".join(parts)


def plan_program(group_in: int) -> str:
    """The source of the kernel `moe_plan`."""
    shared, _ = _split("fragments.cuh", "#ifndef TRELLIS")
    return "\n".join([shared, _turning("of_inputs", group_in), source_of("moe_slots.cuh", "moe_plan.cu")])


def _turning(name: str, group: int) -> str:
    """What makes operands, for groups of so many inputs, in a namespace."""
    body = source_of("rotation.cuh", "operands.cuh") + _split("activations.cu", 'extern "C"')[0]
    return f"{_defined(GROUP=group)}namespace {name} {{\n{body}}}\n"


def _split(name: str, at: str) -> tuple[str, str]:
    before, found, after = source_of(name).partition(at)
    assert found, f"{name} has no {at!r}"
    return before, found + after


def _defined(**numbers: int) -> str:
    return "".join(f"#undef {name}\n#define {name} {number}\n" for name, number in numbers.items())


def _choices(books: tuple[Book, ...], found: tuple[Place, ...]) -> str:
    """What the kernels ask of a tier by its number."""
    words, starts, ends, fills, begin = [], [], [], [], 0
    for number, (book, place) in enumerate(zip(books, found, strict=True)):
        words.append(f"tier == {number} ? {book.piece_words} : ")
        starts.append(_by_groups(number, "start", "t, ring, lane"))
        ends.append(_by_groups(number, "finish", f"t, lookup + {place.offset}, ring, lane"))
        fills.append(
            f"    tier{number}::fill_table(lookup + {place.offset}, (const unsigned*)(books + {begin}), threadIdx.x, "
            "WARPS * 32);\n"
        )
        begin += book.bytes
    return (
        f"__device__ __forceinline__ int piece_words(int tier) {{ return {''.join(words)}0; }}\n"
        "__device__ __forceinline__ void start(const Tiles& t, bool down, char* ring, unsigned lane)\n"
        f"{{\n    switch (t.tier) {{\n{''.join(starts)}    }}\n}}\n"
        "__device__ __forceinline__ int finish(const Tiles& t, bool down, const char* lookup, char* ring, "
        "unsigned lane)\n"
        f"{{\n    switch (t.tier) {{\n{''.join(ends)}    }}\n    return 0;\n}}\n"
        "__device__ __forceinline__ void fill_tables(char* lookup, const char* books)\n"
        f"{{\n{''.join(fills)}}}\n"
    )


def _by_groups(number: int, name: str, given: str) -> str:
    """A case of a tier: one of its functions, for the groups of the matrix."""
    call = f"return tier{number}::{name}"
    return (
        f"    case {number}:\n"
        f"        if (GROUPS_IN == GROUPS_MID || !down) {call}<GROUPS_IN>({given});\n"
        f"        else {call}<GROUPS_MID>({given});\n"
    )
