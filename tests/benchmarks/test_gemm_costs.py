"""The costs by which work is dealt out are those that were measured, and choose well."""

from __future__ import annotations

import pytest
from quantgate_kernels.cuda.vq_gemm import COSTS

from benchmarks.gemm_costs import MEASURED, fitted, measured, regrets


def test_the_costs_are_those_of_the_measurement_and_choose_a_fast_division() -> None:
    rows = measured(MEASURED)
    assert fitted(rows) == pytest.approx(COSTS, rel=0.01)
    assert max(regrets(rows, COSTS)) < 1.1
