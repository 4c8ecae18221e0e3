"""How long ruler's prompts are, as shares of the tokens that were asked for. CPU only, no server.

    QUANTGATE_DATA=... python -m benchmarks.prompt_lengths --out benchmarks/results/prompt_lengths.json

Tokens are counted in the text that the chat template makes, and not by the suite's own function.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.checkpoint.models import DEMO_NAME
from harness.contract.settings import Sampling
from harness.contract.whole_files import cache_folder
from harness.serving.hardware import detect
from suites.ruler.suite import TASKS, Ruler, RulerConfig

DEMO = cache_folder() / "models" / DEMO_NAME
ITEMS = {4096: 2, 8192: 2, 16384: 2, 32768: 2, 65536: 2, 131072: 1}
"""Items of each task, by length."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, default=DEMO, help="folder of a model; the demo's when absent")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--longest", type=int, default=max(ITEMS), help="no longer prompts than this")
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args(arguments)
    words = ["python -m benchmarks.prompt_lengths", *(sys.argv[1:] if arguments is None else arguments)]
    said = json.dumps({"command": " ".join(words), **measure(asked.tokenizer, asked.tasks, asked.longest)}, indent=1)
    if asked.out:
        asked.out.write_text(said + "\n", "utf-8")
    print(said)
    return 0


def measure(folder: Path, tasks: Sequence[str], longest: int) -> dict[str, Any]:
    """Shares by task and length, and the least and largest of all."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = time.process_time()
    found = {task: shares(tokenizer, task, longest) for task in tasks}
    every = [share for of_task in found.values() for of_length in of_task.values() for share in of_length]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), **detect().record()},
        "load_average": round(os.getloadavg()[0], 2),
        "versions": {name: metadata.version(name) for name in ("quantgate", "tokenizers", "transformers")},
        "tokenizer": folder.name,
        "processor_seconds": round(time.process_time() - start, 1),
        "prompts": len(every),
        "least": min(every),
        "largest": max(every),
        "prompt_tokens_by_asked_tokens": found,
    }


def shares(tokenizer: Any, task: str, longest: int) -> dict[str, list[float]]:
    """Tokens of the prompt by those asked for, one share an item, by length."""
    found = {}
    for length, count in ITEMS.items():
        if length <= longest:
            config = RulerConfig.model_validate({"lengths": [length], "tasks": [task], "per_task": count})
            items = Ruler(config, Sampling.model_validate({}), Path()).items(tokenizer)
            found[str(length)] = [round(tokens(tokenizer, item.prompt) / length, 5) for item in items]
            print(f"{task}@{length}: {found[str(length)]}", file=sys.stderr)
    return found


def tokens(tokenizer: Any, messages: list[dict[str, Any]]) -> int:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


if __name__ == "__main__":
    sys.exit(main())
