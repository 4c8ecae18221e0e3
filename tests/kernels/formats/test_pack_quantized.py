"""Integer packing against compressed-tensors and against arithmetic."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels.formats.pack_quantized import WIDTHS, decode, encode, limits, pack, read, unpack
from quantgate_kernels.formats.rotation import rotate, signs_of


def random_codes(seed: int, bits: int, rows: int, groups: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low, high = limits(bits)
    codes = torch.randint(low, high + 1, (rows, groups * size), generator=generator, dtype=torch.int8)
    return codes, (torch.rand(rows, groups, generator=generator) + 0.01).to(torch.bfloat16)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(WIDTHS),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([32, 64, 128]),
)
def test_decode_multiplies_codes_by_scales(seed: int, bits: int, rows: int, groups: int, size: int) -> None:
    codes, scales = random_codes(seed, bits, rows, groups, size)
    stored = encode(codes, scales, bits)
    assert {name: (t.dtype, list(t.shape)) for name, t in stored.items()} == {
        "weight_packed": (torch.int32, [rows, groups * size * bits // 32]),
        "weight_scale": (torch.bfloat16, [rows, groups]),
        "weight_shape": (torch.int64, [2]),
    }
    expected = codes.double() * scales.double().repeat_interleave(size, dim=1)
    assert torch.equal(decode(stored, bits).double(), expected)


def test_a_tier_is_read_with_its_bits_and_its_rotation() -> None:
    codes, scales = random_codes(5, 3, 4, 2, 128)
    stored = encode(codes, scales, 3, torch.float16)
    assert stored["weight_scale"].dtype == torch.float16
    plain = {"bits": 3, "rotation": None}
    assert torch.equal(read(stored, plain, {}), decode(stored, 3))
    signs = signs_of(256, 7)
    turned = read(stored, plain | {"rotation": {"kind": "signs+hadamard"}}, {"signs.256": signs})
    torch.testing.assert_close(rotate(turned, signs), decode(stored, 3), rtol=1e-5, atol=1e-5)


def test_contradictions_are_refused() -> None:
    codes, scales = random_codes(2, 4, 4, 2, 32)
    with pytest.raises(ValueError, match="do not fit"):
        encode(codes, scales[:2], 4)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive"):
            encode(codes, torch.full_like(scales, bad), 4)
    stored = encode(codes, scales, 4)
    with pytest.raises(ValueError, match="weight_shape"):
        decode(stored | {"weight_shape": torch.tensor([4, 32])}, 4)
    with pytest.raises(ValueError, match="weight_shape"):
        decode(stored, 8)
    with pytest.raises(ValueError, match="2, 3, 4, 8 bits, not 5"):
        read(stored, {"bits": 5, "rotation": None}, {})


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_same_words_as_compressed_tensors(bits: int) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32

    codes, _ = random_codes(3, bits, 24, 3, 32)
    theirs = pack_to_int32(codes, bits)
    assert torch.equal(pack(codes, bits), theirs)
    assert torch.equal(unpack_from_int32(theirs, bits, codes.shape), unpack(theirs, bits))


def test_three_bits_have_no_common_layout() -> None:
    """Why int3 is in checkpoints of ours only: compressed-tensors leaves gaps, and vLLM 0.32 asks for I*3/32 words."""
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    codes, _ = random_codes(3, 3, 4, 1, 128)
    assert pack_to_int32(codes, 3).shape == (4, 13) and pack(codes, 3).shape == (4, 12)


def test_lowest_bits_come_first_and_the_sign_bit_is_used() -> None:
    codes = torch.tensor([[-8, -7, -6, -5, -4, -3, -2, 7]])
    assert int(pack(codes, 4).item()) & 0xFFFFFFFF == 0xF6543210
    assert torch.equal(unpack(torch.tensor([[-1]], dtype=torch.int32), 4), torch.full((1, 8), 7, dtype=torch.int8))
    assert int(pack(torch.tensor([[-128, -127, 0, 127]]), 8).item()) & 0xFFFFFFFF == 0xFF800100


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
        pack(codes, 4)


def test_unpack_refuses_other_dtypes() -> None:
    with pytest.raises(ValueError):
        unpack(torch.zeros(2, 2, dtype=torch.int64), 4)


@pytest.mark.slow
def test_kernels_import_with_torch_alone() -> None:
    """A serving image has torch but none of quantgate's other dependencies."""
    foreign = ("transformers", "pydantic", "yaml", "safetensors", "compressed_tensors", "quantizers", "harness")
    hidden = "".join(f"sys.modules[{name!r}] = None\n" for name in foreign)
    script = f"import sys\n{hidden}import quantgate_kernels.formats.pack_quantized\n"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
