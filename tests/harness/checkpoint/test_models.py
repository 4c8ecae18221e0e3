"""What a checkpoint is by its own files."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_folders import DENSE, checkpoint

from harness.checkpoint.models import (
    base_model_of,
    describe,
    quantization_of,
    require_original,
)
from harness.contract.errors import BadInput
from harness.contract.model_facts import ModelFacts

# -- describe ------------------------------------------------------------------------------------------------


def test_a_dense_checkpoint_has_the_bits_of_its_dtype(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", model=DENSE)
    facts = describe("owner/name", folder)
    assert (facts.name, facts.path, facts.quantization) == ("owner/name", str(folder.resolve()), None)
    assert (facts.parameters, facts.bits_per_weight) == (8 * 4 + 8 + 1, 16.0)
    assert facts.bytes == (folder / "model.safetensors").stat().st_size


def test_packed_weights_count_as_the_weights_they_stand_for(tmp_path: Path) -> None:
    packed = {
        "a.weight_packed": np.zeros((64, 16), np.int32),  # 64 x 128 weights of four bits
        "a.weight_scale": np.zeros((64, 1), np.float16),
        "a.weight_shape": np.array([64, 128], np.int64),
        "norm.weight": np.zeros(128, np.float16),
    }
    config = {"quantization_config": {"quant_method": "compressed-tensors"}}
    facts = describe("q", checkpoint(tmp_path / "m", config, model=packed))
    assert facts.parameters == 64 * 128 + 128
    assert facts.bits_per_weight == pytest.approx(
        8 * (64 * 16 * 4 + 64 * 2 + 16 + 128 * 2) / (64 * 128 + 128), abs=1e-3
    )
    assert facts.quantization == "compressed-tensors"


def test_all_shards_count_and_other_files_do_not(tmp_path: Path) -> None:
    one = {"a": np.zeros((10, 10), np.float32)}
    two = {"b": np.zeros((5, 10), np.float32)}
    folder = checkpoint(tmp_path / "m", shard1=one, shard2=two)
    before = describe("m", folder)
    assert (before.parameters, before.bits_per_weight) == (150, 32.0)
    (folder / "README.md").write_text("x", "utf-8")
    assert describe("m", folder) == before


def test_the_hash_is_over_config_and_every_weight_file(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", one=DENSE, two={"b": np.ones(3, np.float32)})
    before = describe("m", folder).sha256
    names = ("config.json", "one.safetensors", "two.safetensors")
    listed = "".join(f"{n} {hashlib.sha256((folder / n).read_bytes()).hexdigest()}\n" for n in names)
    assert before == hashlib.sha256(listed.encode()).hexdigest()
    same = checkpoint(tmp_path / "other", one=DENSE, two={"b": np.ones(3, np.float32)})
    assert describe("m", same).sha256 == before
    checkpoint(folder, {"model_type": "qwen"})
    assert describe("m", folder).sha256 != before
    checkpoint(folder, two={"b": np.array([1, 1, 2], np.float32)})
    assert describe("m", folder).sha256 != before


def test_facts_say_what_is_claimed_and_where_it_is_doubted(tmp_path: Path) -> None:
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}, "num_hidden_layers": 2}
    tensors = {f"model.layers.{i}.mlp.up_proj.weight": np.zeros((8, 4), np.float16) for i in range(3)}
    folder = checkpoint(tmp_path / "m", config, model=tensors | {"model.embed_tokens.weight": np.zeros(6, np.float32)})
    (folder / "README.md").write_text("---\ntags: [4-bit]\n---\n# M\n\nThe MTP head is BF16.\n", "utf-8")
    facts = describe("owner/m-int4", folder)
    assert facts.claimed == {
        "config.json": "gptq, 4-bit int, group size 128",
        "card: tags": "4-bit",
        "card: text": "MTP head is BF16",
        "name": "m-int4",
    }
    assert facts.doubts == [
        'config.json says "gptq, 4-bit int, group size 128" and card: tags says "4-bit" and name says "m-int4", but no '
        "linear layer is stored below 16 bits: they hold 16.00 bits per weight (F16, F32), so nothing was quantized"
    ]
    assert (facts.parameters, facts.tensor_bytes, facts.draft_bytes) == (102, {"F16": 192, "F32": 24}, {"F16": 64})
    assert (facts.layers, facts.block_parameters, facts.linear_parameters, facts.linear_bits) == (2, 64, 64, 16.0)
    assert ModelFacts.model_validate_json(facts.model_dump_json()) == facts


def test_other_peoples_text_can_be_stored_and_printed(tmp_path: Path) -> None:
    config = {"quantization_config": {"quant_method": "\ud800\x1b[31m" + "x" * 10_000}}
    tensors = {"model.layers.0.\x1b\u202e.weight": np.zeros((8, 4), np.float16)}
    facts = describe("m", checkpoint(tmp_path / "m", config, model=tensors))
    assert facts.model_dump_json().isprintable()
    assert facts.quantization is not None and len(facts.quantization) <= 80
    assert all(line.isprintable() and len(line) < 400 for line in facts.doubts) and facts.doubts


def test_a_file_that_is_not_counted_is_checked_all_the_same(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", model=DENSE)
    index = {"weight_map": dict.fromkeys(DENSE, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    (folder / "extra.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(BadInput, match=r"cannot read .*extra\.safetensors \(No such file"):
        describe("m", folder)


HEADER = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def safetensors_bytes(header: Any, data: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_the_files_of_the_next_test_are_right_but_for_their_damage(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(safetensors_bytes(HEADER))
    assert describe("m", folder).parameters == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        (10**9).to_bytes(8, "little") + b"{}",
        safetensors_bytes(b"{not json"),
        safetensors_bytes(b"\xff\xfe{}"),
        safetensors_bytes([1]),
        safetensors_bytes("text"),
        safetensors_bytes({"w": 7}),
        safetensors_bytes({"w": {"shape": [2]}}),
        safetensors_bytes({"w": {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}}),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]}}),
        safetensors_bytes(HEADER, b"\0" * 3),  # cut
        safetensors_bytes({"w": HEADER["w"] | {"shape": [3]}}),
    ],
)
def test_a_broken_weight_file_is_named(tmp_path: Path, data: bytes) -> None:
    folder = checkpoint(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(BadInput, match=r"model\.safetensors is damaged"):
        describe("m", folder)


# -- config.json and card ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        ({"quantization_config": {}}, None),
        (
            {"quantization_config": None, "compression_config": {"quant_method": "compressed-tensors"}},
            "compressed-tensors",
        ),
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "gptq"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"quantization_config": {"bits": 4}}, "unknown"),
        ({"quantization_config": {"quant_method": ["awq"]}}, "unknown"),
    ],
)
def test_quantization_is_what_the_config_says(tmp_path: Path, config: dict[str, Any], method: str | None) -> None:
    assert quantization_of(checkpoint(tmp_path / "m", {"model_type": "x"} | config)) == method


@pytest.mark.parametrize(
    ("content", "method"),
    [
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}, "modelopt"),
        ({"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}, None),
        ({"quantization": 7}, None),
        ([], None),
    ],
)
def test_modelopts_own_file_is_read(tmp_path: Path, content: object, method: str | None) -> None:
    packed = {"model.layers.0.q_proj.weight": np.zeros((64, 32), np.uint8)}
    packed |= {"model.layers.0.q_proj.weight_scale": np.zeros((64, 4), np.uint8)}
    folder = checkpoint(tmp_path / "m", model=packed)
    (folder / "hf_quant_config.json").write_text(json.dumps(content))
    assert quantization_of(folder) == method
    facts = describe("m", folder)
    assert ("config.json" in facts.claimed) == (method is not None)
    assert any("has no quantization_config" in doubt for doubt in facts.doubts) == (method is None)


@pytest.mark.parametrize(
    ("name", "card", "words"),
    [
        ("m", "---\ntags: [awq]\n---\n", 'card: tags says "awq"'),
        ("m", "---\nbase_model_relation: quantized\n---\n", 'card: base_model_relation says "quantized"'),
        ("m", "# M, W4A16\n", 'card: title says "M, W4A16"'),
        ("owner/m-AWQ", "", 'name says "m-AWQ"'),
        ("m", "# M\n\nAlso as a 4-bit AWQ.\n", None),
        ("m-unquantized", "---\nbase_model: owner/m\n---\n# M, bf16\n", None),
    ],
)
def test_what_calls_itself_quantized_is_no_original(tmp_path: Path, name: str, card: str, words: str | None) -> None:
    folder = checkpoint(tmp_path / "m", model=DENSE)
    (folder / "README.md").write_text(card)
    if words is None:
        require_original(name, folder)
    else:
        with pytest.raises(BadInput) as caught:
            require_original(name, folder)
        assert f"model {name}: {words}, but its config.json has no quantization_config" in str(caught.value)
        assert "give the quantized checkpoint, or" in str(caught.value)
        checkpoint(folder, {"quantization_config": {"quant_method": "awq"}})
        require_original(name, folder)


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", "utf-8")
    with pytest.raises(BadInput, match=r"config\.json: not JSON"):
        quantization_of(tmp_path)


@pytest.mark.parametrize(
    ("card", "base"),
    [
        (None, None),
        ("# No front matter\n", None),
        ("---\nlicense: mit\n---\n", None),
        ("---\nbase_model: owner/name\n---\n", "owner/name"),
        ("---\nbase_model:\n- owner/first\n- owner/second\n---\n", "owner/first"),
        ("---\nbase_model: []\n---\n", None),
        ("---\nbase_model: 7\n---\n", None),
        ("---\nbase_model: [\n---\n", None),
        ("---\ntags: [\nbase_model: owner/name\n---\n", "owner/name"),
        ("---\nbase_model: &a owner/name\n---\n", None),
        ("---\nbase_model: owner/name\n", None),
        ("", None),
    ],
)
def test_the_base_model_is_the_first_of_the_card(tmp_path: Path, card: str | None, base: str | None) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card, "utf-8")
    assert base_model_of(tmp_path) == base
