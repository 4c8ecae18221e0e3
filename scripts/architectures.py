"""Which architectures of transformers are taken, each with its own default config: writes docs/architectures.md.

    python -m scripts.architectures [--only TYPE...] --out docs/architectures.md

A checkpoint of headers alone is made for each model type (its data are holes of a sparse file), opened and planned for
`w4a16` as `quantgate quantize` would. Nothing is run: what a layer computes is seen when it is quantized.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from quantizers.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from quantizers.errors import QuantizeError
from quantizers.modeling import build
from quantizers.plan import make_plan
from quantizers.recipe import load_recipe
from quantizers.sources import open_source


def tried(model_type: str) -> str | None:
    """Why the default config of a model type is refused; None: it is taken."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config: Any = AutoConfig.for_model(model_type)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # whatever a config can do wrong
        return f"transformers cannot build its default config: {' '.join(str(error).split())[:120]}"
    config.architectures = [type(model).__name__]
    for key in ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers"):
        if getattr(config, key, 0):
            setattr(config, key, 0)  # transformers' models have no draft head
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            config.save_pretrained(folder)
        except Exception as error:
            return f"transformers cannot save its default config: {' '.join(str(error).split())[:120]}"
        hollow(folder / WEIGHTS_FILE, stored(model))
        assert (folder / CONFIG_FILE).exists()
        try:
            checkpoint = open_source(folder)
            make_plan(checkpoint, build(checkpoint), load_recipe("w4a16"))
        except QuantizeError as error:
            return str(error).replace(f"{folder}", "the folder").replace("|", "/")
    return None


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


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    from transformers import __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    parser = argparse.ArgumentParser(prog="python -m scripts.architectures", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    types = asked.only or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    found: dict[str, str | None] = {}
    for model_type in types:
        try:
            found[model_type] = tried(model_type)
        except Exception as error:  # the others are still worth their time
            found[model_type] = f"FAULT {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        print(model_type, found[model_type] or "taken", flush=True)
    taken = [name for name, reason in found.items() if reason is None]
    rows = "".join(f"| `{name}` | {reason} |\n" for name, reason in found.items() if reason)
    asked.out.write_text(
        f"""# Architectures

    {parser.prog} --out docs/architectures.md

Of the {len(found)} model types for which transformers {__version__} has a causal language model, {len(taken)} are
taken with their default config: headers, names and shapes fit, every Linear of a decoder layer can be quantized by
`w4a16`. Experts are taken where they compute down(act(gate(x)) * up(x)), which is tried on small random weights, under
the names `gate_proj`, `up_proj`, `down_proj` or `w1`, `w3`, `w2`, one by one or in one tensor.

Taken: {", ".join(f"`{name}`" for name in taken)}.

The others, and why. What it takes to add one: a decoder that calls its layers one after the other, Linears with names
of their own, and for experts the form above (`quantizers/experts.py`).

| model type | reason |
| --- | --- |
{rows}""",
        "utf-8",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
