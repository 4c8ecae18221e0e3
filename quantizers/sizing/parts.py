"""The weights of a model by part, from config.json alone: its class is built on the meta device, without any weight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantizers.checkpoint import CONFIG_FILE, one_line, quantization_settings, read_json_object
from quantizers.config_faults import DEPTH_KEYS, EXPERT_KEYS, unknown_model
from quantizers.drafts import DRAFT_KEYS, claimed_layers
from quantizers.errors import QuantizeError

EXPERTS, SHARED, DENSE, ATTENTION = "routed experts", "shared experts", "dense MLP", "attention"
ROUTER, EMBEDDINGS, HEAD, DRAFT = "router and norms", "embeddings", "lm_head", "draft layers"
WRAPPER, OTHERS = "outside the text model", "others"
PARTS = (EXPERTS, SHARED, DENSE, ATTENTION, ROUTER, EMBEDDINGS, HEAD, DRAFT, WRAPPER, OTHERS)
MOST = dict.fromkeys((*DEPTH_KEYS, *DRAFT_KEYS), 1000) | dict.fromkeys(EXPERT_KEYS, 16384)
"""A config may claim anything: what would take long to build is refused. No model has as many."""
MIXERS = ("attn", "attention", "mixer", "mamba", "conv", "recurrent", "rg_lru", "temporal", "delta")
"""In names of what works across tokens; linear attention and state spaces are counted as attention."""
MLPS = ("mlp", "feed_forward", "ffn", "fc1", "fc2", "moe", "ff", "dense_")


@dataclass(frozen=True)
class Weight:
    """One tensor, or the same tensor of each expert."""

    name: str
    """Full name of the tensor, of the module where it is a Linear; "{}" stands for the expert's number in `copies`."""
    part: str
    shape: tuple[int, ...]
    """Of one copy; a Linear's is [O, I]."""
    copies: int = 1
    layer: int | None = None
    linear: bool = False
    """Is it a Linear of a decoder layer, which can be quantized?"""

    @property
    def parameters(self) -> int:
        """Of all copies."""
        return torch.Size(self.shape).numel() * self.copies

    @property
    def names(self) -> list[str]:
        """The full name of each copy."""
        return [self.name.replace("{}", str(index), 1) for index in range(self.copies)]


@dataclass(frozen=True)
class ModelParts:
    """What a config says of a model."""

    architecture: str
    config: Any
    """The transformers config of the text model."""
    weights: tuple[Weight, ...]
    """Tied weights once, draft layers last."""
    draft_layers: int
    quantized_by: str | None
    """How the config says that its checkpoint is quantized already: sizes are those of the 16-bit original."""

    def parameters(self, *parts: str) -> int:
        """Of these parts; of all but the draft layers where none is named."""
        return sum(w.parameters for w in self.weights if (w.part in parts if parts else w.part != DRAFT))


def model_parts(path: Path) -> ModelParts:
    """The weights of the model that a config.json, or a folder with one, describes.

    transformers has no draft (MTP) layers; each is counted as one more layer like the last, with the projection [D, 2D]
    and the three norms that join it to the model, without copies of embeddings and head.

    Raises:
        QuantizeError: there is no config.json, or none of a language model that transformers knows by itself.
    """
    file = path if path.is_file() else path / CONFIG_FILE
    raw = read_json_object(file)
    places = [place for place in (raw, raw.get("text_config")) if isinstance(place, dict)]
    for place in places:
        for key, most in MOST.items():
            if isinstance(count := place.get(key), int) and count > most:
                raise QuantizeError(f"{file} says {key} {count}: quantgate plans for at most {most}")
    model, config = _built(file, raw)
    prefix, layers = _decoder_layers(model, config)
    text, wrapped = prefix.rpartition(".")[0], config is not model.config
    tops = {id(m): part for m, part in ((_top(model, "output"), HEAD), (_top(model, "input"), EMBEDDINGS)) if m}
    weights: list[Weight] = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        inside = name.startswith(f"{prefix}.") and name.removeprefix(f"{prefix}.").split(".")[0].isdigit()
        layer = int(name.removeprefix(f"{prefix}.").split(".")[0]) if inside else None
        own_name = name.removeprefix(f"{prefix}.{layer}").removeprefix(".")
        for key, tensor in module.named_parameters(recurse=False):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            if layer is not None:
                weights += _layer_weights(name, own_name, key, module, tuple(tensor.shape), layer, config)
                continue
            kind = ROUTER if "Norm" in type(module).__name__ else OTHERS
            part = tops.get(id(module)) or (EMBEDDINGS if isinstance(module, nn.Embedding) else kind)
            if wrapped and id(module) not in tops and not name.startswith(text):
                part = WRAPPER
            weights.append(Weight(f"{name}.{key}", part, tuple(tensor.shape)))
    drafts = claimed_layers(raw)[1]
    if drafts:
        last = sum(weight.parameters for weight in weights if weight.layer == len(layers) - 1)
        width = int(getattr(config, "hidden_size", 0))
        weights.append(Weight("draft", DRAFT, (last + 2 * width * width + 3 * width,), drafts))
    settings = quantization_settings(file.parent, raw)
    method = None if settings is None else " ".join(str(settings.get("quant_method", "unnamed")).split())[:40]
    return ModelParts(type(model).__name__, config, tuple(weights), drafts, method)


def _built(file: Path, raw: dict[str, Any]) -> tuple[Any, Any]:
    """The model on the meta device, and the config of its text part."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(file, local_files_only=True, trust_remote_code=False)
        text = config.get_text_config()
        # A wrapper's own class has all of it; AutoModelForCausalLM may know the text part alone.
        whole = text is not config and type(config) in AutoModelForImageTextToText._model_mapping
        known: Any = AutoModelForImageTextToText if whole else AutoModelForCausalLM
        if type(config) not in known._model_mapping:
            raise QuantizeError(f"{file}: {_named(raw)} is no language model that transformers knows: not supported")
        with torch.device("meta"):
            return known.from_config(config, trust_remote_code=False), text
    except QuantizeError:
        raise
    except Exception as error:  # whatever a config can do wrong
        reason = unknown_model(raw) or one_line(error)
        raise QuantizeError(f"transformers cannot build {_named(raw)} from {file}: {reason}") from None


def _named(raw: dict[str, Any]) -> str:
    kind = raw.get("model_type")
    return f"model_type {json.dumps(kind)[:60]}" if kind else "a config without model_type"


def _decoder_layers(model: Any, config: Any) -> tuple[str, nn.ModuleList]:
    decoder = model.get_decoder()
    own = next((name for name, module in model.named_modules() if module is decoder), "")
    count = getattr(config, "num_hidden_layers", None)
    for name, module in decoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and name:
            return f"{own}.{name}".removeprefix("."), module
    raise QuantizeError(f"{type(model).__name__} is not one stack of decoder layers: not supported")


def _top(model: Any, which: str) -> nn.Module | None:
    try:
        found = model.get_input_embeddings() if which == "input" else model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, nn.Module) else None


def _layer_weights(
    name: str, own_name: str, key: str, module: nn.Module, shape: tuple[int, ...], layer: int, config: Any
) -> Iterator[Weight]:
    part = _part(own_name, module, len(shape))
    if part == EXPERTS and len(shape) == 3 and "bias" not in key:
        yield from _experts(name, key, module, shape, layer, config)
    else:
        linear = isinstance(module, nn.Linear) and key == "weight"
        yield Weight(name if linear else f"{name}.{key}", part, shape, layer=layer, linear=linear)


def _experts(
    name: str, key: str, module: nn.Module, shape: tuple[int, ...], layer: int, config: Any
) -> Iterator[Weight]:
    """What checkpoints hold as a Linear for each expert, transformers as one tensor: [E, O, I], in some [E, I, O]."""
    count, rows, columns = shape
    width = getattr(config, "hidden_size", None)
    turned = rows == width if "down" not in key else columns == width
    if getattr(module, "is_transposed", False) or (turned and rows != columns):
        rows, columns = columns, rows
    halves = ("gate_proj", "up_proj") if "gate_up" in key else (key.removesuffix(".weight"),)
    for half in halves:
        yield Weight(f"{name}.{{}}.{half}", EXPERTS, (rows // len(halves), columns), count, layer, True)


def _part(path: str, module: nn.Module, dimensions: int) -> str:
    """The part that a module of a decoder layer belongs to, by its path in the layer."""
    names = path.split(".")
    kind = type(module).__name__
    if names[-1] in ("gate", "router", "shared_expert_gate") or "Router" in kind or "router" in names:
        return ROUTER
    if any("shared" in name for name in names):
        return SHARED
    if "experts" in names or kind.endswith("Experts"):
        return EXPERTS
    mixers, mlps = (
        next((place for place, name in enumerate(names) if any(word in name for word in words)), len(names))
        for words in (MIXERS, MLPS)
    )
    if "Norm" in kind or (mixers == mlps and dimensions < 2):
        return ROUTER
    if mixers == mlps:
        return OTHERS
    return ATTENTION if mixers < mlps else DENSE  # the outer name decides: a convolution within an MLP is MLP
