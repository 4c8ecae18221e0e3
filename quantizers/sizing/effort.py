"""What making a model takes: time by extrapolation, and memory and disk that are certain.

Routed experts are extrapolated from a layer of GLM-5, all else from one small dense model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantizers.recipe import KEPT, Recipe
from quantizers.sizing.parts import ModelParts
from quantizers.sizing.tiers import OPEN, Sizes

MEASURED_WEIGHTS = 357_826_560
"""Quantized weights of qwen2.5-coder-0.5b."""
MEASURED_SECONDS: dict[str, dict[tuple[str, bool], float]] = {
    "vq": {
        ("none", False): 13.1, ("fast", False): 23.2, ("blocks", False): 77.5, ("blocks", True): 114.1,
        ("model", True): 151.8,
    },
    "trellis": {("blocks", False): 106.5, ("blocks", True): 283.7, ("model", True): 184.7},
    "int": {
        ("none", False): 41.6, ("fast", False): 35.1, ("blocks", False): 93.4, ("blocks", True): 227.5,
        ("model", True): 207.7,
    },
    "aqlm": {("none", False): 170.5},
}  # fmt: skip
"""By family and (tune, two_sided): the whole of qwen2.5-coder-0.5b on one H200, 64 texts of 512 tokens, vq and trellis
at 2 bits (benchmarks/results/low_bits_qwen05.json; some of them beside another job on the machine)."""
EXPERT_WEIGHTS = 9_663_676_416
"""Weights of the 256 routed experts of a layer of GLM-5."""
EXPERT_SECONDS: dict[str, tuple[float, float]] = {
    "vq": (176.8, 42.5), "trellis": (358.0, 42.5), "int": (187.9, 42.5),
}  # fmt: skip
"""By family, for that layer untuned and one-sided on one H200, from checkpoint to checkpoint, with its attention:
seconds for any calibration, and those of EXPERT_TOKENS (benchmarks/results/glm5_layer_h200.json, stage inputs). The
others: with their encoding in place of vq2's 12 s (expert_encoding_h200.json), trellis2's 193 s and int4's 23 s."""
MIX_SECONDS = (599.0, 1511.0)
"""For such a layer of a mix of four tiers of vq: to measure what they cost, and to correct the choice. Added up in
docs/experts.md from a layer that was measured and rates; never measured as a whole."""
EXPERT_TOKENS = 64 * 512
STATES = 2
"""Float32 states of the calibration that are held: of the quantized model and of the original."""
SMALL = 3.5
"""Mean bits below which open tiers are taken to be vq's, tuned and two-sided as in recipe `mixed`; else int4's."""


@dataclass(frozen=True)
class Effort:
    """What making a checkpoint takes."""

    floor_seconds: float | None
    """The quickest that was measured of these tiers, at any setting: usually without tuning. None: nothing was."""
    seconds: float | None
    """As the recipe says. None: these settings were never measured."""
    mix_seconds: tuple[float, float] | None
    """Beside that, to measure what tiers of experts cost and to correct a choice; None: nothing is known of it."""
    memory_bytes: int
    """At least: the largest layer in float32, its Hessians and the states of the calibration."""
    disk_bytes: int
    """Output and states, and of a mix its bf16 form, while it is corrected; the original is not counted."""


def effort(model: ModelParts, sizes: Sizes, recipe: Recipe | None) -> Effort:
    """What making a model of these sizes takes by a recipe; None: by one of those that ship, by the mean of bits."""
    if recipe is None:
        low = sizes.bits < SMALL
        experts = bool(sizes.expert_tiers)  # as in the recipes for GLM-5.2: one-sided and untuned
        recipe = Recipe(name="plan", two_sided=low and not experts, tune="none" if experts else "blocks")
        family = "vq" if low else "int"
    else:
        family = _family(next((tier for tier in recipe.mix if tier != KEPT), recipe.tier))
    routed = _by_family(sizes.expert_tiers, family)
    dense = {own: count - routed.get(own, 0) for own, count in _by_family(sizes.tiers, family).items()}
    tokens = recipe.calibration.samples * recipe.calibration.length
    states = tokens * int(getattr(model.config, "hidden_size", 0)) * 4 * STATES
    settings = recipe.tune, recipe.two_sided
    return Effort(
        _add(_dense_seconds(dense, None), _expert_seconds(routed, None, tokens)),
        _add(_dense_seconds(dense, settings), _expert_seconds(routed, settings, tokens)),
        _mix_seconds(sizes.expert_tiers.get(OPEN, 0), recipe.mix, family),
        4 * (sizes.largest_layer + sizes.hessians) + states,
        sizes.nbytes() + states + (sum(2 * part.parameters for part in sizes.parts) if OPEN in sizes.tiers else 0),
    )


def _family(tier: str) -> str:
    return next((family for family in MEASURED_SECONDS if tier.startswith(family)), tier)


def _by_family(tiers: Mapping[str, int], open_family: str) -> dict[str, int]:
    """Weights of each family; those whose tier is open are of one."""
    weights: dict[str, int] = {}
    for tier, count in tiers.items():
        own = open_family if tier == OPEN else _family(tier)
        weights[own] = weights.get(own, 0) + count
    return weights


def _dense_seconds(weights: Mapping[str, int], settings: tuple[str, bool] | None) -> float | None:
    """At the measured rates for these settings; None: at the best that was measured."""
    total = 0.0
    for family, count in weights.items():
        measured = MEASURED_SECONDS.get(family, {})
        seconds = measured.get(settings) if settings else min(measured.values(), default=None)
        if family == "fp8" or not count:  # fp8 is rounded as it is read
            seconds = 0.0
        if seconds is None:
            return None
        total += seconds * count / MEASURED_WEIGHTS
    return total


def _expert_seconds(weights: Mapping[str, int], settings: tuple[str, bool] | None, tokens: int) -> float | None:
    """Untuned and one-sided; families that no layer was measured with at the dense rate, which is slower."""
    total = 0.0
    for family, count in weights.items():
        if family == "fp8":
            continue
        if settings not in (None, ("none", False)):
            return None
        if family not in EXPERT_SECONDS:
            seconds = _dense_seconds({family: count}, ("none", False))
            if seconds is None:
                return None
            total += seconds
            continue
        fixed, passes = EXPERT_SECONDS[family]
        total += (fixed + passes * tokens / EXPERT_TOKENS) * count / EXPERT_WEIGHTS
    return total


def _mix_seconds(weights: int, mix: tuple[str, ...], family: str) -> tuple[float, float] | None:
    """For experts' `weights` whose tier is open."""
    if not weights or any(_family(tier) != "vq" for tier in mix or (family,)):
        return None
    measure, correct = MIX_SECONDS
    return measure * weights / EXPERT_WEIGHTS, correct * weights / EXPERT_WEIGHTS


def _add(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
