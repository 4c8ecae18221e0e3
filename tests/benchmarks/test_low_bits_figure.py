"""The figure of KL against bits: which points are one line, names that do not lie on each other, a file of its own."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.low_bits_figure import LINE, family, main, spread


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trellis-2bit", "trellis"),
        ("vq1.5", "vq"),
        ("vq-1.5bit-tuned", "vq-tuned"),
        ("int4-rotated", "int-rotated"),
        ("w4a16", "w4a16"),
        ("w4a16-fast", "w4a16-fast"),
        ("auto-round-ext-2bit", "auto-round-ext"),
        ("mixed-1.71", "mixed"),
        ("mixed", "mixed"),
    ],
)
def test_a_name_without_its_number(name: str, expected: str) -> None:
    assert family(name) == expected


def test_names_keep_their_order_and_a_line_between_them() -> None:
    places = spread([100.0, 98.0, 101.0, 300.0])
    assert places[1] < places[0] < places[2] < places[3] == 300
    assert places[0] - places[1] >= LINE - 0.1 and places[2] - places[0] >= LINE - 0.1


def test_the_figure_names_every_line(tmp_path: Path) -> None:
    files = {
        "ours": {"vq-2bit": (2.125, 0.3), "vq-3bit": (3.125, 0.07), "w4a16": (4.125, 0.06)},
        "theirs": {"gptqmodel-4bit": (4.156, 0.09), "auto-round-ext-2bit": (2.14, 0.9)},
    }
    for name, points in files.items():
        results = {key: {"bits": bits, "kl_mean": kl} for key, (bits, kl) in points.items()}
        (tmp_path / f"{name}.json").write_text(json.dumps({"results": results}), "utf-8")
    out = tmp_path / "figure.svg"
    assert main([str(tmp_path / "ours.json"), str(tmp_path / "theirs.json"), "--out", str(out)]) == 0
    text = out.read_text("utf-8")
    said = {element.text for element in ET.fromstring(text).iter() if element.text}
    assert said >= {"VQ", "int4 (w4a16)", "GPTQModel", "AutoRound, alg_ext", "bits per weight"}
    assert "prefers-color-scheme: dark" in text
