"""Which data files a policy wants, and where they would come from. docs/suites.md has the same list."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants

Source = Literal["file", "hub", "nowhere"]


@dataclass(frozen=True)
class DataFile:
    """One entry of QUANTGATE_DATA, or a data set that a policy names."""

    suite: str
    task: str
    name: str
    """Its path in QUANTGATE_DATA, with wildcards; of a policy's own: a .jsonl file anywhere, or as in `hub`."""
    hub: str
    """The data set that is loaded where it is not there."""
    by_default: bool = False
    """Whether it is asked for by a policy whose suite names no tasks."""

    @property
    def of_policy(self) -> bool:
        return self.name == self.hub

    @property
    def what(self) -> str:
        return f"{self.suite} {self.task}".rstrip()


FILES = [
    DataFile("cot", "gsm8k", "gsm8k/test.jsonl", "openai/gsm8k"),
    DataFile("cot", "math500", "math500/math500_full.jsonl", "HuggingFaceH4/MATH-500"),
    DataFile("cot", "mmlu_pro", "mmlu_pro/test_stratified_1400.jsonl", "TIGER-Lab/MMLU-Pro"),
    DataFile("cot", "aime24", "aime/aime24.jsonl", "Maxwell-Jia/AIME_2024"),
    DataFile("cot", "aime25", "aime/aime25.jsonl", "math-ai/aime25"),
    *(
        DataFile("cot", f"mgsm_{language}", f"mgsm/mgsm_{language}.jsonl", "jbross-ibm-research/mgsm")
        for language in ("en", "ja", "zh")
    ),
    DataFile("ruler", "qa_1", "squad/*.json", "rajpurkar/squad_v2", by_default=True),
    DataFile("ruler", "qa_2", "hotpotqa/*.json", "hotpotqa/hotpot_qa", by_default=True),
]
"""Running text (text_en and its like) is not among them: the project ships essays in its place."""
NAMED = {"swebench": "SWE-bench/SWE-bench_Verified"}
"""Suites whose `dataset` a policy names, and which one it is where it does not."""


def data_files(suites: Mapping[str, Any] | None) -> list[DataFile]:
    """The entries that these suites of a policy ask for; all entries where there is no policy."""
    if suites is None:
        return FILES
    found = [file for file in FILES if file.suite in suites and _asks(suites[file.suite] or {}, file)]
    for suite in NAMED.keys() & suites.keys():
        dataset = str((suites[suite] or {}).get("dataset", NAMED[suite]))
        found.append(DataFile(suite, "", dataset, dataset))
    return found


def _asks(config: Mapping[str, Any], file: DataFile) -> bool:
    tasks = config.get("tasks")
    if tasks is None:
        return file.by_default
    return isinstance(tasks, dict | list | tuple) and file.task in tasks


def source_of(file: DataFile, folder: str | None) -> Source:
    """Where an entry comes from; `nowhere`: there is no such file, and no hub to ask."""
    if file.of_policy and file.name.endswith(".jsonl"):
        return "file" if Path(file.name).is_file() else "nowhere"
    if folder and not file.of_policy and any(Path(folder).glob(file.name)):
        return "file"
    return "nowhere" if _offline() and not _cached(file.hub) else "hub"


def _offline() -> bool:
    """Whether the hub's clients are told not to ask it."""
    datasets = os.environ.get("HF_DATASETS_OFFLINE", "")
    return constants.HF_HUB_OFFLINE or datasets.upper() in constants.ENV_VARS_TRUE_VALUES


def _cached(dataset: str) -> bool:
    """Whether the hub's clients have kept anything of a data set."""
    # datasets.config would say where; importing it takes seconds.
    made = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    hub = Path(constants.HF_HUB_CACHE) / f"datasets--{dataset.replace('/', '--')}"
    name = dataset.replace("/", "___")
    return any(path.exists() for path in (hub, made / name, made / name.lower()))
