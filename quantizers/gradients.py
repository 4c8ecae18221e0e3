"""What reaches the model's loss of an error in each decoder layer: one pass back through the original model.

The labels are drawn from the model's own distribution, so that the mean of g g^T over tokens is the second derivative
of the KL divergence that an error would cause (the Fisher information). Two things are taken of it for each Linear: how
much each token counts, and F = sum g g^T over its outputs. With the Hessian H of its inputs an error E costs about
tr(F E H E^T): Kronecker factors as in K-FAC (arXiv 1503.05671), used for quantization in YAQA (arXiv 2505.22988).

Memory holds one layer and one batch: the states that enter the layers lie on the disk, and the gradients replace them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from quantizers.checked_files import read_checked, write_checked
from quantizers.checkpoint import Checkpoint
from quantizers.head import filled_head, logits_of
from quantizers.modeling import Architecture, LayerCall, empty, fill, run_layer

SEED = 11
LARGEST_WEIGHT = 20.0
"""Of a token, in units of the mean."""
SHARE = 0.5
"""Of a token's weight that its gradient decides; the rest is the same for all."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class OutputSide:
    """What is known of a Linear's outputs."""

    tokens: torch.Tensor
    """|g|^2 of each token [N * L]."""
    hessian: torch.Tensor
    """Sum of g g^T [O, O], float32."""


@dataclass(frozen=True)
class BackwardPass:
    """The files of a pass: `states-00003` enters layer 3, `gradient-00003` is the loss's at its outputs."""

    folder: Path

    def states(self, layer: int) -> Path:
        return self.folder / f"states-{layer:05d}.safetensors"

    def gradient(self, layer: int) -> Path:
        return self.folder / f"gradient-{layer:05d}.safetensors"

    def load(self, layer: int) -> torch.Tensor:
        """The gradient [N, L, D], float32, at the outputs of `layer`."""
        return _read(self.gradient(layer))


def backward_pass(
    architecture: Architecture,
    checkpoint: Checkpoint,
    tokens: torch.Tensor,
    hidden: torch.Tensor,
    calls: Sequence[LayerCall],
    folder: Path,
    *,
    device: str,
    batch: int,
    report: Progress,
) -> BackwardPass:
    """Make the gradients of all layers in `folder`; what an interrupted pass has made already is used.

    Args:
        hidden: what enters the first layer [N, L, D].
        calls: what each layer is called with, for `batch` sequences.
    """
    done = BackwardPass(folder)
    count, total = len(architecture.layers), 2 * len(architecture.layers) + 1
    if done.gradient(0).exists():
        done.states(0).unlink(missing_ok=True)
        return done

    def layer(index: int) -> nn.Module:
        name = f"{architecture.prefix}.{index}"
        fill(architecture.model, architecture.layers[index], name, checkpoint, device=device, dtype=torch.float32)
        return architecture.layers[index]

    if not any(done.gradient(index).exists() for index in range(count)):
        if not done.states(0).exists():
            _write(done.states(0), hidden)
        for index in range(count):
            if not done.states(index + 1).exists():
                module, entering = layer(index), torch.split(_read(done.states(index)), batch)
                leaving = [run_layer(module, part.to(device), calls[index]).cpu() for part in entering]
                _write(done.states(index + 1), torch.cat(leaving))
                empty(module)
            report("gradients", index, total)
        with filled_head(architecture, checkpoint, device=device, dtype=torch.float32):
            _write(done.gradient(count - 1), _at_the_end(architecture, tokens, _read(done.states(count)), device))
    for index in range(count - 1, 0, -1):
        if not done.gradient(index - 1).exists():
            module, parts = layer(index), []
            batches = zip(*(torch.split(t, batch) for t in (_read(done.states(index)), done.load(index))), strict=True)
            for states, gradient in batches:
                parts.append(_through(module, calls[index], states.to(device), gradient.to(device)).cpu())
            _write(done.gradient(index - 1), torch.cat(parts))
            empty(module)
        for used in (index, index + 1):
            done.states(used).unlink(missing_ok=True)
        report("gradients", total - index, total)
    done.states(0).unlink(missing_ok=True)
    return done


def output_sides(
    module: nn.Module,
    linears: Mapping[str, nn.Linear],
    call: LayerCall,
    states: torch.Tensor,
    gradient: torch.Tensor,
    *,
    device: str,
    batch: int,
) -> dict[str, OutputSide]:
    """The outputs of each of `linears` (by name inside the layer), from the gradient at the layer's outputs.

    Args:
        states: what enters the original layer [N, L, D].
        gradient: at its outputs [N, L, D].
    """
    hessians = {n: torch.zeros(m.out_features, m.out_features, device=device) for n, m in linears.items()}
    tokens: dict[str, list[torch.Tensor]] = {name: [] for name in linears}

    def hook(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def arrived(gradient: torch.Tensor) -> None:
            rows = gradient.detach().reshape(-1, gradient.shape[-1])
            hessians[name].addmm_(rows.t(), rows)
            tokens[name].append(rows.square().sum(1))

        def after(_: nn.Module, __: object, output: torch.Tensor) -> None:
            output.register_hook(arrived)  # type: ignore[no-untyped-call]

        return after

    handles = [linear.register_forward_hook(hook(name)) for name, linear in linears.items()]
    try:
        for part, back in zip(torch.split(states, batch), torch.split(gradient, batch), strict=True):
            _through(module, call, part.to(device), back.to(device))
    finally:
        for handle in handles:
            handle.remove()
    return {name: OutputSide(torch.cat(tokens[name]), hessians[name]) for name in linears}


def token_weights(sides: Sequence[OutputSide]) -> torch.Tensor:
    """What each token [N * L] counts in the Hessian of the input that these Linears share; about 1 on average."""
    energy = torch.stack([side.tokens for side in sides]).sum(0)
    mean = energy.mean().clamp_min(torch.finfo(torch.float32).tiny)
    return (1 - SHARE) + SHARE * (energy / mean).clamp(max=LARGEST_WEIGHT)


def _at_the_end(architecture: Architecture, tokens: torch.Tensor, states: torch.Tensor, device: str) -> torch.Tensor:
    """The gradient [N, L, D] at the last layer's outputs, of the cross entropy against labels drawn from the model."""
    generator = torch.Generator(device).manual_seed(SEED)
    found = []
    for ids, state in zip(tokens, states, strict=True):  # one text at a time: logits are large
        leaf = state[None].to(device).requires_grad_()
        logits = logits_of(architecture, ids[None].to(device), leaf)[0]
        labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        found.append(torch.autograd.grad(loss, leaf)[0].cpu())
    return torch.cat(found)


def _through(module: nn.Module, call: LayerCall, states: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient at what enters a layer, from the one at what leaves it."""
    leaf = states.detach().requires_grad_()
    found = module(leaf, *call.args, **call.kwargs)
    output = found[0] if isinstance(found, tuple) else found
    return torch.autograd.grad(output, leaf, gradient)[0]


def _write(path: Path, tensor: torch.Tensor) -> None:
    write_checked(path, {"values": tensor.to(torch.bfloat16)})


def _read(path: Path) -> torch.Tensor:
    return read_checked(path)["values"].to(torch.float32)
