"""Runs with invented answers of invented models, for pictures of every page: no model said or scored any of this."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

import report_runs
import suite_runs
from instance_runs import instance_run, store_samples

from harness.contract.pairs import Pair
from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES, Item
from harness.runs.folder import RunFolder
from harness.runs.instances import InstanceOutcome
from suites.materials.word_problems import word_problems

POLICY = """name: made-up
sampling: {temperature: 0.0, max_tokens: 256}
suites:
  cot: {tasks: {word_problems: {limit: 240}}}
  ruler: {lengths: [4096, 8192, 16384, 32768], per_task: 10}
  needle: {lengths: [4096, 32768, 131072]}
  divergence: {}
  decoding: {}
  termination: {}
  language: {}
  speculative: {}
  footprint: {}
  speed: {}
noise_floor: {by: seed, items: 32}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 3 points, floor: 0.10}
  - {metric: truncated_rate, on: cot/*, max_increase: 10 points}
  - {metric: accuracy, on: ruler, max_loss: 15 points, floor: 0.10}
  - {metric: accuracy, on: needle, max_loss: 15 points}
  - {metric: kl_mean, on: divergence, max: 0.05}
  - {metric: flip_rate, on: divergence, max: 0.10}
  - {metric: parting_rate, on: decoding, max_over_noise: 0.05}
  - {metric: accuracy, on: language, max_loss: 5 points}
  - {metric: wrong_language_rate, on: language, max_increase: 2 points, ceiling: 0.05}
  - {metric: bytes_ratio, on: footprint, max: 0.75}
  - {metric: speed_ratio, on: speed, min: 0.9}
confidence: 0.95
"""
INSTANCES: dict[str, tuple[InstanceOutcome | None, InstanceOutcome | None]] = {
    "django__django-1": ("resolved", "unresolved"),
    "django__django-2": ("resolved", "resolved"),
    "sympy__sympy-3": ("unresolved", "patch does not apply"),
    "sympy__sympy-4": ("resolved", "resolved"),
}


def make(folder: Path) -> list[Path]:
    """Three runs in `folder`: one of every suite without containers, an earlier one of it, and one of swebench."""
    now = _run(folder / "made-up", "2026-05-12T09:30:00+00:00", lost=0.08, seed=3)
    before = _run(folder / "made-up-before", "2026-04-02T09:30:00+00:00", lost=0.02, seed=4)
    agents, _ = instance_run(folder / "made-up-agents", INSTANCES)
    store_samples(agents)
    _invent_names(agents)
    report_runs.judge_run(agents)
    return [now, before, agents.path]


def _run(path: Path, created: str, lost: float, seed: int) -> Path:
    sealed, rng = parse_policy(POLICY), random.Random(seed)
    problems = word_problems(240)
    pairs = [*_answers(problems, rng, lost), *suite_runs.every_suite(seed)]
    pairs = [pair for pair in pairs if pair.reference.suite != "swebench"]
    reference = [pair.reference for pair in pairs if pair.reference.suite == "cot"][:32]
    pairs += [Pair(one, one.model_copy(update={"role": "noise"})) for one in reference]
    folder = suite_runs.store(path, pairs, sealed)
    facts = folder.manifest()
    items = [
        Item(
            task="word_problems",
            item=f"{number:04d}",
            prompt=[{"role": "user", "content": problem["question"]}],
            prompt_sha256=pair.reference.prompt_sha256,
            target=problem["answer"].rpartition("#### ")[2],
        )
        for number, (problem, pair) in enumerate(zip(problems, pairs, strict=False))
    ]
    facts.items_sha256["cot"] = folder.write_items("cot", items)
    facts.created, facts.run_id = created, f"{created[:10]}-example-8b-w4a16"
    folder.write_manifest(facts)
    _invent_names(folder)
    report_runs.judge_run(folder)
    return path


def _invent_names(folder: RunFolder) -> None:
    """No real model may stand beside invented numbers."""
    facts = folder.manifest()
    facts.command = ["quantgate", "gate", "example/example-8b-w4a16", "--policy", "made-up"]
    for role, name in zip(ROLES, ("example/example-8b", "example/example-8b-w4a16"), strict=True):
        facts.models[role].name, facts.models[role].path = name, f"/models/{name.rpartition('/')[2]}"
        facts.models[role].claimed = {}
        server = facts.servers[role]
        server.readback["model"] = facts.models[role].path
        server.command = ["vllm", "serve", facts.models[role].path, *server.command[3:]]
    folder.write_manifest(facts)


def _answers(problems: list[dict[str, str]], rng: random.Random, lost: float) -> Iterator[Pair]:
    for number, problem in enumerate(problems):
        solution, _, target = problem["answer"].rpartition("#### ")
        right = rng.random() < 0.7
        kept = right if rng.random() > lost else rng.random() < 0.3
        made = []
        for role, score in zip(ROLES, (right, kept), strict=True):
            said = target if score else str(int(target) + rng.randint(1, 9))
            cut = not score and rng.random() < 0.2
            text = (
                f"{solution.strip()}\n\nAnswer: {said}" if score else f"So the answer must be {said}.\n\nAnswer: {said}"
            )
            made.append(
                report_runs.sample(
                    role,
                    "cot",
                    "word_problems",
                    f"{number:04d}",
                    score=float(score),
                    answer=said,
                    text=text,
                    finish_reason="length" if cut else "stop",
                    completion_tokens=256 if cut else rng.randint(40, 220),
                )
            )
        yield Pair(*made)
