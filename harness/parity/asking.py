"""What a server is found to be by asking it, whether it shows its flags or not: dtype, and most log-probabilities.

A server gives log-probabilities in float32, of logits that were made in the model's dtype. In a log-softmax all logits
of a position lose the same number, so their grid stays: of a model in bfloat16 every position can be moved back by one
number so that each value is a float of 8 bits again. In float16 that takes 11 bits, and in float32 neither will do.
Seen of SmolLM2-135M on vLLM 0.32 in all three dtypes.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from harness.endpoint.client import Endpoint, EndpointError, Scores
from harness.parity.server_config import UNKNOWN

NO_SUCH_ROUTE = 404
TOP = 20
"""Log-probabilities asked for at each position: vLLM gives so many unless it is told otherwise."""
MOST_POSITIONS = 48
FAR_TOO_MANY = 10**7
"""More than any vocabulary: what is refused says how many are allowed."""
BFLOAT16, FLOAT16 = 8, 11
"""Bits of a float's significand, the leading one included. The coarse grid lies within the fine one."""
COARSE = 2.0**-4
"""Step between two logits from 8 to 16 in bfloat16, and in float16 from 64 to 128, which no model's logits reach."""
TOLERANCE = 5e-6
"""Nats. A log-probability of -16 to -32 in float32 is rounded by up to 1e-6, and so is what is subtracted."""
LARGEST_LOGIT, SMALLEST_LOGIT = 2.0**8, 2.0**-4

STANDS_FOR = {"asked.dtype": "config.model.dtype", "asked.max_logprobs": "config.model.max_logprobs"}
"""Facts by asking -> the flags that they tell."""


async def asked_facts(endpoint: Endpoint, token_ids: list[int]) -> dict[str, str]:
    """Facts `asked.*` of a server, found with one text as a prompt. Raises EndpointError: it does not answer.

    What the server refuses, or answers in another way than vLLM does, is "not readable".
    """
    return {
        "asked.dtype": await _dtype(endpoint, token_ids[: MOST_POSITIONS + 1]),
        "asked.max_logprobs": await max_logprobs(endpoint, token_ids[:2]),
    }


async def _dtype(endpoint: Endpoint, token_ids: list[int]) -> str:
    try:
        return logits_dtype(await endpoint.score(token_ids, 1, TOP))
    except EndpointError as error:
        if error.kind not in ("refused", "garbage") and error.status != NO_SUCH_ROUTE:
            raise
        return UNKNOWN


async def max_logprobs(endpoint: Endpoint, token_ids: list[int]) -> str:
    """The server's --max-logprobs, by asking for far too many; "not readable" where it does not say.

    vLLM refuses and says how many are allowed; of -1, the size of the vocabulary. Raises EndpointError: no answer.
    """
    try:
        await endpoint.score(token_ids, 1, FAR_TOO_MANY)
    except EndpointError as error:
        if error.kind not in ("refused", "garbage") and error.status != NO_SUCH_ROUTE:
            raise
        found = re.search(r"max allowed: (\d{1,8})\b", str(error))
        return found[1] if found else UNKNOWN
    return UNKNOWN


def logits_dtype(scores: Scores) -> str:
    """Dtype that the logits were made in; "not readable" where no position tells."""
    positions = [row[np.isfinite(row)].astype(np.float64) for row in scores.top_logprobs[:MOST_POSITIONS]]
    positions = [row for row in positions if len(row) >= TOP // 2]
    if not positions:
        return UNKNOWN
    if all(_on_grid(row, BFLOAT16) for row in positions):
        # Logits of float16 that lie close together fit too, in steps so fine as only small logits of bfloat16 have.
        return "bfloat16" if any(_in_steps(row, COARSE) for row in positions) else UNKNOWN
    fits = [_on_grid(row, FLOAT16) for row in positions[:: len(positions) // 16 or 1]]  # a search eight times as long
    return "float16" if all(fits) else "float32" if sum(fits) <= len(fits) / 2 else UNKNOWN


def _on_grid(logprobs: NDArray[np.float64], bits: int) -> bool:
    """Whether one number, added to all, makes each a float whose significand has so many bits."""
    tops = _floats(bits)
    logits = logprobs[None, :] + (tops - logprobs[0])[:, None]
    fraction, exponent = np.frexp(logits)
    nearest = np.ldexp(np.round(np.ldexp(fraction, bits)), exponent - bits)
    return bool((np.abs(logits - nearest) < TOLERANCE).all(axis=1).any())


def _in_steps(logprobs: NDArray[np.float64], step: float) -> bool:
    """Whether all lie a whole number of steps apart."""
    apart = logprobs - logprobs[0]
    return bool((np.abs(apart - np.round(apart / step) * step) < TOLERANCE).all())


def _floats(bits: int) -> NDArray[np.float64]:
    """All floats with significands of so many bits that the largest logit of a position may be."""
    significands = np.arange(2 ** (bits - 1), 2**bits) / 2.0 ** (bits - 1)
    scales = 2.0 ** np.arange(np.log2(SMALLEST_LOGIT), np.log2(LARGEST_LOGIT))
    positive = (scales[:, None] * significands).ravel()
    return np.concatenate([positive, -positive])
