"""What must hold of results made elsewhere: the checks of a policy, laid onto the tasks that the results have.

A file's tasks have names that nobody knows beforehand: "gsm8k (strict-match, exact_match)", and groups that are judged
as one. So a policy names `lm_eval/gsm8k`, `lm_eval/*` or `lm_eval/mmlu`, and the policy that judges names each target.
"""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML

from harness.contract.check import Check
from harness.contract.errors import BadInput
from harness.contract.metrics import METRICS, Difference
from harness.contract.policy import Policy, SealedPolicy, parse_policy
from harness.offline.lm_eval_samples import SUITE
from harness.offline.results import Results

MAX_UNUSABLE = 0.01
"""Share of pairs that may lack a result; less where the margin is less, or what is lacking could hide all of it."""
LEAST_TO_LOSE = 0.05
"""A reference must score this much above the margin, or not even a candidate without a right answer would stand out."""
WILD = frozenset("*?[")


def policy_of(max_loss: float, confidence: float = 0.95) -> SealedPolicy:
    """The policy of a bare margin: every task and group keeps it. Raises BadInput: a margin outside [0, 1]."""
    checks = [{"metric": "accuracy", "on": "*", "max_loss": max_loss}]
    fields = {"name": "compare", "suites": {"*": {}}, "checks": checks, "confidence": confidence}
    return _sealed(fields | {"max_unusable": min(MAX_UNUSABLE, max(0.0, max_loss))}, "compare")


def laid_onto(given: SealedPolicy, results: Results, found: str = "") -> SealedPolicy:
    """The policy with each check on the tasks and groups that it means. `found` says what it was made of.

    A check that means nothing stays as it is, so that the verdict says so. One that names a task counts for this task
    in place of those with wildcards.

    Raises:
        BadInput: a check on all of lm_eval together where groups are judged as one.
    """
    policy, tasks = given.policy, sorted({f"{suite}/{task}" for suite, task, *_ in results.planned})
    suites = sorted({task.split("/", 1)[0] for task in tasks})
    named: set[tuple[object, ...]] = set()
    laid: list[tuple[bool, Check]] = []
    for check in (statement for given_check in policy.checks for statement in given_check.statements):
        targets = _targets(check, tasks, results)
        wild = bool(WILD & set(check.on))
        for on in targets or [check.on]:
            made = _on(check, on, results)
            laid.append((wild, made))
            if not wild:
                named.add(_statement(made))
    checks = [check for wild, check in laid if not wild or _statement(check) not in named]
    fields = policy.model_dump(mode="json", exclude_unset=True) | {
        "suites": {suite: policy.suites.get(suite, {}) for suite in [*suites, *policy.suites] if suite != "*"},
        "checks": [check.model_dump(mode="json", exclude_unset=True, exclude_none=True) for check in checks],
    }
    if policy.required:
        fields["required"] = [on for name in policy.required for on in _named(name, tasks, results) or [name]]
    return _sealed(fields, found or given.policy.name, found)


def not_spoken_of(policy: Policy, results: Results) -> list[str]:
    """One line for each task that results hold and no check speaks of."""
    tasks = dict.fromkeys(f"{suite}/{task}" for suite, task, *_ in results.planned)
    found = []
    for task in tasks:
        spoken = any(fnmatch.fnmatchcase(task, c.on) or task.split("/", 1)[0] == c.on for c in policy.checks)
        if not spoken:
            found.append(f"{task} is in the results, and no check of the policy speaks of it")
    return found


def _statement(check: Check) -> tuple[object, ...]:
    return check.metric, check.margin_kind, check.on


def _targets(check: Check, tasks: Sequence[str], results: Results) -> list[str]:
    if check.on == SUITE and results.pooled:
        raise BadInput(
            f"a check on {SUITE} pools all tasks, of which {', '.join(results.pooled)} are groups: write {SUITE}/* for "
            "each task and group, or per_task: true under suites.lm_eval"
        )
    if check.on == "*":  # of a bare margin
        return [*results.pooled, *(task for task in tasks if task.split("/", 1)[0] not in results.pooled)]
    return _named(check.on, tasks, results)


def _named(on: str, tasks: Sequence[str], results: Results) -> list[str]:
    """The tasks and groups that `suite`, `suite/task` or `lm_eval/group` means."""
    suites = {task.split("/", 1)[0] for task in tasks}
    if "/" not in on:
        return [on] if on in suites else []
    suite, pattern = on.split("/", 1)
    groups = [g for g in results.pooled if suite == SUITE and _fits(g, pattern)]
    apart = {
        name for group, names in results.groups.items() if suite == SUITE and _fits(group, pattern) for name in names
    }
    found = []
    for task in tasks:
        own, name = task.split("/", 1)
        ours = own == suite or (suite == SUITE and own in results.pooled)
        if own not in groups and ours and (_fits(name, pattern) or name.partition(" (")[0] in apart):
            found.append(task)
    return [*groups, *found]


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern means a name: whole, or without the metric and the length that follow it."""
    short = (name, name.partition(" (")[0], name.partition("@")[0])
    return any(fnmatch.fnmatchcase(each, pattern) for each in short)


def _on(check: Check, on: str, results: Results) -> Check:
    update: dict[str, Any] = {"on": on}
    given = check.model_fields_set
    metric = METRICS[check.metric]
    if check.margin_kind == "max_loss" and isinstance(metric, Difference) and "floor" not in given:
        update["floor"] = min(1.0, check.margin + LEAST_TO_LOSE)
    if on in results.pooled and isinstance(metric, Difference):
        update |= {"mean": check.mean if "mean" in given else results.pooled[on]}
        update |= {"guard_tasks": check.guard_tasks if "guard_tasks" in given else True}
    return check.model_copy(update=update)


def _sealed(fields: dict[str, Any], what: str, remark: str = "") -> SealedPolicy:
    """A policy as text, checked and sealed as one that was read from a file."""
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style = False
    yaml.width = 1000
    yaml.dump(fields, text)
    head = f"# {''.join(c if c.isprintable() else ' ' for c in remark)}\n" if remark else ""
    return parse_policy(head + text.getvalue(), what)
