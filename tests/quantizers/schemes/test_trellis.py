"""The trellis scheme: what it makes of weights, and what is stored."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from quantgate_kernels.formats.linears import read_linear
from quantgate_kernels.formats.trellis import MULTIPLIER, TABLE_STEP, TrellisLayout, states, tiled
from quantgate_kernels.tables import BYTE_SUMS, normal_table, sha256_of_table

from quantizers.curvature import Curvature
from quantizers.errors import QuantizeError
from quantizers.schemes import TIERS
from quantizers.schemes.base import split_rows
from quantizers.schemes.trellis import Trellis
from quantizers.trellis import sweep as tile_sweep
from quantizers.two_sided import quantize_two_sided

pytestmark = pytest.mark.slow  # searches through trellises


def correlated(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5 + torch.eye(columns)
    inputs = torch.randn(4 * columns, columns, generator=generator) @ mixing
    return torch.randn(rows, columns, generator=generator), inputs.t() @ inputs


def output_error(scheme: Trellis, weight: torch.Tensor, hessian: torch.Tensor) -> float:
    parts = scheme.quantize(weight, Curvature(hessian), lambda: None)
    error = weight - scheme.units(parts) * parts["scales"].repeat_interleave(128, 1)
    return float(((error @ hessian) * error).sum())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_what_is_stored_is_what_was_found(bits: int) -> None:
    scheme = Trellis("t", TrellisLayout(bits, 9), 0.01)
    weight, hessian = correlated(bits, 48, 192)
    parts = scheme.quantize(weight, Curvature(hessian), lambda: None)
    table = normal_table(9)
    values = table[states(parts["codes"], scheme.layout).long()] * TABLE_STEP
    assert torch.equal(tiled(scheme.units(parts)), values)
    stored = scheme.tensors(parts)
    assert scheme.nbytes(48, 192) == sum(tensor.nbytes for tensor in stored.values())
    back = read_linear(stored, scheme.entry(), scheme.tables([192, 64]))
    assert torch.equal(back.to(torch.bfloat16), scheme.dequantize(parts))
    error = scheme.turn_back(weight) - back
    assert float(error.square().mean()) < {2: 0.2, 3: 0.06, 4: 0.02}[bits]


def test_feedback_pays_inside_tiles_and_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, wide = correlated(1, 64, 256)
    places = torch.arange(256)
    near = 0.9 ** (places[:, None] - places).abs()  # neighbours are alike: what is lost in a tile is won there too
    scheme, inner = Trellis("t", TrellisLayout(2, 9), 0.01), tile_sweep.inner_feedback
    unaware = scheme.quantize(weight, Curvature(torch.eye(256)), lambda: None)
    error = weight - scheme.units(unaware) * unaware["scales"].repeat_interleave(128, 1)
    found = output_error(scheme, weight, near)
    monkeypatch.setattr(tile_sweep, "inner_feedback", lambda factors: torch.zeros_like(inner(factors)))
    assert found < 0.92 * output_error(scheme, weight, near)
    assert output_error(scheme, weight, wide) < 0.9 * float(((error @ wide) * error).sum())


def test_feedback_inside_a_tile_is_that_of_single_columns() -> None:
    """The exact minimiser for an error of one column, within the columns of its block after it."""
    _, hessian = correlated(2, 1, 64)
    found = tile_sweep.inner_feedback(Curvature(hessian).factors(16, 0.01))
    curvature = hessian.double() / hessian.diagonal().double().mean() + 0.01 * torch.eye(64, dtype=torch.float64)
    for block in range(4):
        for column in range(16):
            place = block * 16 + column
            inverse = torch.linalg.inv(curvature[place:, place:])
            expected = (inverse[0] / inverse[0, 0])[: 16 - column].float()
            torch.testing.assert_close(found[block, column, column:], expected, rtol=1e-3, atol=1e-4)


def test_tiles_of_rows_do_not_know_of_each_other() -> None:
    """A caller may bring rows 16 at a time, or those of several Linears as one weight."""
    scheme = Trellis("t", TrellisLayout(2, 8), 0.01)
    weight, hessian = correlated(3, 64, 128)
    curvature, rows = Curvature(hessian), [16, 32, 16]
    together = split_rows(scheme.quantize(weight, curvature, lambda: None), rows)
    for part, found in zip(torch.split(weight, rows), together, strict=True):
        alone = scheme.quantize(part, curvature, lambda: None)
        assert all(torch.equal(alone[name], found[name]) for name in alone)


def test_errors_over_the_outputs_are_compensated_in_chunks_of_tiles() -> None:
    scheme = Trellis("t", TrellisLayout(2, 8), 0.01)
    one, hessian = correlated(6, 48, 128)
    weights, curvature = [one, correlated(7, 16, 128)[0]], Curvature(hessian)
    places = torch.arange(48)
    outputs = 0.9 ** (places[:, None] - places).abs()
    found = quantize_two_sided(scheme, weights, curvature, [outputs, torch.eye(16)], lambda: None)
    assert [parts["codes"].shape for parts in found] == [(3, 8, 256), (1, 8, 256)]
    errors = []
    for parts in (found[0], scheme.quantize(one, curvature, lambda: None)):
        error = one - scheme.units(parts) * parts["scales"]
        errors.append(float(((outputs @ error @ hessian) * error).sum()))
    assert errors[0] < 0.95 * errors[1]


def test_rows_of_zeros_are_stored_as_nearly_zero() -> None:
    scheme = Trellis("t", TrellisLayout(2, 8), 0.01)
    weight, hessian = correlated(4, 32, 128)
    weight[3] = 0
    parts = scheme.quantize(weight, Curvature(hessian), lambda: None)
    values = scheme.units(parts) * parts["scales"]
    assert float(values[3].abs().max()) < 1e-5
    assert float((values - weight)[4:].square().mean()) < 0.2
    assert scheme.tensors(parts)["scales"][3].item() > 0


def test_tiers_share_a_table_and_say_what_they_are() -> None:
    schemes = {tier: TIERS[tier]({"a": 128}, None, 0.01) for tier in TIERS if tier.startswith("trellis")}
    assert [s.entry()["bits"] for s in schemes.values()] == [2, 2, 3, 3, 4, 4]
    assert {tier: s.tier for tier, s in schemes.items()} == {tier: tier for tier in schemes}
    full, small = schemes["trellis3"], schemes["trellis3-l12"]
    assert (full.entry()["state_bits"], small.entry()["state_bits"]) == (16, 12)
    assert full.entry()["table"] == schemes["trellis2"].entry()["table"] != small.entry()["table"]
    (name, table), (signs, _) = full.tables([128]).items()
    assert name == full.entry()["table"] and signs == "signs.128"
    assert table.dtype == torch.int16 and table.shape == (1 << 16,)
    assert full.entry()["codebook"] == {"kind": BYTE_SUMS, "seed": MULTIPLIER, "sha256": sha256_of_table(table)}
    values = small.tables([128])[small.entry()["table"]].double() * TABLE_STEP
    assert float(values.mean()) == pytest.approx(0, abs=1e-3) and float(values.std()) == pytest.approx(1, abs=5e-3)
    assert full.nbytes(4096, 4096) == 4096 * 4096 * 3 // 8 + 4096 * 32 * 2
    assert "3 bits each, one of 65536 values" in full.words().weights


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(QuantizeError, match=r"tier trellis2 has groups of 128 inputs.*: no group_size"):
        TIERS["trellis2"]({"a": 128}, 64, 0.01)
    with pytest.raises(QuantizeError, match="b: 100 inputs are no multiple of 32: ignore this layer"):
        TIERS["trellis2"]({"a": 128, "b": 100}, None, 0.01)


def test_each_column_of_tiles_is_reported() -> None:
    ticks: list[int] = []
    scheme = Trellis("t", TrellisLayout(2, 8), 0.01)
    scheme.quantize(*_with_curvature(16, 96), partial(ticks.append, 1))
    assert len(ticks) == 6


def _with_curvature(rows: int, columns: int) -> tuple[torch.Tensor, Curvature]:
    weight, hessian = correlated(5, rows, columns)
    return weight, Curvature(hessian)
