"""Run folders for the tests in a browser: ordinary, hostile, unfinished, empty."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from instance_runs import instance_run, store_samples
from report_runs import judge_run, make_run, sample, small_run
from suite_runs import every_suite, store

from harness.contract.samples import ROLES, Sample
from harness.runs.folder import RunFolder
from reports.render import render

SCRIPTS = (
    "<script>owned()</script>",
    "</script><script>owned()</script>",
    "</template><img src=x onerror=owned()>",
    '"><svg onload=owned()>',
    "<iframe srcdoc='<script>parent.owned()</script>'></iframe>",
    "<img src=http://127.0.0.1:9/pixel.png>",
    "[here](javascript:owned()) <a href=javascript:owned()>here</a>",
    "<style>body{display:none}</style><link rel=stylesheet href=http://127.0.0.1:9/a.css>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<base href=http://127.0.0.1:9/><form action=http://127.0.0.1:9/><input autofocus onfocus=owned()>",
    "${owned()} {{ constructor.constructor('owned()')() }} <!-- ]]> --> \u2028 owned()",
)
SHOWN_AS = "⟨U+202E⟩gnp.exe⟨U+202C⟩ ␀ ␛[31m עברית مرحبا"
SIGNS = "\u202egnp.exe\u202c \x00 \x1b[31m עברית مرحبا"
"""What is shown in place of what a model wrote."""
LONG = 10_000_000


def hostile(path: Path) -> RunFolder:
    """Answers that would run, ask for files, turn the text around or fill the memory if they could."""
    folder = small_run(path, {"cot/word_problems": len(SCRIPTS) + 2, f"cot/{SCRIPTS[0]}": 1})
    facts = folder.manifest()
    facts.models["candidate"].name = f"evil {SCRIPTS[0]} {SCRIPTS[3]}"
    facts.servers["candidate"].readback["dtype"] = SCRIPTS[2]
    facts.stages[0].name = SCRIPTS[0]
    facts.hardware = {SCRIPTS[0]: SCRIPTS[1]}
    folder.write_manifest(facts)
    texts = {f"{number:04d}": text for number, text in enumerate(SCRIPTS)} | {
        "signs": SIGNS,
        "long": "a b " * (LONG // 4),
    }
    lines = []
    for item, text in texts.items():
        for role in ROLES:
            made = sample(role, "cot", "word_problems", item, score=float(role == "reference"))
            lines.append(made.model_dump(mode="json") | {"text": text, "answer": text[:200], "reasoning": text[:5000]})
    lines += [sample(role, "cot", SCRIPTS[0], SCRIPTS[1], error=SCRIPTS[3], score=None).model_dump() for role in ROLES]
    folder.samples_path("cot").parent.mkdir(exist_ok=True)
    folder.samples_path("cot").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    judge_run(folder)
    return folder


def swebench(path: Path) -> RunFolder:
    """Instances of SWE-bench with trajectories; one was not run by the candidate, one has hostile text."""
    folder, _ = instance_run(
        path,
        {
            "django__django-1": ("resolved", "unresolved"),
            "django__django-2": ("resolved", "resolved"),
            "sympy__sympy-3": ("unresolved", "patch does not apply"),
            "sympy__sympy-4": ("resolved", None),
        },
    )
    for place in (path / "swebench").rglob("*.traj.json"):
        stored = json.loads(place.read_text())
        for message in stored["messages"]:
            if isinstance(message.get("content"), str):
                message["content"] += f"\n{SCRIPTS[0]} {SCRIPTS[2]} {SCRIPTS[5]}"
        place.write_text(json.dumps(stored))
    store_samples(folder)
    judge_run(folder)
    return folder


def unfinished(path: Path) -> RunFolder:
    """Broken off: a suite without samples, one with half of them, one with a broken line and half a last one."""
    folder = make_run(path, verdict=False)
    folder.samples_path("divergence").unlink()
    half = folder.samples_path("ruler").read_text().splitlines(keepends=True)[:20]
    folder.samples_path("ruler").write_text("".join(half))
    whole = folder.samples_path("cot").read_text()
    broken = whole[: len(whole) // 4].rpartition("\n")[0] + '\n{"text": "half a pair: \\ud800"}\n'
    folder.samples_path("cot").write_text(broken + whole[: len(whole) // 2])
    return folder


MAKERS: dict[str, Callable[[Path], object]] = {
    "finished": lambda path: make_run(path, damage=0.3),
    "every-suite": lambda path: judged(store(path, every_suite())),
    "hostile": hostile,
    "swebench": swebench,
    "no-verdict": lambda path: make_run(path, verdict=False),
    "unfinished": unfinished,
    "empty": lambda path: small_run(path, {"cot/word_problems": 4}),
}


def judged(folder: RunFolder) -> RunFolder:
    judge_run(folder)
    return folder


class Reports:
    """The runs of MAKERS, rendered by the real render()."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Path:
        """The index page of the run of that name."""
        run = self.folder / name
        if not run.exists():
            MAKERS[name](run)
            render(run)
        return run / "report" / "index.html"

    def samples(self, name: str) -> dict[tuple[str, ...], dict[str, Sample]]:
        """Every sample of that run as it is stored: by suite, task, item and repeat, then by role."""
        self(name)
        found: dict[tuple[str, ...], dict[str, Sample]] = {}
        for one in RunFolder(self.folder / name).samples():
            found.setdefault((one.suite, one.task, one.item, str(one.repeat)), {})[one.role] = one
        return found
