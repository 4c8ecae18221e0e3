"""Which tier each weight would have, and so the bytes of each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from quantizers.errors import QuantizeError
from quantizers.mixed.choice import Target
from quantizers.mixed.groups import fused
from quantizers.recipe import DAMPING, KEPT, Recipe
from quantizers.schemes import TIERS, Scheme
from quantizers.sizing.parts import DRAFT, EXPERTS, PARTS, ROUTER, ModelParts, Weight

OPEN = "mixed"
"""Weights whose tiers are left open: their mean is asked for."""
KEPT_BYTES = 2
"""Of a weight that is not quantized: bf16."""
REST_TIERS = {16: KEPT, 8: "int8"}
"""What Linears that are no routed experts have where a mean of the experts is asked for."""


Counts = dict[str, Counter[str]]
"""Copies of each Linear, by its name, that have a tier, are KEPT or OPEN."""


@dataclass(frozen=True)
class Options:
    """What open weights may become."""

    tiers: tuple[str, ...]
    group_size: int | None = None
    """Of all weights, as the recipe says."""

    def scheme(self, tier: str, features: Mapping[str, int]) -> Scheme:
        """The scheme of a tier for Linears with these inputs; QuantizeError names one that it does not take."""
        return TIERS[tier](features, self.group_size, DAMPING)


@dataclass(frozen=True)
class PartSize:
    """A part of the model."""

    part: str
    parameters: int
    nbytes: int

    @property
    def bits(self) -> float:
        """Mean bits a parameter, scales included."""
        return 8 * self.nbytes / self.parameters


@dataclass(frozen=True)
class Sizes:
    """The quantized model."""

    parts: tuple[PartSize, ...]
    """Those that the model has, draft layers too."""
    tiers: dict[str, int]
    """Quantized parameters by tier; OPEN for those whose mean is asked for."""
    expert_tiers: dict[str, int]
    """Of these, the routed experts'."""
    bits: float
    """Mean of what the size is asked of, scales included: of open weights, or of all that a recipe quantizes."""
    largest_layer: int
    """Parameters of the largest decoder layer."""
    hessians: int
    """Entries of the Hessians that the layer with the most of them needs."""

    def nbytes(self, *, draft: bool = True) -> int:
        """Bytes of all tensors, with or without the draft layers."""
        return sum(part.nbytes for part in self.parts if draft or part.part != DRAFT)


def sizes_by_mean(model: ModelParts, target: Target, rest: int | None) -> Sizes:
    """The size where routed experts have a mean of bits and other Linears `rest` bits, or all Linears that mean.

    Args:
        rest: 8 or 16, for models with routed experts; None: 16.

    Raises:
        QuantizeError: no Linear, a mean that no tiers have, a `rest` for a model without experts, a shape for no tier.
    """
    linears = [weight for weight in model.weights if weight.linear and weight.part != ROUTER]
    experts = [weight for weight in linears if weight.part == EXPERTS]
    if rest is not None and not experts:
        raise QuantizeError(
            f"{model.architecture} has no routed experts: all its Linears get the mean, leave out --rest"
        )
    if rest is not None and rest not in REST_TIERS:
        raise QuantizeError(f"--rest {rest}: attention, shared experts and dense layers have 16 or 8 bits")
    counts: Counts = {weight.name: Counter({OPEN: weight.copies}) for weight in experts or linears}
    for weight in linears:
        counts.setdefault(weight.name, Counter({REST_TIERS[rest or 16]: weight.copies}))
    return _sizes(model, counts, Options(tuple(TIERS)), target, whole=False)


def sizes_by_recipe(model: ModelParts, recipe: Recipe, target: Target | None) -> Sizes:
    """The size that a recipe makes; `target` is for what it leaves open, and its bits are the mean of that.

    Raises:
        QuantizeError: nothing to quantize, a target that is missing or that no tiers have, a shape that no tier takes,
            a line of `tiers` that fits no Linear, a mix of nothing.
    """
    if (target is None) == bool(recipe.mix):
        if target is None:
            raise QuantizeError(f"recipe {recipe.name} leaves the tiers open: give --bits or --bytes")
        raise QuantizeError(
            f"recipe {recipe.name} leaves no tier open: --bits and --bytes are for recipes such as mixed"
        )
    linears = [name for weight in model.weights if weight.linear for name in weight.names]
    # Of names to ignore, those that are no Linear's cannot be looked up without the files.
    if slip := recipe.fits_nothing(linears, recipe.ignore):
        raise QuantizeError(f"recipe {recipe.name}: {slip} of {model.architecture}: correct that name")
    counts: Counts = {}
    for weight in model.weights:
        if weight.linear:
            open_tier = OPEN if recipe.mix else recipe.tier
            named = (KEPT if recipe.ignores(n) else recipe.tier_named(n) or open_tier for n in weight.names)
            counts[weight.name] = Counter(named)
    if recipe.mix and any(counts.values()) and not any(own[OPEN] for own in counts.values()):
        raise QuantizeError(
            f"recipe {recipe.name} has a mix, but its tiers and ignore settle every Linear of {model.architecture}: "
            "leave out the mix, and --bits and --bytes with it"
        )
    return _sizes(model, counts, Options(recipe.mix, recipe.group_size), target, whole=not recipe.mix)


def _sizes(model: ModelParts, counts: Counts, options: Options, target: Target | None, *, whole: bool) -> Sizes:
    """`whole`: are bits the mean of open weights and those with a tier, or of the open ones alone?"""
    linears = {weight.name: weight for weight in model.weights if weight.name in counts}
    named = {tier for own in counts.values() for tier in own} - {OPEN, KEPT}
    schemes = {
        tier: options.scheme(tier, {name: w.shape[1] for name, w in linears.items() if tier in counts[name]})
        for tier in named
    }
    by_part: Counter[str] = Counter()
    by_tier: Counter[str] = Counter()
    tiers: Counter[str] = Counter()
    expert_tiers: Counter[str] = Counter()
    for weight in model.weights:
        each = weight.parameters // weight.copies
        for tier, copies in counts.get(weight.name, {KEPT: weight.copies}).items():
            stored = _stored(weight, schemes[tier]) if tier in schemes else 0 if tier == OPEN else KEPT_BYTES * each
            by_part[weight.part] += stored * copies
            by_tier[tier] += stored * copies
            tiers[tier] += each * copies
            if weight.part == EXPERTS and tier != KEPT:
                expert_tiers[tier] += each * copies
    fixed = sum(by_tier[tier] for tier in named)
    del tiers[KEPT]
    if not tiers:
        raise QuantizeError(f"{model.architecture}: no Linear in the decoder layers is left to quantize")
    weights = tiers.total() if whole else tiers[OPEN]
    within = fixed if whole else 0
    room = 0
    if target is not None:
        room = round(target.bits * weights / 8) - within if target.bits else (target.nbytes or 0) - by_part.total()
        least, most, lowest = _reach(linears, counts, options)
        if room + 1 < least or room > most + most // 10_000:
            end, limit = (f"below what the lowest tiers ({lowest}) make", least)
            if room > most:
                end, limit = "above what the highest tiers make", most
            bits, size = 8 * (limit + within) / weights, limit + by_part.total()
            raise QuantizeError(f"{target} is {end} of this model: {bits:.4g} bits, {size:,} bytes")
    for name, own in counts.items():  # in proportion: which of the open weights get more is not decided here
        weight = linears[name]
        by_part[weight.part] += round(room * own[OPEN] * weight.parameters / weight.copies / (tiers[OPEN] or 1))
    parameters: Counter[str] = Counter()
    layers: dict[int, list[Weight]] = {}
    for weight in model.weights:
        parameters[weight.part] += weight.parameters
        if weight.layer is not None:
            layers.setdefault(weight.layer, []).append(weight)
    return Sizes(
        tuple(PartSize(part, parameters[part], by_part[part]) for part in PARTS if parameters[part]),
        dict(tiers),
        dict(expert_tiers),
        8 * (room + within) / weights,
        max(sum(weight.parameters for weight in layer) for layer in layers.values()),
        max(_hessian_entries(layer, counts) for layer in layers.values()),
    )


def _stored(weight: Weight, scheme: Scheme) -> int:
    rows, columns = weight.shape
    if rows % scheme.rows_multiple:
        several = scheme.rows_multiple
        raise QuantizeError(
            f"{weight.name} has {rows} outputs, and tier {scheme.tier} stores {several} at a time: ignore it"
        )
    return scheme.nbytes(rows, columns)


def _reach(linears: Mapping[str, Weight], counts: Counts, options: Options) -> tuple[int, int, str]:
    """The least and the most bytes that open weights can have, and the tiers of the least."""
    sizes: dict[tuple[int, ...], dict[str, int]] = {}
    least = most = 0
    lowest: dict[str, None] = {}
    for name, own in counts.items():
        if not own[OPEN]:
            continue
        shape = linears[name].shape
        if shape not in sizes:
            sizes[shape] = _possible(linears[name], options)
        best = min(sizes[shape], key=lambda tier: sizes[shape][tier])
        least, most = least + sizes[shape][best] * own[OPEN], most + max(sizes[shape].values()) * own[OPEN]
        lowest[best] = None
    return least, most, "/".join(lowest)


def _possible(weight: Weight, options: Options) -> dict[str, int]:
    """Bytes of one copy by tier, of the tiers that take its shape without making it larger (as an own codebook may)."""
    found: dict[str, int] = {}
    kept = KEPT_BYTES * weight.parameters // weight.copies
    for tier in options.tiers:
        with suppress(QuantizeError):
            scheme = None if tier == KEPT else options.scheme(tier, {weight.name: weight.shape[1]})
            stored = _stored(weight, scheme) if scheme else kept
            if stored <= kept:
                found[tier] = stored
    if not found:
        raise QuantizeError(f"{weight.name} is {list(weight.shape)}, which none of {', '.join(options.tiers)} takes")
    return found


def _hessian_entries(layer: list[Weight], counts: Counts) -> int:
    """Of one layer: [I, I] for what servers run as one matrix.

    Every expert sees every token, so gate and up of all experts share one; what follows them has one for each expert.
    """
    quantized = {weight.name: weight for weight in layer if set(counts.get(weight.name, {KEPT: 1})) - {KEPT}}
    groups = fused(list(quantized)).values()
    return sum(quantized[g[0]].shape[1] ** 2 * (1 if len(g) > 1 else quantized[g[0]].copies) for g in groups)
