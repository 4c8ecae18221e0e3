"""Baselines: the reference's samples of an earlier run, used again when that run was the same for the reference."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from harness.contract.errors import NotComparable
from harness.contract.items import ItemRef
from harness.contract.policy import Policy
from harness.contract.samples import Role, read_samples
from harness.parity.steadiness import require_steady
from harness.runs.folder import RunFolder
from harness.runs.manifest import Baseline, Manifest

OF_NO_MATTER = {"ports", "ready_timeout_seconds"}
"""Settings of `serving` that no answer depends on."""


def mismatches(earlier: RunFolder, policy: Policy, manifest: Manifest) -> list[str]:
    """What keeps the reference of an earlier run from standing for this run's: empty when nothing does.

    Equal must be: the reference's hash, every serving flag, sampling, the suites' settings and items, versions and
    hardware; and the earlier run must be finished, steady and untouched.

    Raises:
        BadInput: not a run folder, or one that was edited.
    """
    before, sealed = earlier.manifest(), earlier.sealed_policy()
    if not before.samples:
        return ["it was not finished"]
    earlier.require_untouched()
    found = []
    ours, theirs = manifest.models["reference"], before.models.get("reference")
    if theirs is None or not ours.sha256 or ours.sha256 != theirs.sha256:
        found.append("reference model")
    served = {str(role): server.readback for role, server in before.servers.items() if role != "candidate"}
    if not served.get("reference"):
        found.append("nothing was read back from its server")
    try:
        require_steady(served)
    except NotComparable as error:
        found.append(str(error))
    for name in ("serving", "sampling"):
        mine, other = getattr(policy, name).model_dump(), getattr(sealed.policy, name).model_dump()
        found += _different(name, mine, other, OF_NO_MATTER)
    for suite, settings in policy.suites.items():
        if sealed.policy.suites.get(suite) != settings:
            found.append(f"suites.{suite}")
        elif before.items_sha256.get(suite) != manifest.items_sha256[suite]:
            found.append(f"items of {suite}")
    if before.quantgate_version != manifest.quantgate_version:
        found.append(f"quantgate {before.quantgate_version}")
    found += _different("version of", manifest.versions, before.versions)
    found += _different("hardware", _machine(manifest.hardware), _machine(before.hardware))
    return found


def reuse(
    earlier: RunFolder,
    run: RunFolder,
    policy: Policy,
    manifest: Manifest,
    items: Mapping[str, Mapping[Role, Sequence[ItemRef]]],
    with_files: Collection[str] = (),
) -> int:
    """Take over the reference's samples for the items of this run, those of its noise floor too. Returns how many.

    Only what the new run's log does not hold yet is taken; errors are not, nor samples of suites `with_files` whose
    files (a trajectory's log-probabilities) are gone, so that they are asked again.
    """
    before, taken = earlier.manifest(), 0
    manifest.baseline = Baseline(run_id=before.run_id, created=before.created, path=str(earlier.path))
    run.write_manifest(manifest)  # first: samples without a word of where they came from must not be
    same_noise = policy.noise_floor is not None and policy.noise_floor.by == before.noise_by
    roles: list[Role] = ["reference", "noise"] if same_noise else ["reference"]
    for suite, by_role in items.items():
        wanted = {(role, i.task, i.item, i.repeat) for role in roles for i in by_role.get(role, ())}
        with closing(run.log(suite)) as log:
            for sample in read_samples(earlier.samples_path(suite)):
                if (sample.role, *sample.key.pair[1:]) not in wanted or sample.key in log or sample.error:
                    continue
                files = list((earlier.path / suite).glob(f"{sample.item}.{sample.role}.*"))
                if not files and suite in with_files:
                    continue
                for file in files:
                    (run.path / suite).mkdir(exist_ok=True)
                    shutil.copy2(file, run.path / suite / file.name)
                log.append(sample)
                taken += 1
                if sample.role == "noise":
                    manifest.noise_by = before.noise_by
    for role in roles:
        if role in before.servers:
            manifest.servers[role] = before.servers[role]
    return taken


def _different(
    what: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], ignored: set[str] | frozenset[str] = frozenset()
) -> list[str]:
    names = sorted((ours.keys() | theirs.keys()) - ignored)
    return [
        f"{what} {name} ({_short(theirs.get(name))}, now {_short(ours.get(name))})"
        for name in names
        if ours.get(name) != theirs.get(name)
    ]


def _short(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)[:80]


def _machine(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """What of the hardware an answer may depend on: not how much memory happens to be free."""
    gpus = [(g.get("name"), g.get("memory_gib")) for g in hardware.get("gpus", []) if isinstance(g, dict)]
    return {"processor": hardware.get("processor"), "cores": len(hardware.get("cpus", [])), "gpus": gpus}
