"""Which modules a quantization_config excepts from quantization: `ignore` and its many sister keys.

A config.json is as hostile as the rest of a checkpoint, and its patterns are regular expressions. They are matched by
RE2 (pyarrow has it), whose time is linear, never by `re`, where a pattern can be made to take years.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

KEYS = (
    "ignore",  # compressed-tensors, ModelOpt
    "ignored_layers",  # FP8, MXFP4
    "modules_to_not_convert",  # AWQ, FP8, MXFP4
    "exclude_modules",  # ModelOpt, older
    "llm_int8_skip_modules",  # bitsandbytes
    "linear_weights_not_to_quantize",  # AQLM
)
# Classes that every linear layer is of.
CLASSES = ("Linear", "Module")
MOST_PATTERNS = 200
LONGEST_PATTERN = 1000
MOST_PARTS = 32


def excepted(names: Sequence[str], quantization: Mapping[str, Any]) -> set[str]:
    """The modules among `names` that the config leaves as they are. Never raises.

    Lenient where it cannot tell (a pattern that RE2 refuses, such as a look-ahead; too many patterns): then every
    module counts as excepted, because a wrong accusation is worse here than a missed one.
    """
    spared, certain = _matching(names, list(_exceptions(quantization)))
    if not certain:
        return set(names)
    targets = _targets(quantization)
    if targets is not None:
        spared |= set(names) - _matching(names, targets)[0]
    return spared


def contradicted(names: Sequence[str], quantization: Mapping[str, Any]) -> tuple[list[str], str]:
    """The modules among `names`, all stored quantized, that the config excepts, and the first entry that does so.

    Strict where `excepted` is lenient: an entry counts that certainly means the module. Never raises.
    """
    # compressed-tensors takes full names, classes and patterns; elsewhere a part of a name between dots is enough.
    whole = str(quantization.get("quant_method")).replace("_", "-") == "compressed-tensors"
    entries = list(dict.fromkeys(_exceptions(quantization)))
    literal = {entry.strip(".").removesuffix(".weight"): entry for entry in entries if "*" not in entry}
    found: dict[str, str] = {}
    for name in names:
        reach = (name, *CLASSES) if whole else _stretches(name)
        if hit := next((part for part in reach if part in literal), None):
            found[name] = literal[hit]
    for entry in [entry for entry in entries if entry.startswith("re:") or ("*" in entry and not whole)][
        :MOST_PATTERNS
    ]:
        pattern = entry[3:] if entry.startswith("re:") else f"{_glob(entry)}$"
        hits = _matched([*CLASSES, *names] if whole else names, pattern) or set()
        for name in names if hits.intersection(CLASSES) and whole else hits:
            found.setdefault(name, entry)
    return [name for name in names if name in found], next((found[name] for name in names if name in found), "")


def _exceptions(quantization: Mapping[str, Any]) -> Iterator[str]:
    for key in KEYS:
        yield from _strings(quantization.get(key))
    dynamic = quantization.get("dynamic")  # GPTQModel: {"-:pattern": {}} leaves modules out
    for key in dynamic if isinstance(dynamic, dict) else ():
        if key.startswith("-:"):
            yield "re:" + key[2:]


def _targets(quantization: Mapping[str, Any]) -> list[str] | None:
    """The only modules that are quantized, None when that is every linear layer."""
    inside = quantization.get("modules_in_block_to_quantize")  # GPTQ: [["self_attn.q_proj", ...], ...]
    if isinstance(inside, list) and inside:
        return [name for part in inside for name in (_strings(part) if isinstance(part, list) else _strings([part]))]
    groups = quantization.get("config_groups")
    found: list[str] = []
    for group in groups.values() if isinstance(groups, dict) else ():
        targets = list(_strings(group.get("targets"))) if isinstance(group, dict) else []
        if not targets or any(name.isidentifier() and name[0].isupper() for name in targets):
            return None  # the name of a class, such as Linear
        found += targets
    return found or None


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, str) and entry)


def _matching(names: Sequence[str], entries: Sequence[str]) -> tuple[set[str], bool]:
    """The names that one of the entries means, and whether every entry could be understood.

    `*.self_attn` means what is inside of it too: gpt-oss leaves all of its attention out in that way.
    """
    patterns = [entry[3:] for entry in entries if entry.startswith("re:")]
    patterns += [_glob(entry) + r"(?:\.|$)" for entry in entries if "*" in entry and not entry.startswith("re:")]
    literal = {entry.strip(".").removesuffix(".weight") for entry in entries if "*" not in entry}
    found = {name for name in names if not literal.isdisjoint(_stretches(name))}
    if len(patterns) > MOST_PATTERNS:
        return found, False
    matched = [_matched(names, pattern) for pattern in patterns]
    return found.union(*(some for some in matched if some is not None)), None not in matched


def _stretches(name: str) -> Iterator[str]:
    """The name and every run of its dotted parts: `visual` and `mlp.gate` in an ignore list mean all that hold them."""
    yield name
    parts = name.split(".")
    if len(parts) <= MOST_PARTS:
        for first in range(len(parts)):
            for last in range(first + 1, len(parts) + 1):
                yield ".".join(parts[first:last])


def _glob(entry: str) -> str:
    return ".*".join(re.escape(part) for part in entry.split("*"))


def _matched(names: Sequence[str], pattern: str) -> set[str] | None:
    """The names that the pattern matches from their beginning on, None when RE2 does not take the pattern."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(pattern) > LONGEST_PATTERN:
        return None
    try:
        readable = pa.array([name.encode("utf-8", "replace").decode() for name in names], pa.string())
        hits = pc.match_substring_regex(readable, pattern=f"^(?:{pattern})").to_pylist()
    except ValueError:
        return None
    return {name for name, hit in zip(names, hits, strict=True) if hit}
