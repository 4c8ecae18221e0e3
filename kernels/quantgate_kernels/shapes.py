"""The [O, I] of a stored Linear from the dtypes and shapes of its tensors, each held against its tier (FORMAT.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from quantgate_kernels.formats import aqlm, fp8_block, pack_quantized, rotation, trellis, vq
from quantgate_kernels.formats.words import WORD_BITS
from quantgate_kernels.settings import FormatError, shown


class Stored(Protocol):
    """A header, or a tensor itself."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


Parts = Mapping[str, Stored]
Tables = Mapping[str, torch.Tensor]


def shape_of(module: str, parts: Parts, tier: Mapping[str, Any], tables: Tables) -> tuple[int, int]:
    """Outputs and inputs of the Linear whose tensors are `parts`, by their last name; all of the format are there.

    Raises:
        FormatError: naming the tensor that does not fit, or the module whose tier says nothing of use.
    """
    try:
        return _SHAPES[tier["format"]](shown(module), parts, tier, tables)
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise FormatError(f"{shown(module)}: {shown(error)}: get a sound copy of the model") from None


def _vq(module: str, parts: Parts, tier: Mapping[str, Any], tables: Tables) -> tuple[int, int]:
    layout, table = vq.VQLayout(tier["dimensions"], tier["entries"]), tables[tier["table"]]
    if layout.entries != 1 << layout.code_bits or tuple(table.shape) != (layout.entries, layout.dimensions):
        raise FormatError(
            f"{shown(tier['table'])} is {list(table.shape)}, not the {layout.entries} entries of {layout.dimensions} "
            "weights that config.json describes: get a sound copy of the model"
        )
    rows, words = _matrix(module, parts, "codes", torch.int32)
    columns, rest = divmod(words * WORD_BITS * layout.dimensions, layout.code_bits)
    if rest or columns % rotation.BLOCKS[-1] or layout.words(columns) != words:
        raise FormatError(f"{module}.codes has {words} words a row, which are no whole groups: {_COPY}")
    _require_scales(module, parts, (rows, columns // rotation.block_of(columns)))
    return rows, columns


def _trellis(module: str, parts: Parts, tier: Mapping[str, Any], tables: Tables) -> tuple[int, int]:
    layout, table = trellis.TrellisLayout(tier["bits"], tier["state_bits"]), tables[tier["table"]]
    if tuple(table.shape) != (1 << layout.state_bits,):
        raise FormatError(f"{shown(tier['table'])} is {list(table.shape)}, not 2^{layout.state_bits} values: {_COPY}")
    tiles, words = _matrix(module, parts, "codes", torch.int32)
    columns, rest = divmod(words * trellis.TILE, layout.tile_words)
    if rest or columns % rotation.BLOCKS[-1]:
        raise FormatError(f"{module}.codes has {words} words a row of tiles, which are no whole groups: {_COPY}")
    _require_scales(module, parts, (tiles * trellis.TILE, columns // rotation.block_of(columns)))
    return tiles * trellis.TILE, columns


def _pack_quantized(module: str, parts: Parts, tier: Mapping[str, Any], tables: Tables) -> tuple[int, int]:
    bits, group = tier["bits"], tier["group_size"]
    if bits not in pack_quantized.WIDTHS or group not in rotation.BLOCKS:
        raise FormatError(f"{module}: no format has {shown(bits)} bits in groups of {shown(group)}: {_COPY}")
    rows, words = _matrix(module, parts, "weight_packed", torch.int32)
    columns, rest = divmod(words * WORD_BITS, bits)
    if rest or columns % group:
        raise FormatError(f"{module}.weight_packed has {words} words a row, no whole groups of {group}: {_COPY}")
    _require(module, parts, "weight_scale", (torch.float16, torch.bfloat16), (rows, columns // group))
    _require(module, parts, "weight_shape", (torch.int64,), (2,))
    return rows, columns


def _fp8_block(module: str, parts: Parts, tier: Mapping[str, Any], tables: Tables) -> tuple[int, int]:
    if tier["rotation"] is not None:
        raise FormatError(f"{module}: {fp8_block.FORMAT} has no rotation: {_COPY}")
    rows, columns = _matrix(module, parts, "weight", torch.float8_e4m3fn)
    blocks = math.ceil(rows / fp8_block.BLOCK), math.ceil(columns / fp8_block.BLOCK)
    _require(module, parts, "weight_scale_inv", (torch.float32,), blocks)
    return rows, columns


def _aqlm(module: str, parts: Parts, tier: Mapping[str, Any], tables: Tables) -> tuple[int, int]:
    keys = ("num_codebooks", "nbits_per_codebook", "in_group_size", "out_group_size")
    layout = aqlm.AQLMLayout(*(tier[key] for key in keys))
    if layout.bits not in range(1, 17) or tier["rotation"] is not None:
        raise FormatError(f"{module}: {aqlm.FORMAT} has codes of 1 to 16 bits and no rotation: {_COPY}")
    books = layout.books, layout.entries, layout.out_group, layout.in_group
    _require(module, parts, "codebooks", (torch.float16,), books)
    found = tuple(parts["codes"].shape)
    if len(found) != 3 or found[2] != layout.books or parts["codes"].dtype != layout.dtype:
        wanted = f"{layout.dtype} of {layout.books} codebooks"
        raise FormatError(f"{module}.codes is {parts['codes'].dtype} {list(found)}, not {wanted}: {_COPY}")
    _require(module, parts, "scales", (torch.float16,), (found[0], 1, 1, 1))
    return found[0] * layout.out_group, found[1] * layout.in_group


_COPY = "get a sound copy of the model"
_SHAPES: dict[str, Callable[[str, Parts, Mapping[str, Any], Tables], tuple[int, int]]] = {
    aqlm.FORMAT: _aqlm,
    fp8_block.FORMAT: _fp8_block,
    pack_quantized.FORMAT: _pack_quantized,
    trellis.FORMAT: _trellis,
    vq.FORMAT: _vq,
}


def _matrix(module: str, parts: Parts, part: str, dtype: torch.dtype) -> tuple[int, int]:
    found = parts[part]
    if found.dtype != dtype or len(found.shape) != 2 or 0 in found.shape:
        raise FormatError(f"{module}.{part} is {found.dtype} {list(found.shape)}, not a matrix of {dtype}: {_COPY}")
    return found.shape[0], found.shape[1]


def _require_scales(module: str, parts: Parts, shape: tuple[int, ...]) -> None:
    _require(module, parts, "scales", (torch.float16,), shape)


def _require(module: str, parts: Parts, part: str, dtypes: tuple[torch.dtype, ...], shape: tuple[int, ...]) -> None:
    found = parts[part]
    if found.dtype not in dtypes or tuple(found.shape) != shape:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise FormatError(f"{module}.{part} is {found.dtype} {list(found.shape)}, not {wanted} {list(shape)}: {_COPY}")
