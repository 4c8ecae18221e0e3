"""The architecture without its weights: built on the meta device, filled and emptied layer by layer."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from quantizers.checkpoint import CONFIG_FILE, Checkpoint, one_line, quantization_settings
from quantizers.config_faults import refuse_claims, refuse_values, unknown_model
from quantizers.errors import QuantizeError
from quantizers.experts import unfold
from quantizers.filling import compute_buffers, load, require, stored
from quantizers.mixtures import CHOSEN_KEY, require_mixtures
from quantizers.names import move_to_stored_names, note_names, note_of, stored_module, stored_prefix

RETURNED_BESIDE = (0, 1, 2)
"""Things that layers return beside their states: none; one in GLM-5 and Falcon; a state and attention in RWKV."""
READ = "in 16 bits or in 8-bit floats with a weight_block_size of [128, 128]"
_POSITIONS = re.compile(r"(?:^|[._])(?:pos|wpe)")
"""In names of embeddings of positions: embed_positions, position_embeddings, wpe."""


@dataclass(frozen=True)
class Architecture:
    """A transformers model on the meta device, and where its decoder layers are."""

    model: Any
    layers: nn.ModuleList
    prefix: str
    """What the checkpoint calls `layers`, as in "model.layers"; tensors of layer i start with "{prefix}.{i}."."""
    towers: tuple[nn.Module, ...] = ()
    """Models for images and sound within it, which texts do not pass."""

    @property
    def apart(self) -> tuple[nn.Module, ...]:
        """What stays empty where the way to the decoder layers and from them is filled."""
        return self.layers, *self.towers


@dataclass(frozen=True)
class LayerCall:
    """What the model passes to one decoder layer beside the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layer: str = "a decoder layer"
    """Full name of the layer, to name it when it fails."""
    sequences: int = 0
    """How many were in the batch that it was captured with."""
    positions: int | None = None
    """The longest text by the model's config, which not every model needs to keep to."""

    def narrowed(self, sequences: int) -> LayerCall:
        """The same call for fewer sequences."""

        def narrow(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == self.sequences:
                return value[:sequences]
            if isinstance(value, (tuple, list)):
                return type(value)(map(narrow, value))
            return {key: narrow(v) for key, v in value.items()} if isinstance(value, dict) else value

        return replace(self, args=narrow(self.args), kwargs=narrow(self.kwargs), sequences=sequences)


def build(checkpoint: Checkpoint) -> Architecture:
    """Build the model class that config.json names, on the meta device; no weight is read, no code fetched.

    Raises:
        QuantizeError: the model is already quantized, has experts of an unknown kind, needs its own code, is not one
            stack of decoder layers, or config.json and the files do not fit each other.
    """
    from transformers import AutoConfig

    folder = checkpoint.folder
    settings = quantization_settings(folder, checkpoint.config)
    if settings is not None:
        method = " ".join(str(settings.get("quant_method", "its config says so")).split())[:40]
        raise QuantizeError(f"{folder} is already quantized ({method}): give the original model, {READ}")
    refuse_values(checkpoint.config)
    # A config may claim anything: what would take long to build is held against the files first.
    for place in (checkpoint.config, checkpoint.config.get("text_config")):
        refuse_claims(checkpoint, place if isinstance(place, dict) else {})
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        refuse_claims(checkpoint, {"num_hidden_layers": getattr(config, "num_hidden_layers", None)})
        with torch.device("meta"):
            model: Any = _class_of(config).from_config(config, trust_remote_code=False).eval()
    except QuantizeError:
        raise
    except Exception as error:  # whatever a config can do wrong
        reason = unknown_model(checkpoint.config) or (
            f"{_named(error)}: correct its {CONFIG_FILE}, or get the complete model"
        )
        raise QuantizeError(f"transformers cannot build the model in {folder}: {reason}") from None
    note_names(model, checkpoint)
    if model.base_model is model and isinstance(getattr(model, "model", None), nn.Module):
        model.base_model_prefix = "model"  # Llama 4 for texts alone has the prefix of the wrapper
    base = model.base_model
    text = config.get_text_config(decoder=True)
    # Of encoders with decoders, num_hidden_layers counts the encoder's; LongCat has two of all in one layer.
    depths = [getattr(text, key, None) for key in ("num_hidden_layers", "decoder_layers", "num_layers")]
    found = [(n, m) for n, m in base.named_modules() if isinstance(m, nn.ModuleList) and len(m) in depths]
    # A model for texts and images has two stacks, of one depth perhaps.
    towers = ("vision", "visual", "audio")
    found.sort(key=lambda place: (any(part in place[0] for part in towers), depths.index(len(place[1]))))
    if base is model or not found:
        raise QuantizeError(f"{type(model).__name__} in {folder} is not one stack of decoder layers: not supported")
    path, layers = f"{model.base_model_prefix}.{found[0][0]}", found[0][1]
    prefix = stored_prefix(layers, path)
    unfold(layers, prefix, checkpoint)
    for index, layer in enumerate(layers):
        move_to_stored_names(layer, f"{prefix}.{index}")
    architecture = Architecture(model, layers, prefix, _towers(model, layers))
    for index, layer in enumerate(layers):
        require(checkpoint, layer, f"{prefix}.{index}", ())
    require(checkpoint, base, model.base_model_prefix, layers)
    for part in (part for child in model.children() if child is not base for part in child.modules()):
        for key, names in note_of(part).stored.items():  # a head that is stored nowhere is tied
            stored(checkpoint, names, tuple(getattr(part, key).shape))
    require_mixtures(layers, prefix, checkpoint, getattr(text, CHOSEN_KEY, None))
    return architecture


def _named(error: Exception) -> str:
    """What an error says; Python's own may say no more than a key."""
    kind = f"{type(error).__name__}: " if type(error).__module__ == "builtins" else ""
    return f"{kind}{one_line(error)}"


def _class_of(config: Any) -> Any:
    """The auto class whose model config.json names: for texts, or else for texts and images or sound.

    Raises:
        QuantizeError: transformers has none of them for this kind of model.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MULTIMODAL_LM_MAPPING

    known = {
        auto: mapping.get(type(config), None)
        for auto, mapping in (
            (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
            (AutoModelForMultimodalLM, MODEL_FOR_MULTIMODAL_LM_MAPPING),
        )
    }
    if not any(known.values()):
        raise QuantizeError(
            f"transformers has no model of model_type {config.model_type} that writes texts by a decoder alone "
            f"({', '.join(auto.__name__ for auto in known)}): not supported"
        )
    named = getattr(config, "architectures", None) or []
    fitting = [auto for auto, model in known.items() if getattr(model, "__name__", None) in named]
    return next(iter([*fitting, *(auto for auto, model in known.items() if model)]), AutoModelForCausalLM)


def _towers(model: Any, layers: nn.ModuleList) -> tuple[nn.Module, ...]:
    """Whole models inside of `model` that hold neither the decoder layers nor the embeddings."""
    from transformers import PreTrainedModel

    way = {layers, model.get_input_embeddings()}
    inside = set(layers.modules())
    found: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module not in inside and way.isdisjoint(module.modules()):
            found.append(module)
    return tuple(found)


def stored_modules(architecture: Architecture) -> dict[str, nn.Module]:
    """All modules by what the checkpoint calls them; those that hold no tensors there, by their names in the model."""
    layers = {
        ".".join(filter(None, (architecture.prefix, str(index), path))): module
        for index, layer in enumerate(architecture.layers)
        for path, module in layer.named_modules()
    }
    inside = set(architecture.layers.modules())
    found: dict[str, nn.Module] = {}
    for path, module in architecture.model.named_modules():
        if module not in inside:
            name = stored_module(module) or path
            found[path if name in found else name] = module  # a tied head has no tensor of its own
    return found | layers


def linear_names(architecture: Architecture, index: int) -> list[str]:
    """Full names of the Linears in decoder layer `index`, in module order."""
    layer = architecture.layers[index]
    return [f"{architecture.prefix}.{index}.{n}" for n, m in layer.named_modules() if isinstance(m, nn.Linear)]


def fill(
    model: Any,
    module: nn.Module,
    prefix: str,
    checkpoint: Checkpoint,
    *,
    device: str,
    dtype: torch.dtype,
    skip: Sequence[nn.Module] = (),
) -> None:
    """Give `module` (called `prefix` in the checkpoint) its weights from there, as `dtype` on `device`.

    Submodules in `skip` stay empty. Buffers that no checkpoint stores (rotary
    frequencies, embedding scales) are computed by the model's own initialiser.

    Raises:
        QuantizeError: a tensor is missing, has another shape, or holds NaN or infinity.
    """
    named = {".".join(filter(None, (prefix, path))): part for path, part in module.named_modules()}
    left = {part for top in skip for part in top.modules()}
    parts = {name: part for name, part in named.items() if part not in left}
    for name, part in parts.items():
        compute_buffers(model, part, name, device)
    for name, part in parts.items():  # after them: an initialiser may write weights too
        for key, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if key in part._non_persistent_buffers_set:
                continue
            value = load(checkpoint, note_of(part).stored.get(key, (f"{name}.{key}",)), tuple(tensor.shape))
            value = value.to(device)  # as it is stored, which is half of what float32 is
            value = value.to(dtype) if value.is_floating_point() else value
            if isinstance(tensor, nn.Parameter):
                part._parameters[key] = nn.Parameter(value, requires_grad=False)
            else:
                part._buffers[key] = value


def empty(module: nn.Module) -> None:
    """Free the weights of `module` again, and give what glibc keeps of them between layers back to the system."""
    module.to("meta")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def require_embeddings(architecture: Architecture, tokens: torch.Tensor) -> None:
    """Raises QuantizeError where calibration has tokens or positions that the model has no embeddings for."""
    given = architecture.model.get_input_embeddings()
    embeddings, highest = given.weight.shape[0], int(tokens.max())
    if highest >= embeddings:
        raise QuantizeError(
            f"calibration has token {highest}, but the model has {embeddings} embeddings: the tokenizer, or the ids of "
            "a calibration file, are of another model"
        )
    apart = {part for top in architecture.apart for part in top.modules()} | {given}
    text = architecture.model.config.get_text_config(decoder=True)
    for name, module in architecture.model.base_model.named_modules():
        if isinstance(module, nn.Embedding) and module not in apart and _POSITIONS.search(name):
            rows = module.num_embeddings - int(getattr(module, "offset", 0))
            if type(module) is nn.Embedding and module.padding_idx is not None:  # RoBERTa counts from behind it
                rows -= module.padding_idx + 1
            most = min(rows, getattr(text, "max_position_embeddings", None) or rows)
            if tokens.shape[1] > most:
                raise QuantizeError(
                    f"calibration has texts of {tokens.shape[1]} tokens, but the model has {most} positions: give the "
                    f"calibration a length of {most} at most"
                )


def capture_calls(architecture: Architecture, tokens: torch.Tensor) -> tuple[torch.Tensor, list[LayerCall]]:
    """Run token ids [B, L] up to the first decoder layer.

    Returns the hidden states [B, L, D] that enter it, and what every layer is called with (masks and position
    embeddings may differ between layers). The layers themselves do not run.

    Raises:
        QuantizeError: the model does not call its layers one after the other.
    """
    entered: list[torch.Tensor] = []
    calls: dict[int, LayerCall] = {}
    reason = "their states change between them"
    for more in RETURNED_BESIDE:
        try:
            entered, calls = _stand_ins(architecture, tokens, more)
        except QuantizeError:
            raise
        except Exception as error:  # anything a model's forward may raise
            reason = one_line(error)
            continue
        if all(states.shape == entered[0].shape for states in entered):
            break
    else:
        way_out = _too_long(tokens.shape[1], _positions(architecture))
        raise QuantizeError(f"the model's layers cannot be run one by one ({reason}): {way_out or 'not supported'}")
    if list(calls) != list(range(len(architecture.layers))):
        raise QuantizeError("the model does not call its decoder layers once each, in order: not supported")
    return entered[0], [_with_all_tokens(architecture, calls[index], index, tokens) for index in range(len(calls))]


def _stand_ins(
    architecture: Architecture, tokens: torch.Tensor, more: int
) -> tuple[list[torch.Tensor], dict[int, LayerCall]]:
    """What enters each layer and what it is called with, where none of them does anything to its states.

    `more`: so many things are returned beside the states.
    """
    entered: list[torch.Tensor] = []
    calls: dict[int, LayerCall] = {}
    positions = _positions(architecture)

    def stand_in(index: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden: torch.Tensor = args[0] if args else kwargs.pop("hidden_states")
            entered.append(hidden)
            calls[index] = LayerCall(args[1:], kwargs, f"{architecture.prefix}.{index}", len(hidden), positions)
            return (hidden, *[None] * more) if more else hidden

        return forward

    try:
        for index, layer in enumerate(architecture.layers):
            layer.forward = stand_in(index)
        with torch.no_grad():
            architecture.model.base_model(input_ids=tokens, use_cache=False)
    finally:
        for layer in architecture.layers:
            layer.__dict__.pop("forward", None)
    return entered, calls


def _with_all_tokens(architecture: Architecture, call: LayerCall, index: int, tokens: torch.Tensor) -> LayerCall:
    """The call of a layer that attends to the tokens which an earlier one has picked (GLM-5): here to all of them.

    Raises:
        QuantizeError: the texts are longer than what is picked, so that it would not be all of them.
    """
    picks = [module for module in architecture.layers[index].modules() if getattr(module, "skip_topk", False)]
    if not picks or call.kwargs.get("prev_topk_indices", 0) is not None:
        return call
    length, most = tokens.shape[1], int(getattr(architecture.model.config, "index_topk", 0))
    if length > most:
        raise QuantizeError(
            f"{call.layer} attends to {most} tokens that an earlier layer has picked: give the calibration a length of "
            f"{most} at most"
        )
    every = torch.arange(length, device=tokens.device).expand(len(tokens), length, length)
    return replace(call, kwargs={**call.kwargs, "prev_topk_indices": every})


def _positions(architecture: Architecture) -> int | None:
    """The longest text by the model's config, where it says so."""
    text = architecture.model.config.get_text_config(decoder=True)
    said = (getattr(text, key, None) for key in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return next((length for length in said if isinstance(length, int)), None)


def _too_long(length: int, positions: int | None) -> str | None:
    """The way out where a model that could not be run was given texts longer than its config allows."""
    if positions is None or length <= positions:
        return None
    return (
        f"its config.json has {positions} positions, and calibration has texts of {length} tokens: give the "
        f"calibration a length of {positions} at most"
    )


def holds_nan(value: Any) -> bool:
    """Whether a captured argument holds NaN; masks hold infinities."""
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() and bool(value.isnan().any())
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return any(map(holds_nan, inside))


def same(a: Any, b: Any) -> bool:
    """Whether two captured arguments are equal, tensors by value."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and (a == b or not isinstance(a, (int, float, str, bool, type(None))))


def run_layer(layer: nn.Module, hidden: torch.Tensor, call: LayerCall) -> torch.Tensor:
    """Hidden states [B, L, D] through one decoder layer. Raises QuantizeError, naming the layer, if it cannot run."""
    try:
        with torch.no_grad():
            result = layer(hidden, *call.args, **call.kwargs)
    except QuantizeError:
        raise
    except Exception as error:  # anything a model's forward may raise
        reason = f"{type(error).__name__}: {one_line(error)}"
        way_out = _too_long(hidden.shape[1], call.positions) or "not supported"
        raise QuantizeError(f"{call.layer} cannot be run ({reason}): {way_out}") from None
    output = result[0] if isinstance(result, tuple) else result
    if not isinstance(output, torch.Tensor) or output.shape != hidden.shape:
        raise QuantizeError(f"{call.layer} does not return hidden states like those that enter it: not supported")
    return output
