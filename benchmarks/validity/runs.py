"""Error rates of whole runs of many checks, and of checks with gaps, by simulation with the code that judges."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.validity.page_words import percent, points, table
from harness.judging.bounded_ratios import Range, bounded_ratio_p_value
from harness.judging.paired_rates import paired_p_value
from harness.judging.resampling import ratio_interval
from harness.judging.results import CheckResult
from harness.judging.run_level import run_outcome, with_holm

CHECKS = (1, 13, 57)
MARGIN, ITEMS = 0.05, 200
WIDE, MANY = 0.05, 1000
"""Margin and items of the checks beside a broken one: equal models, so that they nearly always pass."""
GAPS = (0.0, 0.005, 0.01)


@lru_cache(None)
def judged(b: int, c: int, n: int, margin: float) -> CheckResult:
    """A check on these counts, by the rule of harness/judging/margins.py (a test compares it with the whole judge)."""
    p_pass, p_fail = paired_p_value(c, b, n, -margin), paired_p_value(b, c, n, margin)  # cheaper than the bounds
    verdict = "PASS" if p_pass <= 0.05 else "FAIL" if p_fail <= 0.05 else "INCONCLUSIVE"
    return CheckResult(
        name="loss", metric="accuracy", on="x", verdict=verdict, reason="", margin=margin, margin_kind="max_loss",
        unit="points", confidence=0.95, p_fail=p_fail if verdict == "FAIL" else None,
    )  # fmt: skip


def run_rates(checks: int, loss: float, discordance: float, trials: int) -> dict[str, Any]:
    """Verdicts of runs whose checks all have this loss and this share of discordant items."""
    rng = np.random.default_rng([checks, round(1e4 * loss), round(1e4 * discordance)])
    shares = [(discordance + loss) / 2, (discordance - loss) / 2, 1 - discordance]
    failed = passed = alone = 0
    for _ in range(trials):
        counts = rng.multinomial(ITEMS, shares, checks)
        results = with_holm([judged(int(b), int(c), ITEMS, MARGIN) for b, c, _ in counts], 0.05)
        verdict = run_outcome(results)[0]
        failed, passed = failed + (verdict == "FAIL"), passed + (verdict == "PASS")
        alone += any(result.verdict == "FAIL" for result in results)
    rates = {"fail": failed / trials, "pass": passed / trials, "uncorrected": alone / trials}
    return {"checks": checks, "loss": loss, "discordance": discordance, "trials": trials} | rates


def broken_rates(checks: int, discordance: float, trials: int) -> dict[str, Any]:
    """Runs in which one check loses exactly its margin, and all others compare equal models on many items."""
    rng = np.random.default_rng([checks, 7, round(1e4 * discordance)])
    broken = [(discordance + MARGIN) / 2, (discordance - MARGIN) / 2, 1 - discordance]
    passed = 0
    for _ in range(trials):
        b, c, _rest = rng.multinomial(ITEMS, broken)
        results = [judged(int(b), int(c), ITEMS, MARGIN)]
        for lost, won, _rest in rng.multinomial(MANY, [0.01, 0.01, 0.98], checks - 1):
            results.append(judged(int(lost), int(won), MANY, WIDE))
        passed += run_outcome(with_holm(results, 0.05))[0] == "PASS"
    return {"checks": checks, "discordance": discordance, "trials": trials, "pass": passed / trials}


def gap_rates(share: float, loss: float, discordance: float, trials: int) -> dict[str, Any]:
    """PASS and FAIL at the margin when somebody takes away the answers that speak against it: left out, and filled.

    For a PASS the candidate's wrong answers vanish where the reference is right, for a FAIL those that it alone has
    right. The reference's answers stay, so that a gap is known by half.
    """
    rng, n = np.random.default_rng([round(1e4 * share), round(1e4 * discordance)]), 500
    gaps, found = round(share * n), {"left out, PASS": 0, "left out, FAIL": 0, "PASS": 0, "FAIL": 0}
    shares = [(discordance + loss) / 2, (discordance - loss) / 2, 1 - discordance]
    for b, c, _ in rng.multinomial(n, shares, trials).tolist():
        lost, won = min(gaps, b), min(gaps, c)
        found["left out, PASS"] += judged(b - lost, c, n - lost, MARGIN).verdict == "PASS"
        found["left out, FAIL"] += judged(b, c - won, n - won, MARGIN).verdict == "FAIL"
        # Filled at the worst (the reference is right there) and at the best (it is wrong there): what was true.
        found["PASS"] += judged(b, c, n, MARGIN).verdict == "PASS"
        found["FAIL"] += judged(b, c, n, MARGIN).verdict == "FAIL"
    rates = {name: count / trials for name, count in found.items()}
    return {"share": share, "loss": loss, "discordance": discordance, "trials": trials} | rates


def length_rates(documents: int, sigma: float, trials: int) -> dict[str, Any]:
    """PASS of a length ratio that lies exactly at its margin of 1.1, for answers of lognormal length, cut at 4,096.

    The candidate is its reference but for one answer in forty, which runs to the budget; the margin is set to the
    ratio that this makes.
    """
    rng, most = np.random.default_rng([documents, round(100 * sigma)]), 4096.0
    lengths = np.clip(np.round(rng.lognormal(5.5, sigma, 400_000)), 1, most)
    rare = 1 / 40
    true = float(((1 - rare) * lengths.mean() + rare * most) / lengths.mean())
    passed = {"betting": 0, "bootstrap": 0}
    for _ in range(trials):
        weights = rng.choice(lengths, documents)
        counts = np.where(rng.random(documents) < rare, most, weights)
        least = bounded_ratio_p_value(counts.tolist(), weights.tolist(), Range(most), true, least=True)
        passed["betting"] += least <= 0.05
        passed["bootstrap"] += ratio_interval(counts, weights).upper < true
    rates = {name: count / trials for name, count in passed.items()}
    return {"documents": documents, "sigma": sigma, "ratio": true, "trials": trials} | rates


def measure(trials: int, few: int) -> dict[str, list[dict[str, Any]]]:
    """All of it; `few` trials where each takes longer."""
    spread = (0.1, 0.2)
    return {
        "runs": [run_rates(k, loss, d, trials) for k in CHECKS for loss in (0.0, MARGIN, 2 * MARGIN) for d in spread],
        "broken": [broken_rates(k, d, trials) for k in CHECKS for d in spread],
        "gaps": [gap_rates(share, MARGIN, d, 5 * trials) for share in GAPS for d in spread],
        "lengths": [length_rates(n, sigma, few) for n in (20, 60, 200) for sigma in (0.5, 1.0)],
    }


def render(found: dict[str, Any]) -> dict[str, str]:
    """The tables of docs/validity.md."""
    rates = ("fail", "pass", "uncorrected")
    runs = [
        (str(r["checks"]), points(r["loss"]), f"{points(r['discordance'])} %", *map(percent, (r[k] for k in rates)))
        for r in found["runs"]
    ]
    broken = [(str(r["checks"]), points(r["discordance"]) + " %", percent(r["pass"])) for r in found["broken"]]
    names = ("left out, PASS", "PASS", "left out, FAIL", "FAIL")
    gaps = [
        (percent(r["share"], 1) + " %", points(r["discordance"]) + " %", *(percent(r[name]) for name in names))
        for r in found["gaps"]
    ]
    lengths = [
        (str(r["documents"]), str(r["sigma"]), f"{r['ratio']:.3f}", percent(r["betting"]), percent(r["bootstrap"]))
        for r in found["lengths"]
    ]
    return {
        "run_rates": table(("checks", "loss (points)", "D", "run FAIL", "run PASS", "some check FAILs alone"), runs),
        "broken_rates": table(("checks", "D of the broken one", "run PASS"), broken),
        "gap_rates": table(("gaps", "D", *names), gaps),
        "length_rates": table(("documents", "σ", "true ratio = margin", "PASS", "PASS by a bootstrap"), lengths),
        "run_trials": f"{found['runs'][0]['trials']:,}",
        "gap_trials": f"{found['gaps'][0]['trials']:,}",
        "length_trials": f"{found['lengths'][0]['trials']:,}",
        "run_command": found["command"],
        "run_date": found["date"][:10],
    }
