"""The kernels for many tokens, run on a CPU thread by thread, against the oracle."""

from __future__ import annotations

import pytest
import torch
from cuda_fibers import AVAILABLE
from kernel_cases import HALVES, TIERS, TRELLISES, in_order, linear, on_fibers, relative_error
from quantgate_kernels import oracle
from quantgate_kernels.cuda import dequantize
from quantgate_kernels.cuda.tier import Tier

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs g++ and a CPU with F16C")


@pytest.mark.parametrize("name", [*TIERS, "trellis2", "trellis2-l12", "trellis2-sums", "trellis3-sums"])
def test_the_dequantized_weight_is_the_nearest_float16(name: str) -> None:
    rows = 64 if name in TRELLISES else 59
    stored, tier, tables = linear(name, rows, 320, rotated=False)
    codes, scales, table, kind = in_order(stored, tier, tables, 320)
    numbers = dict(dequantize.definitions(320, kind, torch.bfloat16))
    kernel = on_fibers("vq_dequantize", dequantize.files_of(numbers), numbers, **HALVES)
    found = torch.full((rows - 16, 320), torch.nan, dtype=torch.float16)
    kernel((2,), 512, [codes, scales, table, found, 16, rows - 16, 320])
    expected = oracle.weight(stored, tier, tables)[16:]
    assert torch.equal(found, expected.to(torch.float16))


@pytest.mark.parametrize(("dtype", "rows"), [(torch.bfloat16, 56), (torch.float16, 53)])
def test_activations_of_any_range_come_back(dtype: torch.dtype, rows: int) -> None:
    stored, tier, tables = linear("vq2", rows, 320)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 320, generator=generator) * torch.tensor([[1], [3e-3], [2e3], [1], [0]])
    x[3, 7] = 60000
    x = x.to(dtype)
    numbers = dict(dequantize.definitions(320, Tier(4, 8), dtype))
    rotate, rescale = (
        on_fibers(name, dequantize.files_of(numbers), numbers, **HALVES) for name in ("rotate", "rescale")
    )
    rotated, factors = torch.full((5, 320), torch.nan, dtype=torch.float16), torch.full((5,), torch.nan)
    rotate((5,), 256, [x, tables["signs.320"], rotated, factors, 320])
    assert 8 * 0.5 < float(rotated[0].abs().max()) < 200
    weight = oracle.weight(stored, tier | {"rotation": None}, tables).to(torch.float16)
    products = (rotated.float() @ weight.float().T).to(torch.float16)
    found = torch.full((5, rows + 8), torch.nan, dtype=dtype)
    rescale((5,), 256, [products, factors, found, rows, rows + 8])
    assert found[:, rows:].isnan().all()
    expected = oracle.linear(x, stored, tier, tables)
    for token in range(4):
        assert relative_error(found[token, :rows], expected[token]) < (3e-3 if dtype is torch.bfloat16 else 8e-4)
    assert (found[4, :rows] == 0).all()
