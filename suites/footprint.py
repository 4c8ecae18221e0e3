"""Footprint: what a checkpoint takes, on disk, in memory, and in GPUs of the sizes that are sold.

Nothing is asked: the harness has measured it (harness/endpoint/counters.py, harness/serving/memory.py). A sample's
metrics are those, and `gpus_24gib`, `gpus_48gib` ...: how many GPUs of this size hold the weights and the KV cache
(`gpus_needed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from harness.contract.chat import Tokenizer
from harness.contract.samples import Item, Role, Sample, sample_of
from harness.contract.settings import Sampling
from harness.endpoint.client import Endpoint, EndpointError
from harness.serving.hardware import GIB
from suites.base import Suite, SuiteConfig, make_item

GPU_SIZES = (24, 48, 80, 96, 141, 192)
"""Memory in GiB as it is sold: L4 and RTX 4090, L40S, A100 and H100, H20 and RTX PRO 6000, H200, MI300X and B200."""

USABLE = 0.9
"""Share of a GPU's memory that a server may plan with; vLLM's --gpu-memory-utilization has been 0.9 or 0.92."""

OVERHEAD_GIB = 3.0
"""On each GPU beside weights and KV cache: activations of a prefill step, CUDA graphs, communication buffers. Assumed,
not measured: it grows with --max-num-batched-tokens and the width of the model."""

MOST_GPUS = 64


class FootprintConfig(SuiteConfig):
    """`footprint` in a policy."""

    kv_gib: float | None = Field(None, ge=0)
    """KV cache, of all GPUs together, that has to fit beside the weights; that of this run's servers when absent."""


class Footprint(Suite):
    """The suite: one item, the checkpoint."""

    name = "footprint"

    def __init__(self, config: FootprintConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config

    @property
    def context_needed(self) -> int:
        return 1

    def items(self, tokenizer: Tokenizer | None) -> Sequence[Item]:
        return [make_item("checkpoint", "whole", [])]

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        """What was measured before. Raises EndpointError: the checkpoint's size is not known."""
        found = dict(endpoint.measured)
        if not found.get("bytes"):
            raise EndpointError("refused", "the size of the checkpoint is not known: its files are not on this machine")
        kv_bytes = found.get("kv_bytes") if self._config.kv_gib is None else self._config.kv_gib * GIB
        if kv_bytes is not None:
            weights = max(found["bytes"], found.get("load_bytes", 0.0) * found.get("gpus", 1.0))
            needed = {f"gpus_{size}gib": gpus_needed(weights, kv_bytes, size * GIB) for size in GPU_SIZES}
            found |= {name: float(count) for name, count in needed.items() if count is not None}
        return sample_of(self.name, item, role, metrics=found)


def gpus_needed(weight_bytes: float, kv_bytes: float, gpu_bytes: float) -> int | None:
    """How many GPUs of `gpu_bytes` memory hold a model by tensor parallelism; None when MOST_GPUS do not.

    The smallest power of two n with (weights + KV cache) / n + OVERHEAD_GIB <= USABLE x memory. Limits of the rule:
    weights and KV cache are taken to split evenly, though vLLM keeps norms and small layers on every GPU, and the KV
    cache too where there are fewer KV heads than GPUs (and always with MLA); the model's heads may not divide by n.
    It says what fits, not what is fast.
    """
    room = USABLE * gpu_bytes - OVERHEAD_GIB * GIB
    count = 1
    while count <= MOST_GPUS:
        if (weight_bytes + kv_bytes) / count <= room:
            return count
        count *= 2
    return None
