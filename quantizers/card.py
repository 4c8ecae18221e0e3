"""The README.md of a quantized model: what it is, of what, and how it was made."""

from __future__ import annotations

import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CardData, metadata_load
from quantgate_kernels.formats.fp8_block import BLOCK

from quantizers.checkpoint import BlockFp8, TensorInfo
from quantizers.drafts import NAMED
from quantizers.plan import Plan
from quantizers.recipe import Calibration, Recipe
from quantizers.schemes import CardWords, servable, served
from quantizers.tuning import METHODS

KEPT = ("embeddings, norms and all else", "as it was")
DRAFT = ("draft head (MTP)", "as it was")
FOLDED = (
    "| rotation | folded into all weights before they were quantized: the hidden states, and V with O (arXiv "
    "2404.00456); norms hand their weights to the linear layers after them |\n"
)
CACHES = ("QUANTGATE_CACHE", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME")
"""Environment variables that name a cache."""
_HUB_CACHE = re.compile(r"^models--([^/]+?)--([^/]+)$")
_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def model_card(source: Path, recipe: Recipe, plan: Plan, usage: Mapping[str, list[int]]) -> str:
    """Markdown with YAML front matter for the quantized form of the model in `source`.

    `usage`: how many tokens of the calibration each expert saw, by the full name of the experts of a layer.
    """
    words = [scheme.words() for scheme in plan.distinct().values()]
    shared = [tag for tag in words[0].tags if all(tag in each.tags for each in words)]
    original = original_name(source)
    front: dict[str, Any] = {} if original is None else {"base_model": original}
    front |= {
        "base_model_relation": "quantized",
        "tags": list(dict.fromkeys(["quantgate", recipe.name, *shared])),
    }
    front |= {key: value for key, value in _front_matter(source).items() if key in ("license", "language")}
    quantized = sum(map(len, plan.targets))
    before = sum(part.nbytes for info in _infos(plan) for part in info.stored)
    texts = recipe.calibration
    amount = f"{texts.samples} x {texts.length} tokens of {calibration_words(texts)}, seed {texts.seed}"
    rows = "".join(f"| {name} | {value} |\n" for name, value in _settings(words).items())
    return f"""---
{CardData(**front).to_yaml().strip()}
---

# {(original or source.name).rstrip("/").rpartition("/")[2]}, {recipe.name}

A quantized form of `{original or source.name}`, made by quantgate.

| | |
| --- | --- |
| method | {_joined(each.method for each in words)} |
| weights | {_joined(each.weights for each in words)} |
{FOLDED if recipe.rotate == "folded" else ""}| activations | {_joined(each.activations for each in words)} |
| format | {_joined(each.format for each in words)} |
| quantized | {quantized} linear layers in {len(plan.targets)} decoder layers |
| original | stored in {_original(plan)} |
| kept as they were | {len(plan.ignore)} entries in `ignore`, embeddings, norms, biases{_as_bf16(plan)} |
| calibration | {amount if plan.calibrated else "none"} |
| tuning | {tuning_words(recipe) if plan.calibrated else "none"} |
{_experts(usage, recipe)}{rows}| size | {plan.output_bytes() / 1e9:.3g} GB (was {before / 1e9:.3g} GB) |

| part | stored as | weights | bits each |
| --- | --- | --- | --- |
{_parts(plan)}
{_serving(plan)}
"""


def _infos(plan: Plan) -> list[TensorInfo]:
    return [info for group in plan.layer_tensors + plan.other_tensors for info in group]


def _original(plan: Plan) -> str:
    """The dtypes of the original that hold at least a hundredth of its bytes, the most first."""
    found: Counter[str] = Counter()
    for info in _infos(plan):
        for part in info.stored:
            blocks = f" in blocks of {BLOCK} x {BLOCK}" if isinstance(info, BlockFp8) and part.name == info.name else ""
            found[part.dtype + blocks] += part.nbytes
    return ", ".join(dtype for dtype, size in found.most_common() if 100 * size >= found.total())


def _as_bf16(plan: Plan) -> str:
    names = [info.name for info in _infos(plan) if isinstance(info, BlockFp8)]
    kept = [name for name in names if name.removesuffix(".weight") not in plan.schemes]
    return f"; {len(kept)} matrices of 8-bit floats among them are bf16 now (first: `{kept[0]}`)" if kept else ""


def tuning_words(recipe: Recipe) -> str:
    """What the weights were fitted to beside the calibration's inputs, and how much work it was."""
    tuning, found = METHODS[recipe.tune], []
    if recipe.two_sided:
        found.append("errors weighed by what they do to the loss (one pass back through the original)")
    if tuning is not None:
        steps = f"{tuning.after.steps} steps a layer"
        if tuning.between is not None:
            steps += f", and {tuning.between.steps} after each group of its Linears but the last"
        found.append(f"each layer towards the original's output ({steps})")
    if tuning is not None and tuning.model is not None:
        found.append(
            f"**the whole model towards the original's distribution over the calibration ({tuning.model.steps} steps)**"
        )
    return "; ".join(found) or "none"


def calibration_words(settings: Calibration) -> str:
    """The texts that a model is calibrated on, with their weights where there are several."""
    if settings.file is None and not settings.sources:
        return "the texts shipped with quantgate"
    if len(settings.drawn_on) == 1:
        return settings.drawn_on[0].label
    return ", ".join(f"{source.label} (weight {source.weight:g})" for source in settings.drawn_on)


def _joined(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(words))


def _settings(words: Iterable[CardWords]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for each in words:
        for name, value in each.settings.items():
            found.setdefault(name, []).append(value)
    return {name: _joined(values) for name, values in found.items()}


def _parts(plan: Plan) -> str:
    """A row for each kind of Linear and tier, one for a draft head, and one for what else was kept."""
    # Patterns in `ignore` are those of draft layers beyond the last.
    layers = [re.compile(entry[3:]) for entry in plan.ignore if entry.startswith("re:")]
    sizes: dict[tuple[str, str], list[int]] = {}
    for info in _infos(plan):
        name = info.name.removesuffix(".weight")
        scheme, count = plan.schemes.get(name), math.prod(info.shape)
        draft = NAMED.search(name) or any(layer.match(name) for layer in layers)
        part = (_part(name), scheme.tier) if scheme else DRAFT if draft else KEPT
        held = sizes.setdefault(part, [0, 0])
        held[0] += count
        held[1] += scheme.nbytes(*info.shape) if scheme else info.nbytes
    rows = sorted(sizes.items(), key=lambda row: (row[0] in (DRAFT, KEPT), row[0]))
    return "".join(f"| {n} | {t} | {w:,} | {8 * b / w:.3f} |\n" for (n, t), (w, b) in rows if w)


def _part(name: str) -> str:
    """`gate_proj`, or `gate_proj of experts`: what a Linear is called in the table."""
    of = " of experts" if re.search(r"\.experts\.\d+\.", name) else " of shared experts" if "shared_exp" in name else ""
    return name.rpartition(".")[2] + of


def _experts(usage: Mapping[str, list[int]], recipe: Recipe) -> str:
    """A row on how the calibration reached the experts."""
    counts = [count for layer in usage.values() for count in layer]
    if not counts:
        return ""
    unseen = [f"`{name}.{number}`" for name, layer in usage.items() for number, n in enumerate(layer) if not n]
    own = "on its own tokens, and on all where these are few"
    how = "on all tokens" if recipe.moe_calibrate_all_experts else own
    said = f"{len(counts):,} in {len(usage)} layers, each calibrated {how}; the router gave them "
    said += f"{statistics.median(counts):,.0f} in the middle, {max(counts):,} at most"
    if unseen:
        more = f" and {len(unseen) - 8} more" if len(unseen) > 8 else ""
        said += f"; **none to {len(unseen):,}**, calibrated on all: {', '.join(unseen[:8])}{more}"
    return f"| experts | {said} |\n"


def _serving(plan: Plan) -> str:
    schemes = list(plan.distinct().values())
    if len(schemes) == 1 and (note := schemes[0].serving(plan.shapes())) is not None:
        return note
    if served(plan.distinct()):
        return "Serve it with `vllm serve <this folder>`."
    if servable(plan.distinct()):
        return (
            "Serve it with `vllm serve <this folder>` where quantgate-kernels is installed beside vLLM: `pip install "
            "--no-deps quantgate-kernels`. `quantgate dequantize <this folder> --out DIR` turns it back into bf16, "
            "which serves anywhere."
        )
    return (
        "Stock servers cannot read these codes. `quantgate dequantize <this folder> --out DIR` turns them back into "
        "bf16, which serves anywhere."
    )


def original_name(source: Path) -> str | None:
    """What the model in `source` is called elsewhere, else its folder's whole path; None where only a cache is known.

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
    if copied and isinstance(base, str) and _HUB_NAME.match(base) and _bears(source.resolve().name, base):
        return base
    # A path from where somebody stood (owner/name) would be taken for a model of the Hub.
    return None if _in_a_cache(source.resolve()) else str(source.absolute())


def _bears(folder: str, hub_id: str) -> bool:
    """Whether a folder has the name of a model: alone or with its owner's, in whatever case and punctuation."""
    owner, _, name = hub_id.partition("/")
    return _letters(folder) in (_letters(name), _letters(owner + name))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _in_a_cache(source: Path) -> bool:
    """Whether a path lies in a cache, where no reader of a card can look."""
    named = [Path(folder).resolve() for name in CACHES if (folder := os.environ.get(name))]
    return ".cache" in source.parts or any(source.is_relative_to(folder) for folder in named)


def _front_matter(source: Path) -> dict[str, Any]:
    """What the original's card says of itself; nothing when there is no card or its front matter is broken."""
    try:  # as it is written: one bad entry of its `model-index` must not hide its name
        return dict(metadata_load(source / "README.md") or {})
    except Exception:  # whatever reading and YAML raise: the card is a courtesy, not an input
        return {}
