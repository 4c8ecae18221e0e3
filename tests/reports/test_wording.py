"""Wording and drawing of single parts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from report_page import page_of
from report_runs import make_run, result, verdict_of

from harness.contract.secrets import hide_secret, hide_secrets
from reports.check_rows import check_rows
from reports.drawing.forest import drawn, forest
from reports.text import (
    date,
    duration,
    number,
    one_line,
    percent,
    points,
    shorten,
    signed,
    size,
    visible,
    worded,
)


def test_sizes_times_and_differences_are_worded() -> None:
    assert [size(n) for n in (0, 999, 988_097_824, 14_200_000_000, 5 * 10**12)] == [
        "0 B",
        "999 B",
        "988 MB",
        "14.2 GB",
        "5 TB",
    ]
    assert [duration(s) for s in (3.24, 65, 3599.6, 7800)] == [
        "3.2 s",
        "1 min 05 s",
        "1 h 00 min",
        "2 h 10 min",
    ]
    assert (points(-0.0001), points(0.05), points(None), signed(-2, 0)) == ("0.0", "+5.0", "–", "−2")
    assert date("2025-11-21T23:04:11+01:00") == "21 November 2025, 22:04 UTC" and date("yesterday") == "yesterday"


def test_every_number_has_the_same_minus() -> None:
    assert (number(-1234.5, 1), number(-0.04, 1), number(7), percent(-0.012)) == ("−1,234.5", "0.0", "7", "−1.2 %")
    said = "-5.7 points to 21.9 points straddles the margin (-0.3 nats): w4a16-fast, cot-7, 2025-11-21, 1e-05, 3 - 4"
    assert worded(said) == said.replace("-5.7", "−5.7").replace("-0.3", "−0.3")


def test_hidden_characters_become_visible_and_ordinary_ones_stay() -> None:
    assert visible("a\r\nb\tc") == "a\nb\tc"
    assert visible("\x00\x1b\x7f\x85\u200b\u202e\ud800\uffff") == "␀␛␡⟨U+0085⟩⟨U+200B⟩⟨U+202E⟩⟨U+D800⟩⟨U+FFFF⟩"
    assert visible("日本 עברית é 👩\u200d🔬 \ufffd") == "日本 עברית é 👩\u200d🔬 \ufffd"
    assert shorten("abcdefghij" * 2, 8) == "abcdef\n[… 12 characters left out …]\nij"
    assert one_line("a\n b" + "c" * 50, 10) == "a bcccccc…"


def test_secrets_in_commands_are_hidden() -> None:
    command = [
        "vllm",
        "serve",
        "m",
        "--api-key",
        "s3cret",
        "--hf-token=s3cret",
        "HF_TOKEN=s3cret",
        "--max-tokens",
        "5",
    ]
    shown = hide_secrets(command)
    assert "s3cret" not in " ".join(shown)
    assert shown[:4] == ["vllm", "serve", "m", "--api-key"]
    assert hide_secret("HF_TOKEN", "x") == "(hidden)" == hide_secret("config.model.hf_token", "x")
    for name in ("generation_config.eos_token_id", "default.stop_token_ids", "config.x.prefill_token_threshold"):
        assert hide_secret(name, "2") == "2"


def test_figures_take_their_colours_from_the_page() -> None:
    drawing = forest(check_rows([result(), result(on="cot/<b>&$x^2$", verdict="FAIL", lower=0.02, upper=0.05)]))
    assert drawing is not None
    root = ET.fromstring(f"<figure>{drawing}</figure>")
    assert [svg.get("class") for svg in root] == ["figure wide", "figure narrow"]
    for element in root.iter():
        assert "style" not in element.attrib
        assert element.tag.rpartition("}")[2] not in ("style", "script", "metadata")
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]", drawing)
    classes = {name for element in root.iter() for name in element.get("class", "").split()}
    assert {"s-pass", "s-fail", "s-ink", "f-ink"} <= classes
    assert "Accuracy · cot/<b>&$x^2$" in "".join(root.itertext())


@pytest.mark.slow
def test_a_forest_of_many_says_which_are_drawn(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2})
    for count, said in ((40, ""), (52, "the 40 closest to failing of 52 differences")):
        checks = [result(on=f"cot/t{n:02d}", upper=0.009 - n / 10_000) for n in range(count)]
        rows = check_rows(checks)
        drawing = forest(rows) or ""
        assert drawn(rows) == said and f'"Forest plot of {said or "40 differences"} with' in drawing
        assert "cot/t39" in drawing and "cot/t40" not in drawing
        verdict_of(folder, *checks)
        words = page_of(folder).words
        assert ("All differences on one scale" in words) == (count == 40)
        assert ("The 40 closest to failing of 52 differences, on one scale Not drawn are the others" in words) == (
            count == 52
        )


def test_no_difference_no_forest() -> None:
    speed = result(metric="speed_ratio", unit="ratio", margin_kind="min", margin=0.9, estimate=1.0)
    assert forest(check_rows([result(estimate=None), speed])) is None
    assert forest([]) is None
