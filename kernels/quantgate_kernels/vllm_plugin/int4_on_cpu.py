"""4-bit weights of compressed-tensors on a CPU, where vLLM's own kernel cannot multiply them.

vLLM's CPU build has 4-bit products with AVX-512 alone, and of 16-bit activations alone: anywhere else a server of such
a checkpoint loads, and dies at its first token. Here the weights become plain ones when they are loaded. Answers are
those of the 4-bit weights, so such a machine can test and gate them; memory and speed are those of plain weights.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from vllm.model_executor.kernels.linear import _POSSIBLE_KERNELS
from vllm.model_executor.kernels.linear.mixed_precision.MPLinearKernel import MPLinearKernel, MPLinearLayerConfig
from vllm.model_executor.layers.quantization.utils import replace_parameter
from vllm.model_executor.layers.quantization.utils.quant_utils import unpack_quantized_values_into_int32
from vllm.platforms import PlatformEnum
from vllm.scalar_type import scalar_types


@functools.cache
def register_int4_on_cpu() -> None:
    """Have vLLM ask DequantizedInt4Kernel first: its own one takes every layer. Called again, nothing changes."""
    _POSSIBLE_KERNELS[PlatformEnum.CPU].insert(0, DequantizedInt4Kernel)


class DequantizedInt4Kernel(MPLinearKernel):
    """(code - zero) x scale of each weight, in the dtype of the activations, and a plain matrix product."""

    @classmethod
    def get_min_capability(cls) -> int:
        return -1

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        if c.weight_type not in (scalar_types.uint4, scalar_types.uint4b8):
            return False, f"{c.weight_type} is no 4-bit type"
        if hasattr(torch.ops._C, "cpu_gemm_wna16") and c.act_type in (torch.bfloat16, torch.float16):
            return False, "vLLM's own kernel can"
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        codes = _outputs_first(self._unpacked(getattr(layer, self.w_q_name)), getattr(layer, self.w_q_name))
        scales = _outputs_first(getattr(layer, self.w_s_name).data, getattr(layer, self.w_s_name)).float()
        zeros: torch.Tensor | int = self.config.weight_type.bias
        if self.config.zero_points:
            stored = getattr(layer, self.w_zp_name or "")
            zeros = self._by_input(_outputs_first(self._unpacked(stored), stored), codes)
        weight = ((codes - zeros) * self._by_input(scales, codes)).to(self.config.act_type)
        replace_parameter(layer, self.w_q_name, torch.nn.Parameter(weight, requires_grad=False))

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.linear(x, getattr(layer, self.w_q_name), bias)

    def _unpacked(self, stored: Any) -> torch.Tensor:
        codes: torch.Tensor = unpack_quantized_values_into_int32(
            stored.data, self.config.weight_type, stored.packed_dim
        )
        return codes

    @staticmethod
    def _by_input(groups: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Outputs x groups, for each input of its group."""
        return groups.repeat_interleave(codes.shape[1] // groups.shape[1], dim=1)


def _outputs_first(values: torch.Tensor, stored: Any) -> torch.Tensor:
    """A layer's parameter is outputs x inputs, or the other way round: it knows which."""
    return values if stored.output_dim == 0 else values.t()
