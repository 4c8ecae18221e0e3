"""A quantization that is killed without warning, again and again, ends in the very bytes of one that was not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_llama import folder_bytes

from quantizers.pipeline import quantize
from quantizers.recipe import Recipe

pytestmark = pytest.mark.slow  # quantizes whole models in processes of their own

RECIPE = {
    "name": "killed", "tier": "vq2", "tune": "fast", "two_sided": True, "calibration": {"samples": 8, "length": 32}
}  # fmt: skip

PROGRAM = """
import os, signal, sys
from pathlib import Path
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe

left = {STAGE!r}, {COUNT}
seen = [0]

def progress(stage, done, total):
    seen[0] += stage == left[0]
    if seen[0] == left[1]:
        os.kill(os.getpid(), signal.SIGKILL)

quantize(Path(sys.argv[1]), Recipe.model_validate({RECIPE!r}), Path(sys.argv[2]), device="cpu", progress=progress)
"""


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param((("columns", 3), ("tuning", 2)), id="two"),
        pytest.param((("gradients", 2), ("tuning", 1), ("copy", 1)), id="three more", marks=pytest.mark.soak),
    ],
)
def test_kills_in_any_stage_change_no_byte(
    tiny_model: Path, tmp_path: Path, kills: tuple[tuple[str, int], ...]
) -> None:
    expected = quantize(tiny_model, Recipe.model_validate(RECIPE), tmp_path / "whole", device="cpu")
    out = tmp_path / "out"
    for stage, count in kills:
        program = PROGRAM.replace("{STAGE!r}", repr(stage)).replace("{COUNT}", str(count))
        command = [sys.executable, "-c", program.replace("{RECIPE!r}", repr(RECIPE)), str(tiny_model), str(out)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == -9, f"{stage} {count}: {ended.stderr[-500:]}"
        assert not out.exists()
    quantize(tiny_model, Recipe.model_validate(RECIPE), out, device="cpu")
    assert folder_bytes(out) == folder_bytes(expected)
