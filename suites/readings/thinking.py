"""What thinking looks like in numbers: whether it closed, whether its result became the answer, how often it turned."""

from __future__ import annotations

from harness.contract.samples import Sample
from harness.endpoint.client import Completion
from suites.readings.accepted_answers import numbers
from suites.readings.endings import closed_without_answer, unterminated
from suites.readings.expressions import spelled
from suites.readings.final_letters import final_letter
from suites.readings.markers import count_markers
from suites.readings.numerals import plain_number

BUDGETS = (4096, 8192, 16384)
"""Tokens; the score within each is taken from the same samples."""

THINKING_METRICS = {
    "closed": "1 when thinking was closed, 0 when it was not; absent where the model did not think",
    "answered": "1 when an answer of the asked form stands after the thinking",
    "uncommitted": "1 when the gold answer was reached while thinking and the answer is absent, wrong or cut; also "
    "when the thinking was closed and nothing stands behind it",
    "thinking_chars": "characters of thinking; 0 for a model that does not think apart from its answer",
    "thinking_tokens": "tokens of thinking, estimated: completion_tokens × thinking's share of the characters",
    "markers": "over-thinking markers (markers.py) in the thinking, or in the answer where there is none",
    "markers_per_1k_tokens": "the same for each 1,000 tokens (estimated likewise) of the text that was searched",
    "score@4096": "score when the whole answer took at most so many tokens, else 0; absent above max_tokens",
    "score@8192": "likewise",
    "score@16384": "likewise",
}
"""Metrics of a sample, beside those of endings.py. What counts tokens is absent where they are not known."""


def thinking_metrics(completion: Completion, *, answered: bool, reached: bool, right: bool) -> dict[str, float]:
    """Metrics of one answer but for the scores within budgets.

    `answered`: an answer of the asked form was given. `reached`: the gold answer occurs in `worked_out`. `right`: the
    answer given is the gold one.
    """
    thinking, searched = completion.reasoning, worked_out(completion)
    metrics = {
        "answered": float(answered),
        "uncommitted": uncommitted(completion, reached=reached, right=right),
        "thinking_chars": float(len(thinking)),
        "markers": float(count_markers(searched)),
    }
    not_closed = unterminated(completion)
    if thinking or not_closed:
        metrics["closed"] = float(not not_closed)
    tokens, of_searched = tokens_of(thinking, completion), tokens_of(searched, completion)
    if tokens is not None and of_searched:
        metrics["thinking_tokens"] = tokens
        metrics["markers_per_1k_tokens"] = 1000 * metrics["markers"] / of_searched
    return metrics


def uncommitted(completion: Completion, *, reached: bool, right: bool) -> float:
    """1 when an answer was reached and not given, or the thinking was closed and nothing was answered."""
    return float((reached and not right) or closed_without_answer(completion))


def reached_in(thinking: str, target: str) -> bool:
    """Whether thinking comes by the gold answer: a number, a letter that it chooses, or an expression."""
    if plain_number(target):
        return plain_number(target) in numbers(thinking)
    if len(target) == 1 and target.isalpha():
        return final_letter(thinking) == target
    return "".join(spelled(target).split()) in "".join(spelled(thinking).split())


def tokens_of(part: str, completion: Completion) -> float | None:
    """Tokens of a part of an answer, by its share of the characters; None where they are not known."""
    letters = len(completion.reasoning) + len(completion.text)
    if completion.completion_tokens <= 0 or not letters:
        return None
    return completion.completion_tokens * len(part) / letters


def worked_out(completion: Completion) -> str:
    """The text in which the answer is worked out: the thinking, or all of it where the model does not think apart."""
    return completion.reasoning or completion.text


def with_scores_in_budgets(sample: Sample, completion: Completion, max_tokens: int) -> Sample:
    """The sample with what it would have scored under each smaller budget, and under its own.

    An answer that takes more tokens than a budget would have been cut there, and a cut answer is worth nothing.
    """
    tokens = completion.completion_tokens
    if sample.score is None or tokens <= 0:
        return sample
    found = {f"score@{b}": sample.score if tokens <= b else 0.0 for b in BUDGETS if b <= max_tokens}
    return sample.model_copy(update={"metrics": sample.metrics | found})
