"""What the metrics of checks are called where people read: words first, the name that a policy uses second."""

from __future__ import annotations

import math

from harness.contract.metrics import METRICS, Difference
from harness.judging.results import CheckResult, TaskResult
from reports.text import number, percent, size

WORDS = {
    "accuracy": "Accuracy",
    "resolved": "Issues resolved",
    "truncated_rate": "Answers cut by the budget",
    "unterminated_rate": "Thinking never closed",
    "looped_rate": "Answers that repeat themselves",
    "uncommitted_rate": "Answers reached and not given",
    "wrong_language_rate": "Answers in another language",
    "wrong_reasoning_language_rate": "Thinking in another language",
    "garbled_rate": "Answers with garbled words",
    "unsubmitted_rate": "Attempts not submitted",
    "format_error_rate": "Steps without a usable command",
    "end_of_thinking": "Probability of closing the thinking",
    "tv_mean": "Total variation from the reference",
    "js_mean": "Jensen-Shannon divergence from the reference",
    "kl_capped_mean": "Capped KL from the reference",
    "kl_mean": "KL from the reference",
    "flip_rate": "Likeliest token changed",
    "parting_rate": "Greedy answers that leave the reference's",
    "length_ratio": "Length of answers",
    "steps_ratio": "Steps of the agent",
    "acceptance": "Drafted tokens accepted",
    "accepted_length": "Tokens a step with drafts",
    "bytes_ratio": "Size of the checkpoint",
    "speed_ratio": "Speed of the server",
}
"""Of every metric (harness/contract/metrics.py)."""
UNITS = {"length_ratio": "tokens", "steps_ratio": "steps", "bytes_ratio": "bytes", "speed_ratio": "tokens/s"}
"""Of what both models have, where a ratio to the reference is judged."""


def in_words(metric: str) -> str:
    """The metric in words; one that is not known, of another version, as it is called."""
    return WORDS.get(metric, metric)


def both_values(result: CheckResult, task: TaskResult | None = None) -> str:
    """What each model has by itself, in all or of one task: 83.3 → 70.8 %, 154 → 159 tokens; empty where only their
    distance is measured."""
    of = task or result
    if of.reference_value is None or of.candidate_value is None:
        return ""
    reference, candidate = of.reference_value, of.candidate_value
    if not (math.isfinite(reference) and math.isfinite(candidate)):
        return ""
    unit = UNITS.get(result.metric, "%")
    if unit == "%":
        return f"{percent(reference).removesuffix(' %')} → {percent(candidate)}"
    if unit == "bytes":
        return f"{size(round(reference))} → {size(round(candidate))}"
    return f"{number(reference)} → {number(candidate)} {unit}"


def recovery(metric: str, reference: float | None, candidate: float | None) -> float | None:
    """Share of the reference's value that the candidate has; None where more is not better, or there is nothing to
    recover."""
    known = METRICS.get(metric)
    higher_is_better = isinstance(known, Difference) and known.margin == "max_loss"
    if not higher_is_better or not reference or candidate is None:
        return None
    return candidate / reference


def recovered(metric: str, result: CheckResult | TaskResult) -> str:
    """The same in words: 85.0 %; empty where there is none."""
    share = recovery(metric, result.reference_value, result.candidate_value)
    return "" if share is None else percent(share)
