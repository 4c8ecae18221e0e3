"""Weights, bits and layers from safetensors headers, for each format by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from weight_files import LAYER, Q, bf16, f8, f16, f32, i32, module, read, u8, zeros

# Of each format 128 outputs and 256 inputs: 32,768 weights.
SHAPE = torch.tensor([128, 256])
INT4 = {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}}
FORMATS: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any], int]] = {
    "compressed-tensors int4, groups of 64": (
        {"weight_packed": i32(128, 32), "weight_scale": bf16(128, 4), "weight_shape": SHAPE},
        {},
        128 * 32 * 4 + 128 * 4 * 2 + 16,
    ),
    "compressed-tensors int4 with zero points and indices": (
        {
            "weight_packed": i32(128, 32),
            "weight_scale": bf16(128, 4),
            "weight_zero_point": i32(16, 4),
            "weight_g_idx": i32(256),
            "weight_shape": SHAPE,
        },
        {},
        128 * 32 * 4 + 128 * 4 * 2 + 16 * 4 * 4 + 256 * 4 + 16,
    ),
    "compressed-tensors int3: ten weights a word": (
        {"weight_packed": i32(128, 26), "weight_scale": bf16(128, 2), "weight_shape": SHAPE},
        {},
        128 * 26 * 4 + 128 * 2 * 2 + 16,
    ),
    "compressed-tensors int4 without weight_shape": (
        {"weight_packed": i32(128, 32), "weight_scale": bf16(128, 4)},
        INT4,
        128 * 32 * 4 + 128 * 4 * 2,
    ),
    "compressed-tensors int8": (
        {"weight": zeros(torch.int8, 128, 256), "weight_scale": bf16(128, 1)},
        {},
        128 * 256 + 256,
    ),
    "FP8, a scale for the tensor": (
        {"weight": f8(128, 256), "weight_scale": f32(1), "input_scale": f32(1)},
        {},
        128 * 256 + 8,
    ),
    "FP8 in blocks of 128": ({"weight": f8(128, 256), "weight_scale_inv": f32(1, 2)}, {}, 128 * 256 + 8),
    "NVFP4, compressed-tensors": (
        {"weight_packed": u8(128, 128), "weight_scale": f8(128, 16), "weight_global_scale": f32(1)},
        {},
        128 * 128 + 128 * 16 + 4,
    ),
    "NVFP4, ModelOpt": (
        {"weight": u8(128, 128), "weight_scale": f8(128, 16), "weight_scale_2": f32(1), "input_scale": f32(1)},
        {},
        128 * 128 + 128 * 16 + 8,
    ),
    "GPTQ int4 with g_idx": (
        {"qweight": i32(32, 128), "qzeros": i32(2, 16), "scales": f16(2, 128), "g_idx": i32(256)},
        {"quant_method": "gptq", "bits": 4},
        32 * 128 * 4 + 2 * 16 * 4 + 2 * 128 * 2 + 256 * 4,
    ),
    "GPTQ int3 without g_idx: the bits are the config's": (
        {"qweight": i32(24, 128), "qzeros": i32(2, 12), "scales": f16(2, 128)},
        {"quant_method": "gptq", "bits": 3},
        24 * 128 * 4 + 2 * 12 * 4 + 2 * 128 * 2,
    ),
    "GPTQ whose config says nothing": (
        {"qweight": i32(64, 128), "qzeros": i32(2, 32), "scales": f16(2, 128), "g_idx": i32(256)},
        {},
        64 * 128 * 4 + 2 * 32 * 4 + 2 * 128 * 2 + 256 * 4,
    ),
    "AWQ int4 packs the outputs": (
        {"qweight": i32(256, 16), "qzeros": i32(2, 16), "scales": f16(2, 128)},
        {"quant_method": "awq", "bits": 4},
        256 * 16 * 4 + 2 * 16 * 4 + 2 * 128 * 2,
    ),
    "AQLM 1x16g8": (
        {
            "codes": zeros(torch.int16, 128, 32, 1),
            "codebooks": f16(1, 16, 1, 8),  # 16 of the 65,536 codewords: enough for a count
            "scales": f16(128, 1, 1, 1),
        },
        {"quant_method": "aqlm"},
        128 * 32 * 2 + 16 * 8 * 2 + 128 * 2,
    ),
    "AQLM 2x8g8 whose codebook lies elsewhere": (
        {"codes": zeros(torch.int8, 128, 32, 2), "scales": f16(128, 1, 1, 1)},
        {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1},
        128 * 32 * 2 + 128 * 2,
    ),
    "ours, 3 bits, tiles of 16 rows": (
        {"codes": zeros(torch.int32, 8, 16 * 24), "scales": f16(128, 2)},
        {
            "quant_method": "quantgate",
            "tiers": {"trellis3": {"format": "trellis", "bits": 3, "state_bits": 16}},
            "default_tier": "trellis3",
        },
        128 * 256 * 3 // 8 + 128 * 2 * 2,
    ),
    "AQLM 2x8g8 beside other tiers of ours": (
        {
            "codes": zeros(torch.int8, 128, 32, 2),
            "codebooks": f16(2, 256, 1, 8),
            "scales": f16(128, 1, 1, 1),
        },
        {"quant_method": "quantgate", "tiers": {}, "modules": {}},
        128 * 32 * 2 + 2 * 256 * 8 * 2 + 128 * 2,
    ),
    "bitsandbytes NF4": (
        {
            "weight": u8(128 * 128, 1),
            "weight__absmax": f32(512),
            "weight__quant_map": f32(16),
            "weight__quant_state__bitsandbytes__nf4": u8(90),
        },
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        128 * 128 + 512 * 4 + 16 * 4 + 90,
    ),
    "BitNet: four weights a byte": (
        {"weight": u8(32, 256), "weight_scale": bf16(1)},
        {"quant_method": "bitnet"},
        32 * 256 + 2,
    ),
    "words with scales (MLX)": (
        {"weight": zeros(torch.uint32, 128, 32), "scales": f16(128, 4), "biases": f16(128, 4)},
        {"bits": 4},
        128 * 32 * 4 + 2 * 128 * 4 * 2,
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_counted_as_the_weights_it_stands_for(tmp_path: Path, name: str) -> None:
    parts, quantization, size = FORMATS[name]
    found = read(tmp_path, module(Q, bias=bf16(128), **parts), {"quant_method": "x"} | quantization)
    assert found.linear_parameters == 128 * 256
    assert found.linear_bits == round(8 * size / (128 * 256), 3)
    assert (found.low_bit_share, found.doubts) == (1.0, [])
    assert found.parameters == found.block_parameters == 128 * 256 + 128


def test_fused_experts_of_mxfp4_hold_two_weights_a_byte(tmp_path: Path) -> None:
    experts = f"{LAYER}.mlp.experts"
    tensors = {
        f"{experts}.gate_up_proj_blocks": u8(4, 64, 2, 16),
        f"{experts}.gate_up_proj_scales": u8(4, 64, 2),
        f"{experts}.gate_up_proj_bias": bf16(4, 64),
    }
    found = read(tmp_path, tensors, {"quant_method": "mxfp4"})
    assert (found.linear_parameters, found.parameters) == (4 * 64 * 64, 4 * 64 * 64 + 4 * 64)
    assert found.linear_bits == 4.25


def test_fused_experts_in_fp8_find_their_scales(tmp_path: Path) -> None:
    experts = f"{LAYER}.mlp.experts"
    tensors = {f"{experts}.down_proj": f8(2, 64, 64), f"{experts}.down_proj_scale_inv": f32(2, 1, 1)}
    found = read(tmp_path, tensors, {"quant_method": "fp8"})
    assert (found.linear_parameters, found.linear_bits) == (8192, round(8 + 8 * 8 / 8192, 3))


def test_a_codebook_that_modules_share_counts_as_bytes_of_their_weights(tmp_path: Path) -> None:
    tensors = module(Q, codes=zeros(torch.int8, 64, 16, 1)) | {"model.codebooks.tier_1": f16(256, 4)}
    found = read(tmp_path, tensors, {"quant_method": "vq", "in_group_size": 4})
    assert found.linear_parameters == 64 * 64
    assert found.linear_bits == 8 * (64 * 16 + 256 * 4 * 2) / 4096


def test_embeddings_head_norms_routers_and_vision_are_no_linear_weights(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": bf16(100, 16),
        "lm_head.weight": bf16(100, 16),
        "model.norm.weight": bf16(16),
        "visual.blocks.7.attn.qkv.weight": bf16(48, 16),
        f"{LAYER}.input_layernorm.weight": bf16(16),
        f"{LAYER}.mlp.gate.weight": bf16(4, 16),
        f"{LAYER}.mlp.gate.e_score_correction_bias": f32(4),
        f"{LAYER}.linear_attn.conv1d.weight": bf16(16, 1, 4),
        f"{LAYER}.mlp.experts.0.down_proj.weight": bf16(16, 8),
        f"{LAYER}.mlp.experts.gate_up_proj": bf16(4, 16, 16),
        "model.layers.1.mlp.down_proj.weight": bf16(16, 32),
    }
    found = read(tmp_path, tensors)
    assert found.linear_parameters == 16 * 8 + 4 * 16 * 16 + 16 * 32
    assert (found.linear_bits, found.low_bit_share, found.layers) == (16.0, 0.0, 2)
    assert found.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert found.block_parameters == found.parameters - 2 * 1600 - 16
    assert list(found.tensor_bytes.items()) == [("BF16", 2 * (found.parameters - 4)), ("F32", 16)]


def test_biases_of_the_blocks_are_counted(tmp_path: Path) -> None:
    tensors = module(Q, weight=bf16(8, 8), bias=bf16(8)) | {"lm_head.bias": bf16(9), "mtp.layers.0.fc.bias": bf16(9)}
    tensors |= {f"{LAYER}.mlp.experts.gate_up_proj_bias": bf16(2, 4)}
    assert read(tmp_path, tensors).bias_parameters == 8 + 8
