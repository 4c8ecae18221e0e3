"""OUT.partial: finished layers, the calibration batch on its way through the model, and where to go on.

OUT.partial/lock                      held while a process works here
OUT.partial/state.json                which model, recipe and calibration; layers done, checksums of their shards
OUT.partial/hidden-00007.safetensors  what enters layer 7
OUT.partial/gradient-00007.safetensors  what errors at the outputs of layer 7 do to the loss, where it is asked for
OUT.partial/experts-00007.json        how many tokens each expert of layer 7 saw
OUT.partial/model/                    becomes OUT in one rename, when it is complete
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from quantizers.checked_files import checksum_of_file, read_checked, require_checksum, write_checked
from quantizers.checkpoint import anew, one_line, read_header, read_json_object
from quantizers.errors import QuantizeError
from quantizers.gradients import BackwardPass
from quantizers.writing import write_text

STATE_VERSION = 3
"""Grows when the files or the codes of an older run would be read as something else."""


@dataclass
class States:
    """What enters a layer [N, L, D]: in the quantized model and, where layers are tuned, in the original one."""

    quantized: torch.Tensor
    original: torch.Tensor | None

    def to(self, device: str) -> States:
        """The same on another device."""
        return States(self.quantized.to(device), None if self.original is None else self.original.to(device))


@dataclass
class WorkFolder:
    """An open work folder."""

    folder: Path
    identity: dict[str, str]
    layers_done: int
    checksums: list[int] = field(default_factory=list)
    """Of the shards of the layers that are done."""

    @property
    def model(self) -> Path:
        """Where the quantized model grows."""
        return self.folder / "model"

    def load_states(self) -> States:
        """What enters layer `layers_done`. Raises QuantizeError if it is not there, or damaged."""
        found = read_checked(self._hidden(self.layers_done))
        return States(found["quantized"], found.get("original"))

    def require_shards(self, names: Sequence[str], *, changed: bool) -> None:
        """Raises QuantizeError, naming it, where a shard of a finished layer is missing or damaged.

        Args:
            changed: shards were being written again when the run before this one ended.
        """
        if not 0 <= self.layers_done <= len(names) or len(self.checksums) != self.layers_done:
            raise QuantizeError(
                f"{self.folder / 'state.json'} says that {self.layers_done} of {len(names)} layers are done: "
                f"{anew(self.folder)}"
            )
        for name, checksum in zip(names, self.checksums, strict=False):
            read_header(self.model / name, anew(self.folder))
            if not changed:
                require_checksum(self.model / name, checksum, self.folder)

    def finish_layer(self, shard: str, states: States | None) -> None:
        """Record that the next layer's `shard` is written; `states` enter the layer after it."""
        self.checksums.append(checksum_of_file(self.model / shard))
        if states is not None:
            original = {} if states.original is None else {"original": states.original}
            write_checked(self._hidden(self.layers_done + 1), {"quantized": states.quantized, **original})
        # The state goes last: whatever it counts is safely on the disk.
        self.layers_done += 1
        self._save()
        self._hidden(self.layers_done - 1).unlink(missing_ok=True)
        BackwardPass(self.folder).gradient(self.layers_done - 1).unlink(missing_ok=True)

    def keep_usage(self, layer: int, usage: Mapping[str, list[int]]) -> None:
        """Keep how many tokens each expert of a layer saw, by the full name of the experts."""
        if usage:
            write_text(self.folder / f"experts-{layer:05d}.json", json.dumps(usage))

    def usage(self) -> dict[str, list[int]]:
        """What was kept of all layers."""
        found: dict[str, list[int]] = {}
        for file in sorted(self.folder.glob("experts-*.json")):
            found |= read_json_object(file, anew(self.folder))
        return found

    def publish(self, out: Path) -> None:
        """Make the model appear as `out` in one step, and remove the work folder."""
        try:
            os.replace(self.model, out)
        except OSError as error:
            raise QuantizeError(f"cannot move {self.model} to {out}: {one_line(error)}") from None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _hidden(self, layer: int) -> Path:
        return self.folder / f"hidden-{layer:05d}.safetensors"

    def _save(self) -> None:
        state: dict[str, object] = {"version": STATE_VERSION, **self.identity, "layers_done": self.layers_done}
        state["checksums"] = self.checksums
        write_text(self.folder / "state.json", json.dumps(state, indent=2) + "\n")


@contextmanager
def open_work(out: Path, identity: Mapping[str, str], needed_bytes: int) -> Iterator[WorkFolder]:
    """The work folder beside `out`: a new one, or the one an interrupted run of the same `identity` left.

    `identity` holds fingerprints by name.

    Raises:
        QuantizeError: `out` exists, the work folder belongs to another model, recipe or calibration, or is in use by
            another process, or the disk has not `needed_bytes` left.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise QuantizeError(f"{out} exists already: choose another folder or remove it")
    folder = out.with_name(out.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise QuantizeError(f"cannot work in {folder}: {one_line(error)}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QuantizeError(f"another process works in {folder}: wait for it or stop it") from None
        try:
            work = _resume(folder, dict(identity))
            free = shutil.disk_usage(folder).free + sum(f.stat().st_size for f in work.model.iterdir())
        except OSError as error:
            raise QuantizeError(f"cannot work in {folder}: {one_line(error)}") from None
        try:
            if free < needed_bytes:
                raise QuantizeError(
                    f"{folder} needs {needed_bytes / 1e9:.3g} GB but {free / 1e9:.3g} GB are free: free"
                    " space or choose another disk"
                )
            yield work
        except Exception:
            if {entry.name for entry in folder.rglob("*")} <= {"lock", "state.json", "model"}:
                shutil.rmtree(folder, ignore_errors=True)  # nothing was done that could be gone on from
            raise


def _resume(folder: Path, identity: dict[str, str]) -> WorkFolder:
    work = WorkFolder(folder, identity, 0)
    if (folder / "state.json").exists():
        state = read_json_object(folder / "state.json", anew(folder))
        done = state.get("layers_done")
        checksums = state.get("checksums")
        if state.get("version") != STATE_VERSION or not isinstance(done, int) or not isinstance(checksums, list):
            raise QuantizeError(f"{folder} was made by another version of quantgate: remove it to start anew")
        other = [name for name, value in identity.items() if state.get(name) != value]
        if other:
            raise QuantizeError(f"{folder} belongs to another {' and '.join(other)}: remove it to start anew")
        if done and not work.model.is_dir():
            # A run that was killed when its model was published, which somebody has removed since.
            for file in folder.iterdir():
                if file.name != "lock" and file.is_file():
                    file.unlink()
            work._save()
            done = 0
        work.layers_done, work.checksums = done, checksums[:done] if done else []
    elif any(entry.name != "lock" and not entry.name.endswith(".tmp") for entry in folder.iterdir()):
        raise QuantizeError(f"{folder} is not a work folder of quantgate: remove it or choose another output")
    else:
        work._save()
    work.model.mkdir(exist_ok=True)
    return work
