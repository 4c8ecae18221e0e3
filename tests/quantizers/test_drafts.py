"""The draft (MTP) head: carried byte for byte in its own dtype, in the index and in `ignore`, or missed by name."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import save_tiny_llama
from tiny_moe import DRAFT, edit, save_tiny_glm, save_tiny_moe

from quantizers.checkpoint import INDEX_FILE, open_checkpoint
from quantizers.drafts import require_drafts
from quantizers.errors import QuantizeError
from quantizers.modeling import build
from quantizers.pipeline import quantize
from quantizers.plan import make_plan
from quantizers.recipe import Recipe, load_recipe
from quantizers.sizing.parts import model_parts

ROUNDING = Recipe.model_validate({"name": "fp8-block", "tier": "fp8"})
"""Needs no calibration, so it is quick."""
Tensors = dict[str, torch.Tensor]


def draft_layer(prefix: str) -> Tensors:
    """A layer as DeepSeek-V3 and GLM-5 store it, with what no rounding brings back: subnormals, -0."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> torch.Tensor:
        values = torch.randn(shape, generator=generator)
        values.view(-1)[:4] = torch.tensor([-0.0, 1e-40, 1e-7, 3.14159265])
        return values.to(torch.bfloat16)

    linears = {
        "eh_proj": (64, 128),
        "shared_head.head": (257, 64),
        **{f"self_attn.{name}_proj": (32 if name in "kv" else 64, 64) for name in "qkvo"},
        **{f"mlp.{name}_proj": (96, 64) for name in ("gate", "up")},
        "mlp.down_proj": (64, 96),
    }
    norms = ("enorm", "hnorm", "shared_head.norm", "input_layernorm", "post_attention_layernorm")
    found = {f"{prefix}{name}.weight": random(*shape) for name, shape in linears.items()}
    found |= {f"{prefix}{name}.weight": random(64) for name in norms}
    found[f"{prefix}embed_tokens.weight"] = random(257, 64).to(torch.float16)
    return found | {f"{prefix}mlp.gate.e_score_correction_bias": random(8).to(torch.float32)}


def with_draft(folder: Path, draft: Tensors, **claims: Any) -> Path:
    """Put a draft head into a shard of its own, and what config.json says of it."""
    files = dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")
    if draft:
        save_file(draft, folder / "draft.safetensors")
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": files | dict.fromkeys(draft, "draft.safetensors")}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | claims))
    return folder


def save_tiny_qwen3(folder: Path) -> Path:
    """The tiny Llama's tokenizer with a Qwen3."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    save_tiny_llama(folder)
    config = Qwen3Config(
        vocab_size=257, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    model: Any = Qwen3ForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def raw(file: Path, name: str) -> bytes:
    """A tensor's bytes, by the safetensors format alone."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    return data[8 + length + begin : 8 + length + end]


def carried(model: Path, out: Path, draft: Tensors) -> None:
    """Every tensor of the head has its bytes and dtype, and the index says where."""
    where = json.loads((out / INDEX_FILE).read_text())["weight_map"]
    before, after = open_checkpoint(model).tensors, open_checkpoint(out).tensors
    for name in draft:
        assert (after[name].dtype, after[name].shape) == (before[name].dtype, before[name].shape), name
        assert raw(out / where[name], name) == raw(model / "draft.safetensors", name), name
    weights = sum(tensor.numel() for tensor in draft.values())
    assert f"| draft head (MTP) | as it was | {weights:,} | " in (out / "README.md").read_text()


@pytest.mark.parametrize("recipe", [ROUNDING, pytest.param(None, marks=pytest.mark.slow)], ids=["fp8", "int4"])
def test_a_layer_beyond_the_last_is_carried(tmp_path: Path, tiny_recipe: Recipe, recipe: Recipe | None) -> None:
    draft = draft_layer("model.layers.2.")
    model = with_draft(save_tiny_llama(tmp_path / "m"), draft, num_nextn_predict_layers=1)
    out = quantize(model, recipe or tiny_recipe, tmp_path / "out", device="cpu")
    carried(model, out, draft)
    config = json.loads((out / "config.json").read_text())
    settings = config["quantization_config"]
    assert config["num_nextn_predict_layers"] == 1
    assert set(settings.get("ignore", settings.get("modules_to_not_convert"))) == {
        "lm_head",
        r"re:model\.layers\.2\..*",
    }


def test_a_head_with_a_name_of_its_own_is_carried(tmp_path: Path) -> None:
    """As Qwen3-Next stores it; the model is tied."""
    draft = draft_layer("mtp.layers.0.") | {"mtp.fc.weight": torch.randn(64, 128).to(torch.bfloat16)}
    model = with_draft(save_tiny_qwen3(tmp_path / "m"), draft, mtp_num_hidden_layers=1)
    out = quantize(model, ROUNDING, tmp_path / "out", device="cpu")
    carried(model, out, draft)
    ignored = json.loads((out / "config.json").read_text())["quantization_config"]["modules_to_not_convert"]
    matrices = {name.removesuffix(".weight") for name, tensor in draft.items() if tensor.ndim == 2}
    assert set(ignored) == matrices | {"lm_head"} and "lm_head.weight" not in open_checkpoint(out).tensors


def plan_of(model: Path) -> None:
    checkpoint = open_checkpoint(model)
    make_plan(checkpoint, build(checkpoint), ROUNDING)


@pytest.mark.parametrize("key", ["num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers"])
def test_a_layer_that_the_config_claims_and_no_shard_has_is_named(tmp_path: Path, key: str) -> None:
    model = with_draft(save_tiny_llama(tmp_path / "m"), {}, **{key: 1})
    expected = (
        rf"says {key} 1, an MTP layer in no shard of .*: model.layers.2.\* and mtp.\* are missing: .* set {key} to 0"
    )
    with pytest.raises(QuantizeError, match=expected) as caught:
        quantize(model, ROUNDING, tmp_path / "out", device="cpu")
    assert "\n" not in str(caught.value) and not (tmp_path / "out.partial").exists()


def test_a_claim_in_text_config_counts_too(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(with_draft(save_tiny_llama(tmp_path / "m"), {}))
    config = {"num_nextn_predict_layers": 0, "text_config": {"num_nextn_predict_layers": 1}}
    with pytest.raises(QuantizeError, match=r"says num_nextn_predict_layers 1, an MTP layer in no shard"):
        require_drafts(replace(checkpoint, config=config), build(checkpoint))


def test_the_second_of_two_layers_is_missed(tmp_path: Path) -> None:
    model = with_draft(save_tiny_llama(tmp_path / "m"), draft_layer("model.layers.2."), num_nextn_predict_layers=2)
    with pytest.raises(QuantizeError, match=r"model.layers.3.\* and mtp.\* are missing: .* set num_.*_layers to 1"):
        plan_of(model)


@pytest.mark.parametrize("name", ["eh_proj", "enorm", "self_attn.q_proj", "mlp.down_proj", "post_attention_layernorm"])
def test_a_layer_that_lacks_a_tensor_is_named(tmp_path: Path, name: str) -> None:
    draft = draft_layer("model.layers.2.")
    del draft[f"model.layers.2.{name}.weight"]
    model = with_draft(save_tiny_llama(tmp_path / "m"), draft, num_nextn_predict_layers=1)
    with pytest.raises(QuantizeError, match=rf"tensor model.layers.2.{name}.weight of an MTP layer is missing"):
        plan_of(model)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    draft = draft_layer("model.layers.2.")
    draft["model.layers.2.mlp.up_proj.weight"] = draft["model.layers.2.mlp.up_proj.weight"][:48].clone()
    model = with_draft(save_tiny_llama(tmp_path / "m"), draft, num_nextn_predict_layers=1)
    expected = r"2.mlp.up_proj.weight of an MTP layer is \[48, 64\], and by the other layers it is \[96, 64\]: get the"
    with pytest.raises(QuantizeError, match=expected):
        plan_of(model)


@pytest.mark.parametrize(
    ("name", "shape", "asked"), [("eh_proj", (64, 64), r"\[64, 128\]"), ("enorm", (32,), r"\[64\]")]
)
def test_what_joins_the_layer_to_the_model_has_the_shape_of_its_states(
    tmp_path: Path, name: str, shape: tuple[int, ...], asked: str
) -> None:
    draft = draft_layer("model.layers.2.") | {f"model.layers.2.{name}.weight": torch.ones(shape)}
    model = with_draft(save_tiny_llama(tmp_path / "m"), draft, num_nextn_predict_layers=1)
    with pytest.raises(
        QuantizeError, match=rf"2.{name}.weight of an MTP layer is .*, and by config.json it is {asked}"
    ):
        plan_of(model)


def test_a_stray_tensor_of_a_head_is_no_layer(tmp_path: Path) -> None:
    model = with_draft(save_tiny_llama(tmp_path / "m"), {"mtp.x.weight": torch.ones(2, 2)}, num_nextn_predict_layers=1)
    with pytest.raises(QuantizeError, match=r"says num_nextn_predict_layers 1, an MTP layer in no shard"):
        plan_of(model)


@pytest.mark.parametrize("claim", ["1", [1], 1.0, True])
def test_a_claim_that_is_no_number_is_refused(tmp_path: Path, claim: object) -> None:
    model = with_draft(save_tiny_llama(tmp_path / "m"), {}, num_mtp_layers=claim)
    with pytest.raises(QuantizeError, match=r"config.json says num_mtp_layers .*, which is no number of layers"):
        plan_of(model)
    with pytest.raises(QuantizeError, match=r"which is no number of layers"):
        model_parts(model)


@pytest.mark.parametrize("claim", [0, None, -1])
def test_what_claims_no_layer_needs_none(tmp_path: Path, claim: object) -> None:
    plan_of(with_draft(save_tiny_llama(tmp_path / "m"), {}, num_nextn_predict_layers=claim))


@pytest.mark.parametrize("prefix", ["model.layers.2.", "mtp.layers.0."])
def test_what_is_not_finite_in_it_is_named(tmp_path: Path, prefix: str) -> None:
    draft = draft_layer(prefix)
    draft[f"{prefix}mlp.up_proj.weight"][95, 63] = float("nan")
    model = with_draft(save_tiny_llama(tmp_path / "m"), draft, num_nextn_predict_layers=1)
    with pytest.raises(QuantizeError, match=rf"tensor {prefix}mlp.up_proj.weight in .*draft.safetensors holds NaN"):
        quantize(model, ROUNDING, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out.partial").exists()


# -- a layer with experts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_glm(tmp_path_factory.mktemp("glm") / "glm-5")


def fuse(weights: Tensors) -> None:
    """The draft layer's experts in two tensors."""
    parts = {
        own: [weights.pop(f"{DRAFT}mlp.experts.{n}.{own}_proj.weight") for n in range(4)]
        for own in ("gate", "up", "down")
    }
    weights[f"{DRAFT}mlp.experts.gate_up_proj"] = torch.cat(
        [torch.stack(parts[own]) for own in ("gate", "up")], dim=1
    ).contiguous()
    weights[f"{DRAFT}mlp.experts.down_proj"] = torch.stack(parts["down"])


@pytest.mark.parametrize("fused", [False, True])
def test_a_whole_layer_with_experts_is_taken(glm: Path, tmp_path: Path, fused: bool) -> None:
    model = tmp_path / "m"
    shutil.copytree(glm, model)
    plan_of(edit(model, lambda weights, _: fuse(weights) if fused else None))


@pytest.mark.parametrize(
    ("gone", "named", "fused"),
    [
        (r"mlp\.experts\.", "mlp.experts.0.down_proj.weight", False),
        (r"mlp\.experts\.3\.", "mlp.experts.3.down_proj.weight", False),
        (r"mlp\.experts\.\d+\.up_proj", "mlp.experts.0.up_proj.weight", False),
        (r"mlp\.(?!gate\.)", "mlp.experts.0.down_proj.weight", False),
        (r"mlp\.", "mlp.down_proj.weight", False),
        (r"mlp\.gate\.weight", "mlp.gate.weight", False),
        (r"mlp\.gate\.e_score_correction_bias", "mlp.gate.e_score_correction_bias", False),
        (r"self_attn\.indexer\.k_norm\.bias", "self_attn.indexer.k_norm.bias", False),
        (r"mlp\.experts\.down_proj", "mlp.experts.0.down_proj.weight", True),
        (r"mlp\.experts\.gate_up_proj", "mlp.experts.0.gate_proj.weight", True),
    ],
)
def test_whatever_a_layer_with_experts_lacks_is_named(
    glm: Path, tmp_path: Path, gone: str, named: str, fused: bool
) -> None:
    model = tmp_path / "m"
    shutil.copytree(glm, model)

    def change(weights: Tensors, _: object) -> None:
        if fused:
            fuse(weights)
        for name in [name for name in weights if re.match(re.escape(DRAFT) + gone, name)]:
            del weights[name]

    with pytest.raises(QuantizeError, match=rf"tensor {re.escape(DRAFT + named)} of an MTP layer is missing"):
        plan_of(edit(model, change))


def test_a_dense_draft_of_a_mixture_is_taken(tmp_path: Path) -> None:
    """It is held against the dense layer."""

    def add(weights: Tensors, config: dict[str, Any]) -> None:
        for name in [name for name in weights if name.startswith("model.layers.0.")]:
            weights[name.replace("layers.0.", "layers.2.")] = weights[name].clone()
        for name, shape in (("eh_proj", (64, 128)), ("enorm", (64,)), ("hnorm", (64,))):
            weights[f"{DRAFT}{name}.weight"] = torch.ones(shape, dtype=torch.bfloat16)
        config["num_nextn_predict_layers"] = 1

    plan_of(edit(save_tiny_moe("deepseek_v3", tmp_path / "m"), add))


@pytest.mark.parametrize(
    ("name", "like", "says"),
    [
        (
            "experts.4.down_proj",
            "experts.0.down_proj",
            "experts.4.down_proj.weight of an MTP layer is stored, but its",
        ),
        ("experts.999999999.up_proj", "experts.0.up_proj", "experts.4.down_proj.weight of an MTP layer is missing"),
        ("gate", torch.zeros(3, 64), r"experts.3.down_proj.weight of an MTP layer is stored, but its router has 3"),
        ("gate", torch.zeros(10**9, 0), "experts.4.down_proj.weight of an MTP layer is missing"),
        (
            "shared_experts.up_proj",
            torch.zeros(64, 64, dtype=torch.int8),
            "up_proj.weight of an MTP layer is I8, not",
        ),
    ],
)
def test_what_is_odd_in_a_layer_with_experts_is_named(
    glm: Path, tmp_path: Path, name: str, like: str | torch.Tensor, says: str
) -> None:
    def change(weights: Tensors, config: dict[str, Any]) -> None:
        new = weights[f"{DRAFT}mlp.{like}.weight"].clone() if isinstance(like, str) else like
        weights[f"{DRAFT}mlp.{name}.weight"] = new
        config["num_nextn_predict_layers"] = 0  # what is there is looked at whatever config.json says

    model = tmp_path / "m"
    shutil.copytree(glm, model)
    with pytest.raises(QuantizeError, match=rf"tensor {re.escape(DRAFT)}mlp\..*{says}"):
        plan_of(edit(model, change))


Q_PROJ, UP_3 = "self_attn.q_proj.weight", "mlp.experts.3.up_proj.weight"


@pytest.mark.parametrize(
    ("begin", "name", "shape", "says"),
    [
        ("mtp.layers.0.", None, None, None),
        ("mtp.layers.0.", "self_attn.q_norm.weight", None, None),  # norms may be its own
        ("mtp.layers.0.", Q_PROJ, None, f"{Q_PROJ} of an MTP layer is missing"),
        ("model.mtp_layers.0.inside.", Q_PROJ, None, f"inside.{Q_PROJ} of an MTP layer is missing"),
        ("mtp.", Q_PROJ, None, f"tensor mtp.{Q_PROJ} of an MTP layer is missing"),
        ("mtp.layers.0.", "mlp.gate.weight", None, "mlp.gate.weight of an MTP layer is missing"),
        ("mtp.layers.0.", UP_3, (7, 64), rf"{UP_3} of an MTP layer is \[7, 64\], and by the first expert it is"),
    ],
)
def test_a_head_with_a_name_of_its_own_has_whole_modules(
    tmp_path: Path, begin: str, name: str | None, shape: tuple[int, ...] | None, says: str | None
) -> None:
    def add(weights: Tensors, config: dict[str, Any]) -> None:
        for own in [own for own in weights if own.startswith("model.layers.1.")]:
            weights[own.replace("model.layers.1.", begin)] = weights[own].clone()
        if name is not None:
            del weights[begin + name]
            weights |= {} if shape is None else {begin + name: torch.zeros(shape)}
        config["mtp_num_hidden_layers"] = 1

    model = edit(save_tiny_moe("qwen3_moe", tmp_path / "m"), add)
    if says is None:
        plan_of(model)
    else:
        with pytest.raises(QuantizeError, match=says):
            plan_of(model)


def test_states_that_a_head_reads_are_not_turned(tmp_path: Path) -> None:
    model = with_draft(save_tiny_qwen3(tmp_path / "m"), draft_layer("mtp.layers.0."), mtp_num_hidden_layers=1)
    with pytest.raises(QuantizeError, match=r"rotate: folded turns the states that mtp.layers.0.* use rotate: none"):
        quantize(model, load_recipe("w4a16-folded"), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("kept", ["gate", "gate and up"])
def test_experts_of_a_head_with_a_name_of_its_own_are_those_of_the_layers(tmp_path: Path, kept: str) -> None:
    def add(weights: Tensors, config: dict[str, Any]) -> None:
        for name in [name for name in weights if name.startswith("model.layers.1.")]:
            if ".experts." not in name or (kept != "gate" and ".down_proj." not in name):
                weights[name.replace("model.layers.1.", "mtp.layers.0.")] = weights[name].clone()
        config["mtp_num_hidden_layers"] = 1

    model = edit(save_tiny_moe("qwen3_moe", tmp_path / "m"), add)
    with pytest.raises(QuantizeError, match=r"tensor mtp.layers.0.mlp.experts.0.down_proj.weight of an MTP layer is"):
        plan_of(model)
