"""The whole way on a tiny Llama: what is written, what is not touched, and interruptions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from quantgate_kernels.formats.pack_quantized import decode, unpack
from safetensors.torch import load_file, save_file
from tiny_llama import folder_bytes, save_tiny_llama

from quantizers.checkpoint import Checkpoint, open_checkpoint, read_tensor
from quantizers.curvature import HessianError
from quantizers.errors import QuantizeError
from quantizers.pipeline import batch_size, quantize
from quantizers.recipe import Recipe
from quantizers.schemes import int_groups

pytestmark = pytest.mark.slow  # quantizes whole models

PARTS = ("weight_packed", "weight_scale", "weight_shape")


class Interrupted(Exception):
    pass


def decoded(checkpoint: Checkpoint, linear: str) -> torch.Tensor:
    return decode({part: read_tensor(checkpoint.tensors[f"{linear}.{part}"]) for part in PARTS}, 4).to(torch.bfloat16)


def targets(folder: Path) -> set[str]:
    names = open_checkpoint(folder).tensors
    return {name.removesuffix(".weight_packed") for name in names if name.endswith(".weight_packed")}


def test_every_decoder_linear_is_quantized_and_close(tiny_model: Path, tiny_quantized: Path) -> None:
    before, after = open_checkpoint(tiny_model), open_checkpoint(tiny_quantized)
    expected = {n.removesuffix(".weight") for n in before.tensors if n.endswith("_proj.weight")}
    assert targets(tiny_quantized) == expected and len(expected) == 14
    for linear in expected:
        assert f"{linear}.weight" not in after.tensors and f"{linear}.weight_g_idx" not in after.tensors
        weight, new = read_tensor(before.tensors[f"{linear}.weight"]).float(), decoded(after, linear).float()
        # Weighted by their inputs some columns are clipped hard, so this is only a sanity bound.
        assert (new - weight).norm() < 0.25 * weight.norm()


def test_everything_else_is_the_same_bytes(tiny_model: Path, tiny_quantized: Path) -> None:
    before = {k: v for p in tiny_model.glob("*.safetensors") for k, v in load_file(p).items()}
    after = {k: v for p in tiny_quantized.glob("*.safetensors") for k, v in load_file(p).items()}
    kept = [name for name in before if not name.endswith("_proj.weight")]
    assert "lm_head.weight" in kept and "model.embed_tokens.weight" in kept and len(kept) == 7
    for name in kept:
        assert before[name].dtype == after[name].dtype
        assert torch.equal(before[name].view(torch.uint8), after[name].view(torch.uint8)), name
    assert len(after) == len(kept) + 3 * 14
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE"):
        assert (tiny_quantized / name).read_bytes() == (tiny_model / name).read_bytes()
    assert not (tiny_quantized / "lock").exists() and not tiny_quantized.with_name("out.partial").exists()


def test_transformers_loads_the_very_weights_of_decode(tiny_quantized: Path) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import CompressedTensorsConfig

    model: Any = AutoModelForCausalLM.from_pretrained(
        tiny_quantized,
        dtype=torch.bfloat16,
        quantization_config=CompressedTensorsConfig(run_compressed=False),
    )
    checkpoint = open_checkpoint(tiny_quantized)
    for linear in targets(tiny_quantized):
        assert torch.equal(model.get_submodule(linear).weight.data, decoded(checkpoint, linear)), linear
    with torch.no_grad():
        assert torch.isfinite(model(torch.arange(20)[None]).logits).all()


def test_config_and_card(tiny_model: Path, tiny_quantized: Path) -> None:
    before, after = (json.loads((f / "config.json").read_text()) for f in (tiny_model, tiny_quantized))
    settings = after.pop("quantization_config")
    assert after == before
    assert settings["ignore"] == ["lm_head"]
    assert settings["config_groups"]["group_0"]["weights"]["group_size"] == 32
    assert settings["config_groups"]["group_0"]["weights"]["actorder"] == "static"
    card = (tiny_quantized / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["base_model"] == str(tiny_model) and front["tags"][:2] == ["quantgate", "w4a16"]
    assert "14 linear layers" in card


def test_layers_see_what_earlier_quantized_layers_give(
    tiny_model: Path, tiny_recipe: Recipe, tiny_quantized: Path
) -> None:
    """Hessians, and so codes, must come from all that is quantized before: recompute those of layer 1's o_proj."""
    from transformers import AutoModelForCausalLM

    from quantizers.calibration import calibration_tokens, own_tokenizer
    from quantizers.curvature import Curvature
    from quantizers.schemes.int_groups import IntGroups

    checkpoint, original = open_checkpoint(tiny_quantized), open_checkpoint(tiny_model)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    before = ("model.layers.0.", *(f"model.layers.1.self_attn.{part}_proj" for part in "qkv"))
    for linear in targets(tiny_quantized):
        if linear.startswith(before):
            model.get_submodule(linear).weight.data.copy_(decoded(checkpoint, linear))
    seen: list[torch.Tensor] = []
    linear = "model.layers.1.self_attn.o_proj"
    model.get_submodule(linear).register_forward_pre_hook(lambda _, args: seen.append(args[0].reshape(-1, 64)))
    with torch.no_grad():
        model(calibration_tokens(own_tokenizer(tiny_model), tiny_recipe.calibration))
    rows = torch.cat(seen)
    weight = read_tensor(original.tensors[f"{linear}.weight"])
    parts = IntGroups(4, 32, tiny_recipe.damping_of("int4")).quantize(
        weight.float(), Curvature(2 * rows.T @ rows), lambda: None
    )
    stored = read_tensor(checkpoint.tensors[f"{linear}.weight_scale"])
    assert (stored == parts["scales"].to(torch.bfloat16)).float().mean() > 0.95
    ours = unpack(read_tensor(checkpoint.tensors[f"{linear}.weight_packed"]), 4)
    assert (ours == parts["codes"]).float().mean() > 0.95


@pytest.mark.parametrize("stop_at", [("inputs", 1), ("layer", 1), ("columns", 2), ("copy", 0)])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe, tiny_quantized: Path, stop_at: tuple[str, int]
) -> None:
    seen: list[tuple[str, int]] = []

    def stop(stage: str, done: int, total: int) -> None:
        # The second layer, unless it stops outside of layers.
        seen.append((stage, done))
        late = seen.count(("layer", 1)) > 0 or stage == "copy"
        if (stage, done) == stop_at and late:
            raise Interrupted

    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        quantize(tiny_model, tiny_recipe, out, progress=stop, device="cpu")
    assert not out.exists() and (tmp_path / "out.partial" / "state.json").exists()
    stages: list[tuple[str, int]] = []
    quantize(tiny_model, tiny_recipe, out, progress=lambda s, d, t: stages.append((s, d)), device="cpu")
    assert next(done for stage, done in stages if stage == "layer") >= 1  # it did not start anew
    assert folder_bytes(out) == folder_bytes(tiny_quantized)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_what_a_kill_after_publishing_leaves_is_no_trap(
    tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, recipe = tmp_path / "out", tiny_recipe.model_copy(update={"two_sided": True})
    with monkeypatch.context() as patch:
        patch.setattr("quantizers.work_folder.shutil.rmtree", lambda *_, **__: None)
        whole = folder_bytes(quantize(tiny_model, recipe, out, device="cpu"))
    assert (tmp_path / "out.partial").is_dir()
    out.rename(tmp_path / "elsewhere")
    assert folder_bytes(quantize(tiny_model, recipe, out, device="cpu")) == whole
    assert not (tmp_path / "out.partial").exists()


def test_progress_is_complete_and_ordered(tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe) -> None:
    calls: list[tuple[str, int, int]] = []
    quantize(tiny_model, tiny_recipe, tmp_path / "out", progress=lambda *a: calls.append(a), device="cpu")
    assert all(0 <= done <= total for _, done, total in calls)
    assert [c for c in calls if c[0] == "layer"] == [("layer", i, 2) for i in range(3)]
    assert {stage for stage, _, _ in calls} == {"load", "layer", "inputs", "columns", "outputs", "copy"}


def test_another_recipe_or_model_does_not_resume(tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("layer", 1):
            raise Interrupted

    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        quantize(tiny_model, tiny_recipe, out, progress=stop, device="cpu")
    other = tiny_recipe.model_copy(update={"damping": 0.02})
    with pytest.raises(QuantizeError, match=r"out.partial belongs to another recipe: remove it to start anew"):
        quantize(tiny_model, other, out, device="cpu")
    changed = tmp_path / "changed"
    shutil.copytree(tiny_model, changed)
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(QuantizeError, match="belongs to another model"):
        quantize(changed, tiny_recipe, out, device="cpu")


def test_existing_output_foreign_work_folder_and_full_disk(
    tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(QuantizeError, match="exists already"):
        quantize(tiny_model, tiny_recipe, tmp_path / "out", device="cpu")
    (tmp_path / "b.partial").mkdir()
    (tmp_path / "b.partial" / "precious").touch()
    with pytest.raises(QuantizeError, match="is not a work folder"):
        quantize(tiny_model, tiny_recipe, tmp_path / "b", device="cpu")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(QuantizeError, match="free space or choose another disk"):
        quantize(tiny_model, tiny_recipe, tmp_path / "c", device="cpu")
    assert not (tmp_path / "c").exists()


def test_two_processes_do_not_share_a_work_folder(tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe) -> None:
    def again(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("layer", 0):
            with pytest.raises(QuantizeError, match="another process works in"):
                quantize(tiny_model, tiny_recipe, tmp_path / "out", device="cpu")
            raise Interrupted

    with pytest.raises(Interrupted):
        quantize(tiny_model, tiny_recipe, tmp_path / "out", progress=again, device="cpu")


def test_ignored_layers_and_foreign_tensors_are_carried(tmp_path: Path, tiny_recipe: Recipe) -> None:
    """A draft (MTP) layer that transformers does not know, and Linears that the recipe leaves alone."""
    model = save_tiny_llama(tmp_path / "model")
    file = model / "model.safetensors"
    extra = {
        "model.layers.2.mtp.weird.weight": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "model.layers.2.mlp.up_proj.weight": torch.randn(4, 4),
        "draft.head.weight": torch.randn(4, 4),
        "draft.norm.weight": torch.ones(4),
    }
    save_file(load_file(file) | extra, file, metadata={"format": "pt"})
    recipe = tiny_recipe.model_copy(
        update={"ignore": ("lm_head", r"re:model\.layers\.0\..*", "model.layers.1.self_attn.o_proj")}
    )
    out = quantize(model, recipe, tmp_path / "out", device="cpu")
    ignore = json.loads((out / "config.json").read_text())["quantization_config"]["ignore"]
    layer0 = [n for n in ignore if n.startswith("model.layers.0.")]
    assert len(layer0) == 7 and "model.layers.1.self_attn.o_proj" in ignore and "lm_head" in ignore
    assert r"re:model\.layers\.2\..*" in ignore and "draft.head" in ignore and "draft.norm" not in ignore
    assert len(targets(out)) == 6
    written = {k: v for p in out.glob("*.safetensors") for k, v in load_file(p).items()}
    for name, tensor in extra.items():
        assert torch.equal(written[name].view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "already quantized"),
        ({"model_type": "no-such-model"}, "transformers cannot build"),
        ({"num_hidden_layers": 3}, r"model.layers.2\..* is missing"),
        ({"intermediate_size": 128}, r"tensor model.layers.0.mlp.\w+.weight is \[96, 64\]"),
        ({"hidden_size": "many"}, "transformers cannot build"),
    ],
)
def test_configs_that_do_not_fit(
    tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe, change: dict[str, object], message: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(QuantizeError, match=message) as caught:
        quantize(model, tiny_recipe, tmp_path / "out", device="cpu")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_nan_weights_odd_sizes_and_half_fused_layers(tmp_path: Path, tiny_recipe: Recipe) -> None:
    model = save_tiny_llama(tmp_path / "model")
    half = tiny_recipe.model_copy(update={"ignore": ("lm_head", r"re:.*\.k_proj")})
    with pytest.raises(QuantizeError, match=r"ignores model.layers.0.self_attn.k_proj but not all of q_proj, k_proj"):
        quantize(model, half, tmp_path / "out", device="cpu")
    nothing = tiny_recipe.model_copy(update={"ignore": ("re:.*",)})
    with pytest.raises(QuantizeError, match=r"no Linear .* is left"):
        quantize(model, nothing, tmp_path / "out", device="cpu")
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(QuantizeError, match=r"model.layers.1.mlp.up_proj.weight .* NaN"):
        quantize(model, tiny_recipe, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
    odd = save_tiny_llama(tmp_path / "odd", intermediate_size=80)
    with pytest.raises(QuantizeError, match=r"model.layers.0.mlp.down_proj has 80 inputs"):
        quantize(odd, tiny_recipe, tmp_path / "odd-out", device="cpu")


def test_tied_biased_and_float32_models(tmp_path: Path, tiny_recipe: Recipe) -> None:
    """Qwen2 has biases on q/k/v and another class; here it is float32, tied, and with one dead channel."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=257, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    folder = save_tiny_llama(tmp_path / "model")
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[5] = 0.0
        model.model.layers[1].mlp.up_proj.weight.zero_()
    model.save_pretrained(folder)
    out = quantize(folder, tiny_recipe, tmp_path / "out", device="cpu")
    checkpoint = open_checkpoint(out)
    assert "lm_head.weight" not in checkpoint.tensors and "model.layers.0.self_attn.q_proj.bias" in checkpoint.tensors
    assert checkpoint.tensors["model.embed_tokens.weight"].dtype == "F32"
    assert not decoded(checkpoint, "model.layers.1.mlp.up_proj").any()
    scales = [read_tensor(i) for n, i in checkpoint.tensors.items() if n.endswith("weight_scale")]
    assert all(bool((s > 0).all()) and bool(torch.isfinite(s).all()) for s in scales)


def test_a_hopeless_hessian_names_the_layer(
    tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise HessianError("the Hessian stays singular")

    monkeypatch.setattr(int_groups, "gptq", broken)
    with pytest.raises(
        QuantizeError, match=r"model.layers.0.self_attn.q_proj: the Hessian stays singular: raise damping"
    ):
        quantize(tiny_model, tiny_recipe, tmp_path / "out", device="cpu")


def test_batches_divide_the_samples() -> None:
    assert batch_size(48, 512) == 8
    assert batch_size(47, 512) == 1
    assert batch_size(4, 64) == 4
    assert batch_size(6, 8192) == 1
