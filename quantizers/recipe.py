"""Recipes: what to do to a model, as a small frozen document."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from quantizers.checkpoint import one_line
from quantizers.errors import QuantizeError
from quantizers.schemes import TIERS
from quantizers.tuning import METHODS

# Small, easily hurt, or never run in calibration: the head, whatever decides between experts, and draft
# layers.
DEFAULT_IGNORE = (
    "lm_head",
    r"re:.*\.(gate|router|shared_expert_gate)(\..*)?$",
    r"re:(.*\.)?(mtp|nextn)(\..*)?$",
)


class Calibration(BaseModel):
    """The text whose activations tell GPTQ which weights matter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(default=32, ge=1, le=65536)
    """Sequences."""
    length: int = Field(default=512, ge=8, le=131072)
    """Tokens in each sequence."""
    file: Path | None = None
    """A .txt or .jsonl ({"text": ...}) file of your own; None takes the texts shipped with quantgate."""
    seed: int = 0
    """Shuffles the documents within each file."""


class Recipe(BaseModel):
    """How a model is quantized."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """How reports and the model card call it."""
    tier: str = "int4"
    """How the Linears of the decoder layers are stored (quantizers/schemes)."""
    tiers: dict[str, str] = {}
    """Other tiers for some Linears: full names, or "re:" and a regular expression as in `ignore`; the first that fits
    decides."""
    group_size: int | None = None
    """Neighbouring inputs that share a scale; None: the tier's choice, the largest that fits every layer."""
    rotate: Literal["none", "folded"] = "none"
    """Rotations that are folded into the weights before they are quantized (quantizers/folding.py)."""
    tune: str = "none"
    """How each layer is tuned towards the original one's output: none, fast or blocks (quantizers/tuning.py)."""
    damping: float = Field(default=0.05, gt=0, le=1)
    """Added to the diagonal of the Hessian, in units of its mean: firm, as the calibration is short."""
    calibration: Calibration = Calibration()
    """The calibration text."""
    ignore: tuple[str, ...] = DEFAULT_IGNORE
    """Modules left as they are: full names, or "re:" and a regular expression that matches the name's start.
    Everything outside the decoder layers is left as it is in any case."""

    @field_validator("tier")
    @classmethod
    def _tier_is_known(cls, tier: str) -> str:
        if tier not in TIERS:
            raise ValueError(f"{tier!r} is unknown: use one of {', '.join(TIERS)}")
        return tier

    @field_validator("tiers")
    @classmethod
    def _tiers_are_known(cls, tiers: dict[str, str]) -> dict[str, str]:
        for tier in tiers.values():
            cls._tier_is_known(tier)
        cls._patterns_compile(tuple(tiers))
        return tiers

    @field_validator("tune")
    @classmethod
    def _tuning_is_known(cls, tune: str) -> str:
        if tune not in METHODS:
            raise ValueError(f"{tune!r} is unknown: use one of {', '.join(METHODS)}")
        return tune

    @field_validator("ignore")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if pattern.startswith("re:"):
                try:
                    re.compile(pattern[3:])
                except re.error as error:
                    raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return patterns

    def ignores(self, module: str) -> bool:
        """Whether the module of this full name stays as it is."""
        return any(_fits(pattern, module) for pattern in self.ignore)

    def tier_of(self, module: str) -> str:
        """The tier of the Linear of this full name."""
        return next((tier for pattern, tier in self.tiers.items() if _fits(pattern, module)), self.tier)

    def digest(self) -> str:
        """A sha256 over every setting, without the path of the calibration file: its text is what counts."""
        return hashlib.sha256(self.model_dump_json(exclude={"calibration": {"file"}}).encode()).hexdigest()


def _fits(pattern: str, module: str) -> bool:
    return re.match(pattern[3:], module) is not None if pattern.startswith("re:") else pattern == module


RECIPES: dict[str, dict[str, Any]] = {
    "w4a16": {"name": "w4a16"},
    "w4a16-folded": {"name": "w4a16-folded", "rotate": "folded"},
    "w4a16-tuned": {"name": "w4a16-tuned", "tune": "blocks"},
    "vq-2bit": {"name": "vq-2bit", "tier": "vq2", "damping": 0.01, "tune": "blocks"},
    "fp8-block": {"name": "fp8-block", "tier": "fp8"},
}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The built-in recipe of this name, or the recipe in this YAML file.

    A calibration file named in YAML is looked for beside the YAML file.

    Raises:
        QuantizeError: an unknown name (listing the known ones), a file that does not parse, an unknown key, a value
            out of range.
    """
    text = str(name_or_path)
    if text in RECIPES:
        return Recipe.model_validate(RECIPES[text])
    path = Path(text)
    if path.suffix not in (".yaml", ".yml"):
        raise QuantizeError(f"unknown recipe {text!r}: use one of {', '.join(sorted(RECIPES))}, or a .yaml file")
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError, RecursionError) as error:
        raise QuantizeError(f"recipe {path} cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise QuantizeError(f"recipe {path} must be a YAML mapping with at least a name")
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "recipe"
        raise QuantizeError(f"recipe {path}: {where}: {first['msg']}") from None
    file = recipe.calibration.file
    if file is not None and not file.is_absolute():
        settings = recipe.calibration.model_copy(update={"file": path.parent / file})
        recipe = recipe.model_copy(update={"calibration": settings})
    return recipe
