"""What a resumed run asks again besides what is missing: items that ended in an error which says nothing of them.

A request that found no server, an answer that never came, a container that could not be started: kept for good, six of
them in 500 would make a run INCONCLUSIVE for ever. What the server or the grader said of the item itself (refused,
budget, garbage, grader) is an answer of a kind and stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from harness.contract.error_kinds import FOLLOWS, PASSING, error_kind
from harness.contract.samples import Key, Sample, read_samples
from harness.contract.whole_files import whole_file
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest


def forget_passing_errors(run: RunFolder, manifest: Manifest, in_turn: Collection[str] = ()) -> int:
    """Take the samples with passing errors out of a run, of all roles, so that they are asked again. Returns how many.

    `in_turn` names the suites that ask the roles in turn, since they measure servers: of these a pair goes as a whole.
    The verdict and the manifest's seal go first: from here on the run is an unfinished one, whenever this process ends.

    Raises:
        BadInput: a line that is no sample.
    """
    paths = sorted((run.path / "samples").glob("*.jsonl"))
    found = {path: passing(read_samples(path), path.stem in in_turn) for path in paths}
    forgotten = sum(len(keys) for keys in found.values())
    if forgotten:
        (run.path / "verdict.json").unlink(missing_ok=True)
        manifest.samples = {}
        run.write_manifest(manifest)
    for path, keys in found.items():
        if keys:
            _rewrite(path, keys)
    return forgotten


def passing(samples: Iterable[Sample], whole_pairs: bool = False) -> set[Key]:
    """Keys of the samples to be asked again: with a passing error, or for want of the reference's that has one.

    With `whole_pairs` the samples of the other roles go with them: today's speed is no pair for yesterday's.
    """
    kinds = {sample.key: error_kind(sample.error) for sample in samples}
    stay = {k.pair for k, kind in kinds.items() if k.role == "reference" and kind and kind not in PASSING}
    again = {k for k, kind in kinds.items() if kind in PASSING or (kind == FOLLOWS and k.pair not in stay)}
    pairs = {key.pair for key in again} if whole_pairs else set()
    return again | {key for key in kinds if key.pair in pairs}


def _rewrite(path: Path, without: set[Key]) -> None:
    """Write a file of samples anew, the bytes of every other line as they were; it is the old one or the new one."""
    with path.open("rb") as old, whole_file(path) as new:
        for line, sample in zip(old, read_samples(path), strict=False):  # a half-written last line is no sample
            if sample.key not in without:
                new.write(line)
