"""Model folders for writing: tensors stream into shards, and every file appears whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from quantizers.checkpoint import DTYPES, INDEX_FILE, BlockFp8, TensorInfo, anew, one_line, read_header, reading
from quantizers.errors import QuantizeError

CHUNK_BYTES = 16 << 20

_NAMES = {dtype: name for name, (dtype, _) in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """One tensor to be written: its bytes may come from memory or from another file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    chunks: Iterable[bytes | memoryview]


def copy_entry(info: TensorInfo) -> Entry:
    """An Entry that streams the bytes of a stored tensor, whatever they mean; blocks of 8-bit floats become bf16."""

    def chunks() -> Iterator[bytes | memoryview]:
        if isinstance(info, BlockFp8):
            for band in info.bands():
                yield from tensor_entry(info.name, band).chunks
            return
        with reading(info.file), info.file.open("rb") as stream:
            stream.seek(info.start)
            left = info.nbytes
            while left:
                chunk = stream.read(min(left, CHUNK_BYTES))
                if not chunk:
                    raise QuantizeError(f"{info.file} became shorter while it was read: download it again")
                left -= len(chunk)
                yield chunk

    return Entry(info.name, info.dtype, info.shape, info.nbytes, chunks())


def tensor_entry(name: str, tensor: torch.Tensor) -> Entry:
    """An Entry for a tensor in memory."""
    flat = tensor.detach().to("cpu").contiguous().view(-1)
    data = [flat.view(torch.uint8).numpy().data] if flat.numel() else []
    return Entry(name, _NAMES[tensor.dtype], tuple(tensor.shape), flat.numel() * flat.element_size(), data)


def write_shard(path: Path, entries: Iterable[Entry]) -> None:
    """Write one safetensors file, which appears under its name only when it is complete and on the disk.

    Raises:
        QuantizeError: the disk is full or not writable; then nothing is left behind.
    """
    ordered = list(entries)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for entry in ordered:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.nbytes],
        }
        position += entry.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start on 8-byte boundaries, as the format asks
    with replacing(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for entry in ordered:
            for chunk in entry.chunks:
                stream.write(chunk)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises QuantizeError when the disk is full or not writable."""
    with replacing(path) as stream:
        stream.write(text.encode("utf-8"))


def write_index(folder: Path, shards: Iterable[Path]) -> None:
    """Write `model.safetensors.index.json` for `shards`, from their own headers, sorted by tensor name."""
    infos = sorted(
        (info for shard in shards for info in read_header(shard, anew(folder.parent))), key=lambda info: info.name
    )
    index = {
        "metadata": {"total_size": sum(info.nbytes for info in infos)},
        "weight_map": {info.name: info.file.name for info in infos},
    }
    write_text(folder / INDEX_FILE, json.dumps(index, indent=2, ensure_ascii=False) + "\n")


def named(tensors: Mapping[str, torch.Tensor]) -> list[Entry]:
    """Entries for several tensors in memory, in the order of the mapping."""
    return [tensor_entry(name, tensor) for name, tensor in tensors.items()]


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary stream whose bytes replace `path` in one step on success and vanish on failure."""
    draft = path.with_name(path.name + ".tmp")
    try:
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise QuantizeError(
            f"cannot write {path}: {one_line(error)}: free space or choose another place, then run again"
        ) from None
    finally:
        draft.unlink(missing_ok=True)
