"""Which architectures of transformers are taken, each with its own default config: writes docs/architectures.md.

    python -m scripts.architectures [--only TYPE...] --out docs/architectures.md

A checkpoint of headers alone is made for each model type (its data are holes of a sparse file), opened and planned for
`w4a16` as `quantgate quantize` would. Then one layer of each kind runs on torch's meta device, where tensors have
shapes and no numbers.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import torch

from quantizers.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from quantizers.errors import QuantizeError
from quantizers.experts import every_token
from quantizers.modeling import Architecture, build, capture_calls, run_layer
from quantizers.plan import make_plan
from quantizers.recipe import load_recipe
from quantizers.sources import open_source

NEEDS_NUMBERS = "cannot be called on meta tensors"
KNOWN = {
    "fast_vlm": "transformers builds it with the package timm alone, which was not there: not tried",
    "gemma3n": "transformers builds it with the package timm alone, which was not there: not tried",
    "hrm_text": "two stacks of 16 layers run in turns, again and again: its layers are no one list",
    "perception_lm": "transformers builds it with the package timm alone, which was not there: not tried",
    "pp_formulanet": "reads formulas from images: an encoder and a decoder without a class for text",
    "shieldgemma2": "a classifier around Gemma-3, whose weights have other names than its class: quantize Gemma-3",
    "xlnet": "its layers run two streams over relative positions that the model makes as it runs: no list alone",
}
"""Reasons that what goes wrong here does not say."""
UNTRIED: list[str] = []
"""Taken without a run: they look at numbers on their way."""


def tried(model_type: str, auto: Any) -> str | None:
    """Why the default config of a model type is refused as the model that `auto` has for it; None: it is taken."""
    from transformers import AutoConfig

    if model_type in KNOWN:
        return KNOWN[model_type]
    try:
        config: Any = AutoConfig.for_model(model_type)
        with torch.device("meta"):
            model = auto.from_config(config)
    except Exception as error:  # whatever a config can do wrong
        return f"transformers cannot build its default config: {_short(error)}"
    config.architectures = [type(model).__name__]
    for key in ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers"):
        if getattr(config, key, 0):
            setattr(config, key, 0)  # transformers' models have no draft head
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            config.save_pretrained(folder)
        except Exception as error:
            return f"transformers cannot save its default config: {_short(error)}"
        hollow(folder / WEIGHTS_FILE, stored(model))
        assert (folder / CONFIG_FILE).exists()
        try:
            checkpoint = open_source(folder)
            architecture = build(checkpoint)
            make_plan(checkpoint, architecture, load_recipe("w4a16"))
            run(architecture)
        except QuantizeError as error:
            if NEEDS_NUMBERS in str(error):
                UNTRIED.append(model_type)
                return None
            return str(error).replace(f"{folder}", "the folder").replace("|", "/")
    return None


def _short(error: Exception) -> str:
    return textwrap.shorten(" ".join(str(error).split()), 160, placeholder=" …")


def run(architecture: Architecture) -> None:
    """Run the first layer of each kind as it runs while it is quantized, on shapes alone."""
    from transformers import masking_utils

    setattr(masking_utils, "is_tracing", lambda *_: True)  # it looks at numbers otherwise  # noqa: B010
    hidden, calls = capture_calls(architecture, torch.zeros(2, 64, dtype=torch.long, device="meta"))
    kinds = {str([(n, p.shape) for n, p in layer.named_parameters()]): i for i, layer in enumerate(architecture.layers)}
    for index in kinds.values():
        with every_token(architecture.layers[index]):
            run_layer(architecture.layers[index], hidden, calls[index])


def stored(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by the names that `save_pretrained` gives them, which are those of the Hub."""
    from transformers.core_model_loading import revert_weight_conversion

    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    return {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, own).items()}


def hollow(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of these bf16 tensors that takes no room on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)


def all_tried(auto: Any, types: list[str]) -> dict[str, str | None]:
    """Why each of these is refused, or None."""
    found: dict[str, str | None] = {}
    for model_type in types:
        try:
            found[model_type] = tried(model_type, auto)
        except Exception as error:  # the others are still worth their time
            found[model_type] = f"FAULT {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        print(model_type, found[model_type] or "taken", flush=True)
    return found


def listed(found: dict[str, str | None]) -> str:
    """The taken ones, and a table of the others."""
    rows = "".join(f"| `{name}` | {reason} |\n" for name, reason in found.items() if reason)
    taken = ", ".join(f"`{name}`" for name, reason in found.items() if reason is None)
    return f"Taken: {taken}.\n\n| not taken | why |\n| --- | --- |\n{rows}"


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, __version__
    from transformers.models.auto import modeling_auto

    parser = argparse.ArgumentParser(prog="python -m scripts.architectures", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    causal: dict[str, Any] = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    mixed: dict[str, Any] = modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    texts = all_tried(AutoModelForCausalLM, [n for n in sorted(causal) if not asked.only or n in asked.only])
    others = [n for n in sorted(mixed) if causal.get(n) != mixed[n] and (not asked.only or n in asked.only)]
    wrappers = all_tried(AutoModelForMultimodalLM, others)
    counts = [sum(reason is None for reason in found.values()) for found in (texts, wrappers)]
    asked.out.write_text(
        f"""# Architectures

    {parser.prog} --out docs/architectures.md

Of the {len(texts)} model types for which transformers {__version__} has a causal language model, {counts[0]} are
taken with their default config: headers, names and shapes fit, every Linear of a decoder layer can be quantized by
`w4a16`, and the layers run one by one (on shapes alone). Experts are taken where they compute
down(act(gate(x)) * up(x)), which is tried on small random weights, under the names `gate_proj`, `up_proj`, `down_proj`
or `w1`, `w3`, `w2`, one by one or in one tensor. Tensors may have other names than their modules: transformers' own
rules for loading are asked (`quantizers/names.py`, [why](decisions/0037-stored-names.md)). Not run, as they look at
numbers on their way: {", ".join(UNTRIED) or "none"}.

What it takes to add one: a decoder that calls its layers one after the other, Linears with names of their own, and for
experts the form above (`quantizers/experts.py`).

{listed(texts)}
## Models for texts and images or sound

The text part is quantized, the rest is carried as it is and listed in `ignore`. Of the {len(wrappers)} model types that
have a class of their own for it, {counts[1]} are taken with their default config.

{listed(wrappers)}""",
        "utf-8",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
