"""Which kernels there are for a tier, and a part of a layer made ready for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from quantgate_kernels.vllm_plugin.parts import Part

logger = logging.getLogger(__name__)
_warned: set[str] = set()


@dataclass
class Plain:
    """A weight [O, I] that is run as it is."""

    weight: torch.Tensor

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight)


def has_linear(tier: Mapping[str, Any]) -> bool:
    """Is there a kernel for Linears of this tier?"""
    return False


def prepare_linear(part: Part, tables: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Plain:
    """A loaded part as it is run on a GPU."""
    if part.tier is not None:
        warn_of_memory({part.tier["format"]})
    return Plain(part.weight(tables, dtype))


def warn_of_memory(formats: set[str]) -> None:
    """Say once of each format that it takes the memory of its plain weights."""
    for name in sorted(formats - _warned):
        _warned.add(name)
        logger.warning("quantgate-kernels has no kernel for %s here: its weights take the memory of plain ones", name)
