"""The README.md of a quantized model: what it is, of what, and how it was made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import CardData, ModelCard

from quantizers.plan import Plan
from quantizers.recipe import Calibration, Recipe

_HUB_CACHE = re.compile(r"^models--([^/]+?)--([^/]+)$")
_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def model_card(source: Path, recipe: Recipe, plan: Plan) -> str:
    """Markdown with YAML front matter for the quantized form of the model in `source`."""
    words = plan.scheme.words()
    original = original_name(source)
    front: dict[str, Any] = {} if original is None else {"base_model": original}
    front |= {
        "base_model_relation": "quantized",
        "tags": list(dict.fromkeys(["quantgate", recipe.name, *words.tags])),
    }
    front |= {key: value for key, value in _front_matter(source).items() if key in ("license", "language")}
    quantized = sum(map(len, plan.targets))
    before = sum(info.nbytes for group in plan.layer_tensors + plan.other_tensors for info in group)
    settings = recipe.calibration
    rows = "".join(f"| {name} | {value} |\n" for name, value in words.settings.items())
    text = calibration_words(recipe.calibration)
    return f"""---
{CardData(**front).to_yaml().strip()}
---

# {(original or source.name).rstrip("/").rpartition("/")[2]}, {recipe.name}

A quantized form of `{original or source.name}`, made by quantgate.

| | |
| --- | --- |
| method | {words.method} |
| weights | {words.weights} |
| activations | {words.activations} |
| format | {words.format} |
| quantized | {quantized} linear layers in {len(plan.targets)} decoder layers |
| kept as they were | {len(plan.ignore)} entries in `ignore`, embeddings, norms, biases |
| calibration | {settings.samples} x {settings.length} tokens of {text}, seed {settings.seed} |
{rows}| size | {plan.output_bytes() / 1e9:.3g} GB (was {before / 1e9:.3g} GB) |

Serve it with `vllm serve <this folder>`.
"""


def calibration_words(settings: Calibration) -> str:
    """The texts that a model is calibrated on, with their weights where there are several."""
    if settings.file is None and not settings.sources:
        return "the texts shipped with quantgate"
    if len(settings.drawn_on) == 1:
        return settings.drawn_on[0].label
    return ", ".join(f"{source.label} (weight {source.weight:g})" for source in settings.drawn_on)


def original_name(source: Path) -> str | None:
    """What the model in `source` is called elsewhere, else the folder as given; None where only a cache is known.

    The Hub's cache tells by its folders. A card's `base_model` is taken where the folder bears its name (a copy); under
    another name the folder holds something made of it, a fine-tune, which must not be gated against what it was made
    of. `_name_or_path` of config.json is what some earlier step read, and is never taken.
    """
    for part in source.resolve().parts:
        match = _HUB_CACHE.match(part)
        if match:
            return f"{match.group(1)}/{match.group(2)}"
    front = _front_matter(source)
    base = front.get("base_model")
    if isinstance(base, list) and len(base) == 1:
        base = base[0]
    copied = front.get("base_model_relation") in (None, "quantized")
    if copied and isinstance(base, str) and _HUB_NAME.match(base) and base.partition("/")[2] == source.resolve().name:
        return base
    return None if ".cache" in source.resolve().parts else str(source)


def _front_matter(source: Path) -> dict[str, Any]:
    """What the original's card says of itself; nothing when there is no card or its front matter is broken."""
    try:
        card = ModelCard((source / "README.md").read_text(encoding="utf-8"))
    except Exception:  # whatever YAML or the card's checks raise: the card is a courtesy, not an input
        return {}
    return dict(card.data.to_dict())  # type: ignore[no-untyped-call]
