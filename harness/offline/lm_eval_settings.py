"""How lm-eval's results are read: the part of a policy under `suites: lm_eval:`."""

from __future__ import annotations

from pydantic import Field

from harness.contract.settings import Config
from harness.offline.lm_eval_metrics import Better


class TaskSettings(Config):
    """How one task is read. Its name, or a pattern over names, is the key in `tasks`; the first that fits counts."""

    metric: str | None = None
    """The one that is judged; None: chosen as lm-eval's leaderboards do."""
    filter: str | None = None
    """The one of lm-eval's filters that is judged; None: each of them."""
    better: Better | None = None
    """Whether more or less of the metric is better; None: as its name says, or lm-eval's results beside the samples."""
    cluster: str | None = None
    """The field of a document that several share, such as `passage`: its items are drawn together, and the bounds are
    wider. None: the first of the usual names that is there. "": none, each item by itself."""


class LmEvalSettings(Config):
    """How two folders of lm-eval are read."""

    metric: str | None = None
    """Of every task that has it and that `tasks` says nothing else of."""
    tasks: dict[str, TaskSettings] = Field(default_factory=dict)
    per_task: bool = False
    """True: tasks of a group are judged one by one, and not as one pooled check."""
