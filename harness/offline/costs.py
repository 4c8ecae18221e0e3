"""What a suite would ask, written to a file without a server, and what asking it costs in tokens."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from harness.checkpoint.models import resolve_model
from harness.checkpoint.tokenizer import load_tokenizer
from harness.contract.chat import Tokenizer
from harness.contract.errors import BadInput
from harness.contract.items import write_items
from harness.contract.policy import SealedPolicy
from harness.contract.samples import Item
from harness.contract.text import quoted
from harness.runs.progress import Meter, Reporter
from suites.base import Suite, count_tokens, made_items, opens_thinking, refusals
from suites.registry import make_suite


@dataclass
class Cost:
    """Tokens that items take, of one role."""

    items: int = 0
    prompt_tokens: int = 0
    """Of all prompts together, the chat template counted."""
    longest_prompt: int = 0
    most_answer_tokens: int | None = 0
    """Items times the budget of one answer; None where the suite has no such budget."""

    def add(self, prompt_tokens: int, budget: int | None) -> None:
        self.items += 1
        self.prompt_tokens += prompt_tokens
        self.longest_prompt = max(self.longest_prompt, prompt_tokens)
        if budget is None or self.most_answer_tokens is None:
            self.most_answer_tokens = None
        else:
            self.most_answer_tokens += budget


@dataclass(frozen=True)
class ItemFile:
    """Items that were written, and what asking them costs."""

    suite: str
    model: str
    policy: str
    policy_sha256: str
    file: str
    sha256: str
    thinking_opened: bool
    """Whether the model's chat template opens the thinking, so that answers begin inside it."""
    tasks: dict[str, Cost]
    one_role: Cost
    both_roles: Cost


def make_item_file(suite_name: str, model: str, sealed: SealedPolicy, out: Path, reporter: Reporter) -> ItemFile:
    """Write the items that a gate run would ask, byte for byte, whole or not at all; count each as it goes by.

    Raises:
        BadInput: a suite that the policy does not name, data that is missing, a model without a chat template.
        RunFailed: a model that cannot be fetched. OSError: the file cannot be written.
    """
    suite = make_suite(sealed.policy, suite_name, out.parent / suite_name)
    if out.is_dir():
        raise BadInput(f"--out {out} is a folder; name a file")
    tokenizer = load_tokenizer(resolve_model(model, reporter.say), model)
    tasks: dict[str, Cost] = defaultdict(Cost)
    with reporter.stage("items") as meter:
        items = _counted(suite, tokenizer, model, tasks, meter)
        sha256 = write_items(out, items)
    one = _sum(tasks.values())
    both = Cost(
        2 * one.items,
        2 * one.prompt_tokens,
        one.longest_prompt,
        None if one.most_answer_tokens is None else 2 * one.most_answer_tokens,
    )
    policy = sealed.policy.name, sealed.sha256
    return ItemFile(suite_name, model, *policy, str(out), sha256, opens_thinking(tokenizer), dict(tasks), one, both)


def _counted(suite: Suite, tokenizer: Tokenizer, model: str, tasks: dict[str, Cost], meter: Meter) -> Iterator[Item]:
    """The suite's items; each is counted and let go before the next one is made."""
    for item in meter.each(made_items(suite, tokenizer, model)):
        tokens = 0
        if item.prompt:  # a suite that measures the server alone has none
            with refusals(model, f"item {quoted(item.task)}/{quoted(item.item)}"):
                tokens = prompt_tokens(tokenizer, item)
        tasks[item.task].add(tokens, suite.max_tokens)
        yield item


def prompt_tokens(tokenizer: Tokenizer, item: Item) -> int:
    """Tokens of an item's prompt, the chat template and the tools that the model is told of counted."""
    if item.data.get("tools") is None:
        return count_tokens(tokenizer, item.prompt)
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
    return len(tokenizer.apply_chat_template(item.prompt, tools=item.data["tools"], **options))


def _sum(costs: Iterable[Cost]) -> Cost:
    whole = Cost()
    for cost in costs:
        whole.items += cost.items
        whole.prompt_tokens += cost.prompt_tokens
        whole.longest_prompt = max(whole.longest_prompt, cost.longest_prompt)
        known = None not in (whole.most_answer_tokens, cost.most_answer_tokens)
        whole.most_answer_tokens = (whole.most_answer_tokens or 0) + (cost.most_answer_tokens or 0) if known else None
    return whole


def to_json(made: ItemFile) -> str:
    """All of it as one JSON object in ASCII."""
    return json.dumps(asdict(made), indent=2)


def item_table(made: ItemFile) -> Table:
    """One row a task, then all of them for one role and for both."""
    table = Table("task", box=None, header_style="bold")
    for name in ("items", "prompt tokens", "longest prompt", "most answer tokens"):
        table.add_column(name, justify="right")
    rows = [(escape(quoted(task)), cost) for task, cost in made.tasks.items()]
    for name, cost in [*rows, ("one role", made.one_role), ("both roles", made.both_roles)]:
        answers = "–" if cost.most_answer_tokens is None else f"{cost.most_answer_tokens:,}"
        table.add_row(name, f"{cost.items:,}", f"{cost.prompt_tokens:,}", f"{cost.longest_prompt:,}", answers)
    return table
