"""The page: it says what the run folder holds, and nothing in a model's text gets out of its place."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from report_page import Page, page_of, texts_of
from report_runs import judge_run, make_run, sample, small_run

from harness.contract.samples import ROLES
from reports.html import embed_json
from reports.render import read_report, render
from reports.text import worded

HOSTILE = (
    "<script>owned()</script></script><img src=x onerror=owned()> <!-- ]]> --> \u202egnp.exe\u202c \ufffd "
    "\x00\x1b[31m {{7*7}} \u2028 & \" ' עברית"
)


def test_a_finished_run_shows_verdict_models_policy_checks_and_suites(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    index = render(folder.path)
    assert index == folder.path / "report" / "index.html"
    assert sorted(p.name for p in index.parent.iterdir()) == [
        "badge.svg",
        "index.html",
        "junit.xml",
        "model_card.md",
        "report.json",
        "samples",
        "summary.md",
    ]
    page, verdict, facts = Page(index.read_text("utf-8")), folder.verdict(), folder.manifest()
    assert f"Verdict: {verdict.verdict}" in page.words
    for said in (
        "Qwen/Qwen2.5-0.5B-Instruct",
        "qwen2.5-0.5b-w4a16",
        "988 MB",
        "457 MB",
        "4.16",
        "compressed-tensors",
        facts.policy_sha256,
        "7ae557604adf",
        "21 November 2025, 22:04 UTC",
        "7 min 02 s",
        "quantize",
        "vllm serve",
        "AMD EPYC 9B14, 2 cores",
        "0.26.1",
        "niah_single_1@2048",
    ):
        assert said in page.words, said
    for check in verdict.checks:
        assert check.name in page.words
        assert worded(check.reason) in page.words
    assert page.text.count("differs, allowed") == 2
    assert "after the fact" not in page.words
    assert "hf_verysecret" not in index.read_text("utf-8")
    assert len(page.kinds) == 88 == len(texts_of(folder))


def test_no_request_leaves_the_page_and_no_inline_style_needs_an_exception(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    for tag, attributes in page.elements:
        assert "style" not in attributes, (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            target = attributes.get(name)
            assert target is None or target.startswith("#") or target == "data:,", target
    assert "url(" not in page.raw["style"][0] and "@import" not in page.raw["style"][0]


def test_the_content_policy_names_exactly_the_inlined_style_and_script(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert directives["style-src"] == source(page.raw["style"][0])
    assert directives["script-src"] == f"{source(page.raw['script'][0])} 'self' file:"
    assert len(page.raw["style"]) == 1
    kinds = [script.get("type") for script in page.all("script")]
    assert kinds == [None, "application/json"]


def test_hostile_text_stays_text_everywhere(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 3})
    facts = folder.manifest()
    facts.models["candidate"].name = f"evil {HOSTILE}"
    facts.servers["candidate"].readback["dtype"] = HOSTILE
    facts.stages[0].name = HOSTILE
    facts.hardware = {HOSTILE: HOSTILE}
    folder.write_manifest(facts)
    log = folder.log("cot")
    for role in ROLES:
        score = float(role == "reference")
        log.append(
            sample(
                role,
                "cot",
                "word_problems",
                HOSTILE,
                score=score,
                text=HOSTILE,
                reasoning=HOSTILE,
                answer=HOSTILE,
            )
        )
        log.append(sample(role, "cot", HOSTILE, "1", score=None, error=HOSTILE, text=HOSTILE))
    log.close()
    judge_run(folder)
    raw = render(folder.path).read_text("utf-8")
    page = Page(raw)
    assert [script.get("type") for script in page.all("script")] == [None, "application/json"]
    assert not page.all("img")
    beside = "".join(path.read_text("utf-8") for path in (folder.report_path / "samples").iterdir())
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028]", raw + beside)
    assert not set("<>&") & set(beside)
    reference = texts_of(folder)[0]["reference"]
    assert reference["text"].startswith("<script>owned()</script></script><img")
    assert "⟨U+202E⟩gnp.exe⟨U+202C⟩ \ufffd ␀␛[31m {{7*7}} ⟨U+2028⟩ & \" ' עברית" in reference["text"]
    assert "1 difference that the policy does not allow: dtype." in page.words
    for name in ("junit.xml", "summary.md", "model_card.md", "badge.svg"):
        text = (folder.report_path / name).read_text("utf-8")
        foreign = text.split("---\n")[-1] if name == "model_card.md" else text  # front matter is data, not markup
        assert "<script" not in foreign and "<img" not in foreign and "\u202e" not in text, name


def test_embedded_json_cannot_end_its_element() -> None:
    value = ["</script><!--<script>", "\u2028&"]
    text = str(embed_json(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


@pytest.mark.slow
def test_a_huge_answer_is_shortened_with_a_note(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 1})
    log = folder.log("cot")
    for role in ROLES:
        log.append(sample(role, "cot", "word_problems", "0", text="a" * 10_000_000 + "end", answer="b" * 10_000_000))
    log.close()
    judge_run(folder)
    for single_file, limit in ((False, 24_000), (True, 4_000)):
        raw = render(folder.path, single_file=single_file).read_text("utf-8")
        assert len(raw) < 200_000
        (pair,) = Page(raw).index["inlined"] if single_file else texts_of(folder)
        answer = pair["candidate"]
        assert f"[… {10_000_003 - limit:,} characters left out …]" in answer["text"] and answer["text"].endswith("end")
        assert sum(len(value) for _, value in answer["facts"]) < 1000 and len(json.dumps(pair)) < 100_000


@pytest.mark.slow
def test_flips_come_first_then_errors_and_cut_off_answers_then_all_others(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 300})
    log = folder.log("cot")
    for number in range(150):
        for role in ROLES:
            more: dict[str, object] = {}
            if (number, role) in {(7, "candidate"), (8, "reference")}:
                more = {"score": 0.0}
            elif number == 9 and role == "candidate":
                more = {"score": None, "error": "timeout: 120 s"}
            elif number == 10 and role == "candidate":
                more = {"finish_reason": "length"}
            log.append(sample(role, "cot", "word_problems", f"{number:05d}", **more))
    log.close()
    judge_run(folder)
    page = page_of(folder)
    assert page.kinds == ["worse", "better", "error", "truncated", *["same"] * 146]
    assert "All 150 pairs, flips first" in page.words
    assert "cot: 150 pairs missing of 300 planned; 1 pair with an error." in page.words
    assert "Errors: candidate timeout ×1." in page.words


def test_cot_shows_score_completed_score_and_cap_hits_of_both_roles_together(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 4})
    log = folder.log("cot")
    for number, (score, reason) in enumerate([(1.0, "stop"), (1.0, "stop"), (0.0, "stop"), (0.0, "length")]):
        log.append(sample("reference", "cot", "word_problems", str(number), score=1.0))
        log.append(sample("candidate", "cot", "word_problems", str(number), score=score, finish_reason=reason))
    log.close()
    report = read_report(folder)
    (total,) = report.suites[0].tasks
    assert (total.reference.score, total.reference.score_completed, total.reference.cap_hit_rate) == (
        1.0,
        1.0,
        0.0,
    )
    assert (total.candidate.score, total.candidate.score_completed, total.candidate.cap_hit_rate) == (
        0.5,
        2 / 3,
        0.25,
    )
    assert (
        "word_problems 4 100.0 % 50.0 % −50.0 2 0 2 100.0 % 66.7 % of 3 0.0 % 25.0 % 120 120" in page_of(folder).words
    )


def test_divergence_sums_over_positions(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"divergence/trajectories": 3})
    log = folder.log("divergence")
    for number, (kl, positions) in enumerate([(1.0, 100.0), (9.0, 300.0)]):
        metrics = {
            "kl_lower_sum": kl / 2,
            "kl_upper_sum": kl,
            "positions": positions,
            "flips": 4.0,
            "confident_flips": 1.0,
            "captured_mass_sum": 0.9 * positions,
        }
        log.append(sample("reference", "divergence", "trajectories", str(number), score=None))
        log.append(sample("candidate", "divergence", "trajectories", str(number), score=None, metrics=metrics))
    for role in ROLES:
        log.append(sample(role, "divergence", "trajectories", "2", score=None))
    log.close()
    divergence = read_report(folder).suites[-1].divergence
    assert divergence is not None
    assert (divergence.lower, divergence.upper, divergence.positions) == (0.0125, 0.025, 400)
    assert [document.upper for document in divergence.documents] == [0.03, 0.01]
    assert (divergence.margin, divergence.without_metrics) == (0.05, 1)
    words = page_of(folder).words
    assert "0.0125 to 0.0250" in words and "2.00 % (8)" in words and "Median KL not measured" in words
    assert "divergence: 1 document without divergence metrics." in words


def test_the_same_run_renders_to_the_same_bytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    first = render(folder.path).read_bytes()
    assert render(folder.path).read_bytes() == first
