"""A real model writes traces on a real server, and is calibrated on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.checkpoint.models import resolve_model
from quantizers.calibration import calibration_tokens, own_tokenizer
from quantizers.recipe import load_recipe
from tests.e2e.conftest import quantgate

pytestmark = [pytest.mark.e2e, pytest.mark.long]  # the model writes before it is quantized


def test_traces_of_the_demo_model_calibrate_it(few: Path, tmp_path: Path) -> None:
    out = tmp_path / "traces.jsonl"
    result = quantgate("traces", "demo", "--out", out, "--count", "4", "--policy", few, "--max-tokens", "512")
    assert result.returncode == 0, result.stderr
    header, *rows = map(json.loads, out.read_text("utf-8").splitlines())
    assert header["quantgate_traces"] == 1 and header["model"] == "demo" and header["kept"] == len(rows) > 0
    assert header["asked"] == header["kept"] + sum(header["dropped"].values())
    for row in rows:
        question, answer = row["messages"]
        assert row["text"].startswith("<|im_start|>") and row["text"].endswith("<|im_end|>")
        assert question["content"] in row["text"] and answer["content"] in row["text"]

    recipe = tmp_path / "traced.yaml"
    recipe.write_text("name: traced\ncalibration: {samples: 1, length: 64, sources: [traces.jsonl]}\n")
    model = resolve_model("demo")
    tokens = calibration_tokens(own_tokenizer(model), load_recipe(recipe).calibration)
    assert tokens.shape == (1, 64)
