"""Experts of a server whose weights are codes, each expert and projection in its own tier.

Their codes differ in length, so no dense parameter holds them: vLLM loads them through parameters that hold nothing
(`loading`), and each rank keeps the experts and the slices that are its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.platforms import current_platform

from quantgate_kernels.ops import moe as moe_ops
from quantgate_kernels.settings import FormatError, shown
from quantgate_kernels.vllm_plugin import kernels
from quantgate_kernels.vllm_plugin.checkpoints import Checkpoint
from quantgate_kernels.vllm_plugin.loading import register_experts, take_off
from quantgate_kernels.vllm_plugin.parts import Part, one_part, stored_parts

Modules = Mapping[tuple[int, str], str]
"""Stored names by number of the expert and projection: `w1` gate, `w3` up, `w2` down."""


def experts_method(checkpoint: Checkpoint, layer: Any, prefix: str) -> Any:
    """The method for a layer of experts; None where all of them are stored plainly.

    Raises:
        FormatError: some of them are not stored, or they have biases.
    """
    projections = {"w1": layer.ckpt_gate_proj_name, "w2": layer.ckpt_down_proj_name}
    if layer.moe_config.is_act_and_mul:
        projections["w3"] = layer.ckpt_up_proj_name
    modules = {}
    for expert in range(layer.moe_config.num_logical_experts):
        for shard, name in projections.items():
            for module in checkpoint.stored(f"{prefix}.{expert}.{name}", {}):
                modules[expert, shard] = module
    if not checkpoint.coded(list(modules.values())):
        return None
    if len(modules) != layer.moe_config.num_logical_experts * len(projections):
        raise FormatError(f"{shown(prefix)}: not all experts that have codes are stored: get a sound copy")
    if layer.moe_config.has_bias:
        raise FormatError(f"{shown(prefix)}: experts with codes and biases are not served")
    return MixedVQMoEMethod(checkpoint, modules, layer)


class MixedVQMoEMethod(UnquantizedFusedMoEMethod):
    """Experts in mixed tiers: run on codes where a kernel knows all of them, else as the weights they stand for, in the
    model's dtype, by vLLM's own method."""

    supports_pre_processed_weights = False

    def __init__(self, checkpoint: Checkpoint, modules: Modules, layer: Any) -> None:
        super().__init__(layer.moe_config)
        self.on_codes = runs_on_codes(checkpoint, modules, layer)
        self.prepared: moe_ops.PreparedMoE | None = None
        self.supports_pre_processed_weights = False
        self.checkpoint, self.stored = checkpoint, modules
        self.parts: dict[tuple[int, str], Part] = {}
        self.placeholders: dict[str, torch.dtype] = {}
        self.shapes: tuple[int, int, int] = (0, 0, 0)
        self.dtype = torch.bfloat16

    def create_weights(
        self,
        layer: Any,
        num_experts: int,
        hidden_size: int,
        intermediate_size_per_partition: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        self.dtype, self.shapes = params_dtype, (num_experts, hidden_size, intermediate_size_per_partition)
        local_of = layer.expert_map_manager.map_global_to_local
        parallel = self.moe.moe_parallel_config
        self.parts = expert_parts(
            self.checkpoint,
            self.stored,
            {number: local_of(number) for number in range(self.moe.num_experts)},
            self.moe.num_logical_experts,
            parallel.tp_rank,
            parallel.tp_size,
        )
        self.placeholders = parameters_of(self.checkpoint, self.stored)
        register_experts(layer, self.parts, self.placeholders, local_of)

    def process_weights_after_loading(self, layer: Any) -> None:
        parts, self.parts = self.parts, {}
        take_off(layer, self.placeholders)
        for part in parts.values():
            part.require_sound()
        tables = self.checkpoint.contents.tables
        if self.on_codes:
            self.prepared = kernels.prepare_experts(parts, tables)
            return
        if current_platform.is_cuda():
            kernels.warn_of_memory({part.tier["format"] for part in parts.values() if part.tier is not None})
        gated = 2 if self.moe.is_act_and_mul else 1
        w13, w2 = dequantized(parts, tables, self.shapes, gated, self.dtype)
        layer.register_parameter("w13_weight", torch.nn.Parameter(w13, requires_grad=False))
        layer.register_parameter("w2_weight", torch.nn.Parameter(w2, requires_grad=False))
        super().process_weights_after_loading(layer)

    def apply(  # type: ignore[override]  # of nn.Module, whose own vLLM's method hides too
        self,
        layer: Any,
        x: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        shared_experts: Any = None,
        shared_experts_input: torch.Tensor | None = None,
    ) -> Any:
        if self.prepared is None:
            return super().apply(layer, x, topk_weights, topk_ids, shared_experts, shared_experts_input)
        return moe_ops.apply(x, topk_weights, topk_ids, self.prepared, layer.expert_map)

    @property
    def is_monolithic(self) -> bool:
        return not self.on_codes and bool(super().is_monolithic)

    @property
    def supports_eplb(self) -> bool:
        return not self.on_codes

    def maybe_roundup_sizes(self, hidden_size: int, intermediate_size_per_partition: int, *more: Any) -> Any:
        if self.on_codes:
            return hidden_size, intermediate_size_per_partition
        return super().maybe_roundup_sizes(hidden_size, intermediate_size_per_partition, *more)

    def maybe_make_prepare_finalize(self, *arguments: Any, **named: Any) -> Any:
        """None: vLLM 0.26 asks, and its runner does what is needed where ranks exchange no tokens."""
        return None


def runs_on_codes(checkpoint: Checkpoint, modules: Modules, layer: Any) -> bool:
    """Do the kernels run this layer? They know gated SiLU, and router weights that count at the end."""
    usual = layer.moe_config.is_act_and_mul and layer.activation.value == "silu"
    usual = usual and not layer.apply_router_weight_on_input and getattr(layer, "swiglu_limit", None) is None
    tiers = [(shard, stored_parts(checkpoint.contents, module)[0]) for (_, shard), module in modules.items()]
    return bool(usual) and kernels.has_experts(tiers, checkpoint.contents.tables, torch.get_default_dtype())


def parameters_of(checkpoint: Checkpoint, modules: Modules) -> dict[str, torch.dtype]:
    """The parameters that vLLM looks for, `w13_codes` and the like, with the types of what any expert has there."""
    found: dict[str, torch.dtype] = {}
    for (_, shard), module in modules.items():
        prefix = "w2_" if shard == "w2" else "w13_"
        found |= {prefix + name: header.dtype for name, header in stored_parts(checkpoint.contents, module)[2].items()}
    return found


def expert_parts(
    checkpoint: Checkpoint,
    modules: Modules,
    local: Mapping[int, int],
    logical: int,
    rank: int,
    ranks: int,
) -> dict[tuple[int, str], Part]:
    """What one rank wants of each projection of its experts, by the expert's local number and the projection.

    Args:
        local: of each expert's global number, its local one; -1 where another rank has it. Numbers from `logical` on
            are copies of the first experts.
        rank: among the `ranks` that outputs of gate and up, and inputs of down, are split over.

    Raises:
        FormatError: a projection does not split so.
    """
    parts = {}
    for (expert, shard), module in modules.items():
        _, (rows, columns), _ = stored_parts(checkpoint.contents, module)
        side = columns if shard == "w2" else rows
        if side % ranks:
            raise FormatError(f"{shown(module)}: {side} do not split over {ranks} ranks: use expert parallelism")
        wanted, inputs = ((rows, rows), columns // ranks) if shard == "w2" else ((rows, rows // ranks), columns)
        for number in range(expert, len(local), logical):
            if local[number] >= 0:
                part = one_part(checkpoint.contents, module, [wanted], inputs, rank, ranks)
                parts[local[number], shard] = part
    return parts


def dequantized(
    parts: Mapping[tuple[int, str], Part],
    tables: Mapping[str, torch.Tensor],
    shapes: tuple[int, int, int],
    gated: int,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of gate and up [E, 2 N, H] and of down [E, H, N], zero where a server pads.

    Args:
        parts: loaded; each is let go when it is read.
        shapes: E, H and N of this rank.
        gated: 2, or 1 where there is no up projection.
    """
    experts, hidden, inner = shapes
    device = next(iter(next(iter(parts.values())).tensors.values())).device
    w13 = torch.zeros(experts, gated * inner, hidden, dtype=dtype, device=device)
    w2 = torch.zeros(experts, hidden, inner, dtype=dtype, device=device)
    for (local, shard), part in parts.items():
        rows, columns = part.local_shape
        target = w2[local] if shard == "w2" else w13[local, inner if shard == "w3" else 0 :]
        target[:rows, :columns] = part.weight(tables, dtype)
        part.tensors.clear()
    return w13, w2
