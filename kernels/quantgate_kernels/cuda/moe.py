"""Experts of a layer on a GPU: which kernels are started, on what, and how their work is dealt out.

`moe_plan` finds which tokens meet at which expert and makes operands of the tokens, `moe_experts` does the rest
(src/moe_*.cu). Numbers of blocks depend on the number of tokens alone, so that a CUDA graph can hold them.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from quantgate_kernels.cuda.activations import DTYPES, TOKENS
from quantgate_kernels.cuda.launch import Kernel, launch, load, multiprocessors
from quantgate_kernels.cuda.moe_program import Book, places, plan_program, program
from quantgate_kernels.cuda.order import PIECE, ROWS, groups_of, pieces_of
from quantgate_kernels.cuda.vq_gemv import OUTPUTS
from quantgate_kernels.formats.rotation import block_of

Argument = torch.Tensor | int | None
RECORD_INTS = 8
MOST_EXPERTS = 2048
"""Of a layer, as many as the plan's shared memory counts."""
MOST_TOKENS = 512
"""Of one pair of launches; of more, one part after the other."""
MOST_SHARED = 220 << 10
"""Bytes of shared memory that a block may take: the L1 cache, where operands live, keeps 28 KiB beside it."""
_SLOT_INTS = 32
_PLAN_THREADS = 256
_SUM_THREADS = 256
_ALIGNED = 256


@dataclass(frozen=True)
class Shape:
    """Of a layer of experts, and what its kernels are compiled for."""

    inputs: int
    """D: of gate and up, and the outputs of down."""
    middle: int
    """I: outputs of gate and up, and the inputs of down."""
    experts: int
    books: tuple[Book, ...]


@dataclass(frozen=True)
class Tuning:
    """What may be turned without another result: measured by benchmarks/moe_kernels.py."""

    warps: int = 16
    """Of a block."""
    side: int = 4
    """Tiles of 16 rows that a warp works on side by side: 1, 2, 4 or 8."""
    depth: int = 8
    """Pieces of the dearest tier that a warp has on their way, where shared memory allows."""
    one_launch: bool = True
    """Gate, up and down in one launch."""
    most_summed: int = 64
    """Tokens up to which experts are summed in the same launch too."""
    split: bool | None = None
    """Each part of a tile's inputs is an item, whose sum is stored; otherwise one item goes through all of them. None:
    where there are few slots."""


DEFAULT = Tuning()
MOST_PARTS, PIECES_OF_PART = 4, 8
"""The inputs of a tile are summed in up to so many parts of at least so many pieces: results depend on it."""
FEW_ITEMS = 4096
"""Of gate and up, below which each part of the inputs becomes an item: two for each warp of a large GPU."""


@dataclass(frozen=True)
class Weights:
    """A layer's experts in the kernels' order, on one device."""

    codes: torch.Tensor
    """int32 [words] of all matrices."""
    scales: torch.Tensor
    """float16 [values]: gate, up, down of the first position, then of the second."""
    records: torch.Tensor
    """int32 [experts, 8]: by position, where the codes of gate, up and down begin (64 bits each, in words), their books
    (one in a byte) and the position."""
    positions: torch.Tensor
    """int32 [experts]: of each expert; those with the most bytes first."""
    books: torch.Tensor
    """int8 [bytes]: the tables, one after the other."""
    signs_in: torch.Tensor | None
    """int8 [D], None without rotation."""
    signs_mid: torch.Tensor | None


@dataclass(frozen=True)
class Step:
    """One launch."""

    name: str
    blocks: int
    arguments: tuple[Argument, ...]


def is_split(shape: Shape, pairs: int, tuning: Tuning = DEFAULT) -> bool:
    """Whether each part of a tile's inputs is an item, with so many pairs of a token and an expert."""
    few = most_slots(shape, pairs) * 2 * shape.middle // ROWS // tuning.side < FEW_ITEMS
    return few if tuning.split is None else tuning.split


def definitions(shape: Shape, dtype: torch.dtype, name: str, split: bool, tuning: Tuning = DEFAULT) -> dict[str, int]:
    """What the `source` of a kernel is compiled with, for activations of a dtype."""
    if name == "moe_plan":
        return {"EXPERTS": shape.experts, "X_BFLOAT": DTYPES[dtype]}
    return {
        "DOWN_PARTS": parts_of(shape.middle),
        "GATE_PARTS": parts_of(shape.inputs),
        "GROUPS_IN": groups_of(shape.inputs),
        "GROUPS_MID": groups_of(shape.middle),
        "RING": ring_bytes(shape, tuning),
        "SIDE": tuning.side,
        "SPLIT": int(split),
        "TABLES": places(shape.books)[1],
        "WARPS": tuning.warps,
        "X_BFLOAT": 1,  # it reads floats alone
    }


def parts_of(inputs: int) -> int:
    """Parts of a tile's inputs, each of which is summed by itself."""
    return max(1, min(MOST_PARTS, pieces_of(inputs) // PIECES_OF_PART))


def ring_bytes(shape: Shape, tuning: Tuning) -> int:
    """Of shared memory, of each warp: `depth` pieces of the dearest tier, and less where tables leave less."""
    groups = max(groups_of(shape.inputs), groups_of(shape.middle))
    piece = max(book.piece_words for book in shape.books) * 4 + groups * 32
    room = (MOST_SHARED - places(shape.books)[1]) // tuning.warps // 16 * 16
    return min(tuning.depth * piece, room)


def threads_of(name: str, tuning: Tuning = DEFAULT) -> int:
    """Threads of a block of a kernel."""
    return {"moe_plan": _PLAN_THREADS, "moe_experts": tuning.warps * 32, "moe_sum": _SUM_THREADS}[name]


@functools.cache
def source(shape: Shape, name: str) -> str:
    """The program that a kernel is in."""
    if name == "moe_plan":
        return plan_program(block_of(shape.inputs))
    return program(shape.books, block_of(shape.middle))


@functools.cache
def kernel(device: int, shape: Shape, dtype: torch.dtype, name: str, split: bool, tuning: Tuning = DEFAULT) -> Kernel:
    """One of a layer's kernels, for activations of a dtype: to be asked for once before a graph is captured."""
    numbers = tuple(definitions(shape, dtype, name, split, tuning).items())
    shared = shared_bytes(shape, tuning) if name == "moe_experts" else 0
    return load(device, source(shape, name), name, numbers, threads_of(name, tuning), shared)


def shared_bytes(shape: Shape, tuning: Tuning) -> int:
    """Of a block of `moe_experts`: all tables, and the rings of its warps."""
    return places(shape.books)[1] + tuning.warps * ring_bytes(shape, tuning)


def compile_all(device: int, shape: Shape, dtype: torch.dtype, tuning: Tuning = DEFAULT) -> None:
    """Have all kernels of a layer ready, several compiled at once."""
    jobs = [("moe_plan", True), ("moe_experts", True), ("moe_experts", False)]
    with ThreadPoolExecutor(len(jobs)) as pool:
        for each in [pool.submit(kernel, device, shape, dtype, *job, tuning) for job in jobs]:
            each.result()
    for split in (True, False):
        kernel(device, shape, dtype, "moe_sum", split, tuning)  # of the same program as `moe_experts`


def room(shape: Shape, tokens: int, top_k: int, tuning: Tuning = DEFAULT) -> tuple[dict[str, int], int]:
    """Where each buffer begins that the kernels of so many tokens need, in bytes, and the bytes of all of them."""
    pairs = tokens * top_k
    slots = most_slots(shape, pairs)
    of_four, pieces_in, pieces_mid = -(-tokens // TOKENS), pieces_of(shape.inputs), pieces_of(shape.middle)
    gate_sums, down_sums = sums_of(shape, is_split(shape, pairs, tuning))
    sizes = {
        "slot_count": 12,
        "slots": slots * _SLOT_INTS * 4,
        "owners": pairs * 4,
        "counters": counters_of(shape, slots) * 4,
        "operands": of_four * pieces_in * 1024,
        "factors": of_four * pieces_in * groups_of(shape.inputs) * 16,
        "raw": slots * TOKENS * 2 * gate_sums * pieces_mid * PIECE * 4,
        "mid": slots * pieces_mid * 1024,
        "mid_factors": slots * pieces_mid * groups_of(shape.middle) * 16,
        "partial": pairs * down_sums * shape.inputs * 4,
    }
    begins, end = {}, 0
    for name, size in sizes.items():
        begins[name] = end
        end += -(-size // _ALIGNED) * _ALIGNED
    return begins, end


def sums_of(shape: Shape, split: bool) -> tuple[int, int]:
    """Of each row of gate and up, and of down: how many are stored, to be added by whoever reads them."""
    return (parts_of(shape.inputs), parts_of(shape.middle)) if split else (1, 1)


def most_slots(shape: Shape, pairs: int) -> int:
    """Experts with up to four of their tokens: the most there can be of so many pairs of token and expert."""
    return min(pairs, shape.experts + pairs // TOKENS)


def counters_of(shape: Shape, slots: int) -> int:
    """Ints that count what is done: pieces and slots, and tiles of rows."""
    return slots * (pieces_of(shape.middle) + 1) + shape.inputs // ROWS


def steps(
    shape: Shape,
    weights: Weights,
    x: torch.Tensor,
    router: torch.Tensor,
    ids: torch.Tensor,
    expert_map: torch.Tensor | None,
    out: torch.Tensor,
    space: torch.Tensor,
    processors: int,
    tuning: Tuning = DEFAULT,
) -> list[Step]:
    """The launches that write `out`.

    Args:
        x: [T, D], bfloat16 or float16, contiguous like all others; 1 to MOST_TOKENS tokens.
        router: float32 [T, k].
        ids: int32 or int64 [T, k]; what is no expert is left out.
        expert_map: int32 [experts of all ranks], -1 where an expert is not here.
        out: [T, D], float32, bfloat16 or float16.
        space: uint8, as many as `room` says, on a boundary of 256.
        processors: blocks that run side by side.
    """
    tokens, top_k = ids.shape
    begins, _ = room(shape, tokens, top_k, tuning)
    at = {name: space.data_ptr() + begin for name, begin in begins.items()}
    slots = most_slots(shape, tokens * top_k)
    pieces_in, pieces_mid = pieces_of(shape.inputs), pieces_of(shape.middle)
    tiles_out = shape.inputs // ROWS
    gate_sums, down_sums = sums_of(shape, is_split(shape, tokens * top_k, tuning))
    gate_items = pieces_mid * (16 // tuning.side) * gate_sums
    down_items = -(-tiles_out // tuning.side) * down_sums
    summed = tokens <= tuning.most_summed
    scratch = ("operands", "factors", "raw", "mid", "mid_factors", "partial")
    plan_arguments: list[Argument] = [x, weights.signs_in, ids, expert_map, weights.positions, weights.records]
    plan_arguments += [at[name] for name in ("slots", "owners", "slot_count", "counters", "operands", "factors")]
    plan_arguments += [tokens, shape.inputs, top_k, int(ids.dtype == torch.int64)]
    plan_arguments += [0 if expert_map is None else len(expert_map), counters_of(shape, slots)]
    plan = Step("moe_plan", 1 + -(-tokens * pieces_in // (_PLAN_THREADS // 32)), tuple(plan_arguments))
    blocks = min(processors, -(-slots * max(gate_items, down_items) // tuning.warps))
    ready = at["counters"] + slots * pieces_mid * 4

    def experts(phases: int) -> Step:
        claims = at["slot_count"] + (4 if phases & 1 else 8)
        arguments: list[Argument] = [
            weights.codes,
            weights.scales,
            weights.books,
            weights.signs_mid,
            at["slots"],
            at["owners"],
        ]
        arguments += [at["slot_count"], claims, at["counters"], ready, ready + slots * 4]
        arguments += [*(at[name] for name in scratch), router, out, tokens, top_k, shape.inputs, shape.middle]
        arguments += [pieces_in, pieces_mid, gate_items, down_items, phases]
        return Step("moe_experts", blocks, (*arguments, OUTPUTS[out.dtype]))

    last = 2 + 4 * summed
    found = [plan, experts(1 + last)] if tuning.one_launch else [plan, experts(1), experts(last)]
    if not summed:
        places_of_four = tokens * shape.inputs // 4
        arguments = (at["partial"], router, at["owners"], out, shape.inputs, tokens, top_k, OUTPUTS[out.dtype])
        found.append(Step("moe_sum", -(-places_of_four // _SUM_THREADS), arguments))
    return found


def run(
    shape: Shape,
    weights: Weights,
    x: torch.Tensor,
    router: torch.Tensor,
    ids: torch.Tensor,
    expert_map: torch.Tensor | None,
    out: torch.Tensor,
    tuning: Tuning = DEFAULT,
    overlap: bool = True,
) -> None:
    """Write the experts' sum [T, D] into `out`; arguments as of `steps`, of any number of tokens."""
    device = x.device.index
    for first in range(0, len(x), MOST_TOKENS):
        part = slice(first, min(len(x), first + MOST_TOKENS))
        space = torch.empty(room(shape, part.stop - first, ids.shape[1], tuning)[1], dtype=torch.uint8, device=x.device)
        split = is_split(shape, (part.stop - first) * ids.shape[1], tuning)
        given = (x[part], router[part], ids[part], expert_map, out[part])
        for step in steps(shape, weights, *given, space, multiprocessors(device), tuning):
            found = kernel(device, shape, x.dtype, step.name, split, tuning)
            launch(found, step.blocks, step.arguments, x.device, overlap)
