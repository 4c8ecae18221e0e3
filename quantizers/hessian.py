"""Hessians of Linears: 2 X X^T over everything that flows into them (arXiv 2210.17323, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import nn

from quantizers.errors import QuantizeError

RunLayer = Callable[[], object]
"""Runs a layer on one batch."""


class _Reached(BaseException):
    """Ends a pass at the Linear that was waited for; no Exception, so that no forward takes it for an error."""


def input_groups(linears: Mapping[str, nn.Linear], run: RunLayer) -> list[list[str]]:
    """Names of the Linears that receive the very same tensor, such as q/k/v or gate/up, in the order in which they run.

    Raises:
        QuantizeError: a Linear never ran: it would be calibrated on nothing.
    """
    # Holding each input keeps its identity from being reused by a later tensor.
    groups: dict[int, list[str]] = {}
    held: list[torch.Tensor] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def before(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            held.append(inputs[0])
            groups.setdefault(id(inputs[0]), []).append(name)

        return before

    handles = [linear.register_forward_pre_hook(hook(name)) for name, linear in linears.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    ran = [name for names in groups.values() for name in names]
    for name in linears:
        if ran.count(name) != 1:
            times = "never ran" if name not in ran else f"ran {ran.count(name)} times for one text"
            raise QuantizeError(f"{name} {times} on the calibration text: add it to the recipe's ignore")
    return list(groups.values())


def hessian_of(
    name: str, linear: nn.Linear, runs: Iterable[RunLayer], weights: torch.Tensor | None = None
) -> torch.Tensor:
    """2 X X^T [I, I], float32, over all rows of what `linear` receives; see `hessians_of`."""
    return hessians_of({name: linear}, runs, weights)[name]


def hessians_of(
    linears: Mapping[str, nn.Linear], runs: Iterable[RunLayer], weights: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """2 X X^T [I, I], float32, over all rows of what each of `linears` receives; each run ends when all are reached.

    Args:
        linears: none of which waits for another. What they would give is not computed: nobody sees it.
        weights: what each row counts, over all runs together; None: all the same.

    Raises:
        QuantizeError: its inputs are not finite.
    """
    totals = {
        name: torch.zeros(linear.in_features, linear.in_features, dtype=torch.float32, device=linear.weight.device)
        for name, linear in linears.items()
    }
    seen, reached = dict.fromkeys(linears, 0), set()

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def before(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).to(torch.float32)
            start = seen[name]
            seen[name] += len(rows)
            counted = rows if weights is None else rows * weights[start : seen[name], None].to(rows.device)
            totals[name].addmm_(counted.t(), rows, alpha=2)
            reached.add(name)
            if len(reached) == len(linears):
                raise _Reached

        return before

    handles = [linear.register_forward_pre_hook(hook(name)) for name, linear in linears.items()]
    try:
        for linear in linears.values():
            linear.forward = partial(_nothing, linear.out_features)  # type: ignore[method-assign]
        for run in runs:
            reached.clear()
            try:
                run()
            except _Reached:
                continue
    finally:
        for handle in handles:
            handle.remove()
        for linear in linears.values():
            linear.__dict__.pop("forward", None)
    for name, total in totals.items():
        if weights is not None and seen[name] != len(weights):
            raise QuantizeError(f"{name} sees {seen[name]} rows and not {len(weights)} tokens: set two_sided to false")
        if not bool(torch.isfinite(total).all()):
            raise QuantizeError(f"the inputs of {name} overflow on the calibration text: the model is broken")
    return totals


def _nothing(outputs: int, rows: torch.Tensor) -> torch.Tensor:
    """Zeros in the shape of what a Linear makes of `rows` [..., I], without memory."""
    return rows.new_zeros(()).expand(*rows.shape[:-1], outputs)
