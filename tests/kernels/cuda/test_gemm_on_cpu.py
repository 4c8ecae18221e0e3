"""The kernel for more tokens, run on a CPU thread by thread, against the oracle."""

from __future__ import annotations

import pytest
import torch
from cuda_fibers import AVAILABLE
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import HALVES, TIERS, TRELLISES, halved, in_order, inputs_of, linear, on_fibers, relative_error
from quantgate_kernels import oracle
from quantgate_kernels.cuda import order, vq_gemm, vq_gemv
from quantgate_kernels.cuda.tier import Tier
from quantgate_kernels.cuda.vq_gemm import Division

BOUND = 4e-4
"""Activations and weights are float16 here."""
CLUSTERS = {
    "cluster_barrier": "cluster_meets();",
    "leave_cluster": "cluster_meets();",
    "theirs4": "return *(const float4*)in_block(own, block);",
}
COPIES = {
    "begin_barrier": "begin(barrier, count);",
    "show_barriers": "",
    "arrive": "change(barrier, 1, bytes);",
    "copy_bulk": "memcpy(to, from, bytes); change(barrier, 0, -(int)bytes);",
    "has_ended": "return wait_a_moment(barrier, parity);",
}
PRODUCTS = {
    1: {"four_matrices": "load_matrices(v, row);", "mma_halves": "mma_f32(c, a, b0, b1, false);"},
    4: {
        "wgmma_halves": "for (int n = 0; n < N_TILES; n++) { "
        "const unsigned* own = (unsigned*)panel + n * 32 + current % 32; "
        "mma_f32(c + n * 4, a, own[0], own[TOKENS * 4], false); }",
        **dict.fromkeys(("show_registers", "end_group", "wait_for_groups", "keep_in_order"), ""),
    },
}
"""By how many warps multiply together; four of them do here what each does by itself, at once."""
ROOMS = (132, 66, 44, 30, 22, 20, 14, 14)
"""Clusters of 1 to 8 blocks that run side by side on one H200."""
needs_fibers = pytest.mark.skipif(not AVAILABLE, reason="needs g++ and a CPU with F16C")


def run(name: str, x: torch.Tensor, rows: int, division: Division) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 results of the kernels, and what the oracle says."""
    tokens, inputs = x.shape
    stored, tier, tables = linear(name, rows, inputs)
    codes, scales, table, kind = in_order(stored, tier, tables, inputs)
    n_tiles = vq_gemm.n_tiles_of(tokens)
    numbers = vq_gemm.definitions(inputs, kind, n_tiles, division)
    files, products = vq_gemm.files_of(numbers, division.together), PRODUCTS[division.together]
    kernel = on_fibers("vq_gemm", files, numbers, **CLUSTERS, **COPIES, **HALVES, **products)
    operands = halved(x, tables[f"signs.{inputs}"], 8 * n_tiles)
    splits = division.splits
    grid, threads = (-(-order.tiles_of(rows) // division.block_tiles) * splits,), division.warps * 32
    found = [torch.full((tokens, rows), torch.nan) for _ in range(2)]
    for out, backwards in zip(found, (False, True), strict=True):
        values = (codes, scales, table, *operands, out, tokens, rows, inputs, splits, 0)
        kernel(grid, threads, values, backwards, splits)
    assert torch.equal(*(each.nan_to_num(-1) for each in found)), "a barrier is missing"
    assert vq_gemm.shared_bytes(numbers, inputs, kind, division) <= vq_gemv.MOST_SHARED
    return found[0], oracle.linear(x, stored, tier, tables)


@needs_fibers
@pytest.mark.parametrize("name", [*TIERS, *TRELLISES])
def test_every_tier_is_what_the_oracle_says(name: str) -> None:
    division = Division(4, 2 if name in TIERS else 1, 2, 2)
    found, expected = run(name, inputs_of(7, 640), 16 * 5, division)
    assert relative_error(found, expected) < BOUND


@needs_fibers
@pytest.mark.parametrize("name", ["vq2", "vq1.5", "trellis2-sums"])
def test_four_warps_together_do_the_same(name: str) -> None:
    x = inputs_of(17, 640)
    found, expected = run(name, x, 16 * 9, Division(8, 1, 2, 2, 4))
    assert relative_error(found, expected) < BOUND
    assert torch.equal(found, run(name, x, 16 * 9, Division(8, 1, 2, 2))[0])


@needs_fibers
@pytest.mark.parametrize(
    ("name", "inputs", "rows", "tokens"),
    [
        ("vq2", 192, 53, 9),
        ("vq1", 192, 20, 3),
        ("vq3", 160, 53, 17),
        ("vq1.5", 64, 16, 5),
        ("trellis2-sums", 160, 16, 6),
    ],
)
def test_groups_of_64_and_32_and_rows_that_fill_no_tile(name: str, inputs: int, rows: int, tokens: int) -> None:
    found, expected = run(name, inputs_of(tokens, inputs, torch.float16), rows, Division(4, 1, 2, 1))
    assert relative_error(found, expected) < BOUND


@needs_fibers
@pytest.mark.parametrize(
    "division",
    [
        *(Division(4, 1, 1, 1), Division(4, 2, 4, 1), Division(8, 3, 2, 3), Division(4, 3, 4, 2), Division(8, 2, 1, 7)),
        *(Division(12, 1, 3, 2, 4), Division(8, 4, 1, 1, 4), Division(16, 1, 4, 1, 4), Division(12, 2, 1, 3, 4)),
    ],
)
def test_the_division_of_work_changes_no_result(division: Division) -> None:
    found, expected = run("vq2", inputs_of(10, 896), 16 * 13 + 1, division)
    assert relative_error(found, expected) < BOUND


@needs_fibers
def test_a_token_whose_values_are_not_finite_spoils_no_other() -> None:
    x = inputs_of(6, 256)
    x[1] = 0
    x[4, 5] = torch.inf
    found, expected = run("vq2", x, 32, Division(4, 2, 2, 1))
    assert (found[1] == 0).all()
    assert not found[4].isfinite().any()
    assert relative_error(found[[0, 2, 3, 5]], expected[[0, 2, 3, 5]]) < BOUND


@given(
    together=st.sampled_from(sorted(vq_gemm.BLOCKS)),
    rows=st.integers(1, 40_000),
    inputs=st.integers(1, 512).map(lambda each: 64 * each),
    tier=st.sampled_from([Tier(8, 8), Tier(4, 8), Tier(8, 12), Tier(4, 12), Tier(1, 2, 16, True), Tier(1, 2, 12)]),
    n_tiles=st.sampled_from(vq_gemm.N_TILES),
)
@settings(max_examples=60, deadline=None)
def test_every_shape_has_a_division_that_fits(together: int, rows: int, inputs: int, tier: Tier, n_tiles: int) -> None:
    division = vq_gemm.division_of(ROOMS, together, rows, inputs, tier, n_tiles)
    numbers = vq_gemm.definitions(inputs, tier, n_tiles, division)
    assert vq_gemm.shared_bytes(numbers, inputs, tier, division) <= vq_gemv.MOST_SHARED
    assert numbers["STAGES"] >= 2 and division.warps % (division.beside * together) == 0
    row_blocks = -(-order.tiles_of(rows) // division.block_tiles)
    assert division.splits == 1 or row_blocks <= ROOMS[division.splits - 1]
    assert division.splits <= -(-order.pieces_of(inputs) // division.beside), "a block without a step"
