"""Linears of a server whose weights are codes: loaded part by part, run on codes or on the weights they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm.model_executor.layers.linear import LinearMethodBase, UnquantizedLinearMethod
from vllm.platforms import current_platform

from quantgate_kernels.settings import FormatError, shown
from quantgate_kernels.vllm_plugin import kernels
from quantgate_kernels.vllm_plugin.checkpoints import Checkpoint
from quantgate_kernels.vllm_plugin.loading import names_of, register_parts, take_off
from quantgate_kernels.vllm_plugin.parts import Part, one_part, stored_parts


def linear_method(checkpoint: Checkpoint, modules: Sequence[str]) -> Any:
    """The method for a layer that holds `modules`, some of which have codes."""
    tiers = [checkpoint.contents.settings.tier_of(m) for m in modules if m in checkpoint.contents.shapes]
    dtype = torch.get_default_dtype()  # vLLM makes a model under its dtype
    if any(kernels.has_linear(tier, dtype) for tier in tiers):
        return CodedLinearMethod(checkpoint, modules)
    if current_platform.is_cuda():
        kernels.warn_of_memory({tier["format"] for tier in tiers})
    return DequantizedLinearMethod(checkpoint, modules)


class Loading:
    """What a layer's parameters load into, between `create_weights` and `process_weights_after_loading`."""

    def __init__(self, checkpoint: Checkpoint, modules: Sequence[str]) -> None:
        self.checkpoint, self.modules = checkpoint, modules
        self.parts: list[Part] = []
        self.dtype = torch.bfloat16

    def begin(self, layer: Any, inputs: int, outputs: Sequence[int], dtype: torch.dtype) -> None:
        """Plan what this rank wants of each stored Linear, and register the parameters for it.

        Raises:
            FormatError: the layer is not what is stored, or a shard would end within a group.
        """
        self.dtype = dtype
        wholes = whole_outputs(layer, outputs)
        places = places_of(self.checkpoint, self.modules, wholes)
        for number, module in enumerate(self.modules):
            wanted = [(wholes[i], outputs[i]) for i, place in enumerate(places) if place == number]
            part = one_part(self.checkpoint.contents, module, wanted, inputs, layer.tp_rank, layer.tp_size)
            self.parts.append(part)
        register_parts(layer, self.parts, places)

    def end(self, layer: torch.nn.Module) -> list[Part]:
        """The parts, loaded and found sound; the layer's parameters for them are gone."""
        parts, self.parts = self.parts, []
        take_off(layer, names_of(parts))
        for part in parts:
            part.require_sound()
        return parts


class DequantizedLinearMethod(UnquantizedLinearMethod):
    """The weight itself, in the model's dtype, as `quantgate dequantize` would write it: run as any plain Linear."""

    supports_pre_processed_weights = False

    def __init__(self, checkpoint: Checkpoint, modules: Sequence[str]) -> None:
        super().__init__()
        self.loading = Loading(checkpoint, modules)

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        self.loading.begin(layer, input_size_per_partition, output_partition_sizes, params_dtype)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        tables, dtype = self.loading.checkpoint.contents.tables, self.loading.dtype
        weights = []
        for part in self.loading.end(layer):
            weights.append(part.weight(tables, dtype))
            part.tensors.clear()  # vLLM keeps the parameters' loaders, which know of the part
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        layer.register_parameter("weight", torch.nn.Parameter(weight, requires_grad=False))
        super().process_weights_after_loading(layer)


class CodedLinearMethod(LinearMethodBase):
    """Codes, run by the kernels; parts of a layer that no kernel knows are run as the weight they stand for."""

    def __init__(self, checkpoint: Checkpoint, modules: Sequence[str]) -> None:
        self.loading = Loading(checkpoint, modules)

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        self.loading.begin(layer, input_size_per_partition, output_partition_sizes, params_dtype)

    def process_weights_after_loading(self, layer: Any) -> None:
        tables, parts = self.loading.checkpoint.contents.tables, self.loading.end(layer)
        device = next(iter(parts[0].tensors.values())).device
        place = torch.empty(0, dtype=self.loading.dtype, device=device)
        layer.quantgate_runs = kernels.prepare_linear(parts, tables, self.loading.dtype)
        # MLA asks a layer for its weight's device before it has the weight computed by an identity matrix.
        layer.register_parameter("weight_packed", torch.nn.Parameter(place, requires_grad=False))

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        found = [run.apply(x) for run in layer.quantgate_runs]
        y = found[0] if len(found) == 1 else torch.cat(found, dim=-1)
        return y if bias is None else y + bias


def whole_outputs(layer: Any, outputs: Sequence[int]) -> list[int]:
    """Outputs of all ranks together, of each of a layer's outputs."""
    heads = getattr(layer, "total_num_kv_heads", None)
    if heads is not None and len(outputs) == 3:  # vLLM counts repeated heads of keys again
        return [layer.total_num_heads * layer.head_size, heads * layer.head_size, heads * layer.v_head_size]
    if len(outputs) == 1:
        return [layer.output_size]
    return list(layer.output_sizes)


def places_of(checkpoint: Checkpoint, modules: Sequence[str], wholes: Sequence[int]) -> list[int]:
    """Of each of a layer's outputs, in which of the stored `modules` it is.

    Raises:
        FormatError: those have other outputs.
    """
    if len(modules) == len(wholes):
        return list(range(len(wholes)))
    places: list[int] = []
    sides = [stored_parts(checkpoint.contents, module)[1][0] for module in modules]
    for number, side in enumerate(sides):
        begin = len(places)
        while sum(wholes[begin : len(places)]) < side and len(places) < len(wholes):
            places.append(number)
        if sum(wholes[begin : len(places)]) != side:
            break
    if len(places) != len(wholes) or set(places) != set(range(len(modules))):
        names = ", ".join(shown(module) for module in modules)
        raise FormatError(f"{names} have {sides} outputs, and vLLM's layer has {list(wholes)}: of another model")
    return places
