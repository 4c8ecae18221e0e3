"""The page: it says what the run folder holds, and nothing in a model's text gets out of its place."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_runs import judge_run, make_run, manifest, sample

from harness.errors import BadInput
from harness.policy import load_policy
from harness.runfolder import RunFolder
from harness.samples import ROLES
from harness.verdict import Verdict
from reports.html import embed_json
from reports.render import read_report, render

VOID = {"meta", "link", "br", "input", "wbr", "img", "hr"}
BLOCKS = {"td", "th", "dt", "dd", "li", "p", "small", "br", "h1", "h2", "h3", "pre"}
HOSTILE = (
    "<script>owned()</script></script><img src=x onerror=owned()> <!-- ]]> --> \u202egnp.exe\u202c \ufffd "
    "\x00\x1b[31m {{7*7}} \u2028 & \" ' עברית"
)


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order and ids are unique."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in BLOCKS:
            self.text += " "
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]][-1] += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def pairs(self) -> list[dict[str, object]]:
        return list(json.loads(self.raw["script"][-1]))


def page_of(folder: RunFolder) -> Page:
    return Page(render(folder.path).read_text("utf-8"))


def small_run(path: Path, planned: dict[str, int]) -> RunFolder:
    sealed = load_policy("demo")
    folder = RunFolder(path)
    folder.create(manifest(sealed, planned), sealed)
    return folder


def test_a_finished_run_shows_verdict_models_policy_checks_and_suites(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    index = render(folder.path)
    assert index == folder.path / "report" / "index.html"
    assert sorted(p.name for p in index.parent.iterdir()) == [
        "badge.svg",
        "index.html",
        "junit.xml",
        "model_card.md",
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
        assert check.reason in page.words
    assert page.text.count("differs, allowed") == 2
    assert "after the fact" not in page.words
    assert "hf_verysecret" not in index.read_text("utf-8")
    assert len(page.pairs) == 88


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
    assert directives["script-src"] == source(page.raw["script"][0])
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
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028]", raw)
    reference = page.pairs[0]["reference"]
    assert isinstance(reference, dict)
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


def test_a_huge_answer_is_shortened_with_a_note(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 1})
    log = folder.log("cot")
    for role in ROLES:
        log.append(sample(role, "cot", "word_problems", "0", text="a" * 10_000_000 + "end", answer="b" * 10_000_000))
    log.close()
    judge_run(folder)
    raw = render(folder.path).read_text("utf-8")
    assert len(raw) < 200_000
    answer = Page(raw).pairs[0]["candidate"]
    assert isinstance(answer, dict)
    assert "[… 9,996,003 characters left out …]" in answer["text"] and answer["text"].endswith("end")


def test_flips_come_first_then_errors_and_cut_off_answers_and_the_rest_is_counted(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 3000})
    log = folder.log("cot")
    for number in range(1500):
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
    assert [pair["kind"] for pair in page.pairs[:5]] == ["worse", "better", "error", "truncated", "same"]
    assert len(page.pairs) == len(page.all("details")) - 2 == 300
    assert "300 of 1,500 pairs, flips first; 1,200 are left out here" in page.words
    assert "cot: 1,500 pairs missing of 3,000 planned; 1 pair with an error." in page.words
    assert "Errors: candidate timeout ×1." in page.words


def test_cot_shows_score_completed_score_and_cap_hits_of_both_roles_together(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 4})
    log = folder.log("cot")
    for number, (score, reason) in enumerate([(1.0, "stop"), (1.0, "stop"), (0.0, "stop"), (0.0, "length")]):
        log.append(sample("reference", "cot", "word_problems", str(number), score=1.0))
        log.append(sample("candidate", "cot", "word_problems", str(number), score=score, finish_reason=reason))
    log.close()
    report = read_report(folder)
    total = report.suites[0].total
    assert total is not None
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
    assert "word_problems 4 100.0 % 50.0 % −50.0 100.0 % 66.7 % of 3 0.0 % 25.0 % 120 120" in page_of(folder).words


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
    assert (divergence.lower, divergence.upper, divergence.flip_rate) == (0.0125, 0.025, 0.02)
    assert (divergence.confident_flips, divergence.captured_mass) == (2.0, pytest.approx(0.9))
    assert [document.upper for document in divergence.documents] == [0.03, 0.01]
    assert (divergence.margin, divergence.without_metrics) == (0.05, 1)
    words = page_of(folder).words
    assert "0.0125 to 0.0250" in words and "2.00 % 8 of 400 positions" in words and "1 without metrics" in words


def test_a_run_without_verdict_says_so(tmp_path: Path) -> None:
    words = page_of(make_run(tmp_path / "run", verdict=False)).words
    assert "Verdict: NOT JUDGED" in words.replace("\u00a0", " ")
    assert "There is no verdict: nothing below was judged." in words


def test_a_run_with_nothing_in_it_still_renders(tmp_path: Path) -> None:
    sealed = load_policy("demo")
    folder = RunFolder(tmp_path / "run")
    empty = manifest(sealed, {}).model_copy(
        update={
            "models": {},
            "servers": {},
            "hardware": {},
            "versions": {},
            "stages": [],
            "command": [],
            "created": "yesterday",
        }
    )
    folder.create(empty, sealed)
    words = page_of(folder).words
    for said in (
        "There are no samples.",
        "The manifest says nothing about the reference model.",
        "yesterday",
        "The manifest names no stages.",
        "The manifest holds no facts of the servers.",
    ):
        assert said in words, said


def test_a_verdict_with_zero_checks_and_null_fields_renders(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2}, verdict=False)
    sha = folder.manifest().policy_sha256
    folder.write_verdict(
        Verdict(
            verdict="PASS",
            reason="",
            policy_name="demo",
            policy_sha256=sha,
            sealed_policy_sha256=sha,
            checks=[],
        )
    )
    assert "The verdict holds no checks: nothing was asked of this model." in page_of(folder).words


def test_checks_without_numbers_and_suites_that_never_ran_are_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    folder.samples_path("ruler").unlink()
    folder.samples_path("divergence").unlink()
    judge_run(folder)
    words = page_of(folder).words
    assert "ruler: no samples, of 24 planned pairs." in words
    assert "24 missing" in words and "zero usable pairs" in words


def test_broken_pieces_are_named_and_do_not_stop_the_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    with folder.samples_path("cot").open("a") as file:
        file.write('{"suite": "cot", "older": true}\n')
    folder.items_path("ruler").write_text("changed\n")
    (folder.path / "verdict.json").write_text("{")
    (folder.path / "policy.yaml").write_text("name: other\n")
    words = page_of(folder).words
    assert "samples/cot.jsonl:97: not a sample" in words
    assert "items/ruler.jsonl is not the file that the manifest names" in words
    assert "verdict.json: file: Invalid JSON" in words
    assert "policy.yaml: suites: Field required" in words
    assert "The sealed policy cannot be read." in words


def test_a_run_without_manifest_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"manifest\.json"):
        render(tmp_path)


def test_judged_after_the_fact_shows_both_hashes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    judge_run(folder, "ab" * 32)
    words = page_of(folder).words
    assert "Judged after the fact." in words
    assert folder.manifest().policy_sha256 in words and "ab" * 32 in words


def test_the_same_run_renders_to_the_same_bytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    first = render(folder.path).read_bytes()
    assert render(folder.path).read_bytes() == first
