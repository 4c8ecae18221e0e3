"""The kernels of vq tiers, run on a CPU thread by thread, against the oracle."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cuda_fibers import AVAILABLE
from kernel_cases import TIERS, TRELLISES, in_order, inputs_of, linear, on_fibers, quantized, relative_error
from quantgate_kernels import oracle
from quantgate_kernels.cuda import order, vq_gemv

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs g++ and a CPU with F16C")
SMALL = vq_gemv.Tuning(warps=4, depth=4, tiles=2)


def run(
    name: str,
    x: torch.Tensor,
    rows: int,
    tuning: vq_gemv.Tuning = SMALL,
    blocks: int = 3,
    splits: int = 0,
    rotated: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 results of the kernels, and what the oracle says."""
    tokens, inputs = x.shape
    stored, tier, tables = linear(name, rows, inputs, rotated)
    codes, scales, table, kind = in_order(stored, tier, tables, inputs)
    signs = tables[f"signs.{inputs}"] if rotated else 0
    n_tiles = vq_gemv.n_tiles_of(tokens)
    fused = tuning.fused and vq_gemv.can_fuse(tokens, inputs, kind)
    splits = splits or vq_gemv.splits_of(rows, inputs, blocks, tuning.warps)
    blocks = min(blocks, -(-order.tiles_of(rows) // (tuning.warps // splits)))
    steps = -(-order.tiles_of(rows) // (blocks * (tuning.warps // splits)))
    numbers = vq_gemv.definitions(inputs, kind, n_tiles, steps, tuning, x.dtype if fused else None)
    multiply = on_fibers("vq_gemv", vq_gemv.files_of(numbers), numbers)
    given = (x, signs) if fused else quantized(x, signs)
    out = torch.full((tokens, rows), torch.nan)
    other = out.clone()
    for result, backwards in ((out, False), (other, True)):
        arguments: list[torch.Tensor | int] = [
            codes, scales, table, *given, result, tokens, rows, inputs, splits, 0,
        ]  # fmt: skip
        multiply((blocks,), numbers["WARPS"] * 32, arguments, backwards)
    assert torch.equal(out.nan_to_num(-1), other.nan_to_num(-1)), "a barrier is missing"
    assert vq_gemv.shared_bytes(numbers, inputs) <= vq_gemv.MOST_SHARED
    return out, oracle.linear(x, stored, tier, tables)


@pytest.mark.parametrize("name", [*TIERS, *TRELLISES])
def test_every_tier_is_what_the_oracle_says(name: str) -> None:
    found, expected = run(name, inputs_of(1, 640), 16 * 9)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize(
    ("inputs", "name"), [(192, "vq1"), (192, "vq2"), (192, "vq3"), (160, "vq2"), (64, "vq1"), (64, "vq3")]
)
def test_groups_of_64_and_32_and_rows_that_fill_no_tile(inputs: int, name: str) -> None:
    found, expected = run(name, inputs_of(3, inputs, torch.float16), 53)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize(
    ("name", "tokens"), [("vq2", 2), ("vq2", 5), ("vq2", 9), ("vq2", 64), ("trellis2-sums", 13), ("trellis3-sums", 17)]
)
def test_more_tokens_fill_more_n_tiles(name: str, tokens: int) -> None:
    found, expected = run(name, inputs_of(tokens, 256), 48)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize(
    ("warps", "depth", "tiles", "splits"), [(4, 1, 1, 1), (4, 3, 2, 3), (8, 8, 4, 2), (4, 9, 3, 4)]
)
def test_the_division_of_work_changes_no_result(warps: int, depth: int, tiles: int, splits: int) -> None:
    tuning = vq_gemv.Tuning(warps, depth, tiles)
    found, expected = run("vq2", inputs_of(1, 896), 16 * 13 + 1, tuning, 2, splits)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize(
    ("name", "inputs", "warps", "rotated"),
    [("vq2", 640, 4, True), ("vq1", 192, 8, True), ("vq2", 2592, 4, False), ("trellis2", 640, 4, True)],
)
def test_a_token_turned_by_each_block_gives_the_same_bits(name: str, inputs: int, warps: int, rotated: bool) -> None:
    x, tuning = inputs_of(1, inputs, torch.float16 if inputs == 192 else torch.bfloat16), replace(SMALL, warps=warps)
    rows = 48 if name in TRELLISES else 53
    apart, expected = run(name, x, rows, tuning, 2, rotated=rotated)
    found, _ = run(name, x, rows, replace(tuning, fused=True), 2, rotated=rotated)
    assert torch.equal(found, apart)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("copies", [1, 8])
def test_copies_of_the_table_change_nothing(copies: int) -> None:
    found, expected = run("vq3", inputs_of(1, 256), 32, replace(SMALL, copies=copies))
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize(
    ("name", "tokens", "inputs"), [(name, *((2, 192), (6, 160))[n % 2]) for n, name in enumerate(TRELLISES)]
)
def test_trellises_of_odd_shapes(name: str, tokens: int, inputs: int) -> None:
    found, expected = run(name, inputs_of(tokens, inputs), 16 * 5)
    assert relative_error(found, expected) < 1e-4


def test_without_rotation_and_with_odd_values() -> None:
    x = inputs_of(4, 256)
    x[1] = 0
    x[2, 5] = torch.inf
    x[3] *= 1e-20
    found, expected = run("vq2", x, 32, rotated=False)
    assert (found[1] == 0).all()
    assert found[2].isnan().all()
    assert relative_error(found[[0]], expected[[0]]) < 1e-4
    assert relative_error(found[[3]], expected[[3]]) < 1e-4
