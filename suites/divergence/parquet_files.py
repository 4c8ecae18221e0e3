"""Trajectories on disk: one Parquet file for each item and role, a row a position.

Columns: `token_id` and `logprob` (float32, exact) of the token that is there; `top_place` and `top_step`, lists of the
likeliest tokens, best first; `vocabulary`, in the first row alone, the distinct ids of all lists, the most frequent
first. A listed token's id is vocabulary[top_place]. Its log-probability is `from_steps` of the row's first step minus
all further ones up to its own. A role that was compared has the columns of harness/runs/positions.py as well. The
file's metadata hold `prompt_ids` (JSON) and `task`.

Small steps and frequent ids are small numbers whose upper bytes are zero, which is what compresses: with top 64 of
150,000 tokens a row takes 153 to 161 bytes in files of 4,096 rows, and 11 to 31 more with what was compared. Listed
log-probabilities are rounded for that, as in companding (ITU-T G.711): to steps of 0.000002 in the probability where
that is above 0.001, of 0.002 in its logarithm below. `rounded` rounds so before anything is compared: what is compared
is what is stored, for both roles alike, so that a result can be computed again from the files and a model diverges
from itself by exactly 0. Rounding moves the lower bound of a mean KL by less than 0.0000001 nats, the upper one by less
than 0.00001. Measured by benchmarks/trajectory_size.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.contract.errors import BadInput
from harness.contract.whole_files import whole_file
from harness.endpoint.answers import Scores
from harness.runs.positions import COLUMNS
from suites.divergence.kl_bounds import Comparison

LINEAR = 1e-3
"""Probability above which steps are equal in the probability, below in its logarithm."""
STEPS = 500
"""Steps from a probability of 0 to LINEAR, and from a log-probability to the next lower whole one."""
LOWEST = -1e4
"""Listed log-probabilities below are stored as this one."""

ROWS = 8192
"""Rows of a row group."""
LEVEL = 4
"""Of Brotli, 0.01 ms a row. It splits blocks where the bytes change; zstd has one code for both bytes of a place in a
file of 1,024 rows, which are 6 bytes a row more. Higher levels find matches that cost more than they save."""

UNREADABLE = (pa.ArrowException, RecursionError)
"""What else the readers of hostile Parquet and JSON raise."""


def to_steps(logprobs: NDArray[np.float32]) -> NDArray[np.int32]:
    """Log-probabilities in steps: 500,000 is a probability of 1, STEPS is one of LINEAR."""
    values = np.clip(logprobs.astype(np.float64), LOWEST, 0.1)
    linear = np.exp(values) / LINEAR
    units = np.where(linear >= 1.0, linear, 1.0 + values - np.log(LINEAR))
    return np.asarray(np.rint(STEPS * units), np.int32)


def from_steps(steps: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Log-probabilities of steps."""
    units = steps / STEPS
    above = np.where(units >= 1.0, np.log(np.maximum(units, 1.0)), units - 1.0)
    return np.asarray(above + np.log(LINEAR), np.float32)


def rounded(scores: Scores) -> Scores:
    """Scores as they are read back from a file."""
    return replace(scores, top_logprobs=from_steps(to_steps(scores.top_logprobs)))


def write_trajectory(
    path: Path, prompt_ids: list[int], scores: Scores, task: str = "", compared: Comparison | None = None
) -> None:
    """Store one trajectory's log-probabilities (at least one position), and what comparing it with the reference found.

    The file is there whole or not at all. Raises OSError.
    """
    vocabulary, places = _by_frequency(scores.top_ids)
    steps = to_steps(scores.top_logprobs)
    columns: dict[str, Any] = {
        "token_id": scores.token_ids,
        "logprob": scores.logprobs,
        "top_place": _lists(places),
        "top_step": _lists(np.concatenate([steps[:, :1], -np.diff(steps, axis=1)], axis=1)),
        "vocabulary": pa.array([vocabulary.tolist(), *[None] * (len(steps) - 1)], pa.list_(pa.int32())),
    }
    if compared is not None:
        columns |= _positions(compared)
    table = pa.table(columns)
    encoding = {_leaf(f): "BYTE_STREAM_SPLIT" for f in table.schema if not pa.types.is_boolean(f.type)}
    encoding[_leaf(table.schema.field("vocabulary"))] = "DELTA_BINARY_PACKED"  # ids that are as frequent ascend
    with (
        whole_file(path) as file,
        pq.ParquetWriter(
            file,
            table.schema,
            compression="brotli",
            compression_level=LEVEL,
            use_dictionary=False,
            column_encoding=encoding,
            write_statistics=False,
            store_schema=False,  # Arrow's own, which says nothing that is needed
        ) as writer,
    ):
        writer.write_table(table, ROWS)
        writer.add_key_value_metadata({"prompt_ids": json.dumps(prompt_ids), "task": task})


def _positions(compared: Comparison) -> dict[str, pa.Array]:
    values = {
        "reference_logprob": compared.reference_logprobs,
        "kl_lower": compared.kl_lower,
        "kl_upper": compared.kl_upper,
        "flip": compared.flips,
        "confident_flip": compared.confident_flips,
    }
    return {name: pa.array(found).cast(COLUMNS[name]) for name, found in values.items()}


def read_trajectory(path: Path) -> tuple[list[int], Scores]:
    """Read (prompt ids, scores) back.

    Raises:
        BadInput: the file is missing or not one of ours.
    """
    try:
        table = pq.read_table(path, columns=["token_id", "logprob", "top_place", "top_step", "vocabulary"])
        prompt_ids = json.loads(table.schema.metadata[b"prompt_ids"])
        if not isinstance(prompt_ids, list) or not all(type(i) is int for i in prompt_ids):
            raise ValueError("prompt_ids are no list of token ids")
        places, steps = (_matrix(table[name]) for name in ("top_place", "top_step"))
        if places.shape != steps.shape or places.min() < 0:
            raise ValueError("its lists do not fit each other")
        steps = np.cumsum(steps * np.where(np.arange(steps.shape[1]) == 0, 1, -1), axis=1)
        vocabulary = np.asarray(table["vocabulary"][0].as_py(), np.int32)
        top_ids, top_logprobs = vocabulary[places], from_steps(steps)
        token_ids, logprobs = _values(table["token_id"], pa.int32()), _values(table["logprob"], pa.float32())
        if not np.isfinite(logprobs).all():
            raise ValueError("a log-probability is not finite")
    except (OSError, AttributeError, LookupError, ArithmeticError, ValueError, TypeError, *UNREADABLE) as error:
        raise BadInput(f"{path}: not a stored trajectory: {error}") from None
    return prompt_ids, Scores(token_ids, logprobs, top_ids, top_logprobs)


def _by_frequency(ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(distinct ids, the most frequent first; the place of each id among them [n, k])."""
    found, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    place = np.empty(order.size, np.int32)
    place[order] = np.arange(order.size, dtype=np.int32)
    return found[order], place[inverse].reshape(ids.shape)


def _lists(values: NDArray[np.int32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _leaf(field: pa.Field) -> str:
    """The name that Parquet has for the values of a column."""
    return f"{field.name}.list.element" if pa.types.is_nested(field.type) else str(field.name)


def _matrix(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """[n, k] of a column of lists."""
    flat = _values(pa.chunked_array([column.combine_chunks().flatten()]), pa.int32())
    k = flat.size // len(column)
    if not pc.all(pc.equal(pc.list_value_length(column), k), skip_nulls=False).as_py():
        raise ValueError("its lists are not equally long")
    return flat.reshape(len(column), k)


def _values(column: pa.ChunkedArray, kind: pa.DataType) -> NDArray[Any]:
    if column.type != kind or column.null_count:
        raise ValueError(f"a column of {column.type} with {column.null_count} nulls, where {kind} is expected")
    return np.asarray(column.to_numpy())
