"""Where an answer closed its thinking: one token or several, of any family; and how likely that was."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from suites.divergence.thinking_ends import Place, closing_places, closing_probability, token_pieces


@pytest.mark.parametrize(
    ("pieces", "opened", "places"),
    [
        (["<think>", "so", " 12", "</think>", "\n\n", "12"], False, [(3, 4)]),
        (["so", " 12", "</think>", "12"], True, [(2, 3)]),
        (["so", " 12", "</think>", "12"], False, [(2, 3)]),  # the template opened it and nobody said so
        (["<th", "ink", ">so", ".</", "think", ">\n\n", "12"], False, [(3, 6)]),  # shared with the text beside it
        (["<think>", "a", "</think>", "b", "<think>", "c", "</think>"], False, [(2, 3), (6, 7)]),
        (["[THINK]", "a", "[/THINK]", "b"], False, [(2, 3)]),
        (["<|channel|>", "analysis", "<|message|>", "a", "<|end|>", "<|start|>"], False, [(4, 5)]),
        (["b", "<|end|>"], False, []),  # ends a message that was no thinking
        (["<think>", "never", " closed"], False, []),
        (["an", " answer"], False, []),
        (["the", " tag ", "`</think>`"], False, []),
        (["", "<think>", "", "a", "</think>", ""], False, [(4, 5)]),  # half a character is no text
        ([], False, []),
    ],
)
def test_places(pieces: list[str], opened: bool, places: list[tuple[int, int]]) -> None:
    assert closing_places(pieces, opened) == [Place(*place) for place in places]


def test_tags_of_the_policy_close_too() -> None:
    pieces = ["<hm>", "a", "</hm>", "b"]
    assert closing_places(pieces) == [] and closing_places(pieces, more=[("<hm>", "</hm>")]) == [Place(2, 3)]


def test_the_probability_of_a_tag_is_the_product_of_its_tokens_and_a_mean_over_places() -> None:
    logprobs = np.log(np.array([0.9, 0.5, 0.4, 0.9, 0.1], np.float32))
    assert closing_probability([Place(1, 2)], logprobs) == pytest.approx(0.5)
    assert closing_probability([Place(1, 3)], logprobs) == pytest.approx(0.2)
    assert closing_probability([Place(1, 3), Place(4, 5)], logprobs) == pytest.approx(0.15)
    assert closing_probability([Place(0, 1)], np.array([1e-4], np.float32)) == 1.0  # rounded above one


def test_tokens_are_read_one_by_one_with_their_tags(tmp_path: Path) -> None:
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["</think>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    ids = tokenizer.encode("so é.</think>\n\n12").ids
    pieces = token_pieces(str(tmp_path), ids)
    assert [pieces[i] for i in (0, 2, 5)] == ["s", " ", "."] and "".join(pieces[5:]) == ".</think>\n\n12"
    assert closing_places(pieces) == [Place(6, 7)] and pieces[6] == "</think>"
