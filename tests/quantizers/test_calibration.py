"""Calibration text and tokens."""

import json
from pathlib import Path

import pytest
import torch

from quantizers.calibration import calibration_tokens, own_tokenizer, read_documents
from quantizers.errors import QuantizeError
from quantizers.recipe import Calibration


class Letters:
    """One token for each character: its code point."""

    def __init__(self, bos: int | None = None) -> None:
        self.bos_token_id = bos
        self.eos_token_id: int | None = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        begin = [self.bos_token_id] if add_special_tokens and self.bos_token_id is not None else []
        return begin + [ord(c) for c in text]


def test_shipped_texts_are_all_used() -> None:
    documents = read_documents(None)
    assert len(documents) >= 6 and all(documents.values())
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
    assert read_documents(file) == {"one.txt": ["abcdefgh", "%% not a separator\nx"]}
    tokens = calibration_tokens(Letters(), Calibration(samples=3, length=8, file=file))
    joined = "".join(map(chr, tokens.flatten().tolist()))
    assert joined in "%% not a separator\nx\0abcdefgh\0" or joined in "abcdefgh\0%% not a separator\nx\0"


def test_sequences_begin_as_the_tokenizer_begins_texts() -> None:
    tokens = calibration_tokens(Letters(bos=1), Calibration(samples=6, length=32))
    assert tokens[:, 0].tolist() == [1] * 6 and 1 not in tokens[:, 1:]


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(json.dumps({"text": t, "id": 3}) for t in ("one", "  ", "two\u2028three")) + "\n")
    assert read_documents(file) == {"some.jsonl": ["one", "two\u2028three"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"short", r"needs 4 x 16 tokens, but .*a.txt holds 0 x 16: give a longer"),
        ("a.txt", b"  \n%%\n", "holds no text"),
        ("a.txt", b"\xff\xfe\xff", "is not UTF-8"),
        ("a.jsonl", b'{"text": "fine"}\n{"txt": 1}\n', "line 2: not a JSON object"),
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


def test_the_default_fits_any_tokenizer() -> None:
    """The default must be there even for a tokenizer of 4.2 characters per token (1.5 for CJK)."""

    class Dense(Letters):
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            ascii_letters = sum(c.isascii() for c in text)
            return [7] * int(ascii_letters / 4.2 + (len(text) - ascii_letters) / 1.5)

    settings = Calibration()
    assert calibration_tokens(Dense(), settings).shape == (settings.samples, settings.length)


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match="no usable tokenizer"):
        own_tokenizer(tmp_path)
