"""Weights, bits and layers from safetensors headers, for each format by hand; what an index and a config leave out."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from harness.checkpoint.ignored import excepted
from harness.checkpoint.weights import Weights, read_weights
from quantizers.errors import QuantizeError

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


# -- formats: 128 outputs, 256 inputs, 32,768 weights --------------------------------------------------------

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


# -- what the config means to quantize -----------------------------------------------------------------------

PACKED = {"weight_packed": i32(64, 8), "weight_scale": bf16(64, 1), "weight_shape": torch.tensor([64, 64])}


def mixed(tmp_path: Path, quantization: dict[str, Any]) -> Weights:
    tensors = module(Q, **PACKED) | {f"{LAYER}.mlp.down_proj.weight": bf16(64, 64)}
    return read(tmp_path, tensors, {"quant_method": "compressed-tensors"} | quantization)


@pytest.mark.parametrize(
    "quantization",
    [
        {"ignore": [f"{LAYER}.mlp.down_proj"]},
        {"ignore": ["lm_head", r"re:.*mlp\.down_proj$"]},
        {"ignore": ["re:(?!unknown to RE2)"]},
        {"modules_to_not_convert": ["mlp"]},
        {"ignored_layers": ["model.layers.0.mlp."]},
        {"exclude_modules": ["*mlp*"]},
        {"linear_weights_not_to_quantize": [f"{LAYER}.mlp.down_proj.weight"]},
        {"dynamic": {r"-:.*\.mlp\.": {}}},
        {"modules_in_block_to_quantize": [["self_attn.q_proj"], ["self_attn.k_proj"]]},
        {"config_groups": {"g": {"targets": ["re:.*self_attn.*"]}}},
    ],
)
def test_what_the_config_excepts_is_not_counted_against_it(tmp_path: Path, quantization: dict[str, Any]) -> None:
    found = mixed(tmp_path, quantization)
    assert (found.linear_parameters, found.low_bit_share, found.doubts) == (4096, 0.5, [])
    assert found.linear_bits == pytest.approx(8 * (64 * 8 * 4 + 128 + 16) / 4096, abs=1e-3)


@pytest.mark.parametrize(
    "quantization",
    [
        {},
        {"ignore": ["lm_head", "down", "mlp.down", 7, None, ""]},
        {"ignore": "mlp"},
        {"config_groups": {"g": {"targets": ["Linear"]}}},
        {"config_groups": {"g": {}}},
    ],
)
def test_what_it_does_not_except_is(tmp_path: Path, quantization: dict[str, Any]) -> None:
    found = mixed(tmp_path, quantization)
    assert (found.linear_parameters, found.low_bit_share) == (8192, 0.5)
    assert found.linear_bits == pytest.approx(8 * (64 * 8 * 4 + 128 + 16 + 8192) / 8192, abs=1e-3)
    assert found.doubts == [
        "linear layers that are not quantized though config.json does not except them: 1 (50.0 % of the weights that "
        f"it means to quantize; first: {LAYER}.mlp.down_proj)"
    ]


def test_a_config_that_excepts_everything_hides_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, {f"{Q}.weight": bf16(64, 64)}, {"quant_method": "gptq", "ignore": ["re:.*"]})
    assert (found.linear_parameters, found.linear_bits, found.low_bit_share) == (4096, 16.0, 0.0)


def test_patterns_of_a_config_take_linear_time() -> None:
    names = [f"model.layers.{i}." + "a" * 5_000 for i in range(500)]
    began = time.process_time()
    assert excepted(names, {"ignore": ["re:.*(a*)*(a*)*(a|a)+b"]}) == set()
    assert excepted(names, {"ignore": ["re:" + "a" * 10_000]}) == set(names)  # too long to be tried
    assert excepted(names, {"ignore": ["re:b"] * 1_000}) == set(names)  # too many
    assert excepted([".".join("a" * 5_000)], {"ignore": ["a.a"]}) == set()  # too deep for anything but its whole name
    assert time.process_time() - began < 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["ignore", "modules_to_not_convert", "dynamic", "config_groups", "modules_in_block_to_quantize", "targets"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON | st.dictionaries(st.text(max_size=4), JSON, max_size=2)))
def test_no_config_breaks_the_exceptions(quantization: dict[str, Any]) -> None:
    assert excepted(["a.b", "\ud800", ""], quantization) <= {"a.b", "\ud800", ""}


# -- the draft head ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.layers.1", "mtp.layers.0", "model.mtp_block.0", "model.mtp.0"])
def test_the_draft_head_is_counted_apart(tmp_path: Path, name: str) -> None:
    tensors = {f"{Q}.weight": bf16(8, 8), f"{name}.eh_proj.weight": bf16(8, 16), f"{name}.enorm.weight": f32(8)}
    found = read(tmp_path, tensors, num_hidden_layers=1)
    assert found.draft_bytes == {"BF16": 256, "F32": 32}
    assert (found.layers, found.block_parameters, found.linear_parameters) == (1, 64, 64)
    assert found.parameters == 64 + 128 + 8
    nested = read(tmp_path, tensors, num_hidden_layers=99, text_config={"num_hidden_layers": 1})
    assert nested == found


@pytest.mark.parametrize(
    ("ignore", "doubted"),
    [([], True), (["lm_head"], True), ([r"re:.*layers\.1\..*"], False), (["model.layers.1"], False)],
)
def test_a_draft_head_in_16_bits_must_be_excepted(tmp_path: Path, ignore: list[str], doubted: bool) -> None:
    tensors = module(Q, **PACKED) | {"model.layers.1.mlp.up_proj.weight": bf16(64, 64)}
    found = read(tmp_path, tensors, {"ignore": ignore}, num_hidden_layers=1)
    expected = [
        "the draft head is not quantized and config.json does not except it: servers will look for quantized weights "
        "(first: model.layers.1.mlp.up_proj)"
    ]
    assert found.doubts == (expected if doubted else [])
    assert found.linear_parameters == 4096


# -- damage and lies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[0, 64], [-64, -64], [2**40, 2**40], [2, 2]])
def test_a_shape_that_cannot_be_is_not_believed(tmp_path: Path, shape: list[int]) -> None:
    found = read(tmp_path, module(Q, **PACKED | {"weight_shape": torch.tensor(shape)}), {"quant_method": "x"})
    assert found.parameters == 64 * 8
    assert found.doubts == [
        f"tensors of which it cannot be told how many weights they stand for: 1 (first: {Q}.weight_packed); they are "
        "counted by what they store"
    ]


def test_words_of_unknown_width_are_counted_as_words(tmp_path: Path) -> None:
    groups = {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}}
    found = read(tmp_path, module(Q, weight_packed=i32(64, 8)), {"config_groups": groups})
    assert (found.parameters, len(found.doubts)) == (512, 1)


def test_a_layout_that_is_not_known_is_named(tmp_path: Path) -> None:
    found = read(
        tmp_path, {f"{Q}.trellis": zeros(torch.int16, 4, 4, 48), f"{Q}.suh": f16(64)}, {"quant_method": "exl3"}
    )
    assert found.doubts == [
        f"integer tensors in a layout that is not known here: 1 (first: {Q}.trellis); bits per weight are not certain"
    ]
    assert (found.linear_parameters, found.linear_bits) == (0, 0.0)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_file({f"{Q}.weight": bf16(64, 64)}, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(QuantizeError, match="it is cut off"):
        read_weights(tmp_path, {})


# -- shards and their index ----------------------------------------------------------------------------------


def shards(folder: Path, weight_map: object) -> Weights:
    save_file({f"{Q}.weight": bf16(8, 8)}, folder / "a.safetensors")
    save_file({"model.layers.1.mlp.up_proj.weight": bf16(8, 8)}, folder / "b.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), "utf-8")
    return read_weights(folder, {})


WHOLE = {f"{Q}.weight": "a.safetensors", "model.layers.1.mlp.up_proj.weight": "b.safetensors"}


def test_an_index_that_is_right_is_silent(tmp_path: Path) -> None:
    found = shards(tmp_path, WHOLE)
    assert (found.parameters, found.layers, found.doubts) == (128, 2, [])


@pytest.mark.parametrize(
    ("weight_map", "said", "parameters"),
    [
        (
            WHOLE | {"x": "gone.safetensors"},
            "files that model.safetensors.index.json names and that are not there: 1 (first: gone.safetensors)",
            128,
        ),
        (
            WHOLE | {"x": "a.safetensors"},
            "tensors that are not where model.safetensors.index.json says: 1 (first: x)",
            128,
        ),
        (
            WHOLE | {f"{Q}.weight": "b.safetensors"},
            "tensors that are not where model.safetensors.index.json says: 1",
            64,
        ),
        (
            {f"{Q}.weight": "a.safetensors"},
            "does not name: 1 (0.000 GB; first: b.safetensors); servers do not load them",
            64,
        ),
        ({"x": "../../etc/passwd"}, "names and that are not there: 1 (first: ../../etc/passwd)", 128),
        ({}, "has no usable weight_map: every .safetensors file is counted", 128),
        ({"x": 7}, "has no usable weight_map", 128),
        ([1], "has no usable weight_map", 128),
    ],
)
def test_an_index_that_is_wrong_is_said(tmp_path: Path, weight_map: object, said: str, parameters: int) -> None:
    found = shards(tmp_path, weight_map)
    assert found.parameters == parameters
    assert said in " ".join(found.doubts)


def test_tensors_that_the_index_leaves_out_are_named(tmp_path: Path) -> None:
    save_file({f"{Q}.weight": bf16(8, 8), "extra": bf16(3)}, tmp_path / "a.safetensors")
    weight_map = {"weight_map": {f"{Q}.weight": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(weight_map), "utf-8")
    assert read_weights(tmp_path, {}).doubts == [
        "tensors that model.safetensors.index.json leaves out of its files: 1 (first: extra)"
    ]


def test_a_tensor_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({f"{Q}.weight": bf16(8, 8)}, tmp_path / f"{name}.safetensors")
    found = read_weights(tmp_path, {})
    assert found.parameters == 64
    assert found.doubts == [f"tensors that are there more than once: 1 (first: {Q}.weight)"]


def test_a_large_checkpoint_takes_seconds(tmp_path: Path) -> None:
    """7,680 modules in 10 shards; the files are sparse and never read but for headers and shapes."""
    weight_map = {}
    for shard in range(10):
        header: dict[str, Any] = {}
        position = 0
        for number in range(768):
            name = f"model.layers.{shard}.mlp.experts.{number}.gate_proj"
            for kind, dtype, shape, size in (
                ("weight_shape", "I64", [2], 16),
                ("weight_packed", "I32", [2048, 768], 2048 * 768 * 4),
                ("weight_scale", "BF16", [2048, 48], 2048 * 48 * 2),
            ):
                header[f"{name}.{kind}"] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
                weight_map[f"{name}.{kind}"] = f"{shard}.safetensors"
                position += size
        text = json.dumps(header).encode()
        with (tmp_path / f"{shard}.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for info in header.values():
                if info["shape"] == [2]:
                    file.seek(8 + len(text) + info["data_offsets"][0])
                    file.write((2048).to_bytes(8, "little") + (6144).to_bytes(8, "little"))
            file.truncate(8 + len(text) + position)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), "utf-8")
    began = time.process_time()
    found = read_weights(tmp_path, {"num_hidden_layers": 10, "quantization_config": {"quant_method": "x"}})
    seconds = time.process_time() - began
    assert (found.linear_parameters, found.layers, found.doubts) == (10 * 768 * 2048 * 6144, 10, [])
    assert found.linear_bits == 4.125
    assert seconds < 10
