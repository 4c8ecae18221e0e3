"""Recipes: what to do to a model, as a small frozen document."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from quantizers.checkpoint import one_line
from quantizers.errors import QuantizeError
from quantizers.recipes import RECIPES
from quantizers.schemes import TIERS
from quantizers.tuning import METHODS

# Small, easily hurt, or never run in calibration: the head, whatever decides between experts, and draft
# layers.
DEFAULT_IGNORE = (
    "lm_head",
    r"re:.*\.(gate|router|shared_expert_gate)(\..*)?$",
    r"re:(.*\.)?(mtp|nextn)(\..*)?$",
    r"re:.*\.indexer(\..*)?$",
    r"re:.*\.dt_proj$",
)
"""Heads, routers, drafts, what picks the tokens of sparse attention, and the rates at which Mamba and Doge forget:
small, and what they decide is not undone."""


SHIPPED = {
    "zh": "chinese.txt",
    "code": "code.txt",
    "dialogue": "dialogue.txt",
    "en": "english.txt",
    "ja": "japanese.txt",
    "math": "math.txt",
    "chat": "chat.jsonl",
    "reasoning": "reasoning.jsonl",
}
"""Kinds of text that ship with quantgate, and their files in quantizers/calibration_texts."""
DEFAULT_MIX = ("zh", "code", "dialogue", "en", "ja", "math")
"""Shipped kinds that a recipe without sources is calibrated on, in equal shares."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Source(BaseModel):
    """One text that calibration draws on: exactly one of `shipped`, `file`, `dataset` and `traces`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shipped: str | None = None
    """A kind of text that ships with quantgate."""
    file: Path | None = None
    """.txt (documents between lines of %%) or .jsonl ({"text": ...}, or {"messages": [...]} for the chat template)."""
    dataset: str | None = None
    """owner/name of a data set of the hub; its whole split is fetched."""
    revision: str | None = None
    """Commit of the data set, 40 hex digits: what a name alone means may change."""
    config: str | None = None
    split: str = "train"
    column: str = "text"
    """Column of the data set that holds texts or lists of messages."""
    traces: int | None = Field(default=None, ge=1, le=65536)
    """So many answers of the model itself; `quantgate quantize` has them written, once, and sets `file`."""
    language: str | None = None
    """Takes only rows whose `language` is this; rows that name none are taken to be of it."""
    kind: str | None = None
    """The same for `kind` (chat, code, reasoning ...)."""
    weight: float = Field(default=1, gt=0, allow_inf_nan=False)
    """Its share of the sequences is its weight over the sum of all weights."""

    @model_validator(mode="after")
    def _names_one_text(self) -> Source:
        named = [key for key in ("shipped", "file", "dataset", "traces") if getattr(self, key) is not None]
        if len(named) != 1:
            raise ValueError(f"names {' and '.join(named) or 'no text'}: give one of shipped, file, dataset or traces")
        if self.shipped is not None and self.shipped not in SHIPPED:
            known = ", ".join(sorted(SHIPPED))
            raise ValueError(f"shipped: {self.shipped!r} is unknown: use one of {known}, or a .txt or .jsonl file")
        if self.shipped is not None and SHIPPED[self.shipped].endswith(".txt") and (self.language or self.kind):
            raise ValueError(f"shipped: {self.shipped} is running text, all of it: leave out its language and kind")
        only = [key for key in ("revision", "config", "split", "column") if key in self.model_fields_set]
        if self.dataset is None and only:
            raise ValueError(f"{only[0]} is of a dataset, and {named[0]} is none: leave it out")
        if self.dataset is not None and not _COMMIT.fullmatch(self.revision or ""):
            raise ValueError(f"dataset {self.dataset} needs its revision, a commit of 40 hex digits: pin one")
        return self

    @property
    def label(self) -> str:
        """What the text is called in messages and on the model card."""
        if self.traces is not None:
            name = f"{self.traces} traces of the model itself"
        elif self.dataset is not None:
            config = f" {self.config}" if self.config else ""
            name = f"{self.dataset}{config} ({self.split}, {self.column}) at {(self.revision or '')[:12]}"
        else:
            name = self.file.name if self.file else f"shipped {self.shipped}"
        only = ", ".join(filter(None, (self.kind, self.language)))
        return f"{name} [{only}]" if only else name


class Calibration(BaseModel):
    """The texts whose activations tell GPTQ which weights matter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(default=32, ge=1, le=65536)
    """Sequences."""
    length: int = Field(default=512, ge=8, le=131072)
    """Tokens in each sequence."""
    file: Path | None = None
    """Short for one source, a file of your own."""
    sources: tuple[Source, ...] = ()
    """Texts with their weights; none of them and no `file`: the shipped mix."""
    seed: int = 0
    """Shuffles the documents within each source."""

    @field_validator("sources", mode="before")
    @classmethod
    def _names_alone_are_sources(cls, sources: Any) -> Any:
        """`en` is a shipped kind, `mine.jsonl` a file."""

        def full(source: Any) -> Any:
            if not isinstance(source, str):
                return source
            return {"file" if source.endswith((".txt", ".jsonl")) else "shipped": source}

        return [full(source) for source in sources] if isinstance(sources, list | tuple) else sources

    @model_validator(mode="after")
    def _file_or_sources(self) -> Calibration:
        if self.file is not None and self.sources:
            raise ValueError("file and sources are both given: make the file one of the sources")
        return self

    @property
    def drawn_on(self) -> tuple[Source, ...]:
        """The sources, whichever way they were given."""
        if self.file is not None:
            return (Source(file=self.file),)
        return self.sources or tuple(Source(shipped=kind) for kind in DEFAULT_MIX)

    @property
    def files(self) -> list[Path]:
        """The files among the sources."""
        return [source.file for source in self.drawn_on if source.file is not None]


KEPT = "kept"
"""In a `mix`: left as it was."""
DAMPING = 0.01
"""Of tiers that name no other: from 0.001 to 0.1 it makes no difference (docs/low-bits.md)."""
TIER_DAMPING = {"int4": 0.05}
"""Firm, as the calibration is short."""


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
    mix: tuple[str, ...] = ()
    """Tiers, or "kept" for 16 bits, among which each group of Linears that `tiers` does not name gets its own, by what
    they cost and by how many bits or bytes are asked for (quantizers/mixed)."""
    group_size: int | None = None
    """Neighbouring inputs that share a scale; None: the tier's choice, the largest that fits every layer."""
    rotate: Literal["none", "folded"] = "none"
    """Rotations that are folded into the weights before they are quantized (quantizers/folding.py)."""
    tune: str = "blocks"
    """How each layer is tuned towards the original one's output: none, fast, blocks, or model, which goes on with the
    whole model (quantizers/tuning.py). Where every tier is data-free (fp8) no text runs, and nothing is tuned."""
    two_sided: bool = False
    """Whether errors are weighed, token by token and output by output, by what they do to the model's loss: one pass
    back through the original model (quantizers/gradients.py)."""
    moe_calibrate_all_experts: bool = True
    """Whether each expert is calibrated on all tokens. If not, on those that the router gives it, as they are weighed
    there, shrunk toward all tokens where they are few (quantizers/routed.py)."""
    damping: float | None = Field(default=None, gt=0, le=1)
    """Added to the diagonal of the Hessian, in units of its mean; None: the tier's own. Raised where it must be."""
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

    @field_validator("mix")
    @classmethod
    def _mix_is_known(cls, mix: tuple[str, ...]) -> tuple[str, ...]:
        for tier in mix:
            if tier != KEPT:
                cls._tier_is_known(tier)
        if mix and (len(set(mix)) != len(mix) or set(mix) <= {KEPT}):
            raise ValueError(f"{', '.join(mix)}: name different tiers, one of them not {KEPT}")
        return mix

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

    @model_validator(mode="after")
    def _gradients_are_in_one_basis(self) -> Recipe:
        if self.two_sided and self.rotate != "none":
            raise ValueError("two_sided does not go with rotate: folded yet: leave one of them out")
        if self.rotate == "folded" and (self.tune == "model" or self.mix):
            raise ValueError("neither tune: model nor a mix goes with rotate: folded yet: leave one of them out")
        return self

    def ignores(self, module: str) -> bool:
        """Whether the module of this full name stays as it is."""
        return any(_fits(pattern, module) for pattern in self.ignore)

    def tier_of(self, module: str) -> str:
        """The tier of the Linear of this full name."""
        return self.tier_named(module) or self.tier

    def tier_named(self, module: str) -> str | None:
        """The tier that `tiers` gives the Linear of this full name, if it does."""
        return next((tier for pattern, tier in self.tiers.items() if _fits(pattern, module)), None)

    def fits_nothing(self, linears: Sequence[str], others: Sequence[str]) -> str | None:
        """The first line of `tiers`, or full name in `ignore`, that means nothing in a model: a slip, in most cases.

        Args:
            linears: full names of the Linears that could be quantized.
            others: names of modules and tensors, for what `ignore` may name beside them.
        """
        for pattern in self.tiers:
            if not any(_fits(pattern, name) for name in linears):
                return f"tiers names {pattern}, which fits no Linear of the decoder layers"
        for name in self.ignore:
            if name.startswith("re:") or name in DEFAULT_IGNORE or name in linears:
                continue
            if any(linear.startswith(f"{name}.") for linear in linears):
                return f"ignore names {name}, which is no Linear: write 're:{re.escape(name)}\\.' for all that is in it"
            if not any(f"{other}.".startswith(f"{name}.") for other in others):
                return f"ignore names {name}, which the model does not have"
        return None

    def damping_of(self, tier: str) -> float:
        """The damping that Linears of this tier begin with."""
        return TIER_DAMPING.get(tier, DAMPING) if self.damping is None else self.damping

    def digest(self) -> str:
        """A sha256 over every setting, without the paths of calibration files: their text is what counts."""
        paths: Any = {"calibration": {"file": True, "sources": {"__all__": {"file"}}}}
        return hashlib.sha256(self.model_dump_json(exclude=paths).encode()).hexdigest()


def _fits(pattern: str, module: str) -> bool:
    return _compiled(pattern[3:]).match(module) is not None if pattern.startswith("re:") else pattern == module


# A mix of experts has more lines than the cache of `re`.
_compiled = functools.cache(re.compile)


def first_fault(error: ValidationError) -> str:
    """Where the first fault of a document is, and what it is, in one line."""
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, "))))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The built-in recipe of this name, or the recipe in this YAML file.

    Calibration files named in YAML are looked for beside the YAML file.

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
        raise QuantizeError(f"recipe {path}: {first_fault(error)}") from None
    settings = recipe.calibration

    def beside(file: Path | None) -> dict[str, Path | None]:
        return {"file": path.parent / file if file is not None else None}  # an absolute path stays what it is

    sources = tuple(source.model_copy(update=beside(source.file)) for source in settings.sources)
    settings = settings.model_copy(update={"sources": sources, **beside(settings.file)})
    return recipe.model_copy(update={"calibration": settings})
