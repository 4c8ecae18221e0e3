"""What tensor parallelism may split: rows, and inputs in whole groups, so that a shard is a slice of what is stored.

With down_proj of 384 inputs in groups of 128 at 2 bits: two shards would have 192 inputs, one and a half groups:
refused. Three have 128 inputs each, which are 8 words and one scale of every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantgate_kernels.formats import aqlm, fp8_block, pack_quantized, rotation, trellis
from quantgate_kernels.settings import FormatError, shown

SPLIT_INPUTS = frozenset(
    {"o_proj", "out_proj", "down_proj", "w2", "wo", "fc2", "dense", "dense_4h_to_h", "c_proj", "x_proj"}
)
"""Last names of Linears whose inputs vLLM splits: the second of two. It splits the outputs of all others, but these:"""
WHOLE = frozenset(
    {"q_a_proj", "kv_a_proj_with_mqa", "gate", "router", "shared_expert_gate", "wq_b", "wk", "weights_proj"}
)
"""Every rank has all of them."""
HEADS = frozenset({"k_proj", "v_proj"})
"""Where there are fewer heads than ranks, several ranks have the same head."""


def units(tier: Mapping[str, Any], columns: int) -> tuple[int, int]:
    """How many neighbouring rows and how many inputs of a Linear of `columns` inputs stay together, in a sound tier."""
    name = tier["format"]
    if name == fp8_block.FORMAT:
        return fp8_block.BLOCK, fp8_block.BLOCK
    if name == aqlm.FORMAT:
        return tier["out_group_size"], tier["in_group_size"]
    if name == pack_quantized.FORMAT and tier.get("rotation") is None:
        return 1, tier["group_size"]
    return trellis.TILE if name == trellis.FORMAT else 1, rotation.block_of(columns)


def require_shards(
    module: str, shape: tuple[int, int], tier: Mapping[str, Any], ranks: int, heads: int | None = None
) -> None:
    """Refuse a Linear [O, I] that cannot be split over `ranks`.

    Args:
        module: its full name; the last part tells how servers split it.
        heads: of keys and values.

    Raises:
        FormatError: naming the module: a shard would end within a group or tile.
    """
    last = module.rpartition(".")[2]
    if ranks == 1 or last in WHOLE:
        return
    rows, columns = units(tier, shape[1])
    side, unit, what = (shape[1], columns, "inputs") if last in SPLIT_INPUTS else (shape[0], rows, "outputs")
    parts = min(ranks, heads) if last in HEADS and heads else ranks
    if ranks % parts or side % parts or side // parts % unit:
        kept = f"{shown(tier['format'])} keeps {unit} together"
        raise FormatError(
            f"{shown(module)} has {side} {what}, which do not split over {parts} ranks ({kept}): use a smaller "
            "--tensor-parallel, or expert parallelism for experts"
        )
