"""What a run took: time, GPUs and tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from harness.contract.samples import ROLES, Sample
from harness.runs.manifest import Manifest
from reports.samples.pairs import StoredPairs
from reports.text import duration, one_line, parameters


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
        yield from stored.noise


def _tokens(samples: Iterable[Sample]) -> str:
    read = written = 0
    for sample in samples:
        read += max(sample.prompt_tokens or 0, 0)
        written += max(sample.completion_tokens or 0, 0)
    return f"{parameters(read)} and {parameters(written)}" if read or written else ""
