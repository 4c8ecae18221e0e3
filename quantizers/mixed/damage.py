"""damage.json: what each tier does to the model's output where one group alone has it; to read, edit and use again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from quantizers.checkpoint import read_json_object
from quantizers.errors import QuantizeError
from quantizers.mixed.walk import Variant
from quantizers.recipe import KEPT, Recipe, first_fault
from quantizers.schemes import TIERS
from quantizers.writing import write_text

Content = TypeVar("Content", bound=BaseModel)
Kinds = dict[str, FiniteFloat]
"""Mean KL in nats a token, by kind of text."""
Module = Annotated[str, Field(pattern=r"^[\w.-]+$")]
"""A full name."""
Size = Annotated[int, Field(ge=0, le=1 << 60)]
"""In bytes, or a number of weights."""


class GroupDamage(BaseModel):
    """One group of Linears that get one tier together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    layer: int
    linears: tuple[Module, ...] = Field(min_length=1)
    weights: Size = Field(gt=0)
    bytes: dict[str, Size] = Field(min_length=1)
    """By tier: codes and scales."""
    damage: dict[str, Kinds]
    """By tier and kind of text."""

    def cost(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The damage by tier, over all kinds."""
        return {tier: average(self.damage[tier], weights) for tier in self.bytes}


class Damage(BaseModel):
    """The damages of all groups of a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["quantgate damage 1"] = "quantgate damage 1"
    model: str
    """Fingerprint of the original."""
    calibration: str
    """A sha256 over the tokens, and which of them were looked at."""
    recipe: dict[str, Any]
    """What it was measured with, and what a chosen recipe takes over: calibration, tuning, what is ignored."""
    kinds: dict[str, int] = Field(min_length=1)
    """Sequences that were looked at, by kind of text."""
    length: int
    """Tokens of each."""
    other_bytes: Size
    """Of all tensors that are in no group."""
    tiers: dict[str, float]
    """Bits a weight of each tier, codes and scales, for reading; `bytes` of the groups decide."""
    groups: tuple[GroupDamage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be_chosen_by(self) -> Damage:
        """Whatever an editor may have made of it, the recipe that is chosen by it can be read."""
        names: set[str] = set()
        for group in self.groups:
            for name in {group.name, *group.linears}:
                if name in names:
                    raise ValueError(f"{name} is there twice")
                names.add(name)
            for tier in group.bytes:
                if tier not in TIERS and tier != KEPT:
                    raise ValueError(f"{group.name} has the tier {tier!r}, which is unknown")
                if missing := [kind for kind in self.kinds if kind not in group.damage.get(tier, {})]:
                    raise ValueError(f"{group.name} has no damage at {tier} for texts of {', '.join(missing)}")
        try:
            Recipe.model_validate(self.recipe)
        except ValidationError as error:
            raise ValueError(f"recipe.{first_fault(error)}") from None
        return self

    def weighted(self, weights: Mapping[str, float]) -> dict[str, float]:
        """What each kind counts, 1 where nothing is said.

        Raises:
            QuantizeError: a weight for a kind that was not measured, or one that is negative; all are 0.
        """
        for kind, weight in weights.items():
            if kind not in self.kinds:
                raise QuantizeError(f"no text of kind {kind!r} was measured: there are {', '.join(sorted(self.kinds))}")
            if not 0 <= weight < float("inf"):
                raise QuantizeError(f"weight {weight:g} of {kind}: give a number from 0 up")
        found = {kind: float(weights.get(kind, 1)) for kind in self.kinds}
        if not any(found.values()):
            raise QuantizeError("every kind of text has weight 0: nothing is left to choose by")
        return found

    @property
    def open_groups(self) -> Sequence[GroupDamage]:
        """Those that a choice is about, with more than one tier; all, where every one is settled."""
        return [group for group in self.groups if len(group.bytes) > 1] or self.groups

    def bits(self, mix: Mapping[str, str]) -> float:
        """Mean bits a weight, codes and scales, over the open groups."""
        return 8 * sum(g.bytes[mix[g.name]] for g in self.open_groups) / sum(g.weights for g in self.open_groups)

    def nbytes(self, mix: Mapping[str, str]) -> int:
        """Bytes of all tensors of the model."""
        return self.other_bytes + sum(group.bytes[mix[group.name]] for group in self.groups)


def average(damage: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The damage over all kinds, as they count."""
    return sum(weights[kind] * damage[kind] for kind in weights) / sum(weights.values())


def by_kind(values: list[float], kinds: list[str]) -> Kinds:
    """Means of each kind, to six digits: `values` and `kinds` are of sequences."""
    own = {kind: [v for v, k in zip(values, kinds, strict=True) if k == kind] for kind in dict.fromkeys(kinds)}
    return {kind: float(f"{sum(found) / len(found):.6g}") for kind, found in own.items()}


def by_group(found: Mapping[Variant, list[float]], kinds: list[str]) -> dict[str, dict[str, Kinds]]:
    """What was found of each group's variants, by its name and their tiers."""
    groups: dict[str, dict[str, Kinds]] = {}
    for (name, tier), values in found.items():
        groups.setdefault(name, {})[tier] = by_kind(values, kinds)
    return groups


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """JSON that a person can read: what holds no other objects or lists is one line."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    for leaf in (r"\{[^{}\[\]]*\}", r"\[[^{}\[\]]*\]"):
        text = re.sub(leaf, lambda match: re.sub(r"\n\s*", " ", match.group()), text)
    write_text(path, text + "\n")


def read_damage(path: Path) -> Damage:
    """A damage file. Raises QuantizeError if it is none, or was edited into something else."""
    if not path.is_file():
        raise QuantizeError(f"{path} is no file: quantgate measure-tiers makes files of damages")
    return read_model(Damage, path)


def read_model(kind: type[Content], path: Path) -> Content:
    """A JSON file's content. Raises QuantizeError if it is of another kind."""
    try:
        return kind.model_validate(read_json_object(path, "mend it, or remove it to have it made again"))
    except ValidationError as error:
        raise QuantizeError(f"{path}: {first_fault(error)}") from None
