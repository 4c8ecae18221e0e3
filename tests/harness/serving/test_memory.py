"""Memory of a server by its log and its processes; neither is believed more than it says."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.serving.memory import measure_memory


def test_memory_at_load_is_what_the_last_server_of_the_log_says(tmp_path: Path) -> None:
    log = tmp_path / "candidate.log"
    said = (
        "(Worker pid=7) INFO 11-22 04:24:11 [model_runner.py:425] Model loading took {} GiB memory and 3.211 seconds\n"
    )
    log.write_bytes(said.format("9.99").encode() + b"\xff\xfe garbage\n" + said.format("1.25").encode() + b"ready\n")
    assert measure_memory(log)["load_bytes"] == 1.25 * 2**30
    # The other model runner of 0.26, as it wrote on an H100.
    log.write_text("INFO 11-22 05:43:27 [model_runner.py:305] Model loading took 3.41 GiB and 4.100859 seconds\n")
    assert measure_memory(log)["load_bytes"] == round(3.41 * 2**30)
    log.write_text("Model loading took a while\n")
    assert "load_bytes" not in measure_memory(log)
    assert "load_bytes" not in measure_memory(tmp_path / "none.log")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child, which holds 64 MiB that were written to."""
    child = "import sys; held = bytearray(b'x' * (64 << 20)); print('held', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None and started.stdout.readline() == b"held\n"
        yield started
        assert started.stdin is not None
        started.stdin.close()


def state(tmp_path: Path, process: subprocess.Popen[bytes], *, later: float = 0.0, cleanup: Any = ()) -> Path:
    """The log beside whose state file the process is named, as harness.serving.guard writes it."""
    identity = {"pid": process.pid, "created": psutil.Process(process.pid).create_time() + later}
    record = {"guard": identity, "server": identity, "cleanup": list(cleanup)}
    (tmp_path / "reference.state.json").write_text(json.dumps(record))
    return tmp_path / "reference.log"


def test_resident_memory_is_that_of_the_whole_process_tree(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    found = measure_memory(state(tmp_path, process))["resident_bytes"]
    assert 64 << 20 < found < 256 << 20


def test_resident_memory_of_another_process_or_a_container_is_not_taken(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    assert "resident_bytes" not in measure_memory(state(tmp_path, process, later=5.0))
    assert "resident_bytes" not in measure_memory(state(tmp_path, process, cleanup=["docker", "rm", "x"]))
    log = state(tmp_path, process)
    for broken in ("{", "[]", '{"server": {"pid": "x"}, "cleanup": []}', "null"):
        (tmp_path / "reference.state.json").write_text(broken)
        assert "resident_bytes" not in measure_memory(log)
