"""What exactly ran: models, server facts side by side, commands, versions and hardware."""

from __future__ import annotations

import difflib
import fnmatch
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.contract.model_facts import ModelFacts
from harness.contract.samples import ROLES
from harness.contract.secrets import hide_secret, hide_secrets
from harness.parity.comparison import Unread, differences, unread
from harness.runs.manifest import Baseline, Manifest, ServerFacts
from reports.rerun_commands import Command, repeat, started
from reports.text import (
    date,
    one_line,
    parameters,
    percent,
    plural,
    short_hash,
    shorten,
    size,
)

ABSENT = "–"
FactState = Literal["same", "allowed", "forbidden", "differs", "unread"]


@dataclass(frozen=True)
class Fact:
    """One fact of both servers."""

    name: str
    reference: str
    candidate: str
    state: FactState
    """`forbidden`: it differs by parity's own rules, and the policy does not allow it to. `differs`: nobody asks.
    `unread`: a server does not tell, so whether it is equal is not known."""


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
    """Of the whole checkpoint."""
    linear_bits: str
    """Of the layers that quantizing is about, and how much of them is stored in few bits."""
    size: str
    tensor_bytes: str
    """By dtype."""
    parameters: str
    claimed: list[tuple[str, str]]
    """What config, card and name say of the quantization, by source."""
    sha256: str
    path: str

    @property
    def short_sha256(self) -> str:
        return short_hash(self.sha256) if self.sha256 else "not hashed"


@dataclass(frozen=True)
class DataRow:
    """What was asked in a suite and what was answered; empty where the manifest does not say."""

    suite: str
    items: str
    """sha256 of the items."""
    samples: str
    """sha256 of the samples."""
    lines: str


@dataclass(frozen=True)
class Provenance:
    """Everything needed to know, and to repeat, what ran."""

    facts: list[Fact]
    commands: dict[str, list[Word]]
    gate_command: str
    """As it was typed."""
    repeat: list[Command]
    """Lines for a shell that repeat the run, or a part of it."""
    remarks: dict[str, str]
    """By role what must be done before its command runs as it stands, where there is anything."""
    versions: list[tuple[str, str]]
    hardware: list[tuple[str, str]]
    data: list[DataRow]
    reused: str
    """From which run the reference's samples come, in a sentence; empty when they are of this run."""
    unread: Unread
    """What could not be compared."""

    @property
    def differing(self) -> list[Fact]:
        return [fact for fact in self.facts if fact.state not in ("same", "unread")]

    @property
    def equal(self) -> list[Fact]:
        return [fact for fact in self.facts if fact.state == "same"]

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
                linear_bits=_linear_bits(facts),
                size=size(facts.bytes) if facts.bytes else "unknown",
                tensor_bytes=", ".join(f"{dtype} {size(count)}" for dtype, count in facts.tensor_bytes.items()),
                parameters=parameters(facts.parameters) if facts.parameters else "unknown",
                claimed=[(one_line(source, 60), one_line(text, 300)) for source, text in facts.claimed.items()],
                sha256=facts.sha256,
                path=one_line(facts.path, 400),
            )
        )
    return views


def _linear_bits(facts: ModelFacts) -> str:
    if not facts.linear_bits:
        return "unknown"
    share = f" ({percent(facts.low_bit_share, 0)} of weights below 16 bits)" if facts.low_bit_share else ""
    return f"{facts.linear_bits:.2f}{share}"


def size_ratio(manifest: Manifest) -> float | None:
    """Bytes of the candidate over bytes of the reference."""
    models = [manifest.models.get(role) for role in ROLES]
    sizes = [model.bytes if model else 0 for model in models]
    return sizes[1] / sizes[0] if all(sizes) else None


def provenance(manifest: Manifest, allow_different: Iterable[str] = ()) -> Provenance:
    """Lay both roles' facts side by side. `allow_different` are the policy's patterns of facts that may differ."""
    versions = {"quantgate": manifest.quantgate_version} | manifest.versions
    return Provenance(
        facts=_facts(manifest, [*manifest.allowed_differences, *allow_different]),
        commands=_commands(manifest),
        gate_command=shlex.join(hide_secrets(manifest.command)),
        repeat=repeat(manifest),
        remarks={role: remark for role, server in manifest.servers.items() if (remark := started(server)[1])},
        versions=[(name, one_line(version)) for name, version in versions.items()],
        hardware=[(name, _plain(name, value)) for name, value in manifest.hardware.items()],
        data=_data(manifest),
        reused=reused(manifest.baseline) if manifest.baseline else "",
        unread=unread_of(manifest),
    )


def reused(baseline: Baseline) -> str:
    """Where the reference's samples come from, in a sentence."""
    run, day = one_line(baseline.run_id), one_line(date(baseline.created))
    return f"Reference reused from run {run} of {day}; same model hash, flags, versions, data and sampling."


def unread_of(manifest: Manifest) -> Unread:
    """What the two servers do not tell; nothing where one of them was not read back."""
    sides = [manifest.servers[role].readback for role in ROLES if role in manifest.servers]
    return unread(*sides) if len(sides) == len(ROLES) and all(sides) else Unread([], 0)


def _facts(manifest: Manifest, allowed: Sequence[str]) -> list[Fact]:
    sides = [manifest.servers.get(role, ServerFacts(url="")) for role in ROLES]
    if not manifest.servers:
        return []
    facts = [_fact("url", [side.url or None for side in sides], "differs")]
    found = differences(sides[0].readback, sides[1].readback) if all(side.readback for side in sides) else {}
    hidden = set(unread_of(manifest).names) - found.keys()
    for name in _names(*(side.readback for side in sides)):
        values = list(found.get(name, (side.readback.get(name) for side in sides)))
        may = any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)
        state: FactState = "differs" if name not in found else "allowed" if may else "forbidden"
        facts.append(_fact(name, values, "unread" if name in hidden else state))
    for name in _names(*(side.environment for side in sides)):
        facts.append(_fact(f"environment {name}", [side.environment.get(name) for side in sides], "differs"))
    rank: dict[FactState, int] = {"forbidden": 0, "allowed": 1, "differs": 2, "unread": 3, "same": 4}
    return sorted(facts, key=lambda fact: rank[fact.state])


def _fact(name: str, values: list[str | None], when_different: FactState) -> Fact:
    shown = [ABSENT if value is None else shorten(hide_secret(name, value), 600) for value in values]
    equal = values[0] == values[1] and when_different != "unread"
    return Fact(name, shown[0], shown[1], "same" if equal else when_different)


def _names(*sides: Mapping[str, str]) -> list[str]:
    return sorted({name for side in sides for name in side})


def _commands(manifest: Manifest) -> dict[str, list[Word]]:
    lines = {role: started(server)[0] for role, server in manifest.servers.items() if server.command}
    words: dict[str, list[Word]] = {
        role: [Word(shlex.quote(word), False) for word in line] for role, line in lines.items()
    }
    if not lines.keys() >= set(ROLES):
        return words
    reference, candidate = (lines[role] for role in ROLES)
    same = difflib.SequenceMatcher(a=reference, b=candidate, autojunk=False).get_matching_blocks()
    kept = [
        {block.a + i for block in same for i in range(block.size)},
        {b.b + i for b in same for i in range(b.size)},
    ]
    for role, there in zip(ROLES, kept, strict=True):
        words[role] = [Word(word.text, place not in there) for place, word in enumerate(words[role])]
    return words


def _data(manifest: Manifest) -> list[DataRow]:
    rows = []
    for suite in dict.fromkeys([*manifest.items_sha256, *manifest.samples]):
        file = manifest.samples.get(suite)
        said = (file.sha256, plural(file.lines, "line")) if file else ("", "")
        rows.append(DataRow(one_line(suite), manifest.items_sha256.get(suite, ""), *said))
    return rows


def _plain(name: str, value: Any) -> str:
    return shorten(hide_secret(name, _said(value)), 600)


def _said(value: Any) -> str:
    """A value of the manifest as a person says it: "0 to 15", "name NVIDIA H100, memory_gib 79.6"."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {hide_secret(str(key), _said(each))}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        whole = all(type(each) is int for each in value)
        if whole and len(value) > 2 and value == list(range(value[0], value[0] + len(value))):
            return f"{value[0]} to {value[-1]}"
        return ("; " if any(isinstance(each, dict) for each in value) else ", ").join(map(_said, value)) or "none"
    return "unknown" if value is None else str(value)
