"""What the real vLLM makes of checkpoints: log-probabilities of prompts and greedy answers, in a process apart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PROMPTS, LENGTH, ANSWER = 4, 24, 8
ENVIRONMENT = {
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1",
    "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process less to start
}  # fmt: skip


@dataclass(frozen=True)
class Served:
    logprobs: list[list[dict[int, float]]]
    """Of each prompt and position, those of the likeliest tokens and of the prompt's own."""
    answers: list[list[int]]


def served(*asked: tuple[Path, Mapping[str, Any]]) -> list[Served | str]:
    """What vLLM makes of each model under these settings, one after the other, or the error that it ends with."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_served, [(str(folder), dict(settings)) for folder, settings in asked]).result()


def _served(asked: list[tuple[str, dict[str, Any]]]) -> list[Served | str]:
    os.environ.update(ENVIRONMENT)
    return [_one(folder, settings) for folder, settings in asked]


def _one(folder: str, settings: dict[str, Any]) -> Served | str:
    import gc

    import torch
    from vllm import LLM, SamplingParams

    try:
        llm: Any = LLM(
            folder, dtype="bfloat16", enforce_eager=True, max_model_len=128, max_logprobs=20, seed=0, **settings
        )
    except Exception as error:  # whatever a server can refuse
        return str(error)
    prompts = torch.randint(1, 256, (PROMPTS, LENGTH), generator=torch.Generator().manual_seed(2)).tolist()
    asked = SamplingParams(temperature=0, max_tokens=ANSWER, ignore_eos=True, prompt_logprobs=5)
    answers = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], asked, use_tqdm=False)
    found = Served(
        [[{t: p.logprob for t, p in place.items()} for place in answer.prompt_logprobs[1:]] for answer in answers],
        [list(answer.outputs[0].token_ids) for answer in answers],
    )
    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    return found
