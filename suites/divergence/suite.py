"""Divergence: how far the candidate's next-token distribution lies from the reference's, along reference trajectories.

The reference writes an answer (a trajectory) with the policy's sampling; both roles then give their log-probabilities
at every position of it. A tripwire, not a measure of quality: near the baseline, KL does not rank models
(arXiv 2606.19558), and equal accuracy can hide many changed answers (Dutta et al., "Accuracy is Not All You Need",
NeurIPS 2024).

Metrics of a compared role's samples: `Comparison.totals`; of every role `thinking_closed`, how often the answer
closed its thinking, and `end_of_thinking`, the probability of the closing tag there (thinking_ends.py). Percentiles
over all positions: harness/runs/positions.py, from the stored files. What only decoding exercises (the KV cache, its
kernels) is the suite `decoding`'s.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from harness.contract.chat import Tokenizer
from harness.contract.errors import BadInput
from harness.contract.names import file_in
from harness.contract.samples import Item, Role, Sample, sha256_of
from harness.contract.settings import Sampling, Serving
from harness.endpoint.answers import Scores
from harness.endpoint.client import Completion, Endpoint, EndpointError
from suites.base import AnswerConfig, Suite, make_sample
from suites.divergence.kl_bounds import compare_scores
from suites.divergence.parquet_files import read_trajectory, rounded, write_trajectory
from suites.divergence.thinking_ends import closing_places, closing_probability, token_pieces
from suites.materials.prompts import LONGEST_PROMPT, shipped_prompts


class DivergenceConfig(AnswerConfig):
    """`divergence` in a policy. `max_tokens` is the longest trajectory."""

    trajectories: int = Field(48, ge=1)
    """Answers of the reference that are scored: the first prompts of those shipped."""
    kinds: tuple[str, ...] = ()
    """Only prompts of these kinds (chat, reasoning, code, tools ...): all without it."""
    top_logprobs: int = Field(64, ge=1)
    """Tokens whose log-probabilities are kept at each position; the server's --max-logprobs must allow them."""

    def lacking(self, serving: Serving) -> str:
        if 0 <= serving.max_logprobs < self.top_logprobs:  # -1: the server gives all
            return f"keeps {self.top_logprobs} log-probabilities, serving.max_logprobs is {serving.max_logprobs}"
        return ""


class Divergence(Suite):
    """The suite. Log-probabilities are kept in FOLDER/<item>.<role>.parquet."""

    name = "divergence"
    reference_first = True

    def __init__(self, config: DivergenceConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self._max_tokens = config.max_tokens or sampling.max_tokens
        self._folder = folder

    @property
    def context_needed(self) -> int:
        return self._max_tokens + LONGEST_PROMPT

    def items(self, tokenizer: Tokenizer) -> Sequence[Item]:
        """Prompts that ship with the project. Raises BadInput: fewer than trajectories asked for."""
        own = self._config
        return shipped_prompts(self.name, own.trajectories, own.limit, tokenizer, own.kinds)

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        """The reference writes the trajectory and scores it; every other role scores the stored one.

        Raises:
            BadInput: the server gives fewer log-probabilities than asked, or a stored trajectory cannot be read.
        """
        if role == "reference":
            return await self._write_trajectory(item, endpoint)
        return await self._compare(item, role, endpoint)

    async def _write_trajectory(self, item: Item, endpoint: Endpoint) -> Sample:
        completion = await endpoint.chat(item.prompt, self._max_tokens, tools=item.data.get("tools"))
        if not completion.prompt_ids or not completion.token_ids:
            raise EndpointError("garbage", f"{endpoint.url} does not return token ids (vLLM 0.10.2 or newer does)")
        ids = completion.prompt_ids + completion.token_ids
        scores = await self._score(endpoint, ids, len(completion.prompt_ids))
        path = self._path(item, "reference")
        await asyncio.to_thread(write_trajectory, path, completion.prompt_ids, scores, item.task)
        metrics = {"positions": float(len(completion.token_ids)), **await self._end_of_thinking(scores, endpoint)}
        sample = make_sample(self.name, item, "reference", completion, score=None, answer=None, metrics=metrics)
        return sample.model_copy(update={"answer": sha256_of(ids)})  # a call of a tool is a trajectory too

    async def _compare(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        prompt_ids, reference = await asyncio.to_thread(read_trajectory, self._path(item, "reference"))
        ids = prompt_ids + reference.token_ids.tolist()
        scores = await self._score(endpoint, ids, len(prompt_ids))
        compared = await asyncio.to_thread(compare_scores, reference, scores)
        await asyncio.to_thread(write_trajectory, self._path(item, role), prompt_ids, scores, item.task, compared)
        nothing_written = Completion("", "", "", len(prompt_ids), 0, [], [], 0.0, None)
        ended = await self._end_of_thinking(scores, endpoint)
        metrics = compared.totals() | ended
        sample = make_sample(self.name, item, role, nothing_written, score=None, answer=sha256_of(ids), metrics=metrics)
        return sample.model_copy(update={"finish_reason": None, "completion_tokens": None})

    async def _end_of_thinking(self, scores: Scores, endpoint: Endpoint) -> dict[str, float]:
        """How often the answer closed its thinking, and the probability of that by this role.

        Nothing where no tokenizer is at hand: what stands in the answer is then not known.
        """
        if not endpoint.tokenizer_path:
            return {}
        pieces = await asyncio.to_thread(token_pieces, endpoint.tokenizer_path, scores.token_ids.tolist())
        places = closing_places(pieces, endpoint.thinking_opened, endpoint.thinking_tags)
        if not places:
            return {"thinking_closed": 0.0}
        found = closing_probability(places, scores.logprobs)
        return {"thinking_closed": float(len(places)), "end_of_thinking": found}

    async def _score(self, endpoint: Endpoint, ids: list[int], start: int) -> Scores:
        """Log-probabilities of ids[start:], rounded as they are stored."""
        top = self._config.top_logprobs
        try:
            return rounded(await endpoint.score(ids, start, top))
        except EndpointError as error:
            if error.kind == "refused" and re.search(r"logprobs.*(max|at least)", str(error), re.IGNORECASE):
                raise BadInput(
                    f"divergence: {endpoint.url} does not give {top} log-probabilities; set serving.max_logprobs "
                    f"(of an attached server: --max-logprobs) to {top}, or divergence.top_logprobs lower ({error})"
                ) from None
            raise

    def _path(self, item: Item, role: Role) -> Path:
        return file_in(self._folder, item.item, f".{role}.parquet")
