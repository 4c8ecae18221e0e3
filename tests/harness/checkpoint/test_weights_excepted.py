"""What a config excepts from quantization, the draft head too, and what it leaves unquantized without a word."""

from pathlib import Path
from typing import Any

import pytest
from hangs import no_hang
from hypothesis import given
from hypothesis import strategies as st
from weight_files import LAYER, PACKED, Q, bf16, f32, module, read, u8

from harness.checkpoint.ignored import contradicted, excepted
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


@pytest.mark.parametrize(
    ("quantization", "entry"),
    [
        ({"quant_method": "compressed-tensors", "ignore": ["lm_head", Q]}, Q),
        ({"quant_method": "compressed-tensors", "ignore": [r"re:model\.layers\.0\..*"]}, r"re:model\.layers\.0\..*"),
        ({"quant_method": "compressed-tensors", "ignore": ["Linear"]}, "Linear"),
        ({"quant_method": "compressed-tensors", "ignore": ["re:Lin.*"]}, "re:Lin.*"),
        ({"quant_method": "awq", "modules_to_not_convert": ["self_attn"]}, "self_attn"),
        ({"quant_method": "modelopt", "exclude_modules": ["*q_proj"]}, "*q_proj"),
        ({"quant_method": "gptq", "dynamic": {r"-:.*q_proj": {}}}, "re:.*q_proj"),
    ],
)
def test_what_is_stored_quantized_must_not_be_excepted(
    tmp_path: Path, quantization: dict[str, Any], entry: str
) -> None:
    found = read(tmp_path, module(Q, **PACKED), quantization)
    assert found.doubts == [
        f'modules that are stored quantized though config.json excepts them: 1 (first: {Q}, by "{entry}"); servers '
        "will refuse them or read them as plain weights"
    ]


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "compressed-tensors", "ignore": [LAYER, "self_attn", "q_proj", "re:q_proj", "re:.*mlp"]},
        {"quant_method": "compressed-tensors", "ignore": ["re:(?!unknown to RE2)"]},
        {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.mlp.router", "model.layers.*.self_att"]},
        {"quant_method": "awq", "modules_to_not_convert": ["q_pro", "attn", ""]},
        {"quant_method": 7, "ignore": {"a": 1}, "dynamic": []},
    ],
)
def test_an_entry_that_may_mean_something_else_is_not_doubted(tmp_path: Path, quantization: dict[str, Any]) -> None:
    assert read(tmp_path, module(Q, **PACKED), quantization).doubts == []


def test_a_pattern_for_attention_means_what_is_inside_of_it(tmp_path: Path) -> None:
    """The config of gpt-oss: its experts are MXFP4, and `self_attn` stands for four projections."""
    experts = f"{LAYER}.mlp.experts"
    tensors = {f"{experts}.{part}_blocks": u8(4, 64, 2, 16) for part in ("gate_up_proj", "down_proj")}
    tensors |= {f"{experts}.{part}_scales": u8(4, 64, 2) for part in ("gate_up_proj", "down_proj")}
    tensors |= {f"{experts}.gate_up_proj_bias": bf16(4, 64), f"{LAYER}.mlp.router.weight": bf16(4, 64)}
    tensors |= {f"{LAYER}.self_attn.{part}.weight": bf16(64, 64) for part in ("q_proj", "k_proj", "v_proj", "o_proj")}
    spared = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    found = read(tmp_path, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": spared})
    assert (found.doubts, found.layout_known, found.linear_bits) == ([], True, 4.25)


@pytest.mark.slow
def test_patterns_of_a_config_take_linear_time() -> None:
    names = [f"model.layers.{i}." + "a" * 5_000 for i in range(500)]
    with no_hang():
        assert excepted(names, {"ignore": ["re:.*(a*)*(a*)*(a|a)+b"]}) == set()
        assert excepted(names, {"ignore": ["re:" + "a" * 10_000]}) == set(names)  # too long to be tried
        assert excepted(names, {"ignore": ["re:b"] * 1_000}) == set(names)  # too many
        assert (
            excepted([".".join("a" * 5_000)], {"ignore": ["a.a"]}) == set()
        )  # too deep for anything but its whole name
        layers = [f"model.layers.{i}.mlp.experts.{j}.up_proj" for i in range(80) for j in range(256)]
        entries = [
            "lm_head",
            *(f"model.layers.{i}.self_attn.o_proj" for i in range(5_000)),
            *(f"re:.*z{i}" for i in range(300)),
        ]
        assert contradicted(layers, {"modules_to_not_convert": entries}) == ([], "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


KEYS = ["ignore", "modules_to_not_convert", "dynamic", "config_groups", "modules_in_block_to_quantize", "targets"]


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(KEYS), JSON | st.dictionaries(st.text(max_size=4), JSON, max_size=2)))
def test_no_config_breaks_the_exceptions(quantization: dict[str, Any]) -> None:
    names = ["a.b", "\ud800", ""]
    assert excepted(names, quantization) <= set(names)
    assert set(contradicted(names, quantization)[0]) <= set(names)


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
