"""What making a model takes: time by extrapolation from one small model, and memory and disk that are certain."""

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
    memory_bytes: int
    """At least: the largest layer in float32, its Hessians and the states of the calibration."""
    disk_bytes: int
    """Output and states; the original is not counted."""


def effort(model: ModelParts, sizes: Sizes, recipe: Recipe | None) -> Effort:
    """What making a model of these sizes takes by a recipe; None: by one of those that ship, by the mean of bits."""
    if recipe is None:
        low = sizes.bits < SMALL
        recipe = Recipe(name="plan", two_sided=low)
        family = "vq" if low else "int"
    else:
        family = _family(next((tier for tier in recipe.mix if tier != KEPT), recipe.tier))
    weights: dict[str, int] = {}
    for tier, count in sizes.tiers.items():
        own = family if tier == OPEN else _family(tier)
        weights[own] = weights.get(own, 0) + count
    text = recipe.calibration
    states = text.samples * text.length * int(getattr(model.config, "hidden_size", 0)) * 4 * STATES
    return Effort(
        _seconds(weights, None),
        _seconds(weights, (recipe.tune, recipe.two_sided)),
        4 * (sizes.largest_layer + sizes.hessians) + states,
        sizes.nbytes() + states,
    )


def _family(tier: str) -> str:
    return next((family for family in MEASURED_SECONDS if tier.startswith(family)), tier)


def _seconds(weights: Mapping[str, int], settings: tuple[str, bool] | None) -> float | None:
    """At the measured rates for these settings; None: at the best that was measured."""
    total = 0.0
    for family, count in weights.items():
        measured = MEASURED_SECONDS.get(family, {})
        seconds = measured.get(settings) if settings else min(measured.values(), default=None)
        if family == "fp8":  # rounded as it is read
            seconds = 0.0
        if seconds is None:
            return None
        total += seconds * count / MEASURED_WEIGHTS
    return total
