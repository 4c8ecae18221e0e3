"""Parity: are two servers really comparable? Decided on what was read back from them (harness/parity/readback.py)."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from harness.contract.errors import NotComparable
from harness.contract.samples import Role
from harness.parity.server_config import OFF, UNKNOWN
from harness.parity.steadiness import OF_A_RUN


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Facts that are not equal: name -> (value of the one, value of the other).

    Facts of a run (`run.*`) are not compared. Flags are compared where both servers tell them; where only one does,
    that is the one difference `config`.
    """
    flags = one.get("config") == other.get("config")
    found = {}
    for name in sorted(one.keys() | other.keys()):
        is_flag = name.startswith(("config.", "env."))
        if name.startswith(OF_A_RUN) or (is_flag and not flags):
            continue
        absent = OFF if is_flag else UNKNOWN
        pair = one.get(name, absent), other.get(name, absent)
        if pair[0] != pair[1]:
            found[name] = pair
    return found


def require_parity(readback: Mapping[Role, Mapping[str, str]], allow_different: Sequence[str]) -> list[str]:
    """Check that the two roles differ in nothing but what the policy allows. Returns the allowed differences.

    Raises:
        NotComparable: naming every other difference with both values, or saying that both are the same model.
    """
    found = differences(readback["reference"], readback["candidate"])
    if "model" not in found:
        raise NotComparable("both roles are the same checkpoint: there is nothing to compare")
    refused = {
        n: p for n, p in found.items() if not any(fnmatch.fnmatchcase(n, pattern) for pattern in allow_different)
    }
    if refused:
        listed = "; ".join(f"{name}: reference {r}, candidate {c}" for name, (r, c) in refused.items())
        hint = ""
        if "config" in refused:
            hint = "; serve both with VLLM_SERVER_DEV_MODE=1 (on loopback) and the flags of both can be read"
        raise NotComparable(f"not comparable: {listed} (allow_different in the policy lists what may differ{hint})")
    return sorted(found)


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
