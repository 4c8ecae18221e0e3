"""Walks in waves: each begins some layers further on and leaves its findings on the disk, to go on from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from quantizers.checked_files import read_checked, write_checked
from quantizers.checkpoint import Checkpoint, anew, read_json_object
from quantizers.errors import QuantizeError
from quantizers.mixed.bench import Bench
from quantizers.mixed.walk import Found, Stream, Wave
from quantizers.writing import write_text

WAVES = 8
HELD_BYTES = 8 << 30
"""Of variants' states on a wave where there is no GPU; a quarter of its free memory where there is one."""


def in_waves(
    bench: Bench,
    base: Callable[[], Checkpoint] | None,
    variants: Mapping[str, Sequence[str]],
    folder: Path,
    waves: int = WAVES,
) -> Found:
    """The KL of a finished mix (None: the original model) and of all its variants.

    Args:
        base: gives the mix in plain weights, if any wave is left.
        variants: tiers to try in it, by the groups' names.
        folder: of an earlier call that was interrupted, or empty: each wave's findings are kept there.
        waves: so many or more: what an interruption costs is one of them. Without variants there is one: each goes to
            the end of the model.

    Raises:
        QuantizeError: as `Wave.walk`.
    """
    total = len(bench.job.architecture.layers)
    found, start = Found([], {}), 0
    while (file := folder / f"wave-{start:05d}.json").exists():
        start = _read(file, found, start, total)
    if start == total:
        return found
    mix = base() if base else None
    hidden, calls = bench.enter(states=start == 0)
    if hidden is not None:
        width = hidden.shape[-1]
        stream = Stream(hidden, torch.zeros(len(bench.looked_at), hidden.shape[1], width, device=bench.job.device))
    else:
        held = read_checked(_states(folder, start))
        stream = Stream(held["original"], held["added"].to(bench.job.device))
    while start < total:
        stop = _stop(bench, variants, start, waves) if variants else total
        part, after = Wave(bench, calls, mix, variants, start, stop).walk(stream)
        if after is not None:
            stream = after
            write_checked(_states(folder, stop), {"original": stream.original, "added": stream.added})
        rows = [[group, tier, kl] for (group, tier), kl in part.variants.items()]
        file = folder / f"wave-{start:05d}.json"
        write_text(file, json.dumps({"stop": stop, "base": part.base, "variants": rows}))
        _states(folder, start).unlink(missing_ok=True)
        start = _read(file, found, start, total)
        bench.job.report("layer", start, total)
    return found


def _read(file: Path, found: Found, start: int, total: int) -> int:
    """Add the findings of the wave from layer `start` to `found`; returns the layer at which the next wave starts.

    Raises QuantizeError if the file is none of a wave.
    """
    content = read_json_object(file, anew(file.parent))
    try:
        stop = int(content["stop"])
        base = [float(kl) for kl in content["base"]]
        variants = {(str(group), str(tier)): [float(kl) for kl in kls] for group, tier, kls in content["variants"]}
    except (KeyError, TypeError, ValueError):
        stop = 0
    if not start < stop <= total:
        raise QuantizeError(f"{file} is damaged (it is not what was written): {anew(file.parent)}")
    found.base = base
    found.variants |= variants
    return stop


def _states(folder: Path, start: int) -> Path:
    return folder / f"states-{start:05d}.safetensors"


def _stop(bench: Bench, variants: Mapping[str, Sequence[str]], start: int, waves: int) -> int:
    """Before which layer the wave's last variants begin."""
    job, held = bench.job, HELD_BYTES
    if job.device.startswith("cuda"):
        held = torch.cuda.mem_get_info()[0] // 4
    total = len(job.architecture.layers)
    width = int(job.architecture.model.get_input_embeddings().weight.shape[1])
    each = torch.bfloat16.itemsize * len(bench.looked_at) * bench.tokens.shape[1] * width
    size, stop = 0, start
    while stop < min(total, start - (-total // waves)):
        size += each * sum(len(variants.get(group.name, ())) for group in bench.groups if group.layer == stop)
        if stop > start and size > held:
            break
        stop += 1
    return stop
