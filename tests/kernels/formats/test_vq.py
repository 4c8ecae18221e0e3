"""What is stored of a vector-quantized weight, against plain indexing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels.formats.rotation import rotate, signs_of
from quantgate_kernels.formats.vq import CODEBOOK_STEP, VQLayout, decode, encode

LAYOUTS = [VQLayout(8, 256), VQLayout(8, 4096), VQLayout(4, 256), VQLayout(4, 4096)]


def stored(layout: VQLayout, rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, layout.entries, (rows, columns // layout.dimensions), generator=generator)
    scales = torch.rand(rows, columns // (128 if columns % 128 == 0 else 64), generator=generator) + 0.1
    book = torch.randint(-127, 128, (layout.entries, layout.dimensions), generator=generator, dtype=torch.int8)
    return codes, scales, book


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(LAYOUTS), st.integers(1, 5), st.sampled_from([128, 192, 256]), st.integers(0, 1000))
def test_decode_is_indexing(layout: VQLayout, rows: int, columns: int, seed: int) -> None:
    codes, scales, book = stored(layout, rows, columns, seed)
    tensors = encode(codes, scales, layout)
    assert tensors["codes"].shape == (rows, layout.words(columns)) and tensors["scales"].dtype == torch.float16
    group = columns // scales.shape[1]
    expected = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            entry = book[codes[row, column // layout.dimensions], column % layout.dimensions]
            expected[row, column] = entry * CODEBOOK_STEP * scales[row, column // group].half().float()
    assert torch.equal(decode(tensors, book, None), expected)
    signs = signs_of(columns, 0)
    torch.testing.assert_close(rotate(decode(tensors, book, signs), signs), expected, rtol=1e-4, atol=1e-4)


def test_bits_are_those_of_the_tiers() -> None:
    assert [32 * layout.words(128) / 128 for layout in LAYOUTS] == [1, 1.5, 2, 3]


def test_rows_are_cut_between_groups() -> None:
    """What tensor parallelism needs: a slice of whole groups is the slice of the weight."""
    layout = VQLayout(8, 4096)
    codes, scales, book = stored(layout, 3, 512, 1)
    tensors = encode(codes, scales, layout)
    half = {"codes": tensors["codes"][:, : layout.words(256)], "scales": tensors["scales"][:, :2]}
    assert torch.equal(decode(half, book, None), decode(tensors, book, None)[:, :256])


def test_what_contradicts_itself_is_refused() -> None:
    layout = VQLayout(4, 256)
    codes, scales, book = stored(layout, 2, 128, 2)
    with pytest.raises(ValueError, match=r"0\.\.255"):
        encode(codes + 256, scales, layout)
    with pytest.raises(ValueError, match="positive and finite"):
        encode(codes, torch.full_like(scales, float("nan")), layout)
    with pytest.raises(ValueError, match="do not fit"):
        encode(codes, scales[:1], layout)
    with pytest.raises(ValueError, match="do not fit"):
        decode(encode(codes, scales, layout) | {"scales": torch.ones(2, 3).half()}, book, None)
    with pytest.raises(ValueError, match="do not fill whole words"):
        VQLayout(8, 512).words(64)
