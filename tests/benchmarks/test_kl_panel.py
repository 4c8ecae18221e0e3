"""The panel's figures against a plain computation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_llama import save_tiny_llama

from benchmarks.kl_panel import main


def test_the_figures_are_those_of_whole_distributions(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = save_tiny_llama(tmp_path / "model")
    other = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        other.model.layers[1].mlp.down_proj.weight.mul_(3.0)
    other.save_pretrained(tmp_path / "other")
    rows = [{"lang": "en", "ids": list(range(2, 40))}, {"lang": "ja", "ids": list(range(60, 20, -1))}]
    panel = tmp_path / "panel.jsonl"
    panel.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    out = tmp_path / "out.json"
    assert main([str(model), str(model), str(tmp_path / "other"), "--panel", str(panel), "--out", str(out)]) == 0
    results = json.loads(out.read_text("utf-8"))["results"]
    assert results["model"]["kl_mean"] == 0 and results["model"]["flips"] == 0
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    means, weights = {}, {}
    for row in rows:
        ids = torch.tensor([row["ids"][:-1]])
        with torch.no_grad():
            p, q = (m(ids).logits[0].double().softmax(-1) for m in (reference, other))
        means[row["lang"]] = float((p * (p / q).log()).sum(-1).mean())
        weights[row["lang"]] = ids.shape[1]
    found = results["other"]
    assert found["kl_mean_by_kind"] == pytest.approx(means, abs=2e-5)
    mean = sum(means[k] * weights[k] for k in means) / sum(weights.values())
    assert found["kl_mean"] == pytest.approx(mean, abs=2e-5) and found["positions"] == sum(weights.values())
