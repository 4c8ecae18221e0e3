"""Wording, order and drawing of single parts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from harness.verdict import CheckResult, Verdict
from reports.figures import forest
from reports.text import duration, hide_secrets, one_line, points, shorten, signed, size, visible
from reports.view import check_rows


def check(name: str, verdict: str, lower: float | None, upper: float | None, margin: float = 0.01) -> CheckResult:
    estimate = None if lower is None or upper is None else (lower + upper) / 2
    return CheckResult.model_validate(
        {
            "name": name,
            "metric": "accuracy",
            "on": f"cot/{name}",
            "verdict": verdict,
            "reason": "why",
            "margin": margin,
            "margin_kind": "max_loss",
            "confidence": 0.95,
            "estimate": estimate,
            "lower": lower,
            "upper": upper,
            "n": 100,
            "b": 3,
            "c": 1,
            "discordant": 4,
        }
    )


def verdict(*checks: CheckResult) -> Verdict:
    return Verdict(
        verdict="FAIL",
        reason="",
        policy_name="p",
        policy_sha256="a",
        sealed_policy_sha256="a",
        checks=list(checks),
    )


def test_checks_are_sorted_by_how_close_they_are_to_failing() -> None:
    rows = check_rows(
        verdict(
            check("roomy", "PASS", -0.02, 0.001),
            check("tight", "PASS", -0.02, 0.0099),
            check("tight in a wide margin", "PASS", -0.02, 0.05, margin=0.10),
            check("open", "INCONCLUSIVE", -0.01, 0.02),
            check("no numbers", "INCONCLUSIVE", None, None),
            check("failed", "FAIL", 0.02, 0.05),
        )
    )
    assert [row.result.name for row in rows] == [
        "failed",
        "no numbers",
        "open",
        "tight",
        "tight in a wide margin",
        "roomy",
    ]


def test_a_bar_puts_zero_and_margin_at_the_same_place_in_every_row() -> None:
    narrow, wide = check_rows(verdict(check("a", "PASS", 0.0, 0.01, 0.01), check("b", "PASS", 0.0, 0.1, 0.1)))
    for row in (narrow, wide):
        assert row.bar is not None
        assert row.bar.start == pytest.approx(100 / 3) == row.bar.zero
        assert row.bar.end == pytest.approx(200 / 3)
        assert not row.bar.cut_left and not row.bar.cut_right


def test_a_bar_says_where_it_is_cut_and_where_a_bound_is_absent() -> None:
    far, unbounded, zero = check_rows(
        verdict(
            check("far", "FAIL", 0.05, 0.09),
            check("unbounded", "INCONCLUSIVE", None, None).model_copy(update={"estimate": 0.005}),
            check("zero margin", "PASS", -0.03, 0.0, margin=0.0),
        )
    )
    assert far.bar is not None and far.bar.cut_right and far.bar.estimate is None
    assert unbounded.bar is not None and unbounded.bar.cut_left and unbounded.bar.cut_right
    assert unbounded.interval == "unbounded to unbounded"
    assert zero.bar is not None and zero.bar.end == pytest.approx(200 / 3) and zero.bar.zero is None


def test_numbers_are_worded() -> None:
    row = check_rows(verdict(check("a", "PASS", -0.012, 0.004)))[0]
    assert (row.estimate, row.interval, row.margin, row.unit) == ("−0.4", "−1.2 to +0.4", "1.0", "points")
    assert row.counts == "3 / 1 / 4"
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


def test_figures_take_their_colours_from_the_page() -> None:
    drawing = forest(check_rows(verdict(check("a", "PASS", -0.02, 0.001), check("<b>&$x^2$", "FAIL", 0.02, 0.05))))
    assert drawing is not None
    root = ET.fromstring(f"<figure>{drawing}</figure>")
    assert [svg.get("class") for svg in root] == ["figure wide", "figure narrow"]
    for element in root.iter():
        assert "style" not in element.attrib
        assert element.tag.rpartition("}")[2] not in ("style", "script", "metadata")
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]", drawing)
    classes = {name for element in root.iter() for name in element.get("class", "").split()}
    assert {"s-pass", "s-fail", "s-ink", "f-ink"} <= classes
    assert "accuracy · cot/<b>&$x^2$" in "".join(root.itertext())


def test_no_difference_no_forest() -> None:
    assert forest(check_rows(verdict(check("a", "INCONCLUSIVE", None, None)))) is None
    assert forest([]) is None
