"""8-bit floats with a scale for each block of 128 x 128 weights, by rounding alone: no calibration is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from quantgate_kernels.formats.fp8_block import BLOCK, FORMAT, encode, spread

from quantizers.curvature import Curvature
from quantizers.errors import QuantizeError
from quantizers.schemes.base import CardWords, Parts, Scheme


@dataclass(frozen=True)
class Fp8Block(Scheme):
    """float8_e4m3fn, a float32 scale for each block; activations are rounded to 8 bits by the server."""

    tier = "fp8"
    stored_scales = "weight_scale_inv"
    data_free = True
    scale_dtype = torch.float32

    def quantize(self, weight: torch.Tensor, curvature: Curvature, tick: Callable[[], None]) -> Parts:
        codes, scales = encode(weight)
        tick()
        return {"codes": codes, "scales": scales}

    def units(self, parts: Parts) -> torch.Tensor:
        return parts["codes"].to(torch.float32)

    def scaled(self, units: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return units * spread(scales, *units.shape)

    def tensors(self, parts: Parts) -> dict[str, torch.Tensor]:
        return {"weight": parts["codes"].cpu(), "weight_scale_inv": self.stored(parts["scales"]).cpu()}

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * columns + 4 * math.ceil(rows / BLOCK) * math.ceil(columns / BLOCK)

    def entry(self) -> dict[str, Any]:
        return {"format": FORMAT, "rotation": None}

    def stock_config(self, ignore: Sequence[str]) -> dict[str, Any]:
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [BLOCK, BLOCK],
            "modules_to_not_convert": list(ignore),
        }

    def serving(self, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
        fused = ("q_proj", "k_proj", "gate_proj")  # the last part of a fused matrix may end within a block
        odd = next((n for n, shape in shapes.items() if n.endswith(fused) and shape[0] % BLOCK), None)
        if odd is None:
            return "Serve it with `vllm serve <this folder>` on a GPU, or on a CPU with AMX."
        return (
            f"vLLM refuses it: {odd} has {shapes[odd][0]} outputs, and parts of fused matrices must be multiples of "
            f"{BLOCK}. `quantgate dequantize <this folder> --out DIR` turns it into bf16, which serves anywhere."
        )

    def words(self) -> CardWords:
        return CardWords(
            method="rounding to the nearest, no calibration",
            weights=f"8-bit floats (e4m3), a float32 scale per {BLOCK} x {BLOCK} weights",
            activations="8-bit floats, a scale per token and 128 inputs, found while serving",
            format="`fp8` with `weight_block_size`, as DeepSeek-V3",
            tags=("fp8",),
            settings={},
        )


def for_model(features: Mapping[str, int], group_size: int | None, damping: float) -> Fp8Block:
    """The scheme for one model; arguments as those of `int_groups.for_model`.

    Raises:
        QuantizeError: a group_size is asked for.
    """
    if group_size is not None:
        raise QuantizeError(f"tier fp8 has blocks of {BLOCK} x {BLOCK} weights: no group_size")
    return Fp8Block()
