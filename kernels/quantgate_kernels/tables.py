"""What a model stores once: codebooks, tables of a trellis and signs, held against their hashes and seeds."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from quantgate_kernels.formats import rotation
from quantgate_kernels.formats.trellis import MULTIPLIER, TABLE_STEP
from quantgate_kernels.headers import read_header
from quantgate_kernels.settings import FormatError, Settings, shown

SEED = 20260101
"""Of every table that is written today."""
UNIVERSAL = "universal"
"""The kind of a codebook: k-means on standard normal vectors (quantizers/codebooks.py)."""
NORMAL = "normal quantiles"
"""The kind of a trellis' table that is looked up."""
BYTE_SUMS = "byte sums"
"""The kind of a trellis' table of 2^16 states that kernels compute: its seed is MULTIPLIER."""
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


@functools.cache
def byte_sums() -> torch.Tensor:
    """The table int16 [2^16] of a trellis that kernels compute, in units of SUM_STEP.

    Four uniform numbers are nearly normal together. The standard deviation is 147, no value is beyond 512.
    """
    return sums_of(MULTIPLIER)


def sums_of(multiplier: int) -> torch.Tensor:
    """The sums int16 [2^16] of the four signed bytes of state * multiplier mod 2^32."""
    products = torch.arange(1 << 16, dtype=torch.int64, device="cpu") * multiplier
    signed = ((products[:, None] >> torch.arange(0, 32, 8, device="cpu")) + 128 & 255) - 128
    return signed.sum(1).to(torch.int16)


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
    sums = [entry.get("table") for entry in settings.tiers.values() if _kind(entry) == BYTE_SUMS]
    for name, header in headers.items():
        wanted = torch.int16 if name in sums else torch.int8
        if header.dtype != wanted:
            kind = str(wanted).removeprefix("torch.")
            raise FormatError(f"{settings.tables}: {shown(name)} is {header.dtype}, not {kind}: get a sound copy")
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
    if book.get("kind") not in (UNIVERSAL, NORMAL, BYTE_SUMS):
        raise FormatError(
            f"{shown(name)} is of the kind {shown(book.get('kind'))}, which is unknown: install a newer "
            "quantgate-kernels, or get a sound copy"
        )
    bits, seed = len(table).bit_length() - 1, book["seed"]
    sound = book["kind"] != NORMAL or (bits <= 16 and torch.equal(table, normal_table(bits, seed)))
    if book["kind"] == BYTE_SUMS:
        sound = seed == MULTIPLIER and torch.equal(table, byte_sums())
    if not sound:
        raise FormatError(f"{shown(name)} is not what seed {seed} gives: get a sound copy of the model")


def _kind(entry: Mapping[str, Any]) -> Any:
    book = entry.get("codebook")
    return book.get("kind") if isinstance(book, dict) else None


def _whole(entry: Mapping[str, Any]) -> bool:
    seed = entry.get("seed")
    return isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 1 << 32
