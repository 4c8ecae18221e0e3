"""Defects of the weights: rounding that is too coarse, tensors that are mixed up, tokens that are lost."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import torch

from harness.checkpoint.tokenizer import load_tokenizer
from harness.contract.whole_files import write_whole
from harness.prove.editing import INDEX, edit_tensors, link_files, read_tensors, save_tensors, tensor_files
from harness.prove.entries import HARMLESS, Entry, NotApplicable, fails

GROUP = 64
LAYER = re.compile(r"\blayers\.(\d+)\.")
EMBEDDINGS = re.compile(r"\b(embed_tokens|lm_head)\.weight$")


def round_to_nearest(weight: torch.Tensor, bits: int, group: int = GROUP) -> torch.Tensor:
    """A weight [outputs, inputs] as symmetric integers of `bits`, one scale for `group` inputs of a row, and back.

    Where the inputs do not divide into groups, a row has one scale. 2 bits are -1, 0 and 1 times the scale.
    """
    codes, scales = encode(weight, bits, group)
    return decode(codes, scales, weight)


def encode(weight: torch.Tensor, bits: int, group: int = GROUP) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [outputs, groups, inputs of a group] and scales [outputs, groups, 1], in float32."""
    rows, columns = weight.shape
    groups = weight.float().view(rows, -1, group if columns % group == 0 else columns)
    scales = (groups.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).clamp_min(1e-12)
    return (groups / scales).round(), scales


def decode(codes: torch.Tensor, scales: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return (codes * scales).view(like.shape).to(like.dtype)


def is_linear(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor is the weight of a linear layer inside a block."""
    return tensor.ndim == 2 and name.endswith(".weight") and LAYER.search(name) is not None


def round_linears(source: Path, out: Path, bits: int) -> None:
    """All linear layers rounded to nearest, stored in 16 bits again so that every server loads them."""
    link_files(source, out)
    edit_tensors(out, lambda name, tensor: round_to_nearest(tensor, bits) if is_linear(name, tensor) else None)


def foreign_scales(source: Path, out: Path) -> None:
    """8-bit linears, of which one layer in the middle has the next layer's scales."""
    link_files(source, out)
    layer = _layers(out) // 2
    others = {
        LAYER.sub(f"layers.{layer}.", name): encode(tensor, 8)[1]
        for name, tensor in read_tensors(out, lambda name: f"layers.{layer + 1}." in name).items()
        if is_linear(name, tensor)
    }

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if not is_linear(name, tensor):
            return None
        codes, scales = encode(tensor, 8)
        return decode(codes, others.get(name, scales), tensor)

    edit_tensors(out, change)


def swap_layers(source: Path, out: Path) -> None:
    """Two neighbouring layers in the middle change places."""
    link_files(source, out)
    middle = _layers(out) // 2
    pair = {str(middle): str(middle + 1), str(middle + 1): str(middle)}
    held = read_tensors(out, lambda name: (found := LAYER.search(name)) is not None and found[1] in pair)

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if name not in held:
            return None
        return held[LAYER.sub(lambda found: f"layers.{pair[found[1]]}.", name)]

    edit_tensors(out, change)


def round_embeddings(source: Path, out: Path) -> None:
    """Embeddings, and the head where it is stored, at 4 bits with one scale a row."""
    link_files(source, out)

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        return round_to_nearest(tensor, 4, tensor.shape[-1]) if EMBEDDINGS.search(name) else None

    edit_tensors(out, change)


def never_end(source: Path, out: Path) -> None:
    """The token that ends an answer has a row of zeros in the matrix that the next token is chosen by."""
    link_files(source, out)
    token = getattr(load_tokenizer(source, source.name), "eos_token_id", None)
    names = [name for name in tensor_files(out) if EMBEDDINGS.search(name)]
    head = next((name for name in names if "lm_head" in name), names[0] if names else None)
    if token is None or head is None:
        raise NotApplicable("the model has no token that ends an answer")

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if name != head:
            return None
        lost = tensor.clone()
        lost[token] = 0
        return lost

    edit_tensors(out, change)


def save_again(source: Path, out: Path) -> None:
    """The very weights, saved in two files with an index."""
    link_files(source, out)
    tensors = read_tensors(out, lambda name: True)
    for file in [*out.glob("*.safetensors"), out / INDEX]:
        file.unlink(missing_ok=True)
    names = sorted(tensors)
    files = {f"model-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
    for file_name, part_names in files.items():
        save_tensors(out / file_name, {name: tensors[name] for name in part_names}, {"format": "pt"})
    where = ",\n".join(f'    "{name}": "{file}"' for file, held in files.items() for name in held)
    write_whole(out / INDEX, f'{{\n  "metadata": {{}},\n  "weight_map": {{\n{where}\n  }}\n}}\n')


def _layers(folder: Path) -> int:
    found = {int(match[1]) for name in tensor_files(folder) if (match := LAYER.search(name))}
    if len(found) < 3:
        raise NotApplicable("the model has fewer than three layers")
    return len(found)


CONTROL = Entry("int8", "weights", "linears at 8 bits, rounded to nearest", HARMLESS, partial(round_linears, bits=8))
"""Whose run every other one is compared in: the reference's answers in it are used again."""

ENTRIES = (
    CONTROL,
    Entry("saved-again", "weights", "the model loaded and saved in two files", HARMLESS, save_again),
    Entry(
        "rtn-2bit", "weights", "linears at 2 bits, rounded to nearest", fails("kl_mean"), partial(round_linears, bits=2)
    ),
    Entry(
        "rtn-3bit", "weights", "linears at 3 bits, rounded to nearest", fails("kl_mean"), partial(round_linears, bits=3)
    ),
    Entry("foreign-scales", "weights", "one layer has the scales of the next one", fails("kl_mean"), foreign_scales),
    Entry("layers-swapped", "weights", "two neighbouring layers changed places", fails("kl_mean"), swap_layers),
    Entry("embeddings-4bit", "weights", "embeddings at 4 bits, a scale a row", fails("kl_mean"), round_embeddings),
    Entry(
        "eos-lost", "weights", "the row of the token that ends an answer is zero", fails("truncated_rate"), never_end
    ),
    Entry("router-4bit", "weights", "router at 4 bits", fails("kl_mean"), needs="a mixture of experts"),
    Entry("shared-expert-2bit", "weights", "shared expert at 2 bits", fails("kl_mean"), needs="a mixture of experts"),
    Entry(
        "foreign-expert", "weights", "one expert has another's scales", fails("kl_mean"), needs="a mixture of experts"
    ),
    Entry("mtp-zeroed", "weights", "draft head of zeros", fails("acceptance"), needs="a draft head (MTP)"),
    Entry(
        "think-end-lost",
        "weights",
        "the end of thinking made unlikely",
        fails("unterminated_rate"),
        needs="a model that thinks",
    ),
    Entry(
        "japanese-lost",
        "weights",
        "no Japanese in the calibration",
        fails("accuracy"),
        needs="a model that answers in Japanese",
    ),
)
