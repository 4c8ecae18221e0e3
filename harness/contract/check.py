"""A check of a policy: one statement with one margin."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.contract.metrics import METRICS, Difference, Margin
from harness.contract.settings import Config

_POINTS = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:points?|pp)\s*")


def _points(value: Any) -> Any:
    """`1 point`, `0.5 points` and `2 pp` are shares of one; anything else is taken as it is."""
    if isinstance(value, bool):  # pydantic would take true as 1.0
        raise ValueError("give a number")
    found = _POINTS.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) / 100 if found else value


def _not_all(value: float) -> float:
    if value >= 1:
        raise ValueError(
            f"{value:g} is {100 * value:g} points, which lets everything pass; one point is 0.01 or '1 point'"
        )
    return value


Points = Annotated[float, BeforeValidator(_points, json_schema_input_type=float | str), Field(ge=0, le=1)]
"""A share of one: 0.01, or `1 point`."""


Limit = Annotated[
    float, BeforeValidator(_points, json_schema_input_type=float | str), Field(ge=0), AfterValidator(_not_all)
]
"""A share of one that something may not exceed."""


class Check(Config):
    """One statement with the one margin that fits its metric."""

    metric: str
    """One of harness.contract.metrics.METRICS."""
    on: str
    """`suite` pools its tasks; `suite/task` (wildcards allowed) is one statement for each task that matches."""
    max_loss: Limit | None = None
    """Largest allowed mean of reference - candidate (0.01 is one point)."""
    max_relative_loss: Limit | None = None
    """Largest allowed share of the reference's score that is lost: from 0.100 to 0.095 is 0.05. Beside `max_loss` it is
    a statement of its own, and both must hold."""
    max_increase: Limit | None = None
    """Largest allowed mean of candidate - reference."""
    max: float | None = Field(None, ge=0)
    """Largest allowed value, for metrics of a pair such as kl_mean."""
    min: float | None = Field(None, ge=0)
    """Smallest allowed value, for ratios such as speed_ratio."""
    max_over_noise: float | None = Field(None, ge=0)
    """Largest allowed value above the noise floor (the policy must measure one: `noise_floor`)."""
    floor: Points | None = None
    """A reference below this cannot show damage: INCONCLUSIVE."""
    ceiling: Limit | None = None
    """Largest allowed value of the candidate by itself."""
    confidence: float | None = Field(None, gt=0.5, lt=1)
    """One-sided confidence of this check's bounds; the policy's when absent."""
    stop: Literal["sequential"] | None = None
    """`sequential`: decided by a test that may be looked at after every item; what is left is then not asked."""
    advisory: bool = False
    """Shown, and without a say in the run's verdict."""
    mean: Literal["items", "tasks"] = "items"
    """Of a pooled check: over all items (micro), or the plain mean of the tasks' means (macro)."""
    guard_tasks: bool = False
    """Of a pooled check: no PASS while a task breaks the margin by itself, after Holm's correction for the tasks."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        metric = METRICS.get(self.metric)
        if metric is None:
            near = difflib.get_close_matches(self.metric, METRICS, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(METRICS)}"
            raise ValueError(f"unknown metric '{self.metric}'; {hint}")
        given = [name for name in get_args(Margin) if getattr(self, name) is not None]
        if (len(given) != 1 and given != ["max_loss", "max_relative_loss"]) or not {*given} <= {*metric.margins}:
            found = " and ".join(given) or "no margin"
            raise ValueError(f"{self.metric} is judged with {' or '.join(metric.margins)}, found {found}")
        guard = metric.guard if isinstance(metric, Difference) else None
        for name in ("floor", "ceiling"):
            if getattr(self, name) is not None and name != guard:
                raise ValueError(f"{name} does not belong to {self.metric}")
        if self.stop and self.max_relative_loss is not None:
            raise ValueError("max_relative_loss is decided when all is answered: leave out stop: sequential")
        if self.stop and not isinstance(metric, Difference):
            raise ValueError(f"stop: sequential is for differences such as accuracy, not for {self.metric}")
        for name, given_so in (("mean: tasks", self.mean == "tasks"), ("guard_tasks", self.guard_tasks)):
            if given_so and "/" in self.on:
                raise ValueError(f"{name} is for a check on a whole suite, not for {self.on}")
        if self.mean == "tasks" and (self.stop or not isinstance(metric, Difference)):
            raise ValueError("mean: tasks is for differences such as accuracy that are decided at the end")
        return self

    @property
    def statements(self) -> tuple[Check, ...]:
        """Each with one margin."""
        if self.max_loss is None or self.max_relative_loss is None:
            return (self,)
        return tuple(self.model_copy(update={name: None}) for name in ("max_relative_loss", "max_loss"))

    @property
    def margin_kind(self) -> Margin:
        return next(name for name in get_args(Margin) if getattr(self, name) is not None)

    @property
    def margin(self) -> float:
        return float(getattr(self, self.margin_kind))
