"""What a checkpoint holds by its safetensors headers: parameters, bytes by dtype, bits per weight, layers, draft head.

Headers are read once; no weight is loaded. `linear_bits` counts what a quantization config means to quantize: linear
layers of the language model's blocks with their scales, zero points, codebooks and indices, without embeddings,
lm_head, norms, routers, vision or audio towers, the draft head, and what the config excepts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.checkpoint.ignored import contradicted, excepted
from harness.checkpoint.layouts import Module, count, split_name
from harness.contract.text import quoted
from quantizers import drafts
from quantizers.checkpoint import (
    INDEX_FILE,
    LARGEST_HEADER,
    TensorInfo,
    quantization_settings,
    read_header,
    read_json_object,
)
from quantizers.errors import QuantizeError

INTEGERS = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"})
FLOAT8 = frozenset({"F8_E4M3", "F8_E5M2"})
# HQQ's codes may be stored as if they were floats.
FOREIGN_CODES = frozenset({"W_q"})
# Small projections stay as they are by custom, whether a config says so or not: one weight in a hundred is forgiven.
FORGIVEN = 0.01

_IN_BLOCK = re.compile(r"(?:^|\.)\d{1,6}(?:\.|$)")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,6})(?:\.|$)")
_TOWERS = ("visual", "vision", "audio", "image")
_ROUTERS = ("gate", "router", "shared_expert_gate")
_NOT_LINEAR = ("norm", "embed", "conv")


@dataclass(frozen=True)
class Weights:
    """What the headers say; the fields are those of `ModelFacts`."""

    parameters: int
    tensor_bytes: dict[str, int]
    block_parameters: int
    layers: int
    bias_parameters: int
    layout_known: bool
    linear_parameters: int
    linear_bits: float
    low_bit_share: float
    draft_bytes: dict[str, int]
    doubts: list[str]


def read_weights(model: Path, config: Mapping[str, Any]) -> Weights:
    """Count the weights of a checkpoint folder. What its index does not name is not counted: servers do not load it.

    Raises:
        QuantizeError: a safetensors file that is damaged or cannot be read.
    """
    files = sorted(model.glob("*.safetensors"))
    weight_map, doubts = _index(model)
    named = set(weight_map.values())
    headers = {file: read_header(file) for file in files}
    counted = [file for file in files if file.name in named] or files
    infos = [info for file in counted for info in headers[file]]
    quantization = quantization_settings(model, config)
    if weight_map:
        tables = (quantization or {}).get("tables")  # codebooks, which the config names and no index should
        doubts += _index_doubts(weight_map, infos, [file for file in files if file.name != tables])
    return count_weights(infos, config, quantization, doubts)


def _index(model: Path) -> tuple[dict[str, str], list[str]]:
    """{tensor: file} of the index, empty when there is none or it is unusable; and what is wrong with it."""
    path = model / INDEX_FILE
    if not path.is_file():
        return {}, []
    try:
        found = read_json_object(path).get("weight_map") if path.stat().st_size <= LARGEST_HEADER else None
    except (QuantizeError, OSError):
        found = None
    if not isinstance(found, dict) or not found or not all(isinstance(file, str) for file in found.values()):
        return {}, [f"{INDEX_FILE} has no usable weight_map: every .safetensors file is counted"]
    return found, []


def _index_doubts(weight_map: Mapping[str, str], infos: Sequence[TensorInfo], files: Sequence[Path]) -> list[str]:
    """Where the index and the files disagree. A loader trusts the index."""
    there, named = {file.name for file in files}, set(weight_map.values())
    gone = sorted(named - there)
    where = {info.name: info.file.name for info in infos}
    lost = [name for name, file in weight_map.items() if file in there and where.get(name) != file]
    unnamed = [info.name for info in infos if info.name not in weight_map]
    beside = [file for file in files if file.name not in named]
    found = []
    if gone:
        found.append(f"files that {INDEX_FILE} names and that are not there: {len(gone)} (first: {quoted(gone[0])})")
    if lost:
        found.append(f"tensors that are not where {INDEX_FILE} says: {len(lost)} (first: {quoted(lost[0])})")
    if unnamed:
        found.append(f"tensors that {INDEX_FILE} leaves out of its files: {len(unnamed)} (first: {quoted(unnamed[0])})")
    if beside and len(beside) < len(files):
        size = sum(file.stat().st_size for file in beside) / 1e9
        found.append(
            f".safetensors files that {INDEX_FILE} does not name: {len(beside)} ({size:.3f} GB; first: "
            f"{quoted(beside[0].name)}); servers do not load them, and they are not counted"
        )
    return found


def count_weights(
    infos: Sequence[TensorInfo],
    config: Mapping[str, Any],
    quantization: Mapping[str, Any] | None,
    doubts: Sequence[str] = (),
) -> Weights:
    """Count what tensors stand for; `doubts` are passed on before those found here.

    In a layout that is not known here nothing is said of bits or numbers of weights: what is counted of it is wrong.

    Args:
        config: config.json.
        quantization: what it, or a file beside it, says of the quantization.

    Raises:
        QuantizeError: a `weight_shape` cannot be read.
    """
    modules, twice = _modules(infos)
    strange = count(modules, quantization or {})
    depth = _depth(config)
    draft = [module for module in modules if _is_draft(module.name, depth)]
    drafted = {module.name for module in draft}
    main = [module for module in modules if module.name not in drafted]
    blocks = [module for module in main if _IN_BLOCK.search(module.name)]
    linear = [module for module in blocks if _is_linear(module)]
    unknown = _unknown(blocks)
    meant, unmet = _meant(linear, quantization)
    shared = sum(module.nbytes for module in main if module.payload is None)  # codebooks of several modules
    unspared = _draft_doubt(draft, quantization) if quantization and any(module.low for module in linear) else []
    if unknown:
        linear, meant, unmet, unspared = [], [], [], []
    denied = _denied(modules, quantization) if quantization else []
    every, weights = sum(m.weights for m in linear), sum(m.weights for m in meant)
    numbers = {match[1] for m in blocks if _is_text(m.name) and (match := _LAYER.search(m.name))}
    return Weights(
        parameters=sum(module.weights + module.others for module in modules),
        tensor_bytes=_bytes_by_dtype(infos),
        block_parameters=0 if unknown else sum(module.weights + module.others for module in blocks),
        layers=len(numbers),
        bias_parameters=sum(math.prod(m.parts["bias"].shape) for m in blocks if "bias" in m.parts),
        layout_known=not unknown,
        linear_parameters=weights,
        linear_bits=round(8 * (sum(m.nbytes for m in meant) + shared) / weights, 3) if weights else 0.0,
        low_bit_share=round(sum(m.weights for m in linear if m.low) / every, 4) if every else 0.0,
        draft_bytes=_bytes_by_dtype([info for module in draft for info in module.parts.values()]),
        doubts=[*doubts, *_layout_doubts(twice, strange, unknown), *denied, *unmet, *unspared],
    )


def _modules(infos: Iterable[TensorInfo]) -> tuple[list[Module], list[str]]:
    """Tensors by module, and the names that occur more than once (the first one counts)."""
    modules: dict[str, Module] = {}
    twice = []
    for info in infos:
        name, kind = split_name(info.name)
        parts = modules.setdefault(name, Module(name)).parts
        if kind in parts:
            twice.append(info.name)
        else:
            parts[kind] = info
    return list(modules.values()), twice


def _unknown(blocks: Iterable[Module]) -> list[TensorInfo]:
    """Tensors of the text blocks that look like codes of weights, in no layout known here."""
    found = []
    for module in blocks:
        text, whole = _is_text(module.name), module.payload is None
        if text and whole:
            found += [info for kind, info in module.parts.items() if _foreign(kind, info, module.is_companion(kind))]
        elif text and module.payload == "weight" and not module.low and module.parts["weight"].dtype in INTEGERS:
            found.append(module.parts["weight"])
    return found


def _foreign(kind: str, info: TensorInfo, companion: bool) -> bool:
    if kind in FOREIGN_CODES:
        return True
    # Stored masks and position tables are integers of many sides, too.
    table = kind == "bias" or any(word in kind for word in ("mask", "position", "index", "cache"))
    return info.dtype in INTEGERS | FLOAT8 and len(info.shape) > 1 and not companion and not table


def _denied(modules: Sequence[Module], quantization: Mapping[str, Any]) -> list[str]:
    """A doubt if the config says of modules that are stored quantized that they are not."""
    names, entry = contradicted([module.name for module in modules if module.low and _is_linear(module)], quantization)
    if not names:
        return []
    return [
        f"modules that are stored quantized though config.json excepts them: {len(names)} (first: {quoted(names[0])}, "
        f'by "{quoted(entry, 120)}"); servers will refuse them or read them as plain weights'
    ]


def _layout_doubts(twice: Sequence[str], strange: Sequence[str], unknown: Sequence[TensorInfo]) -> list[str]:
    found = []
    if twice:
        found.append(f"tensors that are there more than once: {len(twice)} (first: {quoted(twice[0])})")
    if strange:
        found.append(
            f"tensors of which it cannot be told how many weights they stand for: {len(strange)} (first: "
            f"{quoted(strange[0])}); they are counted by what they store"
        )
    if unknown:
        kind = "integer tensors" if unknown[0].dtype in INTEGERS else "tensors"
        found.append(
            f"{kind} in a layout that is not known here: {len(unknown)} (first: {quoted(unknown[0].name)}); bits "
            "per weight are not certain"
        )
    return found


def _depth(config: Mapping[str, Any]) -> int | None:
    """Number of decoder layers by the config; what comes after the last one is a draft head."""
    for place in (config.get("text_config"), config):
        depth = place.get("num_hidden_layers") if isinstance(place, Mapping) else None
        if isinstance(depth, int) and depth > 0:
            return depth
    return None


def _is_text(module: str) -> bool:
    return not any(word in module for word in (*_TOWERS, "encoder"))


def _is_draft(module: str, depth: int | None) -> bool:
    layer = _LAYER.search(module)
    later = layer is not None and depth is not None and int(layer[1]) >= depth and _is_text(module)
    return later or drafts.NAMED.search(module) is not None


def _is_linear(module: Module) -> bool:
    """A linear layer of the language model, or its experts. What is not quantized must also look like one."""
    kind, last = module.payload, module.name.rpartition(".")[2]
    if kind is None or any(word in module.name for word in _TOWERS):
        return False
    sides = len(module.parts[kind].shape)
    if module.low:
        return sides > 1
    named = last not in _ROUTERS and not any(word in last for word in _NOT_LINEAR)
    return named and (sides == 2 or (sides == 3 and "experts" in module.name))


def _meant(linear: list[Module], quantization: Mapping[str, Any] | None) -> tuple[list[Module], list[str]]:
    """The layers that the config means to quantize (all, when it excepts all), and a doubt if some of them are not."""
    if quantization is None:
        return linear, []
    spared = excepted([module.name for module in linear if not module.low], quantization)
    meant = [module for module in linear if module.low or module.name not in spared]
    plain = [module for module in meant if not module.low]
    share = sum(m.weights for m in plain) / max(1, sum(m.weights for m in meant))
    if share <= FORGIVEN or len(plain) == len(meant):  # none at all is a doubt of its own
        return meant or linear, []
    return meant, [
        f"linear layers that are not quantized though config.json does not except them: {len(plain)} "
        f"({100 * share:.1f} % of the weights that it means to quantize; first: {quoted(plain[0].name)})"
    ]


def _draft_doubt(draft: Sequence[Module], quantization: Mapping[str, Any]) -> list[str]:
    """A draft head is built like the rest of the model: kept in 16 bits, it loads only if the config excepts it."""
    plain = [module.name for module in draft if _is_linear(module) and not module.low]
    if not plain or any(module.low for module in draft):
        return []
    spared = excepted(plain, quantization)
    missing = [name for name in plain if name not in spared]
    if not missing:
        return []
    return [
        "the draft head is not quantized and config.json does not except it: servers will look for quantized weights "
        f"(first: {quoted(missing[0])})"
    ]


def _bytes_by_dtype(infos: Iterable[TensorInfo]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for info in infos:
        found[info.dtype] += info.nbytes
    return dict(found.most_common())
