"""Haystacks: endless, needles between sentences where they should be, from the data folder or from this project."""

from __future__ import annotations

from pathlib import Path

import pytest
from hangs import no_hang
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.errors import BadInput
from suites.materials.haystack import NOISE, Haystack, noise, running_text
from suites.readings.scripts import Language

LANGUAGES: tuple[Language, ...] = ("en", "ja", "zh")


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTGATE_DATA", raising=False)


def any_haystack(language: Language, running: bool) -> Haystack:
    return running_text(language) if running else noise(language)


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("language", LANGUAGES)
@given(units=st.integers(0, 9000), depths=st.lists(st.floats(0, 1), max_size=5).map(lambda d: [*d, *d[:2]]))
def test_needles_are_put_in_and_nothing_else_changes(
    language: Language, running: bool, units: int, depths: list[float]
) -> None:
    haystack = any_haystack(language, running)
    needles = [(depth, f"<{9 - i}>") for i, depth in enumerate(depths)]
    text = haystack.text(units, needles)
    order = [f"<{9 - i}>" for i in sorted(range(len(depths)), key=lambda i: depths[i])]
    assert [part for part in text.replace(">", ">\0").replace("<", "\0<").split("\0") if part.startswith("<")] == order
    for needle in order:
        text = text.replace(needle + haystack.joiner, "", 1) if needle + haystack.joiner in text else text
        text = text.replace(needle, "", 1)
    assert text.strip() == haystack.text(units).strip()


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("language", LANGUAGES)
@given(units=st.integers(400, 9000), depth=st.floats(0, 1))
def test_a_needle_stands_between_sentences_at_its_depth(
    language: Language, running: bool, units: int, depth: float
) -> None:
    haystack = any_haystack(language, running)
    before, after = haystack.text(units, [(depth, "<N>")]).split("<N>")
    whole = haystack.text(units)
    longest = 400 if running else 40  # characters of a sentence
    uneven = 60 + len(whole) // 50  # depth counts words, and they differ in length
    assert -longest - uneven <= len(before) - depth * len(whole) <= uneven
    assert not before or before.rstrip()[-1] in '.!?。！？"”」』）)'
    assert whole.startswith(before.rstrip()) and whole.endswith(after.lstrip())


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_starts_over_where_there_is_no_more(language: Language) -> None:
    haystack = running_text(language)
    once, joiner = haystack.text(len(haystack.pieces)), haystack.joiner
    assert haystack.text(2 * len(haystack.pieces) + 3) == joiner.join([once, once, haystack.text(3)])
    assert haystack.text(100) == joiner.join(haystack.pieces[:100])


def test_the_essays_are_text_of_some_length_with_no_number_that_could_be_a_needle() -> None:
    sizes: dict[Language, int] = {"en": 1500, "ja": 2000, "zh": 1800}
    for language, least in sizes.items():
        haystack = running_text(language)
        whole = haystack.text(len(haystack.pieces))
        assert len(haystack.pieces) > least and len(haystack.starts) > 60
        assert not any(c.isdigit() for c in whole) and "\n" not in whole and "\ufffd" not in whole
        assert haystack.name == f"essay_{language}.txt" and len(haystack.sha256) == 64
        assert haystack.holds(whole[50:80]) and not haystack.holds("1234567")


def test_noise_is_five_sentences() -> None:
    assert noise().text(6) == " ".join([*NOISE["en"], NOISE["en"][0]])
    assert noise("ja").text(len("".join(NOISE["ja"]))) == "".join(NOISE["ja"])
    assert noise("zh").text(40, [(0.5, "<N>")]).count("。<N>") == 1


SENTENCES = {
    "en": "Ten words @-@ of this sentence end at 1 @.@ 5 . " * 12,
    "ja": "これは日本語の文です。" * 12,
    "zh": "这是一个中文句子。" * 12,
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_data_folder_comes_first(language: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
    assert running_text(language).name == f"essay_{language}.txt"  # no folder for it
    folder = tmp_path / f"text_{language}"
    folder.mkdir()
    (folder / "b.txt").write_text(SENTENCES[language] + "\n", "utf-8")
    (folder / "a.txt").write_text("= A heading =\n" + SENTENCES[language] + "\n", "utf-8")
    (folder / "SOURCES.txt").write_text("nobody reads this", "utf-8")
    haystack = running_text(language)
    whole = haystack.text(len(haystack.pieces))
    assert haystack.name == f"text_{language}: a.txt, b.txt" and len(haystack.starts) == 24
    assert "heading" not in whole and "reads" not in whole and "@" not in whole
    if language == "en":
        assert whole.startswith("Ten words-of this sentence end at 1.5 .")


@pytest.mark.parametrize("content", [b"", b"One sentence.", "\xe9t\xe9".encode("latin-1") * 50])
def test_a_data_folder_without_text_is_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text_en").mkdir()
    (tmp_path / "text_en" / "a.txt").write_bytes(content)
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=r"text_en.*(ten sentences|UTF-8)"):
        running_text("en")


def test_the_regular_expressions_take_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    lines: dict[Language, str] = {"zh": "没有句号" * 200_000, "en": "word" * 200_000}
    for language, line in lines.items():
        (tmp_path / f"text_{language}").mkdir()
        (tmp_path / f"text_{language}" / "a.txt").write_text(
            "\n".join([line, *["句。 x." for _ in range(20)]]), "utf-8"
        )
        monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
        with no_hang():
            running_text(language)
