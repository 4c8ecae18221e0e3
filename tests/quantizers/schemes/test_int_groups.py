"""Integer groups: what is decided for a model, and what is stored, against compressed-tensors' own classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from quantgate_kernels.formats.pack_quantized import decode
from quantgate_kernels.formats.trellis import TrellisLayout

from quantizers.curvature import Curvature
from quantizers.errors import QuantizeError
from quantizers.schemes import TIERS, Scheme
from quantizers.schemes.base import split_rows
from quantizers.schemes.int_groups import IntGroups, choose_group_size
from quantizers.schemes.trellis import Trellis


def scheme_of(tier: str, columns: int) -> Scheme:
    """The scheme of a tier; a trellis with so few states that its search takes no time."""
    scheme: Scheme = TIERS[tier]({"a": columns}, None, 0.05)
    return replace(scheme, layout=TrellisLayout(scheme.layout.bits, 8)) if isinstance(scheme, Trellis) else scheme


def weight_and_hessian(rows: int, columns: int) -> tuple[torch.Tensor, Curvature]:
    generator = torch.Generator().manual_seed(rows)
    inputs = torch.randn(2 * columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator), Curvature(inputs.t() @ inputs)


def test_compressed_tensors_reads_what_we_write() -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

    scheme = IntGroups(4, 64, 0.05)
    config = QuantizationConfig.model_validate(scheme.stock_config(["lm_head"]))
    assert config.quantization_status == QuantizationStatus.COMPRESSED and config.ignore == ["lm_head"]
    parts = scheme.quantize(*weight_and_hessian(16, 192), lambda: None)
    stored = scheme.tensors(parts)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    theirs = compressor.decompress(dict(stored), config.config_groups["group_0"])["weight"]
    assert torch.equal(theirs, scheme.dequantize(parts)) and torch.equal(theirs, decode(stored))


@pytest.mark.parametrize("tier", [tier for tier in TIERS if TIERS[tier]({}, None, 0.05).tall])
def test_a_tall_weight_is_its_parts(tier: str) -> None:
    """Linears with one Hessian are quantized as one weight; what is stored of each is as if it had been alone."""
    scheme = scheme_of(tier, 128)
    weight, curvature = weight_and_hessian(48, 128)
    rows = [16, 32]
    together = split_rows(scheme.quantize(weight, curvature, lambda: None), rows)
    for part, found in zip(torch.split(weight, rows), together, strict=True):
        alone = scheme.quantize(part, curvature, lambda: None)
        assert all(torch.equal(alone[name], found[name]) for name in alone)
        assert torch.equal(scheme.dequantize(alone), scheme.dequantize(found))


@pytest.mark.parametrize("tier", TIERS)
def test_bytes_are_those_of_what_is_stored(tier: str) -> None:
    scheme = scheme_of(tier, 256)
    stored = scheme.tensors(scheme.quantize(*weight_and_hessian(32, 256), lambda: None))
    assert scheme.nbytes(32, 256) == sum(tensor.nbytes for tensor in stored.values())


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
