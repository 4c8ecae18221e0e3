"""The candidates of two quantgate runs as samples: that of the first run plays the reference."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

from harness.contract.errors import BadInput, NotComparable
from harness.contract.items import read_items
from harness.contract.samples import ROLES, PairKey, Sample
from harness.offline.results import Results, plain_name, shown
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest

Task = tuple[str, str]


def read_runs(reference: Path, candidate: Path) -> Results:
    """The candidates' samples of the tasks that have scores, and the items of these tasks.

    A task has scores when one of its samples has, or when its items have a target: so one that never ran is missing,
    and divergence, which has no scores, is left out.

    Raises:
        BadInput: a folder that is no run, a broken line, samples edited after the run, or no scores at all.
        NotComparable: the runs sampled, configured or served a suite differently.
    """
    runs = (RunFolder(reference), RunFolder(candidate))
    samples: list[Sample] = []
    planned: dict[PairKey, str | None] = {}
    scored: set[Task] = set()
    for role, run in zip(ROLES, runs, strict=True):
        run.require_untouched()
        listed = run.manifest().items_sha256
        for suite in sorted(listed):
            run.items(suite)  # is it the file that the manifest names?
            for item in read_items(run.items_path(suite)):
                planned.setdefault((suite, item.task, item.item, item.repeat), item.prompt_sha256)
                if item.target is not None:
                    scored.add((suite, item.task))
        for sample in run.samples():
            if sample.role == "candidate":
                samples.append(sample.model_copy(update={"role": role}))
                if sample.suite not in listed:  # no items are stored: the samples themselves are the plan
                    planned.setdefault(sample.key.pair, None)
                if sample.score is not None:
                    scored.add((sample.suite, sample.task))
    if not scored:
        raise BadInput(f"no task of {reference} or {candidate} has scores")
    for suite, task in scored:
        plain_name(suite, "suite")
        plain_name(task, "task")
    _require_same_settings(runs, {suite for suite, _ in scored})
    return Results(
        [sample for sample in samples if (sample.suite, sample.task) in scored],
        {pair: sha256 for pair, sha256 in planned.items() if pair[:2] in scored},
    )


def _require_same_settings(runs: tuple[RunFolder, RunFolder], suites: set[str]) -> None:
    """Raises NotComparable unless both candidates were asked in the same way: a prompt's hash covers only messages.

    A suite that only one run has is no matter here: its pairs are missing.
    """
    first, second = (run.sealed_policy().policy for run in runs)
    shared = suites & first.suites.keys() & second.suites.keys()
    one: dict[str, Any] = {"sampling": first.sampling.model_dump()}
    other: dict[str, Any] = {"sampling": second.sampling.model_dump()}
    found = _difference(
        one | {"suites": {suite: first.suites[suite] for suite in shared}},
        other | {"suites": {suite: second.suites[suite] for suite in shared}},
    )
    one_facts, other_facts = (_readback(run.manifest()) for run in runs)
    for fact in sorted(one_facts.keys() & other_facts.keys()):
        if not any(fnmatch.fnmatchcase(fact, pattern) for pattern in first.allow_different):
            found = found or _difference({fact: one_facts[fact]}, {fact: other_facts[fact]})
    if found:
        name, here, there = found
        raise NotComparable(
            f"not comparable: {name} is {shown(here)} in {runs[0].path} and {shown(there)} in {runs[1].path}"
        )


def _difference(one: Any, other: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first place at which two settings differ, with both values."""
    if one == other:
        return None
    if not isinstance(one, dict) or not isinstance(other, dict):
        return name, one, other
    keys = sorted(one.keys() | other.keys())
    key = next(key for key in keys if one.get(key) != other.get(key))
    return _difference(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))


def _readback(manifest: Manifest) -> dict[str, str]:
    """What the candidate's server said of itself; empty when it was not asked."""
    return manifest.servers["candidate"].readback if "candidate" in manifest.servers else {}
