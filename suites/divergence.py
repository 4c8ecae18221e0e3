"""Divergence: how far the candidate's next-token distribution lies from the reference's, along reference trajectories.

The reference writes an answer (a trajectory); both roles then give their log-probabilities at every position of it.
A tripwire, not a measure of quality: near the baseline, KL does not rank models (arXiv 2606.19558), and equal accuracy
can hide many changed answers (Dutta et al., "Accuracy is Not All You Need", NeurIPS 2024).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from harness.endpoint import Completion, Endpoint, EndpointError, Scores
from harness.errors import BadInput
from harness.policy import Sampling
from harness.samples import Item, Role, Sample, sha256_of
from suites.base import SuiteConfig, Tokenizer, make_item, make_sample

CONFIDENT = 0.9
"""A reference that is this sure of its top token does not flip by chance."""

ROUNDING = 1e-5
"""Float32 log-probabilities leave the candidate's mass outside the lists uncertain by less than this. It is added, so
that a mass lost to rounding is never taken for a proof of divergence."""


class DivergenceConfig(SuiteConfig):
    """`divergence` in a policy."""

    trajectories: int = Field(48, ge=1)
    """Answers of the reference that are scored."""
    max_tokens: int | None = Field(None, ge=2)
    """Longest trajectory; the policy's sampling.max_tokens when absent."""
    top_logprobs: int = Field(64, ge=1)
    """Tokens whose log-probabilities are kept at each position."""


class Divergence:
    """The suite. Log-probabilities are kept in FOLDER/<item>.<role>.parquet."""

    name = "divergence"
    reference_first = True

    def __init__(self, config: DivergenceConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self._max_tokens = config.max_tokens or sampling.max_tokens
        self._folder = folder

    @property
    def context_needed(self) -> int:
        return self._max_tokens + 1

    def items(self, tokenizer: Tokenizer) -> Sequence[Item]:
        """Prompts that ship with the project: chat, reasoning and code in English, Japanese and Chinese.

        Raises:
            BadInput: fewer prompts than trajectories asked for.
        """
        text = (resources.files("suites") / "data" / "prompts.jsonl").read_text("utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        if len(rows) < self._config.trajectories:
            raise BadInput(f"divergence: {self._config.trajectories} trajectories asked, {len(rows)} prompts shipped")
        return [
            make_item(f"{row['kind']}-{row['language']}", row["id"], row["messages"])
            for row in rows[: self._config.trajectories]
        ]

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        """The reference writes the trajectory and scores it; every other role scores the stored one."""
        if role == "reference":
            return await self._write_trajectory(item, endpoint)
        return await self._compare(item, role, endpoint)

    async def _write_trajectory(self, item: Item, endpoint: Endpoint) -> Sample:
        completion = await endpoint.chat(item.prompt, self._max_tokens)
        if not completion.prompt_ids or not completion.token_ids:
            raise EndpointError("garbage", f"{endpoint.url} does not return token ids (vLLM 0.10.2 or newer does)")
        ids = completion.prompt_ids + completion.token_ids
        scores = await endpoint.score(ids, len(completion.prompt_ids), self._config.top_logprobs)
        write_scores(self._path(item, "reference"), completion.prompt_ids, scores)
        metrics = {"positions": float(len(completion.token_ids))}
        trajectory = sha256_of(ids)
        return make_sample(self.name, item, "reference", completion, score=None, answer=trajectory, metrics=metrics)

    async def _compare(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        prompt_ids, reference = read_scores(self._path(item, "reference"))
        ids = prompt_ids + reference.token_ids.tolist()
        scores = await endpoint.score(ids, len(prompt_ids), self._config.top_logprobs)
        write_scores(self._path(item, role), prompt_ids, scores)
        metrics = compare(reference, scores).totals()
        nothing_written = Completion("", "", "", len(prompt_ids), 0, [], [], 0.0, None)
        sample = make_sample(self.name, item, role, nothing_written, score=None, answer=sha256_of(ids), metrics=metrics)
        return sample.model_copy(update={"finish_reason": None, "completion_tokens": None})

    def _path(self, item: Item, role: Role) -> Path:
        return self._folder / f"{item.item}.{role}.parquet"


@dataclass(frozen=True)
class Comparison:
    """Two models at n positions. KL is of the reference to the candidate, in nats."""

    kl_lower: NDArray[np.float64]
    """[n] what the shared tokens and one bucket for all others prove."""
    kl_upper: NDArray[np.float64]
    """[n] the same, if no token outside is treated worse than the worst one inside."""
    captured: NDArray[np.float64]
    """[n] probability (of the reference) on tokens that both returned."""
    flips: NDArray[np.bool_]
    """[n] the likeliest token differs."""
    confident_flips: NDArray[np.bool_]
    """[n] it differs where the reference gives its own more than CONFIDENT."""

    def totals(self) -> dict[str, float]:
        """Sums over the positions, as a sample's metrics."""
        return {
            "positions": float(self.kl_lower.size),
            "kl_lower_sum": float(self.kl_lower.sum()),
            "kl_upper_sum": float(self.kl_upper.sum()),
            "captured_mass_sum": float(self.captured.sum()),
            "flips": float(self.flips.sum()),
            "confident_flips": float(self.confident_flips.sum()),
        }


def compare(reference: Scores, candidate: Scores) -> Comparison:
    """Bounds of KL(reference || candidate) from the top-k lists of both.

    Tokens in both lists count one by one; all others are one bucket. Merging outcomes cannot raise KL (log-sum
    inequality; Cover and Thomas, Elements of Information Theory, theorem 2.7.1), so that is a lower bound. No finite
    upper bound exists without an assumption: ours is that no token in the bucket has a larger log(p/q) than the worst
    token whose ratio, or its least value, is known (a token that the candidate left out has at most its k-th
    probability). Renormalizing the lists instead would be wrong.

    Raises:
        ValueError: the two do not score the same tokens.
    """
    if not np.array_equal(reference.token_ids, candidate.token_ids):
        raise ValueError("the two roles scored different tokens")
    n, k = reference.top_ids.shape
    kl_lower, kl_upper, captured = (np.empty(n) for _ in range(3))
    for row in range(n):
        p, q = reference.top_logprobs[row].astype(np.float64), candidate.top_logprobs[row].astype(np.float64)
        where = np.argsort(candidate.top_ids[row])
        position = np.searchsorted(candidate.top_ids[row], reference.top_ids[row], sorter=where)
        index = where[np.minimum(position, k - 1)]
        shared = candidate.top_ids[row][index] == reference.top_ids[row]
        # For a token that the candidate left out, its k-th log-probability is the most it can be.
        ratio = p - np.where(shared, q[index], q.min())
        mass = np.exp(p[shared])
        p_rest = max(1.0 - mass.sum(), 1e-12)
        q_rest = max(1.0 - np.exp(q[index[shared]]).sum(), 0.0) + ROUNDING
        inside = float((mass * ratio[shared]).sum())
        kl_lower[row] = max(0.0, inside + p_rest * np.log(p_rest / q_rest))
        kl_upper[row] = max(kl_lower[row], inside + p_rest * max(0.0, float(ratio.max())))
        captured[row] = min(1.0, mass.sum())
    flips = reference.top_ids[:, 0] != candidate.top_ids[:, 0]
    sure = reference.top_logprobs[:, 0] > np.log(CONFIDENT)
    return Comparison(kl_lower, kl_upper, captured, flips, flips & sure)


def write_scores(path: Path, prompt_ids: list[int], scores: Scores) -> None:
    """Store one trajectory's log-probabilities: a row a position, the prompt's ids in the file's metadata."""
    k = scores.top_ids.shape[1]
    lists = {
        "top_ids": pa.FixedSizeListArray.from_arrays(pa.array(scores.top_ids.ravel()), k),
        "top_logprobs": pa.FixedSizeListArray.from_arrays(pa.array(scores.top_logprobs.ravel()), k),
    }
    table = pa.table({"token_id": scores.token_ids, "logprob": scores.logprobs, **lists})
    table = table.replace_schema_metadata({"prompt_ids": json.dumps(prompt_ids)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def read_scores(path: Path) -> tuple[list[int], Scores]:
    """Read (prompt ids, scores) back.

    Raises:
        BadInput: the file is missing or not one of ours.
    """
    try:
        table = pq.read_table(path)
        prompt_ids = json.loads(table.schema.metadata[b"prompt_ids"])
        k = table.schema.field("top_ids").type.list_size
        flat = {name: table[name].combine_chunks().flatten().to_numpy() for name in ("top_ids", "top_logprobs")}
        scores = Scores(
            table["token_id"].to_numpy(),
            table["logprob"].to_numpy(),
            flat["top_ids"].reshape(-1, k),
            flat["top_logprobs"].reshape(-1, k),
        )
    except (OSError, AttributeError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise BadInput(f"{path}: not a stored trajectory: {error}") from None
    return prompt_ids, scores
