"""How a weight becomes codes and back: one module a scheme; a tier is a scheme at a width."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from quantizers.schemes import additive, fp8_block, int_groups, trellis, vq
from quantizers.schemes.base import CardWords, Parts, Scheme

TIERS: dict[str, Callable[..., Scheme]] = {
    "int2": partial(int_groups.for_model, 2, False),
    "int3": partial(int_groups.for_model, 3, False),
    "int4": partial(int_groups.for_model, 4, False),
    "int8": partial(int_groups.for_model, 8, False),
    "int4-rotated": partial(int_groups.for_model, 4, True),
    "fp8": fp8_block.for_model,
    "trellis2": partial(trellis.for_model, "trellis2", 2, 16),
    "trellis2-l12": partial(trellis.for_model, "trellis2-l12", 2, 12),
    "trellis3": partial(trellis.for_model, "trellis3", 3, 16),
    "trellis3-l12": partial(trellis.for_model, "trellis3-l12", 3, 12),
    "trellis4": partial(trellis.for_model, "trellis4", 4, 16),
    "trellis4-l12": partial(trellis.for_model, "trellis4-l12", 4, 12),
    "vq1": partial(vq.for_model, "vq1", 8, 256),
    "vq1.5": partial(vq.for_model, "vq1.5", 8, 4096),
    "vq2": partial(vq.for_model, "vq2", 4, 256),
    "vq3": partial(vq.for_model, "vq3", 4, 4096),
    "aqlm-2x8g8": partial(additive.for_model, 2, 8),
    "aqlm-1x16g8": partial(additive.for_model, 1, 16),
}
"""What a recipe's `tier` may name. Each makes its scheme for one model: the arguments of `int_groups.for_model`.

A trellis has 2^16 states, or 2^12 (-l12) in a tenth of the time: minutes instead of hours without a GPU.
"""

SERVED = frozenset({"int4", "int8", "fp8"})
"""Tiers that stock vLLM 0.32 serves where a model has one of them alone: int4 on a CPU too, the others on a GPU."""


def served(tiers: Collection[str]) -> bool:
    """Does stock vLLM serve a model whose Linears have these tiers?"""
    return len(set(tiers)) == 1 and set(tiers) <= SERVED


def servable(tiers: Collection[str]) -> bool:
    """Does vLLM with the plugin of quantgate-kernels serve a model whose Linears have these tiers?

    All but int2 alone: that has compressed-tensors' config, whose 2 bits no vLLM reads.
    """
    return set(tiers) != {"int2"}


__all__ = ["SERVED", "TIERS", "CardWords", "Parts", "Scheme", "servable", "served"]
