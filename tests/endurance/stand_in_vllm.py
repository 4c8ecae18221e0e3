"""In the place of `vllm serve` where a server must fail: the good server of a role, and what a test tells it to do.

$QUANTGATE_TEST_SERVERS names a JSON file, by role: `load` ("oom", "hang"), `dies_after` so many answers. Like vLLM's,
it has a worker process, and this one does not end on SIGTERM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

WORKER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
OOM = """\
(EngineCore pid=7) ERROR EngineCore failed to start.
(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of
(EngineCore pid=7) 79.10 GiB of which 1.25 GiB is free.
RuntimeError: Engine core initialization failed. See root cause above.
"""


def main(arguments: list[str]) -> None:
    """`serve MODEL --host H --port N ...`."""
    model, port = arguments[1], int(arguments[arguments.index("--port") + 1])
    role = Path(model).name
    told = Path(os.environ["QUANTGATE_TEST_SERVERS"])
    how = json.loads(told.read_text("utf-8")).get(role, {})
    subprocess.Popen([sys.executable, "-c", WORKER, model])
    if how.get("load") == "oom":
        sys.exit(OOM)
    if how.get("load") == "hang":
        time.sleep(600)
    from fake_server import FakeServer

    from tests.endurance.good_server import GoodModel

    good = GoodModel("candidate" if role == "candidate" else "reference", 0.01)

    def answer(path: str, body: dict[str, Any]) -> Any:
        if good.answered > how.get("dies_after", 1 << 30):
            os._exit(1)
        return good(path, body)

    server = FakeServer(port)
    server.handler = answer
    with server:
        threading.Event().wait()
