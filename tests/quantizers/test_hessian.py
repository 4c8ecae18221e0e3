"""Hessians from hooks."""

from functools import partial

import pytest
import torch
from torch import nn

from quantizers.errors import QuantizeError
from quantizers.hessian import Hessians


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.o, self.unused = (nn.Linear(8, 8) for _ in range(4))
        self.inputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = self.q(x) * self.k(x)
        self.inputs.append(middle.detach())
        out: torch.Tensor = self.o(middle)
        return out


def test_sums_over_batches_and_shared_inputs() -> None:
    torch.manual_seed(0)
    block = Block()
    linears = {"q": block.q, "k": block.k, "o": block.o}
    hessians = Hessians(linears)
    batches = [torch.randn(2, 5, 8) for _ in range(3)]
    for batch in batches:
        hessians.watch(partial(block, batch))
    (qk, shared), (o, own) = hessians.groups()
    assert (qk, o) == (["q", "k"], ["o"])
    for hessian, inputs in ((shared, batches), (own, block.inputs)):
        rows = torch.cat(inputs).reshape(-1, 8).double()
        torch.testing.assert_close(hessian.double(), 2 * rows.T @ rows, rtol=1e-5, atol=1e-5)
    assert not any(linear._forward_pre_hooks for linear in linears.values())


def test_a_linear_that_never_ran_is_named() -> None:
    block = Block()
    hessians = Hessians({"q": block.q, "unused": block.unused})
    hessians.watch(lambda: block(torch.randn(1, 2, 8)))
    with pytest.raises(QuantizeError, match="unused never ran"):
        hessians.groups()


def test_inputs_that_overflow_are_named() -> None:
    block = Block()
    hessians = Hessians({"q": block.q})
    hessians.watch(lambda: block(torch.full((1, 2, 8), 1e30)))
    with pytest.raises(QuantizeError, match="inputs of q overflow"):
        hessians.groups()
