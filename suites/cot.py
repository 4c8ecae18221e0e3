"""Chain-of-thought tasks with full budgets: lm-eval makes prompts and scores, our LM class asks and keeps everything.

lm-eval's own API models read no finish_reason, send the tasks' stop texts to the server (where they fire inside the
thinking) and shorten prompts without a word; hence the LM class here.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from pydantic import Field

from harness.endpoint import Completion, Endpoint, Messages
from harness.errors import BadInput
from harness.policy import Sampling
from harness.samples import Item, Role, Sample
from suites.base import SuiteConfig, Tokenizer, make_item, make_sample

TASK_FILES = Path(__file__).parent / "cot_tasks"


class CotTask(SuiteConfig):
    """One lm-eval task."""

    limit: int | None = Field(None, ge=1)
    """First items only; all when absent."""
    metric: str = "exact_match"
    """The lm-eval metric that is the sample's score."""


class CotConfig(SuiteConfig):
    """`cot` in a policy."""

    tasks: dict[str, CotTask] = Field(min_length=1)
    """lm-eval task names: ours (suites/cot_tasks) first, then lm-eval's own."""
    max_tokens: int | None = Field(None, ge=1)
    """Budget of one answer; the policy's sampling.max_tokens when absent."""


class EndpointLM(LM):  # type: ignore[misc]
    """lm-eval's view of an Endpoint.

    Made inside the event loop that the endpoint belongs to. `ask` is for that loop and keeps the whole answer;
    `generate_until` is for lm-eval's own evaluator, which runs in another thread.
    """

    def __init__(self, endpoint: Endpoint, max_tokens: int | None = None) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._max_tokens = max_tokens

    @property
    def tokenizer_name(self) -> str:
        return self._endpoint.model

    @staticmethod
    def apply_chat_template(chat_history: Messages, add_generation_prompt: bool = True) -> str:
        """lm-eval wants one string: the messages as JSON. The server applies the model's template."""
        return json.dumps(chat_history, ensure_ascii=False)

    async def ask(self, request: Instance) -> Completion:
        """One answer to one generate_until request. Raises EndpointError."""
        return await self._endpoint.chat(json.loads(request.args[0]), self._max_tokens)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        async def ask_all() -> list[Completion]:
            return await asyncio.gather(*(self.ask(request) for request in requests))

        completions = asyncio.run_coroutine_threadsafe(ask_all(), self._loop).result()
        return [scored_text(c, request) for c, request in zip(completions, requests, strict=True)]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("cot runs generate_until tasks")

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError("cot runs generate_until tasks")


def scored_text(completion: Completion, request: Instance) -> str:
    """What lm-eval scores: the answer without its thinking, cut at the task's stop texts.

    Stop texts are applied here and never sent, so that they cannot fire inside the thinking.
    """
    text = completion.text
    for stop in request.args[1].get("until") or []:
        text = text.split(stop, 1)[0]
    return text


class Cot:
    """The suite."""

    name = "cot"
    reference_first = False

    def __init__(self, config: CotConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self._max_tokens = config.max_tokens or sampling.max_tokens
        self._tasks: dict[str, ConfigurableTask] = {}

    @property
    def context_needed(self) -> int:
        return self._max_tokens + 1

    def items(self, tokenizer: Tokenizer) -> Sequence[Item]:
        """Prompts of every task, built by lm-eval with the chat template.

        Raises:
            BadInput: unknown task, no data, or a task that is not answered by generation.
        """
        made: list[Item] = []
        for name, settings in self._config.tasks.items():
            task = self._task(name)
            with contextlib.redirect_stderr(io.StringIO()):  # lm-eval draws a bar of its own
                task.build_all_requests(
                    limit=settings.limit,
                    apply_chat_template=True,
                    fewshot_as_multiturn=True,
                    chat_template=EndpointLM.apply_chat_template,
                )
            for request in task.instances:
                prompt, generation = request.args
                made.append(
                    make_item(
                        name,
                        f"{request.doc_id:05d}",
                        json.loads(prompt),
                        target=task.doc_to_target(request.doc),
                        doc=dict(request.doc),
                        generation=generation,
                    )
                )
        return made

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        prompt = EndpointLM.apply_chat_template(item.prompt)
        arguments = (prompt, item.data["generation"])
        request = Instance("generate_until", item.data["doc"], arguments, 0, (item.task, int(item.item), 1))
        completion = await EndpointLM(endpoint, self._max_tokens).ask(request)
        metric = self._config.tasks[item.task].metric
        score, answer = score_text(self._task(item.task), request, scored_text(completion, request), metric)
        return make_sample(self.name, item, role, completion, score=score, answer=answer)

    def _task(self, name: str) -> ConfigurableTask:
        if name not in self._tasks:
            self._tasks[name] = load_task(name)
        return self._tasks[name]


def load_task(name: str) -> ConfigurableTask:
    """Load a task by name, from our files or else from lm-eval's.

    Raises:
        BadInput: unknown name, data that cannot be had, or not a generate_until task.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        ours = (TASK_FILES / f"{name}.yaml").exists()
        manager = TaskManager(include_path=str(TASK_FILES), include_defaults=not ours)
        task = manager.load([name])["tasks"][name]
    except Exception as error:  # lm-eval and datasets raise anything here
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"cot task {name}: {reason}; is the name right, is the data there (QUANTGATE_DATA)?") from error
    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE != "generate_until":
        raise BadInput(f"cot task {name}: not answered by generation; cot runs generate_until tasks")
    return task


def score_text(task: ConfigurableTask, request: Instance, text: str, metric: str) -> tuple[float, str]:
    """Score one answer with the task's first filter. Returns (score in [0, 1], the answer it found).

    Raises:
        BadInput: the task has no such metric.
    """
    request.resps = [text]
    ensemble = task._filters[0]
    ensemble.apply([request])
    found = request.filtered_resps[ensemble.name]
    results: dict[str, Any] = task.process_results(request.doc, [found])
    if metric not in results:
        raise BadInput(f"cot task {request.task_name}: no metric '{metric}'; it has {', '.join(results)}")
    return float(results[metric]), str(found)
