"""What a policy can decide, from an earlier run of it or of one like it: `quantgate power`."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from harness.contract.check import Check
from harness.contract.errors import BadInput
from harness.contract.metrics import METRICS, Difference
from harness.contract.policy import Policy
from harness.contract.validation import validate
from harness.contract.whole_files import read_json
from harness.judging.policy_power import GOAL, Chances, Planned, chances, run_chances, scaled
from harness.judging.results import CheckResult
from harness.judging.statistics import Interval, standard_error
from harness.judging.verdict import Verdict
from harness.offline.results import MAX_BYTES

UNKNOWN_D = 0.1
"""Share of discordant items that is taken where nobody has measured it: that of good 4-bit models on gsm8k."""


@dataclass(frozen=True)
class Earlier:
    """What an earlier run knows."""

    checks: list[CheckResult]
    seconds: dict[str, float]
    """By suite, both roles."""
    tokens: dict[str, float]
    """Of answers, by suite, both roles."""


@dataclass(frozen=True)
class Power:
    """What a policy can decide and what it costs."""

    found: list[Chances]
    run_pass: float
    run_fail: float
    hours: float | None
    """Of all suites that the earlier run knows the time of; model loading is left out."""
    tokens: dict[str, float]
    factor: float = 1.0
    """Items beside those of the policy, to use the hours that were given."""

    @property
    def preventing(self) -> list[Chances]:
        """The checks that keep the run from its goal, the worst first."""
        goal = GOAL ** (1 / max(1, len(self.found)))
        return sorted((c for c in self.found if c.passes < goal), key=lambda c: c.passes)


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
            known = [
                (task["n"], task[role]["tokens"]) for task in suite["tasks"] for role in ("reference", "candidate")
            ]
            tokens[suite["name"]] = sum(n * each for n, each in known if each is not None)
    return Earlier(checks, seconds, tokens)


def policy_power(
    policy: Policy, earlier: Earlier | None, discordance: float | None = None, gpu_hours: float | None = None
) -> Power:
    """The chances of a policy's blocking checks and of the run.

    `discordance` is D where the earlier run does not know it. With `gpu_hours` all suites get as many items as fit.
    """
    blocking = [statement for check in policy.checks if not check.advisory for statement in check.statements]
    statements = [s for check in blocking for s in _statements(policy, check, earlier, discordance)]
    suites = {s.suite for s in statements}
    seconds = [value for name, value in earlier.seconds.items() if name in suites] if earlier else []
    hours, factor = (sum(seconds) / 3600 or None), 1.0
    if gpu_hours is not None:
        if hours is None:
            raise BadInput("--gpu-hours needs --from RUN, a run whose manifest says how long its suites took")
        factor = gpu_hours / hours
        statements, hours = scaled(statements, factor), gpu_hours
    found = chances(statements, 1 - policy.confidence)
    tokens = {name: factor * count for name, count in earlier.tokens.items() if name in suites} if earlier else {}
    return Power(found, *run_chances(found), hours, tokens, factor)


def _statements(policy: Policy, check: Check, earlier: Earlier | None, discordance: float | None) -> list[Planned]:
    metric = METRICS[check.metric]
    neutral = 0.0 if isinstance(metric, Difference) or check.margin_kind == "max_over_noise" else metric.neutral
    if neutral is None or (not isinstance(metric, Difference) and metric.exact):
        return []  # nothing is uncertain, or no value means "as good"
    distance = abs(check.margin - neutral)
    seen = [r for r in earlier.checks if r.metric == check.metric and _speaks(check.on, r.on)] if earlier else []
    seen = seen or _near(check, earlier)
    confidence = check.confidence or policy.confidence
    paired = isinstance(metric, Difference)
    if not seen:
        variance = (UNKNOWN_D if discordance is None else discordance) if paired else None
        items = _limit(policy, check.on)
        name, suite = f"{check.metric} on {check.on}", check.on.split("/")[0]
        return [Planned(name, suite, distance, items, variance, 0.0, paired, confidence, check.stop is not None)]
    made = []
    for result in seen:
        items = result.planned or result.n
        variance, noise = discordance, 0.0
        if variance is None and paired and result.discordant is not None and result.n:
            variance = result.discordant / result.n
        elif result.lower is not None and result.upper is not None and result.estimate is not None:
            error = standard_error(Interval(result.estimate, result.lower, result.upper), result.confidence)
            variance = result.n * error**2
        if result.noise and result.noise.discordant is not None and result.noise.n and policy.sampling.temperature > 0:
            noise = result.noise.discordant / result.noise.n
        name, suite = f"{check.metric} on {result.on}", result.on.split("/")[0]
        if check.margin_kind == "max_relative_loss":
            name, distance = f"{name}, relative", check.margin * (result.reference_value or 0.0)
        made.append(Planned(name, suite, distance, items, variance, noise, paired, confidence, check.stop is not None))
    return made


def _speaks(pattern: str, on: str) -> bool:
    return fnmatch.fnmatchcase(on, pattern) if "/" in pattern else on == pattern


def _near(check: Check, earlier: Earlier | None) -> list[CheckResult]:
    """Where the earlier run judged the tasks of a suite one by one and this check pools them: their sums."""
    if earlier is None or "/" in check.on:
        return []
    tasks = [r for r in earlier.checks if r.metric == check.metric and r.on.startswith(f"{check.on}/")]
    if not tasks or any(r.discordant is None for r in tasks):
        return []
    sums = {name: sum(getattr(r, name) for r in tasks) for name in ("n", "planned", "discordant")}
    return [tasks[0].model_copy(update={"on": check.on, "noise": None} | sums)]


def _limit(policy: Policy, on: str) -> int | None:
    """Items that the policy itself names."""
    suite, _, task = on.partition("/")
    own = policy.suites.get(suite, {})
    tasks = own.get("tasks")
    if isinstance(tasks, dict):
        limits = [(of or {}).get("limit") for name, of in tasks.items() if not task or fnmatch.fnmatchcase(name, task)]
        known = [int(limit) for limit in limits if limit is not None]
        return sum(known) if known and len(known) == len(limits) else None
    limit = own.get("limit")
    return int(limit) if limit else None


def power_table(power: Power) -> Table:
    """One row a check."""
    made = Table("check", "items", "D or spread", "PASS if equal", "FAIL at 2 × margin", "items for 80 % of the run")
    for chance in power.found:
        of = chance.planned
        spread = "–" if of.variance is None else f"{of.variance:.1%}" if of.paired else f"{of.variance**0.5:.3g} (sd)"
        items = "–" if of.items is None else f"{of.items:,}"
        needed = "–" if chance.needed is None else f"{chance.needed:,}"
        if chance.repeats:
            needed += f", or {chance.repeats} repeats"
        made.add_row(of.name, items, spread, f"{chance.passes:.0%}", f"{chance.fails:.0%}", needed)
    return made


def power_words(power: Power) -> list[str]:
    """What is said under the table."""
    said = [f"run: PASS if equal {power.run_pass:.0%}, FAIL at twice every margin {power.run_fail:.0%} (Holm included)"]
    if power.hours is not None:
        more = "" if power.factor == 1 else f"; {power.factor:.2g} times the items of the earlier run"
        tokens = f"; answers: {sum(power.tokens.values()):,.0f} tokens" if power.tokens else ""
        said.append(f"cost: {power.hours:.2f} h for the suites{more}{tokens}")
    if power.factor > 1:
        said.append("where a task has no more items: repeats (of sampled answers), or more tasks in one pooled check")
    if power.run_pass < GOAL and power.preventing:
        names = [f"{c.planned.name} ({_help(c)})" for c in power.preventing[:6]]
        said.append(f"below {GOAL:.0%} because of: {'; '.join(names)}")
        if len(power.preventing) > 6:
            said.append(f"and {len(power.preventing) - 6} more")
    return said


def _help(chance: Chances) -> str:
    items = chance.planned.items
    if items is None:
        return "items not known: give --from RUN"
    if chance.planned.variance is None:
        return "spread not known: give --from RUN"
    if chance.needed is None:
        return "no number of items decides it"
    repeats = f", or {chance.repeats} repeats" if chance.repeats else ""
    return f"{chance.passes:.0%}: needs {chance.needed:,} items instead of {items:,}{repeats}"


def to_json(power: Power) -> str:
    """All of it as one JSON object."""
    rows = [asdict(chance) for chance in power.found]
    rest = {"run_pass": power.run_pass, "run_fail": power.run_fail, "hours": power.hours, "tokens": power.tokens}
    return json.dumps({"checks": rows} | rest | {"factor": power.factor}, indent=2)
