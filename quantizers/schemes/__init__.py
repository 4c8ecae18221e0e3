"""How a weight becomes codes and back: one module a scheme; a tier is a scheme at a width."""

from __future__ import annotations

from quantizers.schemes.base import CardWords, Parts, Scheme
from quantizers.schemes.int_groups import IntGroups

TIERS: dict[str, type[Scheme]] = {"int4": IntGroups}
"""What a recipe's `tier` may name."""

__all__ = ["TIERS", "CardWords", "Parts", "Scheme"]
