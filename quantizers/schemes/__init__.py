"""How a weight becomes codes and back: one module a scheme; a tier is a scheme at a width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from quantizers.schemes import additive, int_groups, vq
from quantizers.schemes.base import CardWords, Parts, Scheme

TIERS: dict[str, Callable[..., Scheme]] = {
    "int4": partial(int_groups.for_model, 4),
    "vq1": partial(vq.for_model, "vq1", 8, 256),
    "vq1.5": partial(vq.for_model, "vq1.5", 8, 4096),
    "vq2": partial(vq.for_model, "vq2", 4, 256),
    "vq3": partial(vq.for_model, "vq3", 4, 4096),
    "aqlm-2x8g8": partial(additive.for_model, 2, 8),
    "aqlm-1x16g8": partial(additive.for_model, 1, 16),
}
"""What a recipe's `tier` may name. Each makes its scheme for one model: the arguments of `int_groups.for_model`."""

SERVED = frozenset({"int4"})
"""Tiers that stock vLLM serves."""

__all__ = ["SERVED", "TIERS", "CardWords", "Parts", "Scheme"]
