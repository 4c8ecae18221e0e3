"""The part of the page that tells of real outcomes."""

from __future__ import annotations

from typing import Any

from benchmarks.validity.outcomes import verdict_of
from benchmarks.validity.page_words import paragraph, percent, points, table

VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")
MARGINS = ("0.01", "0.02", "0.03", "0.05")
SETS = {"swebench": "SWE-bench, one agent", "swebench_2024": "SWE-bench, 2024", "mmlu_pro": "MMLU-Pro"}


def render(found: dict[str, Any]) -> str:
    """All tables, or why there are none."""
    if "skipped" in found:
        return f"Not measured: {found['skipped']}."
    one, older, models = found["swebench"], found["swebench_2024"], found["mmlu_pro"]
    parts = [
        paragraph(
            "Per-item results that others published; the reference of a pair is the system that gets more right.",
            f"SWE-bench Verified, {one['n']} items: {one['systems']} systems under one agent, and {older['systems']}",
            f"submissions of 2024. MMLU-Pro: {models['systems']} models on {models['n']:,} items.",
        ),
        _pairs(found),
        _in_words(found),
        _near_tie(found["swebench"]["pairs"]),
        _traps(found["swebench"]["traps"] + found["swebench_2024"]["traps"]),
        _published(found["published_pairs"]),
        _llama(found["quantized_llama"]),
        _subsamples(found["subsamples"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _pairs(found: dict[str, Any]) -> str:
    rows = []
    for key, name in SETS.items():
        pairs = found[key]["pairs"]
        same = [p for p in pairs if p["p_mcnemar"] > 0.05]
        for margin in MARGINS:
            counts = [sum(p["verdicts"][margin] == verdict for p in pairs) for verdict in VERDICTS]
            passed = sum(p["verdicts"][margin] == "PASS" for p in same)
            rows.append((name, str(len(pairs)), points(float(margin)), *map(str, counts), str(len(same)), str(passed)))
    return table(("systems", "pairs", "margin (points)", *VERDICTS, "p > 0.05", "of these PASS"), rows)


def _in_words(found: dict[str, Any]) -> str:
    pairs = [p for key in SETS for p in found[key]["pairs"]]
    same = [p for p in pairs if p["p_mcnemar"] > 0.05]
    shown = sum(p["verdicts"]["0.01"] == "PASS" for p in same)
    wrong = sum(p["estimate"] <= 0.01 for p in pairs if p["verdicts"]["0.01"] == "FAIL")
    better = [p for p in pairs if p["estimate"] > 0]
    swapped = [verdict_of(-p["upper"], -p["lower"], 0.01) for p in better]
    kept, failed = swapped.count("PASS"), swapped.count("FAIL")
    models = found["mmlu_pro"]["pairs"]
    both = [p for p in models if p["verdicts"]["0.01"] == "PASS"]
    named = f": {'; '.join(_named(p) for p in both)}." if both else "."
    return paragraph(
        f"{len(same)} of all {len(pairs)} pairs do not differ significantly (p > 0.05); of those,",
        f"{shown} {'is' if shown == 1 else 'are'} shown to lie within 1 point: the rest has too few items, which is",
        "not equality.",
        f"No verdict at 1 point contradicts the sign of the difference: {wrong} pairs FAIL with an estimate within",
        f"the margin; with the roles swapped {kept} of the {len(better)} candidates that get more right PASS,",
        f"{failed} FAIL. On MMLU-Pro {len(both)} of {len(models)} pairs PASS at 1 point{named}",
    )


def _named(pair: dict[str, Any]) -> str:
    return f"{pair['candidate']} for {pair['reference']}, loss {percent(pair['estimate'])} points"


def _near_tie(pairs: list[dict[str, Any]]) -> str:
    near = [p for p in pairs if (p["reference_right"], p["candidate_right"]) == (372, 371)]
    if not near:
        return ""
    pair = near[0]
    verdicts = ", ".join(f"{pair['verdicts'][m]} at {points(float(m))}" for m in MARGINS)
    apart = f"{pair['b'] + pair['c']} items ({pair['b']} and {pair['c']})"
    return paragraph(
        f"**A near tie**: `{pair['reference']}` resolves 372, `{pair['candidate']}` 371 of 500. They disagree on",
        f"{apart}: the loss lies between {percent(pair['lower'])} and {percent(pair['upper'])} points.",
        f"{verdicts} points.",
    )


def _traps(traps: list[dict[str, Any]]) -> str:
    named = [
        f"`{t['system']}` is published with {t['published']:g} %, its items sum to {t['resolved']} of 500"
        for t in traps
    ]
    return paragraph(
        f"**Published shares that the items do not sum to**: {'; '.join(named) or 'none here'}. The items are used,",
        "not the share. The data's own notes name one more, Claude 3.7 Sonnet (published 52.8, items that sum to 51),",
        "which is not among these systems.",
    )


def _published(found: dict[str, Any]) -> str:
    return paragraph(
        f"**A published bootstrap**: for {len(found['pairs'])} pairs of neighbours of a leaderboard, from the",
        "published counts n01 and n10 of 500 items, our one-sided 97.5 % bounds lie at most",
        f"{percent(found['largest_difference'])} points from the ends of the published two-sided 95 % bootstrap",
        "interval, which moves in steps of 0.2 points (tolerance: 0.5 points).",
    )


def _llama(found: dict[str, Any]) -> str:
    rows = []
    for margin in ("0.01", "0.03"):
        (whole,), parts = found[f"cot {margin}"], found[f"cot/* {margin}"]
        failed = sum(p["verdict"] == "FAIL" for p in parts)
        interval = f"{percent(whole['lower'])} to {percent(whole['upper'])}"
        counts = (f"{whole['n']:,}", str(whole["b"]), str(whole["c"]), percent(whole["estimate"]), interval)
        rows.append((points(float(margin)), *counts, whole["verdict"], f"{failed} of {len(parts)}"))
    head = ("margin (points)", "n", "b", "c", "loss (points)", "bounds", "verdict", "categories that FAIL alone")
    text = "**A real quantized model**: Llama-3-8B-Instruct and a quantized copy on 7 categories of MMLU-Pro.\n\n"
    return text + table(head, rows)


def _subsamples(rows: list[dict[str, Any]]) -> str:
    made = []
    for row in rows:
        both = (row["fixed"], row["sequential"])
        shares = [percent(test[verdict], 1) for test in both for verdict in ("failed", "passed")]
        made.append((points(row["margin"]), str(row["n"]), *shares, f"{row['mean_items']:.0f}"))
    head = ("margin (points)", "n", "FAIL", "PASS", "sequential FAIL", "sequential PASS", "items used (mean)")
    text = paragraph(
        f"The same pair with fewer items: {rows[0]['draws']:,} random parts, whose true loss is",
        f"{percent(rows[0]['true_loss'])} points. What is neither FAIL nor PASS is INCONCLUSIVE.",
    )
    return text + "\n\n" + table(head, made)
