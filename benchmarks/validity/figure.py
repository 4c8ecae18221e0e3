"""The page's one figure: false PASS by discordance and method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.validity.page import METHOD_NAMES
from benchmarks.validity.pairs import FIGURE


def draw(results: dict[str, Any], path: Path) -> None:
    """Write an SVG from the curves of the results; nothing where there are none."""
    curves = [row["curve"] for row in results["methods"] if row.get("curve")]
    if not curves:
        return
    n, margin = FIGURE
    matplotlib.rcParams.update({"svg.hashsalt": "validity", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for method, name in METHOD_NAMES.items():
        shown = [(100 * d, 100 * rate) for d, rate in zip(curves[0]["discordance"], curves[0][method], strict=True)]
        style = {"exact": "-", "tango": "--", "newcombe": ":"}.get(
            method, "-"
        )  # Tango's and Newcombe's curves lie on each other
        axes.plot(*zip(*[point for point in shown if point[0] <= 30], strict=True), style, label=name)
    axes.axhline(5, color="black", linewidth=0.8)
    axes.set(xlabel="discordant pairs (%)", ylabel="false PASS (%)", xlim=(100 * margin, 30))
    axes.set(yscale="log", ylim=(1, 110))
    axes.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_title(f"True loss = margin = {100 * margin:g} points, n = {n}", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.93))
    figure.savefig(path, metadata={"Date": None})
