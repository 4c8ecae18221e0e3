"""What `quantgate power` knows of each statement of a policy: from an earlier run, and from items that were counted."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.contract.check import Check
from harness.contract.errors import BadInput
from harness.contract.metrics import METRICS, Difference
from harness.contract.policy import Policy
from harness.contract.validation import validate
from harness.contract.whole_files import read_json
from harness.judging.policy_power import Planned
from harness.judging.results import CheckResult
from harness.judging.run_level import targets_of
from harness.judging.statistics import Interval, standard_error
from harness.judging.verdict import Verdict
from harness.offline.results import MAX_BYTES
from suites.materials.prompts import prompts_there_are

ROLES = ("reference", "candidate")


DATA_SETS = ("cot", "swebench")
"""Suites that have no more items than their data sets; others make as many as a policy asks, or ship few."""


UNKNOWN_D = 0.1
"""Share of discordant items that is taken where nobody has measured it: that of good 4-bit models on gsm8k."""


@dataclass(frozen=True)
class Earlier:
    """What an earlier run knows."""

    checks: list[CheckResult]
    seconds: dict[str, float]
    """By suite, both roles."""
    tokens: dict[str, float]
    """Of answers, by `suite/task`, both roles."""


def read_earlier(run: Path) -> Earlier:
    """Verdict, times and tokens of a run folder; what it lacks is not known.

    Raises:
        BadInput: no verdict that can be read.
    """
    if run.is_file():  # verdict and manifest in one file, as benchmarks/keep_run.py writes them
        whole = read_json(run, MAX_BYTES)
        verdict, manifest = whole.get("verdict"), whole.get("manifest") or {}
    elif (run / "verdict.json").exists():
        verdict = read_json(run / "verdict.json", MAX_BYTES)
        manifest = read_json(run / "manifest.json", MAX_BYTES) if (run / "manifest.json").exists() else {}
    else:
        raise BadInput(f"{run} has no verdict.json; give the folder of a run that was judged")
    checks = validate(Verdict, verdict, f"the verdict of {run}").checks
    seconds: dict[str, float] = {}
    tokens: dict[str, float] = {}
    for stage in manifest.get("stages", []):
        seconds[stage["name"]] = seconds.get(stage["name"], 0.0) + stage["seconds"]
    if (run / "report/report.json").exists():
        for suite in read_json(run / "report/report.json", MAX_BYTES).get("suites", []):
            for task in suite["tasks"]:
                known = [task["n"] * task[role]["tokens"] for role in ROLES if task[role]["tokens"] is not None]
                if known:
                    tokens[f"{suite['name']}/{task['task']}"] = sum(known)
    return Earlier(checks, seconds, tokens)


def to_count(policy: Policy, earlier: Earlier | None) -> list[str]:
    """The suites whose number of items no earlier run says."""
    checks = [c for c in blocking(policy) if _neutral(c) is not None]
    return list(dict.fromkeys(c.on.split("/")[0] for c in checks if not _seen(c, earlier)))


def limited(policy: Policy) -> list[str]:
    """The suites on data sets of which the policy asks a part."""
    found = []
    for name in DATA_SETS:
        own = policy.suites.get(name) or {}
        tasks = own.get("tasks")
        parts = [own, *(tasks.values() if isinstance(tasks, dict) else ())]
        if any((part or {}).get("limit") for part in parts):
            found.append(name)
    return found


def blocking(policy: Policy) -> list[Check]:
    return [statement for check in policy.checks if not check.advisory for statement in check.statements]


def _neutral(check: Check) -> float | None:
    """The value of a candidate as good as its reference; None where nothing is uncertain, or no value means that."""
    metric = METRICS[check.metric]
    if isinstance(metric, Difference):
        return 0.0
    return None if metric.exact else 0.0 if check.margin_kind == "max_over_noise" else metric.neutral


def _seen(check: Check, earlier: Earlier | None) -> list[CheckResult]:
    if earlier is None:
        return []
    return [r for r in earlier.checks if r.metric == check.metric and _speaks(check.on, r.on)] or _near(check, earlier)


def statements_of(
    policy: Policy,
    check: Check,
    earlier: Earlier | None,
    discordance: float | None,
    counted: Mapping[str, int] | None,
    sizes: Mapping[str, int] | None,
) -> list[Planned]:
    neutral = _neutral(check)
    if neutral is None:
        return []
    paired = isinstance(METRICS[check.metric], Difference)
    one = Planned(
        f"{check.metric} on {check.on}",
        check.on,
        abs(check.margin - neutral),
        items=None,
        variance=(UNKNOWN_D if discordance is None else discordance) if paired else None,
        paired=paired,
        confidence=check.confidence or policy.confidence,
        sequential=check.stop is not None,
        ceiling=check.ceiling,
    )
    results = _seen(check, earlier)
    if not results:
        known = {on: sum(counted[t] for t in of) for on, of in targets_of(check, counted or ()).items() if counted}
        made = [replace(one, name=f"{check.metric} on {on}", on=on, items=n) for on, n in known.items()] or [one]
    else:
        made = [_as_seen(one, check, result, policy, discordance) for result in results]
    return [replace(s, most=_most(policy, s, sizes)) for s in made]


def _as_seen(one: Planned, check: Check, result: CheckResult, policy: Policy, discordance: float | None) -> Planned:
    """The statement as an earlier run met it."""
    variance, noise = discordance, 0.0
    if variance is None and one.paired and result.discordant is not None and result.n:
        variance = result.discordant / result.n
    elif result.lower is not None and result.upper is not None and result.estimate is not None:
        error = standard_error(Interval(result.estimate, result.lower, result.upper), result.confidence)
        variance = result.n * error**2
    if result.noise and result.noise.discordant is not None and result.noise.n and policy.sampling.temperature > 0:
        noise = result.noise.discordant / result.noise.n
    name, distance = f"{check.metric} on {result.on}", one.distance
    if check.margin_kind == "max_relative_loss":
        name, distance = f"{name}, relative", check.margin * (result.reference_value or 0.0)
    return replace(
        one,
        name=name,
        on=result.on,
        distance=distance,
        items=result.planned or result.n,
        variance=variance,
        noise=noise,
        rate=result.reference_value,
    )


def _most(policy: Policy, statement: Planned, sizes: Mapping[str, int] | None) -> int | None:
    """Items of the data set; None where more can be made, or nobody counted them."""
    suite = statement.on.split("/")[0]
    if suite == "divergence":
        return prompts_there_are()
    if suite not in DATA_SETS:
        return None
    if suite not in limited(policy):
        return statement.items
    found = [n for task, n in (sizes or {}).items() if statement.on in (task, task.split("/")[0])]
    return sum(found) or None


def _speaks(pattern: str, on: str) -> bool:
    return fnmatch.fnmatchcase(on, pattern) if "/" in pattern else on == pattern


def _near(check: Check, earlier: Earlier) -> list[CheckResult]:
    """Where the earlier run judged the tasks of a suite one by one and this check pools them: their sums."""
    if "/" in check.on:
        return []
    tasks = [r for r in earlier.checks if r.metric == check.metric and r.on.startswith(f"{check.on}/")]
    if not tasks or any(r.discordant is None for r in tasks):
        return []
    sums = {name: sum(getattr(r, name) for r in tasks) for name in ("n", "planned", "discordant")}
    return [tasks[0].model_copy(update={"on": check.on, "noise": None} | sums)]
