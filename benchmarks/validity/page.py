"""docs/validity.md from the results: the same JSON always gives the same page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from benchmarks.validity import page_divergences, page_outcomes, runs, scores
from benchmarks.validity.page_words import items, paragraph, percent, points, table
from harness.judging.resampling import DRAWS

METHOD_NAMES = {"exact": "quantgate", "tango": "Tango", "newcombe": "Newcombe", "wald": "Wald", "mcnemar": "p > 0.05"}
AT_LOSSES = ("PASS, loss = margin", "PASS, loss = 2 × margin", "FAIL, loss = margin", "FAIL, loss = 0")
SHOWN_MARGINS = (0.02, 0.05)


def render(results: dict[str, Any], divergences: dict[str, Any]) -> str:
    """The whole page, as Markdown, from the two files of results."""
    plan = results["plan"]
    edges, spots = results["tables"]["edges"], results["tables"]["spots"]
    words: dict[str, object] = {
        "beyond": percent(max(row["worst_just_beyond"] for row in results["methods"])) + " %",
        "discordances": _listed(points(d) for d in plan["discordances"]) + " %",
        "trials": f"{plan['trials']:,}",
        "errors": _errors(results["pairs"], plan),
        "missed_upper": percent(max(row["exact"]["upper_missed"] for row in results["pairs"])) + " %",
        "missed_lower": percent(max(row["exact"]["lower_missed"] for row in results["pairs"])) + " %",
        "power": _power(results["pairs"], plan),
        "grid_points": plan["grid_points"],
        "methods": _methods(results["methods"]),
        "anywhere": _anywhere(results["anywhere"]),
        "anywhere_points": plan["anywhere_points"],
        "wrong_way": f"{max(0.0, *_steps(results['tables']['grids'])):.0e}",
        "edges_wrong": sum(side["wrong"] for side in edges.values()),
        "edges_looked": f"{sum(side['looked'] for side in edges.values()):,}",
        "spots_wrong": sum(spots["wrong"].values()),
        "spots_looked": f"{2 * spots['decisions']:,}",
        "sequential": _sequential(results["sequential"]["errors"], plan),
        "times_fixed": plan["times_fixed"],
        "long_trials": f"{plan['long_trials']:,}",
        "items": _items(results["sequential"]["items"], plan),
        "decided": percent(min(r["passed"] + r["failed"] for r in results["sequential"]["items"]), 1) + " %",
        "decided_wrong": percent(max(_wrong(r) for r in results["sequential"]["items"]), 1) + " %",
        "graded": _graded(results["graded"]),
        "shapes": _shapes(),
        "ratio_trials": f"{plan['ratio_trials']:,}",
        "draws": f"{DRAWS:,}",
        "ratios": _ratios(results["ratios"]),
        "ratio_limit": _ratio_limit(results["ratios"]),
        "cases": table(
            ("case", "verdict", "reason"), [(c["case"], c["verdict"], c["reason"]) for c in results["cases"]]
        ),
        "outcomes": page_outcomes.render(results["outcomes"]),
        "command": results["command"],
        "date": results["date"][:10],
        "seconds": f"{results['seconds']['all cells, one process']:,}",
        "processor": results["machine"]["processor"],
        "cores": results["machine"]["cores"],
        "judged": ", ".join(f"`{Path(name).name}` {found[:12]}" for name, found in results["judged"].items()),
    }
    words |= page_divergences.words(divergences)
    words |= runs.render(results["whole_runs"])
    words |= results["versions"] | _simulation(results["pairs"])
    return Template(Path(__file__).with_name("page.md").read_text("utf-8")).substitute(words)


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _steps(grids: dict[str, dict[str, float]]) -> list[float]:
    return [step for grid in grids.values() for step in grid.values()]


def _simulation(rows: list[dict[str, Any]]) -> dict[str, object]:
    """How far simulated rates lie from the exact ones."""
    off = []
    for row in rows:
        for name in ("passed", "failed"):
            for margin, simulated in row["simulated"][name].items():
                exact = row["exact"][name][margin]
                error = math.sqrt(max(exact * (1 - exact), 1 / row["trials"]) / row["trials"])
                off.append(abs(simulated - exact) / error)
    return {"simulated_cells": f"{len(off):,}", "simulated_off": f"{max(off):.1f}"}


def _largest(rows: list[dict[str, Any]], n: int, loss: float, margin: float, outcome: str) -> float:
    there = [r for r in rows if r["n"] == n and abs(r["loss"] - loss) < 1e-9]
    return max(float(row["exact"][outcome][str(margin)]) for row in there)


def _errors(rows: list[dict[str, Any]], plan: dict[str, Any]) -> str:
    made = []
    for margin in plan["margins"]:
        for n in plan["items"]:
            cells = [(margin, "passed"), (2 * margin, "passed"), (margin, "failed"), (0.0, "failed")]
            found = [percent(_largest(rows, n, loss, margin, outcome)) for loss, outcome in cells]
            made.append((points(margin), str(n), *found))
    return table(("margin (points)", "n", *AT_LOSSES), made)


def _power(rows: list[dict[str, Any]], plan: dict[str, Any]) -> str:
    made = []
    for margin in plan["margins"]:
        for n in plan["items"]:
            equal = [r for r in rows if r["n"] == n and r["loss"] == 0]
            there = {r["discordance"]: r["exact"]["passed"][str(margin)] for r in equal}
            made.append((points(margin), str(n), *(percent(there[d], 0) for d in plan["discordances"])))
    return table(("margin (points)", "n", *(f"D = {points(d)} %" for d in plan["discordances"])), made)


def _methods(rows: list[dict[str, Any]]) -> str:
    made = []
    for row in sorted(rows, key=lambda r: (r["margin"], r["n"])):
        if row["margin"] in SHOWN_MARGINS or len(rows) < 8:
            rates = [percent(row["worst"][method]["rate"]) for method in METHOD_NAMES]
            made.append((points(row["margin"]), str(row["n"]), *rates))
    return table(("margin (points)", "n", *METHOD_NAMES.values()), made)


def _anywhere(rows: list[dict[str, Any]]) -> str:
    made = []
    for row in rows:
        for outcome, name in (("passed", "PASS"), ("failed", "FAIL")):
            worst = row[outcome]
            where = f"{100 * worst['margin']:.2f}", percent(worst["discordance"], 1)
            made.append((str(row["n"]), name, f"{worst['thresholds']:,}", percent(worst["rate"], 3), *where))
    return table(("n", "verdict", "margins tried", "largest rate", "at the margin (points)", "at D (%)"), made)


def _sequential(rows: list[dict[str, Any]], plan: dict[str, Any]) -> str:
    made = []
    for margin in plan["margins"]:
        for n in plan["items"]:
            found = []
            for loss, outcome in ((margin, "passed"), (2 * margin, "passed"), (margin, "failed"), (0.0, "failed")):
                there = [r for r in rows if r["margin"] == margin and abs(r["loss"] - loss) < 1e-9]
                found.append(percent(max(row[outcome][str(n)] for row in there)))
            made.append((points(margin), str(n), *found))
    return table(("margin (points)", "n", *AT_LOSSES), made)


def _items(rows: list[dict[str, Any]], plan: dict[str, Any]) -> str:
    made = []
    for margin in plan["margins"]:
        for d in plan["discordances"]:
            here, cells = [r for r in rows if r["margin"] == margin and r["discordance"] == d], []
            for loss in (0.0, margin / 2, 2 * margin, 0.1):
                there = [r for r in here if abs(r["loss"] - loss) < 1e-9]
                cells.append(_used(there[0]) if there else "")
            made.append((points(margin), f"{points(d)} %", *cells))
    return table(("margin (points)", "D", "loss 0", "loss = margin / 2", "loss = 2 × margin", "loss 10 points"), made)


def _used(row: dict[str, Any]) -> str:
    return f"{items(row['mean'])} ({row['mean'] / row['fixed']:.1f} × {items(row['fixed'])})"


def _wrong(row: dict[str, Any]) -> float:
    return float(row["failed"] if row["loss"] <= row["margin"] else row["passed"])


def _shapes() -> str:
    told = {name: text for name, (text, _) in scores.SHAPES.items()} | {"fractions": scores.FRACTIONS}
    return paragraph("Shapes: " + "; ".join(f"*{name}*: {text}" for name, text in told.items()) + ".")


def _graded(rows: list[dict[str, Any]]) -> str:
    made = []
    for row in rows:
        rates = [percent(row[method][side]) for method in ("ours", "t") for side in ("upper", "lower")]
        bounds = [percent(row[method]["median_upper"], 1) for method in ("ours", "t")]
        made.append((row["shape"], str(row["n"]), f"{row['trials']:,}", *rates, *bounds))
    misses = ("upper", "lower", "t, upper", "t, lower")
    return table(("shape", "n", "trials", *misses, "median upper bound", "t, median upper bound"), made)


def _ratios(rows: list[dict[str, Any]]) -> str:
    made = []
    for row in rows:
        misses = [percent(row[method][side]) for side in ("upper", "lower") for method in ("ours", "bca", "t")]
        made.append((str(row["sigma"]), str(row["n"]), *misses, f"{row['ours']['upper_to_true']:.2f}"))
    misses_of = ("upper", "upper, BCa", "upper, t", "lower", "lower, BCa", "lower, t")
    return table(("σ", "documents", *misses_of, "median upper / true"), made)


def _ratio_limit(rows: Sequence[dict[str, Any]]) -> str:
    over = [r for r in rows if r["ours"]["upper"] > 0.05 + 3 * math.sqrt(0.05 * 0.95 / r["trials"])]
    if not over:
        return "no cell misses clearly more than 5 %"
    cells = [f"{percent(r['ours']['upper'], 1)} % at σ = {r['sigma']} with {r['n']} documents" for r in over]
    return f"the upper bound misses clearly more than 5 % of the time with a heavy tail ({'; '.join(cells)})"
