"""Which quantizers these are."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import quantgate_kernels.formats

import quantizers


@functools.cache
def code_sha256() -> str:
    """Over everything that decides what the quantizer writes: its code and its calibration text."""
    digest = hashlib.sha256()
    for package in (quantgate_kernels, quantizers):
        folder = Path(str(package.__file__)).parent
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.txt"), *folder.rglob("*.jsonl")]):
            digest.update(f"{file.relative_to(folder)} ".encode() + file.read_bytes())
    return digest.hexdigest()
