"""The costs by which work is dealt out are those that were measured, and choose well."""

from __future__ import annotations

import pytest
from quantgate_kernels.cuda.vq_gemm import COSTS

from benchmarks.gemm_costs import MEASURED, fitted, measured, regrets


@pytest.mark.parametrize("together", sorted(COSTS))
def test_the_costs_are_those_of_the_measurement_and_choose_a_fast_division(together: int) -> None:
    rows, costs = measured(MEASURED[together]), COSTS[together]
    assert fitted(rows) == pytest.approx(costs, rel=0.01)
    assert max(regrets(rows, costs)) < 1.1
