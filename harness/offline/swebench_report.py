"""Two reports of swebench's run_evaluation (`<model>.<run_id>.json`, swebench 5.0 or newer) as samples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from harness.contract.error_kinds import error_text
from harness.contract.errors import BadInput, NotComparable
from harness.contract.samples import ROLES, PairKey, Sample, sha256_of
from harness.contract.whole_files import read_json
from harness.offline.results import MAX_BYTES, Results, plain_name, result_sample, shown
from harness.runs.instances import SUITE
from suites.swebench.grading import NOT_APPLIED, TIMED_OUT

TASK = "resolved"
SCHEMA_VERSION = 2
OUTCOMES = ("resolved", "unresolved", "empty_patch", "error", "incomplete")
"""Each instance of the data set has exactly one of them. incomplete: there was no prediction."""
NEEDED = ("schema_version", *(f"{outcome}_ids" for outcome in OUTCOMES), "infra_failure_ids")
"""Without infra_failure_ids (swebench 4) a broken container cannot be told from a wrong patch."""


def read_swebench(reference: Path, candidate: Path) -> Results:
    """The instances of two reports, which must be the same ones, paired by id.

    resolved: 1. unresolved, empty patch: 0. error, infrastructure failure: an errored sample. incomplete: no sample, so
    the pair is missing. What swebench calls ambiguous stays what it is there: unresolved or an error.
    Among its errors swebench counts patches that do not apply and tests that take too long: these are the model's.
    Where its logs lie beside the report (logs/run_evaluation/<run>/<model>/<instance>), they tell.

    Raises:
        BadInput: no report that can be read, an older schema, or lists that contradict each other.
        NotComparable: an instance that only one report has.
    """
    paths = (reference, candidate)
    reports = [read_json(path, MAX_BYTES) for path in paths]
    outcomes = [_outcomes(report, path) for report, path in zip(reports, paths, strict=True)]
    notes = tuple(note for path, found in zip(paths, outcomes, strict=True) if (note := _blame(path, found)))
    _require_same_instances(paths, outcomes)
    samples: list[Sample] = []
    planned: dict[PairKey, str | None] = {}
    for role, report, found in zip(ROLES, reports, outcomes, strict=True):
        for instance, outcome in found.items():
            planned[SUITE, TASK, instance, 0] = None
            if outcome != "incomplete":
                error = _error(report, instance, outcome)
                score = None if error else float(outcome == "resolved")
                samples.append(result_sample(role, SUITE, TASK, instance, sha256_of(instance), score, error=error))
    return Results(samples, planned, notes=notes)


def _blame(path: Path, outcomes: dict[str, str]) -> str | None:
    """Make errors unresolved that were the model's by their logs; says how many were, and how many have no logs."""
    errors = [instance for instance, outcome in outcomes.items() if outcome == "error"]
    folder = _logs(path)
    blamed = [instance for instance in errors if folder and _is_the_models(folder, instance)]
    outcomes.update(dict.fromkeys(blamed, "unresolved"))
    if blamed:
        return f"{path}: by their logs {len(blamed):,} of {len(errors):,} errors are patches that fail: not resolved"
    if errors and folder is None:
        return f"{path}: {len(errors):,} errors, and no logs beside it that say whose they are"
    return None


def _logs(path: Path) -> Path | None:
    """The folder of a run's logs beside its report; model and run may have dots in their names."""
    parts = path.name.removesuffix(".json").split(".")
    runs = path.parent / "logs" / "run_evaluation"
    found = (runs / ".".join(parts[i:]) / ".".join(parts[:i]) for i in range(1, len(parts)))
    return next((folder for folder in found if folder.is_dir()), None)


def _is_the_models(folder: Path, instance: str) -> bool:
    if "/" in instance or instance in (".", ".."):
        return False
    try:
        with (folder / instance / "run_instance.log").open("rb") as file:
            said = file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return False
    return bool(NOT_APPLIED.search(said) or TIMED_OUT.search(said))


def _require_same_instances(paths: tuple[Path, Path], outcomes: list[dict[str, str]]) -> None:
    """Raises NotComparable unless both reports list the same instances.

    swebench lists every instance of its data set or --instance_ids, one without a prediction as incomplete. So an
    instance that a report lacks was not lost on the way: the report is of other instances, or edited. A few of those
    must not vanish in the share of pairs that may be missing.
    """
    listed = [set(found) for found in outcomes]
    differing = listed[0] ^ listed[1]
    if differing:
        first = min(differing)
        where = paths[0 if first in listed[0] else 1]
        counts = " and ".join(f"{len(found)} in {path}" for found, path in zip(listed, paths, strict=True))
        raise NotComparable(
            f"not comparable: the reports differ in {len(differing)} of {len(listed[0] | listed[1])} instances; the "
            f"first, {first}, is in {where} only ({counts}); grade both on one data set with the same --instance_ids"
        )


def _outcomes(report: dict[str, Any], path: Path) -> dict[str, str]:
    """Instance -> outcome ("infra_failure" takes the place of unresolved and error)."""
    missing = [key for key in NEEDED if key not in report]
    if missing:
        raise BadInput(
            f"{path}: no report of swebench 5.0 or newer: it lacks {', '.join(missing)}; grade the predictions again"
        )
    if report["schema_version"] != SCHEMA_VERSION:
        raise BadInput(f"{path}: schema_version is {shown(report['schema_version'])}, {SCHEMA_VERSION} is understood")
    found: dict[str, str] = {}
    for outcome in OUTCOMES:
        for instance in _ids(report, outcome, path):
            if instance in found:
                raise BadInput(f"{path}: {instance} is both {found[instance]} and {outcome}")
            found[instance] = outcome
    if not found:
        raise BadInput(f"{path}: no instance is in it")
    if report.get("total_instances", len(found)) != len(found):
        raise BadInput(f"{path}: total_instances is {shown(report['total_instances'])}, the lists hold {len(found)}")
    for instance in _ids(report, "infra_failure", path):
        if found.get(instance) not in ("unresolved", "error"):
            raise BadInput(f"{path}: {instance} is an infra_failure and {found.get(instance, 'in no other list')}")
        found[instance] = "infra_failure"
    return found


def _ids(report: dict[str, Any], outcome: str, path: Path) -> list[str]:
    key, counter = f"{outcome}_ids", f"{outcome}_instances"
    listed = report[key]
    if not isinstance(listed, list):
        raise BadInput(f"{path}: {key} is {shown(listed)}, no list")
    ids = [plain_name(instance, f"{path}: {key}:") for instance in listed]
    twice = [instance for instance, times in Counter(ids).items() if times > 1]
    if twice:
        raise BadInput(f"{path}: {key} names {twice[0]} twice")
    if report.get(counter, len(ids)) != len(ids):
        raise BadInput(f"{path}: {counter} is {shown(report[counter])}, {key} holds {len(ids)}")
    return ids


def _error(report: dict[str, Any], instance: str, outcome: str) -> str | None:
    if outcome not in ("error", "infra_failure"):
        return None
    reasons = report.get("failure_reasons")
    reason = reasons.get(instance) if isinstance(reasons, dict) else None
    return error_text("grader", outcome + (f" {shown(reason)}" if reason else ""))
