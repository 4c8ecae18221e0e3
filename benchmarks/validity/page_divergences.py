"""The page's section on bounded divergences."""

from __future__ import annotations

from typing import Any

from benchmarks.validity.divergences import SHAPES
from benchmarks.validity.page_words import paragraph, percent, table


def words(results: dict[str, Any]) -> dict[str, object]:
    """What the template of the page asks for."""
    plan = results["plan"]
    return {
        "divergence_shapes": _shapes(),
        "divergence_means": ", ".join(f"{mean:g}" for mean in plan["means"]),
        "divergence_trials": f"{plan['trials']:,}",
        "divergence_misses": _misses(results["misses"], plan["documents"]),
        "divergence_worst": percent(max(max(row["upper"], row["lower"]) for row in results["misses"])) + " %",
        "divergence_other_trials": f"{plan['other_trials']:,}",
        "divergence_others": _others(results["others"]),
        "divergence_power": _power(results["power"], plan["power_documents"]),
        "divergence_command": results["command"],
        "divergence_date": results["date"][:10],
        "divergence_seconds": f"{results['seconds']['all cells, one process']:,}",
    }


def _shapes() -> str:
    return paragraph("Shapes: " + "; ".join(f"*{name}*: {text}" for name, (text, _) in SHAPES.items()) + ".")


def _misses(rows: list[dict[str, Any]], documents: list[int]) -> str:
    made = []
    for shape in dict.fromkeys(row["shape"] for row in rows):
        cells = []
        for n in documents:
            there = [row for row in rows if (row["shape"], row["n"]) == (shape, n)]
            cells.append(" / ".join(percent(max(row[side] for row in there)) for side in ("upper", "lower")))
        made.append((shape, *cells))
    return table(("shape", *(f"n = {n}" for n in documents)), made)


def _others(rows: list[dict[str, Any]]) -> str:
    made = []
    for n in dict.fromkeys(row["n"] for row in rows):
        there = [row for row in rows if row["n"] == n]
        worst = {name: max(there, key=lambda row: row[name]["upper"]) for name in ("gaffke", "bootstrap")}
        told = [f"{percent(worst[name][name]['upper'])} ({worst[name]['shape']})" for name in worst]
        even = next(row for row in there if row["shape"] == "even")
        medians = [f"{even[name]['median_upper']:.3f}" for name in ("ours", "gaffke", "bootstrap")]
        made.append((str(n), *told, *medians))
    head = ("n", "Gaffke, upper", "bootstrap, upper", "median upper bound of *even*", "of Gaffke", "of the bootstrap")
    return table(head, made)


def _power(rows: list[dict[str, Any]], documents: list[int]) -> str:
    made = []
    for mean, sd, margin in dict.fromkeys((row["mean"], row["sd"], row["margin"]) for row in rows):
        there = {row["n"]: row for row in rows if (row["mean"], row["sd"], row["margin"]) == (mean, sd, margin)}
        outcome = "passed" if mean < margin else "failed"
        chances = [percent(there[n][outcome], 0) for n in documents]
        made.append((f"{mean:g}", f"{sd:g}", f"{margin:g}", "PASS" if outcome == "passed" else "FAIL", *chances))
    return table(("mean", "sd", "margin", "verdict", *(f"n = {n}" for n in documents)), made)
