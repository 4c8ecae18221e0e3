"""Experts of a layer on a GPU, each projection of each expert in its own vq tier: `prepare` once, `apply` from then on.

`apply` is one custom op with a fake implementation, of plain tensors and integers, so that torch.compile sees one node
and a CUDA graph captures its launches. Nothing is compiled, loaded or waited for in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from quantgate_kernels.cuda import moe, order
from quantgate_kernels.cuda.activations import DTYPES
from quantgate_kernels.cuda.moe_program import Book, places
from quantgate_kernels.formats.rotation import block_of
from quantgate_kernels.formats.vq import FORMAT

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
Stored = Mapping[str, Mapping[str, torch.Tensor]]
Tiers = Mapping[str, Mapping[str, Any]]
Tables = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class PreparedMoE:
    """The experts of a layer in the kernels' order, on their device."""

    weights: moe.Weights
    shape: moe.Shape


def prepare(
    experts: Sequence[Stored],
    tiers: Sequence[Tiers],
    tables: Tables,
    device: torch.device | str,
    down_signs: torch.Tensor | None = None,
) -> PreparedMoE:
    """Reorder a layer's experts for the kernels, and have every kernel that `apply` may need compiled and loaded.

    Args:
        experts: of this rank, by their local numbers: `codes` and `scales` (FORMAT.md) of each projection, found sound
            by the validator, on any device.
        tiers: of each expert's projections, as config.json has them: all of format `vq`, gate and up rotated alike.
        tables: of the model, by name.
        device: a Hopper GPU or newer.
        down_signs: int8 [I] of the inputs that down has here, where they are a slice of the model's.

    Raises:
        ValueError: no kernel knows a tier, tensors do not fit each other, or tables do not fit at once.
        CompileError, LaunchError: the GPU, its driver or the compiler is missing or refuses.
    """
    place = torch.device(device)
    if place.type != "cuda":
        raise ValueError(f"these kernels run on a GPU, not on {place}: use quantgate_kernels.formats there")
    place = torch.device("cuda", torch.cuda.current_device() if place.index is None else place.index)
    found = ordered(experts, tiers, tables, place, down_signs)
    assert place.index is not None
    for dtype in DTYPES:
        moe.compile_all(place.index, found.shape, dtype)
    return found


def ordered(
    experts: Sequence[Stored],
    tiers: Sequence[Tiers],
    tables: Tables,
    device: torch.device,
    down_signs: torch.Tensor | None = None,
) -> PreparedMoE:
    """`prepare` without any kernel, on any device."""
    names = sorted({each[name]["table"] for each in tiers for name in PROJECTIONS if _is_vq(each[name])})
    books = tuple(Book(tables[name].shape[1], len(tables[name]).bit_length() - 1) for name in names)
    places(books)
    if not 0 < len(experts) <= moe.MOST_EXPERTS or len(experts) != len(tiers):
        raise ValueError(f"{len(experts)} experts with {len(tiers)} tiers: a layer has 1 to {moe.MOST_EXPERTS}")
    inputs, middle = (_inputs(experts[0][name], tiers[0][name], tables) for name in ("gate_proj", "down_proj"))
    wanted = {"gate_proj": (middle, inputs), "up_proj": (middle, inputs), "down_proj": (inputs, middle)}
    dearest = sorted(range(len(experts)), key=lambda e: -sum(_words(experts[e][name]) for name in PROJECTIONS))
    begins, end = _begins([tiers[e] for e in dearest], wanted, books, names)
    codes = torch.empty(end, dtype=torch.int32, device=device)
    scales = []
    for place, e in enumerate(dearest):
        for number, name in enumerate(PROJECTIONS):
            stored, book = experts[e][name], books[names.index(tiers[e][name]["table"])]
            _require(stored, wanted[name], tiers[e][name], tables, f"expert {e}, {name}")
            parts = order.ordered_codes(stored["codes"].to(device), book.dimensions, book.code_bits).flatten()
            codes[begins[place][number] : begins[place][number] + len(parts)] = parts
            scales.append(order.ordered_scales(stored["scales"].to(device), wanted[name][1]).flatten())
    positions = torch.empty(len(experts), dtype=torch.int32)
    positions[torch.tensor(dearest)] = torch.arange(len(experts), dtype=torch.int32)
    weights = moe.Weights(
        codes=codes,
        scales=torch.cat(scales),
        records=_records([tiers[e] for e in dearest], begins, names).to(device),
        positions=positions.to(device),
        books=torch.cat([tables[name].contiguous().flatten() for name in names]).to(device),
        signs_in=_signs(tiers, ("gate_proj", "up_proj"), tables.get(f"signs.{inputs}"), inputs, device),
        signs_mid=_signs(
            tiers, ("down_proj",), tables.get(f"signs.{middle}") if down_signs is None else down_signs, middle, device
        ),
    )
    return PreparedMoE(weights, moe.Shape(inputs, middle, len(experts), books))


def apply(
    x: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    prepared: PreparedMoE,
    expert_map: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weighted sum [T, D] over each token's experts of down(silu(gate x) * (up x)), in the dtype of x.

    Args:
        x: [T, D], bfloat16 or float16.
        topk_weights: float32 [T, k].
        topk_ids: int32 or int64 [T, k]; ids of no expert count nothing.
        expert_map: int32 [experts of all ranks]: the number of each here, or -1.
    """
    weights, shape = prepared.weights, prepared.shape
    found: torch.Tensor = torch.ops.quantgate.vq_experts(
        x,
        topk_weights,
        topk_ids,
        expert_map,
        weights.codes,
        weights.scales,
        weights.records,
        weights.positions,
        weights.books,
        weights.signs_in,
        weights.signs_mid,
        shape.middle,
        [number for book in shape.books for number in (book.dimensions, book.code_bits)],
    )
    return found


_LIBRARY = torch.library.Library("quantgate", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "vq_experts(Tensor x, Tensor topk_weights, Tensor topk_ids, Tensor? expert_map, Tensor codes, Tensor scales, "
    "Tensor records, Tensor positions, Tensor books, Tensor? signs_in, Tensor? signs_mid, int middle, "
    "int[] book_numbers) -> Tensor"
)


def _vq_experts(
    x: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    expert_map: torch.Tensor | None,
    codes: torch.Tensor,
    scales: torch.Tensor,
    records: torch.Tensor,
    positions: torch.Tensor,
    books: torch.Tensor,
    signs_in: torch.Tensor | None,
    signs_mid: torch.Tensor | None,
    middle: int,
    book_numbers: list[int],
) -> torch.Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if len(x) == 0:
        return out
    pairs = tuple(Book(*pair) for pair in zip(book_numbers[::2], book_numbers[1::2], strict=True))
    shape = moe.Shape(x.shape[1], middle, len(positions), pairs)
    weights = moe.Weights(codes, scales, records, positions, books, signs_in, signs_mid)
    router = topk_weights.to(torch.float32).contiguous()
    ids = topk_ids if topk_ids.dtype in (torch.int32, torch.int64) else topk_ids.to(torch.int32)
    mapped = None if expert_map is None else expert_map.to(torch.int32).contiguous()
    moe.run(shape, weights, x.contiguous(), router, ids.contiguous(), mapped, out)
    return out


def _fake(x: torch.Tensor, *_: Any) -> torch.Tensor:
    return x.new_empty(x.shape)


_LIBRARY.impl("vq_experts", _vq_experts, "CUDA")  # type: ignore[no-untyped-call]
torch.library.register_fake("quantgate::vq_experts", _fake, lib=_LIBRARY)


def _is_vq(tier: Mapping[str, Any]) -> bool:
    if tier["format"] != FORMAT:
        raise ValueError(
            f"no GPU kernel reads experts of format {tier['format']!r}: requantize to a tier of {FORMAT!r}"
        )
    return True


def _words(stored: Mapping[str, torch.Tensor]) -> int:
    return stored["codes"].numel()


def _inputs(stored: Mapping[str, torch.Tensor], tier: Mapping[str, Any], tables: Tables) -> int:
    entries, dimensions = tables[tier["table"]].shape
    return stored["codes"].shape[1] * 32 // (entries.bit_length() - 1) * dimensions


def _require(
    stored: Mapping[str, torch.Tensor], shape: tuple[int, int], tier: Mapping[str, Any], tables: Tables, what: str
) -> None:
    rows, inputs = shape
    found = len(stored["codes"]), _inputs(stored, tier, tables)
    if found != shape:
        raise ValueError(
            f"{what} has codes of {list(found)} weights, not {list(shape)} as the first expert: get a copy"
        )
    if stored["scales"].shape != (rows, inputs // block_of(inputs)):
        raise ValueError(f"{what} has scales {list(stored['scales'].shape)} for {list(shape)} weights")


def _begins(
    tiers: Sequence[Tiers], wanted: Mapping[str, tuple[int, int]], books: Sequence[Book], names: Sequence[str]
) -> tuple[list[list[int]], int]:
    """Where each matrix' codes begin, by position and projection, and the words of all."""
    found, end = [], 0
    for each in tiers:
        row = []
        for name in PROJECTIONS:
            rows, inputs = wanted[name]
            row.append(end)
            pieces = order.tiles_of(rows) * order.pieces_of(inputs)
            end += pieces * books[names.index(each[name]["table"])].piece_words
        found.append(row)
    return found, end


def _records(tiers: Sequence[Tiers], begins: Sequence[Sequence[int]], names: Sequence[str]) -> torch.Tensor:
    records = torch.zeros(len(tiers), moe.RECORD_INTS, dtype=torch.int32)
    records[:, 7] = torch.arange(len(tiers), dtype=torch.int32)
    records[:, :6] = torch.tensor(begins, dtype=torch.int64).view(torch.int32)
    for place, each in enumerate(tiers):
        records[place, 6] = sum(names.index(each[name]["table"]) << 8 * n for n, name in enumerate(PROJECTIONS))
    return records


def _signs(
    tiers: Sequence[Tiers],
    projections: Sequence[str],
    signs: torch.Tensor | None,
    inputs: int,
    device: torch.device,
) -> torch.Tensor | None:
    """What turns the inputs of some projections, of all experts alike."""
    turned = {each[name]["rotation"] is not None for each in tiers for name in projections}
    if turned == {False}:
        return None
    if len(turned) != 1:
        raise ValueError(f"{' and '.join(projections)} of some experts are rotated and of some not: requantize alike")
    if signs is None or signs.shape != (inputs,):
        raise ValueError(f"signs of {inputs} inputs are missing: get a sound copy of the model")
    return signs.to(device).contiguous()
