"""The draft (MTP) head of a model: layers beyond the last one, or under a name of their own, that are carried along."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from quantizers.checkpoint import CONFIG_FILE, Checkpoint
from quantizers.errors import QuantizeError
from quantizers.names import note_of

if TYPE_CHECKING:
    from quantizers.modeling import Architecture

DRAFT_KEYS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
"""How config.json says how many layers the head has."""
NAMED = re.compile(r"(?:^|\.)(?:mtp|nextn)[a-z_]{0,20}(?:\.|$)")
"""In the name of a tensor of a head that has a name of its own, as in "mtp.layers.0.mlp.up_proj.weight"."""

NUMBERED = ("eh_proj.weight", "enorm.weight", "hnorm.weight")
"""What servers read of a draft layer beyond the last (DeepSeek-V3, GLM-5) beside a decoder layer's tensors."""
EXPERT = re.compile(r"(.*\bexperts)\.(\d{1,9})\.(.+)")
"""The experts of a layer, the number of one, and a part of it."""
_NUMBER = re.compile(r"(?:^|\.)(\d{1,9})\.")
_ANY = re.compile(r"(.*\bexperts)\.\*\.(.+)")

Shape = tuple[int, ...]


def claimed_layers(config: Mapping[str, Any]) -> tuple[str, int]:
    """The key by which config.json or its text_config says how many draft layers there are, and how many (0: none).

    Raises:
        QuantizeError: what it says is no number.
    """
    places = (config, config.get("text_config"))
    claims = [(key, place[key]) for place in places if isinstance(place, dict) for key in DRAFT_KEYS if key in place]
    for key, count in claims:
        if count is not None and type(count) is not int:
            said = " ".join(repr(count).split())[:40]
            raise QuantizeError(f"config.json says {key} {said}, which is no number of layers: correct {CONFIG_FILE}")
    key, count = max(((k, n) for k, n in claims if n is not None), key=lambda claim: claim[1], default=("", 0))
    return key, max(0, count)


def require_drafts(checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Hold what config.json says of a draft head against the files, and the head against the decoder layers.

    Raises:
        QuantizeError: a draft layer that it claims is in no shard, or one that is there lacks a tensor, or has one of
            another shape than the decoder layers.
    """
    key, count = claimed_layers(checkpoint.config)
    prefix, depth = architecture.prefix, len(architecture.layers)
    layers = _stored_layers(architecture)
    beyond: dict[int, dict[str, Shape]] = {}
    layer = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.(.+)")
    for name, info in checkpoint.tensors.items():
        if (match := layer.match(name)) and int(match[1]) >= depth:
            beyond.setdefault(int(match[1]), {})[match[2]] = info.shape
    _require_whole_experts(checkpoint, layers, [f"{prefix}.{number}." for number in beyond])
    if count < 1:
        return
    stored = {number for number, own in beyond.items() if any(len(shape) > 1 for shape in own.values())}
    if key == DRAFT_KEYS[0]:
        width = getattr(architecture.model.config.get_text_config(decoder=True), "hidden_size", None)
        shapes = _shapes(checkpoint, layers, prefix)
        for number in sorted(stored):
            _require_like_the_others(checkpoint, f"{prefix}.{number}", beyond[number], layers, shapes, width)
    missing = next(number for number in range(depth, depth + len(stored) + 1) if number not in stored)
    found = max(missing - depth, _named_layers(checkpoint, layers))
    if found < count:
        raise QuantizeError(
            f"config.json says {key} {count}, an MTP layer in no shard of {checkpoint.folder}: {prefix}.{missing}.* "
            f"and mtp.* are missing: get the complete model, or, if it is meant to have none, set {key} to "
            f"{found} in {CONFIG_FILE}"
        )


def _stored_layers(architecture: Architecture) -> list[set[str]]:
    """What transformers reads of each decoder layer: names inside of it, without the numbers of experts."""
    found = []
    for index, layer in enumerate(architecture.layers):
        names = (name for module in layer.modules() for own in note_of(module).stored.values() for name in own)
        found.append({_any_expert(name.removeprefix(f"{architecture.prefix}.{index}.")) for name in names})
    return found


def _any_expert(name: str) -> str:
    """A tensor's name for all experts alike: "mlp.experts.*.up_proj.weight"."""
    return f"{match[1]}.*.{match[3]}" if (match := EXPERT.match(name)) else name


def _shapes(checkpoint: Checkpoint, layers: list[set[str]], prefix: str) -> dict[str, set[Shape]]:
    """In which shapes the decoder layers have a tensor, by its name inside of them."""
    found: dict[str, set[Shape]] = {}
    for name, info in checkpoint.tensors.items():
        number, _, own = name.removeprefix(f"{prefix}.").partition(".")
        if name.startswith(f"{prefix}.") and number.isdecimal() and int(number) < len(layers):
            found.setdefault(_any_expert(own), set()).add(info.shape)
    return found


def _named_layers(checkpoint: Checkpoint, layers: list[set[str]]) -> int:
    """How many layers a head with a name of its own has: those with a matrix that decoder layers have too."""
    ends = {".".join(name.split(".")[-2:]) for layer in layers for name in layer}
    found = set()
    for name, info in checkpoint.tensors.items():
        if (head := NAMED.search(name)) and len(info.shape) > 1 and ".".join(name.split(".")[-2:]) in ends:
            number = _NUMBER.search(_any_expert(name[head.end() :]))
            found.add(number[1] if number else "")
    return len(found)


def _require_whole_experts(checkpoint: Checkpoint, layers: list[set[str]], drafts: list[str]) -> None:
    """No class of transformers asks for a draft layer's experts: they are held against those of the decoder layers,
    each other and their router. `drafts` is how the names of draft layers begin."""
    parts = {(match[1], match[2]) for layer in layers for name in layer if (match := _ANY.match(name))}
    begins = tuple(drafts)
    found: dict[str, dict[int, set[str]]] = {}
    for name in checkpoint.tensors:
        if not (name.startswith(begins) or NAMED.search(name)):
            continue
        if expert := EXPERT.match(name):
            found.setdefault(expert[1], {}).setdefault(int(expert[2]), set()).add(expert[3])
        elif name.endswith(".gate.weight"):
            found.setdefault(f"{name.removesuffix('.gate.weight')}.experts", {})
    for experts, numbers in found.items():
        like = {part for own, part in parts if experts.endswith(f".{own}")}
        router = checkpoint.tensors.get(f"{experts.rpartition('.')[0]}.gate.weight")
        count = max([0, *(n + 1 for n in numbers), router.shape[0] if router and len(router.shape) == 2 else 0])
        for number, part in product(range(count), sorted(like.union(*numbers.values()))):
            if part not in numbers.get(number, ()):
                raise _missing(checkpoint, f"{experts}.{number}.{part}")


def _require_like_the_others(
    checkpoint: Checkpoint,
    draft: str,
    own: Mapping[str, Shape],
    layers: Iterable[set[str]],
    shapes: Mapping[str, set[Shape]],
    width: int | None,
) -> None:
    """A draft layer beyond the last, called `draft`, is a decoder layer of the kind that it is nearest to by its names,
    in one of the shapes that those have, with `NUMBERED` beside it, which join two states of `width`."""
    have = {_any_expert(name) for name in own}
    kind = min(reversed([*layers]), key=lambda layer: len(layer ^ have))
    for name in sorted({*kind, *NUMBERED} - have):
        raise _missing(checkpoint, f"{draft}.{name.replace('.*.', '.0.')}")
    joins = {"eh_proj.weight": (width, 2 * width), "enorm.weight": (width,), "hnorm.weight": (width,)} if width else {}
    for name, shape in own.items():
        if name in joins and shape != joins[name]:
            raise QuantizeError(
                f"tensor {draft}.{name} of an MTP layer is {list(shape)}, and config.json asks for "
                f"{list(joins[name])}: get the complete model"
            )
        others = shapes.get(_any_expert(name))
        if others and shape not in others:
            raise QuantizeError(
                f"tensor {draft}.{name} of an MTP layer is {list(shape)}, and in the other layers "
                f"{list(min(others))}: get the complete model"
            )


def _missing(checkpoint: Checkpoint, name: str) -> QuantizeError:
    return QuantizeError(f"tensor {name} of an MTP layer is missing in {checkpoint.folder}: get the complete model")
