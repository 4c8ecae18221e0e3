"""docs/policy.md and docs/policy.schema.json, from the models that read a policy.

    python -m scripts.policy_document

What stands above the marker in docs/policy.md is written by hand; the tables below it are made anew, and so is the
schema.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.contract.check import Check
from harness.contract.policy import NoiseFloor, Policy
from harness.contract.settings import Requests, Sampling, Serving
from harness.contract.whole_files import write_whole
from suites.registry import SUITES

DOCS = Path(__file__).parents[1] / "docs"
MARKER = "<!-- The tables below are made by `python -m scripts.policy_document`. -->\n"
SCHEMA_URL = "https://json-schema.org/draft/2020-12/schema"
PARTS: dict[str, type[BaseModel]] = {
    "The policy": Policy, "`serving`": Serving, "`sampling`": Sampling, "`requests`": Requests,
    "`noise_floor`": NoiseFloor, "An entry of `checks`": Check,
}  # fmt: skip


def schema() -> dict[str, Any]:
    """The JSON schema of a policy, those of the suites in their place."""
    found = Policy.model_json_schema()
    shared: dict[str, Any] = found.setdefault("$defs", {})
    properties = {}
    for name, (_, config) in SUITES.items():
        own = config.model_json_schema()
        shared |= own.pop("$defs", {})
        properties[name] = {"anyOf": [own, {"type": "null"}]}
    suites = found["properties"]["suites"]
    suites |= {"properties": properties, "additionalProperties": False}
    return {"$schema": SCHEMA_URL, "title": "a policy of quantgate"} | {k: v for k, v in found.items() if k != "title"}


def tables() -> str:
    """Every key with what it takes, its default and its meaning."""
    parts = PARTS | {f"`suites.{name}`": config for name, (_, config) in SUITES.items()}
    return "\n".join(f"### {title}\n\n{_table(model)}" for title, model in parts.items())


def _table(model: type[BaseModel]) -> str:
    whole = model.model_json_schema()
    required = set(whole.get("required", ()))
    rows = ["| key | takes | default | meaning |", "| --- | --- | --- | --- |"]
    for key, found in whole.get("properties", {}).items():
        default = "**required**" if key in required else _value(found.get("default"))
        meaning = " ".join(found.get("description", "").split()).replace("|", "\\|")
        rows.append(f"| `{key}` | {_takes(found, whole.get('$defs', {}))} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "as below"
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _takes(found: dict[str, Any], shared: dict[str, Any]) -> str:
    """In words what a property of a schema takes."""
    if "$ref" in found:
        name = found["$ref"].rpartition("/")[2]
        return _takes(shared[name], shared) if name in shared else "keys"
    if "anyOf" in found:
        kinds = [_takes(each, shared) for each in found["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in found:
        return ", ".join(f"`{value}`" for value in found["enum"])
    if "const" in found:
        return f"`{found['const']}`"
    kind = found.get("type", "anything")
    if kind == "array":
        inner = found.get("items") or {}
        return f"list of {_takes(inner, shared)}" if inner else "list"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {found[name]:g}" for name, sign in bounds.items() if name in found]
    return " ".join(
        [words.get(kind, "keys" if kind == "object" else str(kind)), *([", ".join(limits)] if limits else [])]
    )


def documents(page: str) -> dict[str, str]:
    """Both documents by file name; `page` is docs/policy.md as it is."""
    head, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"docs/policy.md has lost its marker: {MARKER.strip()}")
    text = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    return {"policy.md": f"{head}{MARKER}\n{tables()}", "policy.schema.json": text}


def main() -> int:
    """Write both."""
    for name, text in documents((DOCS / "policy.md").read_text("utf-8")).items():
        write_whole(DOCS / name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
