"""int4 packing against compressed-tensors and against arithmetic."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels.formats.pack_quantized import decode, encode, pack_int4, unpack_int4


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


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 2**31))
def test_unpack_undoes_pack(rows: int, words: int, seed: int) -> None:
    codes = torch.randint(-8, 8, (rows, words * 8), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    packed = pack_int4(codes)
    assert packed.dtype == torch.int32 and packed.shape == (rows, words) and packed.is_contiguous()
    assert torch.equal(unpack_int4(packed), codes)


def test_same_words_as_compressed_tensors() -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32

    codes = torch.randint(-8, 8, (24, 96), generator=torch.Generator().manual_seed(3), dtype=torch.int8)
    theirs = pack_to_int32(codes, 4)
    assert torch.equal(pack_int4(codes), theirs)
    assert torch.equal(unpack_from_int32(theirs, 4, codes.shape), unpack_int4(theirs))


def test_lowest_nibble_comes_first_and_the_sign_bit_is_used() -> None:
    codes = torch.tensor([[-8, -7, -6, -5, -4, -3, -2, 7]])
    assert int(pack_int4(codes).item()) & 0xFFFFFFFF == 0xF6543210
    assert torch.equal(unpack_int4(torch.tensor([[-1]], dtype=torch.int32)), torch.full((1, 8), 7, dtype=torch.int8))


@pytest.mark.parametrize(
    "codes",
    [
        torch.zeros(8, dtype=torch.int8),
        torch.zeros(2, 8),
        torch.zeros(2, 12, dtype=torch.int8),
        torch.full((2, 8), 8, dtype=torch.int8),
        torch.full((2, 8), -9, dtype=torch.int8),
    ],
)
def test_pack_refuses_what_it_cannot_store(codes: torch.Tensor) -> None:
    with pytest.raises(ValueError):
        pack_int4(codes)


def test_unpack_refuses_other_dtypes() -> None:
    with pytest.raises(ValueError):
        unpack_int4(torch.zeros(2, 2, dtype=torch.int64))


def test_kernels_import_with_torch_alone() -> None:
    """A serving image has torch but none of quantgate's other dependencies."""
    foreign = ("transformers", "pydantic", "yaml", "safetensors", "compressed_tensors", "quantizers", "harness")
    hidden = "".join(f"sys.modules[{name!r}] = None\n" for name in foreign)
    script = f"import sys\n{hidden}import quantgate_kernels.formats.pack_quantized\n"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
