"""What is stored of a trellis-coded weight, against bits read one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels.formats.linears import read_linear
from quantgate_kernels.formats.rotation import rotate, signs_of
from quantgate_kernels.formats.trellis import TABLE_STEP, TrellisLayout, decode, encode, states, tiled, untiled

LAYOUTS = [TrellisLayout(2, 16), TrellisLayout(3, 16), TrellisLayout(4, 16), TrellisLayout(1, 9), TrellisLayout(3, 7)]


def stored(
    layout: TrellisLayout, rows: int, columns: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.randint(0, 1 << layout.bits, (rows // 16, columns // 16, 256), generator=generator)
    scales = torch.rand(rows, columns // (128 if columns % 128 == 0 else 64), generator=generator) + 0.1
    table = torch.randint(-127, 128, (1 << layout.state_bits,), generator=generator, dtype=torch.int8)
    return symbols, scales, table


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(LAYOUTS), st.sampled_from([16, 32]), st.sampled_from([64, 128, 192]), st.integers(0, 1000))
def test_a_weight_is_the_value_of_the_bits_before_it(layout: TrellisLayout, rows: int, columns: int, seed: int) -> None:
    symbols, scales, table = stored(layout, rows, columns, seed)
    tensors = encode(symbols.to(torch.uint8), scales, layout)
    assert tensors["codes"].shape == (rows // 16, layout.words(columns)) and tensors["codes"].dtype == torch.int32
    assert tensors["scales"].dtype == torch.float16
    expected, group = torch.empty(rows, columns), columns // scales.shape[1]
    for high in range(rows // 16):
        for wide in range(columns // 16):
            words = tensors["codes"][high, wide * layout.tile_words : (wide + 1) * layout.tile_words].tolist()
            ring = sum((word & 0xFFFFFFFF) << (32 * place) for place, word in enumerate(words))
            size = 256 * layout.bits
            for i in range(256):
                # L neighbouring bits of the ring, which begins again behind its end.
                state = ((ring | ring << size) >> ((255 - i) * layout.bits)) & ((1 << layout.state_bits) - 1)
                assert state & ((1 << layout.bits) - 1) == symbols[high, wide, i]
                row, column = high * 16 + i % 16, wide * 16 + i // 16
                expected[row, column] = table[state] * TABLE_STEP * scales[row, column // group].half().float()
    assert torch.equal(decode(tensors, table, layout, None), expected)
    signs = signs_of(columns, 0)
    torch.testing.assert_close(rotate(decode(tensors, table, layout, signs), signs), expected, rtol=1e-4, atol=1e-4)


def test_states_follow_each_other_around_the_ring() -> None:
    for layout in LAYOUTS:
        symbols, _, _ = stored(layout, 16, 64, 1)
        found = states(symbols, layout)
        follower = (found << layout.bits | symbols.roll(-1, -1)) % (1 << layout.state_bits)
        assert torch.equal(found.roll(-1, -1), follower)


def test_tiles_go_column_by_column() -> None:
    weight = torch.arange(32 * 48).view(32, 48)
    tiles = tiled(weight)
    assert tiles[1, 2].tolist() == weight[16:, 32:].t().flatten().tolist()
    assert torch.equal(untiled(tiles), weight)


def test_bits_are_those_of_the_tiers() -> None:
    assert [32 * layout.words(128) / (16 * 128) for layout in LAYOUTS] == [2, 3, 4, 1, 3]


def test_a_weight_is_cut_between_groups_and_between_tiles() -> None:
    """What tensor parallelism needs: a slice of the codes is the slice of the weight."""
    layout = TrellisLayout(3, 16)
    symbols, scales, table = stored(layout, 64, 512, 1)
    tensors = encode(symbols, scales, layout)
    whole = decode(tensors, table, layout, None)
    half = {"codes": tensors["codes"][:, : layout.words(256)], "scales": tensors["scales"][:, :2]}
    assert torch.equal(decode(half, table, layout, None), whole[:, :256])
    lower = {"codes": tensors["codes"][2:], "scales": tensors["scales"][32:]}
    assert torch.equal(decode(lower, table, layout, None), whole[32:])


def test_the_reader_goes_by_the_config() -> None:
    layout = TrellisLayout(2, 10)
    symbols, scales, table = stored(layout, 32, 128, 2)
    tensors, signs = encode(symbols, scales, layout), signs_of(128, 3)
    tier = {"format": "trellis", "bits": 2, "state_bits": 10, "table": "t", "rotation": {"seed": 3}}
    tables = {"t": table, "signs.128": signs}
    assert torch.equal(read_linear(tensors, tier, tables), decode(tensors, table, layout, signs))
    assert torch.equal(read_linear(tensors, tier | {"rotation": None}, tables), decode(tensors, table, layout, None))
    with pytest.raises(ValueError, match=r"a table \[1024\] is none of states of 12 bits"):
        read_linear(tensors, tier | {"state_bits": 12}, tables)
    with pytest.raises(ValueError, match="no trellis has 0 bits a weight"):
        read_linear(tensors, tier | {"bits": 0}, tables)


def test_what_contradicts_itself_is_refused() -> None:
    layout = TrellisLayout(2, 10)
    symbols, scales, table = stored(layout, 16, 128, 2)
    tensors = encode(symbols, scales, layout)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        encode(symbols + 4, scales, layout)
    with pytest.raises(ValueError, match="positive and finite"):
        encode(symbols, torch.full_like(scales, float("inf")), layout)
    with pytest.raises(ValueError, match="do not fit"):
        encode(symbols, scales[:1], layout)
    with pytest.raises(ValueError, match="do not fit"):
        decode(tensors | {"scales": torch.ones(16, 3).half()}, table, layout, None)
    with pytest.raises(ValueError, match="do not hold whole tiles of 16 words"):
        decode(tensors | {"codes": tensors["codes"][:, :-1].contiguous()}, table, layout, None)
    with pytest.raises(ValueError, match="no multiple of 32"):
        layout.words(48)
    with pytest.raises(ValueError, match="states of 17 bits"):
        TrellisLayout(2, 17)
