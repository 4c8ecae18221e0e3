"""Parity: are two servers really comparable? Decided on what was read back from them (harness/parity/readback.py)."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.contract.errors import NotComparable
from harness.contract.samples import Role
from harness.parity.server_config import OFF, UNKNOWN
from harness.parity.steadiness import OF_A_RUN

SHOW = (
    "serve both with VLLM_SERVER_DEV_MODE=1 and, from vLLM 0.31 on, --enable-scale-out (on loopback), and the flags of "
    "both can be read"
)
MOST_NAMED = 20


@dataclass(frozen=True)
class Unread:
    """Facts that at least one of two servers does not tell: whether they are equal is not known."""

    names: list[str]
    total: int
    """Facts that were to be compared."""
    shut: bool = False
    """Whether a server keeps its flags to itself."""

    @property
    def sentence(self) -> str:
        return f"{len(self.names)} of {self.total} facts could not be read"

    @property
    def listed(self) -> str:
        """By section: "tokenizer, default (10), config.model (12)"."""
        sections = Counter(".".join(name.split(".")[: 2 if name.startswith("config.") else 1]) for name in self.names)
        said = [name if count == 1 else f"{name} ({count})" for name, count in sections.items()]
        more = len(said) - MOST_NAMED
        return ", ".join(said[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def unread(one: Mapping[str, str], other: Mapping[str, str]) -> Unread:
    """What of two servers could not be compared, because one of them, or neither, tells it."""
    names = sorted(name for name in one.keys() | other.keys() if not name.startswith(OF_A_RUN))
    if any(_is_flag(name) for name in names):  # then each counts by itself
        names = [name for name in names if name != "config"]
    shut = any(facts.get("config") == UNKNOWN for facts in (one, other))

    def told(facts: Mapping[str, str], name: str) -> bool:
        absent = UNKNOWN if shut or not _is_flag(name) else OFF
        return facts.get(name, absent) != UNKNOWN

    return Unread([name for name in names if not (told(one, name) and told(other, name))], len(names), shut)


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Facts that are not equal: name -> (value of the one, value of the other).

    Facts of a run (`run.*`) are not compared. Flags are compared where both servers tell them; where only one does,
    that is the one difference `config`. What was found by asking (`asked.*`) is compared where flags are not. Two facts
    that cannot be read are no difference and not equal either: `unread` has them.
    """
    flags = one.get("config") == other.get("config") != UNKNOWN
    found = {}
    for name in sorted(one.keys() | other.keys()):
        if name.startswith(OF_A_RUN) or (_is_flag(name) and not flags):
            continue
        if name.startswith("asked.") and (flags or not (name in one and name in other)):
            continue
        absent = OFF if _is_flag(name) else UNKNOWN
        pair = one.get(name, absent), other.get(name, absent)
        if pair[0] != pair[1]:
            found[name] = pair
    return found


def _is_flag(name: str) -> bool:
    return name.startswith(("config.", "env."))


def require_parity(
    readback: Mapping[Role, Mapping[str, str]],
    allow_different: Sequence[str],
    allow_unreadable: Sequence[str] = ("*",),
) -> list[str]:
    """Check that the two roles differ in nothing but what the policy allows. Returns the allowed differences.

    Raises:
        NotComparable: naming every other difference with both values, saying that both are the same model, or naming
            what could not be read and must be.
    """
    found = differences(readback["reference"], readback["candidate"])
    if "model" not in found:
        raise NotComparable("both roles are the same checkpoint: there is nothing to compare")
    refused = {
        n: p for n, p in found.items() if not any(fnmatch.fnmatchcase(n, pattern) for pattern in allow_different)
    }
    if refused:
        listed = "; ".join(f"{name}: reference {r}, candidate {c}" for name, (r, c) in refused.items())
        hint = f"; {SHOW}" if "config" in refused else ""
        raise NotComparable(f"not comparable: {listed} (allow_different in the policy lists what may differ{hint})")
    if hidden := forbidden_unread(readback["reference"], readback["candidate"], allow_unreadable):
        raise NotComparable(
            f"not comparable: {hidden.sentence}: {hidden.listed} (allow_unreadable in the policy lists what need not "
            f"be read; {SHOW})"
        )
    return sorted(found)


def forbidden_unread(one: Mapping[str, str], other: Mapping[str, str], allowed: Sequence[str]) -> Unread | None:
    """What could not be read of two servers and the policy does not allow to be so; None where there is nothing."""
    found = unread(one, other)
    names = [name for name in found.names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)]
    return replace(found, names=names) if names else None


def require_same(one: Mapping[str, str], other: Mapping[str, str], what: str) -> None:
    """Check that every fact is equal: the reference served once more, or a server before and after --resume.

    `what` names the two in the error: "the reference and its second server".

    Raises:
        NotComparable: naming every difference with both values.
    """
    found = differences(one, other)
    if found:
        listed = "; ".join(f"{name}: {first}, then {second}" for name, (first, second) in found.items())
        raise NotComparable(f"{what} must be equal in everything: {listed}")
