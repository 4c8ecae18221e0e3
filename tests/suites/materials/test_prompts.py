"""The prompts that ship: all different, a fair mix from the first on, and functions told to every model."""

import json
import re
from collections import Counter
from importlib import resources
from itertools import combinations
from typing import Any

import jinja2
import pytest

from harness.contract.errors import BadInput
from harness.contract.samples import Item
from suites.materials.prompts import TOLD, shipped_prompts

KINDS, LANGUAGES = ("chat", "reasoning", "code", "tools"), ("en", "ja", "zh")
ENGLISH = {"the", "a", "and", "is", "it", "of", "to", "any", "as", "if", "in"}
LATIN = {
    name: {*words.split()}
    for name, words in {
        "de": "der die das und eine ich mich mein nicht mit zu im den in was",
        "fr": "le la les un une et de du j mon est pourquoi",
        "es": "el la los un una y de que mi del al",
        "pt": "o a os um uma e de que no da",
    }.items()
}
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
SHOWS = "{% for t in tools or [] %}{{ t.function.name }} {% endfor %}" + PLAIN
REFUSES = "{% if tools %}{{ 1 / 0 }}{% endif %}" + PLAIN


class Template:
    """A tokenizer that has a chat template and nothing else."""

    def __init__(self, template: str) -> None:
        self.template = jinja2.Template(template)

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        try:
            return self.template.render(messages=conversation, **options)
        except ZeroDivisionError:
            raise jinja2.TemplateError("no tools here") from None


class NoTemplate:
    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        raise ValueError("tokenizer.chat_template is not set")


def prompts(count: int, limit: int | None = None, tokenizer: Any = None) -> list[Item]:
    return shipped_prompts("divergence", count, limit, tokenizer or Template(SHOWS))


def rows() -> list[dict[str, Any]]:
    text = (resources.files("suites") / "data" / "prompts.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_there_are_eight_of_each_kind_and_language_and_no_two_are_equal() -> None:
    items = prompts(96)  # the first ones stay what they are: older runs asked them
    assert Counter(item.task for item in items) == {f"{k}-{lang}": 8 for k in KINDS for lang in LANGUAGES}
    assert len({item.item for item in items}) == len({item.prompt_sha256 for item in items}) == 96
    assert all(item.item.startswith(item.task + "-") for item in items)
    with pytest.raises(BadInput, match="divergence: 513 prompts asked, 512 are shipped"):
        prompts(513)


def test_all_prompts_are_named_and_different() -> None:
    items = prompts(512)
    assert len({item.item for item in items}) == len({item.prompt_sha256 for item in items}) == 512
    assert all(item.item.startswith(item.task + "-") for item in items)


def test_no_two_prompts_are_variants_of_one_text() -> None:
    def pieces(text: str) -> set[str]:
        joined = "".join(text.lower().split())
        return {joined[i : i + 4] for i in range(len(joined) - 3)}

    found = [(row["id"], row["language"], pieces(row["messages"][-1]["content"])) for row in rows()]
    alike = [
        (one, other, len(a & b) / len(a | b))
        for (one, language, a), (other, same, b) in combinations(found, 2)
        if language == same
    ]
    assert max(share for _, _, share in alike) < 0.3, max(alike, key=lambda pair: pair[2])


@pytest.mark.parametrize("count", [256, 384, 512])
def test_longer_lists_are_a_fair_mix_of_what_follows(count: int) -> None:
    later, these = [item.task for item in prompts(512)[96:]], [item.task for item in prompts(count)[96:]]
    for name, total in Counter(later).items():
        assert abs(these.count(name) - total * len(these) / len(later)) < 1, name


@pytest.mark.parametrize("count", [12, 16, 24, 48])
def test_the_first_prompts_are_a_fair_mix(count: int) -> None:
    kinds = Counter(item.task.split("-")[0] for item in prompts(count))
    languages = Counter(item.task.split("-")[1] for item in prompts(count))
    tasks = Counter(item.task for item in prompts(count))
    assert max(kinds.values()) - min(kinds.values()) <= 1 and len(kinds) == len(KINDS)
    assert max(languages.values()) - min(languages.values()) <= 1 and len(languages) == len(LANGUAGES)
    assert max(tasks.values()) - min(tasks.values()) <= 1 and len(tasks) == 12


def test_only_some_kinds_are_asked_in_the_same_order() -> None:
    some = shipped_prompts("divergence", 64, None, Template(SHOWS), ("chat", "code"))
    assert some == [item for item in prompts(512) if item.task.split("-")[0] in ("chat", "code")][:64]
    with pytest.raises(BadInput, match=r"512 prompts asked, \d+ are shipped of kinds chat, code"):
        shipped_prompts("divergence", 512, None, Template(SHOWS), ("chat", "code"))
    with pytest.raises(BadInput, match=r"no prompt of kind 'poems'; kinds: chat, .*tools"):
        shipped_prompts("divergence", 8, None, Template(SHOWS), ("chat", "poems"))


def test_a_shorter_list_is_the_beginning_of_a_longer_one_and_a_limit_takes_the_first_of_each_task() -> None:
    assert prompts(5) == prompts(96)[:5]
    limited = prompts(96, limit=2)
    assert Counter(item.task for item in limited) == {f"{k}-{lang}": 2 for k in KINDS for lang in LANGUAGES}
    assert limited == [item for item in prompts(96) if item.item[-2:] in ("01", "02")]
    assert prompts(16, limit=1) == prompts(12)


def test_every_prompt_is_in_its_language() -> None:
    for row in rows():
        text = "".join(message["content"] for message in row["messages"])
        kana = sum("぀" <= c <= "ヿ" for c in text)
        han = sum("一" <= c <= "鿿" for c in text)
        hangul = sum("가" <= c <= "힣" for c in text)
        words = {*re.findall(r"\w+", text.lower())}
        latin = kana == han == hangul == 0
        fits = {
            "en": latin and (not words.isdisjoint(ENGLISH) or row["kind"] == "rewrite"),
            "ja": kana > 3,
            "zh": kana == 0 and han > 10,
            "ko": hangul > 10 and kana == han == 0,
            **{name: latin and not words.isdisjoint(known) for name, known in LATIN.items()},
        }
        assert fits[row["language"]], row["id"]


def test_functions_are_well_formed_and_only_for_prompts_of_tools() -> None:
    for row in rows():
        assert (row["kind"] == "tools") == ("tools" in row), row["id"]
        assert row["messages"][-1]["role"] == "user"
        for tool in row.get("tools", []):
            function = tool["function"]
            assert tool["type"] == "function" and function["description"] and function["name"].isidentifier()
            parameters = function["parameters"]
            assert parameters["type"] == "object" and set(parameters["required"]) == set(parameters["properties"])
            for value in parameters["properties"].values():
                assert value["type"] in ("string", "number", "integer", "boolean", "array") and value["description"]
            asked = "".join(message["content"] for message in row["messages"])
            assert function["name"] not in asked  # so that a name in a rendered prompt is the template's doing


def test_a_template_that_shows_functions_gets_them_from_the_server() -> None:
    for item in prompts(96):
        if item.task.startswith("tools"):
            assert item.data["tools"] and not any(told in item.prompt[-1]["content"] for told in TOLD.values())
        else:
            assert item.data == {}


@pytest.mark.parametrize("tokenizer", [Template(PLAIN), Template(REFUSES), NoTemplate()])
def test_any_other_model_reads_them_in_the_prompt(tokenizer: Any) -> None:
    functions = {row["id"]: row for row in rows() if "tools" in row}
    for item, plain in zip(prompts(512, tokenizer=tokenizer), prompts(512), strict=True):
        assert item.data == {} and item.item == plain.item
        if item.item not in functions:
            assert item == plain
            continue
        row = functions[item.item]
        said = item.prompt[-1]["content"]
        assert said.startswith(TOLD[row["language"]]) and said.endswith(row["messages"][-1]["content"])
        assert item.prompt[:-1] == row["messages"][:-1] and item.prompt_sha256 != plain.prompt_sha256
        for tool in row["tools"]:
            assert json.dumps(tool["function"], ensure_ascii=False) in said
