"""What reading back takes from the checkpoint's files: generation config, chat template, tokenizer."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, FakeVllm
from readbacks import facts, read

from harness.contract.errors import BadInput
from harness.contract.model_facts import ModelFacts
from harness.parity.comparison import differences
from harness.parity.readback import GENERATION_CONFIG

TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "added_tokens": [{"id": 0, "content": "<s>"}],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "unk_id": 0},
}


def checkpoint(folder: Path, **files: Any) -> ModelFacts:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text, "utf-8")
    return facts(folder)


def of_files(server: FakeServer, model: ModelFacts) -> dict[str, str]:
    found = read(server, FakeVllm(), model)
    names = ("chat_template", "tokenizer", *(f"generation_config.{key}" for key in GENERATION_CONFIG))
    return {name: found[name] for name in names}


def test_a_checkpoint_without_these_files_has_none_of_it(server: FakeServer, tmp_path: Path) -> None:
    found = of_files(server, facts(tmp_path))
    assert (found.pop("chat_template"), found.pop("tokenizer")) == ("none", "none")
    assert set(found.values()) == {"null"}


@pytest.mark.parametrize("key", GENERATION_CONFIG)
def test_every_key_of_generation_config_that_vllm_takes_is_compared(
    server: FakeServer, tmp_path: Path, key: str
) -> None:
    one = checkpoint(tmp_path / "a", generation_config__json={"transformers_version": "4"})
    other = checkpoint(tmp_path / "b", generation_config__json={"transformers_version": "5", key: 7})
    found = differences(of_files(server, one), of_files(server, other))
    assert found == {f"generation_config.{key}": ("null", "7")}


def test_a_chat_template_is_its_text_wherever_it_lies(server: FakeServer, tmp_path: Path) -> None:
    inside = checkpoint(tmp_path / "a", tokenizer_config__json={"chat_template": "{{ x }}"})
    beside = checkpoint(tmp_path / "b", tokenizer_config__json={"pad": 1}, chat_template__jinja="{{ x }}")
    other = checkpoint(tmp_path / "c", chat_template__jinja="{{ x }}!")
    several = checkpoint(tmp_path / "d", tokenizer_config__json={"chat_template": [{"name": "default"}]})
    found = [of_files(server, model)["chat_template"] for model in (inside, beside, other, several)]
    assert found[0] == found[1] and len(set(found)) == 3 and all(f.startswith("sha256 ") for f in found)


def test_a_tokenizer_is_what_it_does_and_not_how_it_was_written(server: FakeServer, tmp_path: Path) -> None:
    model = TOKENIZER["model"]
    again = TOKENIZER | {
        "version": "2.0",
        "padding": {"length": 8},
        "model": model | {"merges": [["a", "b"]], "ignore_merges": False, "dropout": None},
    }
    changes = [
        TOKENIZER | {"model": model | {"merges": [["b", "a"]]}},
        TOKENIZER | {"model": model | {"vocab": {"a": 0, "b": 2, "ab": 1}}},
        TOKENIZER | {"model": model | {"unk_id": None}},
        TOKENIZER | {"model": model | {"ignore_merges": True}},
        TOKENIZER | {"added_tokens": []},
        {"model": None},
    ]
    found = [
        of_files(server, checkpoint(tmp_path / str(i), tokenizer__json=data))["tokenizer"]
        for i, data in enumerate([TOKENIZER, again, *changes])
    ]
    assert found[0] == found[1] and len(set(found)) == len(changes) + 1


def test_tokenizers_of_other_kinds_are_hashed_by_their_bytes(server: FakeServer, tmp_path: Path) -> None:
    one = of_files(server, checkpoint(tmp_path / "a", tokenizer__model="bytes"))["tokenizer"]
    same = of_files(server, checkpoint(tmp_path / "b", tokenizer__model="bytes"))["tokenizer"]
    other = of_files(server, checkpoint(tmp_path / "c", vocab__json="bytes", merges__txt="a b"))["tokenizer"]
    assert one == same != other
    assert hashlib.sha256(b"bytes").hexdigest()[:16] not in one  # a hash over all files of the kind


@pytest.mark.parametrize("name", ["generation_config__json", "tokenizer__json", "tokenizer_config__json"])
def test_a_file_that_cannot_be_read_is_named(server: FakeServer, tmp_path: Path, name: str) -> None:
    model = checkpoint(tmp_path / "a", **{name: "{"})
    with pytest.raises(BadInput, match=name.replace("__", r"\.")):
        read(server, FakeVllm(), model)
