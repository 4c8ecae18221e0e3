"""Files that a later run reads: what is not what was written is named, and never worked on with."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantizers.checked_files import CHECKSUM, read_checked, write_checked
from quantizers.errors import QuantizeError
from quantizers.mixed import waves
from quantizers.mixed.walk import Found

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, 2, dtype=torch.bfloat16).T, "none": torch.zeros(0, 4)}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_checked(tmp_path / "x.safetensors", TENSORS)
    found = read_checked(tmp_path / "x.safetensors")
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.arange(6.0).view(3, 2)},
        {"a": torch.zeros(2, 3)},
        {"a": torch.arange(6.0).view(2, 3).view(torch.int32)},
        {"c": torch.zeros(1)},
        {CHECKSUM: torch.zeros(2)},
        {CHECKSUM: torch.tensor(5)},
        None,
    ],
)
def test_anything_else_is_named(tmp_path: Path, other: dict[str, torch.Tensor] | None) -> None:
    file = tmp_path / "x.safetensors"
    write_checked(file, TENSORS)
    save_file({} if other is None else load_file(file) | other, file)
    expected = rf"^{re.escape(str(file))} is damaged .*: remove {re.escape(str(tmp_path))} to start anew$"
    with pytest.raises(QuantizeError, match=expected):
        read_checked(file)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"stop": 2, "base": None, "variants": []},
        {"stop": 2, "base": [], "variants": [["g", "vq2"]]},
        {"stop": 2, "base": [], "variants": [["g", "vq2", ["x"]]]},
        {"stop": 1, "base": [], "variants": []},
        {"stop": 9, "base": [], "variants": []},
        {"stop": None, "base": [], "variants": []},
    ],
)
def test_findings_that_are_none_are_named(tmp_path: Path, content: dict[str, Any]) -> None:
    """A wave that ends where it began would be read for ever."""
    file = tmp_path / "wave-00001.json"
    file.write_text(json.dumps(content))
    with pytest.raises(QuantizeError, match=r"wave-00001.json is damaged .*: remove .* to start anew$"):
        waves._read(file, Found([], {}), 1, 8)
