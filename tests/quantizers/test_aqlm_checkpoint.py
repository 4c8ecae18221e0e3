"""AQLM checkpoints: what we write as a whole model, and the way back from ours and from anybody's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from quantgate_kernels.formats import aqlm
from safetensors.torch import load_file, save_file
from tiny_llama import save_tiny_llama

from harness.checkpoint.models import describe
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe

pytestmark = pytest.mark.slow  # quantizes a whole model


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= load_file(file)
    return found


def recipe(**settings: Any) -> Recipe:
    calibration = {"samples": 8, "length": 32}
    return Recipe.model_validate(
        {"name": "aqlm", "tier": "aqlm-2x8g8", "tune": "none", "calibration": calibration} | settings
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model in one additive tier, each layer tuned for a few steps."""
    return quantize(tiny_model, recipe(tune="fast"), tmp_path_factory.mktemp("aqlm") / "out", device="cpu")


def test_a_whole_model_is_an_aqlm_checkpoint_and_leads_back(ours: Path, tmp_path: Path) -> None:
    from transformers import AqlmConfig, AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(ours).quantization_config
    assert settings["quant_method"] == "aqlm"
    theirs = AqlmConfig.from_dict(settings)
    assert (theirs.num_codebooks, theirs.nbits_per_codebook, theirs.in_group_size) == (2, 8, 8)
    stored = tensors(ours)
    names = [name.removesuffix(".codes") for name in stored if name.endswith(".codes")]
    assert len(names) == 14
    model: Any = AutoModelForCausalLM.from_pretrained(dequantize(ours, tmp_path / "bf16"), dtype=torch.bfloat16)
    for name in names:
        linear, parts = model.get_submodule(name), {part: stored[f"{name}.{part}"] for part in aqlm.PARTS}
        assert parts["codes"].shape == (linear.out_features, linear.in_features // 8, 2)
        assert torch.equal(linear.weight.data, aqlm.decode(parts).bfloat16())
    facts = describe("aqlm", ours)
    size = sum(tensor.nbytes for name, tensor in stored.items() if name.rpartition(".")[2] in aqlm.PARTS)
    weights = sum(model.get_submodule(name).weight.numel() for name in names)
    assert facts.layout_known and facts.low_bit_share == 1.0 and facts.linear_parameters == weights
    assert facts.linear_bits == pytest.approx(8 * size / weights, abs=0.01)  # codebooks outweigh the tiny model's codes
    assert "transformers reads" in (ours / "README.md").read_text()


def test_beside_another_tier_it_is_a_tier_of_ours(tiny_model: Path, tmp_path: Path) -> None:
    settings = recipe(tiers={r"re:.*\.mlp\.": "vq2"})
    mixed = quantize(tiny_model, settings, tmp_path / "mixed", device="cpu")
    config = json.loads((mixed / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "quantgate" and config["tiers"]["aqlm-2x8g8"]["format"] == "aqlm"
    back, original = tensors(dequantize(mixed, tmp_path / "bf16")), tensors(tiny_model)
    assert back.keys() == original.keys()
    for name, tensor in original.items():
        assert float((back[name] - tensor).float().norm()) <= 0.7 * float(tensor.float().norm()), name


@pytest.mark.long
def test_two_kinds_of_it_need_no_tables(tiny_model: Path, tmp_path: Path) -> None:
    two = quantize(tiny_model, recipe(tiers={r"re:.*\.mlp\.": "aqlm-1x16g8"}), tmp_path / "two", device="cpu")
    assert tensors(dequantize(two, tmp_path / "bf16")).keys() == tensors(tiny_model).keys()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A 1x16g8 model as the AQLM project's converter writes it: fp16, codes that wrap, a bias, names of weights."""
    folder = save_tiny_llama(tmp_path / "foreign", attention_bias=True)
    held = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    generator = torch.Generator().manual_seed(3)
    kept = []
    for name in list(held):
        if "_proj.weight" not in name or "layers.1.mlp" in name:
            kept.append(name)
            continue
        rows, columns = held.pop(name).shape
        module = name.removesuffix(".weight")
        held[f"{module}.codes"] = torch.randint(
            -(1 << 15), 1 << 15, (rows, columns // 8, 1), generator=generator
        ).short()
        held[f"{module}.codebooks"] = torch.randn(1, 1 << 16, 1, 8, generator=generator).half()
        held[f"{module}.scales"] = torch.rand(rows, 1, 1, 1, generator=generator).half()
    save_file(held, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype", None)
    config |= {
        "torch_dtype": "float16",
        "quantization_config": {
            "quant_method": "aqlm", "nbits_per_codebook": 16, "num_codebooks": 1, "out_group_size": 1,
            "in_group_size": 8, "linear_weights_not_to_quantize": kept,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_foreign_checkpoint_leads_back(foreign: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    out = dequantize(foreign, tmp_path / "bf16")
    config, held, back = json.loads((out / "config.json").read_text()), tensors(foreign), tensors(out)
    assert config["dtype"] == "bfloat16" and "torch_dtype" not in config and "quantization_config" not in config
    name = "model.layers.0.self_attn.q_proj"
    codes, book = held[f"{name}.codes"], held[f"{name}.codebooks"].float()
    assert bool((codes < 0).any())
    for row, group in [(0, 0), (17, 3), (63, 7)]:
        code = int(codes[row, group, 0])
        wanted = book[0, code if code >= 0 else code + 65536, 0] * held[f"{name}.scales"].float()[row, 0, 0, 0]
        assert torch.equal(back[f"{name}.weight"][row, 8 * group : 8 * group + 8], wanted.bfloat16())
    for same in (f"{name}.bias", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"):
        assert torch.equal(back[same], held[same])
    model: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    assert torch.equal(model.get_submodule(name).weight.data, back[f"{name}.weight"])


def test_a_foreign_config_that_is_silent_means_what_transformers_takes(foreign: Path, tmp_path: Path) -> None:
    config = json.loads((foreign / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "aqlm"}
    (foreign / "config.json").write_text(json.dumps(config))
    assert "model.layers.0.mlp.up_proj.weight" in tensors(dequantize(foreign, tmp_path / "out"))


def test_codes_without_their_codebooks_are_refused(foreign: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj"
    held = tensors(foreign)
    for part in aqlm.PARTS:
        folder = tmp_path / f"without-{part}"
        shutil.copytree(foreign, folder)
        save_file({k: v for k, v in held.items() if k != f"{name}.{part}"}, folder / "model.safetensors")
        with pytest.raises(QuantizeError, match=f"{name}: its codes cannot be read: .*{part}"):
            dequantize(folder, tmp_path / f"out-{part}")
        assert not (tmp_path / f"out-{part}").exists()
    config = json.loads((foreign / "config.json").read_text())
    config["quantization_config"]["nbits_per_codebook"] = 8
    (foreign / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantizeError, match="not those that the config describes"):
        dequantize(foreign, tmp_path / "out")
    assert not (tmp_path / "out").exists()
