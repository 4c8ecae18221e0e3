"""A tiny dense model is upcycled, and tiers, mixes and Hessians are compared on it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import CALIBRATION, save_tiny_llama

from benchmarks import upcycled_moe, upcycling
from harness.prove.upcycling import Shape, entering_of, upcycled
from quantizers.mixed.damage import read_damage
from quantizers.mixed.groups import family_of
from quantizers.recipe import Calibration

SMALL = {"LAYERS": (1,), "EXPERTS": 4, "WIDTH": 64, "STEPS": 3, "SEQUENCES": 2, "LENGTH": 24, "HELD": 4}


@pytest.fixture
def mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in SMALL.items():
        monkeypatch.setattr(upcycling, name, value)
    (tmp_path / "a.txt").write_text(CALIBRATION, "utf-8")
    rows = [json.dumps({"question": f"What is {n} times {n}?", "answer": n * n}) + "\n" for n in range(200)]
    (tmp_path / "b.jsonl").write_text("".join(rows), "utf-8")
    texts = [str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")]
    dense = save_tiny_llama(tmp_path / "dense")
    assert upcycling.main([str(dense), str(tmp_path / "moe"), "--texts", *texts]) == 0
    return tmp_path / "moe"


def test_a_mixture_begins_as_the_dense_model_and_its_experts_come_to_differ(mixture: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    record = json.loads((mixture / upcycling.RECORD).read_text())
    assert record["differences"]["1"] > 0.05 and record["loss"]["dense"] > 0
    (usage,) = record["usage"].values()
    assert sum(usage) == pytest.approx(2, abs=1e-3) and max(usage) > min(usage)
    dense: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.float32)
    rows = torch.randint(0, 256, (4, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fresh = upcycled(dense, entering_of(dense, rows, (1,)), Shape((1,), experts=4, width=64, active=2))
        assert torch.allclose(fresh(rows).logits, dense(rows).logits, atol=1e-3)
        trained: Any = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32)
        assert not torch.allclose(trained(rows).logits, dense(rows).logits, atol=1e-2)


@pytest.mark.long
def test_mixes_with_and_without_usage_are_judged_beside_uniform_tiers(
    mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upcycled_moe, "MIX", ("vq1", "vq2", "int4"))
    monkeypatch.setattr(upcycled_moe, "UNIFORM", ("vq1", "vq2"))
    monkeypatch.setattr(upcycled_moe, "CALIBRATION", Calibration(samples=12, length=32))
    out = tmp_path / "out.json"
    arguments = [str(mixture), "--texts", str(tmp_path / "a.txt"), "--positions", "60", "--bits", "1.75"]
    assert upcycled_moe.main([*arguments, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    results = record["results"]
    assert list(results) == ["vq1", "vq2", "mixed", "mixed-no-usage", "mixed-routed", "vq1-routed", "vq2-routed"]
    assert results["vq2"]["kl_mean"] < record["line"] < results["vq1"]["kl_mean"]
    middle = math.sqrt(results["vq1"]["kl_mean"] * results["vq2"]["kl_mean"])
    assert results["mixed"]["bits"] == pytest.approx(1.75, abs=0.06) and record["line"] == pytest.approx(
        middle, rel=0.2
    )
    assert results["vq2"]["kl_mean"] != results["vq2-routed"]["kl_mean"]
    assert sum(record["mixes"]["mixed"].values()) == pytest.approx(1, abs=2e-3)
    damage = read_damage(tmp_path / "out.work" / "damage.json")
    shares = {(g, t): sum(own) / len(own) for g, t, own in json.loads((tmp_path / "out.work/shares.json").read_text())}
    for family in {family_of(group.name) for group in damage.groups}:
        own = [group for group in damage.groups if family_of(group.name) == family]
        assert sum(shares[group.name, "vq1"] for group in own) == pytest.approx(1)
        moved = [g for g in upcycled_moe.without_usage(damage, shares).groups if family_of(g.name) == family]
        before, after = (sum(group.damage["vq1"]["en"] for group in groups) for groups in (own, moved))
        assert before == pytest.approx(after, rel=1e-3)
