"""What a model stores once: codebooks, tables of a trellis and signs, held against their hashes and seeds."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from quantgate_kernels.formats import rotation
from quantgate_kernels.formats.trellis import TABLE_STEP
from quantgate_kernels.headers import read_header
from quantgate_kernels.settings import FormatError, Settings, shown

SEED = 20260101
"""Of every table that is written today."""
UNIVERSAL = "universal"
"""The kind of a codebook: k-means on standard normal vectors (quantizers/codebooks.py)."""
NORMAL = "normal quantiles"
"""The kind of a trellis' table."""
SIGNS = "signs+hadamard"
"""The kind of a rotation."""


@functools.cache
def normal_table(state_bits: int, seed: int = SEED) -> torch.Tensor:
    """The table int8 [2^L] of a trellis in units of TABLE_STEP: quantiles of the standard normal, shuffled.

    Neighbours in a trellis differ in few bits, so their values must have nothing to do with each other.
    """
    count = 1 << state_bits
    levels = (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count
    quantiles: torch.Tensor = torch.special.ndtri(levels)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + state_bits), device="cpu")
    return (quantiles[order] / TABLE_STEP).round().clamp(-127, 127).to(torch.int8)


def sha256_of_table(table: torch.Tensor) -> str:
    """The sha256 of a table's bytes, row by row."""
    return hashlib.sha256(bytes(table.contiguous().view(torch.uint8).flatten().tolist())).hexdigest()


def read_tables(folder: Path, settings: Settings) -> dict[str, torch.Tensor]:
    """The tables beside the shards, by name; those that the tiers name are there and are the right ones.

    Codebooks are held against the config's sha256 alone: k-means in floats ends elsewhere on another processor.

    Raises:
        FormatError: a table is missing, of another kind, or differs from its sha256 or its seed.
    """
    headers = {} if settings.tables is None else read_header(folder / settings.tables)
    for name, header in headers.items():
        if header.dtype != torch.int8:
            raise FormatError(f"{settings.tables}: {shown(name)} is {header.dtype}, not int8: get a sound copy")
    tables = {name: header.read() for name, header in headers.items()}
    for tier, entry in settings.tiers.items():
        if "table" in entry:
            _require_book(tables, shown(tier), entry)
        turn = entry.get("rotation")
        if turn is not None and (not isinstance(turn, dict) or turn.get("kind") != SIGNS or not _whole(turn)):
            raise FormatError(f"tier {shown(tier)} has the rotation {shown(turn)}, which is unknown: get a sound copy")
    return tables


def require_signs(tables: Mapping[str, torch.Tensor], module: str, columns: int, turn: Mapping[str, Any]) -> None:
    """Refuse where the signs of a rotated Linear of so many inputs are missing, or not those of the rotation's seed.

    Raises:
        FormatError: so it is.
    """
    name = f"signs.{columns}"
    if name not in tables:
        raise FormatError(
            f"{shown(module)} has codes of {columns} inputs, and {name} is not in the tables file: get a sound copy of "
            "the model"
        )
    if not torch.equal(tables[name], rotation.signs_of(columns, turn["seed"])):
        raise FormatError(f"{name} in the tables file is not what seed {turn['seed']} gives: get a sound copy")


def _require_book(tables: Mapping[str, torch.Tensor], tier: str, entry: Mapping[str, Any]) -> None:
    name, book = entry["table"], entry.get("codebook")
    if not isinstance(name, str) or not isinstance(book, dict) or not _whole(book):
        raise FormatError(f"tier {tier} names no table with kind, seed and sha256: get a sound copy of the model")
    if name not in tables:
        raise FormatError(f"{shown(name)}, the table of tier {tier}, is missing: get a sound copy of the model")
    table = tables[name]
    if sha256_of_table(table) != book.get("sha256"):
        raise FormatError(f"{shown(name)} is not the table whose sha256 config.json has: get a sound copy of the model")
    if book.get("kind") not in (UNIVERSAL, NORMAL):
        raise FormatError(f"{shown(name)} is of the kind {shown(book.get('kind'))}, which is unknown: get a sound copy")
    bits = len(table).bit_length() - 1
    if book["kind"] == NORMAL and not (bits <= 16 and torch.equal(table, normal_table(bits, book["seed"]))):
        raise FormatError(f"{shown(name)} is not what seed {book['seed']} gives: get a sound copy of the model")


def _whole(entry: Mapping[str, Any]) -> bool:
    seed = entry.get("seed")
    return isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 1 << 32
