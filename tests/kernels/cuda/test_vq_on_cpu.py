"""The kernels of vq tiers, run on a CPU thread by thread, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cuda_fibers import AVAILABLE
from kernel_cases import TIERS, linear, on_fibers, relative_error
from quantgate_kernels import oracle
from quantgate_kernels.cuda import activations, order, vq_gemv

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs g++ and a CPU with F16C")
SMALL = vq_gemv.Tuning(warps=4, prefetch=2, slots=2)


def run(
    folder: Path,
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
    dimensions, entries = TIERS[name]
    code_bits, table = entries.bit_length() - 1, tables[tier["table"]]
    n_tiles = vq_gemv.n_tiles_of(tokens)
    quantize = on_fibers(
        folder / "activations",
        "activations",
        ("fragments.cuh", "rotation.cuh", "activations.cu"),
        dict(activations.definitions(inputs, x.dtype)),
    )
    operands, factors = activations.room(tokens, inputs, n_tiles, x.device)
    operands.fill_(0x7F7F7F7F)
    factors.fill_(torch.nan)
    signs = tables[f"signs.{inputs}"] if rotated else 0
    blocks_of_activations = -(-tokens * order.pieces_of(inputs) // 4)
    quantize((blocks_of_activations,), 128, [x, signs, operands, factors, tokens, inputs])
    numbers = vq_gemv.definitions(inputs, dimensions, code_bits, n_tiles, torch.float32, tuning)
    multiply = on_fibers(folder / "gemv", "vq_gemv", ("fragments.cuh", "vq_gemv.cu"), numbers)
    codes = order.ordered_codes(stored["codes"], dimensions, code_bits)
    scales = order.ordered_scales(stored["scales"], inputs)
    out = torch.full((tokens, rows), torch.nan)
    splits = splits or vq_gemv.splits_of(rows, inputs, blocks, tuning.warps)
    blocks = min(blocks, -(-order.tiles_of(rows) // (tuning.warps // splits)))
    tensors = [codes, scales, table, operands, factors, out]
    multiply((blocks,), numbers["WARPS"] * 32, [*tensors, tokens, rows, order.pieces_of(inputs), splits])
    return out, oracle.linear(x, stored, tier, tables)


def inputs_of(tokens: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return (torch.randn(tokens, inputs, generator=generator) * 3).to(dtype)


@pytest.mark.parametrize("name", TIERS)
def test_every_tier_is_what_the_oracle_says(tmp_path: Path, name: str) -> None:
    found, expected = run(tmp_path, name, inputs_of(1, 640), 16 * 9)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("inputs", [192, 160, 64])
@pytest.mark.parametrize("name", ["vq1", "vq2", "vq3"])
def test_groups_of_64_and_32_and_rows_that_fill_no_tile(tmp_path: Path, inputs: int, name: str) -> None:
    found, expected = run(tmp_path, name, inputs_of(3, inputs, torch.float16), 53)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("tokens", [2, 4, 5, 9, 17, 33, 64])
def test_more_tokens_fill_more_n_tiles(tmp_path: Path, tokens: int) -> None:
    found, expected = run(tmp_path, "vq2", inputs_of(tokens, 256), 48)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize(("warps", "prefetch", "slots", "splits"), [(4, 1, 1, 1), (4, 3, 1, 3), (8, 4, 3, 2)])
def test_the_division_of_work_changes_no_result(
    tmp_path: Path, warps: int, prefetch: int, slots: int, splits: int
) -> None:
    tuning = vq_gemv.Tuning(warps, prefetch, 4, slots)
    found, expected = run(tmp_path, "vq2", inputs_of(1, 896), 16 * 13 + 1, tuning, 2, splits)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("copies", [1, 2, 8])
def test_copies_of_the_table_change_nothing(tmp_path: Path, copies: int) -> None:
    found, expected = run(tmp_path, "vq3", inputs_of(1, 256), 32, replace(SMALL, copies=copies))
    assert relative_error(found, expected) < 1e-4


def test_without_rotation_and_with_odd_values(tmp_path: Path) -> None:
    x = inputs_of(4, 256)
    x[1] = 0
    x[2, 5] = torch.inf
    x[3] *= 1e-20
    found, expected = run(tmp_path, "vq2", x, 32, rotated=False)
    assert (found[1] == 0).all()
    assert found[2].isnan().all()
    assert relative_error(found[[0]], expected[[0]]) < 1e-4
    assert relative_error(found[[3]], expected[[3]]) < 1e-4
