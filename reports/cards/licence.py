"""Whose work the model is: the base model's id and licence, as far as the checkpoints themselves tell."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from reports.cards.sources import HUB_ID
from reports.provenance import ModelView
from reports.text import one_line

MOST_FRONT_MATTER_BYTES = 1 << 16
KEYS = ("license", "license_name", "license_link")

_LINE = re.compile(r"""(license|license_name|license_link)[ ]*:[ ]*(["']?)([^"'#\[\]{}&*|>\r\n]{1,300}?)\2[ ]*""")
"""A key with one plain value; anything else (lists, blocks, aliases) says nothing here."""


@dataclass(frozen=True)
class Origin:
    """What is known of the base model."""

    base: str | None
    """Its id on a hub (owner/name); None when nothing names one."""
    said_by: str
    """What names it: "reference" (it is the one compared with), or whose card."""
    licence: dict[str, str] = field(default_factory=dict)
    """license, license_name and license_link, as the cards write them; empty when unknown."""
    licence_by: str = ""
    """Whose card says so."""
    disagree: str = ""
    """The licence in the candidate's own card, when it is another one."""
    files: tuple[str, ...] = ()
    """Files of licence and notice beside the weights."""

    @property
    def is_reference(self) -> bool:
        """Whether the base model is what the candidate was compared with."""
        return self.said_by == "reference"


def origin(models: list[ModelView]) -> Origin:
    """Read from names, from what the manifest noted of the cards, and from the cards where they still are.

    The cards are other people's text: a bounded part is read line by line, and what cannot be read says nothing.
    """
    by_role = {model.role: model for model in models}
    base, said_by = _base(by_role)
    found: dict[str, dict[str, str]] = {
        role: _licence(by_role[role]) for role in ("reference", "candidate") if role in by_role
    }
    said = {role: licence for role, licence in found.items() if licence.get("license")}
    licence_by: str = next(iter(said), "")
    licence = said.get(licence_by, {})
    other = said.get("candidate", {}).get("license", "")
    files = sorted({name for model in models for name in _files(model)})
    disagree = other if other and other != licence.get("license") else ""
    return Origin(base, said_by, licence, licence_by, disagree, tuple(files))


def public_name(name: str) -> str:
    """A model's name; of a folder on somebody's machine only its last part."""
    text = one_line(name, 120)
    return text.rstrip("/").rpartition("/")[2] if text.startswith(("/", ".", "~")) else text


def _base(models: dict[str, ModelView]) -> tuple[str | None, str]:
    reference = models.get("reference")
    # owner/name may be a folder too: then the path that it was found at ends with it.
    if reference and HUB_ID.fullmatch(reference.name) and not f"/{reference.path}".endswith(f"/{reference.name}"):
        return reference.name, "reference"
    for role in ("candidate", "reference"):
        claimed = dict(models[role].claimed).get("card: base_model", "") if role in models else ""
        if HUB_ID.fullmatch(claimed):
            return claimed, f"the {role}'s card"
    return None, ""


def _licence(model: ModelView) -> dict[str, str]:
    noted = {key: text for key in KEYS if (text := dict(model.claimed).get(f"card: {key}"))}
    return noted or _front_matter(Path(model.path))


def _front_matter(folder: Path) -> dict[str, str]:
    try:
        with (folder / "README.md").open("rb") as stream:
            lines = stream.read(MOST_FRONT_MATTER_BYTES).decode("utf-8-sig", "replace").splitlines()
    except (OSError, ValueError):  # ValueError: a path with a null character
        return {}
    if not lines or lines[0].rstrip() != "---":
        return {}
    found: dict[str, str] = {}
    for line in lines[1:]:
        if line.rstrip() == "---":
            return found
        match = _LINE.fullmatch(line)
        if match and match[3].strip():
            found[match[1]] = one_line(match[3], 200)
    return {}


def _files(model: ModelView) -> list[str]:
    try:
        names = [path.name for pattern in ("LICEN[SC]E*", "NOTICE*") for path in Path(model.path).glob(pattern)]
    except (OSError, ValueError):
        return []
    return [one_line(name, 80) for name in sorted(names)[:8]]
