"""What a checkpoint says of itself: its config.json, its model card, its name.

All of it was written by someone who wants the model published, and is read as hostile text: a bounded part of it, with
patterns that take linear time, and nothing here raises. What cannot be read claims nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.contract.text import quoted
from quantizers.checkpoint import CONFIG_FILE, quantization_settings, read_json_object
from quantizers.drafts import DRAFT_KEYS
from quantizers.errors import QuantizeError

CONFIG, RELATION, TAGS, TITLE, TEXT, NAME = (
    "config.json", "card: base_model_relation", "card: tags", "card: title", "card: text", "name",
)  # fmt: skip
BASE = "card: base_model"

MOST_CARD_BYTES = 1 << 20
LONGEST_ENTRY = 4_096
MOST_BRACKETS = 16
LONGEST_TITLE = 300
MOST_TAGS = 100
MOST_GROUPS = 64
MOST_VALUES = 16

# Digits and letters on both sides are kept away by hand: "_" is a letter to \b, and names are full of it.
_BITS = re.compile(
    r"(?<![a-z0-9.,])(?:w(?P<w>\d{1,2})a(?:fp|int)?\d{1,2}"
    r"|(?P<n>\d{1,2}(?:\.\d{1,3})?)[ _\-\u2010-\u2015\u00a0]?(?:bits?|bpw)"
    r"|(?:mx|nv)?fp(?P<f>[468])|u?int(?P<i>[2-8])|nf(?P<nf>4))(?![a-z0-9])",
    re.IGNORECASE,
)
_METHOD = re.compile(
    r"(?<![a-z0-9])(?:gptq|awq|aqlm|hqq|bnb|bitsandbytes|auto-?round|compressed-tensors|quantized)(?![a-z0-9])",
    re.IGNORECASE,
)
_DENIAL = re.compile(r"(?<![a-z])(?:un|de|non|not)[ -]?quantized", re.IGNORECASE)
# Bits of other things than weights.
_ASIDE = re.compile(
    r"kv[ _-]{0,2}(?:cache)?[ _-]{0,2}(?:fp|int)\d|(?:fp\d|int\d|\d{1,2}[ -]?bits?)[ _-]{1,3}"
    r"(?:kv|key|cache|activation|optimi[sz]er|adam|gradient)",
    re.IGNORECASE,
)
_DRAFT = re.compile(
    r"(?<![a-z])mtp(?![a-z])[^\n]{0,80}?(?<![a-z])(?:bf16|bfloat16)(?![a-z0-9])"
    r"|(?<![a-z])(?:bf16|bfloat16)(?![a-z0-9])[^\n]{0,80}?(?<![a-z])mtp(?![a-z])",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"(?<![a-z])(?:no|not|without|dropped|removed|instead)(?![a-z])", re.IGNORECASE)
_HEADING = re.compile(r"^(?:# +|<h1[^>\n]{0,200}>)([^\n]{1,300})", re.IGNORECASE | re.MULTILINE)
_MARKUP = re.compile(r"<[^<>\n]{0,200}>")


LICENCE_KEYS = ("license", "license_name", "license_link")
FRONT_KEYS = ("base_model", "base_model_relation", "tags", *LICENCE_KEYS)
"""What is read of a card's front matter."""


@dataclass(frozen=True)
class Claim:
    """One thing that a checkpoint says of itself; `text` is safe to print."""

    source: str
    text: str
    kind: Literal["bits", "quantized", "draft", "base", "licence"]
    """`quantized` names no bits; `draft` says that there is a draft head (`bits` 16: kept in 16 bits)."""
    bits: float | None = None
    """Bits per weight, as they are said."""
    overhead: float = 0.0
    """Bits per weight that scales and zero points add, as far as the config tells."""


def claims_of(model: Path, name: str = "") -> list[Claim]:
    """Everything that a checkpoint folder, and the name it is given, claims about quantization. Never raises."""
    try:
        config = read_json_object(model / CONFIG_FILE)
    except QuantizeError:
        config = {}
    front, body = read_card(model)
    settings = quantization_settings(model, config)
    return [
        *_config_claims(config, settings),
        *_front_claims(front),
        *_text_claims(body),
        *_said(NAME, _last_part(name)),
    ]


# -- the card ------------------------------------------------------------------------------------------------


def read_card(model: Path) -> tuple[dict[str, object], str]:
    """What the card's front matter says under a few keys, and the text after it; empty where it cannot be read."""
    path = model / "README.md"
    try:
        if not path.is_file():
            return {}, ""
        with path.open("rb") as stream:
            text = stream.read(MOST_CARD_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return {}, ""
    lines = text.lstrip().splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}, text
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        return {}, text
    front = {key: _entry(lines[1:end], key) for key in FRONT_KEYS}
    return {key: value for key, value in front.items() if value is not None}, "\n".join(lines[end + 1 :])


def _entry(lines: list[str], key: str) -> object:
    """The value of a top-level key. Only its own lines go through a YAML parser, and none with anchors or deep nesting.

    A whole front matter can make a parser work for hours: aliases and merges multiply, deep nesting is quadratic.
    """
    from ruamel.yaml import YAML

    starts = [i for i, line in enumerate(lines) if line.startswith(f"{key}:")]
    if not starts:
        return None
    rest = starts[-1] + 1
    while rest < len(lines) and (not lines[rest].strip() or lines[rest][0] in " \t-#]"):
        rest += 1
    piece = "\n".join(lines[starts[-1] : rest])
    if len(piece) > LONGEST_ENTRY or "&" in piece or piece.count("[") + piece.count("{") > MOST_BRACKETS:
        return None
    try:
        return YAML(typ="safe", pure=True).load(piece).get(key)
    except Exception:  # whatever the parser raises: an entry that cannot be read says nothing
        return None


def _front_claims(front: Mapping[str, object]) -> Iterator[Claim]:
    base = front.get("base_model")
    for entry in base if isinstance(base, list) else [base]:
        if isinstance(entry, str):
            yield Claim(BASE, quoted(entry), "base")
    relation = front.get("base_model_relation")
    if isinstance(relation, str) and relation.strip().lower() == "quantized":
        yield Claim(RELATION, "quantized", "quantized")
    for key in LICENCE_KEYS:
        if isinstance(value := front.get(key), str):
            yield Claim(f"card: {key}", quoted(value, 200), "licence")
    tags = front.get("tags")
    for tag in tags[:MOST_TAGS] if isinstance(tags, list) else [tags]:
        if isinstance(tag, str):
            yield from _said(TAGS, tag[:LONGEST_TITLE])


def _text_claims(body: str) -> Iterator[Claim]:
    heading = _HEADING.search(body)
    if heading:
        yield from _said(TITLE, _MARKUP.sub(" ", heading[1][:LONGEST_TITLE]))
    # The text speaks of other models too ("smaller than the FP8 release"): only plain figures of bits are taken.
    values: dict[float, Claim] = {}
    for match in _BITS.finditer(_ASIDE.sub(" ", body)):
        bits = _bits(match)
        if bits and (match["w"] or match["n"]) and len(values) < MOST_VALUES:
            values.setdefault(bits, Claim(TEXT, quoted(match[0]), "bits", bits))
    yield from values.values()
    for match in _DRAFT.finditer(body):
        if not _NEGATION.search(match[0]):
            yield Claim(TEXT, quoted(match[0]), "draft", 16.0)
            break


def _said(source: str, text: str) -> Iterator[Claim]:
    """Claims in a short text: a title, a tag, a name."""
    if _DENIAL.search(text):
        return
    found = [(match[0], _bits(match)) for match in _BITS.finditer(_ASIDE.sub(" ", text))]
    sure = [(words, bits) for words, bits in found if bits]
    for _, bits in sure[:MOST_VALUES]:
        yield Claim(source, quoted(text), "bits", bits)
    method = None if sure else _METHOD.search(text)
    if method:
        yield Claim(source, quoted(text), "quantized")


def _bits(match: re.Match[str]) -> float | None:
    """Bits of a match; None from 16 on, which says that nothing was quantized."""
    value = float(next(group for group in match.groups() if group))
    return value if 0 < value < 16 else None


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2][:LONGEST_TITLE]


# -- config.json ---------------------------------------------------------------------------------------------


def _config_claims(config: Mapping[str, Any], quantization: Mapping[str, Any] | None) -> Iterator[Claim]:
    for place in (config, config.get("text_config")):
        for key in DRAFT_KEYS:
            layers = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(layers, int) and layers > 0:
                yield Claim(CONFIG, quoted(f"{key} {str(layers)[:9]}"), "draft")
    if quantization is None:
        return
    method = quoted(_word(quantization.get("quant_method")) or "unknown", 40)
    found = [*_group_claims(method, quantization)] or [*_method_claims(method, quantization)]
    yield from found or [Claim(CONFIG, method, "quantized")]


def _group_claims(method: str, quantization: Mapping[str, Any]) -> Iterator[Claim]:
    """compressed-tensors and newer ModelOpt: one scheme for each group of layers."""
    groups = quantization.get("config_groups")
    for group in list(groups.values())[:MOST_GROUPS] if isinstance(groups, dict) else []:
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict):
            symmetric = weights.get("symmetric", True) is not False
            kind = "float" if weights.get("type") == "float" else "int"
            yield from _scheme(method, weights.get("num_bits"), kind, weights.get("group_size"), symmetric)


def _method_claims(method: str, quantization: Mapping[str, Any]) -> Iterator[Claim]:
    """Formats that say their bits in keys of their own."""
    group = quantization.get("group_size", quantization.get("q_group_size"))
    symmetric = quantization.get("sym", not quantization.get("zero_point", False)) is not False
    dynamic = quantization.get("dynamic")  # GPTQModel: other bits for some modules
    others = [other for other in dynamic.values() if isinstance(other, dict)] if isinstance(dynamic, dict) else []
    bits = [quantization.get("bits", quantization.get("w_bit")), *(other.get("bits") for other in others)]
    algorithm = " ".join(_word(quantization.get(key)) for key in ("quant_method", "quant_algo", "fmt")).lower()
    books, size = (_number(quantization.get(key)) for key in ("num_codebooks", "in_group_size"))
    code, rows = _number(quantization.get("nbits_per_codebook")), _number(quantization.get("out_group_size", 1))
    if any(_number(value) for value in bits):
        for value in dict.fromkeys(value for value in bits if _number(value)):
            yield from _scheme(method, value, "int", group, symmetric)
    elif books and code and size and rows:
        each = books * code / (size * rows)
        yield Claim(CONFIG, f"{method}, {books:g} codebooks of {code:g} bits for {size * rows:g} weights", "bits", each)
    elif "fp4" in algorithm:
        yield from _scheme(method, 4, "float", 32 if "mx" in algorithm else 16, True)
    elif "fp8" in algorithm or "e4m3" in algorithm:
        yield from _scheme(method, 8, "float", None, True)
    elif quantization.get("load_in_4bit") is True:
        yield from _scheme(method, 4, "int", 64, True)
    elif quantization.get("load_in_8bit") is True:
        yield from _scheme(method, 8, "int", None, True)


def _scheme(method: str, bits: object, kind: str, group: object, symmetric: bool) -> Iterator[Claim]:
    value, size = _number(bits), _number(group)
    if value is None or value >= 16:
        return
    # A scale of 16 bits for each group (8 in the 4-bit float formats), and a zero point as wide as a weight.
    overhead = ((8 if kind == "float" else 16) + (0 if symmetric else value)) / size if size else 0.0
    about = f"{method}, {value:g}-bit {kind}"
    about += f", group size {size:g}" if size else ""
    yield Claim(CONFIG, about if symmetric else f"{about}, zero points", "bits", value, overhead)


def _word(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    """A positive number of a size that can be meant, None for anything else (-1 is "the whole row")."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1_000_000
    return float(value) if usable else None  # type: ignore[arg-type]


def claimed(claims: Iterable[Claim]) -> dict[str, str]:
    """Claims by source, for a reader."""
    found: dict[str, list[str]] = {}
    for claim in claims:
        texts = found.setdefault(claim.source, [])
        if claim.text not in texts:
            texts.append(claim.text)
    return {source: quoted("; ".join(texts), 240) for source, texts in found.items()}
