"""What `quantgate power` prints."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.table import Table

from harness.judging.policy_power import GOAL, Chances
from harness.offline.power import Cost, Power


def power_table(power: Power) -> Table:
    """One row a check."""
    made = Table("check", "items", "D or spread", "PASS if equal", "FAIL at 2 × margin", "items for 80 % of the run")
    made.add_column("tokens")
    made.add_column("hours")
    for chance, cost in zip(power.found, power.costs, strict=True):
        of = chance.planned
        spread = "–" if of.variance is None else f"{of.variance:.1%}" if of.paired else f"{of.variance**0.5:.3g} (sd)"
        items = "–" if of.items is None else f"{of.items:,}"
        needed = "–" if chance.needed is None else f"{chance.needed:,}"
        if chance.repeats:
            needed += f", or {chance.repeats} repeats"
        both = [f"{of_it:.0%}" if chance.known else "–" for of_it in (chance.passes, chance.fails)]
        made.add_row(of.name, items, spread, *both, needed, *_cost_words(cost))
    return made


def _cost_words(cost: Cost) -> tuple[str, str]:
    tokens = "–" if cost.tokens is None else f"{'≤ ' if cost.at_most else ''}{cost.tokens / 1e6:,.2f} M"
    return tokens, "–" if cost.hours is None else f"{cost.hours:.3f}"


def power_words(power: Power) -> list[str]:
    """What is said under the table."""
    most, least = ("at most ", "at least ") if power.unknown else ("", "")
    said = [
        f"run: PASS if equal {most}{power.run_pass:.0%}, FAIL at twice every margin {least}{power.run_fail:.0%} "
        "(Holm included)"
    ]
    if power.hours is not None:
        more = "" if power.factor == 1 else f"; {power.factor:.2g} times the items of the earlier run fit"
        said.append(f"cost: {power.hours:.3f} h for the suites{more}; checks on the same tasks share their answers")
    spent = [c.planned.on for c in power.found if c.planned.most and c.planned.items == c.planned.most]
    if power.factor > 1 and spent:
        said.append(
            f"no more items than these: {', '.join(dict.fromkeys(spent))}; repeats (of sampled answers) help, or more "
            "tasks in one pooled check"
        )
    if any(c.planned.ceiling is not None and c.planned.rate is None for c in power.found):
        said.append("ceilings are left out: no run says how often the reference does it")
    said += power.remarks
    preventing = power.preventing if power.run_pass < GOAL else power.unknown
    if preventing:
        names = [f"{c.planned.name} ({_help(c)})" for c in preventing[:6]]
        below = f"below {GOAL:.0%}" if power.run_pass < GOAL else f"{GOAL:.0%} are not sure"
        said.append(f"{below} because of: {'; '.join(names)}")
        if len(preventing) > 6:
            said.append(f"and {len(preventing) - 6} more")
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
    rows = [
        asdict(chance) | ({} if chance.known else {"passes": None, "fails": None}) | {"cost": asdict(cost)}
        for chance, cost in zip(power.found, power.costs, strict=True)
    ]
    rest: dict[str, object] = {"run_pass": power.run_pass, "run_fail": power.run_fail, "unknown": len(power.unknown)}
    rest |= {"hours": power.hours, "factor": power.factor}
    return json.dumps({"checks": rows} | rest | {"remarks": power.remarks}, indent=2)
