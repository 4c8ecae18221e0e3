"""What a checkpoint calls the tensors of a model, which transformers renames while it loads them.

`language_model.model.layers.0.mlp.up_proj.weight` of a Gemma 3 becomes `model.language_model.layers.0.mlp.up_proj` in
transformers. Here modules are the ones that learn: each remembers the names of its tensors, and inside a decoder layer
modules are found under their stored names. Everything that people see, recipes and written checkpoints too, has stored
names, so that a server finds what it found in the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from quantizers.checkpoint import FUSED_EXPERTS, Checkpoint
from quantizers.errors import QuantizeError

_NOTE = "_quantgate_names"


@dataclass(frozen=True)
class Note:
    """What a module and its tensors are called."""

    own: str
    """Full name of the module in transformers."""
    stored: dict[str, tuple[str, ...]]
    """Names in the checkpoint by attribute: one, or those whose rows together are the tensor."""


def note_names(model: Any, checkpoint: Checkpoint) -> None:
    """Let the modules of `model` remember what their tensors are called in the checkpoint.

    transformers' own rules for loading are asked, with each stored name. What is stored nowhere is not remembered.

    Raises:
        QuantizeError: a tensor is stored twice, or in a form that has to be computed.
    """
    found = _by_own_name(model, checkpoint)
    ties: dict[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    for target, source in ties.items():
        if target not in found and source in found:
            found[target] = found[source]
    for path, module in model.named_modules():
        own = {key for tensors in (module._parameters, module._buffers) for key in tensors}
        names = {key: found[full] for key in own if (full := f"{path}.{key}" if path else key) in found}
        note(module, Note(path, names))


def note(module: nn.Module, found: Note) -> None:
    """Let one module remember its names."""
    module.__dict__[_NOTE] = found


def note_of(module: nn.Module) -> Note:
    """What `note_names` found; nothing for a module that is not of transformers."""
    found: Note = module.__dict__.get(_NOTE, Note("", {}))
    return found


def stored_module(module: nn.Module) -> str | None:
    """What a checkpoint calls a module: the name of its weight without the last part; None where it has none."""
    for names in [note_of(module).stored.get(key) for key in ("weight", "bias")]:
        if names and len(names) == 1 and "." in names[0]:
            return names[0].rpartition(".")[0]
    return None


def stored_prefix(layers: nn.ModuleList, path: str) -> str:
    """What stands before the number of a decoder layer in the names of its tensors, as in "model.layers".

    Raises:
        QuantizeError: the layers' tensors have not one such beginning.
    """
    names = [(str(i), n) for i, layer in enumerate(layers) for n in _names_in(layer)]
    if not names:
        return path
    number, first = names[0]
    parts = first.split(".")
    for cut in [place for place, part in enumerate(parts) if part == number]:
        prefix = ".".join(parts[:cut])
        if all(name.startswith(f"{prefix}.{own}.") for own, name in names):
            return prefix
    for number, name in names:
        if f".{number}." not in name:
            raise QuantizeError(f"{path}.{number} shares {name} with another layer: not supported")
    raise QuantizeError(f"the tensors of {path} have no common beginning ({first}): not supported")


def move_to_stored_names(layer: nn.Module, prefix: str) -> None:
    """Let the modules of a decoder layer be found under their stored names, and by the layer's code as before.

    Args:
        prefix: of the stored names, as in "model.layers.3".

    Raises:
        QuantizeError: something else is in the place of one.
    """
    for path, module in [*layer.named_modules()]:
        stored = stored_module(module)
        if path and stored is not None and stored != f"{prefix}.{path}" and stored.startswith(f"{prefix}."):
            move(layer, path, stored.removeprefix(f"{prefix}."))


def move(layer: nn.Module, path: str, stored: str) -> None:
    """Let the module at `path` be found at `stored`, and by the layer's code as before.

    Raises:
        QuantizeError: something else is there.
    """
    head, _, last = path.rpartition(".")
    parent = layer.get_submodule(head)
    if isinstance(parent, (nn.ModuleList, nn.Sequential, nn.ModuleDict)):
        raise QuantizeError(f"{path} is stored as {stored}, apart from the others of {head}: not supported")
    module = parent._modules.pop(last)
    parent.__dict__[last] = module  # no second registration: what is called by its own name is the same module
    place = layer
    *parts, name = stored.split(".")
    try:
        for part in parts:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        if name in place._modules:
            raise KeyError(name)
        place.add_module(name, module)
    except (KeyError, AttributeError):
        raise QuantizeError(f"{path} is stored as {stored}, where another module is: not supported") from None


def _names_in(layer: nn.Module) -> Iterator[str]:
    for module in layer.modules():
        for names in note_of(module).stored.values():
            yield from names


def _by_own_name(model: Any, checkpoint: Checkpoint) -> dict[str, tuple[str, ...]]:
    """Stored names by the full names that transformers has for tensors; those of experts are left out."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        Concatenate,
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    wanted, base = model.state_dict(), model.base_model_prefix
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    found: dict[str, dict[int, str]] = {}
    for name in sorted(checkpoint.tensors, key=dot_natural_key):
        own, pattern = rename_source_key(name, renamings, converters, base, wanted)
        if own not in wanted and name in wanted:  # a checkpoint with the names of the modules
            own, pattern = rename_source_key(name, [], [], base, wanted)
        if own not in wanted or (pattern is not None and own.rpartition(".")[2] in FUSED_EXPERTS):
            continue
        place = 0
        if pattern is not None:
            rule = by_pattern[pattern]
            joined = [type(step) is Concatenate and step.dim == 0 for step in rule.operations]
            if joined != [True]:
                steps = ", ".join(type(step).__name__ for step in rule.operations)
                raise QuantizeError(f"tensor {name} is stored in another form than {own} ({steps}): not supported")
            place = rule.source_patterns.index(pattern)
        if (before := found.setdefault(own, {}).setdefault(place, name)) != name:
            raise QuantizeError(f"tensors {before} and {name} are both {own}: keep one")
    return {own: tuple(name for _, name in sorted(parts.items())) for own, parts in found.items()}
