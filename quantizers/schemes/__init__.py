"""How a weight becomes codes and back: one module a scheme; a tier is a scheme at a width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from quantizers.schemes import int_groups
from quantizers.schemes.base import CardWords, Parts, Scheme

TIERS: dict[str, Callable[..., Scheme]] = {"int4": partial(int_groups.for_model, 4)}
"""What a recipe's `tier` may name. Each makes its scheme for one model: the arguments of `int_groups.for_model`."""

__all__ = ["TIERS", "CardWords", "Parts", "Scheme"]
