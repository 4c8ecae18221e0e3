"""Statistics over every scored position of a run, read back from the divergence suite's Parquet files.

Sums and means are in the samples' metrics; a median or a 99.9th percentile needs the positions themselves. A file
`<item>.<role>.parquet` of a role that was compared with the reference has the columns COLUMNS, and the task in its
metadata; nothing else of it is read here. The figures are those of llama.cpp's KL tool: percentiles by linear
interpolation, `delta_p` the change in the probability of the token that is there. No intervals: positions of one
answer are not independent (checks draw whole answers).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from harness.contract.errors import BadInput
from harness.contract.samples import Role

BUCKETS = {"0-1k": (0, 1024), "1k-4k": (1024, 4096), "4k-16k": (4096, 16384), "16k+": (16384, 1 << 62)}
"""Positions of a trajectory (0 is the first token of the answer), first and end: a KL that grows from one to the next
is damage of the KV cache or of position encoding."""

CONFIDENCES = {"p<0.5": (0.0, 0.5), "p0.5-0.9": (0.5, 0.9), "p0.9-0.99": (0.9, 0.99), "p>0.99": (0.99, 2.0)}
"""Positions by the probability that the reference gives its likeliest token, first and end: a KL where it is sure is
damage, where it is not the two may differ by little and often."""

COLUMNS = {
    "logprob": pa.float32(),
    "reference_logprob": pa.float32(),
    "kl_lower": pa.float32(),
    "kl_upper": pa.float32(),
    "flip": pa.bool_(),
    "confident_flip": pa.bool_(),
}
"""Of each position: log-probability of its token by this role and by the reference, bounds of the KL in nats, whether
the likeliest token differs, and whether it does although the reference was sure of its own."""

Columns = dict[str, NDArray[np.float64]]
Bounds = tuple[float, float]
"""(lower, upper): top-k lists only bound a KL, so they only bound its percentiles."""


class PositionStats(BaseModel):
    """A set of positions. KL in nats a position."""

    model_config = ConfigDict(frozen=True)

    documents: int
    positions: int
    kl_mean: Bounds
    kl_median: Bounds
    kl_p99: Bounds
    kl_p999: Bounds
    kl_max: Bounds
    delta_p_mean: float
    delta_p_rms: float
    same_top: float
    """Share of positions with the same likeliest token."""
    flips: int
    confident_flips: int
    perplexity_ratio: float
    """Perplexity of the role to the reference's, on the reference's own answers."""


class PositionSummary(BaseModel):
    """All positions of one role, and parts of them; a part without positions is absent."""

    model_config = ConfigDict(frozen=True)

    total: PositionStats
    by_bucket: dict[str, PositionStats]
    """By position in the answer: keys of BUCKETS, in their order."""
    by_language: dict[str, PositionStats]
    by_kind: dict[str, PositionStats]


def position_summary(folder: Path, role: Role = "candidate") -> PositionSummary | None:
    """Summary of the positions that `role` was compared at; None when there are none.

    `folder` is a run's `divergence`. With the role `noise` it is the reference against itself.

    Raises:
        BadInput: a file that is not one of ours.
    """
    files = sorted(folder.glob(f"*.{role}.parquet"))
    read = [_read(path) for path in files]
    if not read:
        return None
    tasks, documents = [task for task, _ in read], [columns for _, columns in read]

    def grouped(name: Callable[[str], str]) -> dict[str, PositionStats]:
        groups: dict[str, list[Columns]] = {}
        for task, columns in zip(tasks, documents, strict=True):
            groups.setdefault(name(task), []).append(columns)
        return {key: _stats(groups[key]) for key in sorted(groups)}

    by_bucket = {
        bucket: [{name: values[first:end] for name, values in columns.items()} for columns in documents]
        for bucket, (first, end) in BUCKETS.items()
    }
    return PositionSummary(
        total=_stats(documents),
        by_bucket={name: _stats(parts) for name, parts in by_bucket.items() if any(p["flip"].size for p in parts)},
        by_language=grouped(lambda task: task.rpartition("-")[2]),
        by_kind=grouped(lambda task: task.rpartition("-")[0]),
    )


def _read(path: Path) -> tuple[str, Columns]:
    """(task, columns [n]) of one file, n at least 1."""
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        metadata = schema.metadata or {}
        if b"task" not in metadata:
            raise ValueError("it does not say its task (written by an older version)")
        task = metadata[b"task"].decode()
        for name, kind in COLUMNS.items():
            if schema.field(name).type != kind:
                raise ValueError(f"column {name} is {schema.field(name).type}, not {kind}")
        table = file.read(columns=list(COLUMNS))
        if table.num_rows == 0 or any(column.null_count for column in table.columns):
            raise ValueError("rows are missing")
        columns = {name: table[name].to_numpy().astype(np.float64) for name in COLUMNS}
        if not all(np.isfinite(values).all() for values in columns.values()):
            raise ValueError("a value is not finite")
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise BadInput(f"{path}: not a trajectory that was compared: {error}") from None
    return task, columns


def _stats(documents: list[Columns]) -> PositionStats:
    parts = [columns for columns in documents if columns["flip"].size]
    all_of = {name: np.concatenate([columns[name] for columns in parts]) for name in COLUMNS}
    delta_p = np.exp(all_of["logprob"]) - np.exp(all_of["reference_logprob"])
    lost = float((all_of["reference_logprob"] - all_of["logprob"]).mean())

    def both(of: Callable[[NDArray[np.float64]], np.floating[Any]]) -> Bounds:
        return float(of(all_of["kl_lower"])), float(of(all_of["kl_upper"]))

    return PositionStats(
        documents=len(parts),
        positions=delta_p.size,
        kl_mean=both(lambda kl: kl.mean()),
        kl_median=both(lambda kl: np.quantile(kl, 0.5)),
        kl_p99=both(lambda kl: np.quantile(kl, 0.99)),
        kl_p999=both(lambda kl: np.quantile(kl, 0.999)),
        kl_max=both(lambda kl: kl.max()),
        delta_p_mean=float(delta_p.mean()),
        delta_p_rms=float(np.sqrt((delta_p**2).mean())),
        same_top=1.0 - float(all_of["flip"].mean()),
        flips=int(all_of["flip"].sum()),
        confident_flips=int(all_of["confident_flip"].sum()),
        perplexity_ratio=float(np.exp(np.clip(lost, -700.0, 700.0))),
    )
