"""Damaged weights: exactly what is said, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_llama import folder_bytes, save_tiny_llama

from harness.prove import weights
from harness.prove.catalogue import BY_NAME
from harness.prove.editing import link_files
from harness.prove.entries import NotApplicable
from harness.prove.rounding import is_linear, ladder, round_to_nearest, rounded

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
    rounded = round_to_nearest(weight, bits)
    most = 2 ** (bits - 1) - 1
    for row in range(3):
        for start in range(0, columns, 64) if columns == 128 else [0]:
            part = slice(start, start + 64) if columns == 128 else slice(None)
            scale = weight[row, part].abs().max() / most
            levels = torch.arange(-most, most + 1) * scale
            nearest = levels[(weight[row, part, None] - levels).abs().argmin(1)]
            torch.testing.assert_close(rounded[row, part], nearest)


def test_a_row_of_zeros_stays_zero() -> None:
    assert not round_to_nearest(torch.zeros(2, 64), 2).any()


def test_rounding_touches_the_linears_of_the_blocks_alone(good: Path, tmp_path: Path) -> None:
    before = folder_bytes(good)
    rounded(good, tmp_path / "made", 2, is_linear)
    assert changed(good, tmp_path / "made") == linears(tensors_of(good))
    assert folder_bytes(good) == before  # links are replaced, never written through


def test_foreign_scales_are_those_of_the_next_layer(good: Path, tmp_path: Path) -> None:
    rounded(good, tmp_path / "int8", 8, is_linear)
    weights.foreign_scales(good, tmp_path / "made", 1)
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
    BY_NAME["embeddings-4bit"].write(good, tmp_path / "made", seed=0)
    assert changed(good, tmp_path / "made") == {"model.embed_tokens.weight", "lm_head.weight"}
    assert max(len(row.unique()) for row in tensors_of(tmp_path / "made")["lm_head.weight"]) <= 15


def test_of_a_model_with_a_head_the_ending_tokens_row_there_is_lost(good: Path, tmp_path: Path) -> None:
    weights.lose_tokens(good, tmp_path / "made", 1, weights.ends_of_answer)
    assert changed(good, tmp_path / "made") == {"lm_head.weight"}
    rows = (tensors_of(good)["lm_head.weight"] != tensors_of(tmp_path / "made")["lm_head.weight"]).any(1)
    assert rows.nonzero().flatten().tolist() == [256]


@pytest.mark.parametrize(("stated", "ends"), [(7, [7, 256]), ([256, 9], [9, 256]), (None, [256])])
def test_the_tokenizer_and_the_generation_config_need_not_agree_on_what_ends_an_answer(
    good: Path, tmp_path: Path, stated: object, ends: list[int]
) -> None:
    link_files(good, tmp_path / "made")
    (tmp_path / "made" / "generation_config.json").unlink(missing_ok=True)
    (tmp_path / "made" / "generation_config.json").write_text(json.dumps({"eos_token_id": stated}))
    assert weights.ends_of_answer(tmp_path / "made") == ends


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


def test_noise_is_of_the_size_that_is_said_and_another_seed_is_another(good: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        weights.add_noise(good, tmp_path / str(seed), 0.1, seed)
    before, *after = (tensors_of(folder) for folder in (good, tmp_path / "0", tmp_path / "1"))
    assert changed(good, tmp_path / "0") == linears(before)
    for name in linears(before):
        size = before[name].float().square().mean().sqrt()
        assert (after[0][name] - before[name]).float().square().mean().sqrt() / size == pytest.approx(0.1, rel=0.05)
        assert not torch.equal(after[0][name], after[1][name])


def test_more_layers_have_foreign_scales_and_another_seed_begins_elsewhere(good: Path, tmp_path: Path) -> None:
    rounded(good, tmp_path / "int8", 8, is_linear)

    def hit(count: int, seed: int) -> set[str]:
        out = tmp_path / f"{count}-{seed}"
        weights.foreign_scales(good, out, count, seed)
        return {name.split(".")[2] for name in changed(tmp_path / "int8", out)}

    assert hit(1, 0) == {"2"} and hit(1, 1) == {"3"} and hit(3, 0) == {"2", "3", "0"}


def test_the_dose_of_an_entry_can_be_another(good: Path, tmp_path: Path) -> None:
    entry = BY_NAME["rtn-2bit"]
    assert entry.write(good, tmp_path / "stated", seed=0) and entry.write(good, tmp_path / "weaker", seed=0, dose=6)
    name = "model.layers.0.self_attn.q_proj.weight"
    levels = [len({*tensors_of(tmp_path / folder)[name][0].tolist()}) for folder in ("stated", "weaker")]
    assert levels[0] <= 3 < levels[1] <= 63


def test_a_ladder_goes_to_the_top_by_steps_of_a_root_of_two() -> None:
    assert ladder(64) == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64]
    assert ladder(1) == [1] and ladder(5) == [1, 2, 3, 4, 5]


def test_doses_end_beyond_or_at_the_stated_one(good: Path) -> None:
    for name in ("rtn-2bit", "noise", "foreign-scales", "embeddings-4bit", "eos-lost", "rope-theta", "far-positions"):
        doses = BY_NAME[name].doses
        assert doses and doses.stated(good) in doses.steps(good), name


def test_the_token_that_closes_thinking_is_found_by_its_tag(good: Path, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="no token that closes thinking"):
        weights.end_of_thinking(good)
    thinking = save_tiny_llama(tmp_path / "thinking", num_hidden_layers=3)
    (thinking / "chat_template.jinja").write_text((good / "chat_template.jinja").read_text())
    tokenizer = json.loads((thinking / "tokenizer.json").read_text())
    end = dict(tokenizer["added_tokens"][0]) | {"id": 255, "content": "</think>"}
    tokenizer["added_tokens"].append(end)
    del tokenizer["model"]["vocab"][next(s for s, i in tokenizer["model"]["vocab"].items() if i == 255)]
    tokenizer["model"]["vocab"]["</think>"] = 255
    (thinking / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert weights.end_of_thinking(thinking) == [255]
    assert BY_NAME["think-end-lost"].write(thinking, tmp_path / "made", seed=0)
    assert not tensors_of(tmp_path / "made")["lm_head.weight"][255].any()
    assert changed(thinking, tmp_path / "made") == {"lm_head.weight"}
