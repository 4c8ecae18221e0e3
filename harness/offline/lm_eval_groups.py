"""Groups of lm-eval: what it gives one number for (mmlu, leaderboard, ruler …) is judged as one pooled check.

Which tasks are of a group, the results files say (`group_subtasks`); where there are none, the tasks' names do.
Whether a group's number is the mean over documents or over tasks is no secret: the number itself tells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from harness.offline.results import MAX_NAME

Mean = Literal["items", "tasks"]
NAME = re.compile(r"\w[\w.+-]*")
"""A group's name becomes a suite's, and a file's."""

KNOWN: tuple[tuple[str, str, Mean], ...] = (
    ("mmlu_pro", r"mmlu_pro_\w+", "items"),
    ("mmlu", r"mmlu_(?!pro_|prox_|redux_|flan_)\w+", "items"),
    ("leaderboard", r"leaderboard_\w+", "items"),
    ("bbh_cot_fewshot", r"bbh_cot_fewshot_\w+", "items"),
    ("bbh_cot_zeroshot", r"bbh_cot_zeroshot_\w+", "items"),
    ("bbh_fewshot", r"bbh_fewshot_\w+", "items"),
    ("bbh_zeroshot", r"bbh_zeroshot_\w+", "items"),
    ("ruler", r"(niah|ruler)_\w+", "tasks"),
    ("blimp", r"blimp_\w+", "tasks"),
    ("minerva_math", r"minerva_math_\w+", "items"),
    ("hendrycks_math", r"hendrycks_math_\w+", "items"),
    ("agieval", r"agieval_\w+", "items"),
    ("cmmlu", r"cmmlu_\w+", "items"),
    ("ceval-valid", r"ceval-valid_\w+", "items"),
    ("kmmlu", r"kmmlu_(?!direct|hard|cot)\w+", "items"),
)
"""(group, its tasks, its mean) in lm-eval 0.4.13, for folders that hold no results; the first that fits."""


class Group(NamedTuple):
    """Tasks that lm-eval gives one number for."""

    name: str
    tasks: frozenset[str]
    mean: Mean | None
    """What its number is a mean of; None where that does not show."""
    metrics: tuple[str, ...] = ()
    """Those that its number is given in."""


def find_groups(summaries: Sequence[Mapping[str, Any]], tasks: Iterable[str]) -> list[Group]:
    """The outermost groups of these tasks, each with two tasks or more; a task is in one group at most.

    `summaries` are results files, the reference's first. A group that lm-eval gives no number for (a mere list of
    tasks) is none.
    """
    there = set(tasks)
    found = [group for results in summaries for group in _said(results)]
    if not found:
        found = [
            Group(name, frozenset(t for t in there if re.fullmatch(pattern, t)), mean) for name, pattern, mean in KNOWN
        ]
    usual = {name: mean for name, _, mean in KNOWN}
    kept: list[Group] = []
    for group in sorted(found, key=lambda g: -len(g.tasks)):  # stable: of equal ones the reference's
        free = (group.tasks & there).difference(*(other.tasks for other in kept))
        if len(free) > 1 and group.name not in {other.name for other in kept}:
            said = (g.mean for g in found if g.name == group.name and g.mean)
            kept.append(group._replace(tasks=frozenset(free), mean=next(said, usual.get(group.name, "items"))))
    return kept


def _said(results: Mapping[str, Any]) -> list[Group]:
    children, numbers = results.get("group_subtasks"), results.get("groups")
    if not isinstance(children, dict) or not isinstance(numbers, dict):
        return []
    made = []
    for name, values in numbers.items():
        if NAME.fullmatch(name) and len(name) <= MAX_NAME and isinstance(values, dict):
            metrics = {key.rpartition(",")[0]: float(v) for key, v in values.items() if _number(v) and "," in key}
            metrics = {metric: v for metric, v in metrics.items() if not metric.endswith("_stderr")}
            leaves = _leaves(name, children)
            if metrics and leaves:
                made.append(Group(name, frozenset(leaves), _mean(results, values, leaves), tuple(metrics)))
    return made


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _leaves(name: str, children: Mapping[str, Any]) -> set[str]:
    """The tasks below a group, also of groups within it; one that holds itself is followed once."""
    leaves, seen, open_ = set(), {name}, [name]
    while open_:
        below = children.get(open_.pop())
        for child in below if isinstance(below, list) else ():
            if not isinstance(child, str) or child in seen:
                continue
            seen.add(child)
            if children.get(child):
                open_.append(child)
            else:
                leaves.add(child)
    return leaves


def _mean(results: Mapping[str, Any], values: Mapping[str, Any], leaves: Iterable[str]) -> Mean | None:
    """Over documents or over tasks: what gives the group's own number; None where both do, or neither."""
    of_tasks, counts = results.get("results"), results.get("n-samples")
    if not isinstance(of_tasks, dict) or not isinstance(counts, dict):
        return None
    for key, value in values.items():
        if not _number(value) or "," not in key or "_stderr," in key:
            continue
        pairs = []
        for task in leaves:
            task_values, count = of_tasks.get(task), counts.get(task)
            one = task_values.get(key) if isinstance(task_values, dict) else None
            size = count.get("effective") if isinstance(count, dict) else None
            if _number(one) and _number(size):
                pairs.append((float(one), float(size)))  # type: ignore[arg-type]
        total = sum(size for _, size in pairs)
        if not pairs or total <= 0:
            continue
        by_items = abs(sum(one * size for one, size in pairs) / total - value)
        by_tasks = abs(sum(one for one, _ in pairs) / len(pairs) - value)
        if min(by_items, by_tasks) < 1e-6 < max(by_items, by_tasks):
            return "tasks" if by_tasks < by_items else "items"
    return None
