"""What a suite is: it makes items, and answers one item for one role. Everything else is the runner's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from jinja2 import TemplateError
from pydantic import AfterValidator, Field

from harness.contract.chat import Messages, Tokenizer
from harness.contract.errors import BadInput
from harness.contract.samples import Item, Role, Sample, sample_of, sha256_of
from harness.contract.settings import Config, Sampling, Serving
from harness.contract.text import quoted
from harness.endpoint.client import Completion, Endpoint
from harness.endpoint.thinking_tags import TAGS
from suites.readings.endings import apart, endings
from suites.readings.thinking import tokens_of

T = TypeVar("T")


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a value is there twice")
    return values


Distinct = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(_each_once)]
"""At least one value, each once."""


class SuiteConfig(Config):
    """What a policy may set of every suite: its own subclass has what else there is."""

    limit: int | None = Field(None, ge=1)
    """Only the first items of each task (each length, level or concurrency, where a suite has these)."""

    def lacking(self, serving: Serving) -> str:
        """What the suite needs of the servers and `serving` does not give, as a verb and its object; "" for nothing."""
        return ""


class AnswerConfig(SuiteConfig):
    """Of a suite whose answers have the policy's budget, unless it says otherwise."""

    max_tokens: int | None = Field(None, ge=1)
    """Budget of one answer, thinking included; the policy's sampling.max_tokens when absent."""


class LengthsConfig(AnswerConfig):
    """Of a suite that asks at set lengths."""

    lengths: Distinct[int]
    """Prompt lengths in tokens, chat template included."""
    seed: int = 42


class Suite(ABC):
    """One evaluation. Made from its configuration, the policy's sampling and a folder of its own for large data."""

    name: ClassVar[str]
    reference_first: ClassVar[bool] = False
    """Whether the candidate's answer to an item needs the reference's (its trajectory)."""
    alternates: ClassVar[bool] = False
    """Whether items are asked one at a time, the roles in turn: what is measured is the server, not the answer."""
    keeps_order: ClassVar[bool] = False
    """Whether items are asked in the suite's own order (shared prefixes) and not in the sealed one."""
    at_once: int | None = None
    """Most items of a role at the same time, where it is not the policy's requests.concurrency."""
    max_tokens: int | None = None
    """Budget of the one answer that an item is, thinking included; None where an item is something else."""

    @abstractmethod
    def __init__(self, config: Any, sampling: Sampling, folder: Path) -> None: ...

    def require(self) -> None:
        """Check that what the suite runs is on this machine, before any work. Raises BadInput: what is not."""
        return

    def begin(self) -> None:
        """End what a killed run of this suite left behind, before the first item is asked."""
        return

    async def end(self) -> None:
        """End what it keeps running from one item to the next: called after the last one, and when a run breaks off."""
        return

    @property
    def tasks(self) -> Sequence[str]:
        """Names of its tasks, where its configuration says them; empty where only its items do."""
        return ()

    @property
    @abstractmethod
    def context_needed(self) -> int:
        """Tokens of context, prompt and answer together, without which no item can be asked."""

    @abstractmethod
    def items(self, tokenizer: Tokenizer) -> Iterable[Item]:
        """All items, the same on every machine; large ones one after the other. Raises BadInput: data is missing."""

    @abstractmethod
    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        """Ask one role one item. Raises EndpointError when there is no usable answer."""


class ChatSuite(Suite):
    """A suite whose items are one chat question each: it scores an answer, wherever that came from."""

    max_tokens: int

    @abstractmethod
    def score(self, item: Item, role: Role, completion: Completion) -> Sample:
        """The sample of one answer: the only way to a score, of a server or of a file."""

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        return self.score(item, role, await endpoint.chat(item.prompt, self.max_tokens, repeat=item.repeat))


class LengthsSuite(ChatSuite):
    """A suite whose prompts have set lengths."""

    def __init__(self, config: LengthsConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self.max_tokens = config.max_tokens or sampling.max_tokens

    @property
    def context_needed(self) -> int:
        return max(self._config.lengths) + self.max_tokens


def make_item(task: str, item: str, messages: Messages, target: Any = None, repeat: int = 0, **data: Any) -> Item:
    """An item whose prompt is `messages`; the hash is over the messages alone."""
    sha256 = sha256_of(messages)
    return Item(task=task, item=item, repeat=repeat, prompt=messages, prompt_sha256=sha256, target=target, data=data)


def count_tokens(tokenizer: Tokenizer, messages: Messages) -> int:
    """Prompt tokens of chat messages, the chat template and its generation prompt counted."""
    return len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False))


def opens_thinking(tokenizer: Tokenizer) -> bool:
    """Whether the chat template's generation prompt opens the thinking: answers then begin inside it."""
    probe: Messages = [{"role": "user", "content": "Hello"}]
    prompt = tokenizer.apply_chat_template(probe, add_generation_prompt=True, tokenize=False)
    return str(prompt).rstrip().endswith(tuple(opening for opening, _ in TAGS))


def made_items(suite: Suite, tokenizer: Tokenizer, name: str) -> Iterator[Item]:
    """The items of a suite, as it makes them.

    Raises:
        BadInput: of the suite, or the chat template refuses a conversation (a system message, say).
    """
    with refusals(name, f"an item of suite {suite.name}"):
        yield from suite.items(tokenizer)


@contextmanager
def refusals(name: str, what: str) -> Iterator[None]:
    """Turn a chat template's own errors into one line that names model and conversation."""
    try:
        yield
    except TemplateError as error:
        raise BadInput(f"the chat template of model {name} refuses {what}: {quoted(str(error), 200)}") from error


def make_sample(
    suite: str,
    item: Item,
    role: Role,
    completion: Completion,
    *,
    score: float | None,
    answer: str | None,
    metrics: dict[str, float] | None = None,
) -> Sample:
    """The sample of one answer; how it ended, and how many tokens it thought, is added to its metrics.

    What is no answer (nothing at all, a tool call, thinking that stopped without closing) is counted as what it is and
    has no score. Thinking cut by its budget keeps the score it earned: it did not answer within the budget. Of an
    answer in which nothing is answered ("I don't know") the metric `no_answer` says so: it earns nothing.
    """
    completion = apart(completion)
    ended = endings(completion) if completion.finish_reason else {}
    thought = tokens_of(completion.reasoning, completion) if completion.reasoning else None
    stopped_thinking = ended.get("unterminated") and completion.finish_reason != "length"
    if ended.get("null") or ended.get("tool_calls") or stopped_thinking:
        score, answer = None, None
    if score == 0 and not answer:
        ended["no_answer"] = 1.0
    return sample_of(
        suite,
        item,
        role,
        score=score,
        answer=answer,
        finish_reason=completion.finish_reason or None,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        seconds=round(completion.seconds, 3),
        text=completion.text,
        reasoning=completion.reasoning,
        metrics=ended | ({} if thought is None else {"thinking_tokens": thought}) | (metrics or {}),
    )
