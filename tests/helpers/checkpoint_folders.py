"""Checkpoints of a few numbers, as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def checkpoint(folder: Path, config: dict[str, Any] | None = None, **files: dict[str, Any]) -> Path:
    """A folder with config.json and one safetensors file for each keyword."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "llama"}), "utf-8")
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


DENSE = {
    "a.weight": np.zeros((8, 4), np.float16),
    "a.bias": np.zeros(8, np.float16),
    "scalar": np.zeros((), np.float16),
}
