"""One launch: how a model is served for use, with what its own files and the GPUs found here say.

The gate's servers are of `flags`: equal for both roles, on loopback, under settings of a policy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantgate_kernels.settings import METHOD, FormatError
from quantgate_kernels.validate import validate

from harness.contract.errors import BadInput
from harness.contract.whole_files import read_json
from harness.serving.hardware import Hardware

PORT = 8001
PARSERS: dict[str, tuple[str, str]] = {
    "deepseek_v3": ("deepseek_r1", "deepseek_v3"),
    "glm4_moe": ("glm45", "glm45"),
    "glm4_moe_lite": ("glm45", "glm47"),
    "glm_moe_dsa": ("glm45", "glm47"),
    "mimo": ("mimo", "mimo"),
    "qwen2": ("", "hermes"),
    "qwen3": ("qwen3", "hermes"),
    "qwen3_moe": ("qwen3", "hermes"),
}
"""vLLM's parsers for thinking and for tool calls by `model_type`."""
MOST_CACHE_GIB = 16
"""Of a KV cache on a CPU, where vLLM would take nearly all memory; at most a quarter of what is free."""
DRAFTS_AT_ONCE = 1
"""Tokens that a draft head is asked for: what a head was trained for."""


@dataclass(frozen=True)
class Launch:
    """A server that is to be: nothing has been started."""

    command: list[str]
    url: str
    name: str
    """Under which the model is served."""
    environment: dict[str, str] = field(default_factory=dict)
    """Set on top of that of this process."""


def plan_launch(
    model: Path,
    hardware: Hardware,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    name: str | None = None,
    more: Sequence[str] = (),
) -> Launch:
    """How vLLM serves `model` here.

    Args:
        name: under which it is served; default: the folder's.
        more: further flags of `vllm serve`; they win over those chosen here.

    Raises:
        BadInput: config.json cannot be read, or codes of ours are not sound.
    """
    config = read_json(model / "config.json")
    inner = config.get("text_config")
    text: dict[str, Any] = {**(inner if isinstance(inner, dict) else {}), **config}
    served = name or model.resolve().name
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model)]
    command += ["--host", host, "--port", str(port), "--served-model-name", served, "--max-model-len", "auto"]
    command += ["--tensor-parallel-size", str(ranks_for(model, text, max(len(hardware.gpus), 1)))]
    command += _parsers(model, str(config.get("model_type")))
    if _has_draft_head(model, text):
        drafts = {"method": "mtp", "num_speculative_tokens": DRAFTS_AT_ONCE}
        command += ["--speculative-config", json.dumps(drafts)]
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if not hardware.gpus:  # compiling takes minutes on a CPU, and a compiler
        command.append("--enforce-eager")
        environment |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
        environment["VLLM_CPU_KVCACHE_SPACE"] = f"{min(max(hardware.free_gib // 4, 1), MOST_CACHE_GIB):g}"
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/v1"
    return Launch([*command, *more], url, served, environment)


def ranks_for(model: Path, text: dict[str, Any], gpus: int) -> int:
    """The most GPUs, a power of two, that the model's heads and its codes split over.

    Raises:
        BadInput: codes of ours are not sound.
    """
    heads, keys = (text.get(f"num_{what}_heads") for what in ("attention", "key_value"))
    ours = (text.get("quantization_config") or {}).get("quant_method") == METHOD
    try:
        if ours:
            validate(model)
    except FormatError as error:
        raise BadInput(f"model {model}: {error}") from None
    ranks = 1
    while ranks * 2 <= gpus and splits(heads, ranks * 2) and splits(keys, ranks * 2, either=True):
        try:
            if ours:
                validate(model, ranks * 2)
        except FormatError:
            break
        ranks *= 2
    return ranks


def splits(heads: object, ranks: int, either: bool = False) -> bool:
    """Do heads divide over ranks, or, of keys, ranks over heads? Of what is not said, yes."""
    if not isinstance(heads, int) or heads < 1:
        return True
    return heads % ranks == 0 or (either and ranks % heads == 0)


def _parsers(model: Path, model_type: str) -> list[str]:
    """For what the model's chat template opens: a parser for thinking takes all of an answer without for thinking."""
    thinking, tools = PARSERS.get(model_type, ("", ""))
    template = "".join(
        file.read_text("utf-8", errors="replace")
        for file in (model / "chat_template.jinja", model / "tokenizer_config.json")
        if file.is_file()
    )
    found = ["--reasoning-parser", thinking] if thinking and "think>" in template else []
    return found + (["--enable-auto-tool-choice", "--tool-call-parser", tools] if tools and "tool" in template else [])


def _has_draft_head(model: Path, text: dict[str, Any]) -> bool:
    """Does config.json announce draft layers, and are they stored?"""
    layers = text.get("num_hidden_layers")
    if not text.get("num_nextn_predict_layers") or not isinstance(layers, int):
        return False
    index = model / "model.safetensors.index.json"
    if not index.is_file():
        return True
    names = read_json(index).get("weight_map", {})
    return any(f"layers.{layers}." in name or "mtp" in name for name in names)
