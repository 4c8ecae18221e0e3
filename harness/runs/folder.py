"""The run folder: everything one gate run read, asked, got and decided. A public format that tools may read."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from harness.contract.errors import BadInput, RunFailed, first_error
from harness.contract.items import ItemRef, index_items, load_item, write_items
from harness.contract.names import file_in
from harness.contract.policy import SealedPolicy, parse_policy
from harness.contract.samples import Item, PairKey, Role, Sample, SampleLog, read_samples
from harness.contract.whole_files import sha256_of_file, write_whole
from harness.judging.verdict import Verdict
from harness.runs.manifest import Manifest, SampleFile

M = TypeVar("M", bound=BaseModel)


class RunFolder:
    """Paths and files of one run. Writes are whole (temporary file, then rename) or appended lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    @property
    def report_path(self) -> Path:
        return self.path / "report"

    def samples_path(self, suite: str) -> Path:
        """Raises BadInput: no name of a file; the manifest of a run may be anybody's."""
        return file_in(self.path / "samples", suite, ".jsonl")

    def items_path(self, suite: str) -> Path:
        """Raises BadInput as `samples_path` does."""
        return file_in(self.path / "items", suite, ".jsonl")

    def log_path(self, role: Role) -> Path:
        return self.path / "logs" / f"{role}.log"

    def require_begun(self) -> None:
        """Raises BadInput when the folder holds no run to go on with."""
        if not self.manifest_path.exists():
            raise BadInput(f"{self.path} holds no run that has begun; leave out --resume to begin it")

    def require_new(self) -> None:
        """Raises BadInput when the folder already holds a run."""
        if self.manifest_path.exists():
            raise BadInput(f"{self.path} already holds a run; add --resume to finish it or choose another --out")

    # -- sealing ---------------------------------------------------------------------------------------------

    def create(self, manifest: Manifest, sealed: SealedPolicy) -> None:
        """Begin a run: the policy's bytes first, then the manifest that names their sha256.

        Raises:
            BadInput: the folder already holds a run.
            RunFailed: it cannot be written.
        """
        self.require_new()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.path / "policy.yaml", sealed.text)
        except OSError as error:
            raise RunFailed(f"run folder {self.path} cannot be written: {error}") from None
        self.write_manifest(manifest)

    def sealed_policy(self) -> SealedPolicy:
        """The policy sealed into this run.

        Raises:
            BadInput: policy.yaml is missing or was edited after the seal.
        """
        path = self.path / "policy.yaml"
        try:
            sealed = parse_policy(path.read_bytes().decode("utf-8"), source=str(path))
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}; not a run folder?") from None
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} was edited after the run began: {error}") from None
        expected = self.manifest().policy_sha256
        if sealed.sha256 != expected:
            raise BadInput(
                f"{path} was edited after the run began (sha256 {sealed.sha256[:12]}, sealed {expected[:12]})"
            )
        return sealed

    # -- reading and writing ---------------------------------------------------------------------------------

    def manifest(self) -> Manifest:
        return _read_model(Manifest, self.manifest_path)

    def write_manifest(self, manifest: Manifest) -> None:
        write_whole(self.manifest_path, manifest.model_dump_json(indent=2) + "\n")

    def verdict(self) -> Verdict:
        return _read_model(Verdict, self.path / "verdict.json")

    def write_verdict(self, verdict: Verdict) -> None:
        write_whole(self.path / "verdict.json", verdict.model_dump_json(indent=2) + "\n")

    def write_items(self, suite: str, items: Iterable[Item]) -> str:
        """Store a suite's items as they are made; returns the sha256 of the file's bytes."""
        return write_items(self.items_path(suite), items)

    def items(self, suite: str) -> list[ItemRef]:
        """A suite's items by name; `load` reads one whole.

        Raises:
            BadInput: the file is missing, is not what the manifest names, or holds a broken line.
        """
        return index_items(self.sealed_items(suite))

    def sealed_items(self, suite: str) -> Path:
        """The file of a suite's items. Raises BadInput: it is missing, or not what the manifest names."""
        path = self.items_path(suite)
        if sha256_of_file(path) != self.manifest().items_sha256.get(suite):
            raise BadInput(f"{path} is not the file that the manifest names; the run cannot go on with other items")
        return path

    def load(self, suite: str, ref: ItemRef) -> Item:
        """One item with its prompt. Raises BadInput: the file was changed since."""
        return load_item(self.items_path(suite), ref)

    def planned(self) -> dict[PairKey, str | None]:
        """Every pair that this run was to make, with the sha256 of its prompt. Raises BadInput as `items` does."""
        suites = self.manifest().items_sha256
        return {ref.pair(suite): ref.prompt_sha256 for suite in suites for ref in self.items(suite)}

    def samples(self) -> Iterator[Sample]:
        """All samples of the run, suite by suite. Raises BadInput for a broken line."""
        for path in sorted((self.path / "samples").glob("*.jsonl")):
            yield from read_samples(path)

    def sample_files(self) -> dict[str, SampleFile]:
        """What samples/ holds, by suite."""
        found = {}
        for path in sorted((self.path / "samples").glob("*.jsonl")):
            with path.open("rb") as file:
                lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
            found[path.stem] = SampleFile(lines=lines, sha256=sha256_of_file(path))
        return found

    def edited_samples(self) -> list[tuple[str, int, int]]:
        """Suites whose samples are not what the finished run wrote: (name, lines then, lines now)."""
        sealed, now = self.manifest().samples, self.sample_files()
        suites = [s for s in sorted(sealed.keys() | now.keys()) if sealed.get(s) != now.get(s)] if sealed else []
        gone = SampleFile(lines=0, sha256="")
        return [(suite, sealed.get(suite, gone).lines, now.get(suite, gone).lines) for suite in suites]

    def require_untouched(self) -> None:
        """Check that a finished run's samples are those that it wrote.

        Raises:
            BadInput: naming the file that was edited, or into which samples of another run were mixed.
        """
        for suite, then, now in self.edited_samples():
            counts = f"{then} lines then, {now} now"
            raise BadInput(f"{self.samples_path(suite)} is not what the run wrote ({counts}); it cannot be judged")

    def log(self, suite: str) -> SampleLog:
        return SampleLog(self.samples_path(suite))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process works on a run. The lock ends with the process, however it ends.

        Raises:
            RunFailed: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunFailed(f"{self.path} is being worked on by another quantgate; wait for it") from None
            yield


def _read_model(model: type[M], path: Path) -> M:
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; not a (finished) run folder?") from None
    except ValidationError as error:
        raise BadInput(f"{path}: {first_error(error, 'file')}") from None
