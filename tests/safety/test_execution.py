"""What a model writes is data: nothing of the product evaluates text, opens a pickle, or goes through a shell."""

from __future__ import annotations

import ast
import html
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import finished

from harness.checkpoint.models import resolve_model
from harness.contract.errors import BadInput
from harness.gate.pipeline import judge_run
from reports.render import render

ROOT = Path(__file__).parents[2]
PRODUCT = [
    f for folder in ("harness", "suites", "reports", "quantizers", "kernels") for f in (ROOT / folder).rglob("*.py")
]
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_OF = {
    ("os", "system"),
    ("os", "popen"),
    ("pickle", "load"),
    ("pickle", "loads"),
    ("torch", "load"),
}


def calls(file: Path) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call))


def test_no_text_is_evaluated_and_no_pickle_opened() -> None:
    assert len(PRODUCT) > 200
    for file in PRODUCT:
        for call in calls(file):
            where = f"{file.relative_to(ROOT)}:{call.lineno}"
            if isinstance(call.func, ast.Name):
                assert call.func.id not in FORBIDDEN, where
            if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
                assert (call.func.value.id, call.func.attr) not in FORBIDDEN_OF, where
            for keyword in call.keywords:
                on = isinstance(keyword.value, ast.Constant) and bool(keyword.value.value)
                assert not (keyword.arg in ("shell", "trust_remote_code", "allow_pickle") and on), where


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_folder_of_pickles_is_refused_unopened(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(BadInput, match="pickle"):
        resolve_model(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_report_lets_no_script_run_but_its_own(tmp_path: Path) -> None:
    """The page's content policy names its one script by hash; what models wrote is JSON in which no tag can end.

    tests/browser opens such pages in a real Chromium.
    """
    run = finished(tmp_path / "run")
    path = run.samples_path("stub")
    hostile = '</script><script>alert(1)</script><img src=x onerror=alert(1)>"+alert(1)+"'
    path.write_text(path.read_text().replace("reference of run", json_text(hostile)))
    manifest = run.manifest()
    manifest.samples = run.sample_files()
    run.write_manifest(manifest)
    judge_run(run)
    page = render(run.path, single_file=True).read_text("utf-8")
    policy = html.unescape(page.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0])
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "script-src 'sha256-" in policy
    assert "<script>alert" not in page and "<img src=x" not in page and "alert(1)" in page


def json_text(text: str) -> str:
    """As it stands inside a JSON string."""
    return text.replace('"', '\\"')
