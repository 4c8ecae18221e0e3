"""Results made elsewhere, for the tests of `compare`: lm-eval folders, swebench reports and runs."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.contract.policy import parse_policy
from harness.contract.samples import Item, Sample
from harness.judging.results import CheckResult
from harness.judging.verdict import Verdict
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest, ServerFacts

DATA = Path(os.environ.get("QUANTGATE_DATA") or Path(__file__).parents[3] / "shared" / "data")
STAMP = "2026-01-01T00-00-00.000000"
Record = dict[str, Any]


def record(item: object, score: object, **changes: Any) -> Record:
    """One line of lm-eval's samples; `None` in changes takes a key away."""
    made = {
        "doc_id": item,
        "target": "t",
        "arguments": {"gen_args_0": {"arg_0": f"question {item}", "arg_1": {"until": [], "max_gen_toks": 256}}},
        "filter": "none",
        "metrics": ["exact_match"],
        "doc_hash": f"d{item}",
        "prompt_hash": f"p{item}",
        "target_hash": "t",
        "exact_match": score,
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


def records(scores: Iterable[object], **changes: Any) -> list[Record]:
    return [record(i, score, **changes) for i, score in enumerate(scores)]


def write(folder: Path, rows: Iterable[Record], task: str = "gsm8k", stamp: str = STAMP) -> Path:
    """A folder as lm-eval writes it, with the model's own folder in between."""
    path = folder / "org__model" / f"samples_{task}_{stamp}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


def summary(folder: Path, *names: str, stamp: str = STAMP, **content: Any) -> Path:
    """What lm-eval writes beside the samples of one call, in a folder below: `results_<time>.json`."""
    path = folder.joinpath(*(names or ("org__model",))) / f"results_{stamp}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")
    return path


def older(rows: Iterable[Record]) -> list[Record]:
    """Records as lm-eval 0.4.0 to 0.4.2 wrote them: no hashes, no names of filters and metrics, arguments as lists."""
    made = []
    for row in rows:
        first = row["arguments"]["gen_args_0"]
        kept = {
            key: value for key, value in row.items() if not key.endswith("_hash") and key not in ("filter", "metrics")
        }
        made.append(kept | {"doc": {"question": first["arg_0"]}, "arguments": [[first["arg_0"], first["arg_1"]]]})
    return made


Both = Callable[..., tuple[Path, Path]]
FINE = records([1] * 5)


def near(value: float) -> Any:
    """`pytest.approx`, as a part of something that is compared as a whole."""
    return pytest.approx(value)


def only(verdict: Verdict) -> CheckResult:
    (check,) = verdict.checks
    assert check.verdict == verdict.verdict
    return check


def report(path: Path, **ids: Iterable[str]) -> Path:
    """A report as swebench 5 writes it. The outcome of each instance is given by list."""
    outcomes = ("resolved", "unresolved", "empty_patch", "error", "incomplete", "infra_failure", "ambiguous_failure")
    lists = {f"{name}_ids": sorted(ids.get(name, ())) for name in outcomes}
    total = sum(len(lists[f"{name}_ids"]) for name in outcomes[:5])
    counts = {key.replace("_ids", "_instances"): len(value) for key, value in lists.items()}
    made = {"total_instances": total, **counts, **lists, "failure_reasons": {}, "schema_version": 2}
    path.write_text(json.dumps(made, indent=4), "utf-8")
    return path


def ids(start: int, stop: int) -> list[str]:
    return [f"repo__repo-{i:04d}" for i in range(start, stop)]


POLICY = """\
name: test
sampling: {max_tokens: 256}
suites: {cot: {tasks: {word_problems: {limit: 400}}}, divergence: {}}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.01}
"""


def make_run(path: Path, right: int, asked: int = 400, prompt: str = "p", **facts: Any) -> Path:
    """A run whose candidate gets `right` of `asked` items right, of 400; its reference knows nothing."""
    run, sealed = RunFolder(path), parse_policy(facts.pop("policy", POLICY))
    named: dict[str, Any] = {"run_id": "r", "created": "c", "quantgate_version": "0", "command": []}
    manifest = Manifest(**named, policy_name="test", policy_sha256=sealed.sha256)
    run.create(manifest, sealed)
    items = [Item(task="sums", item=str(i), prompt=[], prompt_sha256=f"{prompt}{i}", target="7") for i in range(400)]
    manifest.items_sha256 = {"cot": run.write_items("cot", items)}
    talk = [item.model_copy(update={"task": "chat", "target": None}) for item in items[:3]]
    manifest.items_sha256["divergence"] = run.write_items("divergence", talk)
    manifest.servers = {"candidate": ServerFacts(url="u", readback={"model": path.name} | facts)}
    for suite, of_suite in (("cot", items[:asked]), ("divergence", talk)):
        log = run.log(suite)
        for i, item in enumerate(of_suite):
            fields: dict[str, Any] = {"suite": suite, "task": item.task, "item": item.item}
            fields["prompt_sha256"] = item.prompt_sha256
            log.append(Sample(**fields, role="reference", score=0.0))
            score = float(i < right) if suite == "cot" else None
            log.append(Sample(**fields, role="candidate", score=score))
        log.close()
    manifest.samples = run.sample_files()
    run.write_manifest(manifest)
    return path
