"""Integers with a scale for each group of inputs, by GPTQ, in compressed-tensors' format that stock vLLM loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from quantgate_kernels.formats.pack_quantized import CODES_PER_WORD, FORMAT, encode

from quantizers.curvature import Curvature
from quantizers.errors import QuantizeError
from quantizers.gptq import GPTQArgs, gptq
from quantizers.schemes.base import CardWords, Parts, Scheme

GROUP_SIZES = (128, 64, 32)
SCALE_BYTES, SHAPE_BYTES = 2, 16


@dataclass(frozen=True)
class IntGroups(Scheme):
    """Signed integers of `bits`, symmetric, one bf16 scale for `group_size` neighbouring inputs of a row."""

    bits: int
    group_size: int
    damping: float
    # vLLM's Marlin pads, its CPUWNA16 does not (model_executor/kernels/linear/mixed_precision in vLLM 0.32).
    outputs_multiple = 32
    row_chunks = 4
    scale_dtype = torch.bfloat16

    @property
    def tier(self) -> str:  # type: ignore[override]
        return f"int{self.bits}"

    def quantize(self, weight: torch.Tensor, curvature: Curvature, tick: Callable[[], None]) -> Parts:
        codes, scales = gptq(weight, curvature.hessian, GPTQArgs(self.group_size, self.bits, self.damping), tick)
        return {"codes": codes, "scales": scales.to(torch.float32)}

    def units(self, parts: Parts) -> torch.Tensor:
        return parts["codes"].to(torch.float32)

    def tensors(self, parts: Parts) -> dict[str, torch.Tensor]:
        return encode(parts["codes"].cpu(), parts["scales"].cpu())

    def nbytes(self, rows: int, columns: int) -> int:
        words, groups = columns // CODES_PER_WORD, columns // self.group_size
        return rows * (4 * words + SCALE_BYTES * groups) + SHAPE_BYTES

    def entry(self) -> dict[str, Any]:
        return {"format": FORMAT, "bits": self.bits, "group_size": self.group_size, "rotation": None}

    def stock_config(self, ignore: Sequence[str]) -> dict[str, Any]:
        # "static" is the act-order that needs no g_idx: vLLM runs it like no act-order at all.
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": True,
            "strategy": "group",
            "group_size": self.group_size,
            "dynamic": False,
            "actorder": "static",
        }
        return {
            "quant_method": "compressed-tensors",
            "format": FORMAT,
            "quantization_status": "compressed",
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": weights,
                    "input_activations": None,
                    "output_activations": None,
                    "format": FORMAT,
                }
            },
            "ignore": list(ignore),
            "kv_cache_scheme": None,
        }

    def words(self) -> CardWords:
        bits, width = self.bits + 8 * SCALE_BYTES / self.group_size, self.bits
        return CardWords(
            method="GPTQ ([arXiv 2210.17323](https://arxiv.org/abs/2210.17323)), static act-order, searched scales",
            weights=f"{width}-bit integers, symmetric, a bf16 scale per {self.group_size} inputs ({bits:g} bits each)",
            activations=f"not quantized (W{width}A16)",
            format=f"compressed-tensors `{FORMAT}`",
            tags=("compressed-tensors", f"w{width}a16"),
            settings={"damping": f"{self.damping:g}"},
        )


def for_model(bits: int, features: Mapping[str, int], group_size: int | None, damping: float) -> IntGroups:
    """The scheme for one model.

    Args:
        bits: of a code.
        features: inputs of each Linear by its full name.
        group_size: neighbouring inputs that share a scale; None: the largest that fits every Linear.
        damping: added to the diagonal of a Hessian, in units of its mean.

    Raises:
        QuantizeError: naming a Linear that no allowed group size divides.
    """
    return IntGroups(bits, choose_group_size(features, group_size), damping)


def choose_group_size(features: Mapping[str, int], wanted: int | None = None) -> int:
    """The group size for all layers: `wanted`, or the largest of 128, 64, 32 that divides every Linear's inputs.

    One size for all, because vLLM fuses q/k/v and gate/up and their parts must share a scheme.

    Raises:
        QuantizeError: naming a layer that no allowed size divides.
    """
    if wanted is not None and wanted not in GROUP_SIZES:
        sizes = ", ".join(map(str, GROUP_SIZES))
        raise QuantizeError(f"group_size {wanted} is not supported: use one of {sizes}, or none")
    allowed = GROUP_SIZES if wanted is None else (wanted,)
    for size in allowed:
        if all(count % size == 0 for count in features.values()):
            return size
    name, count = next((name, count) for name, count in features.items() if count % allowed[-1])
    raise QuantizeError(
        f"{name} has {count} inputs, which group size {allowed[-1]} does not divide: "
        f"{'ignore this layer in the recipe' if wanted is None else 'choose another group_size or none'}"
    )
