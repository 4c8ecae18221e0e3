"""The stored form against compressed-tensors' own classes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantizers.errors import QuantizeError
from quantizers.int4 import choose_group_size, decode, encode, quantization_config


def random_codes(seed: int, rows: int, groups: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-8, 8, (rows, groups * size), generator=generator, dtype=torch.int8)
    return codes, (torch.rand(rows, groups, generator=generator) + 0.01).to(torch.bfloat16)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 4), st.sampled_from([32, 64, 128]))
def test_decode_multiplies_codes_by_scales(seed: int, rows: int, groups: int, size: int) -> None:
    codes, scales = random_codes(seed, rows, groups, size)
    stored = encode(codes, scales)
    assert {name: (t.dtype, list(t.shape)) for name, t in stored.items()} == {
        "weight_packed": (torch.int32, [rows, groups * size // 8]),
        "weight_scale": (torch.bfloat16, [rows, groups]),
        "weight_shape": (torch.int64, [2]),
    }
    expected = codes.double() * scales.double().repeat_interleave(size, dim=1)
    assert torch.equal(decode(stored), expected.to(torch.bfloat16))


def test_compressed_tensors_reads_what_we_write() -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

    config = QuantizationConfig.model_validate(quantization_config(64, ["lm_head"]))
    assert config.quantization_status == QuantizationStatus.COMPRESSED and config.ignore == ["lm_head"]
    scheme = config.config_groups["group_0"]
    codes, scales = random_codes(1, 16, 3, 64)
    stored = encode(codes, scales)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    theirs = compressor.decompress(dict(stored), scheme)["weight"]
    assert torch.equal(theirs, decode(stored))


def test_largest_group_size_that_divides_everything() -> None:
    assert choose_group_size({"a": 256, "b": 1024}) == 128
    assert choose_group_size({"a": 576, "b": 1536}) == 64
    assert choose_group_size({"a": 96, "b": 128}) == 32
    assert choose_group_size({"a": 256}, wanted=32) == 32


def test_the_layer_that_does_not_fit_is_named() -> None:
    with pytest.raises(QuantizeError, match="b has 100 inputs, which group size 32"):
        choose_group_size({"a": 64, "b": 100})
    with pytest.raises(QuantizeError, match="b has 576 inputs, which group size 128"):
        choose_group_size({"a": 256, "b": 576}, wanted=128)


def test_contradictions_are_refused() -> None:
    codes, scales = random_codes(2, 4, 2, 32)
    with pytest.raises(ValueError, match="do not fit"):
        encode(codes, scales[:2])
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive"):
            encode(codes, torch.full_like(scales, bad))
    stored = encode(codes, scales)
    with pytest.raises(ValueError, match="weight_shape"):
        decode(stored | {"weight_shape": torch.tensor([4, 32])})
