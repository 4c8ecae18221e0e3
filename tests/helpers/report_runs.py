"""Small realistic run folders for the report's tests."""

from __future__ import annotations

import random
from pathlib import Path

from harness.contract.model_facts import ModelFacts
from harness.contract.policy import SealedPolicy, parse_policy
from harness.contract.samples import ROLES, Item, Role, Sample, sha256_of
from harness.judging.results import CheckResult
from harness.judging.verdict import Verdict, judge
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest, ServerFacts, Stage

SEALED = parse_policy(
    """name: demo
sampling: {temperature: 0.0, max_tokens: 256}
suites:
  cot: {tasks: {word_problems: {limit: 48}}}
  ruler: {lengths: [2048], tasks: [niah_single_1, vt, cwe], per_task: 8, max_tokens: 128}
  divergence: {trajectories: 16, max_tokens: 192, top_logprobs: 64}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.10, floor: 0.10}
  - {metric: truncated_rate, on: cot/*, max_increase: 0.10}
  - {metric: accuracy, on: ruler, max_loss: 0.15, floor: 0.10}
  - {metric: kl_mean, on: divergence, max: 0.05}
  - {metric: flip_rate, on: divergence, max: 0.10}
"""
)
PLANNED = {
    "cot/word_problems": 48,
    "ruler/niah_single_1@2048": 8,
    "ruler/vt@2048": 8,
    "ruler/cwe@2048": 8,
    "divergence/trajectories": 16,
}


def manifest(sealed: SealedPolicy = SEALED, planned: dict[str, int] | None = None) -> Manifest:
    """What a demo run writes."""
    flags = ["--max-model-len", "4096", "--dtype", "bfloat16", "--seed", "0", "--port"]
    common = {
        "max_model_len": "4096",
        "dtype": "bfloat16",
        "vllm_version": "0.26.1",
        "kv_cache_dtype": "auto",
    }
    return Manifest(
        run_id="2025-11-21T22-04-11-qwen2.5-0.5b-w4a16",
        created="2025-11-21T22:04:11+00:00",
        quantgate_version="0.1.0",
        command=["quantgate", "gate", "Qwen/Qwen2.5-0.5B-Instruct", "--policy", "demo"],
        policy_name=sealed.policy.name,
        policy_sha256=sealed.sha256,
        models={
            "reference": ModelFacts(
                name="Qwen/Qwen2.5-0.5B-Instruct",
                path="/models/qwen2.5-0.5b",
                sha256="7ae557604adf67be50417f59c2c2f167" * 2,
                bytes=988_097_824,
                parameters=494_032_768,
                bits_per_weight=16.0,
            ),
            "candidate": ModelFacts(
                name="qwen2.5-0.5b-w4a16",
                path="runs/x/checkpoint",
                sha256="c3ab8ff13720e8ad9047dd39466b3c89" * 2,
                bytes=457_130_112,
                parameters=494_032_768,
                bits_per_weight=4.16,
                quantization="compressed-tensors",
                linear_bits=4.19,
                low_bit_share=0.97,
                tensor_bytes={"I32": 390_000_000, "BF16": 67_000_000},
                claimed={"config.json": "4 bits, groups of 128", "name": "qwen2.5-0.5b-w4a16"},
            ),
        },
        servers={
            role: ServerFacts(
                url=f"http://127.0.0.1:{port}",
                command=["vllm", "serve", model, *flags, str(port)],
                environment={"VLLM_USE_V2_MODEL_RUNNER": "1", "HF_TOKEN": "hf_verysecret"},
                readback={**common, "model": model, "quantization": quantization},
            )
            for role, port, model, quantization in (
                ("reference", 40001, "/models/qwen2.5-0.5b", "none"),
                ("candidate", 40002, "runs/x/checkpoint", "compressed-tensors"),
            )
        },
        allowed_differences=["model", "quantization"],
        hardware={"cpu": "AMD EPYC 9B14, 2 cores", "memory_gib": 23, "gpus": []},
        versions={"vllm": "0.26.1", "torch": "2.11.0", "transformers": "5.2.0", "python": "3.11.2"},
        planned=PLANNED if planned is None else planned,
        stages=[
            Stage(name="quantize", seconds=74.2),
            Stage(name="serve", seconds=61.9),
            Stage(name="cot", seconds=148.3),
            Stage(name="ruler", seconds=96.4),
            Stage(name="divergence", seconds=41.0),
            Stage(name="judge", seconds=0.4),
        ],
    )


def sample(role: Role, suite: str, task: str, item: str, **more: object) -> Sample:
    """One sample; what is not said is an ordinary right answer."""
    fields: dict[str, object] = {
        "suite": suite,
        "task": task,
        "item": item,
        "role": role,
        "prompt_sha256": sha256_of([suite, task, item]),
        "score": 1.0,
        "answer": "72",
        "finish_reason": "stop",
        "prompt_tokens": 93,
        "completion_tokens": 120,
        "seconds": 3.2,
        "text": "Half of 48 is 24, and 48 + 24 = 72.\n\nAnswer: 72",
    }
    return Sample.model_validate(fields | more)


def make_run(
    path: Path,
    *,
    damage: float = 0.04,
    planned: dict[str, int] | None = None,
    verdict: bool = True,
    seed: int = 1,
    sealed: SealedPolicy = SEALED,
) -> RunFolder:
    """A finished run; `damage` is how often the candidate loses a right answer."""
    rng = random.Random(seed)
    folder = RunFolder(path)
    facts = manifest(sealed, planned)
    folder.create(facts, sealed)
    for name, count in facts.planned.items():
        suite, task = name.split("/")
        log = folder.log(suite)
        for number in range(count):
            for one in _pair(rng, suite, task, f"{number:04d}", damage):
                log.append(one)
        log.close()
    for suite in dict.fromkeys(name.split("/")[0] for name in facts.planned):
        names = [n.split("/")[1] for n in facts.planned if n.startswith(f"{suite}/")]
        items = [_item(suite, task, f"{i:04d}") for task in names for i in range(facts.planned[f"{suite}/{task}"])]
        facts.items_sha256[suite] = folder.write_items(suite, items)
    folder.write_manifest(facts)
    if verdict:
        judge_run(folder)
    return folder


def small_run(path: Path, planned: dict[str, int]) -> RunFolder:
    """A run that has just begun: a policy, a manifest, no items and no samples."""
    folder = RunFolder(path)
    folder.create(manifest(planned=planned), SEALED)
    return folder


def judge_run(folder: RunFolder, policy: SealedPolicy | None = None) -> None:
    """Store the verdict of the sealed policy; with another `policy` it is one after the fact."""
    sealed = folder.sealed_policy()
    planned = folder.planned() or {sample.key.pair: None for sample in folder.samples()}
    chosen = policy or sealed
    folder.write_verdict(judge(chosen.policy, folder.samples(), planned, chosen.sha256, sealed))


def edited(folder: RunFolder, old: str, new: str) -> SealedPolicy:
    """The sealed policy with a change."""
    text = folder.sealed_policy().text
    assert old in text
    return parse_policy(text.replace(old, new))


def result(**fields: object) -> CheckResult:
    """One check that holds; `fields` say what is other."""
    known: dict[str, object] = {
        "name": "loss of accuracy on cot/a at most 1.0 points",
        "metric": "accuracy",
        "on": "cot/a",
        "verdict": "PASS",
        "reason": "why",
        "margin": 0.01,
        "margin_kind": "max_loss",
        "unit": "points",
        "confidence": 0.95,
        "estimate": 0.0,
        "lower": -0.005,
        "upper": 0.005,
        "n": 400,
        "b": 2,
        "c": 2,
        "discordant": 4,
        "planned": 400,
    }
    return CheckResult.model_validate(known | fields)


def verdict_of(folder: RunFolder, *checks: CheckResult, **fields: object) -> Verdict:
    """Store a verdict that holds these checks; the worst of them decides."""
    outcomes = [check.verdict for check in checks]
    sha = folder.manifest().policy_sha256
    known: dict[str, object] = {
        "verdict": next((o for o in ("FAIL", "INCONCLUSIVE") if o in outcomes), "PASS"),
        "reason": "because",
        "policy_name": "demo",
        "policy_sha256": sha,
        "sealed_policy_sha256": sha,
        "checks": list(checks),
    }
    verdict = Verdict.model_validate(known | fields)
    folder.write_verdict(verdict)
    return verdict


def _item(suite: str, task: str, item: str) -> Item:
    question = "Natalia sold clips to 48 friends in April, and half as many in May. How many in all?"
    return Item(
        task=task,
        item=item,
        prompt=[{"role": "user", "content": question}],
        prompt_sha256=sha256_of([suite, task, item]),
        target=None if suite == "divergence" else "72",
    )


def _pair(rng: random.Random, suite: str, task: str, item: str, damage: float) -> list[Sample]:
    if suite == "divergence":
        positions = rng.randint(120, 192)
        upper = positions * rng.lognormvariate(-4.2, 0.5) * (1 + 8 * damage)
        flips = round(positions * rng.uniform(0.01, 0.06))
        metrics = {
            "kl_lower_sum": upper * 0.93,
            "kl_upper_sum": upper,
            "positions": float(positions),
            "flips": float(flips),
            "confident_flips": float(flips // 4),
            "captured_mass_sum": positions * 0.985,
        }
        shared: dict[str, object] = {"score": None, "answer": None, "completion_tokens": positions}
        return [
            sample("reference", suite, task, item, **shared),
            sample("candidate", suite, task, item, **shared, metrics=metrics, text=""),
        ]
    right = rng.random() < (0.75 if suite == "cot" else 0.9)
    cut = rng.random() < 0.05
    scores = {"reference": float(right), "candidate": float(right)}
    if right and rng.random() < damage:
        scores["candidate"] = 0.0
    elif not right and rng.random() < damage / 2:
        scores["candidate"] = 1.0
    return [
        sample(
            role,
            suite,
            task,
            item,
            score=scores[role],
            answer="72" if scores[role] else "96",
            text="Half of 48 is 24, and 48 + 24 = 72.\n\nAnswer: 72" if scores[role] else "48 · 2 = 96.\n\nAnswer: 96",
            finish_reason="length" if cut and not right else "stop",
            completion_tokens=256 if cut and not right else rng.randint(60, 220),
        )
        for role in ROLES
    ]
