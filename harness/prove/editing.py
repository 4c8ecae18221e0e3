"""A checkpoint that is another one but for what is changed: files that stay are links."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from harness.contract.whole_files import read_json, write_whole
from harness.prove.entries import NotApplicable

INDEX = "model.safetensors.index.json"


def link_files(source: Path, out: Path) -> None:
    """A folder with a link to every file of a checkpoint. Writing a file anew, whole, replaces its link."""
    out.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file():
            (out / file.name).symlink_to(file.resolve())


def edit_json(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change one JSON file in place. Raises BadInput: it cannot be read; NotApplicable: nothing was changed."""
    data = read_json(folder / name) if (folder / name).exists() else {}
    before = json.dumps(data)
    change(data)
    if json.dumps(data) == before:
        raise NotApplicable(f"{name} is as it was")
    write_whole(folder / name, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def tensor_files(folder: Path) -> dict[str, Path]:
    """Where each tensor of a checkpoint lies."""
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            found |= dict.fromkeys(tensors.keys(), file)
    return found


def read_tensors(folder: Path, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """The tensors with a name that is wanted."""
    found = {}
    for name, file in tensor_files(folder).items():
        if wanted(name):
            with safe_open(file, framework="pt") as tensors:
                found[name] = tensors.get_tensor(name)
    return found


def edit_tensors(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor | None]) -> None:
    """Put `change(name, tensor)` in the place of every tensor for which it is not None, one file in memory at a time.

    Raises:
        NotApplicable: it changed none.
    """
    changed = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {"format": "pt"}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        new = {name: made for name, tensor in tensors.items() if (made := change(name, tensor)) is not None}
        if new:
            save_tensors(file, tensors | new, metadata)
        changed += len(new)
    if not changed:
        raise NotApplicable("the model has no such weights")


def save_tensors(file: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file in the place of a file or a link."""
    whole = file.with_name(f".{file.name}.new")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, whole, metadata=metadata)
    os.replace(whole, file)
