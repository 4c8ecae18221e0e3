"""W4A16 in the compressed-tensors "pack-quantized" format, which stock vLLM and transformers load.

A Linear [O, I] with groups of g input columns is stored as `weight_packed` int32 [O, I/8],
`weight_scale` bf16 [O, I/g] and `weight_shape` int64 [2]. weight = code * scale, code in -8..7.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from quantgate_kernels.formats.packing import pack_int4, unpack_int4

from quantizers.errors import QuantizeError

GROUP_SIZES = (128, 64, 32)
FORMAT = "pack-quantized"


def choose_group_size(in_features: Mapping[str, int], wanted: int | None = None) -> int:
    """The group size for all layers: `wanted`, or the largest of 128, 64, 32 that divides every in_features.

    One size for all, because vLLM fuses q/k/v and gate/up and their parts must share a scheme.
    Raises QuantizeError naming a layer that no allowed size divides.
    """
    sizes = GROUP_SIZES if wanted is None else (wanted,)
    for size in sizes:
        if all(count % size == 0 for count in in_features.values()):
            return size
    name, count = next((name, count) for name, count in in_features.items() if count % sizes[-1])
    raise QuantizeError(
        f"{name} has {count} inputs, which group size {sizes[-1]} does not divide: "
        f"{'ignore this layer in the recipe' if wanted is None else 'choose another group_size or none'}"
    )


def encode(codes: torch.Tensor, scales: torch.Tensor) -> dict[str, torch.Tensor]:
    """Store int codes [O, I] and scales [O, I/g] as the three tensors of the format, by their last name.

    Raises ValueError when the scales do not fit the codes or are not all positive and finite.
    """
    rows, columns = codes.shape
    if scales.ndim != 2 or scales.shape[0] != rows or scales.shape[1] == 0 or columns % scales.shape[1]:
        raise ValueError(f"scales {list(scales.shape)} do not fit codes {list(codes.shape)}")
    stored = scales.to(torch.bfloat16)
    if not bool((torch.isfinite(stored) & (stored > 0)).all()):
        raise ValueError("every scale must be positive and finite")
    return {
        "weight_packed": pack_int4(codes),
        "weight_scale": stored.contiguous(),
        "weight_shape": torch.tensor([rows, columns], dtype=torch.int64),
    }


def decode(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The bf16 weight [O, I] that `encode`'s tensors stand for: code * scale, rounded to bf16 once.

    Raises ValueError when the three tensors contradict each other, KeyError when one is absent.
    """
    codes, scales = unpack_int4(tensors["weight_packed"]), tensors["weight_scale"]
    shape = tensors["weight_shape"].tolist()
    if shape != list(codes.shape):
        raise ValueError(f"weight_shape says {shape} but weight_packed holds {list(codes.shape)}")
    return dequantize(codes, scales)


def dequantize(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """codes [O, I] times scales [O, I/g] as bf16 [O, I]. Raises ValueError when the shapes do not fit."""
    rows, columns = codes.shape
    if scales.ndim != 2 or scales.shape[0] != rows or scales.shape[1] == 0 or columns % scales.shape[1]:
        raise ValueError(f"scales {list(scales.shape)} do not fit codes {list(codes.shape)}")
    grouped = codes.to(torch.float32).view(rows, scales.shape[1], -1)
    weight = torch.mul(grouped, scales.to(torch.float32).unsqueeze(2))
    return weight.view(rows, columns).to(torch.bfloat16)


def quantization_config(group_size: int, ignore: Sequence[str]) -> dict[str, Any]:
    """The `quantization_config` of config.json. `ignore` names every Linear that stays as it was.

    "static" is the act-order that needs no g_idx: vLLM runs it like no act-order at all.
    """
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": group_size,
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
