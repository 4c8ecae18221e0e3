"""Run folders with instances of SWE-bench, as the suite leaves them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report_runs import manifest

from benchmarks.agent_report import POLICY
from benchmarks.trajectories import write_instance
from harness.contract.policy import parse_policy
from harness.contract.samples import Role
from harness.runs.folder import RunFolder
from harness.runs.instances import SUITE, InstanceOutcome, InstanceResult, read_result, sample_of_result, write_result
from suites.base import make_item

SEALED = parse_policy(POLICY)


def instance_run(
    path: Path, outcomes: Mapping[str, tuple[InstanceOutcome | None, InstanceOutcome | None]], seed: int = 0
) -> tuple[RunFolder, random.Random]:
    """A run of these instances, by the outcomes of reference and candidate; None was not run."""
    folder, facts, rng = RunFolder(path), manifest(SEALED, {f"{SUITE}/instances": len(outcomes)}), random.Random(seed)
    folder.create(facts, SEALED)
    items = [make_item("instances", name, [{"role": "user", "content": "Mend it."}]) for name in outcomes]
    facts.items_sha256[SUITE] = folder.write_items(SUITE, items)
    folder.write_manifest(facts)
    for name, of_roles in outcomes.items():
        roles: tuple[Role, Role] = ("reference", "candidate")
        for role, outcome in zip(roles, of_roles, strict=True):
            if outcome:
                write_instance(path, role, name, rng, outcome)
    return folder, rng


def place(folder: RunFolder, role: Role, name: str) -> Path:
    """The folder of an instance of a role."""
    return folder.path / SUITE / role / name


def change(folder: RunFolder, role: Role, name: str, **fields: object) -> InstanceResult:
    """Write the result of an instance again with other fields."""
    result = InstanceResult.model_validate(read_result(place(folder, role, name)).model_dump() | fields)
    write_result(place(folder, role, name), result)
    return result


def store_trajectory(folder: RunFolder, role: Role, name: str, trajectory: Any) -> Path:
    """Put another trajectory in the place of the one that is there."""
    path = place(folder, role, name) / "agent" / name / f"{name}.traj.json"
    path.write_text(trajectory if isinstance(trajectory, str) else json.dumps(trajectory))
    return path


def store_samples(folder: RunFolder) -> None:
    """The samples of every result that is there, as the suite makes them."""
    log = folder.log(SUITE)
    for ref in folder.items(SUITE):
        for role in ("reference", "candidate"):
            if (place(folder, role, ref.item) / "result.json").exists():
                log.append(sample_of_result(ref, role, read_result(place(folder, role, ref.item))))
    log.close()


def step(command: str, output: str, **extra: object) -> list[dict[str, Any]]:
    """Two messages: an answer with one command, and what it printed."""
    return [
        {"role": "assistant", "content": "thought", "extra": {"actions": [{"command": command}]}},
        {"role": "user", "content": "seen", "extra": {"raw_output": output, "returncode": 0, **extra}},
    ]
