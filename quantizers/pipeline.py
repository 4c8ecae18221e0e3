"""From a model folder to a quantized model folder, one decoder layer at a time.

The calibration batch walks through the model: quantizers/layer.py quantizes each layer on what it receives, then the
quantized layer runs, so that the next layer is calibrated on what it will really receive. Where layers are tuned, the
batch also walks through the original model beside it. Memory holds one layer, a Hessian and the batch. After each layer
all of it is on the disk.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantizers.calibration import calibration_tokens, own_tokenizer
from quantizers.card import model_card
from quantizers.checkpoint import (
    CONFIG_FILE,
    DTYPES,
    Checkpoint,
    TensorInfo,
    fingerprint,
    read_tensor,
)
from quantizers.curvature import NONE
from quantizers.errors import QuantizeError
from quantizers.experts import places
from quantizers.folding import FINAL_NORM, Folding, fold, folding_of
from quantizers.gradients import BackwardPass, backward_pass, output_sides
from quantizers.layer import Progress, quantize_layer
from quantizers.model_tuning import TUNED_FILE, apply_tuned, tune_model
from quantizers.modeling import (
    Architecture,
    LayerCall,
    build,
    capture_calls,
    empty,
    fill,
    holds_nan,
    require_embeddings,
    run_layer,
    same,
)
from quantizers.plan import Plan, make_plan
from quantizers.quantization_config import quantization_config
from quantizers.recipe import Recipe
from quantizers.schemes.base import TABLES_FILE
from quantizers.side_files import copy_side_files
from quantizers.soundness import require_sound
from quantizers.sources import open_source
from quantizers.tuning import METHODS
from quantizers.work_folder import States, WorkFolder, open_work
from quantizers.workers.opening import open_workers
from quantizers.workers.tasks import HERE, Workers
from quantizers.writing import Entry, copy_entry, named, tensor_entry, write_index, write_shard, write_text

BATCH_TOKENS = 4096
USAGE_FILE = "quantgate_experts.json"
"""Beside a mixture of experts: how many tokens of the calibration the router gave to each expert, by layer."""


@dataclass(frozen=True)
class Conversion:
    """What stays the same from the first layer to the last."""

    checkpoint: Checkpoint
    architecture: Architecture
    plan: Plan
    recipe: Recipe
    report: Progress
    device: str
    dtype: torch.dtype
    batch: int
    """Sequences that run through a layer at once."""
    folding: Folding | None
    """Rotations that are folded into the weights."""
    workers: Workers = HERE


def quantize(
    model: Path,
    recipe: Recipe,
    out: Path,
    *,
    progress: Progress | None = None,
    device: str | None = None,
    ray: str | None = None,
) -> Path:
    """Quantize the model folder `model` by `recipe` into the new folder `out`, and return `out`.

    `progress(stage, done, total)` is called with stage "layer" after each decoder layer, and every second
    or so within it with "inputs", "columns", "tuning" or "outputs". Work goes on in `out`.partial: run the same call
    again after an interruption and it continues at the first unfinished layer; `out` itself appears
    complete or not at all. `device` is where layers run, in float32 (None: GPUs if there are any, else the CPU). With
    "cuda" or None their weights are encoded on all GPUs of this host, "cuda:0" keeps to one; `ray`, "auto" or an
    address, is a cluster whose machines encode them instead. Several GPUs have a process each: a script that calls this
    keeps what it does under `if __name__ == "__main__"`. The same input gives the same bytes on the same kind of device
    and number of threads, however many there are.

    Raises:
        QuantizeError: one line that says what is wrong and the way out.
    """
    report = progress or (lambda stage, done, total: None)
    where, workers = open_workers(device, ray)
    with workers:
        return _quantize(model, recipe, out, report, where, workers)


def _quantize(model: Path, recipe: Recipe, out: Path, report: Progress, device: str, workers: Workers) -> Path:
    dtype = torch.float32
    report("load", 0, 1)
    checkpoint = open_source(model)
    architecture = build(checkpoint)
    folding = folding_of(architecture) if recipe.rotate == "folded" else None
    plan = make_plan(checkpoint, architecture, recipe)
    if not plan.calibrated:
        tokens = torch.empty(1, 0, dtype=torch.long)
    else:
        tokens = calibration_tokens(own_tokenizer(model), recipe.calibration)
        require_embeddings(architecture, tokens)
    require_sound(checkpoint, partial(report, "load"))
    kinds = sorted({torch.device(device).type, workers.kind or torch.device(device).type})
    identity = {
        "model": fingerprint(checkpoint),
        "recipe": recipe.digest(),
        "calibration": hashlib.sha256(tokens.numpy().tobytes()).hexdigest(),
        "device": f"{' '.join(kinds)} {dtype}",
    }
    # The batch is stored twice for a moment, when one layer's states replace another's; of both models where tuned.
    hidden_size = int(architecture.model.get_input_embeddings().weight.shape[1])
    streams = 2 if _walks_beside(recipe) else 1
    batch_bytes = tokens.numel() * hidden_size * dtype.itemsize
    kept = 2 * streams + (1 + len(architecture.layers) // 2 if recipe.two_sided else 0)  # gradients are kept in bf16
    batch = batch_size(*tokens.shape) if plan.calibrated else 1
    job = Conversion(checkpoint, architecture, plan, recipe, report, device, dtype, batch, folding, workers)
    with open_work(out, identity, plan.output_bytes() + kept * batch_bytes) as work:
        shards = [plan.shard_name(index) for index in range(len(plan.layer_tensors))]
        work.require_shards(shards, changed=(work.folder / TUNED_FILE).exists())
        if plan.calibrated:
            _quantize_layers(job, tokens, work)
            _tune_model(job, tokens, work)
        else:
            _round_layers(job, work)
        _finish(job, work)
        work.publish(out)
    return out


def _quantize_layers(job: Conversion, tokens: torch.Tensor, work: WorkFolder) -> None:
    """Quantize and write the decoder layers that `work` does not have yet; `tokens` [N, L] calibrate them."""
    layers, total = job.architecture.layers, len(job.architecture.layers)
    job.report("layer", work.layers_done, total)
    if work.layers_done == total:
        return
    hidden, calls = enter(job, tokens, all_batches=work.layers_done == 0)
    if hidden is None:
        states = work.load_states()
    else:
        if job.recipe.two_sided:
            backward_pass(
                job.architecture, job.checkpoint, tokens, hidden, calls, work.folder,
                device=job.device, batch=job.batch, report=job.report,
            )  # fmt: skip
        states = States(hidden, hidden.clone() if _walks_beside(job.recipe) else None)
    # On the device from here on: each layer runs over them a dozen times, and a GPU waits long for its host's memory.
    states = states.to(job.device)
    for index in range(work.layers_done, total):
        layer, call = layers[index], calls[index]
        _fill_layer(job, index)
        gradient = BackwardPass(work.folder).load(index) if job.recipe.two_sided else None
        write_shard(work.model / job.plan.shard_name(index), _quantize_layer(job, work, index, states, call, gradient))
        empty(layer)
        work.finish_layer(job.plan.shard_name(index), None if index + 1 == total else states)
        job.report("layer", index + 1, total)


def _tune_model(job: Conversion, tokens: torch.Tensor, work: WorkFolder) -> None:
    """Tune the whole model, where the recipe asks for it."""
    tuning = METHODS[job.recipe.tune]
    if tuning is None or tuning.model is None:
        return
    if (work.folder / TUNED_FILE).exists():  # a run that was interrupted while it put them into the shards
        apply_tuned(job.plan, work.model)
        return
    hidden, calls = enter(job, tokens, all_batches=True)
    assert hidden is not None
    tune_model(
        job.architecture, job.checkpoint, job.plan, work.model, tokens, hidden, calls, tuning.model,
        device=job.device, batch=job.batch, report=job.report,
    )  # fmt: skip


def _round_layers(job: Conversion, work: WorkFolder) -> None:
    """Quantize and write the decoder layers that `work` does not have yet, where no scheme needs a calibration."""
    layers, total = job.architecture.layers, len(job.architecture.layers)
    job.report("layer", work.layers_done, total)
    for index in range(work.layers_done, total):
        _fill_layer(job, index)
        stored: dict[str, torch.Tensor] = {}
        for name, linear in _linears(job, index).items():
            scheme = job.plan.schemes[f"{job.architecture.prefix}.{index}.{name}"]
            parts = scheme.quantize(linear.weight.detach(), NONE, partial(job.report, "columns", index, total))
            stored |= {f"{name}.{key}": value for key, value in scheme.tensors(parts).items()}
        write_shard(work.model / job.plan.shard_name(index), _entries(job, index, stored))
        empty(layers[index])
        work.finish_layer(job.plan.shard_name(index), None)
        job.report("layer", index + 1, total)


def _fill_layer(job: Conversion, index: int) -> None:
    """Give a decoder layer its weights, and fold the rotations into them."""
    layer, name = job.architecture.layers[index], f"{job.architecture.prefix}.{index}"
    fill(job.architecture.model, layer, name, job.checkpoint, device=job.device, dtype=job.dtype)
    if job.folding is None:
        return
    fold(layer, job.folding)
    targets = {f"{target}.weight" for target in _linears(job, index)}
    for key, parameter in layer.named_parameters():
        dtype = DTYPES[job.checkpoint.tensors[f"{name}.{key}"].dtype][0]
        if key not in targets and dtype is not None:  # what is stored without codes is rounded once, here
            parameter.data.copy_(parameter.data.to(dtype))


def _linears(job: Conversion, index: int) -> dict[str, nn.Linear]:
    """The Linears to quantize in a decoder layer, by their names inside it."""
    layer, prefix = job.architecture.layers[index], f"{job.architecture.prefix}.{index}."
    modules = {name: layer.get_submodule(name) for name in (n.removeprefix(prefix) for n in job.plan.targets[index])}
    return {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}


def enter(job: Conversion, tokens: torch.Tensor, *, all_batches: bool) -> tuple[torch.Tensor | None, list[LayerCall]]:
    """The states [N, L, D] that enter the first layer (if asked for; on the CPU) and what each layer is called with."""
    model: Any = job.architecture.model
    base: nn.Module = model.base_model
    prefix: str = model.base_model_prefix
    fill(model, base, prefix, job.checkpoint, device=job.device, dtype=job.dtype, skip=job.architecture.apart)
    batches = torch.split(tokens.to(job.device), job.batch)
    first, calls = capture_calls(job.architecture, batches[0])
    # The calls are captured once and used for every batch: they must not depend on the text.
    _, others = capture_calls(job.architecture, batches[0].flip(1))
    if name := next((call.layer for call in calls if holds_nan([call.args, call.kwargs])), None):
        raise QuantizeError(
            f"what the model hands to {name} holds NaN: {CONFIG_FILE} has a setting that cannot be, of its position "
            "embeddings (rope_theta, rope_parameters) in most cases: correct it"
        )
    if any(not same(a.args, b.args) or not same(a.kwargs, b.kwargs) for a, b in zip(calls, others, strict=True)):
        raise QuantizeError("the model hands its decoder layers more than hidden states of the text: not supported")
    hidden = None
    if all_batches:
        rest = [capture_calls(job.architecture, batch)[0].cpu() for batch in batches[1:]]
        hidden = torch.cat([first.cpu(), *rest])
        hidden = hidden if job.folding is None else job.folding.turned(hidden)
    for child in base.children():
        empty(child)
    return hidden, calls


def _walks_beside(recipe: Recipe) -> bool:
    """Whether the original model's states are needed beside the quantized one's."""
    return recipe.two_sided or METHODS[recipe.tune] is not None


def _quantize_layer(
    job: Conversion, work: WorkFolder, index: int, states: States, call: LayerCall, gradient: torch.Tensor | None
) -> list[Entry]:
    """Quantize a filled layer in place, move the states on, and return what is written of it.

    `gradient` [N, L, D] is at the original layer's outputs, for two-sided compensation.
    """
    layer, prefix = job.architecture.layers[index], f"{job.architecture.prefix}.{index}."
    linears = _linears(job, index)
    last = index + 1 == len(job.architecture.layers)
    sides = None
    if states.original is not None:
        if gradient is not None and linears:
            # Tokens reach experts by their router, and 768 Hessians of outputs are no small thing: inputs alone.
            own = {name: linear for name, linear in linears.items() if name not in places(layer)}
            sides = output_sides(layer, own, call, states.original, gradient, device=job.device, batch=job.batch)
        _advance(job, layer, states.original, call)  # what leaves the layer is what it is tuned towards
    stored: dict[str, torch.Tensor] = {}
    if linears:
        schemes = {name: job.plan.schemes[f"{prefix}{name}"] for name in linears}
        found = quantize_layer(
            layer, linears, call, schemes, METHODS[job.recipe.tune], states.quantized, states.original, sides,
            device=job.device, batch=job.batch, seed=index, report=job.report,
            all_experts=job.recipe.moe_calibrate_all_experts, workers=job.workers,
        )  # fmt: skip
        stored = found.tensors
        work.keep_usage(index, {f"{prefix}{name}": counts for name, counts in found.usage.items()})
    infos = {info.name: info for info in job.plan.layer_tensors[index]}
    for name, tensor in stored.items():
        if name.removesuffix(".weight") in linears:
            continue
        info = infos.get(f"{prefix}{name}")
        if info is not None and (dtype := DTYPES[info.dtype][0]) is not None:  # tuned norms and biases keep their dtype
            stored[name] = tensor.to(dtype)
            layer.get_parameter(name).data.copy_(stored[name])
    if not last:
        _advance(job, layer, states.quantized, call)
    return _entries(job, index, stored)


def _entries(job: Conversion, index: int, stored: dict[str, torch.Tensor]) -> list[Entry]:
    """What is written of a layer: what is `stored` of its Linears, and the rest as it was or as it was folded."""
    layer, prefix = job.architecture.layers[index], f"{job.architecture.prefix}.{index}."
    replaced = {f"{prefix}{name}.weight" for name in _linears(job, index)} | {f"{prefix}{name}" for name in stored}
    rest = [info for info in job.plan.layer_tensors[index] if info.name not in replaced]
    folded = {} if job.folding is None else {f"{prefix}{name}": p for name, p in layer.named_parameters()}
    written = []
    for info in rest:
        dtype = DTYPES[info.dtype][0]
        written.append(
            tensor_entry(info.name, folded[info.name].to(dtype)) if info.name in folded else copy_entry(info)
        )
    return [*written, *named({f"{prefix}{name}": tensor for name, tensor in stored.items()})]


def _advance(job: Conversion, layer: nn.Module, states: torch.Tensor, call: LayerCall) -> None:
    """Replace what enters a layer by what leaves it, in place."""
    batches = torch.split(states, job.batch)
    for number, batch in enumerate(batches, start=1):
        batch.copy_(run_layer(layer, batch.to(job.device), call))
        job.report("outputs", number, len(batches))


def _finish(job: Conversion, work: WorkFolder) -> None:
    """Write everything that is not a decoder layer."""
    checkpoint, plan, report = job.checkpoint, job.plan, job.report
    layers = len(plan.layer_tensors)
    for number, infos in enumerate(plan.other_tensors):
        report("copy", number, len(plan.other_tensors))
        write_shard(work.model / plan.shard_name(layers + number), (_outside(job, info) for info in infos))
    names = [plan.shard_name(i) for i in range(layers + len(plan.other_tensors))]
    write_index(work.model, [work.model / name for name in names])
    tables: dict[str, torch.Tensor] = {}
    for scheme in plan.distinct().values():
        users = [name for name, its in plan.schemes.items() if its == scheme]
        tables |= scheme.tables([checkpoint.tensors[f"{name}.weight"].shape[1] for name in users])
    if tables:
        write_shard(work.model / TABLES_FILE, named(tables))
    copy_side_files(checkpoint.folder, work.model)
    untied = {} if job.folding is None else {"tie_word_embeddings": False}
    settings = quantization_config(plan.schemes, plan.ignore)
    config = {**checkpoint.config, **untied, "quantization_config": settings}
    write_text(work.model / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    if usage := work.usage():
        write_text(work.model / USAGE_FILE, json.dumps(usage) + "\n")
    write_text(work.model / "README.md", model_card(checkpoint.folder, job.recipe, plan, usage))
    report("copy", len(plan.other_tensors), len(plan.other_tensors))


def _outside(job: Conversion, info: TensorInfo) -> Entry:
    if job.folding is None:
        return copy_entry(info)
    return job.folding.entry(info, read_tensor(job.checkpoint.tensors[FINAL_NORM]).to(job.dtype))


def batch_size(samples: int, length: int) -> int:
    """Sequences per batch: about 4096 tokens, and a divisor of `samples`, so one captured call fits all."""
    wanted = max(1, BATCH_TOKENS // length)
    return next(size for size in range(min(wanted, samples), 0, -1) if samples % size == 0)
