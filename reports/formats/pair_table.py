"""All pairs of a run as one table for other programs: CSV or Parquet, one row a pair."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

from harness.contract.errors import BadInput
from harness.contract.items import read_items
from harness.contract.samples import ROLES, Sample
from harness.contract.whole_files import whole_file
from harness.runs.folder import RunFolder
from reports.samples.pairs import StoredPair, collect, planned_pairs
from reports.text import visible

OF_BOTH = {
    "score": float,
    "answer": str,
    "finish_reason": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "seconds": float,
    "error": str,
    "metrics": str,
}
"""Columns that there are twice, reference_score and candidate_score, and what they hold; metrics are JSON."""
COLUMNS = {
    "suite": str,
    "task": str,
    "item": str,
    "repeat": int,
    "language": str,
    "unusable": str,
    **{f"{role}_{name}": kind for name, kind in OF_BOTH.items() for role in ROLES},
    "difference": float,
    "kl": float,
}
"""Name and type of each column. unusable: why the two answers cannot be compared (missing, errored, unequal), null
where they can. difference: score of the candidate minus score of the reference. kl: nats a position, where measured."""
KINDS = (".csv", ".parquet")

Row = dict[str, str | int | float | None]


def export_pairs(run: RunFolder, out: Path) -> int:
    """Write every planned pair of a run, also those that were not answered; returns how many rows there are.

    What was taken from an answer is cut at 80 characters; whole texts are in samples/*.jsonl.

    Args:
        run: Of which the items and samples are read.
        out: A name that ends in .csv (UTF-8, with a header; null is empty) or in .parquet.

    Raises:
        BadInput: another ending, no run, or a file of it that cannot be read.
        OSError: `out` cannot be written.
    """
    if out.suffix.lower() not in KINDS:
        raise BadInput(f"{out}: name a file that ends in {' or '.join(KINDS)}")
    rows = list(pair_rows(run))
    with whole_file(out) as file:
        file.write(_csv(rows) if out.suffix.lower() == ".csv" else _parquet(rows))
    return len(rows)


def pair_rows(run: RunFolder) -> Iterator[Row]:
    """The rows, those of one suite after the other; keys are COLUMNS. Raises BadInput as `export_pairs`."""
    suites = run.manifest().items_sha256
    for suite in suites:
        run.items(suite)  # is it the file that the manifest names?
    planned = planned_pairs(suites, lambda suite: read_items(run.items_path(suite)))
    found = {pair.key: pair for pair in collect(run.samples(), planned).pairs}
    for key, plan in planned.items():
        missing = StoredPair(key, unusable="missing", language=plan.language)
        yield _row(found.pop(key, missing))
    for pair in found.values():  # of suites without stored items
        yield _row(pair)


def _row(pair: StoredPair) -> Row:
    suite, task, item, repeat = pair.key
    row: Row = {"suite": visible(suite), "task": visible(task), "item": visible(item), "repeat": repeat}
    row |= {"language": pair.language or None, "unusable": pair.unusable}
    for name in OF_BOTH:
        row |= {f"{role}_{name}": _value(getattr(pair, role), name) for role in ROLES}
    return row | {"difference": _finite(pair.difference), "kl": _finite(pair.kl)}


def _value(sample: Sample | None, name: str) -> str | int | float | None:
    if sample is None:
        return None
    if name == "metrics":
        kept = {key: value for key, value in sample.metrics.items() if math.isfinite(value)}
        return json.dumps(kept, sort_keys=True) if kept else None
    value = getattr(sample, name)
    return visible(value) if isinstance(value, str) else _finite(value)


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def _csv(rows: list[Row]) -> bytes:
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return written.getvalue().encode("utf-8")


def _inert(value: object) -> object:
    """A text that a spreadsheet would take for a formula begins with an apostrophe; a number does not."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _parquet(rows: list[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), written)
    return written.getvalue()
