"""Integer groups: what is decided for a model, and what is stored, against compressed-tensors' own classes."""

from __future__ import annotations

import pytest
import torch
from quantgate_kernels.formats.linears import read_linear
from quantgate_kernels.formats.pack_quantized import decode

from quantizers.curvature import Curvature
from quantizers.errors import QuantizeError
from quantizers.schemes import TIERS, served
from quantizers.schemes.int_groups import IntGroups, by_importance, choose_group_size


def weight_and_hessian(rows: int, columns: int) -> tuple[torch.Tensor, Curvature]:
    generator = torch.Generator().manual_seed(rows)
    inputs = torch.randn(2 * columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator), Curvature(inputs.t() @ inputs)


def correlated(rows: int, columns: int) -> tuple[torch.Tensor, Curvature]:
    """Inputs that know of each other and are of uneven size."""
    generator = torch.Generator().manual_seed(columns)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5 + torch.eye(columns)
    inputs = torch.randn(4 * columns, columns, generator=generator) @ mixing * torch.logspace(-1, 0.5, columns)
    return torch.randn(rows, columns, generator=generator), Curvature(inputs.t() @ inputs)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_compressed_tensors_reads_what_we_write(bits: int) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

    scheme = IntGroups(bits, 64, 0.05)
    config = QuantizationConfig.model_validate(scheme.stock_config(["lm_head"]))
    assert config.quantization_status == QuantizationStatus.COMPRESSED and config.ignore == ["lm_head"]
    parts = scheme.quantize(*weight_and_hessian(16, 192), lambda: None)
    stored = scheme.tensors(parts)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    theirs = compressor.decompress(dict(stored), config.config_groups["group_0"])["weight"]
    assert torch.equal(theirs, scheme.dequantize(parts))
    assert torch.equal(theirs, decode(stored, bits).to(torch.bfloat16))


def test_what_stock_vllm_serves() -> None:
    """vLLM 0.32: Marlin has 4 and 8 bits, the CPU 4; 2 bits need a package that it does not bring."""
    assert served(["int8"]) and served(["int4"]) and served(["fp8"]) and not served(["int2"]) and not served(["int3"])
    assert not served(["int4", "int8"]), "two tiers are in a config of ours"


@pytest.mark.parametrize("tier", ["int3", "int4-rotated"])
def test_what_no_other_reads_is_in_a_format_of_ours(tier: str) -> None:
    scheme = TIERS[tier]({"a": 128}, None, 0.05)
    assert scheme.stock_config([]) is None and scheme.scale_dtype == torch.float16
    weight, curvature = weight_and_hessian(24, 128)
    turned = Curvature(scheme.turn(scheme.turn(curvature.hessian).t()))
    parts = scheme.quantize(scheme.turn(weight), turned, lambda: None)
    back = read_linear(scheme.tensors(parts), scheme.entry(), scheme.tables([128]))
    assert torch.equal(back.to(torch.bfloat16), scheme.dequantize(parts))
    assert float((back - weight).norm() / weight.norm()) < 0.25


def test_errors_fall_with_the_bits_and_with_compensation() -> None:
    weight, curvature = correlated(32, 128)

    def loss(quantized: torch.Tensor) -> float:
        error = weight - quantized
        return float(((error @ curvature.hessian) * error).sum())

    losses = []
    for bits in (2, 3, 4, 8):
        scheme = IntGroups(bits, 64, 0.01)
        parts = scheme.quantize(weight, curvature, lambda: None)
        low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        assert int(parts["codes"].min()) >= low and int(parts["codes"].max()) <= high
        nearest = (weight.view(32, 2, 64) / parts["scales"][:, :, None]).round().clamp(low, high)
        losses.append(loss(scheme.combine(scheme.units(parts), parts["scales"])))
        assert losses[-1] < 0.8 * loss((nearest * parts["scales"][:, :, None]).view(32, 128))
    assert losses[1] < losses[0] / 3 and losses[2] < losses[1] / 3 and losses[3] < losses[2] / 100


def test_columns_are_swept_by_importance() -> None:
    order, groups = by_importance(torch.tensor([1.0, 2.0, 9.0, 3.0, 0.0, 4.0]), 2)
    assert groups.tolist() == [1, 2, 0] and order.tolist() == [2, 3, 5, 4, 1, 0]


def test_what_no_input_reached_is_rounded_and_does_no_harm() -> None:
    weight, curvature = correlated(8, 64)
    hessian = curvature.hessian.clone()
    hessian[[0, 17, 63]] = 0
    hessian[:, [0, 17, 63]] = 0
    scheme = IntGroups(4, 32, 0.05)
    for each in (hessian, torch.zeros(64, 64)):
        parts = scheme.quantize(weight, Curvature(each), lambda: None)
        codes = (weight.view(8, 2, 32) / parts["scales"][:, :, None]).round().clamp(-8, 7).view(8, 64)
        untouched = [0, 17, 63] if each is hessian else slice(None)
        assert torch.equal(parts["codes"][:, untouched].float(), codes[:, untouched])


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1e4, 1e30])
@pytest.mark.parametrize("tier", ["int4", "int4-rotated"])
def test_scales_are_positive_and_finite_at_any_size(size: float, tier: str) -> None:
    weight, curvature = correlated(4, 64)
    weight[:, :32] *= size
    scheme = TIERS[tier]({"a": 64}, 32, 0.05)
    parts = scheme.quantize(weight, curvature, lambda: None)
    scales = scheme.tensors(parts)["weight_scale"]
    assert bool((scales > 0).all()) and bool(torch.isfinite(scales).all())
    assert bool(torch.isfinite(scheme.dequantize(parts).float()).all())


def test_largest_group_size_that_divides_everything() -> None:
    assert choose_group_size({"a": 256, "b": 1024}) == 128
    assert choose_group_size({"a": 576, "b": 1536}) == 64
    assert choose_group_size({"a": 96, "b": 128}) == 32
    assert choose_group_size({"a": 256}, wanted=32) == 32


def test_the_layer_that_does_not_fit_is_named() -> None:
    with pytest.raises(QuantizeError, match="b has 100 inputs, which group size 32"):
        choose_group_size({"a": 64, "b": 100})
    with pytest.raises(QuantizeError, match="group_size 48 is not supported: use one of 128, 64, 32"):
        choose_group_size({"a": 96}, wanted=48)
    with pytest.raises(QuantizeError, match="b has 576 inputs, which group size 128"):
        choose_group_size({"a": 256, "b": 576}, wanted=128)
