"""What a run took, and what its models need: time, GPUs, tokens, and the GPUs that a checkpoint fits on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from harness.contract.samples import ROLES, Sample
from harness.runs.manifest import Manifest
from reports.samples.pairs import StoredPairs
from reports.text import duration, one_line, parameters

_GPUS = re.compile(r"gpus_([0-9]{1,5})gib")


def costs(manifest: Manifest, stored: StoredPairs) -> list[tuple[str, str]]:
    """(what, how much), of what is known."""
    seconds = sum(max(stage.seconds, 0.0) for stage in manifest.stages)
    found = [("Time", duration(seconds) if manifest.stages else "not recorded")]
    gpus = _gpus(manifest)
    if gpus and seconds:
        names = ", ".join(f"{count} × {name}" for name, count in gpus.items())
        found.append(("GPU-hours", f"{seconds / 3600 * sum(gpus.values()):.2g}, on {names}"))
    tokens = _tokens(_asked(manifest, stored))
    if tokens:
        found.append(("Tokens read and written" if manifest.baseline is None else "Tokens of the candidate", tokens))
    return found


def fits_on(stored: StoredPairs) -> dict[str, str]:
    """By role the GPUs that weights and KV cache fit on, by the footprint suite: the fewest, then fewer but larger."""
    found: dict[str, str] = {}
    for role in ROLES:
        samples = [getattr(pair, role) for pair in stored.pairs if pair.key.suite == "footprint"]
        sizes = {
            int(match[1]): count
            for sample in samples
            if sample is not None
            for name, count in sample.metrics.items()
            if (match := _GPUS.fullmatch(name)) and 0 < count < 1e6
        }
        said, fewest = [], float("inf")
        for gib, count in sorted(sizes.items()):
            if count < fewest:
                said.append(f"{count:.0f} × {gib} GiB")
                fewest = count
        if said:
            found[role] = " or ".join(said)
    return found


def _gpus(manifest: Manifest) -> dict[str, int]:
    """How many of each name there were."""
    listed = manifest.hardware.get("gpus", [])
    there = [gpu for gpu in listed if isinstance(gpu, dict)] if isinstance(listed, list) else []
    return dict(Counter(one_line(str(gpu.get("name", "GPU")), 60) for gpu in there))


def _asked(manifest: Manifest, stored: StoredPairs) -> Iterable[Sample]:
    """Samples whose answers were made in this run: those of a baseline's reference and its noise floor were not."""
    roles = ROLES if manifest.baseline is None else ("candidate",)
    for pair in stored.pairs:
        yield from (sample for role in roles if (sample := getattr(pair, role)) is not None)
    if manifest.baseline is None:
        yield from stored.noise.values()


def _tokens(samples: Iterable[Sample]) -> str:
    read = written = 0
    for sample in samples:
        read += max(sample.prompt_tokens or 0, 0)
        written += max(sample.completion_tokens or 0, 0)
    return f"{parameters(read)} and {parameters(written)}" if read or written else ""
