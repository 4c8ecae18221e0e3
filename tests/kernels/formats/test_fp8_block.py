"""Block fp8 against its definition, block by block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels.formats.fp8_block import decode, encode, read


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 1000), st.sampled_from([1e-6, 1.0, 1e4]))
def test_each_block_is_rounded_by_its_own_largest_weight(rows: int, columns: int, seed: int, size: float) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    weight[: rows // 2, : columns // 2] *= 100
    floats, scales = encode(weight)
    back = decode({"weight": floats, "weight_scale_inv": scales})
    assert scales.shape == ((rows + 127) // 128, (columns + 127) // 128) and scales.dtype == torch.float32
    for top in range(0, rows, 128):
        for left in range(0, columns, 128):
            block = weight[top : top + 128, left : left + 128]
            scale = block.abs().max() / 448
            expected = (block / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
            assert torch.equal(floats[top : top + 128, left : left + 128].float(), expected.float())
            assert torch.equal(back[top : top + 128, left : left + 128], expected.float() * scale)
            # Three bits of mantissa, and 2^-9 is the smallest step.
            allowed = torch.maximum(block.abs() / 16, scale * 2**-10) * 1.001
            assert bool(((back[top : top + 128, left : left + 128] - block).abs() <= allowed).all())


def test_zeros_stay_zeros() -> None:
    floats, scales = encode(torch.zeros(130, 5))
    assert not floats.float().any() and torch.equal(scales, torch.ones(2, 1))


def test_transformers_reads_the_same() -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    class Quantizer:
        class quantization_config:
            weight_block_size = (128, 128)

    weight = torch.randn(256, 384, generator=torch.Generator().manual_seed(1))
    floats, scales = encode(weight)
    theirs = Fp8Dequantize(Quantizer())._dequantize_one(floats, scales)
    assert torch.equal(theirs.float(), decode({"weight": floats, "weight_scale_inv": scales}))


def test_contradictions_are_refused() -> None:
    floats, scales = encode(torch.ones(130, 5))
    with pytest.raises(ValueError, match="do not fit blocks of 128"):
        decode({"weight": floats, "weight_scale_inv": scales[:1]})
    with pytest.raises(ValueError, match="float8_e4m3fn"):
        read({"weight": floats.float(), "weight_scale_inv": scales}, {}, {})
    with pytest.raises(ValueError, match="must be a matrix"):
        encode(torch.ones(3))
