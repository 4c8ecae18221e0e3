"""Model folders for reading: headers are checked at the door, tensors are then read one at a time.

A safetensors file is 8 bytes of header length (little-endian), a JSON header {name: {dtype, shape,
data_offsets}} and the tensors' bytes (https://github.com/huggingface/safetensors#format). We read it
ourselves: copying a tensor byte for byte, whatever its dtype and size, needs nothing else. Pickle is never
opened.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from quantgate_kernels.formats import fp8_block

from quantizers.errors import QuantizeError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MODELOPT_FILE = "hf_quant_config.json"
LARGEST_HEADER = 100_000_000
LARGEST_JSON = 200_000_000
"""Bytes of a whole JSON file: an index of two million tensors. Read, it takes ten times its size in memory."""
LONGEST_NAME = 255
"""Bytes of a file's name, on all the usual file systems."""
BAND_BYTES = 16 << 20
DTYPES: dict[str, tuple[torch.dtype, int]] = {
    "F64": (torch.float64, 8), "F32": (torch.float32, 4), "F16": (torch.float16, 2),
    "BF16": (torch.bfloat16, 2), "F8_E4M3": (torch.float8_e4m3fn, 1), "F8_E5M2": (torch.float8_e5m2, 1),
    "F8_E8M0": (torch.float8_e8m0fnu, 1), "C64": (torch.complex64, 8), "BOOL": (torch.bool, 1),
    "I64": (torch.int64, 8), "I32": (torch.int32, 4), "I16": (torch.int16, 2), "I8": (torch.int8, 1),
    "U64": (torch.uint64, 8), "U32": (torch.uint32, 4), "U16": (torch.uint16, 2), "U8": (torch.uint8, 1),
}  # fmt: skip


FUSED_EXPERTS = {"gate_up_proj", "down_proj"}
"""Last names of two tensors with all experts of a layer: [E, 2I, D], gate above up, and [E, D, I]."""


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: `start` and `end` are byte offsets in `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.end - self.start

    @property
    def stored(self) -> tuple[TensorInfo, ...]:
        """What lies in the files of it."""
        return (self,)


@dataclass(frozen=True)
class BlockFp8(TensorInfo):
    """A matrix of 8-bit floats in blocks, seen as the bf16 matrix that it stands for; `start` to `end` are its codes.

    `dtype`, `nbytes` and what `read_tensor` gives are those of the bf16 matrix.
    """

    scales: TensorInfo

    @property
    def nbytes(self) -> int:
        return 2 * (self.end - self.start)

    @property
    def stored(self) -> tuple[TensorInfo, ...]:
        return TensorInfo(self.name, self.file, "F8_E4M3", self.shape, self.start, self.end), self.scales

    def bands(self) -> Iterator[torch.Tensor]:
        """The bf16 matrix a few rows at a time. Raises QuantizeError if it cannot be read."""
        codes, scales = self.stored[0], read_tensor(self.scales)
        rows, columns = self.shape
        blocks = max(1, BAND_BYTES // (4 * fp8_block.BLOCK * max(1, columns)))
        for block in range(0, max(1, len(scales)), blocks):
            first = block * fp8_block.BLOCK
            count = min(blocks * fp8_block.BLOCK, rows - first)
            start = self.start + first * columns
            band = replace(codes, shape=(count, columns), start=start, end=start + count * columns)
            parts = {"weight": read_tensor(band), "weight_scale_inv": scales[block : block + blocks]}
            yield fp8_block.decode(parts).to(torch.bfloat16)


@dataclass(frozen=True)
class Checkpoint:
    """A model folder whose headers were read and found sound; no tensor is loaded."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    """By name, in the order of the files and of the data in them."""


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read config.json and every safetensors header in `folder`, and check that they agree with the files.

    Raises:
        QuantizeError: a folder or file is missing, there are pickle files only, JSON does not parse, the index names
            absent shards or tensors, a file is truncated, a dtype is unknown.
    """
    if not folder.is_dir():
        raise QuantizeError(f"{folder} is not a folder: give a local model folder (config.json + *.safetensors)")
    config = read_json_object(folder / CONFIG_FILE)
    index = folder / INDEX_FILE
    if index.is_file():
        weight_map = _weight_map(index)
        shards = sorted(set(weight_map.values()))
    elif (folder / WEIGHTS_FILE).is_file():
        weight_map, shards = {}, [WEIGHTS_FILE]
    else:
        raise QuantizeError(_why_no_weights(folder))

    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent:
        others = f" (nor are {len(absent) - 1} others)" if len(absent) > 1 else ""
        raise QuantizeError(
            f"{INDEX_FILE} names {shown(absent[0])}, which is not in {folder}{others}: download it again"
        )
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for info in read_header(folder / shard):
            if info.name in tensors:
                raise QuantizeError(f"tensor {info.name} is in {tensors[info.name].file.name} and in {shard}: keep one")
            tensors[info.name] = info
    for name, shard in weight_map.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise QuantizeError(f"{INDEX_FILE} says tensor {name} is in {shard}, but it is not: download it again")
    return Checkpoint(folder, config, split_fused(tensors))


def _weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor, by an index. Raises QuantizeError where one is no name of a file in its folder."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise QuantizeError(f"{index} has no usable weight_map: download the model again")
    for name, shard in weight_map.items():
        if not _plain_name(shard):
            raise QuantizeError(
                f"{index} has no usable weight_map: it names {shown(shard)}, which is no file of its folder, for "
                f"{shown(name)}: get a sound copy of the model"
            )
    return weight_map


def split_fused(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The same tensors, where those that hold all experts of a layer, [E, 2I, D] and [E, D, I], are 3 E matrices.

    Raises:
        QuantizeError: a matrix is stored in both ways.
    """
    found: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        head, _, last = name.rpartition(".")
        if last not in FUSED_EXPERTS or not head.endswith("experts") or len(info.shape) != 3 or 0 in info.shape:
            found[name] = info
            continue
        count, rows, columns = info.shape
        names = ["down_proj"] if last == "down_proj" else ["gate_proj", "up_proj"]
        if rows % len(names):
            found[name] = info
            continue
        size = info.nbytes // count // len(names)
        for number in range(count * len(names)):
            own = f"{head}.{number // len(names)}.{names[number % len(names)]}.weight"
            start = info.start + number * size
            shape = (rows // len(names), columns)
            if own in tensors:
                raise QuantizeError(f"tensor {own} is stored, and {name} has it too: keep one of them")
            found[own] = replace(info, name=own, shape=shape, start=start, end=start + size)
    return found


def _why_no_weights(folder: Path) -> str:
    loose = sorted(p.name for p in folder.glob("*.safetensors"))
    if loose:
        return (
            f"{folder} has {len(loose)} .safetensors files (first: {shown(loose[0])}) but no {INDEX_FILE} to say "
            f"which of them are the model: download it, or name a single file {WEIGHTS_FILE}"
        )
    pickles = sorted(p.name for end in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(end))
    found = f"only pickle files ({shown(pickles[0])}), which are never opened" if pickles else "no weights"
    return f"{folder} has {found}: save it as {WEIGHTS_FILE} or {INDEX_FILE} + shards"


def quantization_settings(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """How a checkpoint says it is quantized, wherever servers look for it; None when it does not say so.

    That is `quantization_config` or `compression_config` of config.json or its text_config, else ModelOpt's own file,
    whose settings lie one level deeper. `null` and `{}` say nothing. Never raises.
    """
    for place in (config, config.get("text_config")):
        for key in ("quantization_config", "compression_config"):
            found = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(found, dict) and found:
                return _flat(found)
    try:
        beside = read_json_object(folder / MODELOPT_FILE)
    except QuantizeError:
        return None
    settings = _flat(beside)
    # With a cache alone quantized, ModelOpt names no algorithm.
    return settings if settings.get("quant_algo") or settings.get("quantized_layers") else None


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    inner = settings.get("quantization")
    return {"quant_method": "modelopt", **settings, **inner} if isinstance(inner, dict) else settings


def read_json_object(path: Path, way_out: str = "download it again") -> dict[str, Any]:
    """A JSON object from a file. Raises QuantizeError, with the way out, if it is missing or holds anything else."""
    try:
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise QuantizeError(f"{path} has {size / 1e9:.3g} GB, and no index or config is as large: {way_out}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QuantizeError(f"{path} is missing: give a complete model folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise QuantizeError(f"{path} is not readable JSON ({one_line(error)}): {way_out}") from None
    if not isinstance(content, dict):
        raise QuantizeError(f"{path} is JSON, but not an object: {way_out}")
    return content


def read_header(file: Path, way_out: str = "download it again") -> list[TensorInfo]:
    """The tensors of one safetensors file, in the order of their data.

    Raises:
        QuantizeError: the header does not parse, or does not describe exactly the bytes that follow it; with the way
            out.
    """

    def bad(reason: str) -> QuantizeError:
        return QuantizeError(f"{file} is damaged ({reason}): {way_out}")

    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, LARGEST_HEADER):
                raise bad("its header is cut off")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        found = []
        for name, fields in header.items():
            dtype, shape = fields["dtype"], tuple(fields["shape"])
            start, end = fields["data_offsets"]
            if dtype not in DTYPES:
                raise QuantizeError(f"tensor {name} in {file} has dtype {dtype}, which quantgate does not know")
            if any(part.isdigit() and not (part.isascii() and len(part) < 10) for part in name.split(".")):
                raise bad(f"tensor {shown(name)} has a number in its name that no layer has")
            if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, end)):
                raise bad(f"tensor {name} has a negative or broken size")
            if end - start != math.prod(shape) * DTYPES[dtype][1]:
                raise bad(f"tensor {name} has {end - start} bytes for shape {list(shape)} of {dtype}")
            found.append(TensorInfo(name, file, dtype, shape, 8 + length + start, 8 + length + end))
    except OSError as error:
        raise QuantizeError(f"cannot read {file} ({one_line(error)}): {way_out}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise bad(f"bad header, {one_line(error)}") from None
    found.sort(key=lambda info: (info.start, info.end))
    position = 8 + length
    for info in found:
        if info.start != position:
            raise bad(f"the data of tensor {info.name} overlaps or leaves a gap")
        position = info.end
    if position != size:
        raise bad(f"{size} bytes instead of {position}: it is cut off or has extra data")
    return found


def anew(folder: Path) -> str:
    """The way out where a file of a work folder is lost or damaged."""
    return f"remove {folder} to start anew"


def read_tensor(info: TensorInfo) -> torch.Tensor:
    """Load one tensor to the CPU in its dtype. Raises QuantizeError if it cannot be read."""
    tensor = torch.empty(info.shape, dtype=DTYPES[info.dtype][0])
    if isinstance(info, BlockFp8):
        return torch.cat(list(info.bands()), out=tensor)
    if info.nbytes == 0:
        return tensor
    buffer = tensor.view(-1).view(torch.uint8).numpy().data
    with reading(info.file), info.file.open("rb") as stream:
        stream.seek(info.start)
        while len(buffer):
            count = stream.readinto(buffer)
            if not count:
                raise QuantizeError(f"{info.file} became shorter while it was read: download it again")
            buffer = buffer[count:]
    return tensor


def fingerprint(checkpoint: Checkpoint) -> str:
    """A sha256 that changes when the model does: config, side files, headers, and 64 samples of each shard.

    Samples, because hashing a terabyte would cost more than quantizing a layer; training moves every tensor.
    """
    from quantizers.side_files import side_files  # which reads JSON with this module

    digest = hashlib.sha256()
    for file in [checkpoint.folder / name for name in (CONFIG_FILE, *side_files(checkpoint.folder))]:
        with reading(file):
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    stored = [part for info in checkpoint.tensors.values() for part in info.stored]
    for info in stored:
        digest.update(f"{info.name} {info.dtype} {info.shape} {info.start}\n".encode())
    for file in sorted({info.file for info in stored}):
        size = file.stat().st_size
        with reading(file), file.open("rb") as stream:
            for part in range(64):
                stream.seek(size * part // 64)
                digest.update(stream.read(4096))
    return digest.hexdigest()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError while reading `path` into a QuantizeError of one line."""
    try:
        yield
    except OSError as error:
        raise QuantizeError(f"cannot read {path}: {one_line(error)}") from None


def _plain_name(name: object) -> bool:
    if not isinstance(name, str) or len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        return False
    return name == Path(name).name and name.endswith(".safetensors")


def shown(value: object) -> str:
    """Other people's text, or another value of JSON as it is written there: on one line and not endless."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(char if char.isprintable() else "?" for char in text[:120]) or '""'


def one_line(error: BaseException) -> str:
    """What an error says, on one line; at most 200 characters of it, and no half word."""
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
    return said if len(said) <= 200 else f"{said[:199].rpartition(' ')[0] or said[:199]} …"
