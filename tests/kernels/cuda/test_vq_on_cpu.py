"""The kernels of vq tiers, run on a CPU thread by thread, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cuda_fibers import AVAILABLE
from kernel_cases import TIERS, TRELLISES, in_order, linear, on_fibers, relative_error
from quantgate_kernels import oracle
from quantgate_kernels.cuda import activations, order, vq_gemv

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs g++ and a CPU with F16C")
SMALL = vq_gemv.Tuning(warps=4, depth=2, slots=2)


def run(
    folder: Path,
    name: str,
    x: torch.Tensor,
    rows: int,
    tuning: vq_gemv.Tuning = SMALL,
    blocks: int = 3,
    splits: int = 0,
    rotated: bool = True,
    fused: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 results of the kernels, and what the oracle says."""
    tokens, inputs = x.shape
    stored, tier, tables = linear(name, rows, inputs, rotated)
    codes, scales, table, kind = in_order(stored, tier, tables, inputs)
    signs = tables[f"signs.{inputs}"] if rotated else 0
    n_tiles = vq_gemv.n_tiles_of(tokens)
    numbers = vq_gemv.definitions(inputs, kind, n_tiles, tuning, x.dtype if fused else None, rotated)
    files = vq_gemv.files_of(numbers)
    bfloat = "true" if x.dtype is torch.bfloat16 else "false"
    more = {"mma_half": f"mma_f32(c, a, b0, b1, {bfloat});", "reciprocal": "return 1 / value;"} if fused else {}
    multiply = on_fibers(folder / "gemv", "vq_gemv", files, numbers, **more)
    given: tuple[torch.Tensor | int, torch.Tensor | int] = x, signs
    if not fused:
        given = quantized(folder / "activations", x, signs)
    out = torch.full((tokens, rows), torch.nan)
    splits = splits or vq_gemv.splits_of(rows, inputs, blocks, tuning.warps)
    blocks = min(blocks, -(-order.tiles_of(rows) // (tuning.warps // splits)))
    other = out.clone()
    for result, backwards in ((out, False), (other, True)):
        arguments = [codes, scales, table, *given, result, tokens, rows, inputs, splits, 0]
        multiply((blocks,), numbers["WARPS"] * 32, arguments, backwards)
    assert torch.equal(out.nan_to_num(-1), other.nan_to_num(-1)), "a barrier is missing"
    assert vq_gemv.shared_bytes(numbers, tokens, inputs) <= vq_gemv.MOST_SHARED
    return out, oracle.linear(x, stored, tier, tables)


def quantized(folder: Path, x: torch.Tensor, signs: torch.Tensor | int) -> tuple[torch.Tensor, torch.Tensor]:
    """Operands and factors, as the kernel ahead leaves them."""
    tokens, inputs = x.shape
    files, numbers = ("fragments.cuh", "rotation.cuh", "activations.cu"), activations.definitions(inputs, x.dtype)
    kernel = on_fibers(folder, "activations", files, dict(numbers))
    operands, factors = activations.room(tokens, inputs, vq_gemv.n_tiles_of(tokens), x.device)
    operands.fill_(0x7F7F7F7F)
    factors.fill_(torch.nan)
    blocks = -(-tokens * order.pieces_of(inputs) // 4)
    kernel((blocks,), 128, [x, signs, operands, factors, tokens, inputs])
    return operands, factors


def inputs_of(tokens: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return (torch.randn(tokens, inputs, generator=generator) * 3).to(dtype)


@pytest.mark.parametrize("name", [*TIERS, *TRELLISES])
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


@pytest.mark.parametrize(("warps", "depth", "slots", "splits"), [(4, 1, 1, 1), (4, 3, 1, 3), (8, 4, 3, 2)])
def test_the_division_of_work_changes_no_result(
    tmp_path: Path, warps: int, depth: int, slots: int, splits: int
) -> None:
    tuning = vq_gemv.Tuning(warps, depth, 4, slots)
    found, expected = run(tmp_path, "vq2", inputs_of(1, 896), 16 * 13 + 1, tuning, 2, splits)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("copies", [1, 2, 8])
def test_copies_of_the_table_change_nothing(tmp_path: Path, copies: int) -> None:
    found, expected = run(tmp_path, "vq3", inputs_of(1, 256), 32, replace(SMALL, copies=copies))
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("name", TIERS)
@pytest.mark.parametrize(("tokens", "inputs"), [(1, 1024), (3, 192), (4, 160), (2, 2560)])
def test_blocks_that_make_the_operands_themselves(tmp_path: Path, name: str, tokens: int, inputs: int) -> None:
    if name == "vq1.5" and inputs == 160:
        return  # four codes of 12 bits fill no words
    dtype = torch.float16 if tokens == 3 else torch.bfloat16
    found, expected = run(tmp_path, name, inputs_of(tokens, inputs, dtype), 16 * 5 + 3, fused=True)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("name", TRELLISES)
@pytest.mark.parametrize(("tokens", "inputs", "fused"), [(2, 192, True), (6, 160, False)])
def test_trellises_of_odd_shapes(tmp_path: Path, name: str, tokens: int, inputs: int, fused: bool) -> None:
    found, expected = run(tmp_path, name, inputs_of(tokens, inputs), 16 * 5, fused=fused)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("fused", [False, True])
def test_without_rotation_and_with_odd_values(tmp_path: Path, fused: bool) -> None:
    x = inputs_of(4, 256)
    x[1] = 0
    x[2, 5] = torch.inf
    x[3] *= 1e-20
    found, expected = run(tmp_path, "vq2", x, 32, rotated=False, fused=fused)
    assert (found[1] == 0).all()
    assert found[2].isnan().all()
    assert relative_error(found[[0]], expected[[0]]) < 1e-4
    assert relative_error(found[[3]], expected[[3]]) < 1e-4
