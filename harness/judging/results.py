"""What is said of one check: its verdict with everything that it rests on."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.contract.metrics import Margin, Unit

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class NoiseResult(BaseModel):
    """The same statistic of the reference against itself."""

    model_config = ConfigDict(frozen=True)

    estimate: float
    lower: float | None = None
    upper: float | None = None
    n: int
    b: int | None = None
    c: int | None = None
    discordant: int | None = None


class TaskResult(BaseModel):
    """One task of a pooled check, by the same margin and by itself."""

    model_config = ConfigDict(frozen=True)

    task: str
    verdict: Outcome
    """Of the task alone, uncorrected; it decides nothing unless the check guards its tasks."""
    estimate: float
    lower: float | None
    upper: float | None
    n: int
    b: int | None = None
    c: int | None = None
    reference_value: float | None = None
    candidate_value: float | None = None
    p_fail: float
    """p value of "the task keeps the margin"."""
    after_holm: bool
    """Whether the task breaks the margin also when all tasks of the check are tested together (Holm)."""


class CheckResult(BaseModel):
    """One check, decided. Differences are losses: positive means that the candidate is worse."""

    model_config = ConfigDict(frozen=True)

    name: str
    metric: str
    on: str
    verdict: Outcome
    reason: str
    margin: float
    margin_kind: Margin
    unit: Unit
    confidence: float
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    lower_with_gaps: float | None = None
    """The bound with every pair that cannot be used as low as it can be; None without such pairs, or such a bound."""
    upper_with_gaps: float | None = None
    """Likewise, as high as it can be. The margin's side of the two is what PASS needs, the other what FAIL needs."""
    reference_value: float | None = None
    candidate_value: float | None = None
    n: int = 0
    """Items (for ratios: documents); repeats of an item are one."""
    b: int | None = None
    """Items that only the reference gets right (or: that are worse with the candidate)."""
    c: int | None = None
    """Items that only the candidate gets right."""
    discordant: int | None = None
    method: str = ""
    approximate: bool = False
    """The bounds are not proven: this check is outside of what the run's error rates promise."""
    power: float | None = None
    """Chance of a PASS for a candidate as good as its reference, with this number of items (of a sequential check: all
    that are planned) and this spread. None where no value means "as good", or where nothing is uncertain."""
    items_needed: int | None = None
    """When INCONCLUSIVE: about how many items would decide (with 80 % chance), if the rates stay as they are."""
    p_fail: float | None = None
    """When FAIL: p value of "the check holds". With a ceiling there are two ways to fail: the smaller one, doubled."""
    after_holm: bool | None = None
    """When FAIL of a check that blocks: whether it stands when all these checks of the run are tested together (Holm).
    If not, it keeps the run from a PASS but does not fail it."""
    advisory: bool = False
    """Shown, and without a say in the run's verdict."""
    tasks: list[TaskResult] = []
    """Of a pooled check: its tasks by themselves."""
    missing: int = 0
    errored: int = 0
    unequal: int = 0
    foreign: int = 0
    """Samples that were not planned in this run; they are not used."""
    planned: int = 0
    """Items that were to be asked; a sequential check may have needed fewer."""
    stop: Literal["sequential"] | None = None
    noise: NoiseResult | None = None
    """The noise floor, where it was measured."""


def show(unit: Unit, value: float) -> str:
    """A value with its unit, as reasons print it."""
    if not math.isfinite(value):
        return "unbounded"
    scale, digits, word = {"points": (100, 1, " points"), "nats": (1, 4, " nats"), "share": (100, 1, " %")}.get(
        unit, (1, 3, "")
    )
    return f"{round(scale * value, digits) + 0.0:.{digits}f}{word}"  # + 0.0: there is no -0.0


def finite(value: float) -> float | None:
    """The value, or None where it is no number that JSON has."""
    return value if math.isfinite(value) else None
