"""docs/policy.md and its schema are what the models say, and the shipped policies keep to the schema."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from harness.contract.policy import load_policy, shipped_policies
from scripts.policy_document import DOCS, MARKER, documents, schema, tables


def test_the_documents_are_made_from_the_models() -> None:
    for name, text in documents((DOCS / "policy.md").read_text("utf-8")).items():
        assert (DOCS / name).read_text("utf-8") == text, "run python -m scripts.policy_document"


def test_a_page_without_its_marker_is_not_written_over() -> None:
    with pytest.raises(ValueError, match="lost its marker"):
        documents("# The policy\n")
    assert documents(f"head\n{MARKER}old")["policy.md"] == f"head\n{MARKER}\n{tables()}"


def test_each_key_is_a_row_of_four_cells() -> None:
    rows = [line.split(" | ") for line in tables().splitlines() if line.startswith("| `")]
    assert len(rows) > 60 and all(len(row) == 4 for row in rows)


@pytest.mark.parametrize("name", shipped_policies())
def test_shipped_policies_keep_to_the_schema(name: str) -> None:
    policy: Any = YAML(typ="safe", pure=True).load(load_policy(name).text)
    jsonschema.validate(policy, schema())
    policy["suites"]["cots"] = {}
    with pytest.raises(jsonschema.ValidationError, match="cots"):
        jsonschema.validate(policy, schema())
