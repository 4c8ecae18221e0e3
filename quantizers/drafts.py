"""The draft (MTP) head of a model: layers beyond the last one, or under a name of their own, that are carried along."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from quantizers.checkpoint import CONFIG_FILE, Checkpoint, TensorInfo
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
FLOATS = ("F64", "F32", "F16", "BF16")
"""What a matrix of such a layer is stored in."""
EXPERT = re.compile(r"(.*\bexperts)\.(\d{1,9})\.(.+)")
"""The experts of a layer, the number of one, and a part of it."""
_NUMBER = re.compile(r"(?:^|\.)(\d{1,9})\.")
_ANY = re.compile(r"(.*\bexperts)\.\*\.(.+)")

Shape = tuple[int, ...]
Tensors = dict[str, TensorInfo]
"""Of one draft layer, by their names inside of it."""


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
            another shape than the decoder layers, or one that is no float, by name.
    """
    key, count = claimed_layers(checkpoint.config)
    prefix, depth = architecture.prefix, len(architecture.layers)
    layers = _stored_layers(architecture)
    shapes = _shapes(checkpoint, layers, prefix)
    beyond: dict[int, Tensors] = {}
    named: dict[str, Tensors] = {}
    layer = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.(.+)")
    for name, info in checkpoint.tensors.items():
        if (match := layer.match(name)) and int(match[1]) >= depth:
            beyond.setdefault(int(match[1]), {})[match[2]] = info
        elif head := NAMED.search(name):
            numbered = _NUMBER.search(name[head.end() :].partition("experts.")[0])
            end = head.end() + (numbered.end() if numbered else 0)
            named.setdefault(name[:end].rstrip("."), {})[name[end:]] = info
    for draft, own in {**{f"{prefix}.{number}": own for number, own in beyond.items()}, **named}.items():
        _require_floats(own, shapes)
        _require_whole_experts(checkpoint, draft, own, layers)
        _require_whole_modules(checkpoint, draft, own, layers, shapes)
    if count < 1:
        return
    stored = {number for number, own in beyond.items() if any(len(info.shape) > 1 for info in own.values())}
    if key == DRAFT_KEYS[0]:
        width = getattr(architecture.model.config.get_text_config(decoder=True), "hidden_size", None)
        for number in sorted(stored):
            _require_like_the_others(checkpoint, f"{prefix}.{number}", beyond[number], layers, shapes, width)
    missing = next(number for number in range(depth, depth + len(stored) + 1) if number not in stored)
    found = max(missing - depth, _named_layers(named, layers))
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


def _named_layers(named: Mapping[str, Tensors], layers: list[set[str]]) -> int:
    """How many layers a head with a name of its own has: those with a matrix that decoder layers have too."""
    ends = {_end(name) for layer in layers for name in layer}
    return sum(any(len(info.shape) > 1 and _end(info.name) in ends for info in own.values()) for own in named.values())


def _end(name: str) -> str:
    """The last two parts of a name."""
    return ".".join(name.split(".")[-2:])


def _require_floats(own: Tensors, shapes: Mapping[str, set[Shape]]) -> None:
    """Matrices that decoder layers have too are floats: servers multiply by them as they are."""
    for name, info in own.items():
        if len(info.shape) == 2 and _any_expert(name) in shapes and info.dtype not in FLOATS:
            raise QuantizeError(
                f"tensor {info.name} of an MTP layer is {info.dtype}, not a float matrix: give the original model"
            )


def _require_whole_experts(checkpoint: Checkpoint, draft: str, own: Tensors, layers: list[set[str]]) -> None:
    """No class of transformers asks for a draft layer's experts: they are held against those of the decoder layers,
    each other and their router."""
    parts = {(match[1], match[2]) for layer in layers for name in layer if (match := _ANY.match(name))}
    every = set.union(*layers) if layers else set()
    found: dict[str, dict[int, Tensors]] = {}
    for name, info in own.items():
        if expert := EXPERT.match(name):
            found.setdefault(expert[1], {}).setdefault(int(expert[2]), {})[expert[3]] = info
        elif _ends(name, "gate.weight"):
            found.setdefault(f"{name.removesuffix('gate.weight')}experts", {})
    for experts, numbers in found.items():
        like = {part for path, part in parts if _ends(experts, path)}
        routers = {f"{path.removesuffix('experts')}gate.weight" for path, _ in parts if _ends(experts, path)} & every
        router = own.get(f"{experts.removesuffix('experts')}gate.weight")
        if router is None and routers:
            raise _missing(checkpoint, f"{draft}.{experts.removesuffix('experts')}gate.weight")
        rows = router.shape[0] if router and len(router.shape) == 2 else 0
        wanted = sorted(like.union(*numbers.values()))
        for number in range(max([0, rows, *(n + 1 for n in numbers)]) if wanted else 0):
            there = numbers.get(number, {})
            for part in wanted:
                if part not in there:
                    raise _missing(checkpoint, f"{draft}.{experts}.{number}.{part}")
                if rows and number >= rows:
                    raise QuantizeError(
                        f"tensor {there[part].name} of an MTP layer is stored, but its router has {rows} experts: get "
                        "the complete model"
                    )
                if there[part].shape != (first := numbers[0][part]).shape:
                    raise _other_shape(there[part], first.shape, "the first expert")


def _require_whole_modules(
    checkpoint: Checkpoint, draft: str, own: Tensors, layers: list[set[str]], shapes: Mapping[str, set[Shape]]
) -> None:
    """A head may have norms and joints of its own, but what has most matrices of an attention or an MLP of the decoder
    layers has all of them."""
    kinds: dict[str, set[frozenset[str]]] = {}
    for layer in layers:
        matrices = [name for name in layer if any(len(shape) == 2 for shape in shapes.get(name, ()))]
        for path, names in _modules(matrices).items():
            kinds.setdefault(path, set()).add(frozenset(names))
    for module, have in _modules(own).items():
        for path, sets in kinds.items():
            if not _ends(module, path):
                continue
            kind = min(sorted(sets, key=sorted), key=lambda names: len(names ^ have))
            lacking = sorted(kind - have)
            if lacking and 2 * len(kind & have) > len(kind):
                raise _missing(checkpoint, f"{draft}.{module}.{lacking[0]}")


def _modules(names: Iterable[str]) -> dict[str, set[str]]:
    """What modules with several Linears hold, "q_proj.weight", by the module's name, "self_attn"; experts apart."""
    found: dict[str, set[str]] = {}
    for name in names:
        module, _, last = name.removesuffix(".weight").rpartition(".")
        if module and name.endswith(".weight") and not _ANY.match(_any_expert(name)):
            found.setdefault(module, set()).add(f"{last}.weight")
    return found


def _ends(name: str, path: str) -> bool:
    """Is `name` the module `path` of a layer, or that within something else?"""
    return name == path or name.endswith(f".{path}")


def _require_like_the_others(
    checkpoint: Checkpoint,
    draft: str,
    own: Tensors,
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
    for name, info in own.items():
        if name in joins and info.shape != joins[name]:
            raise _other_shape(info, joins[name], "config.json")
        others = shapes.get(_any_expert(name))
        if others and info.shape not in others:
            raise _other_shape(info, min(others), "the other layers")


def _other_shape(info: TensorInfo, shape: Shape, where: str) -> QuantizeError:
    found, wanted = list(info.shape), list(shape)
    return QuantizeError(
        f"tensor {info.name} of an MTP layer is {found}, and by {where} it is {wanted}: get the complete model"
    )


def _missing(checkpoint: Checkpoint, name: str) -> QuantizeError:
    return QuantizeError(f"tensor {name} of an MTP layer is missing in {checkpoint.folder}: get the complete model")
