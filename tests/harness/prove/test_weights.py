"""Damaged weights: exactly what is said, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_llama import folder_bytes, save_tiny_llama

from harness.prove import weights
from harness.prove.entries import NotApplicable

Tensors = dict[str, torch.Tensor]
LAYERS = 4


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_llama(tmp_path_factory.mktemp("good") / "model", num_hidden_layers=LAYERS, shards=True)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    return folder


def tensors_of(folder: Path) -> Tensors:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def changed(good: Path, made: Path) -> set[str]:
    before, after = tensors_of(good), tensors_of(made)
    assert before.keys() == after.keys()
    assert all(before[name].dtype == after[name].dtype for name in before)
    return {name for name in before if not torch.equal(before[name], after[name])}


def linears(tensors: Tensors) -> set[str]:
    return {name for name in tensors if name.endswith("_proj.weight")}


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("columns", [128, 96])  # two groups of 64; a row that does not divide is one group
def test_rounding_is_the_nearest_of_all_levels(bits: int, columns: int) -> None:
    weight = torch.randn(3, columns, generator=torch.Generator().manual_seed(bits))
    rounded = weights.round_to_nearest(weight, bits)
    most = 2 ** (bits - 1) - 1
    for row in range(3):
        for start in range(0, columns, 64) if columns == 128 else [0]:
            part = slice(start, start + 64) if columns == 128 else slice(None)
            scale = weight[row, part].abs().max() / most
            levels = torch.arange(-most, most + 1) * scale
            nearest = levels[(weight[row, part, None] - levels).abs().argmin(1)]
            torch.testing.assert_close(rounded[row, part], nearest)


def test_a_row_of_zeros_stays_zero() -> None:
    assert not weights.round_to_nearest(torch.zeros(2, 64), 2).any()


def test_rounding_touches_the_linears_of_the_blocks_alone(good: Path, tmp_path: Path) -> None:
    before = folder_bytes(good)
    weights.round_linears(good, tmp_path / "made", bits=2)
    assert changed(good, tmp_path / "made") == linears(tensors_of(good))
    assert folder_bytes(good) == before  # links are replaced, never written through


def test_foreign_scales_are_those_of_the_next_layer(good: Path, tmp_path: Path) -> None:
    weights.round_linears(good, tmp_path / "int8", bits=8)
    weights.foreign_scales(good, tmp_path / "made")
    layer = LAYERS // 2
    assert changed(tmp_path / "int8", tmp_path / "made") == {
        name for name in linears(tensors_of(good)) if f"layers.{layer}." in name
    }
    name = f"model.layers.{layer}.self_attn.q_proj.weight"
    own, other = (tensors_of(good)[n].float() for n in (name, name.replace(f".{layer}.", f".{layer + 1}.")))
    scale, foreign = (w.abs().amax(1, keepdim=True) / 127 for w in (own, other))  # 64 inputs: one group
    expected = ((own / scale).round() * foreign).to(torch.bfloat16)
    assert torch.equal(tensors_of(tmp_path / "made")[name], expected)


def test_two_layers_change_places(good: Path, tmp_path: Path) -> None:
    weights.swap_layers(good, tmp_path / "made")
    before, after = tensors_of(good), tensors_of(tmp_path / "made")
    swap = {"2": "3", "3": "2"}
    for name, tensor in after.items():
        parts = name.split(".")
        if parts[1] == "layers":
            parts[2] = swap.get(parts[2], parts[2])
        assert torch.equal(tensor, before[".".join(parts)])
    assert any("layers.2." in name for name in changed(good, tmp_path / "made"))


def test_embeddings_have_sixteen_levels_a_row_at_most(good: Path, tmp_path: Path) -> None:
    weights.round_embeddings(good, tmp_path / "made")
    assert changed(good, tmp_path / "made") == {"model.embed_tokens.weight", "lm_head.weight"}
    assert max(len(row.unique()) for row in tensors_of(tmp_path / "made")["lm_head.weight"]) <= 15


def test_of_a_model_with_a_head_the_ending_tokens_row_there_is_lost(good: Path, tmp_path: Path) -> None:
    weights.never_end(good, tmp_path / "made")
    assert changed(good, tmp_path / "made") == {"lm_head.weight"}
    rows = (tensors_of(good)["lm_head.weight"] != tensors_of(tmp_path / "made")["lm_head.weight"]).any(1)
    assert rows.nonzero().flatten().tolist() == [256]


def test_saved_again_is_the_same_model_in_other_files(good: Path, tmp_path: Path) -> None:
    weights.save_again(good, tmp_path / "made")
    assert not changed(good, tmp_path / "made")
    where = json.loads((tmp_path / "made" / "model.safetensors.index.json").read_text())["weight_map"]
    assert where.keys() == tensors_of(good).keys()
    assert set(where.values()) == {file.name for file in (tmp_path / "made").glob("*.safetensors")}
    assert all(name in load_file(tmp_path / "made" / file) for name, file in where.items())


def test_what_the_model_lacks_is_said(tmp_path: Path) -> None:
    small = save_tiny_llama(tmp_path / "small", num_hidden_layers=2)
    with pytest.raises(NotApplicable, match="fewer than three layers"):
        weights.swap_layers(small, tmp_path / "made")
