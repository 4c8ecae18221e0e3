"""What a policy can decide and what it costs, from an earlier run of it or of one like it: `quantgate power`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.contract.errors import BadInput
from harness.contract.policy import Policy
from harness.judging.policy_power import GOAL, Chances, Planned, chances, run_chances, scaled
from harness.offline.power_statements import Earlier, blocking, statements_of


@dataclass(frozen=True)
class Cost:
    """What the items of one check take; checks on the same tasks read the same answers."""

    tokens: float | None
    """Of answers, both roles."""
    at_most: bool
    """Whether that is every answer at its whole budget, since no run says how long answers are."""
    hours: float | None


@dataclass(frozen=True)
class Power:
    """What a policy can decide and what it costs."""

    found: list[Chances]
    costs: list[Cost]
    """Of each of `found`."""
    run_pass: float
    """Chance of a PASS of the run if equal; the most that it may be where nothing is known of some checks."""
    run_fail: float
    """Chance of a FAIL of the run at twice every margin; the least, likewise."""
    hours: float | None
    """Of all suites that the earlier run knows the time of; model loading is left out."""
    factor: float = 1.0
    """How many times its items would fit into the hours that were given."""
    remarks: tuple[str, ...] = ()

    @property
    def unknown(self) -> list[Chances]:
        """The checks of which nothing is known."""
        return [chance for chance in self.found if not chance.known]

    @property
    def preventing(self) -> list[Chances]:
        """The checks that keep the run from its goal, the worst first."""
        goal = GOAL ** (1 / max(1, len(self.found)))
        return sorted((c for c in self.found if c.passes < goal), key=lambda c: c.passes)


def policy_power(
    policy: Policy,
    earlier: Earlier | None,
    discordance: float | None = None,
    gpu_hours: float | None = None,
    counted: Mapping[str, int] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Power:
    """The chances of a policy's blocking checks and of the run.

    `discordance` is D where the earlier run does not know it. With `gpu_hours` all suites get as many items as fit, and
    no more than their data have. `counted` are the items of each `suite/task` that no run says, `sizes` those of whole
    data sets of which the policy asks a part.
    """
    before = [s for c in blocking(policy) for s in statements_of(policy, c, earlier, discordance, counted, sizes)]
    seconds = earlier.seconds if earlier else {}
    suites = dict.fromkeys(s.on.split("/")[0] for s in before)
    known, factor, statements = sum(seconds.get(name, 0.0) for name in suites) / 3600, 1.0, before
    if gpu_hours is not None:
        if not known:
            raise BadInput("--gpu-hours needs --from RUN, a run whose manifest says how long its suites took")
        factor = gpu_hours / known
        statements = scaled(before, factor)
    grown = [(now.items or 0) / was.items if was.items else 1.0 for was, now in zip(before, statements, strict=True)]
    times: dict[str, float] = {}
    for statement, times_more in zip(before, grown, strict=True):
        suite = statement.on.split("/")[0]
        times[suite] = max(times.get(suite, 0.0), times_more)
    hours = sum(seconds.get(name, 0.0) * more for name, more in times.items()) / 3600 or None
    costs = [_cost(policy, s, earlier, more) for s, more in zip(statements, grown, strict=True)]
    found = chances(statements, 1 - policy.confidence)
    return Power(found, costs, *run_chances(found), hours, factor)


def _cost(policy: Policy, statement: Planned, earlier: Earlier | None, times_more: float) -> Cost:
    suite, of = statement.on.split("/")[0], earlier.tokens if earlier else {}
    mine = {task: n for task, n in of.items() if statement.on in (task, task.split("/")[0])}
    whole = sum(n for task, n in of.items() if task.split("/")[0] == suite)
    hours = None
    if earlier and suite in earlier.seconds:
        share = sum(mine.values()) / whole if whole else 1.0
        hours = earlier.seconds[suite] / 3600 * share * times_more
    if mine:
        return Cost(sum(mine.values()) * times_more, False, hours)
    return Cost(None if statement.items is None else 2.0 * statement.items * policy.most(suite), True, hours)
