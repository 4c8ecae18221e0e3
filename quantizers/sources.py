"""What may be quantized: floats as they are stored, and 8-bit floats in blocks, seen as the bf16 model they stand for.

A model whose Linears are stored so (DeepSeek-V3, GLM-5-FP8; quantgate_kernels/formats/fp8_block.py) is read as if it
had been turned into bf16 before: a tensor at a time, so the bf16 model never lies anywhere. What is not quantized of it
is written as bf16, because servers take one quantization_config a model, and that is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from quantgate_kernels.formats.fp8_block import BLOCK

from quantizers.checkpoint import BlockFp8, Checkpoint, TensorInfo, open_checkpoint, quantization_settings
from quantizers.errors import QuantizeError
from quantizers.quantization_config import is_block_fp8

SCALES = "_scale_inv"
SCALE_DTYPES = ("F32", "BF16", "F8_E8M0")


def open_source(folder: Path) -> Checkpoint:
    """Open the model folder of an original.

    One in block fp8 has bf16 tensors (`BlockFp8`), no scales, and a config that says nothing of a quantization.

    Raises:
        QuantizeError: as `open_checkpoint`; 8-bit floats without fitting scales, or scales of nothing, by name.
    """
    checkpoint = open_checkpoint(folder)
    if not is_block_fp8(quantization_settings(folder, checkpoint.config) or {}):
        return checkpoint
    tensors = checkpoint.tensors
    for name, info in tensors.items():
        of = tensors.get(name.removesuffix(SCALES)) if name.endswith(SCALES) else info
        if of is None or (of is not info and of.dtype != "F8_E4M3"):
            found = "is not there" if of is None else f"is {of.dtype}"
            raise QuantizeError(f"tensor {name} is stored, but {name.removesuffix(SCALES)} {found}: download it again")
    plain = {name: _seen(info, tensors) for name, info in tensors.items() if not name.endswith(SCALES)}
    return Checkpoint(folder, _without_quantization(checkpoint.config), plain)


def _seen(info: TensorInfo, tensors: Mapping[str, TensorInfo]) -> TensorInfo:
    if info.dtype != "F8_E4M3":
        return info
    scales = tensors.get(info.name + SCALES)
    if scales is None:
        raise QuantizeError(f"tensor {info.name} is F8_E4M3, and {info.name}{SCALES} is not there: download it again")
    if len(info.shape) != 2:
        raise QuantizeError(
            f"tensor {info.name} is F8_E4M3 {list(info.shape)}, not a matrix: give the original in bf16"
        )
    wanted = tuple(ceil(side / BLOCK) for side in info.shape)
    if scales.shape != wanted or scales.dtype not in SCALE_DTYPES:
        raise QuantizeError(
            f"tensor {scales.name} is {scales.dtype} {list(scales.shape)}, but blocks of {BLOCK} x {BLOCK} of "
            f"{list(info.shape)} have {list(wanted)} scales in {', '.join(SCALE_DTYPES)}: get a sound copy of the model"
        )
    return BlockFp8(info.name, info.file, "BF16", info.shape, info.start, info.end, scales)


def _without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in config.items() if key not in ("quantization_config", "compression_config")}
    if isinstance(text := plain.get("text_config"), dict):
        plain["text_config"] = _without_quantization(text)
    return plain
