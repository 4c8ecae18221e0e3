"""What will happen to every tensor of a model, decided from its headers before any weight is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from quantizers.checkpoint import Checkpoint, TensorInfo
from quantizers.drafts import require_drafts
from quantizers.errors import QuantizeError
from quantizers.folding import untied
from quantizers.mixtures import require_one_format
from quantizers.modeling import Architecture, linear_names, stored_modules
from quantizers.names import note_of
from quantizers.quantization_config import misread, stock_config
from quantizers.recipe import Recipe
from quantizers.schemes import TIERS, Scheme

# vLLM runs these as one matrix, so a scheme for one part is a scheme for all.
FUSED = (
    ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("q_a_proj", "kv_a_proj_with_mqa"), ("w1", "w3"),
    ("in_proj_qkv", "in_proj_z"), ("in_proj_b", "in_proj_a"),
)  # fmt: skip
LARGEST_SHARD = 4 << 30


@dataclass(frozen=True)
class Plan:
    """Targets, their schemes, the ignore list and the content of every shard."""

    targets: list[list[str]]
    """Full names of the Linears to quantize, by decoder layer."""
    schemes: dict[str, Scheme]
    """Of each target by its full name."""
    ignore: list[str]
    """For config.json: every Linear of the checkpoint that stays as it is."""
    layer_tensors: list[list[TensorInfo]]
    """Stored tensors by decoder layer; layer i becomes shard i."""
    other_tensors: list[list[TensorInfo]]
    """Stored tensors outside the decoder layers, by shard."""
    calibrated: bool
    """Does any scheme ask for activations? Where all are data-free no text runs, and nothing is tuned."""

    def shard_name(self, index: int) -> str:
        """File name of shard `index`: first the layers, then the others."""
        return f"model-{index + 1:05d}-of-{len(self.layer_tensors) + len(self.other_tensors):05d}.safetensors"

    def output_bytes(self) -> int:
        """Bytes of tensor data that the quantized model will have."""
        total = 0
        for info in (info for group in self.layer_tensors + self.other_tensors for info in group):
            scheme = self.schemes.get(info.name.removesuffix(".weight"))
            total += scheme.nbytes(*info.shape) if scheme and info.name.endswith(".weight") else info.nbytes
        return total

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """[O, I] of each target by its full name."""
        infos = {info.name.removesuffix(".weight"): info.shape for group in self.layer_tensors for info in group}
        return {name: infos[name] for name in self.schemes}

    def distinct(self) -> dict[str, Scheme]:
        """The schemes in use by tier."""
        return {scheme.tier: scheme for scheme in self.schemes.values()}


def make_plan(checkpoint: Checkpoint, architecture: Architecture, recipe: Recipe) -> Plan:
    """Decide what is quantized.

    Raises:
        QuantizeError: nothing is left to quantize, a weight is not a plain float matrix, the scheme cannot store one,
            or only a part of a fused group (q/k/v, gate/up, the experts of a layer) is ignored, which vLLM would not
            load; a width that no kernel takes; a tensor whose name in `ignore` would cover quantized modules; an MTP
            layer in no shard; a line of the recipe that means nothing in this model.
    """
    if recipe.mix:
        raise QuantizeError(f"recipe {recipe.name} leaves the tiers open: give --bits or --bytes")
    count = len(architecture.layers)
    require_drafts(checkpoint, architecture)
    targets = [[n for n in linear_names(architecture, i) if not recipe.ignores(n)] for i in range(count)]
    names = [name for layer in targets for name in layer]
    linears = [name for i in range(count) for name in linear_names(architecture, i)]
    modules = stored_modules(architecture)
    if slip := recipe.fits_nothing(linears, [*modules, *checkpoint.tensors]):
        raise QuantizeError(f"recipe {recipe.name}: {slip}: correct that name")
    if not linears:
        kinds = {type(module).__name__ for layer in architecture.layers for module in layer.modules()}
        held = "Conv1D, whose matrices lie the other way round" if "Conv1D" in kinds else "none of torch"
        raise QuantizeError(f"the decoder layers have no Linear ({held}): not supported")
    if not names:
        raise QuantizeError("no Linear in the decoder layers is left to quantize: loosen the recipe's ignore")
    features: dict[str, int] = {}
    for name in names:
        info = checkpoint.tensors.get(f"{name}.weight")
        if info is None or len(info.shape) != 2 or info.dtype not in ("F64", "F32", "F16", "BF16"):
            found = "is missing" if info is None else f"is {info.dtype} {list(info.shape)}, not a float matrix"
            raise QuantizeError(f"tensor {name}.weight {found}: give the original model, or ignore {name}")
        features[name] = info.shape[1]
    schemes = _schemes(features, recipe)
    _refuse_half_fused(architecture, schemes)
    require_one_format(linears, schemes)
    _refuse_odd_outputs(checkpoint, targets, schemes)

    pattern = re.compile(re.escape(architecture.prefix) + r"\.(\d+)\.")
    ignore = _ignored(checkpoint, architecture, set(names), pattern)
    own = [note_of(module).own for name, module in stored_modules(architecture).items() if name in schemes]
    if (stock := stock_config(schemes, ignore)) and (hit := misread(stock, [*names, *filter(None, own)])):
        raise QuantizeError(
            f"{hit[0]} stays as it was, and transformers would read that name in the config as {hit[1]} too: ignore "
            "both in the recipe, rename it, or take another tier"
        )
    layer_tensors: list[list[TensorInfo]] = [[] for _ in range(count)]
    others: list[TensorInfo] = []
    for info in checkpoint.tensors.values():
        match = pattern.match(info.name)
        inside = match is not None and int(match.group(1)) < count
        (layer_tensors[int(match.group(1))] if match and inside else others).append(info)
    return Plan(
        targets,
        schemes,
        ignore,
        layer_tensors,
        _split(others if recipe.rotate == "none" else untied(architecture, others)),
        not all(scheme.data_free for scheme in schemes.values()),
    )


def _schemes(features: Mapping[str, int], recipe: Recipe) -> dict[str, Scheme]:
    """The scheme of each Linear; one object a tier. `features` are their inputs by full name."""
    tiers = {name: recipe.tier_of(name) for name in features}
    made: dict[str, Scheme] = {}
    for tier in dict.fromkeys(tiers.values()):
        own = {name: columns for name, columns in features.items() if tiers[name] == tier}
        made[tier] = TIERS[tier](own, recipe.group_size, recipe.damping_of(tier))
    return {name: made[tier] for name, tier in tiers.items()}


def _split(tensors: list[TensorInfo]) -> list[list[TensorInfo]]:
    shards: list[list[TensorInfo]] = []
    size = 0
    for info in tensors:
        if not shards or size + info.nbytes > LARGEST_SHARD:
            shards.append([])
            size = 0
        shards[-1].append(info)
        size += info.nbytes
    return shards


def _ignored(
    checkpoint: Checkpoint, architecture: Architecture, targets: set[str], layer: re.Pattern[str]
) -> list[str]:
    modules = stored_modules(architecture)
    linears = [n for n, m in modules.items() if isinstance(m, nn.Linear) and n not in targets]
    strangers = []
    for info in checkpoint.tensors.values():
        module = info.name.rpartition(".")[0]
        match = layer.match(info.name)
        if match and module in modules and _is_router(modules[module], info):
            strangers.append(module)
        if len(info.shape) < 2 or not module or module in modules:
            continue
        # A decoder layer beyond the last is a draft (MTP) layer: servers know its parts under other names
        # too. Within the last, an entry for a whole layer would cover what is quantized there.
        draft = match is not None and int(match.group(1)) >= len(architecture.layers)
        strangers.append(f"re:{re.escape(match.group(0))}.*" if match and draft else module)
    # A server may look for a module under the name of its weights or under the one that transformers gives it: vLLM's
    # classes rename both to theirs, transformers and compressed-tensors know their own alone. Both are listed.
    own = {name: note_of(module).own or name for name, module in modules.items()}
    entries = list(dict.fromkeys([name for entry in linears + strangers for name in (entry, own.get(entry, entry))]))
    classes = {base.__name__ for module in modules.values() for base in type(module).__mro__}
    taken = targets | {own[name] for name in targets}
    for entry in entries:
        if _covers(entry, taken, classes):
            raise QuantizeError(
                f"a tensor of {entry} is stored, and servers would read that name in `ignore` as quantized modules "
                "too: rename or remove the tensor"
            )
    return entries


def _is_router(module: nn.Module, info: TensorInfo) -> bool:
    """A matrix in a layer that transformers multiplies by without a Linear: servers have a Linear there."""
    return len(info.shape) == 2 and info.name.endswith(".weight") and not isinstance(module, (nn.Linear, nn.Embedding))


def _covers(entry: str, targets: set[str], classes: set[str]) -> bool:
    """Would a server take one of `targets` for excepted by this entry: a full name, a class or a pattern?"""
    if entry.startswith("re:"):
        # Ours are escaped prefixes; a tensor's name that looks like a pattern is not run.
        layer = re.fullmatch(r"re:(?:[\w-]|\\[.-])+\\\.\d+\\\.\.\*", entry)
        return layer is None or any(re.match(entry[3:], target) for target in targets)
    return entry in targets or entry in classes


def _refuse_odd_outputs(checkpoint: Checkpoint, targets: list[list[str]], schemes: Mapping[str, Scheme]) -> None:
    for names in targets:
        outputs: dict[str, int] = {}
        first: dict[str, str] = {}
        for name in names:
            parent, _, last = name.rpartition(".")
            whole = f"{parent}.{next(('+'.join(parts) for parts in FUSED if last in parts), last)}"
            rows, together = checkpoint.tensors[f"{name}.weight"].shape[0], schemes[name].rows_multiple
            if rows % together:
                raise QuantizeError(
                    f"{name} has {rows} outputs, and tier {schemes[name].tier} stores {together} at a time: ignore "
                    "this layer in the recipe"
                )
            outputs[whole] = outputs.get(whole, 0) + rows
            first.setdefault(whole, name)
        for whole, count in outputs.items():
            multiple = schemes[first[whole]].outputs_multiple
            if count % multiple or not count:
                raise QuantizeError(
                    f"{first[whole]} has {count} outputs (fused parts together), and vLLM's kernels take multiples of "
                    f"{multiple}: ignore this layer in the recipe"
                )


def _refuse_half_fused(architecture: Architecture, schemes: Mapping[str, Scheme]) -> None:
    for index in range(len(architecture.layers)):
        names = linear_names(architecture, index)
        for parent in dict.fromkeys(name.rpartition(".")[0] for name in names):
            for parts in FUSED:
                present = [f"{parent}.{part}" for part in parts if f"{parent}.{part}" in names]
                kept = [name for name in present if name not in schemes]
                if kept and len(kept) < len(present):
                    raise QuantizeError(
                        f"the recipe ignores {kept[0]} but not all of {', '.join(parts)}: vLLM fuses them"
                    )
                tiers = {schemes[name].tier: name for name in present if name in schemes}
                if len(tiers) > 1:
                    named = " and ".join(f"{name} {tier}" for tier, name in tiers.items())
                    raise QuantizeError(
                        f"the recipe gives {named}, but servers fuse {', '.join(parts)}: give them one tier"
                    )
