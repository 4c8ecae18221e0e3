"""Names out of data never lead out of a run folder: what a manifest, items or samples of anybody say stays inside."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import finished
from mutations import TEXTS

from harness.contract.errors import BadInput, GateError
from harness.contract.names import file_in
from harness.contract.samples import Item, Sample
from harness.contract.settings import Sampling
from harness.gate.pipeline import judge_run
from harness.runs.folder import RunFolder
from reports.render import render
from suites.base import make_item
from suites.decoding import Decoding, DecodingConfig
from suites.divergence.suite import Divergence, DivergenceConfig

OUT = ["../x", "../../x", "/etc/x", "a/../../x", "..", ".", "", " ", "x\x00y", "x\ny", "a\\b", "a" * 300, "\ud800"]


@pytest.mark.parametrize("name", OUT)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path / "run")
    suites = (Decoding(DecodingConfig(), Sampling(), tmp_path), Divergence(DivergenceConfig(), Sampling(), tmp_path))
    item = make_item("t", "x", []).model_copy(update={"item": name})
    for path in (run.samples_path, run.items_path, lambda n: file_in(tmp_path, n)):
        with pytest.raises(BadInput, match="is no name of a file"):
            path(name)
    for suite in suites:
        with pytest.raises(BadInput, match="is no name of a file"):
            suite._path(item, "candidate")


@given(name=TEXTS, ending=st.sampled_from(["", ".json", ".candidate.parquet"]))
def test_whatever_is_taken_lies_in_the_folder(name: str, ending: str) -> None:
    with suppress(BadInput):
        found = file_in(Path("/run/samples"), name, ending)
        assert found.parent == Path("/run/samples") and Path(str(found)).resolve().parent == Path("/run/samples")


@pytest.mark.parametrize("suite", ["../outside", "..", "a/../../outside", "x\x00y", "/tmp/outside"])
def test_a_manifest_of_anybody_reads_and_writes_nothing_outside(tmp_path: Path, suite: str) -> None:
    run = finished(tmp_path / "run")
    shutil.copy(run.items_path("stub"), tmp_path / "outside.jsonl")
    manifest = json.loads(run.manifest_path.read_text())
    manifest["items_sha256"][suite] = manifest["items_sha256"]["stub"]
    manifest["samples"][suite] = {"lines": 1, "sha256": "0"}
    run.manifest_path.write_text(json.dumps(manifest))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BadInput):
        run.planned()
    with pytest.raises(GateError):
        judge_run(run)
    page = render(run.path).read_text("utf-8")
    assert "\x00" not in page
    after = {path for path in tmp_path.rglob("*") if path.is_file()} - before.keys()
    assert after and all(path.is_relative_to(run.report_path) for path in after)


@pytest.mark.parametrize(
    "name", ["../../../x", "x\x00y", "</script><script>alert(1)</script>", "\u202ex", "a" * 500, "?*[x]"]
)
def test_items_and_tasks_of_any_name_are_shown_and_become_no_path(tmp_path: Path, name: str) -> None:
    items = [Item(task=name, item=name, prompt=[{"role": "user", "content": name}], prompt_sha256="aa")]
    run = finished(tmp_path / "run")
    manifest = run.manifest()
    manifest.items_sha256["stub"] = run.write_items("stub", items)
    run.samples_path("stub").unlink()
    with closing(run.log("stub")) as log:
        for role in ("reference", "candidate"):
            log.append(Sample(suite="stub", task=name, item=name, role=role, prompt_sha256="aa", score=1.0, text=name))
    manifest.samples = run.sample_files()
    run.write_manifest(manifest)
    judge_run(run)
    page = render(run.path)
    made = sorted(path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file())
    assert all(re.fullmatch(r"[.\w/-]+", path) for path in made), made
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    for path in (page, *(run.report_path / "samples").glob("*.js"), run.report_path / "summary.md"):
        assert "<script>alert" not in path.read_text("utf-8")
