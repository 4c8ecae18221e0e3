"""Parity: are the two servers really comparable? Everything is read back from them, nothing is believed."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path

from harness.endpoint import Endpoint, Messages
from harness.errors import NotComparable
from harness.runfolder import ModelFacts, read_json
from harness.samples import Role, sha256_of

PROBES: dict[str, Messages] = {
    "english": [{"role": "user", "content": "How many legs do 3 spiders have? Answer step by step."}],
    "japanese": [{"role": "user", "content": "日本で二番目に高い山は何ですか。"}],
    "chinese": [{"role": "user", "content": "127 乘以 8 等于多少？"}],
    "system": [
        {"role": "system", "content": "You are terse.\n"},
        {"role": "user", "content": "Hi  there"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Who wrote <think> here?"},
    ],
}
"""Chats whose token ids must be equal: languages, whitespace, several turns, texts that look like special tokens."""

UNKNOWN = "not readable"


async def read_back(endpoint: Endpoint, facts: ModelFacts) -> dict[str, str]:
    """What a server says of itself, as name -> value.

    Raises:
        EndpointError: the server does not answer as vLLM does.
    """
    found = {"model": facts.sha256 or facts.name, "quantization": facts.quantization or "none"}
    found["version"] = str((await endpoint.get_json("/version")).get("version", UNKNOWN))
    models = (await endpoint.get_json("/v1/models")).get("data")
    listed = models if isinstance(models, list) else []
    served = [m for m in listed if isinstance(m, dict) and m.get("id") == endpoint.model]
    found["max_model_len"] = str(served[0].get("max_model_len", UNKNOWN)) if served else UNKNOWN
    labels = next(iter((await endpoint.metrics()).get("vllm:cache_config_info", [])), ({}, 0.0))[0]
    found["kv_cache_dtype"] = labels.get("cache_dtype", UNKNOWN)
    found["prefix_caching"] = labels.get("enable_prefix_caching", UNKNOWN)
    for name, messages in PROBES.items():
        ids = await endpoint.render(messages)
        found[f"prompt_ids.{name}"] = f"{len(ids)} tokens, sha256 {sha256_of(ids)[:16]}"
    request = await endpoint.rendered_request(PROBES["english"])
    sampling = (request or {}).get("sampling_params")
    for key in ("stop", "stop_token_ids", "temperature", "top_p", "repetition_penalty"):
        # What the server fills in where a request says nothing: generation_config.json of the model shows here.
        found[f"default.{key}"] = json.dumps(sampling.get(key)) if isinstance(sampling, dict) else UNKNOWN
    return found | _stop_settings(facts)


def _stop_settings(facts: ModelFacts) -> dict[str, str]:
    """What ends an answer by the checkpoint's own files; vLLM adds these ids and this cap to every request."""
    path = Path(facts.path) / "generation_config.json" if facts.path else None
    config = read_json(path) if path is not None and path.exists() else None
    keys = ("eos_token_id", "max_new_tokens")
    return {f"generation_config.{key}": json.dumps(config.get(key)) if config else UNKNOWN for key in keys}


def differences(readback: dict[Role, dict[str, str]]) -> dict[str, tuple[str, str]]:
    """Facts that are not equal: name -> (reference, candidate)."""
    reference, candidate = readback["reference"], readback["candidate"]
    names = sorted(reference.keys() | candidate.keys())
    pairs = {name: (reference.get(name, UNKNOWN), candidate.get(name, UNKNOWN)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def require_parity(readback: dict[Role, dict[str, str]], allow_different: Sequence[str]) -> list[str]:
    """Check that the two roles differ in nothing but what the policy allows. Returns the allowed differences.

    Raises:
        NotComparable: naming every other difference with both values, or saying that both are the same model.
    """
    found = differences(readback)
    if "model" not in found:
        raise NotComparable("both roles are the same checkpoint: there is nothing to compare")
    refused = {
        n: p for n, p in found.items() if not any(fnmatch.fnmatchcase(n, pattern) for pattern in allow_different)
    }
    if refused:
        listed = "; ".join(f"{name}: reference {r}, candidate {c}" for name, (r, c) in refused.items())
        raise NotComparable(f"not comparable: {listed} (allow_different in the policy lists what may differ)")
    return sorted(found)
