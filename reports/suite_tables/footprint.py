"""Footprint: what each checkpoint takes on disk and in memory, and how many GPUs it needs."""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.contract.samples import ROLES, Sample
from reports.samples.pairs import StoredPairs
from reports.suite_tables.table import NOT_MEASURED, SuiteRun, Table, average, finite, not_measured, quotient, values
from reports.text import ABSENT, number, parameters, size

SUITE = "footprint"
_GPUS = re.compile(r"gpus_([0-9]{1,5})gib")


def _bytes(value: float) -> str:
    return size(round(value))


def _weights(value: float) -> str:
    return parameters(round(value))


FACTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "bytes": ("Checkpoint on disk", _bytes),
    "bits_per_weight": ("Bits per weight", lambda value: number(value, 2)),
    "parameters": ("Weights", _weights),
    "draft_bytes": ("Draft head", _bytes),
    "load_bytes": ("Weights in memory, one GPU", _bytes),
    "resident_bytes": ("Main memory of the server", _bytes),
    "kv_tokens": ("Room of the KV cache, tokens", number),
    "kv_bytes": ("KV cache, all GPUs", _bytes),
    "gpus": ("GPUs of this run", number),
}
"""Metrics (harness/endpoint/counters.py), their words and how they are written."""


def tables(run: SuiteRun) -> list[Table]:
    """Sizes of both roles with their ratio, and GPUs needed by their size."""
    reference, candidate = [p.reference for p in run.pairs], [p.candidate for p in run.pairs]
    title = "Size and memory"
    rows = [_row(words, _mean(reference, name), _mean(candidate, name), said) for name, (words, said) in FACTS.items()]
    known = [row for row in rows if row[1:3] != (NOT_MEASURED, NOT_MEASURED)]
    if not known:
        return [not_measured(title, "no sample has the size of a checkpoint.")]
    missing = ", ".join(row[0] for row in rows if row not in known)
    note = f"Not measured: {missing}." if missing else ""
    columns = ("", "Reference", "Candidate", "Candidate ÷ reference")
    return [Table(title, columns, known, note), *_gpus(reference, candidate)]


def fits_on(stored: StoredPairs) -> dict[str, str]:
    """By role the GPUs that weights and KV cache fit on, by the footprint suite: the fewest, then fewer but larger."""
    found: dict[str, str] = {}
    for role in ROLES:
        samples = [getattr(pair, role) for pair in stored.pairs if pair.suite == SUITE]
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


def _mean(samples: list[Sample], name: str) -> float | None:
    return average(values(samples, name))


def _row(
    words: str, reference: float | None, candidate: float | None, said: Callable[[float], str]
) -> tuple[str, str, str, str]:
    cells = [NOT_MEASURED if finite(value) is None else said(value) for value in (reference, candidate)]  # type: ignore[arg-type]
    return words, cells[0], cells[1], number(quotient(candidate, reference), 3)


def _gpus(reference: list[Sample], candidate: list[Sample]) -> list[Table]:
    names = {name for sample in (*reference, *candidate) for name in sample.metrics}
    sizes = sorted(int(match[1]) for name in names if (match := _GPUS.fullmatch(name)))
    rows = []
    for gib in sizes:
        found = [_mean(samples, f"gpus_{gib}gib") for samples in (reference, candidate)]
        rows.append((f"{gib} GiB", *(ABSENT if value is None else number(value) for value in found)))
    note = (
        "Weights and KV cache, split evenly over a power of two of GPUs; –: more than 64. What fits, not what is fast."
    )
    return [Table("GPUs needed", ("Memory of a GPU", "Reference", "Candidate"), rows, note)] if rows else []
