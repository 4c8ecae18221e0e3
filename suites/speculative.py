"""Speculative decoding: how many of the drafted tokens each role accepts, answer by answer.

A draft head (MTP) that was damaged, or that no longer fits the quantized model, costs speed and no accuracy: only these
counters show it. A sample's metrics are what its answer added to the server's counters: `drafts`, `draft_tokens`,
`accepted_tokens`, `accepted_pos_0` ... (by position in the draft), `accepted_length` (1 + accepted / drafts). A server
that drafts nothing has `draft_tokens` 0 and no `accepted_length`. There is no score.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from harness.contract.chat import Tokenizer
from harness.contract.samples import Item, Role, Sample
from harness.contract.settings import Sampling
from harness.endpoint.client import Endpoint, EndpointError
from harness.endpoint.counters import Metrics, counter, spec_counters, spec_metrics
from suites.base import Suite, make_sample
from suites.materials.prompts import LONGEST_PROMPT, PromptsConfig, shipped_prompts

ANSWERED = "vllm:request_params_max_tokens_count"
"""Requests that the server has answered, of any client. vLLM counts one together with the drafts of its last step."""

SETTLE_SECONDS = 10.0
"""So long is waited for the server to count an answer that it has given. It took no longer than one look at /metrics
(0.02 to 0.1 s) with vLLM 0.32."""

POLL_SECONDS = 0.05


class SpeculativeConfig(PromptsConfig):
    """`speculative` in a policy. Acceptance is counted by token, so answers need not end."""


class Speculative(Suite):
    """The suite. One request at a time: the counters are the server's, not a request's."""

    name = "speculative"
    alternates = True

    def __init__(self, config: SpeculativeConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self.max_tokens: int = min(config.max_tokens, sampling.max_tokens)

    @property
    def context_needed(self) -> int:
        return self.max_tokens + LONGEST_PROMPT

    def items(self, tokenizer: Tokenizer) -> Sequence[Item]:
        """A task is a kind and a language. Raises BadInput: more prompts asked for than there are."""
        return shipped_prompts(self.name, self._config.prompts, self._config.limit, tokenizer)

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        """Ask, and read what the answer added to the counters.

        Raises:
            EndpointError: no usable answer, or counters that do not tell what this answer added.
        """
        before = await endpoint.metrics()
        tools = item.data.get("tools")
        completion = await endpoint.chat(item.prompt, self.max_tokens, repeat=item.repeat, tools=tools)
        after = await _once_counted(endpoint, before)
        try:
            metrics = spec_metrics(spec_counters(before), spec_counters(after))
        except ValueError as error:
            raise EndpointError("server", f"{endpoint.url} restarted: {error}") from None
        return make_sample(self.name, item, role, completion, score=None, answer=None, metrics=metrics)


async def _once_counted(endpoint: Endpoint, before: Metrics) -> Metrics:
    """/metrics once the server has counted the one answer that it gave since `before`.

    Raises:
        EndpointError: it does not count it, or it has answered someone else meanwhile.
    """
    first = counter(before, ANSWERED)
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        metrics = await endpoint.metrics()
        now = counter(metrics, ANSWERED)
        new = None if first is None or now is None else now - first
        if new is not None and new < 0:
            raise EndpointError("server", f"{endpoint.url} restarted: its counters fell")
        if new is not None and new > 1:
            said = f"{endpoint.url} answered {new - 1:.0f} other requests meanwhile"
            raise EndpointError("refused", f"{said}: whose tokens were accepted is not known; let nobody else ask it")
        if new == 1:
            return metrics
        if time.monotonic() > deadline:
            raise EndpointError("garbage", f"{endpoint.url}/metrics does not count the answers that it gives")
        await asyncio.sleep(POLL_SECONDS)
