"""Models that cannot or must not be quantized as they are: named before work starts, nothing under the final name."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import save_tiny_llama

from quantizers.checkpoint import INDEX_FILE, TensorInfo, one_line, open_checkpoint, read_header
from quantizers.config_faults import refuse_values
from quantizers.errors import QuantizeError
from quantizers.modeling import build, require_embeddings
from quantizers.pipeline import quantize
from quantizers.plan import make_plan
from quantizers.recipe import Recipe
from quantizers.soundness import BITS, is_finite

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "model")


def change(model: Path, tensors: Tensors | None = None, **config: Any) -> Path:
    """Add tensors to a model folder and keys to its config."""
    file = model / "model.safetensors"
    save_file(load_file(file) | (tensors or {}), file, metadata={"format": "pt"})
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | config))
    return model


def ignored(model: Path, recipe: Recipe) -> list[str]:
    checkpoint = open_checkpoint(model)
    return make_plan(checkpoint, build(checkpoint), recipe).ignore


def refused(model: Path, recipe: Recipe, message: str) -> None:
    """Refused with one line before the work folder is made."""
    with pytest.raises(QuantizeError, match=message) as caught:
        quantize(model, recipe, model.parent / "out", device="cpu")
    assert "\n" not in str(caught.value)
    assert not (model.parent / "out").exists() and not (model.parent / "out.partial").exists()


# -- what `ignore` may name ----------------------------------------------------------------------------------


def test_a_stored_cache_does_not_except_its_layer(model: Path, tiny_recipe: Recipe) -> None:
    extra = {
        "model.layers.0.self_attn.rotary_emb.cos_cached": torch.ones(8, 16),
        "model.layers.1.self_attn.mask": torch.ones(8, 8),
        "model.layers.1.cache": torch.ones(8, 8),
        "model.layers.1.extra_proj.weight": torch.ones(8, 8),
        "model.layers.2.mlp.up_proj.weight": torch.ones(8, 8),
        "bare": torch.ones(2, 2),
    }
    assert ignored(change(model, extra), tiny_recipe) == [
        "lm_head",
        "model.layers.0.self_attn.rotary_emb",
        "model.layers.1.extra_proj",
        r"re:model\.layers\.2\..*",
    ]


@pytest.mark.parametrize("name", ["Linear.weight", "Module.weight", "re:.*.weight", r"re:model\.layers\.0\..*|.weight"])
def test_a_tensor_whose_name_reads_as_a_class_or_a_pattern_is_refused(
    model: Path, tiny_recipe: Recipe, name: str
) -> None:
    refused(change(model, {name: torch.ones(2, 2)}), tiny_recipe, "in `ignore` as quantized modules")


def test_an_empty_tensor_outside_the_layers_is_carried(model: Path, tiny_recipe: Recipe) -> None:
    names = {"a.first": torch.zeros(0), "model.empty": torch.zeros(0, 3)}
    file = model / "model.safetensors"
    save_file(names | load_file(file), file)
    checkpoint = open_checkpoint(model)
    plan = make_plan(checkpoint, build(checkpoint), tiny_recipe)
    assert [info.name for shard in plan.other_tensors for info in shard][:2] == ["a.first", "model.empty"]


# -- configs that claim what is not there --------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("layers", [20_000, 10**12])
def test_claimed_layers_are_counted_before_the_model_is_built(
    model: Path, tiny_recipe: Recipe, layers: int, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", lambda *_, **__: pytest.fail("it was built"))
    claim = {"num_hidden_layers": layers}
    change(model, **({"text_config": claim} if nested else claim))
    checkpoint = open_checkpoint(model)
    with pytest.raises(QuantizeError, match=rf"num_hidden_layers {layers}, .* 2 layers: model.layers.2.\* is missing"):
        build(checkpoint)


@pytest.mark.parametrize("settings", [None, {}])
def test_a_config_that_says_nothing_of_quantization_is_not_quantized(model: Path, settings: object) -> None:
    assert build(open_checkpoint(change(model, quantization_config=settings))).prefix == "model.layers"


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("config.json", {"quantization_config": {"quant_method": "fp8"}}),
        ("config.json", {"compression_config": {"quant_method": "compressed-tensors"}}),
        ("config.json", {"text_config": {"quantization_config": {"quant_method": "gptq"}}}),
        ("hf_quant_config.json", {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}),
    ],
)
def test_a_quantized_input_is_refused(model: Path, tiny_recipe: Recipe, place: str, content: dict[str, Any]) -> None:
    if place == "config.json":
        change(model, **content)
    else:
        (model / place).write_text(json.dumps(content))
    refused(model, tiny_recipe, r"is already quantized \((fp8|compressed-tensors|gptq|modelopt)\): give the original")


def test_quantized_weights_without_a_config_are_refused_for_what_they_are(model: Path, tiny_recipe: Recipe) -> None:
    file = model / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors | {"model.layers.1.mlp.up_proj.qweight": torch.zeros(8, 96, dtype=torch.int32)}, file)
    refused(model, tiny_recipe, r"model.layers.1.mlp.up_proj is already quantized \(model.layers.1.mlp.up_proj.qweight")


@pytest.mark.parametrize("tier", ["aqlm-2x8g8", "fp8"])
@pytest.mark.parametrize(
    ("name", "covered"), [("model.layers.1.mlp.gate", "1.mlp.gate_proj"), ("proj", "0.self_attn.q_proj")]
)
def test_what_was_left_alone_may_not_except_more_for_transformers(
    model: Path, tiny_recipe: Recipe, tier: str, name: str, covered: str
) -> None:
    change(model, {f"{name}.weight": torch.ones(8, 8)})
    recipe = tiny_recipe.model_copy(update={"tier": tier, "ignore": ()})
    refused(model, recipe, rf"^{name} stays as it was, and transformers would read that name .* as .*{covered} too")
    assert name in ignored(model, tiny_recipe)  # compressed-tensors takes whole names


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tiers": {"model.layers.0.mlp.dwn_proj": "vq2"}}, "tiers names model.layers.0.mlp.dwn_proj, which fits no"),
        ({"tiers": {r"re:.*\.mpl\.": "vq2"}}, "tiers names re:.*, which fits no Linear"),
        (
            {"ignore": ("model.layers.0.mlp.dwn_proj",)},
            "ignore names .*0.mlp.dwn_proj, which the model does",
        ),
        ({"ignore": ("model.layers.0.mlp",)}, r"ignore names model.layers.0.mlp, which is no Linear: write 're:model"),
    ],
)
def test_a_line_of_the_recipe_that_means_nothing_is_named(
    model: Path, tiny_recipe: Recipe, settings: dict[str, Any], says: str
) -> None:
    refused(model, tiny_recipe.model_copy(update=settings), f"recipe w4a16: {says}")


def test_what_else_ignore_may_name(model: Path, tiny_recipe: Recipe) -> None:
    change(model, {"visual.proj.weight": torch.ones(8, 8)})
    names = ("lm_head", "visual", "model.norm", "model.layers.0.mlp.down_proj", r"re:.*nothing")
    assert "model.layers.0.mlp.down_proj" in ignored(model, tiny_recipe.model_copy(update={"ignore": names}))


@pytest.mark.parametrize("value", [None, 5, ["a.safetensors"], {}])
@pytest.mark.parametrize("every", [False, True])
def test_an_index_that_names_no_file_for_a_tensor_is_refused(
    tmp_path: Path, tiny_recipe: Recipe, value: object, every: bool
) -> None:
    model = save_tiny_llama(tmp_path / "model", shards=True)
    index = json.loads((model / INDEX_FILE).read_text())
    names = [*index["weight_map"]] if every else ["model.norm.weight"]
    (model / INDEX_FILE).write_text(json.dumps({"weight_map": index["weight_map"] | dict.fromkeys(names, value)}))
    refused(model, tiny_recipe, rf"it names {re.escape(json.dumps(value))}, which is no file of .*, for {names[0]}: ")


@pytest.mark.parametrize("value", ["", "x" * 300 + ".safetensors", "../a.safetensors", "a.bin"])
def test_an_index_that_names_what_cannot_be_a_file_of_its_folder_is_refused(tmp_path: Path, value: str) -> None:
    model = save_tiny_llama(tmp_path / "model", shards=True)
    (model / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": value}}))
    said = re.escape(value[:120]) or '""'
    with pytest.raises(
        QuantizeError, match=f"it names {said}, which is no file of its folder, for a: get a sound copy"
    ):
        open_checkpoint(model)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rope_theta": float("nan")}, "rope_theta NaN"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": float("nan")}}, "rope_parameters.rope_theta NaN"),
        ({"text_config": {"a": [1.0, float("nan")]}}, "text_config.a.1 NaN"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps Infinity"),
    ],
)
def test_what_is_no_number_in_the_config_is_named(
    model: Path, tiny_recipe: Recipe, settings: dict[str, Any], says: str
) -> None:
    refused(change(model, **settings), tiny_recipe, f"config.json says {says}, which is no number: correct it")


def test_a_limit_may_be_infinite() -> None:
    refuse_values({"time_step_limit": [0.0, float("inf")]})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quantization_config": []}, r"config.json says quantization_config \[\], which is no object: remove"),
        ({"auto_map": "x"}, "config.json says auto_map x, which is no object: remove"),
        (
            {"num_hidden_layers": 0},
            "config.json says num_hidden_layers 0, but .* holds tensors of 2 layers: correct it",
        ),
        ({"hidden_act": "nosuch"}, "KeyError: 'nosuch': correct its config.json, or get the complete model"),
        ({"model_type": "t5"}, "no model of model_type t5 that writes texts by a decoder alone .*: not supported"),
    ],
)
def test_what_no_model_can_be_built_by_is_named(
    model: Path, tiny_recipe: Recipe, settings: dict[str, Any], says: str
) -> None:
    refused(change(model, **settings), tiny_recipe, says)


def test_a_setting_that_makes_what_is_no_number_is_the_cause(model: Path, tiny_recipe: Recipe) -> None:
    settings = json.loads((model / "config.json").read_text())["rope_parameters"] | {"rope_theta": 0}
    refused(change(model, rope_parameters=settings), tiny_recipe, r"hands to model.layers.0 holds NaN: .*rope_theta")


@pytest.mark.parametrize("positions", [63, 64])
def test_texts_longer_than_the_positions_are_named(model: Path, tiny_recipe: Recipe, positions: int) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=257, hidden_size=64, word_embed_proj_dim=64, ffn_dim=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=positions,
    )  # fmt: skip
    opt: Any = OPTForCausalLM(config)
    opt.to(torch.bfloat16).save_pretrained(model)
    if positions == 64:  # as many as the texts have
        checkpoint = open_checkpoint(model)
        require_embeddings(build(checkpoint), torch.zeros(1, 64, dtype=torch.long))
        return
    refused(model, tiny_recipe, "has texts of 64 tokens, but the model has 63 positions: give the calibration a length")


def test_texts_longer_than_a_table_inside_the_layers_are_named(model: Path, tiny_recipe: Recipe) -> None:
    from transformers import GPTJConfig, GPTJForCausalLM

    config = GPTJConfig(
        vocab_size=257,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=63,
        rotary_dim=16,
        bos_token_id=256,
        eos_token_id=256,
    )
    gptj: Any = GPTJForCausalLM(config)
    gptj.to(torch.bfloat16).save_pretrained(model)
    with pytest.raises(
        QuantizeError, match=r"h\.0 cannot be run .* has 63 positions, and .* give the calibration a len"
    ):
        quantize(model, tiny_recipe, model.parent / "out", device="cpu")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"model_type": "nosuch"},
            r"does not know model_type nosuch, .* docs/architectures.md says what else it takes$",
        ),
        ({"model_type": "nosuch", "auto_map": {"AutoConfig": "own.Config"}}, r"needs its own code \(auto_map\)"),
        ({"model_type": None}, "names no model_type: get the complete model$"),
    ],
)
def test_a_model_that_transformers_does_not_know(
    model: Path, tiny_recipe: Recipe, settings: dict[str, Any], says: str
) -> None:
    refused(change(model, **settings), tiny_recipe, says)


def test_a_long_reason_ends_with_a_whole_word() -> None:
    said = one_line(ValueError("a reason\n" + "word " * 100))
    assert said.startswith("a reason word") and said.endswith("word …") and len(said) <= 201
    assert one_line(ValueError("x" * 300)) == "x" * 199 + " …"


# -- what was done is damaged ---------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model/model-00001-of-00003.safetensors", "hidden-00001.safetensors"])
@pytest.mark.parametrize("how", ["lost", "cut", "zeros"])
def test_a_damaged_work_folder_is_to_be_started_anew(model: Path, tiny_recipe: Recipe, file: str, how: str) -> None:
    out = model.parent / "out"

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("layer", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(model, tiny_recipe, out, progress=stop, device="cpu")
    damaged = out.with_name("out.partial") / file
    content = damaged.read_bytes()
    damaged.unlink()
    if how != "lost":
        damaged.write_bytes(content[:-99] + bytes(99 if how == "zeros" else 0))
    expected = rf"{re.escape(str(damaged))} .*: remove {re.escape(str(out))}.partial to start anew$"
    with pytest.raises(QuantizeError, match=expected):
        quantize(model, tiny_recipe, out, device="cpu")


@pytest.mark.parametrize("done", [-1, 3])
def test_more_layers_done_than_there_are(model: Path, tiny_recipe: Recipe, done: int) -> None:
    out = model.parent / "out"
    with pytest.raises(KeyboardInterrupt):
        quantize(model, tiny_recipe, out, progress=interrupt, device="cpu")
    state = out.with_name("out.partial") / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"layers_done": done}))
    with pytest.raises(QuantizeError, match=rf"says that {done} of 2 layers are done: remove .* to start anew"):
        quantize(model, tiny_recipe, out, device="cpu")


def interrupt(stage: str, done: int, total: int) -> None:
    """At the first layer."""
    if stage == "layer":
        raise KeyboardInterrupt


# -- weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["lm_head.weight", "model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "mtp.fc.weight"]
)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_not_finite_is_named_before_work_starts(
    model: Path, tiny_recipe: Recipe, name: str, value: float
) -> None:
    tensor = load_file(model / "model.safetensors").get(name, torch.ones(4, 4)).clone()
    tensor[1, 2] = value
    refused(change(model, {name: tensor}), tiny_recipe, rf"tensor {name} in .* holds NaN or infinity")


FLOATS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn,
    torch.complex64,
]  # fmt: skip


def stored(tmp_path: Path, tensor: torch.Tensor) -> TensorInfo:
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    return read_header(tmp_path / "x.safetensors")[0]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_bit_pattern_of_a_float_is_judged_as_torch_does(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantizers import soundness

    monkeypatch.setattr(soundness, "CHUNK_BYTES", 64)
    big = torch.finfo(dtype).max
    sound = torch.tensor([0.0, -0.0, 1.0, -1.0, big, -big, torch.finfo(dtype).tiny] * 9, dtype=torch.float64).to(dtype)
    assert is_finite(stored(tmp_path, sound))
    for value in [float("nan")] + [float("inf"), float("-inf")] * (dtype != torch.float8_e4m3fn):
        for place in (0, 31, 62):
            broken = sound.clone()
            broken[place] = torch.tensor(value).to(dtype)
            assert not is_finite(stored(tmp_path, broken)), (value, place)
    assert len(BITS) == len(FLOATS) + 1  # and F8_E8M0, which has neither sign nor zero


def test_integers_and_nothing_are_finite(tmp_path: Path) -> None:
    assert is_finite(stored(tmp_path, torch.full((9,), -1)))
    assert is_finite(stored(tmp_path, torch.zeros(0, 5)))


def test_foreign_shapes_are_named_before_work_starts(model: Path, tiny_recipe: Recipe) -> None:
    change(model, {"model.layers.1.mlp.down_proj.weight": torch.ones(64, 32)})
    refused(model, tiny_recipe, r"model.layers.1.mlp.down_proj.weight is \[64, 32\] but config.json asks for")


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_foreign_shapes_outside_the_layers_are_named_before_work_starts(
    model: Path, tiny_recipe: Recipe, name: str
) -> None:
    change(model, {name: torch.ones(3)})
    refused(model, tiny_recipe, rf"{name} is \[3\] but config.json asks for")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"intermediate_size": 72}, "gate_proj has 144 outputs"),
        (
            {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 4, "hidden_size": 64},
            "q_proj has 24 outputs",
        ),
    ],
)
def test_widths_that_no_kernel_takes_are_refused(
    tmp_path: Path, tiny_recipe: Recipe, settings: dict[str, Any], message: str
) -> None:
    ignore = {"ignore": ("lm_head", r"re:.*\.(down|o)_proj")}
    refused(save_tiny_llama(tmp_path / "model", **settings), tiny_recipe.model_copy(update=ignore), message)


def test_an_all_zero_row_is_no_error(model: Path, tiny_recipe: Recipe) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    weight = load_file(model / "model.safetensors")[name].clone()
    weight[5] = 0
    out = quantize(change(model, {name: weight}), tiny_recipe, model.parent / "out", device="cpu")
    checkpoint = open_checkpoint(out)
    assert all(is_finite(info) for info in checkpoint.tensors.values())


# -- architectures -------------------------------------------------------------------------------------------


def hybrids() -> dict[str, tuple[Any, str, str]]:
    """A small model of each family, its Conv1d and a Linear beside it."""
    from transformers import (
        FalconH1Config,
        FalconH1ForCausalLM,
        Lfm2Config,
        Lfm2ForCausalLM,
        Qwen3_5ForCausalLM,
        Qwen3_5TextConfig,
    )

    size: dict[str, Any] = {
        "vocab_size": 257, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    lfm2 = Lfm2Config(**size, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)
    falcon = FalconH1Config(**size, mamba_d_ssm=64, mamba_n_heads=32, mamba_d_head=2, mamba_d_state=16)
    qwen = Qwen3_5TextConfig(
        **size, head_dim=16, layer_types=["linear_attention", "full_attention"], linear_key_head_dim=16,
        linear_value_head_dim=16, linear_num_key_heads=2, linear_num_value_heads=16,
    )  # fmt: skip
    return {
        "lfm2": (Lfm2ForCausalLM(lfm2), "conv.conv", "conv.in_proj"),
        "falcon_h1": (FalconH1ForCausalLM(falcon), "mamba.conv1d", "mamba.in_proj"),
        "qwen3_5": (Qwen3_5ForCausalLM(qwen), "linear_attn.conv1d", "linear_attn.in_proj_qkv"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lfm2", "falcon_h1", "qwen3_5"])
def test_a_conv1d_is_no_expert(model: Path, tiny_recipe: Recipe, family: str) -> None:
    hybrid, conv, linear = hybrids()[family]
    hybrid.to(torch.bfloat16).save_pretrained(model)
    recipe = tiny_recipe.model_copy(
        update={"calibration": tiny_recipe.calibration.model_copy(update={"samples": 2, "length": 32})}
    )
    out = quantize(model, recipe, model.parent / "out", device="cpu")
    before, after = open_checkpoint(model).tensors, open_checkpoint(out).tensors
    name = f"model.layers.0.{conv}.weight"
    assert len(before[name].shape) == 3 and after[name].shape == before[name].shape
    assert f"model.layers.0.{linear}.weight_packed" in after


def test_a_layer_that_cannot_run_is_named(model: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    def fail(*_: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(LlamaMLP, "forward", fail)
    with pytest.raises(QuantizeError, match=r"^model.layers.0 cannot be run \(RuntimeError: no kernel for this\)"):
        quantize(model, tiny_recipe, model.parent / "out", device="cpu")
    assert not (model.parent / "out").exists()


def test_a_tokenizer_of_another_model_is_named(tmp_path: Path, tiny_recipe: Recipe) -> None:
    model = save_tiny_llama(tmp_path / "model", vocab_size=100, bos_token_id=1, eos_token_id=1)
    with pytest.raises(QuantizeError, match=r"has token \d+, but the model has 100 embeddings: the tokenizer, or the"):
        quantize(model, tiny_recipe, tmp_path / "out", device="cpu")
    assert not list(tmp_path.glob("out*"))


# -- a full disk ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["shard", "rename", "folder", "inner folder"])
def test_a_disk_that_fills_up_leaves_nothing_under_the_final_name(
    model: Path, tiny_recipe: Recipe, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = model.parent / "out"

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patches: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
        "shard": lambda patch: patch.setattr(os, "fsync", full),
        "rename": lambda patch: patch.setattr(os, "replace", full),
        "folder": lambda patch: patch.setattr(Path, "mkdir", full),
        "inner folder": lambda patch: patch.setattr(shutil, "disk_usage", full),
    }
    with monkeypatch.context() as patch:
        patches[where](patch)
        with pytest.raises(QuantizeError, match="No space left on device"):
            quantize(model, tiny_recipe, out, device="cpu")
    assert not out.exists()
    assert quantize(model, tiny_recipe, out, device="cpu") == out
    assert open_checkpoint(out).tensors
