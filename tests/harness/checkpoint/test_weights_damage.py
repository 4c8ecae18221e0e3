"""Damaged or lying files are refused or doubted by name, and a large checkpoint takes seconds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hangs import no_hang
from safetensors.torch import save_file
from weight_files import PACKED, Q, bf16, f8, f16, i32, module, read, u8, zeros

from harness.checkpoint.doubts import pair_doubts
from harness.checkpoint.models import describe
from harness.checkpoint.weights import Weights, read_weights
from quantizers.errors import QuantizeError

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


UNKNOWN: dict[str, tuple[str, dict[str, torch.Tensor]]] = {
    "exl3": (f"{Q}.trellis", {"suh": f16(64), "svh": f16(64), "trellis": zeros(torch.int16, 4, 4, 48)}),
    "hqq": (f"{Q}.W_q", {"W_q": u8(32, 64), "scale": f16(1, 64), "zero": f16(1, 64), "shape": zeros(torch.int64, 2)}),
    "hqq as floats": (f"{Q}.W_q", {"W_q": bf16(16, 64), "scale": f16(1, 64), "zero": f16(1, 64)}),
    "torchao": (f"{Q}._weight_qdata", {"_weight_qdata": zeros(torch.int8, 64, 32), "_weight_scale": bf16(64, 1)}),
    "torchao float8": (f"{Q}._weight_qdata", {"_weight_qdata": f8(64, 64), "_weight_scale": bf16(64, 1)}),
    "vptq": (f"{Q}.indices", {"indices": i32(1, 8, 16), "weight_scale": bf16(64), "centroids__weight": f16(1, 2048)}),
    "quip": (f"{Q}.Qidxs", {"Qidxs": zeros(torch.int64, 64, 2), "SU": f16(64), "SV": f16(64)}),
    "odd": (f"{Q}.weight", {"weight": zeros(torch.int16, 64, 16)}),
}


@pytest.mark.parametrize("method", UNKNOWN)
def test_a_layout_that_is_not_known_is_named_and_not_accused(tmp_path: Path, method: str) -> None:
    """One line, though other linear layers are in 16 bits and the config says nothing of them."""
    name, parts = UNKNOWN[method]
    plain = {f"model.layers.0.mlp.{part}_proj.weight": bf16(64, 64) for part in ("up", "down")}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method, "bits": 2}}))
    save_file(module(Q, **parts) | plain, tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text("---\ntags: [exl3, 2-bit]\nbase_model_relation: quantized\n---\n# M 2.0bpw\n")
    found = describe("m-2bit", tmp_path)
    kind = "tensors" if "float" in method else "integer tensors"
    assert found.doubts == [
        f"{kind} in a layout that is not known here: 1 (first: {name}); bits per weight are not certain"
    ]
    assert (found.layout_known, found.linear_parameters, found.linear_bits, found.bits_per_weight) == (False, 0, 0, 0)
    full = tmp_path / "full"
    full.mkdir()
    (full / "config.json").write_text("{}")
    save_file({f"{Q}.weight": bf16(64, 64)} | plain, full / "model.safetensors")
    assert pair_doubts(describe("full", full), found) == []


def test_stored_masks_and_tables_are_no_layout(tmp_path: Path) -> None:
    tensors = {f"{Q}.weight": bf16(64, 64), "h.0.attn.bias": u8(1, 1, 8, 8), "h.0.attn.position_ids": i32(1, 8)}
    tensors |= {"visual.blocks.0.attn.table": i32(8, 8)}
    found = read(tmp_path, tensors)
    assert (found.layout_known, found.doubts) == (True, [])


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


@pytest.mark.slow
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
    with no_hang():
        found = read_weights(tmp_path, {"num_hidden_layers": 10, "quantization_config": {"quant_method": "x"}})
    assert (found.linear_parameters, found.layers, found.doubts) == (10 * 768 * 2048 * 6144, 10, [])
    assert found.linear_bits == 4.125
