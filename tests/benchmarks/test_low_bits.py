"""The benchmark of tiers on a tiny model: it judges what it made, and goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_llama import save_tiny_llama

from benchmarks.low_bits import main

pytestmark = pytest.mark.slow  # quantizes whole models


@pytest.mark.long
def test_tiers_are_made_judged_and_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny_llama(tmp_path / "model")
    generator = torch.Generator().manual_seed(0)
    for name, count in (("calibration", 8), ("panel", 3), ("other", 2)):
        rows = torch.randint(0, 256, (count, 32), generator=generator).tolist()
        lines = [json.dumps({"lang": "en", "ids": row}) + "\n" for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    out = tmp_path / "out.json"
    arguments = [str(model), "--calibration", str(tmp_path / "calibration.jsonl"), "--out", str(out)]
    arguments += ["--panel", str(tmp_path / "panel.jsonl"), str(tmp_path / "other.jsonl")]
    assert main([*arguments[:1], "plain=int4,tune=none,two_sided=false", "vq-2bit=vq2,tune=fast", *arguments[1:]]) == 0
    results = json.loads(out.read_text("utf-8"))["results"]
    assert results["plain"]["bits"] == pytest.approx(4.5, abs=0.1) and results["vq-2bit"]["bits"] < 3
    assert 0 < results["plain"]["kl_mean"] < results["vq-2bit"]["kl_mean"]
    assert [results[name]["recipe"]["tune"] for name in ("plain", "vq-2bit")] == ["none", "fast"]  # defaults may change
    assert results["plain"]["other_panels"][0]["positions"] == 62
    capsys.readouterr()
    assert main([*arguments[:1], "vq-2bit=vq2,tune=fast", *arguments[1:]]) == 0
    assert not capsys.readouterr().out
