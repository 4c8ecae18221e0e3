"""What one policy lets pass that another does not."""

from __future__ import annotations

from harness.contract.check import Check
from harness.contract.policy import Policy
from harness.contract.settings import Config

NOTHING_WEAKER = "no margin is weaker than the sealed one"
"""What is said where `weakened` finds nothing."""


def weakened(sealed: Policy, other: Policy) -> list[str]:
    """What `other` lets pass that `sealed` does not: one line for each margin or guard that is weaker."""
    found = [] if other.max_unusable <= sealed.max_unusable else [_change("max_unusable", sealed, other)]
    if "*" not in sealed.allow_unreadable and set(other.allow_unreadable) - set(sealed.allow_unreadable):
        found.append(_change("allow_unreadable", sealed, other))
    found += [f"{task}: no longer required" for task in sealed.required if task not in other.required]
    now = [statement for check in other.checks for statement in check.statements]
    for check in (statement for given in sealed.checks for statement in given.statements):
        what = check.metric, check.on, check.margin_kind
        same = [_weaker(sealed, check, other, c) for c in now if (c.metric, c.on, c.margin_kind) == what]
        lost = f"{check.metric} on {check.on}: no longer checked with {check.margin_kind}"
        least: list[str] = min(same, key=len, default=[lost])
        found += least
    return found


def _weaker(sealed: Policy, check: Check, other: Policy, now: Check) -> list[str]:
    """What `now` lets pass that `check` does not."""
    found, name = [], f"{check.metric} on {check.on}"
    looser = now.margin < check.margin if check.margin_kind == "min" else now.margin > check.margin
    confidence = now.confidence or other.confidence, check.confidence or sealed.confidence
    if looser:
        found.append(f"{name}: {_change(check.margin_kind, check, now)}")
    if confidence[0] < confidence[1]:
        found.append(f"{name}: confidence {confidence[1]:g} -> {confidence[0]:g}")
    if (now.floor or 0.0) < (check.floor or 0.0):
        found.append(f"{name}: {_change('floor', check, now)}")
    if check.ceiling is not None and (now.ceiling is None or now.ceiling > check.ceiling):
        found.append(f"{name}: {_change('ceiling', check, now)}")
    if check.stop != now.stop:  # two looks at the same samples: the error rates of both no longer hold
        found.append(f"{name}: {_change('stop', check, now)}")
    if now.mean != check.mean:
        found.append(f"{name}: {_change('mean', check, now)}")
    if now.advisory and not check.advisory:
        found.append(f"{name}: only advisory")
    if check.guard_tasks and not now.guard_tasks:
        found.append(f"{name}: no longer guards its tasks")
    return found


def _change(key: str, before: Config, after: Config) -> str:
    found = [getattr(c, key) for c in (before, after)]
    values = [", ".join(v) or "none" if isinstance(v, tuple) else "none" if v is None else v for v in found]
    return f"{key} {values[0]} -> {values[1]}"
