"""Tuning a whole quantized model towards the original's distribution (`tune: model`); off unless a recipe asks for it.

What is minimised is the KL divergence from the original over the calibration. Codes stay; scales, norms and biases
move. It fits the model to its calibration more closely than anything else here does, so a card says that it was on.
Unlike the rest of the quantizer it holds the whole model in memory, in float32, for its backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from quantgate_kernels.formats.linears import READERS, read_linear
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint as recomputed

from quantizers.checked_files import read_checked, write_checked
from quantizers.checkpoint import DTYPES, Checkpoint, anew, read_header, read_tensor
from quantizers.head import filled_head, logits_of
from quantizers.modeling import Architecture, LayerCall, empty, fill, run_layer
from quantizers.plan import Plan
from quantizers.schemes.base import Scheme
from quantizers.tuning import BETAS, TuningSteps, batches, small_parameters
from quantizers.writing import copy_entry, tensor_entry, write_shard

TUNED_FILE = "tuned.safetensors"
"""In the work folder: the new tensors, before they replace those in the shards."""

Progress = Callable[[str, int, int], None]


@dataclass
class TunedLinear:
    """A Linear whose scales are multiplied by exp(`growth`)."""

    scheme: Scheme
    weight: torch.Tensor
    """[O, I] in the basis of the codes, scales included."""
    scales: torch.Tensor
    """As stored, of any shape that begins with O."""
    growth: torch.Tensor
    """[O, G], with a gradient."""

    def current(self) -> torch.Tensor:
        """The weight in the model's basis."""
        return self.scheme.combine(self.weight, self.growth.exp())

    def stored(self) -> torch.Tensor:
        """The scales that will be stored."""
        grown = self.scales.float() * self.growth.detach().exp().view(self.scales.shape)
        return self.scheme.stored(grown).to(self.scales.dtype)


def tune_model(
    architecture: Architecture,
    original: Checkpoint,
    plan: Plan,
    folder: Path,
    tokens: torch.Tensor,
    hidden: torch.Tensor,
    calls: Sequence[LayerCall],
    steps: TuningSteps,
    *,
    device: str,
    batch: int,
    report: Progress,
) -> tuple[float, float]:
    """Tune the model whose quantized layers lie in `folder`, OUT.partial/model, and write what changed into its shards.

    Args:
        tokens: the calibration [N, L].
        hidden: what enters the first layer [N, L, D].
        calls: what each layer is called with, for `batch` sequences.

    Returns: the KL divergence in nats of the first and of the last step.
    """
    targets = hidden.clone()
    for index, call in enumerate(calls):
        _fill(architecture, original, index, device)
        for part in torch.split(targets, batch):
            part.copy_(run_layer(architecture.layers[index], part.to(device), call))
        empty(architecture.layers[index])
        report("original", index + 1, len(calls))
    tables: dict[str, torch.Tensor] = {}
    for scheme in plan.distinct().values():
        widths = [original.tensors[f"{name}.weight"].shape[1] for name, its in plan.schemes.items() if its == scheme]
        tables |= scheme.tables(widths)
    linears: list[dict[str, TunedLinear]] = []
    small: list[dict[str, torch.Tensor]] = []
    for index in range(len(calls)):
        _fill(architecture, original, index, device)
        stored = {
            info.name: read_tensor(info) for info in read_header(folder / plan.shard_name(index), anew(folder.parent))
        }
        prefix = f"{architecture.prefix}.{index}."
        inside = {name.removeprefix(prefix): tensor.to(device) for name, tensor in stored.items()}
        targets_here = [name.removeprefix(prefix) for name in plan.targets[index]]
        schemes = {name: plan.schemes[f"{prefix}{name}"] for name in targets_here}
        found = {name: _linear(inside, name, scheme, tables) for name, scheme in schemes.items()}
        linears.append({name: linear for name, linear in found.items() if not linear.scheme.data_free})
        modules: dict[str, Any] = {name: architecture.layers[index].get_submodule(name) for name in targets_here}
        names = small_parameters(architecture.layers[index], modules)
        small.append({name: inside[name].float().clone().requires_grad_() for name in names})
        for name, linear in found.items():  # what is tuned takes its place in each step
            fixed = linear.weight if linear.scheme.data_free else torch.empty(0, device=device)
            modules[name].weight = nn.Parameter(fixed, requires_grad=False)
    losses = _steps(architecture, original, linears, small, (tokens, hidden, targets), calls, steps, device, report)
    _write(architecture, original, plan, folder, linears, small)
    for layer in architecture.layers:
        empty(layer)
    return losses


def _steps(
    architecture: Architecture,
    original: Checkpoint,
    linears: list[dict[str, TunedLinear]],
    small: list[dict[str, torch.Tensor]],
    data: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    calls: Sequence[LayerCall],
    steps: TuningSteps,
    device: str,
    report: Progress,
) -> tuple[float, float]:
    tokens, hidden, targets = data
    named_small = [(name, tensor) for layer in small for name, tensor in layer.items()]
    fast = [linear.growth for layer in linears for linear in layer.values()]
    fast += [tensor for name, tensor in named_small if name.endswith("bias")]
    norms = [tensor for name, tensor in named_small if not name.endswith("bias")]
    groups = [{"params": fast, "lr": steps.scales}, {"params": norms, "lr": steps.norms}]
    optimizer = torch.optim.Adam([g for g in groups if g["params"]], betas=BETAS, eps=1e-10)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 * (1 + math.cos(math.pi * t / steps.steps)))
    size = min(steps.sequences, calls[0].sequences)
    narrow, losses = [call.narrowed(size) for call in calls], []

    def through(index: int, states: torch.Tensor) -> torch.Tensor:
        weights = {f"{name}.weight": linear.current() for name, linear in linears[index].items()}
        call = narrow[index]
        found = functional_call(
            architecture.layers[index], {**weights, **small[index]}, (states, *call.args), call.kwargs
        )
        output: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return output

    with filled_head(architecture, original, device=device, dtype=torch.float32):
        for step, chosen in enumerate(batches(len(tokens), size, steps.steps, seed=0)):
            ids, states = tokens[chosen].to(device), hidden[chosen].to(device)
            for index in range(len(calls)):
                states = recomputed(through, index, states, use_reentrant=False)
            loss = torch.zeros((), device=device)
            optimizer.zero_grad(set_to_none=True)
            cut = states.detach().requires_grad_()
            for row in range(size):  # one text at a time: logits are large
                with torch.no_grad():
                    wanted = logits_of(architecture, ids[row : row + 1], targets[chosen[row]][None].to(device))
                    wanted = wanted.log_softmax(-1)
                found = logits_of(architecture, ids[row : row + 1], cut[row : row + 1]).log_softmax(-1)
                part = (wanted.exp() * (wanted - found)).sum(-1).mean() / size
                part.backward()  # type: ignore[no-untyped-call]
                loss += part.detach()
            states.backward(cut.grad)  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss)
            report("model", step + 1, steps.steps)
    return losses[0].item(), losses[-1].item()


def _linear(
    inside: Mapping[str, torch.Tensor], name: str, scheme: Scheme, tables: Mapping[str, torch.Tensor]
) -> TunedLinear:
    entry = scheme.entry()
    parts = {part: inside[f"{name}.{part}"] for part in READERS[entry["format"]][0]}
    device = next(iter(parts.values())).device
    weight = read_linear(parts, entry, {key: table.to(device) for key, table in tables.items()})
    scales = parts[scheme.stored_scales]
    growth = torch.zeros(len(weight), max(1, scales.numel() // len(weight)), device=device).requires_grad_()
    return TunedLinear(scheme, scheme.turn(weight), scales, growth)


def _fill(architecture: Architecture, original: Checkpoint, index: int, device: str) -> None:
    layer, name = architecture.layers[index], f"{architecture.prefix}.{index}"
    fill(architecture.model, layer, name, original, device=device, dtype=torch.float32)


def _write(
    architecture: Architecture,
    original: Checkpoint,
    plan: Plan,
    folder: Path,
    linears: list[dict[str, TunedLinear]],
    small: list[dict[str, torch.Tensor]],
) -> None:
    tuned: dict[str, torch.Tensor] = {}
    for index, (of_linears, of_others) in enumerate(zip(linears, small, strict=True)):
        prefix = f"{architecture.prefix}.{index}."
        tuned |= {f"{prefix}{name}.{one.scheme.stored_scales}": one.stored() for name, one in of_linears.items()}
        for name, tensor in of_others.items():
            tuned[f"{prefix}{name}"] = tensor.detach().to(DTYPES[original.tensors[f"{prefix}{name}"].dtype][0])
    write_checked(folder.parent / TUNED_FILE, tuned)
    apply_tuned(plan, folder)


def apply_tuned(plan: Plan, folder: Path) -> None:
    """Put the tensors of TUNED_FILE into the shards, as often as it takes: they are values, not changes."""
    tuned = {name: tensor_entry(name, tensor) for name, tensor in read_checked(folder.parent / TUNED_FILE).items()}
    for index in range(len(plan.layer_tensors)):
        shard = folder / plan.shard_name(index)
        infos = read_header(shard, anew(folder.parent))
        write_shard(shard, [tuned.get(info.name) or copy_entry(info) for info in infos])
