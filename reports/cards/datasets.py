"""Public data sets that tasks are made of, as model hubs name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class Source(NamedTuple):
    """A public data set."""

    dataset: str
    config: str | None
    split: str


COT = {
    "gsm8k": Source("openai/gsm8k", "main", "test"),
    "math500": Source("HuggingFaceH4/MATH-500", None, "test"),
    "mmlu_pro": Source("TIGER-Lab/MMLU-Pro", None, "test"),
    "aime24": Source("Maxwell-Jia/AIME_2024", None, "train"),
    "aime25": Source("math-ai/aime25", None, "test"),
    "mgsm_en": Source("jbross-ibm-research/mgsm", "en", "test"),
    "mgsm_ja": Source("jbross-ibm-research/mgsm", "ja", "test"),
    "mgsm_zh": Source("jbross-ibm-research/mgsm", "zh", "test"),
}
"""By the task's name; any other task is the policy's own."""
SWEBENCH = Source("SWE-bench/SWE-bench_Verified", None, "test")


def of_cot(settings: Mapping[str, Any] | None, task: str) -> Source | None:
    """The data set of a task, whatever the policy says of the suite."""
    return COT.get(task)


def of_swebench(settings: Mapping[str, Any] | None, task: str) -> Source | None:
    """The data set that the policy names, where that is one of a hub; all tasks are of one. Without a policy: none."""
    if settings is None:
        return None
    dataset, split = settings.get("dataset", SWEBENCH.dataset), settings.get("split", SWEBENCH.split)
    return Source(dataset, None, str(split)) if isinstance(dataset, str) and HUB_ID.fullmatch(dataset) else None


def of_none(settings: Mapping[str, Any] | None, task: str) -> Source | None:
    """Generated, or unknown."""
    return None
