"""Headers of safetensors files, without their data: 8 bytes of length, then JSON {name: dtype, shape, data_offsets}.

The format: https://github.com/huggingface/safetensors#format. Read here, because its library says of a file that is cut
off neither where nor in which tensor.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from quantgate_kernels.settings import FormatError, read_json, shown

INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
LARGEST_HEADER = 100_000_000
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64,
    "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "C64": torch.complex64,
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """Where one tensor lies: bytes `start` to `end` of `file`."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int

    def read(self) -> torch.Tensor:
        """The tensor, on the CPU."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            data = bytearray(stream.read(self.end - self.start))
        return torch.frombuffer(data, dtype=self.dtype).view(self.shape) if data else self.empty()

    def empty(self) -> torch.Tensor:
        return torch.empty(self.shape, dtype=self.dtype)


def read_headers(folder: Path) -> dict[str, Header]:
    """Every tensor of the model in `folder`, by name.

    Raises:
        FormatError: a shard is missing, damaged or cut off, or the index names what is not there.
    """
    if not (folder / INDEX_FILE).is_file():
        return read_header(folder / WEIGHTS_FILE)
    places = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) and Path(n).name == n for n in places.values()):
        raise FormatError(f"{folder / INDEX_FILE} has no usable weight_map: download it again")
    found: dict[str, Header] = {}
    for shard in sorted(set(places.values())):
        for name, header in read_header(folder / shard).items():
            if name in found:
                raise FormatError(f"{shown(name)} is in {found[name].file.name} and in {shard}: keep one")
            found[name] = header
    for name, shard in places.items():
        if name not in found or found[name].file.name != shard:
            raise FormatError(f"{shown(name)} is not in {shard}, where {INDEX_FILE} has it: download it again")
    return found


def read_header(file: Path) -> dict[str, Header]:
    """The tensors of one file, by name.

    Raises:
        FormatError: it is missing or cut off, or its header does not describe exactly the bytes that follow.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, LARGEST_HEADER):
                raise FormatError(f"{file} is cut off inside its header: download it again")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        found = [
            Header(name, file, DTYPES[entry["dtype"]], tuple(entry["shape"]), *(8 + length + n for n in place))
            for name, entry in entries.items()
            if len(place := entry["data_offsets"]) == 2
        ]
        found.sort(key=lambda header: (header.start, header.end))
        position = 8 + length
        for header in found:
            wanted = math.prod(header.shape) * header.dtype.itemsize
            if any(n < 0 for n in header.shape) or (header.start, header.end) != (position, position + wanted):
                raise FormatError(
                    f"{shown(header.name)} has {header.end - header.start} bytes from {header.start} on in {file}, not "
                    f"{wanted} from {position} on: download it again"
                )
            if header.end > size:
                raise FormatError(
                    f"{shown(header.name)} is cut off: {file} has {size} bytes, and it ends at {header.end}: "
                    "download it again"
                )
            position = header.end
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(f"{file} cannot be read ({error.strerror}): give a complete model folder") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"{file} has a damaged header ({shown(error)}): download it again") from None
    if position != size or len(found) != len(entries):
        raise FormatError(f"{file} has {size} bytes, and its header describes {position}: download it again")
    return {header.name: header for header in found}
