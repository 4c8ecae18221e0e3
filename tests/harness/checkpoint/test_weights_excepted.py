"""What a config excepts from quantization, the draft head too, and what it leaves unquantized without a word."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from weight_files import LAYER, PACKED, Q, bf16, f32, module, read

from harness.checkpoint.ignored import excepted
from harness.checkpoint.weights import Weights

# -- what the config means to quantize -----------------------------------------------------------------------


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
