"""A comparison as a run folder, with the report of a gate run: it can be rendered and judged again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness import __version__
from harness.contract.errors import BadInput
from harness.contract.model_facts import ModelFacts
from harness.contract.samples import ROLES, Item
from harness.offline.compare import Comparison
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest


def write_report(
    folder: Path, found: Comparison, reference: Path, candidate: Path, options: Sequence[str] = ()
) -> Path:
    """Write a comparison and its report into a folder that holds none yet; returns the page.

    `options` are those of the command line, for who wants to repeat it.

    Raises:
        BadInput: there is a run or a report already.
        RunFailed, OSError: it cannot be written.
    """
    from reports.render import render

    require_free(folder)
    paths = reference, candidate
    run = RunFolder(folder)
    manifest = Manifest(
        run_id=folder.resolve().name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        quantgate_version=__version__,
        command=["quantgate", "compare", str(reference), str(candidate), *options],
        policy_name=found.sealed.policy.name,
        policy_sha256=found.sealed.sha256,
        models={
            role: ModelFacts(name=name, path=str(path.resolve()), quantization="unknown")
            for role, path, name in zip(ROLES, paths, found.results.models or map(str, paths), strict=True)
        },
        notes=list(found.notes),
    )
    run.create(manifest, found.sealed)
    suites = sorted({suite for suite, *_ in found.results.planned})
    for suite in suites:
        manifest.items_sha256[suite] = run.write_items(suite, _items(suite, found))
        log = run.log(suite)
        for sample in found.results.samples:
            if sample.suite == suite:
                log.append(sample)
        log.close()
        for _, task, *_ in (key for key in found.results.planned if key[0] == suite):
            manifest.planned[f"{suite}/{task}"] = manifest.planned.get(f"{suite}/{task}", 0) + 1
    manifest.samples = run.sample_files()
    run.write_manifest(manifest)
    run.write_verdict(found.verdict)
    return render(folder)


def require_free(folder: Path) -> None:
    """Raises BadInput: a report would overwrite what is there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"--report {folder} is there already: name a folder that is new or empty")


def _items(suite: str, found: Comparison) -> Iterator[Item]:
    """What was asked, by the reference's results where both have it."""
    asked = {sample.key.pair: sample.prompt_sha256 for sample in reversed(found.results.samples)}
    for key, sha256 in found.results.planned.items():
        if key[0] == suite:
            prompt = found.results.prompts.get(key, "")
            messages = [{"role": "user", "content": prompt}] if prompt else []
            yield Item(
                task=key[1], item=key[2], repeat=key[3], prompt=messages, prompt_sha256=sha256 or asked.get(key, "")
            )
