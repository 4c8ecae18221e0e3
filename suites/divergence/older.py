"""Samples of older versions, which did not measure all that checks may ask for now: made up for from stored lists."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.contract.errors import BadInput
from harness.contract.samples import Sample
from suites.divergence.kl_bounds import compare_scores
from suites.divergence.parquet_files import read_trajectory


def with_missing_sums(samples: Iterable[Sample], folder: Path) -> Iterator[Sample]:
    """Samples of a run, with the sums that a compared role's lack and that `folder`, the run's divergence, still tells.

    What cannot be read, or says something else of KL than the sample does, adds nothing: the metric stays missing.
    The end of thinking is not made up for; it takes a tokenizer.
    """
    for sample in samples:
        yield _completed(sample, folder) if _lacks_sums(sample) else sample


def _lacks_sums(sample: Sample) -> bool:
    return "kl_upper_sum" in sample.metrics and "tv_upper_sum" not in sample.metrics


def _completed(sample: Sample, folder: Path) -> Sample:
    if Path(sample.item).name != sample.item:  # an edited file must not lead out of the folder
        return sample
    try:
        both = [read_trajectory(folder / f"{sample.item}.{role}.parquet")[1] for role in ("reference", sample.role)]
        found = compare_scores(*both).totals()
    except (BadInput, ValueError):
        return sample
    told = ("positions", "kl_lower_sum", "kl_upper_sum")
    same = all(math.isclose(sample.metrics.get(k, -1.0), found[k], rel_tol=1e-6, abs_tol=1e-9) for k in told)
    return sample.model_copy(update={"metrics": found | sample.metrics}) if same else sample
