"""A section for a model card: front matter that model hubs read, the tables, and what they do not show."""

from __future__ import annotations

from collections import Counter

from reports.cards.licence import Origin, origin, public_name
from reports.cards.model_index import front_matter, source_of, to_yaml
from reports.cards.tables import how_to_repeat, how_to_serve, recovery_table
from reports.formats.markdown import MAX_LINES, SIGNS, banner_lines, check_table, escape, folded, model_table
from reports.known_suites import KNOWN_SUITES
from reports.text import one_line, percent, plural, points, short_hash
from reports.view import Report


def render_model_card(report: Report, source_url: str | None = None) -> str:
    """Front matter and Markdown: a card of its own, or to paste into the README of the quantized model.

    Raises:
        BadInput: `source_url`, where the report is published, is no http(s) address.
    """
    found = origin(report.models)
    unknown = "" if found.licence and not found.disagree else "# license: not known to quantgate; name it here.\n"
    return f"---\n{to_yaml(front_matter(report, found, source_url))}{unknown}---\n\n{card_section(report, found)}"


def card_section(report: Report, found: Origin) -> str:
    """The section by itself, for a card that is there already."""
    lines = ["## Evaluation of the quantized model", "", *recovery_table(report), *_status(report), ""]
    lines += folded("What was compared", model_table(report))
    lines += folded(f"All {plural(len(report.checks), 'check')}", check_table(report)) + _score_table(report)
    lines += how_to_serve(report, found) + how_to_repeat(report)
    lines += ["### What this does not show", "", *(f"- {line}" for line in _limits(report)), ""]
    lines += ["### Licence and attribution", "", *_licence(report, found)]
    return "\n".join(lines) + "\n"


def _status(report: Report) -> list[str]:
    sign = SIGNS.get(report.outcome, "❔")
    lines = [
        f"{sign} **{report.headline}** under policy {escape(report.policy_name)} "
        f"(`{short_hash(report.policy_sha256)}`), {escape(report.created)}. {escape(report.sentence, 900)}"
    ]
    if report.outcome != "PASS":
        lines += [
            "",
            "**This model did not pass its release checks.** This section goes only when the model goes.",
        ]
    return lines + [line for banner in report.banners for line in ("", *banner_lines(banner))]


def _score_table(report: Report) -> list[str]:
    rows = [(suite, task) for suite in report.suites for task in suite.tasks if task.reference.n]
    lines: list[str] = []
    limited = any(role.limit_rate for _, task in rows for role in (task.reference, task.candidate))
    if rows:
        lines += [
            "| Task | n | Reference | Quantized | Difference, points | Hit the token cap: reference, quantized |"
            + (" Hit a step or time limit |" if limited else ""),
            "| --- | ---: | ---: | ---: | ---: | ---: |" + (" ---: |" if limited else ""),
        ]
        lines += [
            f"| {escape(suite.name)}/{escape(task.task)} | {task.reference.n:,} | "
            f"{percent(task.reference.score)} | {percent(task.candidate.score)} | "
            f"{points(task.difference)} | "
            f"{percent(task.reference.cap_hit_rate)}, {percent(task.candidate.cap_hit_rate)} |"
            + (f" {percent(task.reference.limit_rate)}, {percent(task.candidate.limit_rate)} |" if limited else "")
            for suite, task in rows
        ]
        lines = folded(f"Scores of all {plural(len(rows), 'task')}", [*lines, ""])
    for suite in report.suites:
        if suite.divergence and suite.divergence.documents:
            d = suite.divergence
            mean = " to ".join(f"{v:.4f}" for v in (d.lower, d.upper) if v is not None)
            lines += [
                f"KL divergence from the reference: {mean} nats a position over {d.positions:,.0f} positions "
                f"of {len(d.documents):,} documents.",
                "",
            ]
    return lines


def _limits(report: Report) -> list[str]:
    asked = [(suite.name, task.task) for suite in report.suites for task in suite.tasks if task.reference.n]
    tasks = {name: [task for suite, task in asked if suite == name] for name, _ in asked}
    names = [
        name
        for suite, of in tasks.items()
        for name in ([f"{suite}/{task}" for task in of] if len(of) <= 8 else [f"{suite} ({len(of)} tasks)"])
    ]
    names += [suite.name for suite in report.suites if suite.divergence and suite.divergence.documents]
    limits = [
        f"Only this was asked: {escape(', '.join(names), 600)}. Other tasks, languages and longer contexts are unknown."
        if names
        else "Nothing was asked of this model.",
        *_not_asked(report),
        "The checks compare with the reference. They say nothing about its own faults, safety or bias.",
        "A check that holds bounds the loss by its margin; it does not show that there is none. "
        "A check with few items (n above) can only have a wide margin.",
        *_not_decided(report),
    ]
    if report.after_the_fact:
        limits.append("Judged after the fact: the margins were not all set before the answers were known.")
    if report.confidence:
        limits.append(f"Each bound is one-sided at {100 * report.confidence:g} %: of many such bounds some are wrong.")
    limits += _budget(report) + _data(report, asked)
    versions = dict(report.provenance.versions)
    if "vllm" in versions:
        limits.append(f"Served with vLLM {escape(versions['vllm'])}. Other engines and kernels may behave differently.")
    return limits + [escape(note, 600) for note in [*report.remarks, *report.notes][:MAX_LINES]]


def _not_asked(report: Report) -> list[str]:
    there = {suite.name for suite in report.suites if suite.tables}
    absent = [name for name in KNOWN_SUITES if name not in there]
    return [f"Not run: {', '.join(absent)}."] if absent and there else []


def _not_decided(report: Report) -> list[str]:
    open_ones = [row.result for row in report.checks if row.result.verdict == "INCONCLUSIVE"]
    if not open_ones:
        return []
    said = "; ".join(one_line(result.name, 100) for result in open_ones[:MAX_LINES])
    return [f"{plural(len(open_ones), 'check')} could not be decided either way: {escape(said, 1500)}."]


def _budget(report: Report) -> list[str]:
    if not report.sampling:
        return []
    settings = ", ".join(f"{name} {value}" for name, value in report.sampling)
    said = [f"Sampled with {escape(settings)}; a suite may set its own budget. Other settings are unknown."]
    tasks = [(f"{suite.name}/{task.task}", task.candidate) for suite in report.suites for task in suite.tasks]
    for rate, what in (
        ("cap_hit_rate", "Answers of the quantized model that were cut by their budget"),
        ("limit_rate", "Attempts of the quantized model that hit a step or time limit"),
    ):
        found = [f"{name} {percent(share)}" for name, role in tasks if (share := getattr(role, rate))]
        if found:
            said.append(f"{what}: {escape(', '.join(found), 900)}.")
    return said


def _data(report: Report, asked: list[tuple[str, str]]) -> list[str]:
    """Which questions anybody can get, and which only this run holds."""
    public = {(suite, task): source for suite, task in asked if (source := source_of(report, suite, task))}
    said = []
    if public:
        sets = Counter(source.hub_id for source in public.values())
        said.append(f"Public data, which either model may have seen in training: {escape(', '.join(sets), 600)}.")
    own = sorted({suite for suite, task in asked if (suite, task) not in public})
    if own:
        said.append(
            f"Not of a published data set: the items of {escape(', '.join(own), 300)} were generated or come from the "
            "policy's own files, so these scores compare with the reference's here and with nobody else's."
        )
    return said


def _licence(report: Report, found: Origin) -> list[str]:
    reference = report.model("reference")
    compared = (
        f"{escape(public_name(reference.name))} (sha256 `{reference.short_sha256}`)"
        if reference
        else "an unnamed model"
    )
    base = escape(found.base) if found.base else compared
    if found.is_reference:
        lines = [f"Derived from {compared} by quantization."]
    elif found.base:
        lines = [f"Derived by quantization from {compared}; {found.said_by} names {base} as the base model."]
    else:
        lines = [f"Derived by quantization from {compared}. No card names a base model that a hub knows."]
    name = " ".join(found.licence[key] for key in ("license", "license_name") if key in found.licence)
    if found.disagree:
        lines.append(
            f"Its cards disagree about the licence: {escape(name)} (reference), {escape(found.disagree)} (candidate). "
            "Settle that before publishing."
        )
    elif name:
        link = found.licence.get("license_link")
        lines.append(
            f"Licence: {escape(name)}{f', {escape(link)}' if link else ''}, as the {found.licence_by}'s card says. It "
            "applies to the quantized model too, and with it its terms of attribution."
        )
    else:
        lines.append(
            f"The licence is not known to this report: no card of the checkpoints names one. The licence of {base} "
            "applies, and with it its terms of attribution; look it up before publishing."
        )
    if found.files:
        lines.append(f"Keep beside the weights: {escape(', '.join(found.files))}.")
    return [" ".join(lines)]
