"""Safetensors files of zeros, by layout, and what is read of their headers."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from harness.checkpoint.weights import Weights, read_weights

LAYER = "model.layers.0"
Q = f"{LAYER}.self_attn.q_proj"


def zeros(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def bf16(*shape: int) -> torch.Tensor:
    return zeros(torch.bfloat16, *shape)


def f16(*shape: int) -> torch.Tensor:
    return zeros(torch.float16, *shape)


def i32(*shape: int) -> torch.Tensor:
    return zeros(torch.int32, *shape)


def u8(*shape: int) -> torch.Tensor:
    return zeros(torch.uint8, *shape)


def f8(*shape: int) -> torch.Tensor:
    return zeros(torch.float8_e4m3fn, *shape)


def f32(*shape: int) -> torch.Tensor:
    return zeros(torch.float32, *shape)


def read(
    folder: Path, tensors: dict[str, torch.Tensor], quantization: dict[str, Any] | None = None, **config: Any
) -> Weights:
    save_file(tensors, folder / "model.safetensors")
    return read_weights(folder, config | ({"quantization_config": quantization} if quantization else {}))


def module(name: str, **parts: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{name}.{kind.replace('__', '.')}": tensor for kind, tensor in parts.items()}


PACKED = {"weight_packed": i32(64, 8), "weight_scale": bf16(64, 1), "weight_shape": torch.tensor([64, 64])}
