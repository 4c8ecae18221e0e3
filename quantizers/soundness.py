"""What can be known to be wrong with a model before work starts, beyond its headers: every weight is read once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from quantgate_kernels.formats import fp8_block

from quantizers.checkpoint import BlockFp8, Checkpoint, TensorInfo, read_tensor, reading
from quantizers.errors import QuantizeError
from quantizers.side_files import side_files

CHUNK_BYTES = 4 << 20
# A value is infinite or NaN when all of these bits are set. One mask and one maximum run at the memory's speed.
BITS: dict[str, tuple[torch.dtype, int]] = {
    "F64": (torch.int64, 0x7FF0_0000_0000_0000), "F32": (torch.int32, 0x7F80_0000), "C64": (torch.int32, 0x7F80_0000),
    "F16": (torch.int16, 0x7C00), "BF16": (torch.int16, 0x7F80), "F8_E5M2": (torch.uint8, 0x7C),
    "F8_E4M3": (torch.uint8, 0x7F), "F8_E8M0": (torch.uint8, 0xFF),
}  # fmt: skip


def require_sound(checkpoint: Checkpoint, tick: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Look at everything that will be quantized or carried; `tick(done, total)` counts bytes.

    Raises:
        QuantizeError: a weight holds NaN or infinity, by name; a side file cannot be carried.
    """
    side_files(checkpoint.folder)
    total = sum(part.nbytes for info in checkpoint.tensors.values() for part in info.stored)
    done = 0
    for info in checkpoint.tensors.values():
        for part in info.stored:
            if not is_finite(part):
                raise QuantizeError(
                    f"tensor {part.name} in {part.file} holds NaN or infinity: get a sound copy of the model"
                )
            done += part.nbytes
            tick(done, total)
        if isinstance(info, BlockFp8) and info.nbytes:
            largest = float(read_tensor(info.scales).to(torch.float32).abs().max())
            if largest * fp8_block.LARGEST > torch.finfo(torch.bfloat16).max:
                raise QuantizeError(
                    f"tensor {info.scales.name} in {info.scales.file} holds {largest:.3g}, and bf16 ends at 3.4e38: "
                    "get a sound copy of the model"
                )


def is_finite(info: TensorInfo) -> bool:
    """Are all values of a stored tensor finite? Integers are. Read in pieces; QuantizeError if it cannot be read."""
    if info.dtype not in BITS or not info.nbytes:
        return True
    dtype, mask = BITS[info.dtype]
    buffer = bytearray(min(CHUNK_BYTES, info.nbytes))
    with reading(info.file), info.file.open("rb") as stream:
        stream.seek(info.start)
        left = info.nbytes
        while left:
            size = min(left, len(buffer))
            if stream.readinto(memoryview(buffer)[:size]) != size:
                raise QuantizeError(f"{info.file} became shorter while it was read: download it again")
            left -= size
            if int(torch.frombuffer(buffer, dtype=torch.uint8, count=size).view(dtype).bitwise_and(mask).max()) == mask:
                return False
    return True
