"""The real vLLM with the plugin of quantgate-kernels: codes are served as the bf16 that `dequantize` makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.checkpoint.models import resolve_model
from harness.prove.draft_model import make_model
from tests.e2e.conftest import quantgate
from tests.e2e.served_logprobs import Served, served
from tests.e2e.test_mixture import save_mixture

CALIBRATED = "tune: none\ncalibration: {samples: 4, length: 64}\n"
MIXTURE = """
name: mixed-experts
tier: vq2
tiers: {'re:.*\\.[qkv]_proj': int4-rotated, 're:.*\\.o_proj': int8, 're:.*experts\\.[01]\\..*': vq3,
        're:.*experts\\.2\\.(gate|up)_proj': vq1, 're:.*experts\\.3\\.down_proj': fp8,
        're:.*experts\\.4\\.(gate|up)_proj': int3, 're:.*experts\\.5\\.down_proj': aqlm-2x8g8}
ignore: ['re:.*experts\\.6\\..*']
"""
# The layer adds nothing to what goes through it, by its last projections, and those have no inputs to calibrate on.
DRAFTED = "ignore: ['re:.*(o|down)_proj']\n"

pytestmark = pytest.mark.e2e


def coded_and_plain(model: Path, name: str, recipe: str) -> list[Path]:
    """The model quantized, and that in bf16 again."""
    file, coded, plain = (model.parent / f"{name}{end}" for end in (".yaml", "", "-plain"))
    file.write_text(recipe + CALIBRATED)
    made = [quantgate("quantize", model, "--recipe", file, "--out", coded)]
    made.append(quantgate("dequantize", coded, "--out", plain))
    for result in made:
        assert result.returncode == 0, result.stderr[-1500:]
    return [coded, plain]


def method_of(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text())["quantization_config"]["quant_method"])


def require_equal(coded: Served | str, plain: Served | str) -> None:
    """To the last bit: it is the same weight in the same kernels."""
    assert isinstance(coded, Served), coded
    assert coded == plain


def test_experts_in_mixed_tiers_and_what_is_damaged(tmp_path: Path) -> None:
    coded, plain = coded_and_plain(save_mixture(tmp_path / "moe"), "mixed", MIXTURE)
    assert method_of(coded) == "quantgate"
    cut, newer = tmp_path / "cut", tmp_path / "newer"
    shard = sorted(file.name for file in coded.glob("model*.safetensors"))[0]
    for folder in (cut, newer):
        shutil.copytree(coded, folder)
    (cut / shard).write_bytes((coded / shard).read_bytes()[:-4])
    config = json.loads((newer / "config.json").read_text())
    config["quantization_config"]["format_version"] = 2
    (newer / "config.json").write_text(json.dumps(config))
    found = served((coded, {}), (plain, {}), (cut, {}), (newer, {}))
    require_equal(*found[:2])
    assert "is cut off" in str(found[2]) and "the checkpoint has format version 2, and this" in str(found[3])


def test_a_coded_model_with_a_draft_head_in_bf16_and_codes_of_aqlm(tmp_path: Path) -> None:
    tokenizer = resolve_model("demo", print)
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    model = make_model(tmp_path / "model", tokenizer, vocabulary, broken_head=False)
    drafts = {"speculative_config": {"method": "mtp", "num_speculative_tokens": 1}}
    drafted = coded_and_plain(model, "drafted", f"name: drafted\ntier: vq2\n{DRAFTED}")
    additive = coded_and_plain(model, "additive", f"name: additive\ntier: aqlm-2x8g8\n{DRAFTED}")
    assert method_of(additive[0]) == "aqlm"
    found = served(*((folder, drafts) for folder in drafted), *((folder, {}) for folder in additive))
    require_equal(*found[:2])
    require_equal(*found[2:])
