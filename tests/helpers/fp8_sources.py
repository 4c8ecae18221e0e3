"""Model folders in 8-bit floats with a scale for each 128 x 128 weights, and what they stand for, computed by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

BLOCK = 128
SETTINGS = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}


def blocked(weight: torch.Tensor, scale_dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of a weight; each block has a scale of its own that leaves some room."""
    rows, columns = weight.shape
    scales = torch.empty(-(-rows // BLOCK), -(-columns // BLOCK))
    codes = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            part = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            wanted = weight[part].float().abs().max() / 400
            scales[i, j] = 2 ** wanted.log2().ceil() if scale_dtype == torch.float8_e8m0fnu else wanted
            scales[i, j] = scales[i, j].to(scale_dtype).float()
            codes[part] = (weight[part].float() / scales[i, j]).to(torch.float8_e4m3fn)
    return codes, scales.to(scale_dtype)


def by_hand(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The weight in bf16, bit by bit: 1 sign, 4 bits of exponent (bias 7), 3 of mantissa."""
    bits = codes.view(torch.uint8).numpy().astype(np.int64)
    exponent, mantissa = bits >> 3 & 15, (bits & 7) / 8
    values = np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7.0))
    values = np.where(bits & 128, -values, values).astype(np.float32)
    if scales.dtype == torch.float8_e8m0fnu:
        table = (2.0 ** (scales.view(torch.uint8).numpy().astype(np.float64) - 127)).astype(np.float32)
    else:
        table = scales.float().numpy()
    rows, columns = (np.arange(side) // BLOCK for side in codes.shape)
    return torch.from_numpy(values * table[rows][:, columns]).to(torch.bfloat16)


def save_block_fp8(
    model: Path,
    fp8: Path,
    bf16: Path,
    *,
    scale_dtype: torch.dtype = torch.float32,
    chosen: Callable[[str], bool] = lambda name: name.endswith("_proj.weight"),
) -> None:
    """Two copies of a single-file model folder: Linears in block fp8, and the very values of those in bf16."""
    tensors = load_file(model / "model.safetensors")
    coded, plain = dict(tensors), dict(tensors)
    for name in filter(chosen, tensors):
        coded[name], scales = blocked(tensors[name], scale_dtype)
        coded[f"{name}_scale_inv"] = scales
        plain[name] = by_hand(coded[name], scales)
    for folder, content, settings in ((fp8, coded, {"quantization_config": SETTINGS}), (bf16, plain, {})):
        shutil.copytree(model, folder)
        save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))
