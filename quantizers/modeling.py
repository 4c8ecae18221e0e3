"""The architecture without its weights: built on the meta device, filled and emptied layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quantizers.checkpoint import Checkpoint, one_line, read_tensor
from quantizers.errors import QuantizeError

FLOATS = {"F64", "F32", "F16", "BF16"}
UNSET = -12345.0


@dataclass(frozen=True)
class Architecture:
    """A transformers model on the meta device, and where its decoder layers are."""

    model: Any
    layers: nn.ModuleList
    prefix: str
    """Full name of `layers`, as in "model.layers"; tensors of layer i start with "{prefix}.{i}."."""


@dataclass(frozen=True)
class LayerCall:
    """What the model passes to one decoder layer beside the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def build(checkpoint: Checkpoint) -> Architecture:
    """Build the model class that config.json names, on the meta device; no weight is read, no code fetched.

    Raises:
        QuantizeError: the model is already quantized, has experts, needs its own code, or is not a stack of equal
            decoder layers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = checkpoint.folder
    if "quantization_config" in checkpoint.config or "compression_config" in checkpoint.config:
        raise QuantizeError(f"{folder} is already quantized (config.json says so): give the original model")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
    except Exception as error:  # whatever a config can do wrong
        raise QuantizeError(f"transformers cannot build the model in {folder}: {one_line(error)}") from None
    count = getattr(config, "num_hidden_layers", None)
    base = model.base_model
    found = [(n, m) for n, m in base.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if base is model or not found:
        raise QuantizeError(f"{type(model).__name__} in {folder} is not one stack of decoder layers: not supported")
    prefix = f"{model.base_model_prefix}.{found[0][0]}"
    architecture = Architecture(model, found[0][1], prefix)
    _refuse_experts(checkpoint, architecture)
    return architecture


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
    skip: str = "",
) -> None:
    """Give `module` (full name `prefix`) its weights from the checkpoint, as `dtype` on `device`.

    Submodules whose full name starts with `skip` stay empty. Buffers that no checkpoint stores (rotary
    frequencies, embedding scales) are computed by the model's own initialiser.

    Raises:
        QuantizeError: a tensor is missing, has another shape, or holds NaN or infinity.
    """
    for path, part in module.named_modules():
        name = ".".join(filter(None, (prefix, path)))
        if skip and f"{name}.".startswith(f"{skip}."):
            continue
        _compute_buffers(model, part, name, device)
        for key, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if key in part._non_persistent_buffers_set:
                continue
            value = _load(checkpoint, f"{name}.{key}", tuple(tensor.shape))
            value = value.to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)
            if isinstance(tensor, nn.Parameter):
                part._parameters[key] = nn.Parameter(value, requires_grad=False)
            else:
                part._buffers[key] = value


def empty(module: nn.Module) -> None:
    """Free the weights of `module` again."""
    module.to("meta")


def capture_calls(architecture: Architecture, tokens: torch.Tensor) -> tuple[torch.Tensor, list[LayerCall]]:
    """Run token ids [B, L] up to the first decoder layer.

    Returns the hidden states [B, L, D] that enter it, and what every layer is called with (masks and position
    embeddings may differ between layers). The layers themselves do not run.

    Raises:
        QuantizeError: the model does not call its layers one after the other.
    """
    entered: list[torch.Tensor] = []
    calls: dict[int, LayerCall] = {}

    def stand_in(index: int) -> Callable[..., torch.Tensor]:
        def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
            hidden: torch.Tensor = args[0] if args else kwargs.pop("hidden_states")
            entered.append(hidden)
            calls[index] = LayerCall(args[1:], kwargs)
            return hidden

        return forward

    try:
        for index, layer in enumerate(architecture.layers):
            layer.forward = stand_in(index)
        with torch.no_grad():
            architecture.model.base_model(input_ids=tokens, use_cache=False)
    except QuantizeError:
        raise
    except Exception as error:  # anything a model's forward may raise
        raise QuantizeError(f"the model's layers cannot be run one by one: {one_line(error)}") from None
    finally:
        for layer in architecture.layers:
            layer.__dict__.pop("forward", None)
    if list(calls) != list(range(len(architecture.layers))):
        raise QuantizeError("the model does not call its decoder layers once each, in order: not supported")
    return entered[0], [calls[index] for index in range(len(calls))]


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
    """Hidden states [B, L, D] through one decoder layer."""
    with torch.no_grad():
        result = layer(hidden, *call.args, **call.kwargs)
    output: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return output


def _load(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    info = checkpoint.tensors.get(name)
    if info is None:
        raise QuantizeError(f"tensor {name} is missing in {checkpoint.folder}: its names must be those of transformers")
    if info.shape != shape:
        raise QuantizeError(f"tensor {name} is {list(info.shape)} but config.json asks for {list(shape)}: fix either")
    value = read_tensor(info)
    if value.is_floating_point():
        if info.dtype not in FLOATS:
            raise QuantizeError(f"tensor {name} is already quantized ({info.dtype}): give the original model")
        if not bool(torch.isfinite(value).all()):
            raise QuantizeError(f"tensor {name} in {info.file} holds NaN or infinity: get a sound copy of the model")
    return value


def _compute_buffers(model: Any, part: nn.Module, name: str, device: str) -> None:
    missing = {k: b for k, b in part._buffers.items() if b is not None and k in part._non_persistent_buffers_set}
    if not missing:
        return
    # A mark that no initialiser would write shows which buffers it left alone.
    for key, buffer in missing.items():
        part._buffers[key] = torch.full_like(buffer, UNSET if buffer.is_floating_point() else 0, device=device)
    with torch.no_grad():
        model._init_weights(part)  # the hook that from_pretrained uses for the same purpose
    for key in missing:
        value = part._buffers[key]
        if value is None or (value.is_floating_point() and bool((value == UNSET).any())):
            raise QuantizeError(f"{name}.{key} is stored nowhere and its class cannot compute it: not supported")


def _refuse_experts(checkpoint: Checkpoint, architecture: Architecture) -> None:
    way_out = "mixture-of-experts models are not supported yet: choose a dense model"
    for name, parameter in architecture.layers.named_parameters():
        if parameter.ndim == 3 or ".experts." in name:
            raise QuantizeError(f"{architecture.prefix}.{name} belongs to experts: {way_out}")
    for name in checkpoint.tensors:
        if (
            name.startswith(f"{architecture.prefix}.")
            and ".experts." in name
            and _layer_of(architecture, name) is not None
        ):
            raise QuantizeError(f"{name} belongs to experts: {way_out}")


def _layer_of(architecture: Architecture, name: str) -> int | None:
    head = name.removeprefix(f"{architecture.prefix}.").split(".")[0]
    return int(head) if head.isdigit() and int(head) < len(architecture.layers) else None
