"""The flags a vLLM server runs with, out of what it says of itself: nested settings become named facts.

Everything is taken but what is listed here as different by nature, so that a setting of a newer vLLM is compared too.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from typing import Any

from harness.contract.samples import sha256_of
from harness.parity.vllm_flags import FLAGS

UNKNOWN = "not readable"
READABLE = "readable"
OFF = "off or unset"
"""A setting that is null, false or empty is not kept: this stands for it where the other server has it."""

WORD = re.compile(r"\w{1,80}", re.ASCII)
LONGEST = 80
MOST_SETTINGS = 2000
DEEPEST = 4

SECTIONS_LEFT_OUT = {
    *("quant", "observability", "logging", "profiler", "kv_events", "weight_transfer", "ec_manager", "ec_transfer"),
    *("instance_id", "shutdown_timeout"),
}
"""The quantization itself (a fact of its own), and what has no part in an answer."""

LEFT_OUT = (
    # The model, under whatever path and name it is served, and what follows from its being quantized.
    *("model.model", "model.model_weights", "model.tokenizer", "model.served_model_name", "model.hf_config_path"),
    *("model.*revision", "model.*quantization*", "model.word_embeddings_untied_by_checkpoint"),
    *("kernel.*_quant", "compilation.pass_config.*_quant"),
    # The target again, and the draft as it follows from it.
    *("speculative.target_*_config*", "speculative.draft_*_config*", "speculative.quantization"),
    # Facts that have a name of their own.
    *("model.max_model_len", "cache.cache_dtype", "cache.enable_prefix_caching"),
    # Where a server runs and listens.
    *("*_port", "*_ip", "*_addr", "*_host", "*_path", "*_dir", "*engine_id", "*_uuid", "parallel.*rank*"),
    *("parallel.assigned_physical_gpu_ids", "parallel.numa_bind_*", "parallel.ray_*", "parallel.placement_group"),
    # How much room smaller weights leave; the KV-cache memory that was asked for is compared.
    *("cache.num_gpu_blocks", "cache.num_cpu_blocks", "cache.kv_cache_size_tokens", "cache.kv_cache_max_concurrency"),
    # What a process notes down while it runs, and its secrets.
    *("*._*", "model.hf_token", "compilation.*_time", "compilation.static_*", "compilation.traced_files"),
    *("compilation.*abled_custom_ops",),
)
"""Patterns of settings that differ between two servers that are the same in all that counts."""

ENVIRONMENT = (
    *("VLLM_BATCH_INVARIANT", "VLLM_FLOAT32_MATMUL_PRECISION", "VLLM_DISABLED_KERNELS", "VLLM_MLA_DISABLE"),
    *("VLLM_MOE_ROUTING_SIMULATION_STRATEGY", "VLLM_CPU_INT4_W4A8", "VLLM_MARLIN_*", "VLLM_*DEEP_GEMM*"),
    *("VLLM_USE_FLASHINFER_SAMPLER", "VLLM_USE_TRITON_AWQ", "VLLM_HUMMING_*", "VLLM_MXFP*"),
)
"""Environment variables of vLLM that change numbers and are no flags."""


_SHUT = {"config": UNKNOWN, **dict.fromkeys(FLAGS, UNKNOWN)}


def config_facts(info: dict[str, Any] | None) -> dict[str, str]:
    """Facts `config` (readable or not), `config.SECTION.SETTING` and `env.NAME` of an answer of /server_info.

    None, text in the place of JSON, and anything that cannot be a configuration is "not readable", and with it every
    flag that a vLLM has.
    """
    config = (info or {}).get("vllm_config")
    if not isinstance(config, dict):
        return _SHUT
    try:
        found = {f"config.{name}": text for name, value in _settings(config) if (text := _plain(value)) is not None}
    except RecursionError:
        return _SHUT
    if not found or len(found) > MOST_SETTINGS:
        return _SHUT
    environment = (info or {}).get("vllm_env")
    for name, value in environment.items() if isinstance(environment, dict) else ():
        counts = re.fullmatch(WORD, name) and any(fnmatch.fnmatchcase(name, pattern) for pattern in ENVIRONMENT)
        if counts and (text := _plain(value)) is not None:
            found[f"env.{name}"] = text
    return {"config": READABLE, **found}


def served_quantization(info: dict[str, Any] | None) -> str | None:
    """The quantization method that the server runs the model with; None when it says none."""
    config = (info or {}).get("vllm_config")
    model = config.get("model_config") if isinstance(config, dict) else None
    found = model.get("quantization") if isinstance(model, dict) else None
    return short(found) if found else None


def short(value: Any) -> str:
    """A value in one short line: text as it is, else JSON; what is long becomes a hash."""
    try:
        text = value if isinstance(value, str) and value.isprintable() else json.dumps(value, sort_keys=True)
        return text if len(text) <= LONGEST else f"sha256 {sha256_of(value)[:16]}"
    except (RecursionError, ValueError):
        return UNKNOWN


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of every setting that is compared, `model_config` and its kin opened."""
    model = config.get("model_config")
    for key, value in config.items():
        section = key.removesuffix("_config")
        if section in SECTIONS_LEFT_OUT:
            continue
        for name, setting in _opened(short(section), value, 1):
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in LEFT_OUT):
                continue
            if name == "speculative.model" and isinstance(model, dict) and setting == model.get("model"):
                yield name, "its own"  # a draft that lies in the checkpoint: each role has another path
            else:
                yield name, setting


def _opened(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """An object whose keys are words is opened, name by name; everything else is one value."""
    if isinstance(value, dict) and value and depth < DEEPEST and all(re.fullmatch(WORD, key) for key in value):
        for key, inner in value.items():
            yield from _opened(f"{name}.{key}", inner, depth + 1)
    else:
        yield name, value


def _plain(value: Any) -> str | None:
    """A setting as a short text; None when it is null, false or empty."""
    if isinstance(value, list):
        # vLLM adds this custom op for some quantized checkpoints; which one it is says the quantization.
        value = [item for item in value if item not in ("+quant_fp8", "-quant_fp8")]
    if value is None or value is False or value in ("", [], {}):
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    # Python objects that JSON does not know come with their address, another in every process.
    return short(re.sub(r" at 0x[0-9a-fA-F]+", "", text))
