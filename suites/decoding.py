"""Decoding: how long the candidate's greedy answers stay the reference's own, token by token.

Log-probabilities of a given text (the suite `divergence`) are computed by prefill kernels alone; decode kernels and
what the KV cache keeps only show in text that is written. Both roles answer greedily; what is kept is where they part
for the first time, since from there on the contexts differ. Greedy decoding is not deterministic (batch sizes change
the order of sums), so the role `noise`, the reference once more, is what the candidate's figures are compared with.

Metrics of a compared role's samples: `first_divergence`, tokens that are equal before the first difference;
`diverged`, 1 if there is one; `decode_positions`, tokens compared, the first different one included. Answers that never
part are censored at their end: pooled, sum(diverged) / sum(decode_positions) is the maximum likelihood estimate of the
chance to part at the next token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.contract.chat import Tokenizer
from harness.contract.errors import BadInput, NotComparable
from harness.contract.names import file_in
from harness.contract.samples import Item, Role, Sample, sha256_of
from harness.contract.settings import Sampling
from harness.contract.whole_files import write_whole
from harness.endpoint.client import Endpoint, EndpointError
from suites.base import Suite, make_sample
from suites.materials.prompts import LONGEST_PROMPT, PromptsConfig, shipped_prompts


class DecodingConfig(PromptsConfig):
    """`decoding` in a policy."""

    prompts: int = Field(24, ge=1)


class Decoding(Suite):
    """The suite. Token ids are kept in FOLDER/<item>.<role>.json."""

    name = "decoding"
    reference_first = True

    def __init__(self, config: DecodingConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self._folder = folder

    @property
    def context_needed(self) -> int:
        return self._config.max_tokens + LONGEST_PROMPT

    def items(self, tokenizer: Tokenizer) -> Sequence[Item]:
        """Prompts that ship with the project. Raises BadInput: fewer than asked for."""
        return shipped_prompts(self.name, self._config.prompts, self._config.limit, tokenizer)

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        """Ask for a greedy answer; every role but the reference is compared with the reference's.

        Raises:
            BadInput: the reference's stored answer cannot be read.
            NotComparable: the two were asked different tokens.
        """
        reference = None if role == "reference" else read_ids(self._path(item, "reference"))
        tools: list[dict[str, Any]] | None = item.data.get("tools")
        completion = await endpoint.chat(item.prompt, self._config.max_tokens, greedy=True, tools=tools)
        if not completion.prompt_ids or not completion.token_ids:
            raise EndpointError("garbage", f"{endpoint.url} does not return token ids (vLLM 0.10.2 or newer does)")
        write_ids(self._path(item, role), completion.prompt_ids, completion.token_ids)
        metrics = {}
        if reference is not None:
            prompt_ids, token_ids = reference
            if prompt_ids != completion.prompt_ids:
                raise NotComparable(f"decoding: {item.item} is another prompt to {endpoint.url} than to the reference")
            metrics = parting(token_ids, completion.token_ids)
        sample = make_sample(self.name, item, role, completion, score=None, answer=None, metrics=metrics)
        return sample.model_copy(update={"answer": sha256_of(completion.token_ids)})

    def _path(self, item: Item, role: Role) -> Path:
        return file_in(self._folder, item.item, f".{role}.json")


def parting(reference: Sequence[int], candidate: Sequence[int]) -> dict[str, float]:
    """Where two token sequences part, as a sample's metrics. One that ends where the other goes on has parted there."""
    pairs = zip(reference, candidate, strict=False)
    shared = min(len(reference), len(candidate))
    first = next((index for index, (one, other) in enumerate(pairs) if one != other), shared)
    diverged = first < max(len(reference), len(candidate))
    return {
        "first_divergence": float(first),
        "diverged": float(diverged),
        "decode_positions": float(first + diverged),
    }


def write_ids(path: Path, prompt_ids: list[int], token_ids: list[int]) -> None:
    """Store an answer's tokens; the file is there whole or not at all. Raises OSError."""
    write_whole(path, json.dumps({"prompt_ids": prompt_ids, "token_ids": token_ids}))


def read_ids(path: Path) -> tuple[list[int], list[int]]:
    """Read (prompt ids, token ids) back. Raises BadInput: the file is missing or not one of ours."""
    try:
        data = json.loads(path.read_text("utf-8"))
        found = data["prompt_ids"], data["token_ids"]
        if not all(isinstance(ids, list) and ids and all(type(i) is int for i in ids) for ids in found):
            raise ValueError("no lists of token ids")
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not a stored answer: {error}") from None
    return found
