"""A codebook checkpoint: what is written, what it is said to be, and the way back to bf16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from quantgate_kernels.formats import vq
from safetensors.torch import load_file, save_file

from harness.checkpoint.models import describe
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe
from quantizers.schemes.base import TABLES_FILE

pytestmark = pytest.mark.slow  # quantizes a whole model


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model at 2 bits, each layer tuned for a few steps."""
    recipe = Recipe.model_validate(
        {"name": "vq", "tier": "vq2", "damping": 0.01, "tune": "fast", "calibration": {"samples": 8, "length": 32}}
    )
    return quantize(tiny_model, recipe, tmp_path_factory.mktemp("vq") / "out", device="cpu")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model-*.safetensors")):
        found |= load_file(file)
    return found


def test_the_way_back_holds_the_very_weights_of_the_codes(codes: Path, tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    stored, tables = tensors(codes), load_file(codes / TABLES_FILE)
    model: Any = AutoModelForCausalLM.from_pretrained(dequantize(codes, tmp_path / "bf16"), dtype=torch.bfloat16)
    names = [name.removesuffix(".codes") for name in stored if name.endswith(".codes")]
    assert len(names) == 14
    for name in names:
        parts = {key: stored[f"{name}.{key}"] for key in ("codes", "scales")}
        linear = model.get_submodule(name)
        weight = vq.decode(parts, tables["codebooks.vq2"], tables[f"signs.{linear.in_features}"])
        assert torch.equal(linear.weight.data, weight.to(torch.bfloat16))
    original: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    norm = "model.layers.0.input_layernorm.weight"
    assert not torch.equal(model.get_parameter(norm), original.get_parameter(norm)), "norms are tuned and stored"
    assert torch.equal(model.get_parameter("model.norm.weight"), original.get_parameter("model.norm.weight"))


def test_the_room_that_is_asked_for_is_what_is_written(
    codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings are copied, as large as they are."""
    result = sum(tensor.nbytes for tensor in tensors(dequantize(codes, tmp_path / "once")).values())
    free = result
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    assert dequantize(codes, tmp_path / "again").is_dir()
    free = result - 1
    with pytest.raises(QuantizeError, match=r"needs 0\.000\d+ GB but \S+ GB are free"):
        dequantize(codes, tmp_path / "full")
    assert not list(tmp_path.glob("full*"))


def test_a_folder_of_the_same_name_does_not_go_on_with_what_was_begun(
    codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("quantizers.dequantize.write_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            dequantize(codes, tmp_path / "out")
    other = tmp_path / "other" / codes.name
    shutil.copytree(codes, other)
    (other / "LICENSE").write_text("another")
    with pytest.raises(QuantizeError, match=r"out\.partial belongs to another dequantized model: remove it"):
        dequantize(other, tmp_path / "out")
    assert dequantize(codes, tmp_path / "out").is_dir()


def test_nothing_to_turn_back(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match="does not say that it is quantized: there is nothing to turn back"):
        dequantize(tiny_model, tmp_path / "out")


def test_it_is_described_by_what_it_holds(codes: Path) -> None:
    facts = describe("vq", codes)
    assert facts.quantization == "quantgate" and facts.layout_known and not facts.doubts
    assert facts.low_bit_share == 1.0
    stored = tensors(codes)
    weights = sum(16 * t.numel() for n, t in stored.items() if n.endswith(".codes"))  # 2 bits: 16 in a word
    held = sum(t.nbytes for n, t in stored.items() if n.endswith((".codes", ".scales")))
    assert facts.linear_parameters == weights and facts.linear_bits == pytest.approx(8 * held / weights, abs=0.01)
    assert "2 bits each" in (codes / "README.md").read_text()


def test_what_cannot_be_trusted_is_refused(codes: Path, tmp_path: Path) -> None:
    def changed(name: str, **settings: object) -> Path:
        folder = tmp_path / name
        shutil.copytree(codes, folder)
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] |= settings
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    with pytest.raises(QuantizeError, match="format version 2, and this quantgate-kernels reads 1"):
        dequantize(changed("newer", format_version=2), tmp_path / "out")
    with pytest.raises(QuantizeError, match="are no file of the folder"):
        dequantize(changed("outside", tables="../x.safetensors"), tmp_path / "out")
    broken: list[dict[str, Any]] = [{"tiers": []}, {"tiers": {"vq2": {}}}, {"default_tier": "vq9"}, {"tiers": None}]
    for place, settings in enumerate(broken):
        with pytest.raises(QuantizeError, match=r"config\.json does not describe"):
            dequantize(changed(f"tier{place}", **settings), tmp_path / "out")
    other = changed("table")
    tables = load_file(other / TABLES_FILE)
    tables["codebooks.vq2"][3, 1] += 1
    save_file(tables, other / TABLES_FILE)
    with pytest.raises(QuantizeError, match=r"codebooks\.vq2 is not the table whose sha256 config\.json has"):
        dequantize(other, tmp_path / "out")
    cut = changed("broken")
    shard = sorted(cut.glob("model-*.safetensors"))[0]
    held = load_file(shard)
    first = next(name for name in held if name.endswith(".scales"))
    save_file(held | {first: held[first][:, :-1].contiguous()}, shard)
    with pytest.raises(QuantizeError, match=rf"{first} is torch\.float16 \[\d+, \d+\], not torch\.float16"):
        dequantize(cut, tmp_path / "out")
    assert not (tmp_path / "out").exists()


HOSTILE: list[dict[str, Any]] = [
    {"format": "trellis", "bits": "2", "state_bits": 8, "table": "codebooks.vq2", "rotation": None},
    {"format": "trellis", "bits": 0, "state_bits": 8, "table": "codebooks.vq2", "rotation": None},
    {"format": "pack-quantized", "bits": [4], "rotation": None},
    {"format": "aqlm", "rotation": None, "num_codebooks": "many", "nbits_per_codebook": -1},
    {"format": "vq", "table": "codebooks.vq2", "codebook": {"sha256": "0"}, "rotation": None},
    {"format": "vq", "table": "signs.64", "rotation": {}},
    {"format": "from the future", "rotation": None},
    {"format": ["vq"], "rotation": None},
]


@pytest.mark.parametrize("tier", HOSTILE)
def test_whatever_a_config_says_of_its_codes_is_one_line(codes: Path, tmp_path: Path, tier: dict[str, Any]) -> None:
    folder = tmp_path / "made"
    shutil.copytree(codes, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= {"tiers": {"x": tier}, "default_tier": "x"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantizeError) as caught:
        dequantize(folder, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
