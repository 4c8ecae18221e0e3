"""Public data sets that tasks are made of: read by suites, looked for by doctor, named in model cards.

docs/suites.md has the same list. Running text (text_en and its like) is not in it: the project ships essays instead.
"""

from __future__ import annotations

from typing import NamedTuple


class PublicDataset(NamedTuple):
    """A data set of a task: a file of QUANTGATE_DATA, or where that is not there, the hub's."""

    suite: str
    task: str
    """Empty: all of the suite's."""
    file: str
    """Path in QUANTGATE_DATA, with wildcards; empty for a set that a policy names."""
    hub_id: str
    """Of a set that a policy names: that, or a .jsonl file anywhere."""
    config: str | None
    split: str
    by_default: bool = False
    """Whether it is asked for by a policy whose suite names no tasks."""
    items: int | None = None
    """How many questions of a task there are; None: not one question a row, or a set that a policy names."""


MGSM = "jbross-ibm-research/mgsm"
PUBLIC_DATASETS = (
    PublicDataset("cot", "gsm8k", "gsm8k/test.jsonl", "openai/gsm8k", "main", "test", items=1319),
    PublicDataset("cot", "math500", "math500/math500_full.jsonl", "HuggingFaceH4/MATH-500", None, "test", items=500),
    PublicDataset(
        "cot", "mmlu_pro", "mmlu_pro/test_stratified_1400.jsonl", "TIGER-Lab/MMLU-Pro", None, "test", items=12_032
    ),
    PublicDataset("cot", "aime24", "aime/aime24.jsonl", "Maxwell-Jia/AIME_2024", None, "train", items=30),
    PublicDataset("cot", "aime25", "aime/aime25.jsonl", "math-ai/aime25", None, "test", items=30),
    PublicDataset("cot", "mgsm_en", "mgsm/mgsm_en.jsonl", MGSM, "en", "test", items=250),
    PublicDataset("cot", "mgsm_ja", "mgsm/mgsm_ja.jsonl", MGSM, "ja", "test", items=250),
    PublicDataset("cot", "mgsm_zh", "mgsm/mgsm_zh.jsonl", MGSM, "zh", "test", items=250),
    PublicDataset("ruler", "qa_1", "squad/*.json", "rajpurkar/squad_v2", None, "validation", True),
    PublicDataset("ruler", "qa_2", "hotpotqa/*.json", "hotpotqa/hotpot_qa", "distractor", "validation", True),
)
SWEBENCH = PublicDataset("swebench", "", "", "SWE-bench/SWE-bench_Verified", None, "test", items=500)
"""Where a policy names no other."""


def public_dataset(suite: str, task: str) -> PublicDataset | None:
    """The data set of a task, None where it is generated, or the policy's own."""
    return next((dataset for dataset in PUBLIC_DATASETS if (dataset.suite, dataset.task) == (suite, task)), None)
