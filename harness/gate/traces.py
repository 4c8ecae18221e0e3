"""Traces: a model's own answers to prompts that ship, for its calibration before it is quantized.

Only answers that the model ended itself are kept, with their thinking closed. The prompts are others than those of
the suites: a model must not be calibrated on what it will be judged by.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from harness import __version__
from harness.checkpoint.tokenizer import load_tokenizer
from harness.contract.chat import Messages
from harness.contract.errors import RunFailed
from harness.contract.policy import Policy
from harness.contract.samples import sha256_of
from harness.contract.settings import Sampling
from harness.contract.whole_files import cache_folder, write_whole
from harness.endpoint.client import Completion, Endpoint, EndpointError
from harness.runs.progress import Meter, Reporter
from harness.serving.flags import SERVED_NAME, plan_servers, with_api_key
from harness.serving.hardware import detect
from harness.serving.servers import serve
from quantizers.calibration_sources import HEADER, trace_prompts
from suites.base import opens_thinking
from suites.readings.endings import unterminated
from suites.readings.loops import looped
from suites.readings.scripts import Language, fits

FORMAT = 1
MOST_TOKENS = 4096
"""Of one answer, where the context has room for it."""
PROMPT_ROOM = 512
"""Tokens that are left to a prompt and its template; byte-level tokenizers stay below."""
PATIENCE = 3
"""Answers that are asked for, at most, for each one that is wanted: some are dropped."""
LEAST_ROUND = 16
"""Requests that are sent together, though fewer answers are missing: a server takes them in the time of one."""


@dataclass
class Traces:
    """Answers that were kept, and what became of the others."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Why, and how many."""

    def summary(self) -> str:
        """One line: how many were kept of how many, and why the others were not."""
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{len(self.rows)} of {self.asked} answers kept" + (f"; dropped: {why}" if why else "")


def why_dropped(completion: Completion, language: Language, kind: str) -> str | None:
    """Why an answer is no trace to calibrate on; None when it is one."""
    ended, called = completion.finish_reason, completion.tool_calls
    faults = {
        "cut at the budget": ended == "length",
        "looped": ended == "repetition" or looped(completion.reasoning + completion.text),
        "not ended by the model": ended != "stop" or bool(called),
        "without an answer after the thinking": unterminated(completion),
        "empty": not completion.text.strip(),
        "in another language": kind != "code" and fits(completion.text, language) is False,
    }
    return next((fault for fault, found in faults.items() if found), None)


def own_sampling(model: Path) -> Sampling:
    """How the model's makers want it to be sampled (generation_config.json), where they say; else temperature 0.7.

    Greedy answers would be one for each prompt, and small models loop in them.
    """
    try:
        said = json.loads((model / "generation_config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        said = {}
    said = said if isinstance(said, dict) else {}
    found = {key: said[key] for key in ("top_p", "top_k", "min_p") if isinstance(said.get(key), int | float)}
    warmth = said.get("temperature")
    sampled = isinstance(warmth, int | float) and 0 < warmth <= 2
    try:
        return Sampling.model_validate({"temperature": warmth if sampled else 0.7, "max_tokens": MOST_TOKENS, **found})
    except ValueError:  # settings that no server takes
        return Sampling(temperature=0.7, max_tokens=MOST_TOKENS)


def write_traces(
    model: Path, name: str, out: Path, count: int, policy: Policy, reporter: Reporter, *, max_tokens: int | None = None
) -> Traces:
    """Serve `model`, called `name` by the user, as `policy` says; ask until `count` answers are kept; write them.

    `out` appears whole or not at all: a line of provenance, then a line for each answer with its `text` as the model
    saw and wrote it, its `messages`, `language`, `kind` and `prompt`. At most PATIENCE times `count` are asked.

    Raises:
        BadInput: the tokenizer has no chat template, or the serving settings do not fit this machine.
        RunFailed: the server does not start or fails, or no answer can be kept.
    """
    tokenizer = load_tokenizer(model, name)
    sampling = _sampling(model, policy, max_tokens)
    (plan,) = with_api_key(plan_servers(policy.serving, {"reference": model}, detect(), "traces"))
    asking: dict[str, Any] = {"requests": policy.requests, "thinking_opened": opens_thinking(tokenizer)}
    endpoint = Endpoint(plan.url, SERVED_NAME, sampling=sampling, api_key=plan.api_key, **asking)
    with ExitStack() as server:
        with reporter.stage("server", 1) as meter:
            logs = cache_folder() / "serve"
            server.enter_context(serve([plan], logs, policy.serving.ready_timeout_seconds, meter))
        with reporter.stage("traces", count) as meter:
            traces = asyncio.run(collect(endpoint, count, tokenizer, meter))
    if not traces.rows:
        raise RunFailed(
            f"{name}: no trace to calibrate on ({traces.summary()}): give answers more room (--max-tokens, and "
            f"serving.max_model_len of the policy, here {policy.serving.max_model_len}), or another model"
        )
    header = {
        HEADER: FORMAT,
        "quantgate": __version__,
        "model": name,
        "server": sorted(endpoint.fingerprints),
        "sampling": sampling.model_dump(),
        "prompts_sha256": sha256_of(trace_prompts()),
        "asked": traces.asked,
        "kept": len(traces.rows),
        "dropped": dict(sorted(traces.dropped.items())),
    }
    lines = [json.dumps(row, ensure_ascii=False) for row in (header, *traces.rows)]
    write_whole(out, "\n".join(lines) + "\n")
    return traces


def traces_key(model: Path, fingerprint: str, count: int, policy: Policy) -> str:
    """What names traces in the cache: they are the same for the same model, settings and prompts."""
    sampling = _sampling(model, policy, None).model_dump()
    return sha256_of([FORMAT, fingerprint, count, sampling, trace_prompts()])[:16]


def _sampling(model: Path, policy: Policy, max_tokens: int | None) -> Sampling:
    sampling = own_sampling(model)
    budget = min(max_tokens or sampling.max_tokens, policy.serving.max_model_len - PROMPT_ROOM)
    return sampling.model_copy(update={"max_tokens": max(1, budget)})


async def collect(endpoint: Endpoint, count: int, tokenizer: Any, meter: Meter) -> Traces:
    """Ask the prompts in their order, again with another seed when all were asked, until `count` answers are kept.

    What is kept depends on the answers and not on the order in which they arrive.

    Raises:
        RunFailed: the server fails.
    """
    prompts, traces, seen = trace_prompts(), Traces(), set[str]()
    async with endpoint:
        while len(traces.rows) < count and traces.asked < PATIENCE * count:
            first, most = traces.asked, PATIENCE * count
            at_once = max(count - len(traces.rows), min(count, LEAST_ROUND))
            numbers = range(first, min(first + at_once, most))
            answers = await asyncio.gather(
                *(_ask(endpoint, prompts[n % len(prompts)], n // len(prompts)) for n in numbers)
            )
            failed = [answer for answer in answers if isinstance(answer, EndpointError)]
            if failed and (len(failed) == len(answers) or not await endpoint.healthy()):
                raise RunFailed(f"the server fails while it writes traces: {failed[0]}")
            for n, answer in zip(numbers, answers, strict=True):
                traces.asked += 1
                _take(traces, prompts[n % len(prompts)], answer, tokenizer, seen)
            surplus = len(traces.rows) - count
            if surplus > 0:
                del traces.rows[count:]
                traces.dropped["more than were wanted"] += surplus
            meter.update(done=len(traces.rows), text=traces.summary())
    return traces


async def _ask(endpoint: Endpoint, prompt: dict[str, str], repeat: int) -> Completion | EndpointError:
    try:
        return await endpoint.chat(_question(prompt), repeat=repeat)
    except EndpointError as error:
        return error


def _take(
    traces: Traces, prompt: dict[str, str], answer: Completion | EndpointError, tokenizer: Any, seen: set[str]
) -> None:
    """Keep an answer that is not among those `seen`, or count why not."""
    if isinstance(answer, EndpointError):
        traces.dropped[f"without a usable answer ({answer.kind})"] += 1
        return
    reason = why_dropped(answer, cast(Language, prompt["language"]), prompt["kind"])
    whole = f"{prompt['id']} {answer.reasoning} {answer.text}"
    if reason is None and whole in seen:
        reason = "written before"
    if reason is not None:
        traces.dropped[reason] += 1
        return
    seen.add(whole)
    traces.rows.append(_row(prompt, answer, tokenizer))


def _row(prompt: dict[str, str], answer: Completion, tokenizer: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.reasoning:
        said["reasoning_content"] = answer.reasoning
    row: dict[str, Any] = {"language": prompt["language"], "kind": prompt["kind"], "prompt": prompt["id"]}
    if answer.prompt_ids and answer.token_ids:  # the very tokens: a template may drop the thinking of an old answer
        row["text"] = tokenizer.decode(answer.prompt_ids + answer.token_ids, clean_up_tokenization_spaces=False)
    return row | {"messages": [*_question(prompt), said], "tokens": answer.completion_tokens}


def _question(prompt: dict[str, str]) -> Messages:
    return [{"role": "user", "content": prompt["prompt"]}]
