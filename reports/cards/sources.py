"""The public data set of a task, as model hubs name it: where it is known, by the policy or without one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.contract.datasets import SWEBENCH, PublicDataset, public_dataset

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def of_cot(settings: Mapping[str, Any] | None, task: str) -> PublicDataset | None:
    """The data set of a task, whatever the policy says of the suite."""
    return public_dataset("cot", task)


def of_swebench(settings: Mapping[str, Any] | None, task: str) -> PublicDataset | None:
    """The data set that the policy names, where that is one of a hub; all tasks are of one. Without a policy: none."""
    if settings is None:
        return None
    hub_id, split = settings.get("dataset", SWEBENCH.hub_id), settings.get("split", SWEBENCH.split)
    named = isinstance(hub_id, str) and HUB_ID.fullmatch(hub_id)
    if (hub_id, split) == (SWEBENCH.hub_id, SWEBENCH.split):
        return SWEBENCH
    return SWEBENCH._replace(hub_id=hub_id, split=str(split), items=None) if named else None


def of_none(settings: Mapping[str, Any] | None, task: str) -> PublicDataset | None:
    """Generated, or unknown."""
    return None
