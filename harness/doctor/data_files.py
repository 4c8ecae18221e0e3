"""Which data files a policy wants, and where they would come from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants

from harness.contract.datasets import PUBLIC_DATASETS, SWEBENCH, PublicDataset

DataSource = Literal["file", "hub", "nowhere"]


def data_files(suites: Mapping[str, Any] | None) -> Sequence[PublicDataset]:
    """The data sets that these suites of a policy ask for; all that have files where there is no policy."""
    if suites is None:
        return PUBLIC_DATASETS
    found = [each for each in PUBLIC_DATASETS if each.suite in suites and _asks(suites[each.suite] or {}, each)]
    if SWEBENCH.suite in suites:
        named = str((suites[SWEBENCH.suite] or {}).get("dataset", SWEBENCH.hub_id))
        found.append(SWEBENCH._replace(hub_id=named))
    return found


def data_name(dataset: PublicDataset) -> str:
    """For whom it is, and its file or what the policy names."""
    return f"{' '.join(filter(None, (dataset.suite, dataset.task)))} ({dataset.file or dataset.hub_id})"


def _asks(config: Mapping[str, Any], dataset: PublicDataset) -> bool:
    tasks = config.get("tasks")
    if tasks is None:
        return dataset.by_default
    return isinstance(tasks, dict | list | tuple) and dataset.task in tasks


def data_source(dataset: PublicDataset, folder: str | None) -> DataSource:
    """Where a data set comes from; `nowhere`: there is no such file, and no hub to ask."""
    if not dataset.file and dataset.hub_id.endswith(".jsonl"):
        return "file" if Path(dataset.hub_id).is_file() else "nowhere"
    if folder and dataset.file and any(Path(folder).glob(dataset.file)):
        return "file"
    return "nowhere" if _offline() and not _cached(dataset.hub_id) else "hub"


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
