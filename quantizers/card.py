"""The README.md of a quantized model: what it is, of what, and how it was made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import CardData, ModelCard

from quantizers.plan import Plan
from quantizers.recipe import Recipe

_HUB_CACHE = re.compile(r"^models--([^/]+?)--([^/]+)$")
_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def model_card(source: Path, config: dict[str, Any], recipe: Recipe, plan: Plan) -> str:
    """Markdown with YAML front matter for the quantized form of the model in `source`."""
    words = plan.scheme.words()
    front: dict[str, Any] = {
        "base_model": original_name(source, config),
        "base_model_relation": "quantized",
        "tags": list(dict.fromkeys(["quantgate", recipe.name, *words.tags])),
    }
    front |= {key: value for key, value in _front_matter(source).items() if key in ("license", "language")}
    quantized = sum(map(len, plan.targets))
    before = sum(info.nbytes for group in plan.layer_tensors + plan.other_tensors for info in group)
    settings = recipe.calibration
    text = settings.file.name if settings.file else "the texts shipped with quantgate"
    rows = "".join(f"| {name} | {value} |\n" for name, value in words.settings.items())
    return f"""---
{CardData(**front).to_yaml().strip()}
---

# {original_name(source, config).rstrip("/").rpartition("/")[2]}, {recipe.name}

A quantized form of `{front["base_model"]}`, made by quantgate.

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


def original_name(source: Path, config: dict[str, Any]) -> str:
    """The model's name on the Hub if its folder or config tells, else the folder path as it was given."""
    for part in source.resolve().parts:
        match = _HUB_CACHE.match(part)
        if match:
            return f"{match.group(1)}/{match.group(2)}"
    claimed = config.get("_name_or_path")
    return claimed if isinstance(claimed, str) and _HUB_NAME.match(claimed) else str(source)


def _front_matter(source: Path) -> dict[str, Any]:
    """What the original's card says of itself; nothing when there is no card or its front matter is broken."""
    try:
        card = ModelCard((source / "README.md").read_text(encoding="utf-8"))
    except Exception:  # whatever YAML or the card's checks raise: the card is a courtesy, not an input
        return {}
    return dict(card.data.to_dict())  # type: ignore[no-untyped-call]
