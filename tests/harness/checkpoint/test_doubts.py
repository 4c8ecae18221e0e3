"""Where claims and files disagree: what is doubted, what is not, and that both figures are given."""

from typing import Any

import pytest

from harness.checkpoint.claims import Claim
from harness.checkpoint.doubts import doubts, pair_doubts
from harness.contract.model_facts import ModelFacts

GLM = ModelFacts(
    name="glm",
    path="",
    parameters=743_900_000_000,
    bits_per_weight=2.07,
    quantization="vq",
    tensor_bytes={"I32": 150_000, "BF16": 36_000},
    block_parameters=742_000_000_000,
    layers=78,
    linear_parameters=724_800_000_000,
    linear_bits=1.71,
    low_bit_share=0.97,
    draft_bytes={"BF16": 19_000},
    bias_parameters=1_000_000,
)


def facts(**other: Any) -> ModelFacts:
    return GLM.model_copy(update=other)


def bits(value: float, source: str = "card: title", overhead: float = 0.0) -> Claim:
    return Claim(source, f"{value:g}-bit", "bits", value, overhead)


# -- bits per weight -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "linear", "whole", "doubted"),
    [
        (1.71, 1.71, 2.07, False),
        (1.71, 1.835, 2.2, False),  # scales of 16 bits for each 128 weights not counted in the claim
        (1.71, 2.18, 2.5, False),
        (1.71, 2.19, 2.5, True),
        (1.71, 3.2, 3.5, True),
        (2.07, 1.71, 2.07, False),  # meant over the whole model
        (6.7, 4.25, 6.73, False),
        (4, 4.125, 6.7, False),
        (4, 4.66, 5.5, False),  # groups of 32 with zero points, and a weight_shape
        (4, 4.71, 5.5, True),
        (3, 3.325, 4.0, False),  # ten weights a word, groups of 128
        (2, 2.5, 3.0, False),
        (8, 8.02, 9.0, False),
        (8, 9.2, 9.2, True),
        (8, 4.25, 6.0, True),  # fewer bits than claimed is no better
        (4, 3.29, 3.25, True),
        (4, 3.31, 3.25, False),
    ],
)
def test_a_claim_of_bits_is_held_against_both_figures(claim: float, linear: float, whole: float, doubted: bool) -> None:
    found = doubts(facts(linear_bits=linear, bits_per_weight=whole), [bits(claim)])
    if doubted:
        assert found == [
            f'card: title says "{claim:g}-bit", but the files hold {linear:.2f} bits per weight in the linear layers '
            f"to be quantized (with scales, zero points, codebooks) and {whole:.2f} over the whole model"
        ]
    else:
        assert found == []


def test_the_group_size_of_the_config_explains_scales() -> None:
    small = facts(linear_bits=3.0, bits_per_weight=3.5)  # 2 bits in groups of 16
    config = bits(2, "config.json", 1.0)
    assert len(doubts(small, [bits(2)])) == 1
    assert doubts(small, [config, bits(2)]) == []
    assert len(doubts(small, [config, bits(2.1)])) == 1  # an average has its scales in it


def test_several_widths_in_a_config_average_to_something_between() -> None:
    claims = [bits(4, "config.json", 0.125), bits(8, "config.json", 0.125)]
    assert doubts(facts(linear_bits=6.0), claims) == []
    assert doubts(facts(linear_bits=8.6), claims) == []
    assert len(doubts(facts(linear_bits=9.3, bits_per_weight=9.3), claims)) == 1
    assert len(doubts(facts(linear_bits=3.0, bits_per_weight=4.0), claims)) == 1  # the whole model is no excuse here


def test_a_card_that_names_several_figures_is_right_if_one_is() -> None:
    text = [bits(value, "card: text") for value in (1.71, 1.9, 4)]
    assert doubts(GLM, text) == []
    assert doubts(facts(linear_bits=4.2), text) == []
    found = doubts(facts(linear_bits=3.0, bits_per_weight=3.2), text)
    assert found and found[0].startswith('card: text says "1.71-bit", but the files hold 3.00 bits per weight')


def test_the_text_speaks_of_other_models_too_once_the_bits_are_known() -> None:
    four = facts(linear_bits=4.13, bits_per_weight=4.3)
    assert len(doubts(four, [bits(8, "card: text")])) == 1
    assert doubts(four, [bits(4, "config.json"), bits(8, "card: text")]) == []
    assert doubts(four, [bits(8, "card: text"), bits(4, "name")]) == []
    assert len(doubts(four, [bits(4, "config.json"), bits(1.71, "card: text")])) == 1  # a figure like that is meant


def test_all_sources_that_do_not_fit_share_one_line() -> None:
    claims = [bits(4, "config.json"), bits(1.71, "name"), bits(4, "card: tags"), bits(1.9, "card: title")]
    assert doubts(facts(linear_bits=4.13, bits_per_weight=4.3), claims) == [
        'card: title says "1.9-bit" and name says "1.71-bit", but the files hold 4.13 bits per weight in the linear '
        "layers to be quantized (with scales, zero points, codebooks) and 4.30 over the whole model"
    ]


# -- not quantized, or not said to be ------------------------------------------------------------------------

PLAIN = facts(linear_bits=16.0, bits_per_weight=16.0, low_bit_share=0.0, tensor_bytes={"BF16": 1000, "F32": 1})


@pytest.mark.parametrize(
    ("claims", "who"),
    [
        ([Claim("config.json", "gptq", "quantized")], 'config.json says "gptq"'),
        ([Claim("card: base_model_relation", "quantized", "quantized")], 'card: base_model_relation says "quantized"'),
        (
            [bits(1.71, "name"), bits(4, "card: tags"), bits(4, "config.json"), bits(4, "card: text")],
            'config.json says "4-bit" and card: tags says "4-bit" and name says "1.71-bit"',
        ),
    ],
)
def test_bf16_under_a_quantized_name_is_not_quantized(claims: list[Claim], who: str) -> None:
    assert doubts(PLAIN.model_copy(update={"quantization": None}), claims) == [
        f"{who}, but no linear layer is stored below 16 bits: they hold 16.00 bits per weight (BF16), so nothing was "
        "quantized"
    ]


def test_the_text_of_an_unquantized_model_may_speak_of_bits() -> None:
    claims = [bits(4, "card: text"), bits(8, "card: text"), Claim("card: base_model", "owner/name", "base")]
    assert doubts(PLAIN.model_copy(update={"quantization": None}), claims) == []


def test_quantized_weights_need_a_config_that_says_so() -> None:
    assert doubts(facts(quantization=None), []) == [
        "97 % of the linear weights are stored below 16 bits, but config.json has no quantization_config: servers will "
        "not read them as quantized"
    ]


def test_a_small_part_is_no_quantized_model() -> None:
    claims = [bits(4, "config.json")]
    assert doubts(facts(linear_bits=4.1, low_bit_share=0.5), claims) == []
    assert doubts(facts(linear_bits=4.1, low_bit_share=0.12), claims) == [
        'config.json says "4-bit", but only 12 % of the weights in the blocks\' linear layers are stored below 16 bits'
    ]


def test_a_checkpoint_without_linear_layers_is_not_judged() -> None:
    assert doubts(facts(linear_bits=0.0, low_bit_share=0.0), [bits(4)]) == []


# -- the draft head ------------------------------------------------------------------------------------------

PROMISED = Claim("config.json", "num_nextn_predict_layers 1", "draft")
KEPT = Claim("card: text", "MTP kept in BF16", "draft", 16.0)


def test_a_draft_head_that_is_promised_must_be_there() -> None:
    assert doubts(GLM, [PROMISED, KEPT]) == []
    assert doubts(facts(draft_bytes={}), [PROMISED, KEPT]) == [
        'config.json says "num_nextn_predict_layers 1" and card: text says "MTP kept in BF16", but no draft head '
        "(layers after the last, `mtp.`) is in the files"
    ]


def test_a_draft_head_that_is_said_to_be_kept_must_be() -> None:
    quantized = facts(draft_bytes={"I32": 900, "BF16": 100, "I64": 1})
    assert doubts(quantized, [PROMISED]) == []
    assert doubts(quantized, [PROMISED, KEPT]) == [
        'card: text says "MTP kept in BF16", but the draft head is stored in I32, BF16'
    ]


# -- a pair --------------------------------------------------------------------------------------------------

REFERENCE = facts(bits_per_weight=16.0, linear_bits=16.0, low_bit_share=0.0, quantization=None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"block_parameters": GLM.block_parameters + 700_000_000}, []),  # biases, shifts
        ({"layers": 76}, ["the candidate has 76 decoder layers, the reference 78"]),
        (
            {"block_parameters": 723_000_000_000},
            ["the candidate's blocks hold 723,000,000,000 weights, the reference's 742,000,000,000 (2.6 % fewer)"],
        ),
        (
            {"block_parameters": 749_420_000_000},
            ["the candidate's blocks hold 749,420,000,000 weights, the reference's 742,000,000,000 (1 % more)"],
        ),
        (
            {"draft_bytes": {}},
            ["the reference has a draft head (MTP), the candidate has none: speculative decoding is lost"],
        ),
        (
            {"bits_per_weight": 16.0},
            ["the candidate holds 16.00 bits per weight and the reference 16.00: it is not smaller"],
        ),
        (
            {"bias_parameters": 500_000},
            ["the candidate's blocks hold 500,000 biases, the reference's 1,000,000: some are lost"],
        ),
        ({"bias_parameters": 2_000_000}, []),  # formats add some
        ({"layout_known": False, "block_parameters": 0, "bits_per_weight": 0.0}, []),
        ({"parameters": 0, "layers": 0}, []),  # not on this machine
    ],
)
def test_what_quantizing_must_not_change(change: dict[str, Any], said: list[str]) -> None:
    assert pair_doubts(REFERENCE, facts(**change)) == said


def test_a_reference_without_blocks_divides_by_nothing() -> None:
    assert len(pair_doubts(REFERENCE.model_copy(update={"block_parameters": 0}), GLM)) == 1
