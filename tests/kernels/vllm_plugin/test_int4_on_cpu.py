"""4-bit weights where vLLM's CPU build has no kernel for them; tests/e2e serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

OUTPUTS, INPUTS, GROUP = 64, 128, 32


@pytest.fixture
def plugin() -> Iterator[Any]:
    """Imported by the tests and not with them: vLLM takes seconds."""
    if not pytest.importorskip("vllm.platforms").current_platform.is_cpu():
        pytest.skip("vLLM is built for GPUs")
    from quantgate_kernels.vllm_plugin import int4_on_cpu

    yield int4_on_cpu
    int4_on_cpu.register_int4_on_cpu.cache_clear()


def config(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    from vllm.model_executor.kernels.linear.mixed_precision.MPLinearKernel import MPLinearLayerConfig
    from vllm.scalar_type import scalar_types

    shape = (INPUTS, OUTPUTS)
    return MPLinearLayerConfig(shape, shape, getattr(scalar_types, kind), dtype, GROUP, kind == "uint4")


def packed(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Eight 4-bit values a word along `dim`, the first in the lowest bits, as compressed-tensors stores them."""
    last = values.movedim(dim, -1)
    eights = last.reshape(*last.shape[:-1], -1, 8).to(torch.int64)
    words = (eights << (4 * torch.arange(8))).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32).movedim(-1, dim).contiguous()


def parameter(values: torch.Tensor, **places: int) -> torch.nn.Parameter:
    made = torch.nn.Parameter(values, requires_grad=False)
    for name, place in places.items():
        setattr(made, name, place)
    return made


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("outputs_first", [True, False])
def test_outputs_are_those_of_the_weights(plugin: Any, zero_points: bool, outputs_first: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(16, (OUTPUTS, INPUTS), generator=generator)
    scales = torch.rand(OUTPUTS, INPUTS // GROUP, generator=generator)
    zeros = torch.randint(16, scales.shape, generator=generator) if zero_points else torch.full(scales.shape, 8)
    each = codes.reshape(OUTPUTS, -1, GROUP)
    weight = ((each - zeros[..., None]) * scales[..., None].double()).reshape(OUTPUTS, INPUTS)

    turn: Callable[[torch.Tensor], torch.Tensor] = (lambda x: x) if outputs_first else (lambda x: x.t().contiguous())
    first, second = (0, 1) if outputs_first else (1, 0)
    layer: Any = torch.nn.Module()
    layer.q = parameter(turn(packed(codes, 1)), output_dim=first, input_dim=second, packed_dim=second)
    layer.s = parameter(turn(scales), output_dim=first, input_dim=second)
    layer.z = parameter(turn(packed(zeros, 0)), output_dim=first, input_dim=second, packed_dim=first)
    kernel = plugin.DequantizedInt4Kernel(config("uint4" if zero_points else "uint4b8"), "q", "s", "z")
    kernel.process_weights_after_loading(layer)

    x, bias = torch.randn(3, INPUTS, generator=generator), torch.randn(OUTPUTS, generator=generator)
    expected = x.double() @ weight.t() + bias
    torch.testing.assert_close(kernel.apply_weights(layer, x, bias).double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("built", "dtype", "chosen"),
    [
        (True, torch.bfloat16, "CPUWNA16LinearKernel"),
        (True, torch.float32, "DequantizedInt4Kernel"),
        (False, torch.bfloat16, "DequantizedInt4Kernel"),
    ],
)
def test_it_is_taken_where_the_servers_own_cannot(
    monkeypatch: pytest.MonkeyPatch, plugin: Any, built: bool, dtype: torch.dtype, chosen: str
) -> None:
    from vllm.model_executor.kernels import linear
    from vllm.platforms import PlatformEnum

    kernels = [each for each in linear._POSSIBLE_KERNELS[PlatformEnum.CPU] if each is not plugin.DequantizedInt4Kernel]
    monkeypatch.setitem(linear._POSSIBLE_KERNELS, PlatformEnum.CPU, kernels)
    monkeypatch.setattr(torch.ops, "_C", SimpleNamespace(cpu_gemm_wna16=None) if built else SimpleNamespace())
    plugin.register_int4_on_cpu.cache_clear()
    plugin.register_int4_on_cpu()
    plugin.register_int4_on_cpu()
    assert kernels.count(plugin.DequantizedInt4Kernel) == 1
    assert linear.choose_mp_linear_kernel(config("uint4b8", dtype)).__name__ == chosen


def test_what_is_not_of_4_bits_is_left_to_others(plugin: Any) -> None:
    assert plugin.DequantizedInt4Kernel.can_implement(config("uint4b8"))[0]
    assert not plugin.DequantizedInt4Kernel.can_implement(config("uint8b128"))[0]
