"""A proof for people: Markdown for a repository, and one page of HTML that opens from disk."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten

from markupsafe import Markup

from harness.prove.findings import Finding, Proof, Status, Weakest, cell
from reports.html import environment, source_hash, style_sheet
from reports.text import visible

MEANING: dict[Status, str] = {
    "caught": "ended as stated, and named what was stated",
    "caught otherwise": "FAIL or exit 3, for another reason than the one stated",
    "undecided": "INCONCLUSIVE, and no doubt is named that was stated: not published, and not discovered",
    "missed": "PASS of a harmful candidate",
    "harmless": "PASS of a harmless candidate",
    "false alarm": "FAIL or exit 3 of a harmless candidate",
    "not run": "nothing is known",
}
TONES: dict[Status, str] = {
    "caught": "is-pass",
    "caught otherwise": "is-pass",
    "harmless": "is-pass",
    "undecided": "is-inconclusive",
    "missed": "is-fail",
    "false alarm": "is-fail",
    "not run": "is-not-judged",
}
"""Classes of the reports' style sheet."""
LONGEST_REASON = 300
STYLE = """
.proof table { border-collapse: collapse; width: 100%; margin-top: 1rem; }
.proof :is(th, td) { padding: .4rem .8rem .4rem 0; border-top: 1px solid var(--rule); text-align: left; }
.proof td { vertical-align: top; }
.proof thead th { color: var(--muted); font-weight: 400; font-size: .85rem; }
.proof .status { color: var(--tone); font-weight: 650; white-space: nowrap; }
.proof .wide { overflow-x: auto; }
"""


def summary(proof: Proof) -> str:
    """How many of each kind, in one line. What was not run counts nowhere else."""
    ran = [finding for finding in proof.findings if finding.status != "not run"]
    harmful = [finding.status for finding in ran if not finding.harmless]
    harmless = [finding.status for finding in ran if finding.harmless]
    return (
        f"Harmful candidates: {harmful.count('caught')} of {len(harmful)} caught as stated, "
        f"{harmful.count('caught otherwise')} caught otherwise, {harmful.count('undecided')} undecided, "
        f"{harmful.count('missed')} missed. Harmless ones: {harmless.count('harmless')} of {len(harmless)} pass, "
        f"{harmless.count('undecided')} undecided, {harmless.count('false alarm')} stopped. "
        f"Not run: {len(proof.findings) - len(ran)}."
    )


def reason(finding: Finding) -> str:
    """Why, in one line of bounded length."""
    return shorten(finding.reason, LONGEST_REASON, placeholder=" …")


def markdown(proof: Proof) -> str:
    """The document: summary, what was stated and what came of it, defect × check, what was not run."""
    ran = [finding for finding in proof.findings if finding.status != "not run"]
    left = [finding for finding in proof.findings if finding.status == "not run"]
    lines = [
        "# What the gate catches",
        "",
        summary(proof),
        "",
        f"Model {_code(proof.model)} (sha256 `{proof.model_sha256[:12]}`), policy {_code(proof.policy)} (sha256 "
        f"`{proof.policy_sha256[:12]}`), quantgate {proof.quantgate_version}, {_text(proof.machine)}.",
        f"Written by {_code(proof.command)}. What each entry must lead to was stated in the catalogue "
        "(`harness/prove/`) before it was run.",
        "",
        "## What was stated, and what came of it",
        "",
        *_table(
            ("Entry", "What was done", "Stated", "Found", "Exit code", "Seconds", "of a core", "The gate's words"),
            [
                (
                    _code(f.name),
                    _text(f.damage),
                    f.expected,
                    found_in_words(f),
                    str(f.exit_code),
                    f"{f.seconds:.0f}",
                    f"{f.processor_seconds:.0f}",
                    _text(reason(f)),
                )
                for f in ran
            ],
        ),
        "",
        *(
            f"- **{status}**: {MEANING[status]}"
            for status in MEANING
            if any(f.status == status for f in proof.findings)
        ),
        "",
        "## Which check says what",
        "",
        "FAIL with the bound that breaks the margin, and the margin; `pass`; `open` where a check is INCONCLUSIVE; an "
        "entry at which the gate ended before it judged is not here. FAIL *alone* does not stand when all checks are "
        "tested together (Holm).",
        "",
        *_table(
            ("Entry", *map(_text, proof.columns)),
            [(_code(f.name), *(_text(cell(f, column)) for column in proof.columns)) for f in ran if f.checks],
        ),
        "",
        *_weakest(proof),
        "## Not run",
        "",
        *_table(
            ("Entry", "What would be done", "Stated", "Why not"),
            [(_code(f.name), _text(f.damage), f.expected, _text(reason(f))) for f in left],
        ),
    ]
    return "\n".join(lines) + "\n"


def found_in_words(finding: Finding) -> str:
    """What came of an entry; where other seeds came to something else, that too."""
    others = [status for status in finding.seeds if status != finding.status]
    return finding.status + (f" (other seeds: {', '.join(others)})" if others else "")


def dose_in_words(found: Weakest) -> str:
    """From which dose on a defect is caught."""
    if found.caught is None:
        return "not even the strongest dose is caught as stated"
    below = f", not at {found.not_caught}" if found.not_caught else ", the weakest that was tried"
    return f"from {found.caught} on{below}"


def _weakest(proof: Proof) -> list[str]:
    if not proof.weakest:
        return []
    rows: list[tuple[str, ...]] = [
        (_code(w.name), _text(w.damage), dose_in_words(w), "; ".join(f"{dose}: {s}" for dose, s in w.tried.items()))
        for w in proof.weakest
    ]
    return [
        "## The weakest dose that is caught",
        "",
        "Found by bisection, which takes what is stronger than a dose that is caught to be caught too. A dose counts "
        "where it is caught as stated.",
        "",
        *_table(("Entry", "What was done, at the stated dose", "Caught", "Tried"), rows),
        "",
    ]


def page(proof: Proof) -> str:
    """The same as one file of HTML without script, under a content policy that loads nothing."""
    style = style_sheet() + STYLE
    template = environment().from_string((Path(__file__).parent / "page.html.j2").read_text("utf-8"))
    return template.render(
        proof=proof,
        summary=summary(proof),
        style=Markup(style),
        content_policy=f"default-src 'none'; style-src '{source_hash(style)}'; base-uri 'none'; form-action 'none'",
        ran=[finding for finding in proof.findings if finding.status != "not run"],
        left=[finding for finding in proof.findings if finding.status == "not run"],
        meaning=MEANING,
        tones=TONES,
        cell=cell,
        found_in_words=found_in_words,
        dose_in_words=dose_in_words,
        reason=reason,
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return ["None."]
    return [_row(head), _row(("---",) * len(head)), *map(_row, rows)]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    return f"`{visible(text).replace('`', '').replace('|', '')}`"


def _text(text: str) -> str:
    """Text of others inside a table: nothing in it is markup."""
    found = visible(text)
    for mark in "\\`*_<>[]|":
        found = found.replace(mark, f"\\{mark}")
    return found
