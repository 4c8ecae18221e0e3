"""A mixture of experts through the whole product: its experts coded, and the codes served beside the original.

vLLM serves them by the plugin of quantgate-kernels; that this is what `dequantize` makes is for test_vq_served.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.served_experts import random_model
from harness.checkpoint.models import resolve_model
from harness.prove.draft_model import TOKENIZER_FILES
from harness.runs.folder import RunFolder
from tests.e2e.conftest import quantgate

RECIPE = """
name: coded-experts
tier: vq2
tiers: {'re:.*\\.self_attn\\.': int8}
tune: none
calibration: {samples: 4, length: 64}
"""
POLICY = """
name: mixture
serving: {max_model_len: 1024, dtype: float32, kv_cache_memory_gib: 1, enforce_eager: true, max_logprobs: 20}
sampling: {temperature: 0.0, max_tokens: 24}
suites:
  divergence: {trajectories: 8, max_tokens: 24, top_logprobs: 20}
noise_floor: {by: seed, items: 2}
checks:
  - {metric: kl_mean, on: divergence, max: 5}
"""

pytestmark = pytest.mark.e2e


def save_mixture(folder: Path) -> Path:
    """A random Qwen3-MoE of one layer with the demo's tokenizer."""
    demo = resolve_model("demo", print)
    settings = json.loads((demo / "config.json").read_text())
    size: dict[str, Any] = {
        "hidden_size": 128, "moe_intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 64, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True,
        "max_position_embeddings": 2048, "pad_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    own = {key: settings[key] for key in ("vocab_size", "bos_token_id", "eos_token_id")}
    random_model("Qwen3Moe", **size, **own).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (demo / name).exists():
            shutil.copy(demo / name, folder / name)
    return folder


def test_coded_experts_are_gated_as_they_are(tmp_path: Path) -> None:
    model, recipe, policy = save_mixture(tmp_path / "moe"), tmp_path / "coded.yaml", tmp_path / "mixture.yaml"
    recipe.write_text(RECIPE)
    policy.write_text(POLICY)
    coded, run = tmp_path / "coded", RunFolder(tmp_path / "run")
    made = quantgate("quantize", model, "--recipe", recipe, "--out", coded)
    assert made.returncode == 0, made
    assert "| down_proj of experts | vq2 |" in (coded / "README.md").read_text()
    result = quantgate("gate", coded, "--reference", model, "--policy", policy, "--out", run.path)
    assert result.returncode == 0, result.stdout + result.stderr
    facts = run.manifest().models
    assert (facts["candidate"].path, facts["reference"].path) == (str(coded), str(model))
    assert facts["candidate"].quantization == "quantgate" and (run.report_path / "model_card.md").exists()
    (check,) = run.verdict().checks
    assert check.estimate is not None and 0.01 < check.estimate < 5  # random weights, 2 bits
