"""A disk that fills up while something is written: nothing half-written stays, and with room the run goes on.

The disk is a tmpfs that is made as small as what lies in it, at the moment before a write.
"""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer

from harness.contract.samples import Role
from tests.endurance.gates import Gate, raw_samples, require_no_orphan, require_same

pytestmark = pytest.mark.slow
PAGE = 4096
ROOM = "size=2g"
WRITES = {
    "the items": "harness.runs.folder:RunFolder.write_items",
    "the manifest": "harness.runs.folder:RunFolder.write_manifest",
    "samples": "harness.contract.samples:SampleLog.append",
    "Parquet": "suites.divergence.suite:write_trajectory",
    "the verdict": "harness.runs.folder:RunFolder.write_verdict",
    "the report": "reports.render:render",
}
MOMENTS = {
    "the items": (2,),
    "the manifest": (1, 5),
    "samples": (1, 40),
    "Parquet": (1, 12),
    "the verdict": (1,),
    "the report": (1,),
}
"""At which call of the write the disk becomes full."""
SMALL = ("samples", "Parquet")
"""Those of `make test`."""


def _cases() -> Iterator[Any]:
    for what, calls in MOMENTS.items():
        for call in calls:
            for spare in (0, 2):
                small = (call, spare) == (calls[-1], 0) and what in SMALL
                marks = () if small else (pytest.mark.soak,)
                yield pytest.param(what, call, spare, marks=marks, id=f"{what}, call {call}, {spare} pages")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", ROOM, "tmpfs", str(path)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def _fill(disk: Path, spare: int) -> None:
    """Leave so many pages. Other threads write, too: a size that is less than what lies there by now is refused."""
    for _ in range(50):
        there = os.statvfs(disk)
        used = (there.f_blocks - there.f_bfree) * there.f_frsize
        size = f"remount,size={used + spare * PAGE}"
        made = subprocess.run(["mount", "-o", size, str(disk)], capture_output=True, check=False)
        if made.returncode == 0:
            return
    raise AssertionError(made.stderr.decode())


def _full_before(what: str, call: int, disk: Path, spare: int) -> None:
    """In the gate's process: the disk is full when `what` is written for the `call`-th time."""
    module, _, name = WRITES[what].partition(":")
    *parents, last = name.split(".")
    owner = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    write, calls = getattr(owner, last), iter(range(1, 1 << 30))

    def full(*args: Any, **named: Any) -> Any:
        if next(calls) == call:
            _fill(disk, spare)
        return write(*args, **named)

    setattr(owner, last, full)


@pytest.mark.parametrize(("what", "call", "spare"), _cases())
def test_a_full_disk_ends_the_gate_and_loses_nothing(
    good: dict[Role, FakeServer],
    make_gate: Callable[..., Gate],
    undisturbed: Gate,
    disk: Path,
    tmp_path: Path,
    what: str,
    call: int,
    spare: int,
    record: Callable[..., None],
) -> None:
    gate = make_gate("run", {role: server.url for role, server in good.items()})
    gate.out, gate.log = disk / "run", tmp_path / "run.log"
    status = gate.wait(gate.start(_full_before, what, call, disk, spare))
    assert status == 4, gate.said()
    last = gate.said().splitlines()[-1]
    assert last.startswith("quantgate: ") and "No space left on device" in last and "make room" in last, gate.said()
    assert str(disk) in last, f"it does not say where: {last}"
    require_no_orphan(gate)
    assert not list(gate.out.rglob(".*.tmp")), "a half-written file is left"
    before = raw_samples(gate.run) if (gate.out / "samples").exists() else []
    subprocess.run(["mount", "-o", f"remount,{ROOM}", str(disk)], check=True)
    assert gate.finish() == 0, gate.said()
    require_same(gate, undisturbed.run)
    kept = {sample.key: sample for sample in raw_samples(gate.run)}
    assert all(kept[sample.key] == sample for sample in before), "a stored sample was asked again"
    record(
        f"disk full while writing {what}",
        f"tmpfs made as small as what lies in it, {spare} pages spare",
        f"call {call}",
        f"exit code 4, then with room the same verdict; {len(before)} samples were kept",
        "nothing",
    )
