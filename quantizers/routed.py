"""Hessians of experts from the tokens that the router gives them, shrunk toward those of all tokens.

Where an expert's few tokens say little, all tokens speak for it. An expert's error reaches the layer's output times the
router's weight s, so a token counts s^2. With the mean m_e of 2 x x^T over its own tokens, weighted so, and the mean m
over all tokens, the Hessian is

    (n_e m_e + n_0 m) / (n_e + n_0),    n_e = (sum of s^2)^2 / sum of s^4,    n_0 = a tenth of the inputs.

n_e is the size of an unweighted sample as good as the weighted one (Kish, "Survey Sampling", 1965). The form is the
linear shrinkage of Ledoit and Wolf ("A well-conditioned estimator for large-dimensional covariance matrices", 2004), in
which n_0 is, for normal inputs, (tr(C)^2 + tr(C^2)) / |C - T|^2 in the Frobenius norm: the variance of one token over
the distance of what is estimated, C, from the target T. By that measure, which large directions decide, it is 2 to 70
for experts of SmolLM2's 576 and 192 inputs; small directions, which Hessians are inverted in, want more, up to the
number of inputs. Of 0, 1/10, 1 and 10 times that number a tenth was the best (docs/experts.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from quantizers.errors import QuantizeError
from quantizers.experts import Experts, places
from quantizers.hessian import RunLayer

PRIOR = 0.1
"""n_0 for each input."""
HESSIAN_BYTES = 4 << 30
"""Of experts' own Hessians that are held at a time: 27 of GLM-5's 256 have 6,144 inputs each in it. Then the layer
runs again for the next."""


@dataclass
class _Sum:
    """Over an expert's tokens: 2 s^2 x x^T [I, I], s^2 and s^4."""

    hessian: torch.Tensor
    weights: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, rows: torch.Tensor, shares: torch.Tensor) -> None:
        counted = shares.to(torch.float32).square()
        self.hessian.addmm_((rows * counted[:, None]).t(), rows, alpha=2)
        self.weights = self.weights.to(rows.device) + counted.double().sum()
        self.squares = self.squares.to(rows.device) + counted.double().square().sum()


def experts_of(module: nn.Module, stage: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """The Linears of a stage of the layer `module`, by name inside it: those of each expert, and the other groups."""
    inside = places(module)
    experts: dict[str, list[str]] = {}
    for name in (name for names in stage for name in names if name in inside):
        experts.setdefault(name.rpartition(".")[0], []).append(name)
    others = [[name for name in names if name not in inside] for names in stage]
    return list(experts.values()), [names for names in others if names]


def means_of(stage: Sequence[Sequence[str]], hessians: Iterable[torch.Tensor], tokens: int) -> dict[str, torch.Tensor]:
    """For each Linear, by name, the Hessian of its group divided, in place, by the `tokens` that are in it."""
    means: dict[str, torch.Tensor] = {}
    for names, hessian in zip(stage, hessians, strict=True):
        means |= dict.fromkeys(names, hessian.div_(tokens))
    return means


def routed_in_parts(
    module: nn.Module,
    linears: Mapping[str, nn.Linear],
    experts: Sequence[Sequence[str]],
    pooled: Mapping[str, torch.Tensor],
    runs: Sequence[RunLayer],
) -> Iterator[dict[str, torch.Tensor]]:
    """The Hessian of each Linear of `experts`, by name: one for all of an expert, as many at a time as HESSIAN_BYTES.

    Arguments as those of `routed_hessians`, but that `pooled` has names of all.
    """
    if not experts:
        return
    step = max(1, HESSIAN_BYTES // pooled[experts[0][0]].nbytes)
    for part in (experts[start : start + step] for start in range(0, len(experts), step)):
        own = routed_hessians(module, {names[0]: linears[names[0]] for names in part}, pooled, runs)
        yield {name: own[names[0]] for names in part for name in names}


def routed_hessians(
    module: nn.Module, linears: Mapping[str, nn.Linear], pooled: Mapping[str, torch.Tensor], runs: Iterable[RunLayer]
) -> dict[str, torch.Tensor]:
    """The Hessian [I, I], float32, of each of `linears`, in units of a token; see above.

    Args:
        module: the layer.
        linears: of experts, by name inside the layer.
        pooled: the mean of 2 x x^T over all tokens, by the same names; an expert without tokens gets it as it is.
        runs: run the layer on a batch each, every token through its own experts alone.

    Raises:
        QuantizeError: inputs are not finite.
    """
    sums = {name: _Sum(torch.zeros_like(pooled[name])) for name in linears}

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        experts = module.get_submodule(name.rpartition(".")[0].rpartition(".")[0])
        assert isinstance(experts, Experts)

        def before(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            assert experts.shares is not None
            sums[name].add(inputs[0].detach().to(torch.float32), experts.shares)

        return before

    handles = [linear.register_forward_pre_hook(hook(name)) for name, linear in linears.items()]
    try:
        for run in runs:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: _shrunk(name, own, pooled[name]) for name, own in sums.items()}


def _shrunk(name: str, own: _Sum, pooled: torch.Tensor) -> torch.Tensor:
    if not bool(torch.isfinite(own.hessian).all()):
        raise QuantizeError(f"the inputs of {name} overflow on the calibration text: the model is broken")
    weights, squares = float(own.weights), float(own.squares)
    if squares == 0.0:
        return pooled
    tokens, prior = weights**2 / squares, PRIOR * len(pooled)
    return (own.hessian * (tokens / weights) + pooled * prior) / (tokens + prior)
