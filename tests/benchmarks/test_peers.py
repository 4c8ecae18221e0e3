"""What is kept of another quantizer's checkpoint. The quantizers run by hand: each needs an environment of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_llama import save_tiny_llama
from transformers import AutoModelForCausalLM

from benchmarks import peers


def test_a_plain_checkpoint_has_the_tools_weights_and_the_rest_of_the_original(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "model")
    original = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).state_dict()
    peers.save_plain(model, tmp_path / "out", lambda name: original[f"{name}.weight"] / 2)
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).state_dict()
    halved = {name for name, weight in original.items() if torch.equal(kept[name], weight / 2) and weight.any()}
    assert halved == {name for name in original if "_proj" in name}
    assert all(torch.equal(kept[name], weight) for name, weight in original.items() if name not in halved)


def test_weights_that_the_tool_left_alone_are_no_result(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "model")
    original = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).state_dict()
    with pytest.raises(SystemExit, match="not quantized"):
        peers.save_plain(model, tmp_path / "out", lambda name: original[f"{name}.weight"])


def test_bits_and_versions_lie_beside_the_checkpoint_and_go_into_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tool(folder: Path, rows: peers.Rows, bits: int, out: Path, settings: peers.Settings) -> peers.Settings:
        assert (folder, rows, bits) == (tmp_path, [[1, 2, 3], [4, 5, 6]], 2)
        out.mkdir()
        return {"iters": 200} | settings

    monkeypatch.setitem(peers.TOOLS, "auto-round", tool)
    calibration, out, result = tmp_path / "c.jsonl", tmp_path / "auto-round-2bit", tmp_path / "result.json"
    calibration.write_text('{"ids": [1, 2, 3]}\n{"ids": [4, 5, 6]}\n', "utf-8")
    given = ["auto-round", str(tmp_path), "--calibration", str(calibration), "--bits", "2", "--set", "sym=false"]
    assert peers.main([*given, "--out", str(out)]) == 0
    result.write_text(json.dumps({"results": {out.name: {"kl_mean": 1.0}}}), "utf-8")
    assert peers.main(["record", str(result), str(out)]) == 0
    kept = json.loads(result.read_text("utf-8"))["results"][out.name]
    assert kept["kl_mean"] == 1.0
    assert kept["bits"] == 2.1406  # 2 + (16 + 2) / 128
    assert kept["settings"] == {"iters": 200, "sym": False}
    assert kept["versions"]["torch"] == torch.__version__
    assert (kept["calibration"]["rows"], kept["calibration"]["tokens"]) == (2, 3)
