"""What the pipeline needs of a scheme, and nothing of any one of them."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from quantgate_kernels.formats.rotation import rotate, signs_of, unrotate

from quantizers.curvature import Curvature
from quantizers.errors import QuantizeError

TABLES_FILE = "quantgate_tables.safetensors"
"""What is stored once for the whole model lies beside the shards, in no index: servers find it by the config."""

ROTATION_SEED = 7
"""Of the signs, for every tier that rotates: a model's inputs of one width are turned once for all of them."""

Parts = dict[str, torch.Tensor]
"""What a weight [O, I] became, by name: the first dimension of each tensor runs over the rows, O or a divisor of it.
`scales` [O, G], float32, is always there: the scale of each row and group of I/G neighbouring inputs. Schemes that are
not `tall` or are `data_free` may have other tensors and rows: their weights come one by one."""


@dataclass(frozen=True)
class CardWords:
    """What a model card says of a scheme."""

    method: str
    weights: str
    activations: str
    format: str
    tags: tuple[str, ...]
    settings: dict[str, str]
    """Further rows of the card's table."""


class Scheme(ABC):
    """One way to store the Linears of a model, with everything decided that one model needs; holds no weights.

    A weight is units * scales: units come from codes alone and stay as they are once chosen, scales can be tuned. Where
    the scheme rotates, both are in the rotated basis (quantgate_kernels/formats/rotation.py).
    """

    tier: str
    """As recipes name it."""
    rotation_seed: int | None = None
    """Of the signs of the rotation; None: inputs are not rotated."""
    row_chunks: int = 8
    """Chunks of rows in which errors are compensated over the outputs too (quantizers/two_sided.py)."""
    outputs_multiple: int = 1
    """What the outputs of one matrix, fused parts together, must be a multiple of for servers to take it."""
    rows_multiple: int = 1
    """What the outputs of each Linear must be a multiple of: rows whose codes are stored together."""
    tall: bool = True
    """Rows do not know of each other: Linears with one Hessian come as one tall weight. False: each comes alone."""
    stored_scales: str = "scales"
    """Last name of the stored tensor of scales."""
    scale_dtype: torch.dtype = torch.float16
    """In which scales are stored."""
    data_free: bool = False
    """Does it quantize without a Hessian? Then each weight comes alone, and where nothing else asks for a calibration
    there is none."""

    @abstractmethod
    def quantize(self, weight: torch.Tensor, curvature: Curvature, tick: Callable[[], None]) -> Parts:
        """Quantize a weight [O, I] so that the error weighted by its Hessian is small; both rotated already.

        `tick` is called after each piece of work. Where the scheme is `tall`, Linears with one Hessian may come as one
        tall weight, and `split_rows` parts what comes of it.

        Raises:
            HessianError: the Hessian cannot be used.
        """

    @abstractmethod
    def units(self, parts: Parts) -> torch.Tensor:
        """The values float32 [O, I] that the codes stand for, before any scale."""

    @abstractmethod
    def tensors(self, parts: Parts) -> dict[str, torch.Tensor]:
        """What is stored of one Linear, by the last part of the tensors' names."""

    @abstractmethod
    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of tensor data that a weight of this shape takes."""

    @abstractmethod
    def entry(self) -> dict[str, Any]:
        """What a checkpoint of ours says of this tier: `format`, and what that format's reader needs."""

    def stock_config(self, ignore: Sequence[str]) -> dict[str, Any] | None:
        """A `quantization_config` that stock servers read, for a model with this scheme alone; None: there is none.

        `ignore` names every Linear that stays as it was.
        """
        return None

    @abstractmethod
    def words(self) -> CardWords:
        """What the model card says."""

    def serving(self, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
        """What the card says of serving a model with this scheme alone, where that is not a matter of the tier.

        `shapes` are [O, I] of its Linears by full name.
        """
        return None

    def tables(self, widths: Sequence[int]) -> dict[str, torch.Tensor]:
        """What is stored once for the whole model, for Linears of these `widths` (inputs), by name."""
        return {}

    def combine(self, units: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """The weight float32 [O, I] of units [O, I] and scales [O, G], in the model's basis; it has a gradient."""
        return self.turn_back(self.scaled(units, scales))

    def scaled(self, units: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Units [O, I] times scales [O, G], in the basis of the codes."""
        rows, groups = scales.shape
        return (units.view(rows, groups, -1) * scales[:, :, None]).view(units.shape)

    def dequantize(self, parts: Parts) -> torch.Tensor:
        """The weight bf16 [O, I] that a server computes with."""
        return self.combine(self.units(parts), self.stored(parts["scales"])).to(torch.bfloat16)

    def stored(self, scales: torch.Tensor) -> torch.Tensor:
        """Scales as they will be read back: rounded to what is stored, none of them 0 or infinite."""
        limits = torch.finfo(self.scale_dtype)
        smallest = 2.0**-24 if self.scale_dtype == torch.float16 else limits.tiny
        return scales.clamp(smallest, limits.max).to(self.scale_dtype).to(torch.float32)

    def turn(self, values: torch.Tensor) -> torch.Tensor:
        """Values [..., I] in the basis of the codes."""
        seed = self.rotation_seed
        return values if seed is None else rotate(values, _signs(values.shape[-1], seed, values.device))

    def turn_back(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `turn`."""
        seed = self.rotation_seed
        return values if seed is None else unrotate(values, _signs(values.shape[-1], seed, values.device))


@functools.cache
def _signs(columns: int, seed: int, device: torch.device) -> torch.Tensor:
    """On the device, as tuning turns each weight in each step."""
    return signs_of(columns, seed).to(device)


def require_storable(
    tier: str, words: Callable[[int], int], features: Mapping[str, int], group_size: int | None
) -> None:
    """Refuse what a tier with rotated inputs cannot store; `words` of a row raises ValueError for a width that is none.

    Raises:
        QuantizeError: a group_size is asked for, or naming a Linear (its inputs are in `features`) that does not fit.
    """
    if group_size is not None:
        raise QuantizeError(f"tier {tier} has groups of 128 inputs, or of 64 where 128 do not divide: no group_size")
    for name, columns in features.items():
        try:
            words(columns)
        except ValueError as error:
            raise QuantizeError(f"{name}: {error}: ignore this layer in the recipe") from None


def split_rows(parts: Parts, rows: Sequence[int]) -> list[Parts]:
    """The parts of each of several weights that were quantized as one tall weight of sum(`rows`) rows.

    Of one weight they are the very parts, those without rows among them.
    """
    if len(rows) == 1:
        return [parts]
    pieces: list[Parts] = [{} for _ in rows]
    for name, tensor in parts.items():
        sizes = [count * len(tensor) // sum(rows) for count in rows]
        for piece, part in zip(pieces, torch.split(tensor, sizes), strict=True):
            piece[name] = part
    return pieces
