"""Parameters that hold nothing themselves: vLLM finds them by name, and what it loads goes on to a `Part`.

A layer whose parts have several formats has one parameter for each last name that any of them stores: `codes`, `scales`
and, where k_proj is int4, `weight_packed` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from quantgate_kernels.settings import FormatError, shown
from quantgate_kernels.vllm_plugin.parts import Part

QKV = {"q": 0, "k": 1, "v": 2, "index_q": 3, "index_k": 4}
"""Places of the outputs that vLLM names by letters."""


def register_parts(layer: torch.nn.Module, parts: Sequence[Part], places: Sequence[int]) -> None:
    """Give a Linear layer the parameters through which its parts are loaded.

    Args:
        places: of each of the layer's outputs, which of the parts it is in.
    """
    for name in names_of(parts):

        def load(parameter: Any, tensor: torch.Tensor, shard: Any = None, name: str = name) -> None:
            part_of(parts, places, shard).load(name, tensor, parameter.device)

        _register(layer, name, next(p.headers[name].dtype for p in parts if name in p.headers), load)


def part_of(parts: Sequence[Part], places: Sequence[int], shard: Any) -> Part:
    """The part that vLLM's shard id means: a number, a letter, several numbers, or none for all of the layer.

    Raises:
        FormatError: none is given, and there are several parts.
    """
    if shard is None:
        if len(parts) > 1:
            raise FormatError(f"vLLM loads {shown(parts[0].module)} as if it were stored with {len(parts) - 1} others")
        return parts[0]
    first = shard[0] if isinstance(shard, tuple | list) else shard
    return parts[places[QKV[first] if isinstance(first, str) else int(first)]]


def register_experts(
    layer: torch.nn.Module,
    parts: Mapping[tuple[int, str], Part],
    stored: Mapping[str, torch.dtype],
    local_of: Callable[[int], int],
) -> None:
    """Give a layer of experts the parameters through which they are loaded: `w13_codes`, `w2_codes` and so on.

    Args:
        parts: by local number of the expert and projection (`w1` gate, `w3` up, `w2` down).
        stored: names of all parameters with their types: those that experts of other ranks alone have are looked for
            too.
        local_of: from a global number to a local one; -1 where another rank has the expert.
    """
    for parameter, dtype in stored.items():

        def load(
            param: Any,
            loaded_weight: torch.Tensor,
            weight_name: str,
            shard_id: str,
            expert_id: int,
            return_success: bool = False,
            name: str = parameter.partition("_")[2],
        ) -> bool | None:
            local = local_of(expert_id)
            if local < 0:
                return False if return_success else None
            parts[local, shard_id].load(name, loaded_weight, param.device)
            return True if return_success else None

        load.supports_moe_loading = True  # type: ignore[attr-defined]  # vLLM asks its loaders for it
        _register(layer, parameter, dtype, load)


def take_off(layer: torch.nn.Module, names: Iterable[str]) -> None:
    """Remove parameters of `register_parts` or `register_experts` again."""
    for name in names:
        del layer._parameters[name]


def names_of(parts: Iterable[Part]) -> list[str]:
    """Last names of all tensors that any of them stores."""
    return sorted({name for part in parts for name in part.headers})


def _register(layer: torch.nn.Module, name: str, dtype: torch.dtype, load: Callable[..., Any]) -> None:
    parameter: Any = torch.nn.Parameter(torch.empty(0, dtype=dtype), requires_grad=False)
    parameter.weight_loader = load
    layer.register_parameter(name, parameter)
