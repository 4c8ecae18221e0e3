"""Cases that another gate let through, and real outcomes of real systems: what the product says of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.validity.cells import seeded
from benchmarks.validity.sequential import stops
from harness.contract.check import Check
from harness.contract.policy import Policy
from harness.contract.samples import PairKey, Sample
from harness.judging.paired_rates import paired_interval
from harness.judging.verdict import Verdict, judge

MARGINS = (0.01, 0.02, 0.03, 0.05)
SWEBENCH = Path("swebench_results")
LLAMA = Path("quant_pairs/mmlu_pro_llama3_8b_instruct_orig_vs_quant.7cats.jsonl")
MMLU_PRO = Path("mmlu_pro/per_sample_preds_12models.jsonl")


def _samples(scores: Iterable[tuple[str, str, float, float]]) -> list[Sample]:
    """Samples of (task, item, reference's score, candidate's score)."""
    made = []
    for task, item, *both in scores:
        for role, score in zip(("reference", "candidate"), both, strict=True):
            made.append(Sample(suite="cot", task=task, item=item, role=role, prompt_sha256=item, score=score))
    return made


def _judge(samples: Sequence[Sample], margin: float, on: str = "cot/*") -> Verdict:
    check = Check(metric="accuracy", on=on, max_loss=margin)
    policy = Policy(name="validity", suites={"cot": {}}, checks=[check])
    planned: dict[PairKey, str | None] = dict.fromkeys(sample.key.pair for sample in samples)
    return judge(policy, samples, planned, "validity")


def cases() -> list[dict[str, str]]:
    """Four comparisons that a gate on point estimates or on pairs by index lets pass."""
    equal = [("task", str(i), float(i % 2), float(i % 2)) for i in range(500)]
    dead = [("task", str(i), 0.0, 0.0) for i in range(500)]
    other = [s.role == "candidate" and int(s.item) % 10 == 0 for s in _samples(equal)]
    prompts = [
        s.model_copy(update={"prompt_sha256": f"other {s.item}"}) if changed else s
        for s, changed in zip(_samples(equal), other, strict=True)
    ]
    few = [s for s in _samples(equal) if s.role == "reference" or int(s.item) < 12]
    found = [
        ("10 items, none differs, margin 0.5 points", _judge(_samples(equal[:10]), 0.005)),
        ("500 items, both roles score zero, margin 1 point", _judge(_samples(dead), 0.01)),
        ("12 of the candidate's 500 items are there, none differs, margin 1 point", _judge(few, 0.01)),
        ("500 items, none differs, one prompt in ten is another one, margin 1 point", _judge(prompts, 0.01)),
    ]
    return [{"case": case, "verdict": v.verdict, "reason": v.reason} for case, v in found]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def verdict_of(lower: float, upper: float, margin: float) -> str:
    return "PASS" if upper <= margin else "FAIL" if lower > margin else "INCONCLUSIVE"


def _pair(reference: str, candidate: str, first: Sequence[bool], second: Sequence[bool]) -> dict[str, Any]:
    """One pair of systems: counts, interval and verdicts."""
    x, y = np.array(first, dtype=bool), np.array(second, dtype=bool)
    b, c, n = int(np.sum(x & ~y)), int(np.sum(y & ~x)), x.size
    found = paired_interval(b, c, n)
    p = float(stats.binomtest(min(b, c), b + c, 0.5).pvalue) if b + c else 1.0
    return {
        "reference": reference,
        "candidate": candidate,
        "reference_right": int(x.sum()),
        "candidate_right": int(y.sum()),
        "b": b,
        "c": c,
        "n": n,
        "estimate": found.estimate,
        "lower": found.lower,
        "upper": found.upper,
        "p_mcnemar": p,
        "verdicts": {str(m): verdict_of(found.lower, found.upper, m) for m in MARGINS},
    }


def _all_pairs(systems: dict[str, Sequence[bool]]) -> list[dict[str, Any]]:
    """Every pair; the reference is the one that gets more right."""
    order = sorted(systems, key=lambda name: -sum(systems[name]))
    return [_pair(x, y, systems[x], systems[y]) for i, x in enumerate(order) for y in order[i + 1 :]]


def swebench(data: str, name: str) -> dict[str, Any]:
    """All pairs of the systems in one file, and the systems whose published share is not what their items sum to."""
    rows = _lines(Path(data) / SWEBENCH / f"{name}.jsonl")
    instances = sorted(rows[0]["resolved"])
    assert all(sorted(row["resolved"]) == instances for row in rows)
    traps = []
    for row in rows:
        resolved = sum(row["resolved"].values())
        if abs(row["published_resolved_pct"] - 100 * resolved / len(instances)) > 0.05:
            traps.append({"system": row["folder"], "published": row["published_resolved_pct"], "resolved": resolved})
    systems: dict[str, Sequence[bool]] = {row["folder"]: [bool(row["resolved"][i]) for i in instances] for row in rows}
    return {"systems": len(rows), "n": len(instances), "traps": traps, "pairs": _all_pairs(systems)}


def published_pairs(data: str) -> dict[str, Any]:
    """Our bounds (one-sided 97.5 %) beside a published bootstrap (two-sided 95 %), from the published counts."""
    rows: list[dict[str, Any]] = []
    with (Path(data) / SWEBENCH / "pairs_top20.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found = paired_interval(int(row["n10"]), int(row["n01"]), 500, 0.975)
            rows.append(
                {
                    "pair": row["name"],
                    "b": int(row["n10"]),
                    "c": int(row["n01"]),
                    "lower": found.lower,
                    "upper": found.upper,
                    "bootstrap": [float(row["bootstrap_low"]), float(row["bootstrap_high"])],
                }
            )
    off = [abs(row[side] - row["bootstrap"][i]) for row in rows for i, side in enumerate(("lower", "upper"))]
    return {"pairs": rows, "largest_difference": max(off)}


def _llama(data: str) -> list[tuple[str, str, float, float]]:
    return [
        (
            row["category"],
            str(row["question_id"]),
            float(row["pred_original"] == row["answer"]),
            float(row["pred_quantized"] == row["answer"]),
        )
        for row in _lines(Path(data) / LLAMA)
    ]


def quantized_llama(data: str) -> dict[str, Any]:
    """The real quantized model: judged as a whole and by category, at 1 and 3 points."""
    samples = _samples(_llama(data))
    kept = {"on", "verdict", "n", "b", "c", "estimate", "lower", "upper", "after_holm"}
    kept |= {"reference_value", "candidate_value"}
    found = {}
    for margin in (0.01, 0.03):
        for on in ("cot", "cot/*"):
            verdict = _judge(samples, margin, on=on)
            found[f"{on} {margin}"] = [check.model_dump(include=kept) for check in verdict.checks]
    return found


def mmlu_pro(data: str) -> dict[str, Any]:
    """All pairs of the 12 models."""
    rows = _lines(Path(data) / MMLU_PRO)
    systems: dict[str, Sequence[bool]] = {
        name: [row["pred"][name] == row["answer"] for row in rows] for name in rows[0]["pred"]
    }
    return {"systems": len(systems), "n": len(rows), "pairs": _all_pairs(systems)}


def subsamples(data: str, n: int, draws: int, tables: Callable[[int, float, str], list[int]]) -> list[dict[str, Any]]:
    """Verdicts on random parts of the quantized Llama pair, by the fixed and by the sequential test."""
    losses = np.array([reference - candidate for _, _, reference, candidate in _llama(data)], dtype=np.int8)
    rng = seeded("subsamples", n)
    drawn = np.stack([rng.permutation(losses)[:n] for _ in range(draws)])
    b, c = (drawn == 1).sum(axis=1), (drawn == -1).sum(axis=1)
    found = []
    for margin in (0.01, 0.03):
        passed = b <= np.array(tables(n, margin, "upper"))[c]
        failed = b > np.array(tables(n, margin, "lower"))[c]
        used, outcome = stops(lambda running, start, items: drawn[running, start : start + items], draws, n, margin)
        found.append(
            {
                "n": n,
                "margin": margin,
                "draws": draws,
                "true_loss": float(losses.mean()),
                "fixed": {"passed": float(passed.mean()), "failed": float(failed.mean())},
                "sequential": {"passed": float(np.mean(outcome == 1)), "failed": float(np.mean(outcome == -1))},
                "mean_items": float(used.mean()),
            }
        )
    return found
