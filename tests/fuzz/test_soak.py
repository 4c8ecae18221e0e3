"""`make soak`: a hundred thousand inputs, drawn anew each time, without an uncaught exception or a hang."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

INPUTS = 100_000


@pytest.mark.soak
def test_a_hundred_thousand_inputs() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "not soak", str(Path(__file__).parent)]
    environment = {**os.environ, "QUANTGATE_FUZZ": str(INPUTS)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(ended.stdout)
    done = re.search(r"fuzz: +([\d,]+) inputs, .* in all", ended.stdout)
    assert ended.returncode == 0 and done, ended.stdout[-5000:]
    assert int(done[1].replace(",", "")) >= INPUTS
