"""What exactly ran: models, server facts side by side, commands, versions and hardware."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.runfolder import Manifest, ServerFacts
from harness.samples import ROLES
from reports.text import hide_secret, hide_secrets, one_line, parameters, short_hash, shorten, size

ABSENT = "–"
State = Literal["same", "allowed", "forbidden", "differs"]


@dataclass(frozen=True)
class Fact:
    """One fact of both servers."""

    name: str
    reference: str
    candidate: str
    state: State
    """`forbidden`: the servers said it of themselves, it differs, and the policy does not allow it to."""


@dataclass(frozen=True)
class Word:
    """One argument of a command; `differs` when the other role's command does not have it."""

    text: str
    differs: bool


@dataclass(frozen=True)
class ModelView:
    """One of the two models, in words."""

    role: str
    name: str
    quantization: str
    bits_per_weight: str
    size: str
    parameters: str
    sha256: str
    path: str

    @property
    def short_sha256(self) -> str:
        return short_hash(self.sha256) if self.sha256 else "not hashed"


@dataclass(frozen=True)
class Provenance:
    """Everything needed to know, and to repeat, what ran."""

    facts: list[Fact]
    commands: dict[str, list[Word]]
    gate_command: str
    versions: list[tuple[str, str]]
    hardware: list[tuple[str, str]]
    items_sha256: list[tuple[str, str]]

    @property
    def forbidden(self) -> list[str]:
        """Names of facts that differ though the policy does not allow it."""
        return [fact.name for fact in self.facts if fact.state == "forbidden"]


def model_views(manifest: Manifest) -> list[ModelView]:
    """The models that the manifest knows, the reference first."""
    views = []
    for role in ROLES:
        facts = manifest.models.get(role)
        if facts is None:
            continue
        views.append(
            ModelView(
                role=role,
                name=one_line(facts.name, 120),
                quantization=one_line(facts.quantization or "none", 60),
                bits_per_weight=f"{facts.bits_per_weight:.2f}" if facts.bits_per_weight else "unknown",
                size=size(facts.bytes) if facts.bytes else "unknown",
                parameters=parameters(facts.parameters) if facts.parameters else "unknown",
                sha256=facts.sha256,
                path=one_line(facts.path, 400),
            )
        )
    return views


def size_ratio(manifest: Manifest) -> float | None:
    """Bytes of the candidate over bytes of the reference."""
    models = [manifest.models.get(role) for role in ROLES]
    sizes = [model.bytes if model else 0 for model in models]
    return sizes[1] / sizes[0] if all(sizes) else None


def provenance(manifest: Manifest) -> Provenance:
    """Lay both roles' facts side by side."""
    versions = {"quantgate": manifest.quantgate_version} | manifest.versions
    return Provenance(
        facts=_facts(manifest),
        commands=_commands(manifest),
        gate_command=shlex.join(hide_secrets(manifest.command)),
        versions=[(name, one_line(version)) for name, version in versions.items()],
        hardware=[(name, _plain(name, value)) for name, value in manifest.hardware.items()],
        items_sha256=list(manifest.items_sha256.items()),
    )


def _facts(manifest: Manifest) -> list[Fact]:
    sides = [manifest.servers.get(role, ServerFacts(url="")) for role in ROLES]
    if not manifest.servers:
        return []
    allowed = set(manifest.allowed_differences)
    facts = [_fact("url", [side.url or None for side in sides], "differs")]
    for name in _names(*(side.readback for side in sides)):
        state: State = "allowed" if name in allowed else "forbidden"
        facts.append(_fact(name, [side.readback.get(name) for side in sides], state))
    for name in _names(*(side.environment for side in sides)):
        facts.append(_fact(f"environment {name}", [side.environment.get(name) for side in sides], "differs"))
    rank: dict[State, int] = {"forbidden": 0, "allowed": 1, "differs": 2, "same": 3}
    return sorted(facts, key=lambda fact: rank[fact.state])


def _fact(name: str, values: list[str | None], when_different: State) -> Fact:
    shown = [ABSENT if value is None else shorten(hide_secret(name, value), 600) for value in values]
    return Fact(name, shown[0], shown[1], "same" if values[0] == values[1] else when_different)


def _names(*sides: Mapping[str, str]) -> list[str]:
    return sorted({name for side in sides for name in side})


def _commands(manifest: Manifest) -> dict[str, list[Word]]:
    lines = {role: hide_secrets(server.command) for role, server in manifest.servers.items() if server.command}
    if len(lines) < 2:
        return {role: [Word(word, False) for word in line] for role, line in lines.items()}
    reference, candidate = lines["reference"], lines["candidate"]
    same = difflib.SequenceMatcher(a=reference, b=candidate, autojunk=False).get_matching_blocks()
    kept = [
        {block.a + i for block in same for i in range(block.size)},
        {b.b + i for b in same for i in range(b.size)},
    ]
    return {
        "reference": [Word(shlex.quote(word), i not in kept[0]) for i, word in enumerate(reference)],
        "candidate": [Word(shlex.quote(word), i not in kept[1]) for i, word in enumerate(candidate)],
    }


def _plain(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return shorten(hide_secret(name, text), 600)
