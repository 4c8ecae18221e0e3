"""Chain-of-thought tasks with full budgets: lm-eval makes prompts and scores, our LM class asks and keeps everything.

lm-eval's own API models read no finish_reason, send the tasks' stop texts to the server (where they fire inside the
thinking) and shorten prompts without a word; hence the LM class here. A task's own budget (max_gen_toks) is ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import io
import json
import logging
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from pydantic import Field

from harness.contract.chat import Messages, Tokenizer
from harness.contract.error_kinds import error_text
from harness.contract.errors import BadInput
from harness.contract.samples import Item, Role, Sample
from harness.contract.settings import Sampling
from harness.contract.text import quoted
from harness.endpoint.client import Completion, Endpoint
from suites.base import AnswerConfig, ChatSuite, SuiteConfig, make_item, make_sample
from suites.readings.endings import apart
from suites.readings.thinking import reached_in, uncommitted, with_scores_in_budgets

TASK_FILES = Path(__file__).parent / "tasks"
FEWSHOT_SEED = 1234
"""lm-eval's own default: few-shot examples are those of its command line."""


class CotTask(SuiteConfig):
    """One lm-eval task."""

    repeats: int | None = Field(None, ge=1)
    """Answers to each item, each with a seed of its own (avg@k); the suite's `repeats` when absent."""
    metric: str = "exact_match"
    """The lm-eval metric that is the sample's score."""
    filter: str | None = None
    """The lm-eval filter that finds the answer; the task's first when absent."""


class CotConfig(AnswerConfig):
    """`cot` in a policy. A task's own `limit` stands where it is the smaller one."""

    tasks: dict[str, CotTask] = Field(min_length=1)
    """lm-eval task names: ours (suites/cot/tasks) first, then lm-eval's own."""
    repeats: int = Field(1, ge=1)
    """Answers to each item, for the tasks that do not say."""


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

    async def ask(self, messages: Messages, repeat: int = 0) -> Completion:
        """One answer, whatever stop texts and budget the task has. Raises EndpointError."""
        return await self._endpoint.chat(messages, self._max_tokens, repeat=repeat)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        async def ask_all() -> list[Completion]:
            return await asyncio.gather(*(self.ask(json.loads(request.args[0])) for request in requests))

        completions = asyncio.run_coroutine_threadsafe(ask_all(), self._loop).result()
        return [scored_text(c, request.args[1]) for c, request in zip(completions, requests, strict=True)]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("cot runs generate_until tasks")

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError("cot runs generate_until tasks")


def scored_text(completion: Completion, generation: dict[str, Any]) -> str:
    """What lm-eval scores: the answer without its thinking, cut at the task's stop texts.

    Stop texts are applied here and never sent, so that they cannot fire inside the thinking.
    """
    text, until = completion.text, generation.get("until") or []
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop, 1)[0] if stop else text
    return text


class Cot(ChatSuite):
    """The suite."""

    name = "cot"

    def __init__(self, config: CotConfig, sampling: Sampling, folder: Path) -> None:
        """Raises BadInput: repeats of greedy answers."""
        self._config = config
        self.max_tokens = config.max_tokens or sampling.max_tokens
        self._tasks: dict[str, ConfigurableTask] = {}
        for name, settings in config.tasks.items():
            if (settings.repeats or config.repeats) > 1 and sampling.temperature == 0:
                raise BadInput(
                    f"suites.cot: repeats of {name} would all be the same answer at sampling.temperature 0; "
                    "set a temperature, or repeats: 1"
                )

    @property
    def tasks(self) -> Sequence[str]:
        return tuple(self._config.tasks)

    @property
    def context_needed(self) -> int:
        return self.max_tokens + 1

    def items(self, tokenizer: Tokenizer | None) -> Sequence[Item]:
        """Prompts of every task, built by lm-eval with the chat template; few-shot examples are turns of their own.

        Raises:
            BadInput: unknown task, no data, a task that cannot be asked or scored here.
        """
        return [item for name in self._config.tasks for item in self._items_of(name)]

    def _items_of(self, name: str) -> Iterator[Item]:
        settings, task = self._config.tasks[name], self._task(name)
        limits = [limit for limit in (settings.limit, self._config.limit) if limit]
        for number, request in enumerate(build_requests(task, min(limits, default=None))):
            target, doc = task.doc_to_target(request.doc), dict(request.doc)
            if number == 0:
                try_scoring(task, doc, str(target), settings)
            for repeat in range(settings.repeats or self._config.repeats):
                yield make_item(
                    name,
                    f"{request.doc_id:05d}",
                    json.loads(request.args[0]),
                    target=target,
                    repeat=repeat,
                    doc=doc,
                    generation=request.args[1],
                )

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        self._task(item.task)  # loaded once, not by several threads
        completion = await EndpointLM(endpoint, self.max_tokens).ask(item.prompt, item.repeat)
        if is_ours(item.task):  # math-verify may take long over a strange answer: the other requests go on
            return await asyncio.to_thread(self.score, item, role, completion)
        return self.score(item, role, completion)  # lm-eval's graders may set alarms, which only this thread may

    def score(self, item: Item, role: Role, completion: Completion) -> Sample:
        """Raises BadInput: an item of a task that the policy does not name, or not one of this suite."""
        if item.task not in self._config.tasks or not {"doc", "generation"} <= item.data.keys():
            raise BadInput(f"item {item.task}/{item.item} is not one that this policy's cot would ask")
        settings, task = self._config.tasks[item.task], self._task(item.task)
        completion = apart(completion)
        try:
            text, doc = scored_text(completion, item.data["generation"]), item.data["doc"]
            if is_ours(item.task):  # lm-eval's own tasks know no such field
                doc = doc | {"cut": completion.finish_reason == "length"}
            score, answer = score_text(task, doc, text, settings)
        except Exception as error:  # a grader may raise anything, and says nothing of the answer then
            failed = make_sample(self.name, item, role, completion, score=None, answer=None)
            return failed.model_copy(update={"error": error_text("grader", _said(error))})
        metrics = _commitment(item, completion, score)
        sample = make_sample(self.name, item, role, completion, score=score, answer=answer, metrics=metrics)
        return with_scores_in_budgets(sample, completion, self.max_tokens)

    def _task(self, name: str) -> ConfigurableTask:
        if name not in self._tasks:
            self._tasks[name] = load_task(name)
        return self._tasks[name]


def _commitment(item: Item, completion: Completion, score: float) -> dict[str, float]:
    """`uncommitted` of an answer after thinking, where the gold answer is known in a form that can be looked for."""
    if not completion.reasoning or not is_ours(item.task) or not isinstance(item.target, str):
        return {}
    reached = reached_in(completion.reasoning, item.target)
    return {"uncommitted": uncommitted(completion, reached=reached, right=score == 1)}


def load_task(name: str) -> ConfigurableTask:
    """Load a task by name, from our files or else from lm-eval's.

    Raises:
        BadInput: unknown name, data that cannot be had, or a task that cannot be asked here.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = task_manager(TASK_FILES, with_defaults=not is_ours(name))
    if name not in manager.all_subtasks:
        nearest = difflib.get_close_matches(name, manager.all_subtasks, n=1)
        hint = "a group of tasks: name them one by one" if name in manager.all_tasks else "unknown to lm-eval"
        raise BadInput(f"cot task {name} is {hint}" + (f"; did you mean {nearest[0]}?" if nearest else ""))
    refuse(name, manager.task_index[name].cfg or {})
    try:
        with quiet():
            task = manager.load([name])["tasks"][name]
    except BadInput as error:
        raise BadInput(f"cot task {name}: {error}") from None
    except Exception as error:  # lm-eval and datasets raise anything here
        raise BadInput(f"cot task {name} cannot be loaded; is its data there? {_said(error)}") from error
    if not isinstance(task, ConfigurableTask):
        raise BadInput(f"cot task {name} is a Python class of its own; cot runs tasks made of a YAML file")
    return task


def refuse(name: str, config: dict[str, Any]) -> None:
    """Raises BadInput: a task that cannot be asked as one chat question, or not be scored safely."""
    if config.get("output_type", "generate_until") != "generate_until":
        raise BadInput(f"cot task {name}: not answered by generation; cot runs generate_until tasks")
    if config.get("unsafe_code"):
        raise BadInput(f"cot task {name}: scoring it would run code that the model wrote")
    if config.get("gen_prefix"):
        raise BadInput(
            f"cot task {name} begins the answer itself (gen_prefix), where thinking would have to come first"
        )
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise BadInput(f"cot task {name} shows pictures or sounds; cot asks in text")


def is_ours(name: str) -> bool:
    return (TASK_FILES / f"{name}.yaml").exists()


@cache
def task_manager(folder: Path, with_defaults: bool) -> TaskManager:
    """Index of the task files in `folder`, and of lm-eval's own (which takes seconds)."""
    return TaskManager(include_path=str(folder), include_defaults=with_defaults)


def build_requests(task: ConfigurableTask, limit: int | None) -> list[Instance]:
    """One request for each question. Raises BadInput: the task's files do not fit its data."""
    task.set_fewshot_seed(FEWSHOT_SEED)  # the examples are drawn in the order of the questions
    try:
        with quiet():
            task.build_all_requests(
                limit=limit,
                apply_chat_template=True,
                fewshot_as_multiturn=True,
                chat_template=EndpointLM.apply_chat_template,
            )
    except Exception as error:  # templates and functions of tasks raise anything
        raise BadInput(f"cot task {task.task_name} makes no prompts: {_said(error)}") from error
    return list(task.instances)


def try_scoring(task: ConfigurableTask, doc: dict[str, Any], text: str, settings: CotTask) -> None:
    """Score one made-up answer, so that what cannot be scored is known before anything is asked. Raises BadInput."""
    try:
        score_text(task, doc, text, settings)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"cot task {task.task_name} cannot be scored: {_said(error)}") from error


def score_text(task: ConfigurableTask, doc: dict[str, Any], text: str, settings: CotTask) -> tuple[float, str | None]:
    """Score one answer as lm-eval does. Returns (score in [0, 1], the answer that was found in it).

    Raises:
        BadInput: the task has no such filter or metric, or its metric is no score of one answer.
    """
    ensembles = {ensemble.name: ensemble for ensemble in task._filters}
    name = settings.filter or next(iter(ensembles))
    if name not in ensembles:
        raise BadInput(f"cot task {task.task_name}: no filter '{name}'; it has {', '.join(ensembles)}")
    request = Instance("generate_until", doc, (), 0, (task.task_name, 0, 1), resps=[text])
    ensembles[name].apply([request])
    found = request.filtered_resps[name]
    results: dict[str, Any] = task.process_results(doc, [found])
    if settings.metric not in results:
        raise BadInput(f"cot task {task.task_name}: no metric '{settings.metric}'; it has {', '.join(results)}")
    value = results[settings.metric]
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= 1:
        raise BadInput(f"cot task {task.task_name}: {settings.metric} is {str(value)[:50]}, not between 0 and 1")
    return score, str(found)[:1000] if found and found != "[invalid]" else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """lm-eval and datasets print, and draw bars of their own."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def _said(error: BaseException) -> str:
    return quoted(str(error) or type(error).__name__, 200)
