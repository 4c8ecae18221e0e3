"""Calibration tokens: which text gives how many sequences, and in which order."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import save_tokenizer

from harness.contract.whole_files import cache_folder
from quantizers.calibration import calibration_tokens, own_tokenizer, shares
from quantizers.errors import QuantizeError
from quantizers.recipe import Calibration, Source, load_recipe
from quantizers.recipes import RECIPES


class Letters:
    """One token for each character: its code point."""

    def __init__(self, bos: int | None = None) -> None:
        self.bos_token_id = bos
        self.eos_token_id: int | None = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        begin = [self.bos_token_id] if add_special_tokens and self.bos_token_id is not None else []
        return begin + [ord(c) for c in text]


def text_of(tokens: torch.Tensor) -> list[str]:
    """Each sequence of `Letters` as text."""
    return ["".join(map(chr, row)) for row in tokens.tolist()]


def test_shipped_texts_are_all_used() -> None:
    tokens = calibration_tokens(Letters(), Calibration(samples=12, length=64))
    assert tokens.shape == (12, 64) and tokens.dtype == torch.int64
    assert any(0x3040 < t < 0x30FF for t in tokens.flatten().tolist())  # kana: Japanese had its turn


def test_same_tokens_every_time_and_another_seed_other_tokens() -> None:
    first, again, other = (
        calibration_tokens(Letters(), Calibration(samples=6, length=32, seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_documents_are_cut_without_overlap(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("abcdefgh\n%%\n\n%%\n%% not a separator\nx", encoding="utf-8")
    tokens = calibration_tokens(Letters(), Calibration(samples=3, length=8, file=file))
    joined = "".join(map(chr, tokens.flatten().tolist()))
    assert joined in "%% not a separator\nx\0abcdefgh\0" or joined in "abcdefgh\0%% not a separator\nx\0"


def test_sequences_begin_as_the_tokenizer_begins_texts() -> None:
    tokens = calibration_tokens(Letters(bos=1), Calibration(samples=6, length=32))
    assert tokens[:, 0].tolist() == [1] * 6 and 1 not in tokens[:, 1:]


def test_the_tokens_of_the_shipped_mix_have_not_changed() -> None:
    """The demo's figures, and checkpoints that others made again, depend on them."""
    tokens = calibration_tokens(Letters(), Calibration())
    assert hashlib.sha256(tokens.numpy().tobytes()).hexdigest()[:16] == "8c9232a88fc2d74e"
    runs_out = calibration_tokens(Letters(bos=1), Calibration(samples=300, length=64, seed=3))
    assert hashlib.sha256(runs_out.numpy().tobytes()).hexdigest()[:16] == "eb21c21a716aa279"


@pytest.mark.parametrize(
    ("samples", "weights", "held", "expected"),
    [
        (32, [1, 1, 1, 1, 1, 1], [None] * 6, [6, 6, 5, 5, 5, 5]),
        (10, [4, 3, 3], [None] * 3, [4, 3, 3]),
        (10, [0.1, 0.2, 0.3], [None] * 3, [2, 3, 5]),
        (1, [1, 5], [None] * 2, [0, 1]),
        (12, [1, 1, 1], [9, 2, 9], [5, 2, 5]),
        (12, [3, 1, 1], [4, 9, 9], [4, 4, 4]),
        (12, [3, 1, 1], [4, None, 0], [4, 8, 0]),
        (12, [1, 1], [3, 4], [3, 4]),
    ],
)
def test_shares(samples: int, weights: list[float], held: list[int | None], expected: list[int]) -> None:
    assert shares(samples, weights, held) == expected


def files(folder: Path, **letters: str) -> dict[str, Path]:
    """A text of one letter for each name."""
    made = {name: folder / f"{name}.txt" for name in letters}
    for name, letter in letters.items():
        made[name].write_text(letter * 400)
    return made


def test_weights_decide_the_share_and_the_turns(tmp_path: Path) -> None:
    made = files(tmp_path, one="a", two="b")
    sources = (Source(file=made["one"], weight=3), Source(file=made["two"]))
    tokens = calibration_tokens(Letters(), Calibration(samples=8, length=16, sources=sources))
    assert "".join(text[0] for text in text_of(tokens)) == "abaaabaa"


def test_a_shipped_text_that_runs_out_leaves_its_turns_to_the_others(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("\1" * 64 * 280)
    settings = Calibration(samples=300, length=64, sources=(Source(shipped="chat", language="zh"), Source(file=file)))
    tokens = calibration_tokens(Letters(), settings)
    assert 220 < int((tokens == 1).all(dim=1).sum()) < 280


def test_a_source_of_ones_own_that_is_too_short_is_an_error_and_says_what_it_holds(tmp_path: Path) -> None:
    made = files(tmp_path, one="a", two="b")
    sources = (Source(file=made["one"], weight=9), Source(file=made["two"]))
    with pytest.raises(QuantizeError, match=r"needs 36 x 16 tokens, but one.txt holds 25 x 16: .* lower its weight"):
        calibration_tokens(Letters(), Calibration(samples=40, length=16, sources=sources))


def test_a_source_of_ones_own_that_would_give_nothing_is_an_error(tmp_path: Path) -> None:
    made = files(tmp_path, one="a", two="b")
    sources = (Source(file=made["one"], weight=99), Source(file=made["two"]))
    with pytest.raises(QuantizeError, match=r"two.txt gives none of 8 sequences, so small is its weight: raise it"):
        calibration_tokens(Letters(), Calibration(samples=8, length=16, sources=sources))


def test_no_document_is_used_twice(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    rows = [{"text": letter * 40, "language": "en"} for letter in "abcd"]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    sources = (Source(file=file, language="en"), Source(file=file))
    with pytest.raises(QuantizeError, match=r"needs 2 x 40 tokens, but some.jsonl holds 1 x 40"):
        calibration_tokens(Letters(), Calibration(samples=5, length=40, sources=sources))
    tokens = calibration_tokens(Letters(), Calibration(samples=4, length=40, sources=sources[1:]))
    assert sorted({letter for text in text_of(tokens) for letter in text}) == ["\0", "a", "b", "c", "d"]


class Chat(Letters):
    """With a chat template that drops the thinking of old answers, begins with a token of its own and ends with one."""

    chat_template = "{{ '</think>' }}"

    def apply_chat_template(
        self, messages: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        said = "".join(f"<{m['role']}>{m['content']}\0" for m in messages)
        return "\1" + said + ("<assistant>" if add_generation_prompt else "")

    def get_vocab(self) -> dict[str, int]:
        return {}


def test_conversations_are_begun_and_ended_once(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    asked, answer = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
    thought = answer | {"reasoning_content": "2 and 2"}
    file.write_text(json.dumps({"messages": [asked, answer, asked, thought]}) + "\n")
    whole = "\1<user>2+2?\0<assistant>4\0<user>2+2?\0<assistant><think>\n2 and 2\n</think>\n\n4\0"
    settings = Calibration(samples=1, length=len(whole), file=file)
    assert text_of(calibration_tokens(Chat(bos=1), settings)) == [whole]
    file.write_text(json.dumps({"text": whole}) + "\n")  # as traces are stored
    assert text_of(calibration_tokens(Chat(bos=1), settings)) == [whole]


def test_token_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "ids.jsonl"
    rows = [[1, *range(10 * n, 10 * n + 7)] for n in range(1, 4)]
    file.write_text("".join(json.dumps({"lang": "en", "ids": row}) + "\n" for row in rows))
    settings = Calibration(samples=3, length=8, file=file)
    assert sorted(calibration_tokens(Chat(bos=1), settings).tolist()) == rows
    assert sorted(calibration_tokens(Letters(), settings).tolist()) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"short", r"needs 4 x 16 tokens, but .*a.txt holds 0 x 16: give a longer"),
        ("a.txt", b"  \n%%\n", "holds no text"),
        ("a.txt", b"\xff\xfe\xff", "is not UTF-8"),
        ("a.jsonl", b'{"text": "fine"}\n{"txt": 1}\n', "line 2: not a JSON object"),
        ("a.jsonl", b'{"messages": [{"role": "user"}]}\n', "line 1: not a JSON object with a .text., chat"),
        ("a.jsonl", b'{"text": 5}\n', "line 1: not a JSON object"),
        ("a.jsonl", b"[1]\n", "line 1: not a JSON object"),
        ("a.bin", b"x", "must end in .txt or .jsonl"),
        ("gone.txt", None, "cannot read"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(QuantizeError, match=message) as caught:
        calibration_tokens(Letters(), Calibration(samples=4, length=16, file=file))
    assert "\n" not in str(caught.value)


class Dense(Letters):
    """As few tokens as a large vocabulary makes: 4.2 characters in each, or 1.5 of Chinese and Japanese."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ascii_letters = sum(c.isascii() for c in text)
        return [7] * int(ascii_letters / 4.2 + (len(text) - ascii_letters) / 1.5)


@pytest.mark.parametrize("tokenizer", ["bytes", "dense", "SmolLM2"])
@pytest.mark.parametrize("name", RECIPES)
def test_the_shipped_texts_are_enough_for_every_recipe(tmp_path: Path, name: str, tokenizer: str) -> None:
    if tokenizer == "dense":
        own: Any = Dense()
    elif tokenizer == "bytes":
        save_tokenizer(tmp_path)
        own = own_tokenizer(tmp_path)
    else:
        folder = cache_folder() / "models" / "SmolLM2-135M-Instruct"
        if not (folder / "tokenizer.json").is_file():
            pytest.skip(f"the demo model is not in {folder}")
        own = own_tokenizer(folder)
    settings = load_recipe(name).calibration
    assert calibration_tokens(own, settings).shape == (settings.samples, settings.length)


@pytest.mark.parametrize("sources", [(), ("en", "ja", "zh", "code", "chat", "reasoning")])
def test_the_default_fits_any_tokenizer(sources: tuple[str, ...]) -> None:
    settings = Calibration.model_validate({"sources": sources})
    assert calibration_tokens(Dense(), settings).shape == (settings.samples, settings.length)


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match="no usable tokenizer"):
        own_tokenizer(tmp_path)
