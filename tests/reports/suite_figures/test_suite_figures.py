"""Figures of suites: what is drawn and what is not, as images that say their finding and take the page's colours."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from report_page import page_of
from suite_runs import every_suite, pair, store

from harness.contract.pairs import Pair
from harness.contract.samples import Role, Sample
from harness.endpoint.answers import Completion
from reports.drawing.canvas import SuiteFigure
from reports.drawing.svg import INKS
from reports.html import STYLES, TEMPLATES
from reports.known_suites import KNOWN_SUITES, known_suite
from reports.suite_tables.table import SuiteRun
from suites.base import make_item, make_sample
from suites.readings.thinking import with_scores_in_budgets

DRAWN = {
    "ruler": ["Score by task and length"],
    "needle": ["Score by depth and length"],
    "divergence": ["KL by part of the answers", "KL by document"],
    "decoding": [],
    "termination": ["Score by task", "Score within a budget", "How much is thought"],
    "language": ["Scripts of the answers", "Scripts of the thinking", "Score by task"],
    "speculative": ["Acceptance by position in the draft"],
    "footprint": ["Size next to the reference"],
    "speed": ["Output tokens a second", "Time to the first token"],
    "swebench": ["How trajectories ended"],
}
HOSTILE = "<script>x</script>$\\frac{1}$\u202e\x00\ud800 日本"


def runs(pairs: list[Pair]) -> dict[str, SuiteRun]:
    found: dict[str, SuiteRun] = {}
    for suite in dict.fromkeys(p.reference.suite for p in pairs):
        of = [p for p in pairs if p.reference.suite == suite]
        usual, noise = ([p for p in of if p.candidate.role == role] for role in ("candidate", "noise"))
        found[suite] = SuiteRun(usual, noise=noise, kl_margin=0.05 if suite == "divergence" else None)
    return found


RUNS = runs(every_suite())


def drawn(figure: SuiteFigure, name: str = "suite-0-0") -> list[ET.Element]:
    return list(ET.fromstring(f"<figure>{figure.draw(name)}</figure>"))


@pytest.mark.parametrize("suite", sorted(DRAWN))
def test_every_suite_draws_its_figures_as_labelled_images_in_the_pages_colours(suite: str) -> None:
    found = known_suite(suite).figures(RUNS[suite])
    assert [figure.title for figure in found] == DRAWN[suite]
    for figure in found:
        images = drawn(figure)
        kinds = [image.get("class") for image in images]
        assert kinds == (["figure wide", "figure narrow"] if figure.wide else ["figure small"])
        for image in images:
            assert image.get("role") == "img"
            assert image.get("aria-label") == f"{figure.title}. {figure.finding}"
            assert re.fullmatch(r"[A-Z].*\.", figure.finding)
            for element in image.iter():
                assert "style" not in element.attrib
                for colour in (element.get("fill"), element.get("stroke")):
                    assert colour in (None, "none"), (figure.title, element.tag, element.attrib)
        ids = [element.get("id") for image in images for element in image.iter() if element.get("id")]
        assert len(ids) == len(set(ids)) and all(i.startswith("suite-0-0") for i in ids if i)


@pytest.mark.parametrize("suite", [*KNOWN_SUITES, "unknown"])
def test_nothing_is_drawn_of_nothing(suite: str) -> None:
    assert known_suite(suite).figures(SuiteRun([])) == []
    assert known_suite(suite).figures(SuiteRun([], tasks=("a", "b"))) == []
    bare = [pair(suite, task, scores=(None, None)) for task in ("a", "b@4096", "c1", "c2")]
    assert known_suite(suite).figures(SuiteRun(bare)) == []


def test_cot_draws_budgets_and_thinking_of_the_samples_that_the_suite_makes() -> None:
    def answered(role: Role, number: int, words: int) -> Sample:
        item = make_item("math500", f"{number:03d}", [{"role": "user", "content": "?"}])
        completion = Completion("\\boxed{4}", "so " * words, "stop", 9, 100 * words, [], [], 1.0, None)
        made = make_sample("cot", item, role, completion, score=1.0, answer="4")
        return with_scores_in_budgets(made, completion, 16384)

    made = [Pair(answered("reference", n, 10 + 5 * n), answered("candidate", n, 10 + 8 * n)) for n in range(20)]
    budget, thinking = known_suite("cot").figures(SuiteRun(made))
    assert (budget.title, thinking.title) == ("Score within a budget", "How much is thought")
    assert budget.finding.startswith("They differ most within 8,192 tokens: 75.0 % with the reference, 45.0 %")
    assert thinking.finding.startswith("Half of 20 answers think more than 5,")
    for figure in (budget, thinking):
        (image,) = drawn(figure)
        assert image.get("aria-label") == f"{figure.title}. {figure.finding}"
    said = "".join("".join(image.itertext()) for image in drawn(budget))
    assert "budget of an answer, tokens" in said and "16k" in said
    silent = [Pair(p[0], p[1].model_copy(update={"metrics": {}})) for p in made]  # the candidate does not think at all
    assert ", 0 with the candidate;" in known_suite("cot").figures(SuiteRun(silent))[-1].finding


def test_two_numbers_are_no_figure() -> None:
    cot = [pair("cot", "gsm8k", str(n), scores=(1.0, 0.0)) for n in range(20)]
    assert known_suite("cot").figures(SuiteRun(cot)) == []
    one_speed = pair("speed", "c8", metrics=({"tokens_per_second": 9.0}, {"tokens_per_second": 8.0}))
    assert known_suite("speed").figures(SuiteRun([one_speed])) == []
    one_end = [pair("swebench", "t", str(n), scores=(1.0, 1.0), metrics=({"exit S": 1.0},) * 2) for n in range(9)]
    assert known_suite("swebench").figures(SuiteRun(one_end)) == []
    one_budget = [pair("termination", "t", str(n), metrics=({"score@4096": 1.0},) * 2) for n in range(9)]
    assert known_suite("termination").figures(SuiteRun(one_budget)) == []


@pytest.mark.parametrize("suite", sorted(KNOWN_SUITES.keys() - {"ruler", "needle", "cot", "decoding"}))
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e308, -1e308, -1.0, 0.0])
def test_a_metric_that_is_no_sensible_number_never_stops_a_report(suite: str, value: float) -> None:
    def spoiled(one: Pair) -> Pair:
        return Pair(*(s.model_copy(update={"metrics": dict.fromkeys(s.metrics, value)}) for s in one))

    good = list(RUNS[suite].pairs)
    for pairs in ([spoiled(p) for p in good], [spoiled(good[0]), *good[1:]]):
        for figure in known_suite(suite).figures(SuiteRun(pairs, noise=RUNS[suite].noise, kl_margin=0.05)):
            for image in drawn(figure):
                assert "nan" not in ET.tostring(image, encoding="unicode").replace("finance", "")


@pytest.mark.slow
def test_names_in_figures_are_text() -> None:
    made = [pair("cot", f"{HOSTILE}{n}", str(n), scores=(1.0, 0.0)) for n in range(3)]
    made += [
        pair("swebench", "t", str(n), scores=(1.0, 1.0), metrics=({f"exit {HOSTILE}{n}": 1.0},) * 2) for n in (1, 2)
    ]
    made += [pair("ruler", f"{HOSTILE}{n}@{4096 * n}", str(n), scores=(1.0, 0.0)) for n in (1, 2, 3)]
    for suite, run in runs(made).items():
        figures = known_suite(suite).figures(run)
        assert figures
        for figure in figures:
            markup = figure.draw("x")
            assert "<script" not in markup and "\u202e" not in markup and "\x00" not in markup
            markup.encode("utf-8")
            assert any("<script>x</script>$\\frac{" in (e.text or "") for image in drawn(figure) for e in image.iter())


def test_many_tasks_are_cut_and_the_caption_says_so() -> None:
    made = [pair("cot", f"task-{n:03d}", scores=(1.0, 0.0)) for n in range(60)]
    (figure,) = known_suite("cot").figures(SuiteRun(made))
    assert figure.finding.startswith("The first 40 of 60 tasks. The candidate is lower on 60 of 60 tasks")
    text = "".join(part for image in drawn(figure) for part in image.itertext())
    assert "task-039" in text and "task-040" not in text


def test_a_figure_is_the_same_bytes_each_time_and_small() -> None:
    (figure,) = known_suite("ruler").figures(RUNS["ruler"])
    first = figure.draw("a")
    assert figure.draw("a") == first
    assert len(first) < 60_000
    assert not re.search(r"\.\d{3}", first)  # no more than hundredths of a pixel
    ids, used = set(re.findall(r' id="([^"]+)"', first)), set(re.findall(r"url\(#([^)]+)\)", first))
    assert ids == used  # an id that nothing refers to is left out


def test_the_page_shows_the_figures_after_each_suites_first_table(tmp_path: Path) -> None:
    rng_free = [p for p in every_suite() if p.reference.suite in ("footprint", "speculative")]
    page = page_of(store(tmp_path / "run", rng_free))
    words = page.words
    assert words.index("Size and memory") < words.index("Size next to the reference") < words.index("GPUs needed")
    first, figure = words.index("Drafted tokens that were accepted"), words.index("Acceptance by position in the draft")
    assert first < figure < words.index("Share of drafts whose token")
    labels = [svg.get("aria-label") or "" for svg in page.all("svg") if svg.get("role") == "img"]
    assert (
        sum(
            label.startswith("Size next to the reference. Of the reference's: checkpoint on disk 37 %")
            for label in labels
        )
        == 1
    )


# -- colours --------------------------------------------------------------------------------------------------------


def style() -> str:
    return "".join((TEMPLATES / name).read_text("utf-8") for name in STYLES)


def test_every_ink_has_a_rule() -> None:
    rules = style()
    for ink in INKS:
        assert f".f-{ink} " in rules, ink
    for ink in ("ink", "muted", "rule", "reference", "candidate", "pass", "fail", "open"):
        assert f".s-{ink} " in rules, ink


def luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def rgb(colour: str) -> tuple[float, ...]:
    digits = colour if len(colour) == 7 else "#" + "".join(2 * d for d in colour[1:])
    return tuple(int(digits[i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_value_in_every_cell_of_a_heat_map_can_be_read(theme: str) -> None:
    start = ":root {" if theme == "light" else ':root[data-theme="dark"] {'
    blocks = [block.partition("}")[0] for block in style().split(start)[1:]]
    inks = dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]{3,6})", " ".join(blocks)))
    rules = re.findall(r"\.f-((?:heat|drop|gain)-\d) \{ fill: color-mix\(in srgb, var\((--[a-z-]+)\) (\d+)%", style())
    assert {name for name, *_ in rules} == {ink for ink in INKS if "-" in ink}
    paper, ink = rgb(inks["--paper"]), luminance(rgb(inks["--ink"]))
    for name, base, share in rules:
        part = int(share) / 100
        cell = luminance(tuple(part * a + (1 - part) * b for a, b in zip(rgb(inks[base]), paper, strict=True)))
        contrast = (max(ink, cell) + 0.05) / (min(ink, cell) + 0.05)
        assert contrast >= 4.5, (theme, name, contrast)
