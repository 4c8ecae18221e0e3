"""What the pipeline needs of a scheme, and nothing of any one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Parts = dict[str, torch.Tensor]
"""What a weight [O, I] became, by name: the first dimension of each tensor runs over the rows, O or a divisor of it."""


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
    """One way to store the Linears of a model, with everything decided that one model needs; holds no weights."""

    @abstractmethod
    def quantize(self, weight: torch.Tensor, hessian: torch.Tensor, tick: Callable[[], None]) -> Parts:
        """Quantize a weight [O, I] so that the error weighted by its Hessian [I, I] is small.

        `tick` is called after each piece of work. Rows do not know of each other: Linears with one Hessian may come
        as one tall weight, and `split_rows` parts what comes of it.

        Raises:
            HessianError: the Hessian cannot be used.
        """

    @abstractmethod
    def dequantize(self, parts: Parts) -> torch.Tensor:
        """The weight bf16 [O, I] that a server will compute with."""

    @abstractmethod
    def tensors(self, parts: Parts) -> dict[str, torch.Tensor]:
        """What is stored of one Linear, by the last part of the tensors' names."""

    @abstractmethod
    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of tensor data that a weight of this shape takes."""

    @abstractmethod
    def config(self, ignore: Sequence[str]) -> dict[str, Any]:
        """The `quantization_config` of config.json; `ignore` names every Linear that stays as it was."""

    @abstractmethod
    def words(self) -> CardWords:
        """What the model card says."""


def split_rows(parts: Parts, rows: Sequence[int]) -> list[Parts]:
    """The parts of each of several weights that were quantized as one tall weight of sum(`rows`) rows."""
    pieces: list[Parts] = [{} for _ in rows]
    for name, tensor in parts.items():
        sizes = [count * len(tensor) // sum(rows) for count in rows]
        for piece, part in zip(pieces, torch.split(tensor, sizes), strict=True):
            piece[name] = part
    return pieces
