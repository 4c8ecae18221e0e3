"""Many runs beside each other: each model's checks over time, from manifests and verdicts alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.contract.errors import BadInput
from harness.contract.samples import ROLES
from harness.contract.secrets import hide_secret
from harness.contract.whole_files import read_json
from harness.judging.results import CheckResult
from harness.judging.verdict import SCHEMA_VERSION, Verdict
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from reports.cards.licence import public_name
from reports.text import date, one_line

MOST_RUNS = 500
"""The latest; a page of more helps nobody."""


@dataclass(frozen=True)
class Run:
    """One judged run."""

    path: Path
    manifest: Manifest
    verdict: Verdict

    @property
    def model(self) -> str:
        """What the candidate is called; one line through time is of one name, whatever its weights."""
        facts = self.manifest.models.get("candidate")
        return public_name(facts.name) if facts else "unnamed"

    @property
    def reference(self) -> str:
        facts = self.manifest.models.get("reference")
        return public_name(facts.name) if facts else "unnamed"

    @property
    def policy(self) -> str:
        return one_line(self.verdict.policy_name, 80)

    @property
    def when(self) -> str:
        return date(one_line(self.manifest.created, 60))

    @property
    def name(self) -> str:
        return one_line(self.manifest.run_id, 120)

    @property
    def headline(self) -> str:
        """The outcome as no page may print it without saying by which policy."""
        return f"{self.verdict.verdict}{', judged after the fact' if self.verdict.after_the_fact else ''}"


@dataclass(frozen=True)
class History:
    """Runs in the order in which they began, and the folders that cannot be shown."""

    runs: list[Run] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(folder, why)."""


CheckKey = tuple[str, str, str]
"""(metric, on, kind of margin): what makes two checks of different runs the same statement."""


def key_of(check: CheckResult) -> CheckKey:
    return check.metric, check.on, check.margin_kind


@dataclass(frozen=True)
class CheckHistory:
    """One check through the runs of a model under policies of one name."""

    key: CheckKey
    points: list[tuple[Run, CheckResult]]


@dataclass(frozen=True)
class RunGroup:
    """One model under policies of one name."""

    model: str
    policy: str
    runs: list[Run]
    lines: list[CheckHistory]


def read_history(paths: Iterable[Path]) -> History:
    """Read run folders, and the run folders inside other folders.

    A folder that looks like a run and cannot be shown (unfinished, not judged, broken) is named with the reason.

    Raises:
        BadInput: a path that is not there, or nothing at all that looks like a run.
    """
    runs: list[Run] = []
    skipped: list[tuple[str, str]] = []
    folders = _folders(paths)
    for folder in folders:
        try:
            runs.append(_read(folder))
        except (BadInput, OSError, ValueError) as error:
            said = str(error).replace(f"{folder}/", "")
            skipped.append((one_line("/".join(folder.resolve().parts[-2:]), 200), one_line(said, 300)))
    runs.sort(key=lambda run: (run.manifest.created, run.name))
    for run in runs[:-MOST_RUNS]:
        skipped.append((run.name, f"older than the latest {MOST_RUNS} runs"))
    return History(runs[-MOST_RUNS:], skipped)


def groups(runs: Sequence[Run]) -> list[RunGroup]:
    """Runs by model and policy; the model of the latest run first, checks in the order of the latest verdict."""
    found: dict[tuple[str, str], list[Run]] = {}
    for model in dict.fromkeys(run.model for run in reversed(runs)):
        for run in reversed(runs):
            if run.model == model:
                found.setdefault((model, run.policy), []).append(run)
    made = []
    for (model, policy), latest_first in found.items():
        lines: dict[CheckKey, list[tuple[Run, CheckResult]]] = {}
        for run in latest_first:
            for check in {key_of(check): check for check in run.verdict.checks}.values():
                lines.setdefault(key_of(check), []).append((run, check))
        made.append(
            RunGroup(model, policy, latest_first[::-1], [CheckHistory(key, line[::-1]) for key, line in lines.items()])
        )
    return made


def _folders(paths: Iterable[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise BadInput(f"{path} is no folder; give run folders, or a folder of run folders")
        inside = [path] if _looks_like_a_run(path) else sorted(each for each in path.iterdir() if each.is_dir())
        found |= {each.resolve(): each for each in inside if _looks_like_a_run(each)}
    if not found:
        raise BadInput("no run folder found; give run folders, or a folder of run folders")
    return list(found.values())


def _looks_like_a_run(path: Path) -> bool:
    return any((path / name).exists() for name in ("manifest.json", "policy.yaml", "verdict.json"))


def _read(path: Path) -> Run:
    folder = RunFolder(path)
    manifest = folder.manifest()
    if not (path / "verdict.json").exists():
        raise BadInput("no verdict: the run did not finish, or was never judged (quantgate judge RUN)")
    version = read_json(path / "verdict.json").get("schema_version")
    if version != SCHEMA_VERSION:
        raise BadInput("judged by another version of quantgate: run quantgate judge RUN")
    return Run(path, manifest, folder.verdict())


def facts_of(run: Run) -> dict[str, dict[str, str]]:
    """What a run may differ in from another, by part: name -> value."""
    manifest = run.manifest
    known = [(role, manifest.models[role]) for role in ROLES if role in manifest.models]
    models = {f"{role}: {name}": value for role, facts in known for name, value in _model(facts).items()}
    servers = {
        f"{role}: {one_line(name)}": one_line(hide_secret(name, value), 300)
        for role in ROLES
        if role in manifest.servers
        for name, value in manifest.servers[role].readback.items()
    }
    versions = {"quantgate": manifest.quantgate_version} | manifest.versions
    return {
        "Policy": {
            "name": run.policy,
            "sha256": run.verdict.policy_sha256,
            "sealed sha256": run.verdict.sealed_policy_sha256,
        },
        "Models": models,
        "Versions": {one_line(name): one_line(value) for name, value in versions.items()},
        "Hardware": {one_line(name): one_line(str(value)) for name, value in manifest.hardware.items()},
        "Servers": servers,
        "Items, sha256": {one_line(suite): sha for suite, sha in manifest.items_sha256.items()},
        "Samples, sha256": {
            one_line(suite): f"{file.sha256} ({file.lines:,} lines)" for suite, file in manifest.samples.items()
        },
    }


def _model(facts: object) -> dict[str, str]:
    names = ("name", "sha256", "bytes", "bits_per_weight", "quantization")
    return {name.replace("_", " "): one_line(str(getattr(facts, name))) for name in names}
