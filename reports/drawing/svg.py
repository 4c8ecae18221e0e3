"""matplotlib figures as inline SVG that takes its colours and fonts from the page, light or dark.

A page with a strict Content-Security-Policy ignores `style` attributes, so each becomes presentation
attributes; colours of `INKS` become classes (`f-name` fills, `s-name` strokes) for the page's style sheet.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INKS = {
    "ink": "#010101",
    "muted": "#020202",
    "rule": "#030303",
    "reference": "#040404",
    "candidate": "#050505",
    "pass": "#060606",
    "fail": "#070707",
    "open": "#080808",
    "paper": "#090909",
    "heat-0": "#0a0a00",
    **{f"drop-{step}": f"#0b0b{step:02x}" for step in range(1, 7)},
    **{f"gain-{step}": f"#0c0c{step:02x}" for step in range(1, 7)},
}
"""Colours to draw with; what they look like is the style sheet's business."""

_NAMES = {colour: name for name, colour in INKS.items()}
_SVG = "http://www.w3.org/2000/svg"
_ID = re.compile(r' id="([^"]*)"')
_USED = re.compile(r'(?:url\(#|href="#)([^")]+)')
_DIGITS = re.compile(r"(\.\d\d)\d+")
"""A hundredth of a pixel is enough, and a third of the page's figures is digits after it."""
_NUMBERS = {"d", "x", "y", "width", "height", "transform", "points"}
_FONT_SIZE = re.compile(r"([\d.]+)px")
ET.register_namespace("", _SVG)
ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")


@contextmanager
def plain_text() -> Iterator[None]:
    """Inside, a $ in a name is no formula, and a letter that matplotlib's font lacks is no warning."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def to_svg(figure: Figure, name: str, label: str, css_class: str) -> str:
    """Draw a figure (72 dpi: one point is one pixel at full size) as one inline SVG element.

    `name` keeps ids apart on one page; `label` is what a screen reader says.
    """
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(out.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
        _repaint(parent)
        _shorten(parent)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"class": f"figure {css_class}", "role": "img", "aria-label": label}
    text = ET.tostring(root, encoding="unicode")
    used = set(_USED.findall(text))
    text = _ID.sub(lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)


def _shorten(element: ET.Element) -> None:
    """Leave out what changes nothing that can be seen: most of what matplotlib writes."""
    element.attrib.pop("font-family", None)  # the page's own
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for key in _NUMBERS & element.attrib.keys():
        element.set(key, " ".join(_DIGITS.sub(r"\1", element.attrib[key]).split()))
    if element.tag != f"{{{_SVG}}}text":
        element.text = None
    element.tail = None


def _repaint(element: ET.Element) -> None:
    declarations = element.attrib.pop("style", "")
    classes: list[str] = []
    for declaration in declarations.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if not value:
            continue
        if key == "font":
            found = _FONT_SIZE.search(value)
            element.set("font-size", found[1] if found else "12")
            if "bold" in value or "700" in value:
                element.set("font-weight", "600")
        elif key in ("fill", "stroke") and value in _NAMES:
            classes.append(f"{key[0]}-{_NAMES[value]}")
        else:
            element.set(key, value)
    for key in ("fill", "stroke"):
        if element.get(key) in _NAMES:
            classes.append(f"{key[0]}-{_NAMES[element.attrib.pop(key)]}")
    if classes:
        element.set("class", " ".join(classes))
