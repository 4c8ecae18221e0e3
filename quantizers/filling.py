"""The tensors of modules, held against a checkpoint and read from it, and the buffers that none stores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from quantizers.checkpoint import Checkpoint, TensorInfo, one_line, read_tensor
from quantizers.errors import QuantizeError
from quantizers.names import note_of

FLOATS = {"F64", "F32", "F16", "BF16"}
PACKED = {"F8_E4M3", "F8_E5M2", "I8", "U8", "I16", "U16", "I32", "U32"}
UNSET = -12345.0


def require(checkpoint: Checkpoint, module: nn.Module, prefix: str, skip: Iterable[nn.Module]) -> None:
    """Hold the tensors of a module, called `prefix` in the checkpoint, against the files; but for what is in `skip`.

    Raises:
        QuantizeError: one is missing, or is not what the architecture needs.
    """
    left = {part for top in skip for part in top.modules()}
    for path, part in module.named_modules():
        if part in left:
            continue
        for key, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if key not in part._non_persistent_buffers_set:
                default = ".".join(filter(None, (prefix, path, key)))
                stored(checkpoint, note_of(part).stored.get(key, (default,)), tuple(tensor.shape))


def stored(checkpoint: Checkpoint, names: Sequence[str], shape: tuple[int, ...]) -> list[TensorInfo]:
    """The stored tensors whose rows are a parameter or buffer: one, in most cases.

    Raises:
        QuantizeError: they are not what the architecture needs.
    """
    found = [_usable(checkpoint, name) for name in names]
    whole = found[0].shape if len(found) == 1 else (sum(info.shape[0] for info in found), *found[0].shape[1:])
    if whole != shape or any(info.shape[1:] != shape[1:] for info in found):
        raise QuantizeError(f"tensor {names[0]} is {list(whole)} but config.json asks for {list(shape)}: fix either")
    return found


def _usable(checkpoint: Checkpoint, name: str) -> TensorInfo:
    info = checkpoint.tensors.get(name)
    if info is None:
        beside = f"{name.rpartition('.')[0]}."
        packed = next((n for n, i in checkpoint.tensors.items() if n.startswith(beside) and i.dtype in PACKED), None)
        if packed is not None and name.endswith(".weight"):
            raise QuantizeError(f"{beside[:-1]} is already quantized ({packed}): give the original model")
        raise QuantizeError(
            f"tensor {name} is missing in {checkpoint.folder}: get the whole model, under names that transformers reads"
        )
    if info.dtype not in FLOATS and (info.dtype.startswith("F") or name.endswith(".weight")):
        raise QuantizeError(f"tensor {name} is already quantized ({info.dtype}): give the original model")
    return info


def load(checkpoint: Checkpoint, names: Sequence[str], shape: tuple[int, ...]) -> torch.Tensor:
    """Read a parameter or buffer, to the CPU. Raises QuantizeError as `stored`, and where it is not finite."""
    parts = []
    for info in stored(checkpoint, names, shape):
        parts.append(read_tensor(info))
        if parts[-1].is_floating_point() and not bool(torch.isfinite(parts[-1]).all()):
            raise QuantizeError(
                f"tensor {info.name} in {info.file} holds NaN or infinity: get a sound copy of the model"
            )
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def compute_buffers(model: Any, part: nn.Module, name: str, device: str) -> None:
    """Let the model's initialiser compute the buffers of `part` that no checkpoint stores, on `device`.

    Raises:
        QuantizeError: it leaves one alone.
    """
    missing = {k: b for k, b in part._buffers.items() if b is not None and k in part._non_persistent_buffers_set}
    if not missing:
        return
    # A mark that no initialiser would write shows which buffers it left alone.
    for key, buffer in missing.items():
        part._buffers[key] = torch.full_like(buffer, UNSET if buffer.is_floating_point() else 0, device=device)
    try:
        with torch.no_grad():
            model._init_weights(part)  # the hook that from_pretrained uses for the same purpose
            if any(map(_unset, part._buffers.values())):  # Falcon-H1 fills its layers' buffers from the whole model
                model._init_weights(model.base_model)
    except Exception as error:  # anything a model's initialiser may raise
        raise QuantizeError(f"the buffers of {name} cannot be computed ({one_line(error)}): not supported") from None
    for key in missing:
        if part._buffers[key] is None or _unset(part._buffers[key]):
            raise QuantizeError(f"{name}.{key} is stored nowhere and its class cannot compute it: not supported")


def _unset(buffer: torch.Tensor | None) -> bool:
    if buffer is None or buffer.device.type == "meta" or not buffer.is_floating_point():
        return False
    return bool(buffer.eq(UNSET).any())
