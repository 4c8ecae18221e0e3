"""How formats lay a weight out in tensors, and how many weights a module's tensors stand for.

A module's weight is stored as one *payload* (`weight`, `weight_packed`, `qweight`, `codes`, `blocks`) and its
*companions* (scales, zero points, codebooks, group indices): companions are bytes that carry no parameters of their
own. Shapes are believed before the config, since a config may say anything. Of all tensors only `weight_shape` is
read: 16 bytes a module.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from quantizers.checkpoint import TensorInfo, reading

PAYLOADS = ("weight_packed", "qweight", "codes", "blocks", "weight")
COMPANIONS = frozenset({
    "weight_shape", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_global_scale", "weight_scale_inv",
    "weight_scale_2", "input_scale", "input_global_scale", "input_zero_point", "output_scale", "k_scale", "v_scale",
    "q_scale", "kv_scale", "qzeros", "scales", "g_idx", "codebooks", "codebook", "scale", "scale_inv", "SCB",
    "weight_format", "biases",
})  # fmt: skip
BY_LENGTH = sorted([*PAYLOADS, *COMPANIONS, "bias"], key=len, reverse=True)
LOW_DTYPES = frozenset({"F8_E4M3", "F8_E5M2", "I8", "U8"})
WORDS = frozenset({"I32", "U32"})


@dataclass
class Module:
    """The tensors of one module, by the last part of their names; all are there before the first question."""

    name: str
    parts: dict[str, TensorInfo] = field(default_factory=dict)
    weights: int = 0
    """Weights that the payload stands for; `count` fills it in."""

    @cached_property
    def payload(self) -> str | None:
        """The kind of tensor that holds the weight."""
        return next((kind for kind in PAYLOADS if kind in self.parts), None)

    @property
    def low(self) -> bool:
        """Is the weight stored below 16 bits?"""
        kind = self.payload
        if kind != "weight":
            return kind is not None
        dtype = self.parts[kind].dtype
        return dtype in LOW_DTYPES or (dtype in WORDS and "scales" in self.parts)

    @property
    def others(self) -> int:
        """Parameters beside the payload's: biases, and whatever is no companion."""
        rest = (kind for kind in self.parts if kind != self.payload and not self.is_companion(kind))
        return sum(math.prod(self.parts[kind].shape) for kind in rest)

    @property
    def nbytes(self) -> int:
        """Bytes of the payload and its companions."""
        return sum(info.nbytes for kind, info in self.parts.items() if kind == self.payload or self.is_companion(kind))

    def is_companion(self, kind: str) -> bool:
        """Does this part belong to the payload? Without one only a shared codebook is: a norm may have a `scale`."""
        if self.payload is None:
            return "codebook" in kind or "codebook" in self.name.rpartition(".")[2]
        return kind in COMPANIONS or kind.startswith("weight.")


def split_name(name: str) -> tuple[str, str]:
    """(module, kind) of a tensor's name; `weight.absmax` is a kind, and fused experts have `_` before theirs."""
    before, dot, after = name.rpartition(".weight.")
    if dot:
        return before, f"weight.{after}"
    module, _, kind = name.rpartition(".")
    if module.endswith("experts") and kind not in COMPANIONS and kind not in PAYLOADS:
        ending = next((known for known in BY_LENGTH if kind.endswith(f"_{known}")), None)
        return (name.removesuffix(f"_{ending}"), ending) if ending else (name, "weight")
    return module, kind


def count(modules: Iterable[Module], quantization: Mapping[str, Any]) -> list[str]:
    """Fill in `weights` of every module; returns the tensors whose count could not be told.

    Those are counted by their stored elements. `quantization` is the quantization_config.

    Raises:
        QuantizeError: a `weight_shape` cannot be read.
    """
    modules = list(modules)
    shapes = _declared([module.parts["weight_shape"] for module in modules if "weight_shape" in module.parts])
    word_bits = _word_bits(quantization)
    strange = []
    for module in modules:
        kind = module.payload
        if kind is not None:
            tensor = module.parts[kind]
            module.weights = _logical(module, kind, quantization, word_bits, shapes.get(module.name))
            # No format needs less than 1/8 bit for a weight, or more than 8 bytes: such a count is damage or a lie.
            if not (module.weights <= 64 * tensor.nbytes and tensor.nbytes <= 8 * module.weights):
                strange.append(tensor.name)
                module.weights = math.prod(tensor.shape)
    return strange


def _declared(shapes: Iterable[TensorInfo]) -> dict[str, int]:
    """Weights of each module that has a `weight_shape`. A file is opened once: there may be 60,000 of them."""
    by_file: dict[Path, list[TensorInfo]] = defaultdict(list)
    for info in shapes:
        if info.dtype in ("I64", "I32") and 0 < math.prod(info.shape) <= 8:
            by_file[info.file].append(info)
    found = {}
    for file, infos in by_file.items():
        with reading(file), file.open("rb") as stream:
            for info in infos:
                stream.seek(info.start)
                data, width = stream.read(info.nbytes), 8 if info.dtype == "I64" else 4
                sides = [int.from_bytes(data[i : i + width], "little", signed=True) for i in range(0, len(data), width)]
                found[split_name(info.name)[0]] = math.prod(sides) if all(side > 0 for side in sides) else 0
    return found


def _logical(module: Module, kind: str, quantization: Mapping[str, Any], word_bits: int, declared: int | None) -> int:
    """Weights that a payload stands for; 0 when that cannot be told."""
    if kind == "weight_packed" and declared is not None:
        return declared
    if kind == "qweight":
        return _qweight(module.parts, word_bits)
    if kind == "codes":
        return _codes(module.parts, quantization)
    tensor = module.parts[kind]
    stored = math.prod(tensor.shape)
    if tensor.dtype in WORDS and module.low:
        if kind == "weight_packed" and word_bits:  # no weight lies across two words: ten of 3 bits in one
            return stored * (32 // word_bits)
        return stored * 32 // word_bits if word_bits else 0
    return stored * _per_byte(module, kind, quantization)


def _per_byte(module: Module, kind: str, quantization: Mapping[str, Any]) -> int:
    """Weights in one element of a payload that is not made of words."""
    if kind != "weight":  # 4-bit floats: NVFP4, MXFP4
        return 2
    if module.parts[kind].dtype != "U8" or not any(map(module.is_companion, module.parts)):
        return 1
    return 4 if quantization.get("quant_method") == "bitnet" else 2  # NVFP4 of ModelOpt and bitsandbytes hold two


def _qweight(parts: Mapping[str, TensorInfo], word_bits: int) -> int:
    """GPTQ packs inputs ([I * bits / 32, O], `g_idx` [I]), AWQ outputs ([I, O * bits / 32], `scales` [I / g, O])."""
    words, scales, indices = parts["qweight"], parts.get("scales"), parts.get("g_idx")
    stored = math.prod(words.shape)
    columns = words.shape[-1] if words.shape else 0
    if columns and scales is not None and scales.shape and scales.shape[-1] > columns:
        return stored // columns * scales.shape[-1]
    inputs = math.prod(indices.shape) if indices is not None else 0
    if inputs:
        return inputs * columns
    return stored * 32 // word_bits if word_bits else 0


def _our_codes(words: TensorInfo, quantization: Mapping[str, Any]) -> int:
    tiers, modules = quantization.get("tiers"), quantization.get("modules")
    named = modules.get(words.name.rpartition(".")[0]) if isinstance(modules, Mapping) else None
    name = named or quantization.get("default_tier")
    tier = tiers.get(name) if isinstance(tiers, Mapping) and isinstance(name, str) else None
    bits = tier.get("bits") if isinstance(tier, Mapping) else None  # of a weight, where each has a code of its own
    if isinstance(bits, int) and 1 <= bits <= 16:
        return math.prod(words.shape) * 32 // bits
    dimensions, entries = (tier.get("dimensions"), tier.get("entries")) if isinstance(tier, Mapping) else (None, None)
    if not isinstance(dimensions, int) or not isinstance(entries, int) or not 2 <= entries <= 1 << 16:
        return 0
    return math.prod(words.shape) * 32 // (entries.bit_length() - 1) * max(0, dimensions)


def _codes(parts: Mapping[str, TensorInfo], quantization: Mapping[str, Any]) -> int:
    """AQLM: codes [O / o, I / i, books], codebooks [books, 2^bits, o, i]; the config knows o, i of a shared book.

    Ours: words of codes; the config's tier says how many `bits` a weight has, or that a code of one of `entries` stands
    for `dimensions` weights.
    """
    codes, books = parts["codes"], parts.get("codebooks")
    if books is None and quantization.get("quant_method") == "quantgate":
        return _our_codes(codes, quantization)
    if len(codes.shape) < 2:
        return 0
    if books is not None and len(books.shape) == 4:
        group = books.shape[2] * books.shape[3]
    else:
        sides: list[Any] = [quantization.get(key, 1) for key in ("out_group_size", "in_group_size")]
        group = math.prod(side for side in sides if isinstance(side, int))
    return codes.shape[0] * codes.shape[1] * group


def _word_bits(quantization: Mapping[str, Any]) -> int:
    """Bits of a weight inside a 32-bit word by the config; 0 when it says nothing usable, or several things."""
    found = {quantization.get(key) for key in ("bits", "w_bit") if isinstance(quantization.get(key), int)}
    groups = quantization.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict) and isinstance(weights.get("num_bits"), int):
            found.add(weights["num_bits"])
    only = found.pop() if len(found) == 1 else 0
    return only if isinstance(only, int) and 1 <= only <= 16 else 0
