"""What a checkpoint says of itself, and that no card or config can break the reading of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hangs import no_hang
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.checkpoint.claims import Claim, claimed, claims_of, read_card
from harness.contract.text import quoted


def folder(path: Path, card: str | bytes | None = None, **config: Any) -> Path:
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    if card is not None:
        (path / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode("utf-8", "surrogatepass"))
    return path


def said(path: Path, *source: str, name: str = "") -> list[tuple[str, float | None]]:
    """(text, bits) of the claims from `source`."""
    return [(claim.text, claim.bits) for claim in claims_of(path, name) if claim.source in source]


# -- config.json ---------------------------------------------------------------------------------------------

GROUP = {"weights": {"num_bits": 4, "type": "int", "group_size": 128, "symmetric": True}}


@pytest.mark.parametrize(
    ("quantization", "texts"),
    [
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": GROUP}},
            [("compressed-tensors, 4-bit int, group size 128", 4, 16 / 128)],
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": GROUP, "b": {"weights": {"num_bits": 8}}}},
            [("compressed-tensors, 4-bit int, group size 128", 4, 0.125), ("compressed-tensors, 8-bit int", 8, 0)],
        ),
        (
            {
                "quant_method": "modelopt",
                "config_groups": {"a": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}},
            },
            [("modelopt, 4-bit float, group size 16", 4, 0.5)],
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, [("modelopt, 4-bit float, group size 16", 4, 0.5)]),
        ({"quant_method": "mxfp4"}, [("mxfp4, 4-bit float, group size 32", 4, 0.25)]),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, [("fp8, 8-bit float", 8, 0)]),
        ({"quant_method": "fbgemm_fp8"}, [("fbgemm_fp8, 8-bit float", 8, 0)]),
        ({"quant_method": "gptq", "bits": 3, "group_size": -1, "sym": True}, [("gptq, 3-bit int", 3, 0)]),
        (
            {
                "quant_method": "gptq",
                "bits": 4,
                "group_size": 32,
                "sym": False,
                "dynamic": {"+:x": {"bits": 8}, "-:y": {}},
            },
            [
                ("gptq, 4-bit int, group size 32, zero points", 4, 20 / 32),
                ("gptq, 8-bit int, group size 32, zero points", 8, 24 / 32),
            ],
        ),
        (
            {"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True},
            [("awq, 4-bit int, group size 64, zero points", 4, 20 / 64)],
        ),
        (
            {
                "quant_method": "aqlm",
                "num_codebooks": 2,
                "nbits_per_codebook": 8,
                "in_group_size": 8,
                "out_group_size": 1,
            },
            [("aqlm, 2 codebooks of 8 bits for 8 weights", 2, 0)],
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, [("bitsandbytes, 4-bit int, group size 64", 4, 0.25)]),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, [("bitsandbytes, 8-bit int", 8, 0)]),
        ({"quant_method": "exl3"}, [("exl3", None, 0)]),
        ({"quant_method": ["\x1b"], "bits": "4"}, [("unknown", None, 0)]),
        ({"quant_method": "gptq", "bits": 1e999}, [("gptq", None, 0)]),
        ({"quant_method": "gptq", "bits": True}, [("gptq", None, 0)]),
        ("awq", []),
        (None, []),
    ],
)
def test_a_config_claims_its_scheme(tmp_path: Path, quantization: object, texts: list[tuple[str, Any, Any]]) -> None:
    claims = claims_of(folder(tmp_path, quantization_config=quantization))
    assert [(claim.text, claim.bits, claim.overhead) for claim in claims] == texts
    assert {claim.source for claim in claims} <= {"config.json"}


def test_a_config_claims_a_draft_head(tmp_path: Path) -> None:
    draft = {"mtp_num_hidden_layers": 2}
    made = folder(tmp_path, num_nextn_predict_layers=1, num_mtp_layers=0, text_config=draft)
    assert claims_of(made) == [
        Claim("config.json", "num_nextn_predict_layers 1", "draft"),
        Claim("config.json", "mtp_num_hidden_layers 2", "draft"),
    ]


# -- card and name -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("GLM-5.2-1.71bit", 1.71),
        ("GLM 1.71-bit", 1.71),
        ("model-2.5bpw-h6", 2.5),
        ("Llama-3.1-8B-W4A16", 4),
        ("llama_w8a8_v2", 8),
        ("x-W4AFP8", 4),
        ("Qwen3-4B-4bit", 4),
        ("Qwen3 4 bits", 4),
        ("Qwen3 3‑bit", 3),  # a hyphen that does not break
        ("DeepSeek-R1-NVFP4", 4),
        ("Qwen3-8B-FP8", 8),
        ("x-fp8-dynamic", 8),
        ("x-MXFP4", 4),
        ("Qwen-GPTQ-Int4", 4),
        ("x-nf4", 4),
        ("Qwen-AWQ", None),
        ("Qwen quantized with AutoRound", None),
    ],
)
def test_names_and_titles_claim_bits(tmp_path: Path, text: str, bits: float | None) -> None:
    card = folder(tmp_path, f"---\nlicense: mit\n---\nwords\n\n# {text}\n\nmore\n")
    assert said(card, "card: title") == [(text, bits)]
    assert said(card, "name", name=f"owner/{text}") == [(text, bits)]


@pytest.mark.parametrize(
    "text",
    [
        "Qwen2.5-7B-Instruct", "Qwen3-8B-BF16", "x-16bit", "FP16", "W16A16", "Phi-4", "SmolLM2-135M", "v1.4bitten",
        "gemma-qat-int4-unquantized", "x, de-quantized from int4", "0-bit", "64 bits", "x KV-FP8", "fp8 kv cache",
        "GLM-5",
    ],
)  # fmt: skip
def test_other_names_claim_nothing(tmp_path: Path, text: str) -> None:
    assert claims_of(folder(tmp_path, f"# {text}\n"), f"/models/4bit/{text}") == []


def test_front_matter_claims(tmp_path: Path) -> None:
    card = """---
license: mit
tags:
- quantgate
- w4a16   # a comment
- 4-bit
- gptq
- 7
base_model_relation: quantized
base_model: [owner/one, "owner/two"]
model-index: &a
- *a
---
# Title
"""
    claims = claims_of(folder(tmp_path, card))
    assert claims == [
        Claim("card: base_model", "owner/one", "base"),
        Claim("card: base_model", "owner/two", "base"),
        Claim("card: base_model_relation", "quantized", "quantized"),
        Claim("card: license", "mit", "licence"),
        Claim("card: tags", "w4a16", "bits", 4),
        Claim("card: tags", "4-bit", "bits", 4),
        Claim("card: tags", "gptq", "quantized"),
    ]
    assert claimed(claims) == {
        "card: base_model": "owner/one; owner/two",
        "card: base_model_relation": "quantized",
        "card: license": "mit",
        "card: tags": "w4a16; 4-bit; gptq",
    }


def test_the_text_claims_figures_of_bits_and_no_names_of_other_models(tmp_path: Path) -> None:
    card = "# Title\nSmaller than the FP8 and the NVFP4 release: 1.71 bits per weight, 2.5bpw at most.\n"
    card += "16-bit activations, 8-bit KV cache. Made from W4A16. 1.71-bit again.\n"
    assert said(folder(tmp_path, card), "card: text") == [("1.71 bits", 1.71), ("2.5bpw", 2.5), ("W4A16", 4)]


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("The MTP draft head is kept in BF16.", "MTP draft head is kept in BF16"),
        ("| MTP layer 78 | bfloat16 |", "MTP layer 78 | bfloat16"),
        ("BF16 for the MTP layer", "BF16 for the MTP"),
        ("MTP was dropped, the rest is BF16", None),
        ("MTP\nBF16", None),
        ("HTTPMTPS in BF16", None),
        ("MTP " + "x" * 90 + " BF16", None),
    ],
)
def test_the_text_claims_a_draft_head_in_16_bits(tmp_path: Path, text: str, quote: str | None) -> None:
    drafts = [claim for claim in claims_of(folder(tmp_path, f"# T\n\n{text}\n")) if claim.kind == "draft"]
    assert drafts == ([Claim("card: text", quote, "draft", 16.0)] if quote else [])


def test_a_title_may_be_html(tmp_path: Path) -> None:
    card = folder(tmp_path, '<div align="center">\n<h1 align="center"><b>GLM</b> 1.71-bit</h1>\n</div>\n')
    assert said(card, "card: title") == [("GLM 1.71-bit", 1.71)]


# -- hostile texts -------------------------------------------------------------------------------------------


def test_quotes_are_one_safe_short_line() -> None:
    assert quoted("a\nb\x1b[31m\u202e\ud800 c\t\x00") == "a b [31m c"
    assert quoted("x" * 81) == "x" * 79 + "…"
    assert len(quoted("\x1b" * 10**6 + "y", 20)) <= 20
    quoted("\ud83d").encode()


LEVELS = "".join(f"l{i}: &l{i} [{f'*l{i - 1}, ' * 9}]\n" for i in range(1, 60))
HOSTILE = [
    "",
    "---",
    "---\n---",
    "---\n" * 200_000,
    "\n" * 900_000,
    "---\n" + "\r\n" * 400_000,
    "---\ntags: " + "[" * 4_000 + "\n---\n",
    "---\ntags: " + "[" * 500_000 + "\n---\n",
    "---\ntags:\n" + "- 4-bit\n" * 100_000 + "---\n",
    "---\nl0: &l0 [x]\n" + LEVELS + "tags: *l59\nbase_model: &m [*l59]\n---\n",
    "---\ntags: !!python/object/apply:os.system ['true']\nbase_model: 2001-13-45\n---\n",
    "---\ntags: \x00\nbase_model: \ufffe\n---\n",
    "#" + " " * 900_000,
    "# " + "4-" * 400_000,
    "# " * 400_000,
    "<h1" + " " * 900_000,
    "<h1>" + "<" * 900_000,
    "mtp " * 200_000 + "bf16",
    "bf16 " * 200_000,
    "w4a" * 300_000,
    "1.1" * 300_000 + "bit",
    "kv" * 400_000,
    "9" * 900_000 + " bits",
    "un-" * 300_000,
    "\ud800# 4-bit\udfff",
]


@pytest.mark.parametrize("card", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_card_is_read_in_seconds(tmp_path: Path, card: str) -> None:
    model = folder(tmp_path, card)
    with no_hang():
        claims = claims_of(model, "x" * 10**6)
    assert len(claims) <= 150
    assert all(len(claim.text) <= 80 and claim.text.isprintable() for claim in claims)
    assert all(len(text) <= 240 for text in claimed(claims).values())


BOUNDED = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
WORDS = st.sampled_from(
    [
        "---\n",
        "tags:",
        "base_model:",
        " - ",
        "[",
        "]",
        "4-bit",
        "w4a16",
        "# ",
        "MTP",
        "BF16",
        "\n",
        '"',
        ": ",
        "&a",
        "*a",
        "<h1>",
    ]
)


@pytest.mark.slow
@BOUNDED
@given(st.binary(max_size=300) | st.lists(WORDS, max_size=40).map(lambda words: "".join(words).encode()))
@example(b"\xff\xfe---\n")
@example(b"---\ntags: {a: b}\nbase_model_relation: [quantized]\nbase_model: {c: d}\n---\n")
def test_no_card_breaks_the_reading(tmp_path: Path, card: bytes) -> None:
    claims = claims_of(folder(tmp_path, card))
    assert all(claim.text.isprintable() and (claim.bits is None or 0 < claim.bits <= 16) for claim in claims)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["quant_method", "bits", "w_bit", "group_size", "sym", "zero_point", "dynamic", "num_codebooks", "in_group_size",
     "nbits_per_codebook", "out_group_size", "quant_algo", "load_in_4bit"]
)  # fmt: skip
WEIGHTS = st.dictionaries(st.sampled_from(["num_bits", "type", "group_size", "symmetric"]), JSON)
GROUPS = st.dictionaries(st.text(max_size=2), JSON | st.fixed_dictionaries({"weights": JSON | WEIGHTS}), max_size=3)


@BOUNDED
@given(st.dictionaries(KEYS, JSON), JSON | GROUPS)
def test_no_config_breaks_the_reading(tmp_path: Path, quantization: dict[str, Any], groups: object) -> None:
    config: dict[str, Any] = {"quantization_config": quantization | {"config_groups": groups}, "text_config": groups}
    claims = claims_of(folder(tmp_path, **config, num_nextn_predict_layers=groups))
    assert all(claim.text.isprintable() and 0 <= claim.overhead < 1e9 for claim in claims)


def test_what_cannot_be_read_claims_nothing(tmp_path: Path) -> None:
    assert claims_of(tmp_path) == []
    (tmp_path / "README.md").mkdir()
    (tmp_path / "config.json").write_text("[" * 100_000, "utf-8")
    assert claims_of(tmp_path) == []


def test_only_the_beginning_of_a_card_is_read(tmp_path: Path) -> None:
    assert len(read_card(folder(tmp_path, "x" * 3_000_000))[1]) == 1 << 20
