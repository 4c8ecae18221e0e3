"""Rotations against their definition."""

from __future__ import annotations

import pytest
import torch
from quantgate_kernels.formats.rotation import block_of, hadamard, rotate, signs_of, unrotate


@pytest.mark.parametrize("columns", [128, 576, 896, 96])
def test_rotating_a_weight_and_its_inputs_changes_no_output(columns: int) -> None:
    generator = torch.Generator().manual_seed(columns)
    weight = torch.randn(5, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(7, columns, generator=generator, dtype=torch.float64)
    signs = signs_of(columns, 3)
    outputs = rotate(inputs, signs) @ rotate(weight, signs).t()
    torch.testing.assert_close(outputs, inputs @ weight.t(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(unrotate(rotate(weight, signs), signs), weight, rtol=1e-6, atol=1e-6)


def test_the_matrix_is_hadamards_and_the_signs_are_signs() -> None:
    matrix = hadamard(64) * 8
    assert set(matrix.view(-1).tolist()) == {-1.0, 1.0}
    assert torch.equal(matrix @ matrix.t(), 64 * torch.eye(64)) and torch.equal(matrix, matrix.t())
    signs = signs_of(4096, 0)
    assert signs.dtype == torch.int8 and set(signs.tolist()) == {-1, 1} and abs(int(signs.sum())) < 300
    assert torch.equal(signs, signs_of(4096, 0)) and not torch.equal(signs, signs_of(4096, 1))


def test_an_outlier_is_spread_over_its_block() -> None:
    inputs = torch.zeros(256)
    inputs[5] = 128.0
    turned = rotate(inputs, signs_of(256, 0))
    assert turned[:128].abs().allclose(torch.full((128,), 128**0.5)) and not turned[128:].any()


def test_blocks() -> None:
    assert [block_of(n) for n in (896, 576, 96)] == [128, 64, 32]
    with pytest.raises(ValueError, match="no multiple of 32"):
        block_of(100)
