"""Over-thinking markers: what turns the thinking around is counted, words that only look like it are not."""

import pytest
from hangs import no_hang
from hypothesis import given
from hypothesis import strategies as st
from language_cases import HOSTILE

from suites.readings.markers import count_markers

ENGLISH = ["Wait,", "but", "However,", "alternatively", "Hmm.", "hmmmm", "Actually", "hold on", "On second thought"]
ENGLISH += ["double-check", "recheck", "re-check", "let me verify", "Let me think again", "maybe"]
JAPANESE = [
    "でも、",
    "しかし、",
    "いや、",
    "待って、",
    "待てよ。",
    "もう一度",
    "もしかしたら",
    "あるいは",
    "念のため",
    "考え直す",
    "うーん、",
]
CHINESE = [
    "等等，",
    "等一下",
    "但是",
    "不过，",
    "可是",
    "然而",
    "或许",
    "也许",
    "不对，",
    "重新",
    "再想想",
    "再检查",
    "嗯，",
    "或許",
    "不對，",
]


@pytest.mark.parametrize("marker", [*ENGLISH, *JAPANESE, *CHINESE])
def test_each_marker_counts_once(marker: str) -> None:
    assert count_markers(marker) == 1
    assert count_markers(f"1 + 1 = 2。{marker} 3。") == 1


NONE = [
    "waits",
    "await",
    "butter",
    "rebut",
    "maybes",
    "hm_m",
    "whatever",
    "何でもいい",
    "いつでも",
    "待っている",
    "待っても",
    "はいやめます",
]
NONE += [
    "でもない",
    "苹果等等。",
    "不对称",
    "不对应",
    "不过是",
    "いやな",
    "factually",
    "重い",
    "The answer is 1016.",
    "",
]


@pytest.mark.parametrize("text", NONE)
def test_other_words_do_not_count(text: str) -> None:
    assert count_markers(text) == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Wait, but hmm. Alternatively, we are awaiting butter.", 4),
        ("何でもいい。でも、いや、待って。もう一度。", 4),
        ("苹果、梨等等。等等，不对，不对称。但是……", 3),
        ("wait wait WAIT", 3),
        ("Wait. でも、但是", 3),
    ],
)
def test_markers_of_all_languages_are_added(text: str, count: int) -> None:
    assert count_markers(text) == count


@given(st.lists(st.sampled_from([*ENGLISH, *JAPANESE, *CHINESE]), max_size=12), st.sampled_from(["\n", "。\n", " 12 "]))
def test_as_many_as_were_written(markers: list[str], between: str) -> None:
    assert count_markers(between.join(markers)) == len(markers)


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_text_and_no_faster(name: str) -> None:
    with no_hang():
        count_markers(HOSTILE[name])
