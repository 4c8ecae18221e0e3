"""A stored Linear on its way into a layer of a server: which rows and inputs a rank wants of it, what has come, and
the weight that it stands for.

vLLM's qkv_proj is three of these, each in its own tier: two ranks of a model with 8 heads of 64 and 2 of keys have rows
0 to 256 (or 256 to 512) of q_proj, and 0 to 64 (or 64 to 128) of k_proj and v_proj.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from quantgate_kernels.formats.linears import READERS, read_linear
from quantgate_kernels.headers import Header
from quantgate_kernels.settings import FormatError, shown
from quantgate_kernels.validate import Contents, require_values
from quantgate_kernels.vllm_plugin.shards import Span, Tier, cut, require_whole

AT_ONCE = 1 << 24
"""Weights that are read together: unpacked codes take 8 bytes each for a moment."""
ROWS_AT_ONCE = 128
"""Rows that every format keeps together, or a multiple of that."""


@dataclass
class Part:
    """One stored Linear, or a weight that is stored plainly (`tier` is None), as one rank of a server wants it."""

    module: str
    """Its stored name."""
    tier: Tier | None
    shape: tuple[int, int]
    """[O, I] of the whole."""
    rows: tuple[Span, ...]
    """Outputs wanted here, in the order of the layer's."""
    columns: Span
    headers: Mapping[str, Header]
    """Of each tensor that is stored of it, by last name."""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    """What has been loaded: slices, by last name."""

    def __post_init__(self) -> None:
        for span in self.rows:
            require_whole(self.module, self.shape, self.tier, span, self.columns)

    @property
    def local_shape(self) -> tuple[int, int]:
        return sum(end - start for start, end in self.rows), self.columns[1] - self.columns[0]

    def load(self, name: str, tensor: torch.Tensor, device: torch.device) -> None:
        """Take the slice of one stored tensor, by its last name, onto `device`.

        Raises:
            FormatError: it is none of this Linear's, or has another shape or type than its file says.
        """
        header = self.headers.get(name)
        if header is None:
            raise FormatError(f"{shown(self.module)}.{name} has come, and config.json has another format for it")
        if tuple(tensor.shape) != header.shape or tensor.dtype != header.dtype:
            raise FormatError(
                f"{shown(self.module)}.{name} came as {tensor.dtype} {list(tensor.shape)}, and its file has "
                f"{header.dtype} {list(header.shape)}: this version of vLLM cannot load it"
            )
        slices = [cut(name, tensor, self.tier, self.shape, span, self.columns) for span in self.rows]
        if name == "weight_shape":
            found = torch.tensor(self.local_shape, dtype=tensor.dtype)
        elif name == "codebooks" or len(slices) == 1:
            found = slices[0]
        else:
            found = torch.cat(slices)
        self.tensors[name] = found.to(device, copy=True).contiguous()  # the file's memory may be used again

    def require_sound(self) -> None:
        """Refuse where a tensor has not come, or holds values that stand for no weight.

        Raises:
            FormatError: naming the tensor.
        """
        for name in self.headers:
            if name not in self.tensors:
                raise FormatError(f"{shown(self.module)}.{name} was not loaded: this version of vLLM passes it over")
        if self.tier is not None:
            require_values(self.module, self.tensors, self.tier)

    def tables(self, tables: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tables that its codes need, those of signs cut to its inputs and named after their number."""
        if self.tier is None:
            return {}
        device = next(iter(self.tensors.values())).device
        found = {self.tier["table"]: tables[self.tier["table"]].to(device)} if "table" in self.tier else {}
        if self.tier.get("rotation") is not None:
            start, end = self.columns
            found[f"signs.{end - start}"] = tables[f"signs.{self.shape[1]}"][start:end].to(device)
        return found

    def weight(self, tables: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """The weight [rows, inputs] of this rank in the model's own basis, on the device where its tensors are."""
        if self.tier is None:
            return self.tensors["weight"].to(dtype)
        rows, columns = self.local_shape
        own, device = self.tables(tables), next(iter(self.tensors.values())).device
        weight = torch.empty(rows, columns, dtype=dtype, device=device)
        step = max(AT_ONCE // columns // ROWS_AT_ONCE, 1) * ROWS_AT_ONCE
        with _exact() if device.type == "cuda" else nullcontext():
            for start in range(0, rows, step):
                span = (start, min(start + step, rows))
                few = {
                    name: cut(name, tensor, self.tier, (rows, columns), span, (0, columns))
                    for name, tensor in self.tensors.items()
                }
                weight[slice(*span)] = read_linear(few, self.tier, own).to(dtype)
        return weight


@contextmanager
def _exact() -> Iterator[None]:
    """No TF32 in products: turning a weight back would lose more than bfloat16 does."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def stored_parts(contents: Contents, module: str) -> tuple[Tier | None, tuple[int, int], dict[str, Header]]:
    """Tier, [O, I] and headers of a stored Linear, or of a weight that is stored plainly.

    Raises:
        FormatError: nothing of that name is stored, or no matrix is.
    """
    if module in contents.shapes:
        tier = contents.settings.tier_of(module)
        names = READERS[tier["format"]][0]
        return tier, contents.shapes[module], {name: contents.headers[f"{module}.{name}"] for name in names}
    header = contents.headers.get(f"{module}.weight")
    if header is None or len(header.shape) != 2:
        raise FormatError(f"{shown(module)} is stored neither as codes nor as a matrix: get a sound copy of the model")
    return None, (header.shape[0], header.shape[1]), {"weight": header}


def one_part(
    contents: Contents, module: str, wanted: Sequence[tuple[int, int]], inputs: int, rank: int, ranks: int
) -> Part:
    """What one rank wants of a stored Linear.

    Args:
        wanted: (outputs of all ranks, outputs of this one) for each of the layer's outputs that are stored in it. One
            alone stands for all outputs that are stored, however many ranks have the same.
        inputs: of this rank.

    Raises:
        FormatError: the Linear has other outputs or inputs, or does not split so.
    """
    tier, shape, headers = stored_parts(contents, module)
    sides = [shape[0]] if len(wanted) == 1 else [whole for whole, _ in wanted]
    locals_ = [local for _, local in wanted]
    fits = sum(sides) == shape[0] and not any(whole % local for whole, local in zip(sides, locals_, strict=True))
    if not fits or shape[1] % inputs:
        raise FormatError(
            f"{shown(module)} is stored as {list(shape)}, and the server's layer has {locals_} outputs and {inputs} "
            f"inputs on each of {ranks} ranks: config.json describes another model"
        )
    rows, base = [], 0
    for whole, local in zip(sides, locals_, strict=True):
        start = base + _place(whole // local, rank, ranks) * local
        rows.append((start, start + local))
        base += whole
    first = _place(shape[1] // inputs, rank, ranks) * inputs
    return Part(module, tier, shape, tuple(rows), (first, first + inputs), headers)


def _place(shards: int, rank: int, ranks: int) -> int:
    """Which of so many shards a rank has; where there are fewer shards than ranks, neighbours have the same."""
    return rank * shards // ranks
