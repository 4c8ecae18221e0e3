"""What gets one tier together: the Linears of a layer that servers run as one matrix."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from quantizers.checkpoint import Checkpoint
from quantizers.modeling import Architecture
from quantizers.plan import FUSED, make_plan
from quantizers.recipe import KEPT, Recipe
from quantizers.schemes import Scheme

_EXPERT = re.compile(r"\.experts\.\d+\.")


@dataclass(frozen=True)
class Group:
    """Linears with one tier, and what they may become."""

    name: str
    """Full name of the Linear, the last parts of several joined by "+"."""
    layer: int
    linears: tuple[str, ...]
    """Full names."""
    weights: int
    schemes: dict[str, dict[str, Scheme]]
    """By tier, of each Linear by its full name; those that are kept have none."""
    nbytes: dict[str, int]
    """Bytes of tensor data by tier."""

    @property
    def family(self) -> str:
        """What is measured at once: all experts of a layer, whose parts of it are told apart by their outputs."""
        return family_of(self.name)


def groups_of(checkpoint: Checkpoint, architecture: Architecture, recipe: Recipe) -> tuple[list[Group], int]:
    """The groups that a recipe with a `mix` quantizes, layer by layer, and the bytes of all other tensors.

    A group that the recipe's `tiers` name has that tier alone.

    Raises:
        QuantizeError: as `make_plan`, for each tier.
    """
    plans = {
        tier: make_plan(checkpoint, architecture, recipe.model_copy(update={"mix": (), "tier": tier}))
        for tier in recipe.mix
        if tier != KEPT
    }
    any_plan = next(iter(plans.values()))
    groups = []
    for layer, names in enumerate(any_plan.targets):
        for name, linears in fused(names).items():
            shapes = [checkpoint.tensors[f"{linear}.weight"].shape for linear in linears]
            stored = sum(checkpoint.tensors[f"{linear}.weight"].nbytes for linear in linears)
            schemes: dict[str, dict[str, Scheme]] = {}
            nbytes: dict[str, int] = {}
            fixed = recipe.tier_named(linears[0])
            for tier in recipe.mix if fixed is None else (fixed,):
                plan = any_plan if fixed else plans.get(tier)
                schemes[tier] = {linear: plan.schemes[linear] for linear in linears} if plan else {}
                parts = zip(schemes[tier].values(), shapes, strict=False)
                nbytes[tier] = sum(scheme.nbytes(*shape) for scheme, shape in parts) if plan else stored
            groups.append(Group(name, layer, tuple(linears), sum(map(math.prod, shapes)), schemes, nbytes))
    inside = {linear for group in groups for linear in group.linears}
    others = [info.nbytes for n, info in checkpoint.tensors.items() if n.removesuffix(".weight") not in inside]
    return groups, sum(others)


def fused(names: list[str]) -> dict[str, list[str]]:
    """Full names by what servers run as one matrix."""
    found: dict[str, list[str]] = {}
    for name in names:
        parent, _, last = name.rpartition(".")
        parts = next((parts for parts in FUSED if last in parts), (last,))
        found.setdefault(f"{parent}.{'+'.join(p for p in parts if f'{parent}.{p}' in names)}", []).append(name)
    return found


def family_of(name: str) -> str:
    """`model.layers.3.mlp.experts.*.down_proj` of one expert's group, any other group's own name."""
    return _EXPERT.sub(".experts.*.", name)


def families(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups by their family."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.family, []).append(group)
    return found
