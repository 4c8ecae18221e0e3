"""Files of a work folder are read by another run than the one that wrote them: each is held against a checksum.

CRC-32, as nobody is suspected, disks are: a layer's states of a large model are ten gigabytes, and SHA-256 would take
longer than writing them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch

from quantizers.checkpoint import anew, read_header, read_tensor, reading
from quantizers.errors import QuantizeError
from quantizers.writing import named, write_shard

CHECKSUM = "crc32"
"""Name of the tensor in a file that holds the checksum of all others."""
CHUNK_BYTES = 16 << 20


def write_checked(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors, from any device, into one file. Raises QuantizeError as `write_shard` does."""
    here = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    write_shard(path, named({**here, CHECKSUM: torch.tensor([_checksum(here)])}))


def read_checked(path: Path) -> dict[str, torch.Tensor]:
    """What `write_checked` wrote. Raises QuantizeError if it is not there, or anything else is."""
    tensors = {info.name: read_tensor(info) for info in read_header(path, anew(path.parent))}
    stored = tensors.pop(CHECKSUM, None)
    if stored is None or stored.tolist() != [_checksum(tensors)]:
        raise _damaged(path, path.parent)
    return tensors


def checksum_of_file(path: Path) -> int:
    """Of all bytes. Raises QuantizeError if it cannot be read."""
    found = 0
    with reading(path), path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            found = zlib.crc32(chunk, found)
    return found


def require_checksum(path: Path, checksum: int, folder: Path) -> None:
    """Raises QuantizeError where a file of the work folder `folder` is not the one that had this checksum."""
    if checksum_of_file(path) != checksum:
        raise _damaged(path, folder)


def _damaged(path: Path, folder: Path) -> QuantizeError:
    return QuantizeError(f"{path} is damaged (it is not what was written): {anew(folder)}")


def _checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    found = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode(), found)
        if tensor.numel():
            found = zlib.crc32(tensor.view(-1).view(torch.uint8).numpy().data, found)
    return found
