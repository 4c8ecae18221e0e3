"""Stands in for `vllm bench serve` where a test needs it to misbehave: reads its flags, does what it is told.

    python -m bench_stub HOW --flag=value ...
    python -m bench_stub --help

HOW is JSON: `result` laid over a good result file, `raw` in its place, `exit`, `says`, `sleeps` seconds.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def good_result(requests: int, input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """A result file of vLLM 0.32, shortened."""
    return {
        "backend": "openai",
        "request_rate": "inf",
        "duration": 4.0,
        "completed": requests,
        "failed": 0,
        "total_input_tokens": requests * input_tokens,
        "total_output_tokens": requests * output_tokens,
        "request_throughput": requests / 4,
        "request_goodput": None,
        "output_throughput": requests * output_tokens / 4,
        "total_token_throughput": requests * (input_tokens + output_tokens) / 4,
        "p50_ttft_ms": 90.5,
        "p99_ttft_ms": 180.25,
        "p50_tpot_ms": 26.5,
    }


def main(how: dict[str, Any], flags: list[str]) -> int:
    options = dict(flag.removeprefix("--").split("=", 1) for flag in flags if "=" in flag)
    folder = Path(options["result-dir"])
    seen = folder / f"seen.{os.getpid()}"
    seen.write_text(
        json.dumps({"options": options, "pid": os.getpid(), "parent": os.getppid(), "env": dict(os.environ)})
    )
    seen.replace(folder / "seen.json")  # whoever waits for it finds it whole
    print(how.get("says", "ready"), flush=True)
    time.sleep(how.get("sleeps", 0))
    sizes = (int(options[f]) for f in ("num-prompts", "random-input-len", "random-output-len"))
    result = good_result(*sizes) | how.get("result", {})
    if "exit" not in how:
        text = how.get("raw", json.dumps(result))
        (folder / options["result-filename"]).write_text(text)
    return int(how.get("exit", 0))


if __name__ == "__main__":
    sys.exit("--help" not in sys.argv and main(json.loads(sys.argv[1]), sys.argv[2:]))
