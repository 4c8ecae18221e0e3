"""Defects of a draft head (MTP): what it proposes is never taken, or it is not there."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import torch

from harness.contract.whole_files import read_json, write_whole
from harness.prove.editing import INDEX, edit_tensors, link_files, read_tensors, save_tensors, tensor_files
from harness.prove.entries import HARMLESS, Doses, Entry, NotApplicable, always, fails, fixed, unserved
from harness.prove.rounding import LAYER, rounded
from harness.prove.weights import is_embedding

NAMED = re.compile(r"(?:^|\.)(?:mtp|nextn)[a-z_]*\.")


def draft_names(folder: Path) -> set[str]:
    """Tensors of the draft head: those with a name of its own, and of layers beyond the last. Raises NotApplicable."""
    depth = read_json(folder / "config.json").get("num_hidden_layers")

    def is_draft(name: str) -> bool:
        layer = LAYER.search(name)
        beyond = isinstance(depth, int) and layer is not None and int(layer[1]) >= depth
        return beyond or NAMED.search(name) is not None

    found = {name for name in tensor_files(folder) if is_draft(name)}
    if not found:
        raise NotApplicable("it has no draft head (MTP)")
    return found


def fade(source: Path, out: Path, share: float, seed: int = 0) -> None:
    """The draft head's matrices lose this share of themselves to normal noise of their size; 1: zeros alone."""
    names = draft_names(source)
    link_files(source, out)
    chance = torch.Generator().manual_seed(seed)

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if name not in names or tensor.ndim < 2:
            return None
        if share == 1:
            return torch.zeros_like(tensor)
        whole = tensor.float()
        noise = torch.randn(whole.shape, generator=chance) * whole.square().mean().sqrt()
        return ((1 - share) * whole + share * noise).to(tensor.dtype)

    edit_tensors(out, change)


def leave_out(source: Path, out: Path) -> None:
    """The draft head lies in a file of its own, which the index does not name."""
    names = draft_names(source)
    link_files(source, out)
    tensors = read_tensors(out, lambda name: True)
    for file in [*out.glob("*.safetensors"), out / INDEX]:
        file.unlink(missing_ok=True)
    kept = {name: tensor for name, tensor in tensors.items() if name not in names}
    save_tensors(out / "model-00001-of-00001.safetensors", kept, {"format": "pt"})
    save_tensors(out / "draft.safetensors", {name: tensors[name] for name in names}, {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(sorted(kept), "model-00001-of-00001.safetensors")}
    write_whole(out / INDEX, json.dumps(index, indent=2) + "\n")


ENTRIES = (
    Entry(
        "drafts-int8",
        "drafts",
        "embeddings at 8 bits of a model with a draft head",
        HARMLESS,
        partial(rounded, bits=8, wanted=is_embedding, group=0),
        good="drafts",
        control=True,
    ),
    Entry(
        "mtp-zeroed",
        "drafts",
        "draft head of zeros",
        fails("acceptance"),
        doses=Doses(
            fade,
            fixed(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
            always(1),
            lambda share, _: "zeros" if share == 1 else f"{100 * share:g} % noise",
        ),
        good="drafts",
        seeded=True,
    ),
    Entry(
        "mtp-left-out",
        "drafts",
        "draft head left out of the index",
        unserved("weights were not initialized"),
        leave_out,
        good="drafts",
    ),
)
