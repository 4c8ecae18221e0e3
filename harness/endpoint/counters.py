"""What is known of a role's checkpoint and server without asking a question, and what its counters say of drafts.

Names and units of `measure_server`, each left out where it is not known:

    bytes            of the checkpoint's safetensors files
    parameters       weights in them
    bits_per_weight  all bytes of the tensors over all weights, in bits
    draft_bytes      of the draft head (MTP) in them; 0 without one
    gpus             GPUs of one engine (tensor times pipeline parallel); 1 on CPU
    kv_tokens        tokens that the KV cache holds, of all engines
    kv_bytes         bytes of that, on all GPUs
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from harness.contract.model_facts import ModelFacts
from harness.endpoint.client import Endpoint

Metrics = Mapping[str, list[tuple[dict[str, str], float]]]
"""Samples of /metrics by name: (labels, value)."""

DRAFTS = "vllm:spec_decode_num_"
ACCEPTED_AT = f"{DRAFTS}accepted_tokens_per_pos_total"
MOST_POSITIONS = 64
"""More positions of a draft than any method has are a server's nonsense."""


async def measure_server(endpoint: Endpoint, model: ModelFacts) -> dict[str, float]:
    """Everything above that can be known.

    Raises:
        EndpointError: the server does not answer.
    """
    found: dict[str, float] = {}
    if model.bytes:
        found |= {"bytes": model.bytes, "parameters": model.parameters, "bits_per_weight": model.bits_per_weight}
        found["draft_bytes"] = sum(model.draft_bytes.values())
    gpus = _gpus(await endpoint.find_json("/server_info?config_format=json"))
    if gpus is not None:
        found["gpus"] = gpus
    found |= _kv_cache(await endpoint.metrics(), gpus)
    return {name: float(value) for name, value in found.items()}


def _gpus(info: Mapping[str, Any] | None) -> int | None:
    """GPUs of one engine by /server_info, None where the server keeps that shut."""
    config = (info or {}).get("vllm_config")
    parallel = config.get("parallel_config") if isinstance(config, dict) else None
    sizes = [parallel.get(f"{name}_parallel_size") if isinstance(parallel, dict) else None for name in _PARALLEL]
    known = [size for size in sizes if isinstance(size, int) and 0 < size < 2**16]
    return math.prod(known) if len(known) == len(_PARALLEL) else None


_PARALLEL = ("tensor", "pipeline")


def _kv_cache(metrics: Metrics, gpus: int | None) -> dict[str, float]:
    """`kv_tokens` and `kv_bytes` from the labels of vllm:cache_config_info, one row an engine.

    vLLM counts the tokens itself since blocks of hybrid models do not hold a whole token each; blocks x their size is
    what older versions tell. `kv_cache_memory_bytes` is of one GPU and only there when it was set by flag (or on CPU).
    """
    tokens = memory = 0.0
    rows = [labels for labels, _ in metrics.get("vllm:cache_config_info", [])]
    for labels in rows:
        blocks = _number(labels.get("num_gpu_blocks")) * _number(labels.get("block_size"))
        tokens += _number(labels.get("kv_cache_size_tokens")) or blocks
        memory += _number(labels.get("kv_cache_memory_bytes")) * (gpus or 0)
    return {name: value for name, value in (("kv_tokens", tokens), ("kv_bytes", memory)) if value > 0}


def _number(label: str | None) -> float:
    """A label's count, 0 where it is none."""
    return float(label) if label is not None and re.fullmatch(r"[0-9]{1,18}", label) else 0.0


# -- counters --------------------------------------------------------------------------------------------------------


def counter(metrics: Metrics, name: str) -> float | None:
    """A counter, summed over the engines of a server; None when it is not there or cannot be a count."""
    values = [value for _, value in metrics.get(name, [])]
    total = sum(values)
    return total if values and min(values) >= 0 and math.isfinite(total) else None


def spec_counters(metrics: Metrics) -> dict[str, float]:
    """What a server has drafted since it started; empty when it drafts nothing.

    `drafts` (stretches proposed), `draft_tokens`, `accepted_tokens`, and `accepted_pos_0` ...: how often the token at
    this position of a draft was accepted.
    """
    found = {}
    for name in ("drafts", "draft_tokens", "accepted_tokens"):
        value = counter(metrics, f"{DRAFTS}{name}_total")
        if value is None:
            return {}
        found[name] = value
    for labels, value in metrics.get(ACCEPTED_AT, []):
        position = _number(labels.get("position")) if labels.get("position") else -1
        if 0 <= position < MOST_POSITIONS and value >= 0 and math.isfinite(value):
            name = f"accepted_pos_{position:.0f}"
            found[name] = found.get(name, 0.0) + value
    return found


def spec_metrics(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was drafted between two readings of `spec_counters`, with `accepted_length` where anything was.

    Mean accepted length = 1 + accepted / drafts: a step gives its own token and those of the draft that it accepts
    (vLLM's definition; Leviathan et al., arXiv 2211.17192, section 3.1).

    Raises:
        ValueError: a counter fell, as it does when a server restarts.
    """
    if not after:
        return {"drafts": 0.0, "draft_tokens": 0.0}
    found = {name: value - before.get(name, 0.0) for name, value in after.items()}
    if min(found.values()) < 0 or not before.keys() <= after.keys():
        raise ValueError("the counters of drafted tokens fell")
    if found["drafts"] > 0:
        found["accepted_length"] = 1 + found["accepted_tokens"] / found["drafts"]
    return found
