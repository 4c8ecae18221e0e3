"""Damaged configurations and tokenizers, and what the gate would read of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import folder_bytes, save_tiny_llama
from tokenizers import Tokenizer

from harness.checkpoint.models import describe
from harness.contract.errors import BadInput
from harness.prove import configuration, tokenizers
from harness.prove.catalogue import BY_NAME, CATALOGUE, QUICK, chosen
from harness.prove.entries import NotApplicable
from harness.serving.hardware import Gpu, Hardware

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    folder = save_tiny_llama(tmp_path / "good")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


@pytest.mark.parametrize("name", ["max-new-tokens", "sampling-defaults", "eos-id", "rope-theta", "far-positions"])
def test_one_file_differs_and_the_good_one_stays(good: Path, tmp_path: Path, name: str) -> None:
    entry, before = BY_NAME[name], folder_bytes(good)
    assert entry.write(good, tmp_path / "made", seed=0)
    after = folder_bytes(tmp_path / "made")
    assert folder_bytes(good) == before
    different = [file for file in before if before[file] != after[file]]
    assert different == [configuration.CONFIG if entry.expected.kind == "fail" else configuration.GENERATION]
    assert describe("made", tmp_path / "made").parameters == describe("good", good).parameters


def test_theta_is_a_tenth(good: Path, tmp_path: Path) -> None:
    configuration.positioned(good, tmp_path / "made", 10, configuration.lower_theta)
    theta = [read(folder, "config.json")["rope_parameters"]["rope_theta"] for folder in (good, tmp_path / "made")]
    assert theta[1] == theta[0] / 10


def test_a_model_without_rotary_positions_is_not_damaged(good: Path, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="no rope_theta"):
        configuration.lower_theta({"model_type": "gpt2"}, 10)
    with pytest.raises(NotApplicable, match=r"config\.json is as it was"):
        configuration.edited(good, tmp_path / "made", configuration.CONFIG, lambda config: None)


def test_a_template_loses_its_first_token(good: Path, tmp_path: Path) -> None:
    tokenizers.with_template(good, tmp_path / "made", tokenizers.without_first)
    assert (tmp_path / "made" / "chat_template.jinja").read_text() == TEMPLATE.removeprefix("{{ bos_token }}")
    assert (good / "chat_template.jinja").read_text() == TEMPLATE
    assert tokenizers.without_first("a<s>b<s>", "<s>") == "ab<s>"


def test_a_merge_less_is_other_tokens(good: Path, tmp_path: Path) -> None:
    data = read(good, "tokenizer.json")
    data["model"]["vocab"] |= {"th": 257}
    data["model"]["merges"] = [["t", "h"]]
    (good / "tokenizer.json").write_text(json.dumps(data))
    tokenizers.without_a_merge(good, tmp_path / "made")
    pair = [Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (good, tmp_path / "made")]
    assert [len(tokenizer.encode("the").ids) for tokenizer in pair] == [2, 3]


def test_a_tokenizer_without_merges_is_not_damaged(good: Path, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="no merges"):
        tokenizers.without_a_merge(good, tmp_path / "made")


def test_names_are_unique_and_each_entry_can_be_made_or_says_what_it_needs() -> None:
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    for entry in CATALOGUE:
        ways = [entry.make, entry.doses, entry.flags, entry.serves_reference, entry.during, entry.after, entry.needs]
        assert sum(map(bool, ways)) == 1, entry.name
        assert entry.expected.names or entry.expected.kind == "harmless"


def test_entries_are_chosen_by_name_and_their_controls_with_them() -> None:
    def names(*only: str) -> list[str]:
        return [entry.name for entry in chosen(only)]

    assert chosen([]) == list(CATALOGUE)
    assert names("merge-off") == ["int8", "merge-off"]
    assert names("router-2bit") == ["int8", "experts-int8", "router-2bit"]
    assert names("mtp-zeroed") == ["int8", "drafts-int8", "mtp-zeroed"]
    assert set(names("quick")) == {"int8", *QUICK}
    with pytest.raises(BadInput, match="no entry 'merge-of'; did you mean 'merge-off'"):
        chosen(["merge-of"])


def test_what_a_machine_lacks_for_an_entry_is_named() -> None:
    entry = BY_NAME["kv-cache-dtype"]
    plain = Hardware("a processor", [0, 1], 24.0, 20.0, [], avx512=False)
    assert entry.lacks(plain) == "a GPU, or a processor with AVX-512"
    assert entry.lacks(replace(plain, avx512=True)) == ""
    assert entry.lacks(replace(plain, gpus=[Gpu("0", "a GPU", 80.0, 80.0)])) == ""
    assert BY_NAME["tensor-parallel"].lacks(plain) == "two GPUs"
