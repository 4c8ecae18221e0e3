"""Codes in words, against Python's own integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels.formats.words import pack, unpack


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 16), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**31))
def test_a_row_of_words_is_one_number(bits: int, rows: int, groups: int, seed: int) -> None:
    """Oracle: the whole stream as one Python integer."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (rows, 32 * groups), generator=generator)
    words = pack(codes, bits)
    assert words.dtype == torch.int32 and words.shape == (rows, bits * groups)
    for row, packed in zip(codes.tolist(), words.tolist(), strict=True):
        number = sum(code << (bits * place) for place, code in enumerate(row))
        assert sum((word & 0xFFFFFFFF) << (32 * place) for place, word in enumerate(packed)) == number
    assert torch.equal(unpack(words, bits), codes.to(torch.int32))


def test_leading_dimensions_are_kept() -> None:
    codes = torch.arange(2 * 3 * 16).reshape(2, 3, 16) % 256
    assert pack(codes, 8).shape == (2, 3, 4) and torch.equal(unpack(pack(codes, 8), 8), codes.to(torch.int32))


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fill whole words"):
        pack(torch.zeros(1, 10, dtype=torch.int64), 12)
    with pytest.raises(ValueError, match=r"0\.\.255"):
        pack(torch.full((1, 4), 256), 8)
    with pytest.raises(ValueError, match="1 to 16"):
        pack(torch.zeros(1, 32, dtype=torch.int64), 17)
    with pytest.raises(ValueError, match="whole groups"):
        unpack(torch.zeros(1, 4, dtype=torch.int32), 12)
