"""Weights by part from config.json alone: counted like a model that is really built, and GLM-5's published figures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from model_configs import GLM_5, SMALL, small_config, write_config

from quantizers.errors import QuantizeError
from quantizers.sizing.parts import (
    ATTENTION,
    DENSE,
    DRAFT,
    EMBEDDINGS,
    EXPERTS,
    HEAD,
    ROUTER,
    SHARED,
    WRAPPER,
    model_parts,
)


@pytest.mark.parametrize("kind", SMALL)
def test_as_many_parameters_as_the_model_that_is_really_built(tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    found = model_parts(small_config(tmp_path / "model", kind))
    model: Any = AutoModelForCausalLM
    built = model.from_config(AutoConfig.from_pretrained(tmp_path / "model"))
    parameters = dict(built.named_parameters())
    assert found.parameters() == sum(tensor.numel() for tensor in parameters.values())
    experts = {name: t for name, t in parameters.items() if ".experts." in name}
    assert found.parameters(EXPERTS) == sum(tensor.numel() for tensor in experts.values())
    linears = {name for name, m in built.named_modules() if isinstance(m, torch.nn.Linear) and "layers" in name}
    assert {w.name for w in found.weights if w.linear and w.copies == 1} == linears


def test_experts_are_linears_of_their_own_also_where_their_tensors_are_turned(tmp_path: Path) -> None:
    for kind, width in (("qwen3_moe", 32), ("gpt_oss", 96)):
        experts = [w for w in model_parts(small_config(tmp_path / kind, kind)).weights if w.copies > 1]
        shapes = {w.name.rpartition(".")[2]: w.shape for w in experts}
        assert shapes == {"gate_proj": (width, 64), "up_proj": (width, 64), "down_proj": (64, width)}
        assert experts[0].names[3] == "model.layers.0.mlp.experts.3.gate_proj"


def test_glm_5_has_its_published_sizes(tmp_path: Path) -> None:
    found = model_parts(write_config(tmp_path / "glm", **GLM_5))
    assert found.parameters() == pytest.approx(743.9e9, rel=1e-3)
    assert found.parameters(EXPERTS) == 75 * 256 * 3 * 6144 * 2048
    assert found.parameters(SHARED) == 75 * 3 * 6144 * 2048
    assert found.parameters(DENSE) == 3 * 3 * 6144 * 12288
    assert found.parameters(EMBEDDINGS) == found.parameters(HEAD) == 154880 * 6144
    attention = 6144 * 2048 + 2048 * 64 * 256 + 6144 * 576 + 512 * 64 * 448 + 64 * 256 * 6144
    indexer = 2048 * 32 * 128 + 6144 * 128 + 6144 * 32
    assert found.parameters(ATTENTION) == 78 * (attention + indexer)
    assert 75 * 256 * 6144 < found.parameters(ROUTER) < 75 * 256 * 6144 + 78 * 4 * 6144
    layer = 257 * 3 * 6144 * 2048 + attention + indexer + 256 * 6144
    assert found.draft_layers == 1 and found.parameters(DRAFT) == pytest.approx(layer + 2 * 6144**2, rel=1e-4)


def test_a_wrapper_is_its_text_model_and_the_rest(tmp_path: Path) -> None:
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 257}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    found = model_parts(write_config(tmp_path / "gemma", model_type="gemma3", text_config=text, vision_config=vision))
    assert found.parameters(DENSE) == 2 * 3 * 64 * 96 and found.parameters(EMBEDDINGS) == 257 * 64
    assert found.parameters(WRAPPER) > 2 * 2 * 32 * 48
    assert all(weight.part != WRAPPER or "language" not in weight.name for weight in found.weights)


def test_the_file_does_as_well_as_its_folder_and_a_quantized_one_is_counted_as_its_original(tmp_path: Path) -> None:
    plain = small_config(tmp_path / "plain", "llama")
    quantized = small_config(tmp_path / "fp8", "llama", quantization_config={"quant_method": "fp8"})
    assert model_parts(plain / "config.json").weights == model_parts(quantized).weights
    assert model_parts(plain).quantized_by is None and model_parts(quantized).quantized_by == "fp8"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "a config without model_type"),
        ({"model_type": "nosuch"}, 'model_type "nosuch"'),
        ({"model_type": "nosuch", "auto_map": {"AutoConfig": "own.Config"}}, "needs its own code"),
        ({"model_type": "vit"}, "is no language model that transformers knows"),
        ({"model_type": "llama", "num_hidden_layers": 10**9}, "num_hidden_layers 1000000000"),
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers 1000000000"),
        ({"model_type": "llama", "hidden_size": "wide"}, "cannot build"),
        ({"model_type": "llama", "hidden_size": 10**30}, "cannot build"),
        ({"model_type": "llama", "num_hidden_layers": -1}, "not one stack of decoder layers"),
        ({"model_type": 7}, "cannot build"),
    ],
)
def test_what_cannot_be_planned_is_one_line(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(QuantizeError, match=says) as error:
        model_parts(write_config(tmp_path / "model", **settings))
    assert "\n" not in str(error.value)


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match=r"config\.json is missing"):
        model_parts(tmp_path)
