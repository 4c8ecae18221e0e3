"""What a policy sets for both roles: how models are served, how answers are sampled, how servers are asked."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

SHORT_ANSWER = 512
"""Default budget, in tokens, of an answer of the suites that ask the prompts that ship."""


SHORT_ANSWERS = ("decoding", "speculative")


PICKLES = ("pt", "npcache")
"""vLLM's load formats that read pickles."""


STEP_LIMIT = 250
"""Default of the most steps of an agent's trajectory."""


class Config(BaseModel):
    """Base of everything a policy holds: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Serving(Config):
    """One set of server flags, used for both roles."""

    max_model_len: int = Field(4096, ge=128)
    """Context in tokens, prompt and answer together."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    kv_cache_dtype: str = "auto"
    kv_cache_memory_gib: float = Field(1.0, gt=0)
    """KV-cache memory of each server, set and not found out, so that two servers on one device cannot disagree."""
    max_num_seqs: int = Field(16, ge=1)
    max_logprobs: int = 64
    enforce_eager: bool = False
    tensor_parallel_size: int = Field(1, ge=1)
    reasoning_parser: str | None = None
    tool_call_parser: str | None = None
    extra_args: tuple[str, ...] = ()
    """Further `vllm serve` arguments, for both roles."""
    placement: Literal["together", "sequential"] = "together"
    """`sequential`: the reference answers everything first, then the candidate is served."""
    image: str | None = None
    """Container image with vLLM inside; both roles run from it instead of the local vLLM. For codes that vLLM reads by
    the plugin of quantgate-kernels, the one installed here is mounted."""
    image_args: tuple[str, ...] = ()
    """Further arguments of `docker run` / `podman run` (devices, mounts)."""
    ports: tuple[int, int] | None = None
    """Ports of (reference, candidate); free ones are taken when absent."""
    ready_timeout_seconds: float = Field(900, gt=0)

    @field_validator("extra_args")
    @classmethod
    def _are_safe(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for word, after in zip(words, [*words[1:], ""], strict=True):
            name, equals, value = word.partition("=")
            flag = name.replace("_", "-")
            if flag in ("--host", "--uds"):
                raise ValueError(
                    f"{flag} is not for a policy: a server of the gate listens on loopback alone; serve by hand and "
                    "attach (--candidate-url, --reference-url)"
                )
            if flag == "--load-format" and (value if equals else after) in PICKLES:
                raise ValueError(f"{flag} {value or after} reads pickles, which run code when read: give safetensors")
        return words


class Sampling(Config):
    """How every answer is sampled, in every suite and by both roles; nothing is left to a server's default."""

    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = -1
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int = Field(16384, ge=1)
    """Budget of one answer, thinking included."""
    seed: int = 0


class Requests(Config):
    """How servers are asked."""

    concurrency: int = Field(16, ge=1)
    """Requests in flight to one server."""
    retries: int = Field(2, ge=0)
    """Further tries after a connection error, a timeout, a 429 or a 5xx, and as many after an answer that is none (torn
    or another's)."""
    min_tokens_per_second: float = Field(1.0, gt=0)
    """The slowest answer that is still waited for: timeout = 120 s + (max_tokens + characters of the prompt / 1,000) /
    this. A prompt of a million tokens takes minutes to read."""
    thinking_tags: tuple[tuple[str, str], ...] = ()
    """(opening, closing) texts of thinking that a server leaves in the answer, beside the families that are known
    (harness/endpoint/thinking_tags.py)."""

    @field_validator("thinking_tags")
    @classmethod
    def _are_texts(cls, tags: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        if any(not tag.strip() for pair in tags for tag in pair) or any(
            opening == closing for opening, closing in tags
        ):
            raise ValueError("a tag is a text, and the closing one is another than the opening one")
        return tags
