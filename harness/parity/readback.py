"""What a server says of itself before a run. Everything is read back, nothing is believed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from harness.contract.chat import Messages
from harness.contract.errors import NotComparable, RunFailed
from harness.contract.model_facts import ModelFacts
from harness.contract.samples import sha256_of
from harness.contract.settings import Requests, Sampling
from harness.contract.whole_files import read_json
from harness.endpoint.client import Endpoint, EndpointError
from harness.parity.asking import STANDS_FOR, asked_facts
from harness.parity.server_config import UNKNOWN, config_facts, served_quantization, short

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

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "find_train",
            "description": "Find the next train. 次の電車を探す。",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "seats": {"type": "integer", "minimum": 1}},
                "required": ["city"],
            },
        },
    }
]
"""Told to the model in one more probe: tools go through the chat template by a way of their own."""

GENERATION_CONFIG = (
    *("eos_token_id", "max_new_tokens", "temperature", "top_p", "top_k", "min_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)
"""What vLLM takes from generation_config.json: ids that end an answer, a cap on every budget, sampling defaults."""

DEFAULTS = ("stop", "stop_token_ids", *GENERATION_CONFIG[2:])

UNSET: dict[str, float] = {
    **{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0},
    **{"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
    "max_tokens": 16,
}
"""vLLM's own values: it leaves a sampling parameter out of what it says when it has this one."""

ACCEPTANCE = ("rejection_sample_method", "acceptance_method")
"""How drafted tokens are accepted, by its names in vLLM."""

LOSSLESS = {"standard", "block", "strict", "probabilistic", "rejection_sampler"}
"""Ways that keep the model's distribution. Synthetic, fly and typical acceptance do not; one yet to come may not."""


OTHER_TOKENIZERS = ("tokenizer.model", "tekken.json", "tiktoken.model", "vocab.json", "merges.txt")


async def read_back(endpoint: Endpoint, facts: ModelFacts) -> dict[str, str]:
    """What a server says of itself, as name -> short value; "not readable" where it does not tell.

    Flags (`config.*`, `env.*`) come from /server_info, which vLLM opens with VLLM_SERVER_DEV_MODE=1: servers that we
    start have it open. Servers that we attach to usually have it shut: then `config` and every flag is "not readable",
    but for those that asking tells (harness/parity/asking.py). Shut on both sides is no difference, and not equal
    either: `comparison.unread` counts it. Shut on one side is one difference, `config`: open it on both, or allow it.

    Raises:
        EndpointError: the server does not answer as vLLM does.
        NotComparable: what no policy may allow: sampling that does not arrive as asked for, or speculative decoding
            that changes what the model says.
        BadInput: a file of the checkpoint cannot be read.
    """
    info = await endpoint.find_json("/server_info?config_format=json")
    _require_lossless(endpoint, info)  # before the first request: such a server need not even answer
    found = {"model": facts.sha256 or facts.name, "quantization": _quantization(facts, served_quantization(info))}
    found["version"] = short((await endpoint.get_json("/version")).get("version", UNKNOWN))
    context = await max_model_len(endpoint)
    found["max_model_len"] = UNKNOWN if context is None else str(context)
    metrics = await endpoint.metrics()
    labels = next(iter(metrics.get("vllm:cache_config_info", [])), ({}, 0.0))[0]
    found["kv_cache_dtype"] = short(labels.get("cache_dtype", UNKNOWN))
    found["prefix_caching"] = short(labels.get("enable_prefix_caching", UNKNOWN))
    found["speculative_decoding"] = "on" if "vllm:spec_decode_num_drafts_total" in metrics else "off"
    if found["speculative_decoding"] == "on" and not isinstance((info or {}).get("vllm_config"), dict):
        raise NotComparable(
            f"not comparable: {endpoint.url} drafts tokens and does not say how it accepts them (no /server_info); "
            "start it with VLLM_SERVER_DEV_MODE=1, on a closed network, or without drafts"
        )
    longest, text = 0, list[int]()
    for name, messages in PROBES.items():
        ids = await endpoint.render(messages)
        longest, text = max(longest, len(ids)), text + ids
        found[f"prompt_ids.{name}"] = _ids(ids)
    found["prompt_ids.tools"] = await _tools_ids(endpoint)
    found |= await _sampling(endpoint, None if context is None else context - longest)
    asked = await asked_facts(endpoint, text if context is None else text[: context - 1])
    return found | _checkpoint(facts) | _told(config_facts(info), asked)


def _told(flags: dict[str, str], asked: dict[str, str]) -> dict[str, str]:
    """Flags and what was found by asking: what only one of the two tells is no gap."""
    flags, asked = dict(flags), dict(asked)
    for name, flag in STANDS_FOR.items():
        if asked[name] == UNKNOWN:
            del asked[name]
        elif flags["config"] == UNKNOWN:
            del flags[flag]
    return asked | flags


async def max_model_len(endpoint: Endpoint) -> int | None:
    """The context of the served model by /v1/models, None when it does not tell. Raises EndpointError."""
    models = (await endpoint.get_json("/v1/models")).get("data")
    listed = models if isinstance(models, list) else []
    served = [m.get("max_model_len") for m in listed if isinstance(m, dict) and m.get("id") == endpoint.model]
    return served[0] if served and isinstance(served[0], int) and 0 < served[0] < 2**40 else None


async def served_name(url: str) -> str:
    """The one model that an attached server serves. Raises RunFailed: there is none."""
    async with Endpoint(url, "", Requests(), Sampling()) as endpoint:
        try:
            models = (await endpoint.get_json("/v1/models")).get("data")
        except EndpointError as error:
            raise RunFailed(f"no usable server at {endpoint.url}: {error}") from None
    if not isinstance(models, list) or not models or not isinstance(models[0], dict):
        raise RunFailed(f"the server at {endpoint.url} lists no model at /v1/models")
    return str(models[0].get("id"))


def _require_lossless(endpoint: Endpoint, info: dict[str, Any] | None) -> None:
    """Raises NotComparable when drafted tokens are accepted that the model itself would not have written."""
    config = (info or {}).get("vllm_config")
    speculative = config.get("speculative_config") if isinstance(config, dict) else None
    methods = {key: speculative.get(key) for key in ACCEPTANCE} if isinstance(speculative, dict) else {}
    for key, method in methods.items():
        if method is not None and not (isinstance(method, str) and method in LOSSLESS):
            raise NotComparable(
                f"not comparable: {endpoint.url} runs with speculative_config.{key} {short(method)}, which is not "
                "known to keep the model's own answers; serve with rejection_sample_method standard or without drafts"
            )


def _quantization(facts: ModelFacts, served: str | None) -> str:
    """By the checkpoint, and by the server where it runs the model as something else (`--quantization fp8`)."""
    name = facts.quantization or "none"
    return name if served is None or served == name else f"{name}, served as {served}"


def _ids(ids: list[int]) -> str:
    return f"{len(ids)} tokens, sha256 {sha256_of(ids)[:16]}"


async def _tools_ids(endpoint: Endpoint) -> str:
    try:
        return _ids(await endpoint.render(PROBES["english"], tools=TOOLS))
    except EndpointError as error:
        if error.kind == "refused":  # a server that takes no tools at all
            return UNKNOWN
        raise


async def _sampling(endpoint: Endpoint, room: int | None) -> dict[str, str]:
    """What the server fills in where a request says nothing, and whether it takes what the policy says.

    `room` is what the context leaves for an answer: a suite may have a smaller budget than sampling.max_tokens.

    Raises:
        NotComparable: the policy's sampling is refused, or a parameter of it would not arrive as asked for.
    """
    try:
        await endpoint.chat(PROBES["english"], 1)  # what the engine itself refuses, rendering does not see
    except EndpointError as error:
        if error.kind != "refused":
            raise
        raise NotComparable(
            f"not comparable: a request with the policy's sampling is {error}; change sampling in the policy"
        ) from None
    silent = (await endpoint.rendered_request(PROBES["english"]) or {}).get("sampling_params")
    if not isinstance(silent, dict):
        return {"sampling": UNKNOWN} | {f"default.{key}": UNKNOWN for key in DEFAULTS}
    budget = endpoint.sampling.max_tokens
    if room is not None:
        budget = max(1, min(budget, room))
    arrived = (await endpoint.rendered_request(PROBES["english"], budget) or {}).get("sampling_params")
    _require_arrival(endpoint, budget, arrived)
    return {"sampling": "arrives as asked"} | {f"default.{key}": short(silent.get(key)) for key in DEFAULTS}


def _require_arrival(endpoint: Endpoint, budget: int, arrived: Any) -> None:
    """Raises NotComparable, naming each sampling parameter that the server would run otherwise than asked for."""
    if not isinstance(arrived, dict):
        raise NotComparable(f"not comparable: {endpoint.url} does not render a request with the policy's sampling")
    asked: dict[str, Any] = endpoint.sampling.model_dump() | {"max_tokens": budget}
    if asked["temperature"] == 0:  # greedy: these choose nothing, and vLLM resets them
        asked = {name: value for name, value in asked.items() if name not in ("top_p", "top_k", "min_p")}
    wrong = []
    for name, value in asked.items():
        found = arrived.get(name, UNSET.get(name))
        both_off = name == "top_k" and value in (-1, 0) and found in (-1, 0)
        if found != value and not both_off:
            wrong.append(f"{name} {value} arrives as {short(found)}")
    if wrong:
        raise NotComparable(
            f"not comparable: {endpoint.url} would not sample as the policy says: {'; '.join(wrong)}; "
            "change sampling in the policy, or what the server makes of it (its generation_config)"
        )


def _checkpoint(facts: ModelFacts) -> dict[str, str]:
    """What the checkpoint's own files add to every request: generation_config.json, chat template, tokenizer."""
    names = [*(f"generation_config.{key}" for key in GENERATION_CONFIG), "chat_template", "tokenizer"]
    if not facts.path:
        return dict.fromkeys(names, UNKNOWN)
    folder = Path(facts.path)
    path = folder / "generation_config.json"
    config = read_json(path) if path.exists() else {}
    values = [*(short(config.get(key)) for key in GENERATION_CONFIG), _chat_template(folder), _tokenizer(folder)]
    return dict(zip(names, values, strict=True))


def _chat_template(folder: Path) -> str:
    """Hash of the template's text, wherever it lies: saving a checkpoint again moves it from file to file."""
    text: Any = None
    if (folder / "chat_template.jinja").exists():
        text = (folder / "chat_template.jinja").read_text("utf-8", "replace")
    elif (folder / "tokenizer_config.json").exists():
        text = read_json(folder / "tokenizer_config.json").get("chat_template")
    return "none" if text is None else f"sha256 {sha256_of(text)[:16]}"


def _tokenizer(folder: Path) -> str:
    """Hash of what tokenizer.json does, not of how it was written: merges and unset options have two spellings."""
    path = folder / "tokenizer.json"
    if path.exists():
        data = {key: value for key, value in read_json(path).items() if key not in ("version", "truncation", "padding")}
        model = data.get("model")
        if isinstance(model, dict):
            model = {key: value for key, value in model.items() if value is not None and value is not False}
            merges = model.get("merges")
            if isinstance(merges, list):
                model["merges"] = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
            data["model"] = model
        return f"sha256 {sha256_of(data)[:16]}"
    files = [folder / name for name in OTHER_TOKENIZERS if (folder / name).exists()]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return f"sha256 {sha256_of(digests)[:16]}" if files else "none"
