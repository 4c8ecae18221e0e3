"""JUnit XML: one test case for each check, so that CI shows and obeys the verdict without knowing us."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from reports.check_rows import CheckRow
from reports.text import one_line, visible
from reports.view import Report


def render_junit(report: Report) -> str:
    """The report as JUnit. FAIL is a <failure>, INCONCLUSIVE an <error>: both stop a CI job.

    A file without a blocking case is green, so a run that is not judged, holds no checks, or whose verdict
    is not PASS although every check is, gets one further case that blocks.
    """
    cases = [_case(row) for row in report.checks]
    _name_apart(cases)
    blocked = any(len(case) and case[0].tag in ("failure", "error") for case in cases)
    if not blocked and (report.outcome != "PASS" or not cases):
        case = ET.Element("testcase", classname="quantgate", name="verdict", time="0")
        tag = "failure" if report.outcome == "FAIL" else "error"
        ET.SubElement(case, tag, type=report.outcome.replace(" ", "_"), message=one_line(report.sentence, 1000))
        cases.append(case)
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
    }
    seconds = f"{report.seconds:.3f}"
    after = ", judged after the fact" if report.after_the_fact else ""
    root = ET.Element("testsuites", {"name": "quantgate", **counts, "time": seconds})
    suite = ET.SubElement(
        root,
        "testsuite",
        {"name": f"quantgate {one_line(report.policy_name)}{after}", **counts, "skipped": "0", "time": seconds},
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report):
        ET.SubElement(properties, "property", name=name, value=one_line(value, 1000))
    suite.extend(cases)
    said = [*(banner.text for banner in report.banners), *report.remarks, *report.notes]
    if said:
        ET.SubElement(suite, "system-out").text = visible("\n".join(said))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _name_apart(cases: list[ET.Element]) -> None:
    """Two checks may read the same (margins that round alike): CI takes cases of one name for one case."""
    seen: dict[tuple[str, str], int] = {}
    for case in cases:
        name = case.get("classname", ""), case.get("name", "")
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            case.set("name", f"{name[1]} ({seen[name]})")


def _properties(report: Report) -> list[tuple[str, str]]:
    pairs = [
        ("verdict", report.outcome),
        ("run", report.run_id),
        ("policy", report.policy_name),
        ("policy_sha256", report.policy_sha256),
        ("sealed_policy_sha256", report.sealed_sha256),
        ("judged_after_the_fact", str(report.after_the_fact).lower()),
    ]
    pairs += [(model.role, f"{model.name} {model.sha256}".strip()) for model in report.models]
    return pairs + [("warning", banner.text) for banner in report.banners]


def _case(row: CheckRow) -> ET.Element:
    result = row.result
    case = ET.Element(
        "testcase",
        classname=one_line(f"quantgate.{result.on.split('/')[0]}"),
        name=one_line(result.name),
        time="0",
    )
    said = [
        row.both and f"reference → candidate {row.both}",
        row.recovery and f"recovery {row.recovery}",
        f"estimate {row.value}",
        f"bounds {row.interval}",
        f"margin {row.margin} {row.unit}".strip(),
        f"n {result.n}",
        f"b/c/D {row.counts}",
        f"power {row.power}",
        f"confidence {result.confidence:g}",
        result.method or "no interval",
        row.noise and f"{row.noise} ({row.noise_counts})",
    ]
    numbers = f"{', '.join(part for part in said if part)}; left out: {', '.join(row.unusable) or 'none'}"
    message = one_line("; ".join([row.reason, *row.remarks]), 1000)
    if result.verdict == "PASS":
        ET.SubElement(case, "system-out").text = f"{message}\n{numbers}"
    else:
        tag = "failure" if result.verdict == "FAIL" else "error"
        ET.SubElement(case, tag, type=result.verdict, message=message).text = numbers
    return case
