r"""Termination: does thinking close, and does an answer follow?

Problems of many steps with exact answers, in English, Japanese and Chinese, easy to hard, so that thinking gets long.
What is looked for: thinking that never closes, loops, an answer that was reached and not given, more words of doubt.

Sampling is the policy's, which should be what the model's makers recommend (often temperature 0.6): greedy answers loop
where sampled ones do not, so a policy with temperature 0 measures something else. It is allowed, and every sample of it
carries the metric `greedy`.

Metrics of a sample: those of suites/readings/endings.py and suites/readings/thinking.py, and `greedy`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from harness.contract.chat import Tokenizer
from harness.contract.samples import Item, Role, Sample
from harness.contract.settings import Sampling
from harness.endpoint.client import Completion
from suites.base import AnswerConfig, ChatSuite, Distinct, make_item, make_sample
from suites.materials.multistep import LEVELS, Level, make_problem
from suites.readings.accepted_answers import numbers
from suites.readings.endings import apart, unterminated
from suites.readings.final_numbers import final_number
from suites.readings.scripts import LANGUAGES, Language
from suites.readings.thinking import thinking_metrics, with_scores_in_budgets, worked_out

PROMPT_TOKENS = 1024
"""No prompt has more bytes, chat template included; byte-level tokenizers make at most one token of a byte."""

INSTRUCTION: dict[Language, str] = {
    "en": r"Put the final answer, one whole number, into \boxed{}.",
    "ja": r"最後の答えは一つの整数で、\boxed{} の中に書いてください。",
    "zh": r"最后的答案是一个整数，请写在 \boxed{} 里。",
}


class TerminationConfig(AnswerConfig):
    """`termination` in a policy."""

    levels: Distinct[Level] = LEVELS
    """How many steps the problems take."""
    languages: Distinct[Language] = LANGUAGES
    """The same problems are asked in each."""
    per_task: int = Field(24, ge=1)
    """Problems of each level and language."""
    repeats: int = Field(1, ge=1)
    """Answers to each problem, with a seed of its own each."""
    seed: int = 0


class Termination(ChatSuite):
    """The suite. A task is a level and a language: hard-ja."""

    name = "termination"

    def __init__(self, config: TerminationConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self._greedy = sampling.temperature == 0
        self.max_tokens = config.max_tokens or sampling.max_tokens

    @property
    def tasks(self) -> Sequence[str]:
        return [f"{level}-{language}" for level in self._config.levels for language in self._config.languages]

    @property
    def context_needed(self) -> int:
        return self.max_tokens + PROMPT_TOKENS

    def items(self, tokenizer: Tokenizer | None) -> Iterator[Item]:
        """The problems, each from the seed, its level and its number alone."""
        config = self._config
        count = min(config.per_task, config.limit or config.per_task)
        for level in config.levels:
            problems = [make_problem(level, index, config.seed) for index in range(count)]
            for language in config.languages:
                for index, problem in enumerate(problems):
                    text = f"{problem.question[language]}\n\n{INSTRUCTION[language]}"
                    for repeat in range(config.repeats):
                        yield make_item(
                            f"{level}-{language}",
                            f"{index:04d}",
                            [{"role": "user", "content": text}],
                            target=str(problem.answer),
                            repeat=repeat,
                            kind=problem.kind,
                            language=language,
                        )

    def score(self, item: Item, role: Role, completion: Completion) -> Sample:
        """1 when the final number of the answer (boxed, stated or else the last one) is the gold one."""
        completion = apart(completion)
        answer = "" if unterminated(completion) else final_number(completion.text)
        right = answer == item.target
        reached = item.target in numbers(worked_out(completion))
        metrics = thinking_metrics(completion, answered=bool(answer), reached=reached, right=right)
        if self._greedy:
            metrics["greedy"] = 1.0
        sample = make_sample(
            self.name, item, role, completion, score=float(right), answer=answer or None, metrics=metrics
        )
        return with_scores_in_budgets(sample, completion, self.max_tokens)
