"""The one figure of low bits: KL from the original against bits, ours and other tools'.

    python -m benchmarks.low_bits_figure OURS.json THEIRS.json --out docs/low-bits.svg

Both are results of benchmarks.kl_panel whose entries have `bits`. Entries whose names differ in their number alone
(`trellis-2bit`, `trellis-3bit`) are one line. The SVG takes light or dark from the reader's system.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reports.drawing.canvas import axes_at, canvas
from reports.drawing.charts import named, ring
from reports.drawing.svg import INKS, plain_text, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 920, 480
LEFT, TOP, RIGHT, BOTTOM = 62, 14, 190, 52
LINE = 15
"""Pixels from one label to the next."""

LABELS = {
    "vq": "VQ",
    "mixed": "VQ, mixed",
    "int": "int4",
    "int-rotated": "int4, rotated",
    "w4a16": "int4 (w4a16)",
    "w4a16-folded": "int4, folded rotation",
    "llm-compressor": "llm-compressor",
    "gptqmodel": "GPTQModel",
    "gptqmodel-asym": "GPTQModel, asymmetric",
    "auto-round": "AutoRound",
    "auto-round-asym": "AutoRound, asymmetric",
    "auto-round-ext": "AutoRound, alg_ext",
}
"""What a line is called, where not by its own name."""

PALETTES = (
    {
        "paper": "#fff",
        "rule": "#d9dee3",
        "ink": "#14181d",
        "muted": "#57606b",
        "reference": "#6b7480",
        "candidate": "#0072b2",
    },
    {
        "paper": "#101418",
        "rule": "#303841",
        "ink": "#e8ecf0",
        "muted": "#9ca7b3",
        "reference": "#a9b4c0",
        "candidate": "#56b4e9",
    },
)
"""Light and dark, as in reports/templates/report.css, but as plain values: not every viewer of SVG knows variables."""


class Point(NamedTuple):
    """A checkpoint: bits a weight and mean KL in nats."""

    bits: float
    kl: float


class Line(NamedTuple):
    """What differs in its number of bits alone."""

    label: str
    ours: bool
    points: list[Point]
    """By bits."""


def lines(results: dict[str, dict[str, float]], ours: bool) -> list[Line]:
    """Entries of a result of kl_panel, by what they are called apart from their number."""
    found: dict[str, list[Point]] = {}
    for name, entry in results.items():
        found.setdefault(family(name), []).append(Point(entry["bits"], entry["kl_mean"]))
    return [Line(LABELS.get(name, name), ours, sorted(points)) for name, points in found.items()]


def family(name: str) -> str:
    """`auto-round-ext-2bit` -> `auto-round-ext`, `vq1.5` -> `vq`, `int4-rotated` -> `int-rotated`."""
    return name if name.startswith("w4a16") else re.sub(r"-?\d+(\.\d+)?(-?bit)?(?=-|$)", "", name, count=1)


def draw(found: list[Line], axes: Axes) -> None:
    """Lines with their names beside their last points."""
    for line in found:
        ink = INKS["candidate" if line.ours else "reference"]
        mark = {"marker": "o", "markersize": 6, "clip_on": False} if line.ours else ring(6)
        axes.plot(*zip(*line.points, strict=True), color=ink, linewidth=1.8 if line.ours else 1.4, **mark)
    values = [point for line in found for point in line.points]
    axes.set_yscale("log")
    axes.set_xlim(min(1.0, *(point.bits for point in values)), max(4.2, *(point.bits for point in values)))
    axes.set_ylim(min(point.kl for point in values) / 1.25, max(point.kl for point in values) * 1.25)
    ticks = [step * 10.0**power for power in range(-3, 2) for step in (1, 2, 5)]
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in ticks if low <= tick <= high])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.grid(axis="y", color=INKS["rule"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    named(axes, "bits per weight", "mean KL from the original, nats")
    names(found, axes)


def names(found: list[Line], axes: Axes) -> None:
    """Names of lines that end near the right edge stand in a column beside it, the others at their last points."""
    edge = axes.get_xlim()[1]
    ends = [(line, axes.transData.transform(line.points[-1])[1]) for line in found if line.points[-1].bits > edge - 0.4]
    for line, y in zip((line for line, _ in ends), spread([y for _, y in ends]), strict=True):
        axes.annotate(
            line.label,
            line.points[-1],
            (axes.transAxes.transform((1, 0))[0] + 22, y),
            textcoords="figure pixels",
            arrowprops={"arrowstyle": "-", "color": INKS["rule"], "linewidth": 0.8, "shrinkA": 0, "shrinkB": 6},
            fontsize=12,
            va="center",
            color=INKS["candidate" if line.ours else "muted"],
            annotation_clip=False,
        )
    inner = [line for line in found if line.points[-1].bits <= edge - 0.4]
    heights = [axes.transData.transform(line.points[-1])[1] for line in inner]
    # Lines go down to the right: there is room to the left of a single point; above ours, where it is not of ours.
    for ours in (True, False):
        alone = [at for at, line in enumerate(inner) if len(line.points) == 1 and line.ours == ours]
        for at, height in zip(alone, spread([heights[at] for at in alone]), strict=True):
            heights[at] = height - heights[at] + (0 if ours else 1.2 * LINE)
    for line, height in zip(inner, heights, strict=True):
        single = len(line.points) == 1
        axes.annotate(
            line.label,
            line.points[-1],
            (-9 if single else 9, height * 72 / axes.figure.dpi if single else 0),
            textcoords="offset points",
            fontsize=12,
            ha="right" if single else "left",
            va="center",
            color=INKS["candidate" if line.ours else "muted"],
            bbox={"facecolor": INKS["paper"], "edgecolor": "none", "pad": 1},
        )


def spread(heights: list[float]) -> list[float]:
    """The same heights, moved apart where they are less than LINE from one another."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = [heights[at] for at in order]
    for _ in range(200):
        for low in range(len(moved) - 1):
            short = LINE - (moved[low + 1] - moved[low])
            if short > 0:
                moved[low] -= short / 2
                moved[low + 1] += short / 2
    placed = dict(zip(order, moved, strict=True))
    return [placed[at] for at in range(len(heights))]


def picture(found: list[Line]) -> str:
    """A whole SVG file."""
    with plain_text():
        figure = canvas(WIDTH, HEIGHT)
        draw(found, axes_at(figure, LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM))
        svg = to_svg(figure, "low-bits", "KL from the original against bits per weight", "wide")
    light, dark = (
        " ".join(f".f-{name} {{ fill: {value} }} .s-{name} {{ stroke: {value} }}" for name, value in palette.items())
        for palette in PALETTES
    )
    style = f"svg {{ font-family: system-ui, sans-serif }} {light} @media (prefers-color-scheme: dark) {{ {dark} }}"
    head, _, rest = svg.partition(">")
    paper = '<rect class="f-paper" width="100%" height="100%"/>'
    return f'{head} width="{WIDTH}" height="{HEIGHT}"><style>{style}</style>{paper}{rest}\n'


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.low_bits_figure", description=__doc__)
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    ours, theirs = (json.loads(file.read_text("utf-8"))["results"] for file in (asked.ours, asked.theirs))
    asked.out.write_text(picture([*lines(theirs, ours=False), *lines(ours, ours=True)]), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
